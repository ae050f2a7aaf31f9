"""All styles as tables. Lists of instruments are alternatives; `grooves` are drum, bass and chord
rhythms that always play together."""
from .styles_acoustic import ACOUSTIC
from .styles_electric import ELECTRIC

DEFAULTS = dict(
    hold=1, swing=0.0, kit=["standard"], room=0.12, lifts=(0, 2), bass=[], chords=[], pad=[], lead=[], answer=[], arp=[],
    arp_every=2, density=0.45, loud=1.0, noise=None, fills=True)


def _with_defaults(spec):
    unknown = set(spec) - set(DEFAULTS) - {"bpm", "forms", "progs", "grooves"}
    assert not unknown, unknown
    return dict(DEFAULTS, **spec)


STYLES = {name: _with_defaults(spec) for name, spec in {**ELECTRIC, **ACOUSTIC}.items()}
NAMES = list(STYLES)
