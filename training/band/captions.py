"""Captions in many wordings, made from what is really played."""
from . import form
from .harmony import NOTE_NAMES
from .instruments import INSTRUMENTS, KIT_WORDS
from .tempo import asked_bpm
from .words import KNOWN, MOODS, STYLE_WORDS, USES

SPEEDS = ((80, ["slow", "slow tempo", "downtempo", "leisurely"]), (118, ["medium tempo", "mid tempo", "moderate", "walking pace"]),
          (999, ["fast", "fast tempo", "up-tempo", "quick"]))
ENERGY = {0: ["sparse", "bare", "quiet", "minimal"], 1: ["soft", "light", "restrained", "gentle"],
          2: ["steady", "medium energy", "flowing"], 3: ["full", "high energy", "powerful", "big"]}
SAD, GLAD = ["sad", "dark", "melancholic", "minor key", "serious"], ["happy", "bright", "major key", "cheerful", "hopeful"]
FORMS = ("{head}", "{head}, {rest}", "{head} {rest}", "{head} with {cast}", "{head} with {cast}, {rest}", "{cast}, {head}",
         "{head} {use}", "{head} {use}, {rest}", "{use}, {head}", "{mood} {head}", "{mood} {head}, {rest}", "a {mood} {head} piece with {cast}",
         "{mood} music {use}", "some {head} {use}", "{mood} {cast}, {rest}", "i want {head}", "play {mood} {head} with {cast}", "{use}")


def pick(rng, items):
    return str(items[rng.integers(len(items))])


def cast_words(rng, info, most):
    """Instruments of a piece by name: the tune first, for that is what people hear."""
    roles = [r for r in ("lead", "chords", "arp", "bass", "pad", "answer") if r in info["cast"]]
    order = roles[:1] + [roles[1:][i] for i in rng.permutation(len(roles) - 1)] if roles else []
    names = [pick(rng, INSTRUMENTS[info["cast"][r]].words) for r in order]
    if info["kit"] and rng.random() < 0.4:
        names.append(pick(rng, KIT_WORDS[info["kit"]]))
    names = list(dict.fromkeys(names))[:most]
    return pick(rng, [" and ", ", ", " with "]).join(names)


def details(rng, info, level=None):
    """Tempo, key, mood and energy, each now and then."""
    out = []
    if rng.random() < 0.65:
        out.append(pick(rng, ["%d bpm", "at %d bpm", "%d BPM", "tempo %d", "%dbpm"]) % asked_bpm(rng, info["half"]))
    elif rng.random() < 0.5:
        out.append(pick(rng, next(words for limit, words in SPEEDS if info["bpm"] < limit)))
    minor = info["scale"] in ("minor", "dorian", "phrygian")
    if rng.random() < 0.25:
        out.append(f"in {NOTE_NAMES[info['root']]} {'minor' if minor else 'major'}")
    elif rng.random() < 0.2:
        out.append(pick(rng, SAD if minor else GLAD))
    if level is not None and rng.random() < 0.4:
        out.append(pick(rng, ENERGY[level]))
    if info["kit"] is None and rng.random() < 0.2:
        out.append(pick(rng, ["no drums", "without drums", "beatless"]))
    return [out[i] for i in rng.permutation(len(out))]


def head_of(rng, info, phrases=None):
    """What a piece is called: by its style, by a well-known example of it, or by a phrase that is near to it (see
    `phrases.py`)."""
    style, kind = info["style"], rng.random()
    if phrases and kind < 0.25:
        return pick(rng, phrases[style])
    if kind > 0.9:
        return pick(rng, KNOWN[style])
    if style == "solo":
        return pick(rng, ["solo {}", "{} solo", "{} alone", "unaccompanied {}", "just {}", "a single {}"]).format(
            pick(rng, INSTRUMENTS[info["cast"]["lead"]].words))
    return pick(rng, STYLE_WORDS[style])


def make_caption(rng, info, level=None, phrases=None):
    """One caption for a whole piece, or for a section of some level."""
    style, head = info["style"], head_of(rng, info, phrases)
    wording = pick(rng, FORMS)
    rest = pick(rng, [", ", " "]).join(details(rng, info, level))
    text = wording.format(head=head, rest=rest, cast=cast_words(rng, info, int(rng.integers(1, 4))), use=pick(rng, USES[style]),
                          mood=pick(rng, MOODS[style]))
    return text.replace(" ,", ",").strip(" ,")


def section_captions(rng, info, part, count, phrases=None):
    """Captions of a section: those of the piece in its key, with a word of form."""
    info = dict(info, root=part["root"])
    out = []
    for _ in range(count):
        word, text = pick(rng, form.WORDS[part["name"]]), make_caption(rng, info, part["level"], phrases)
        out.append(pick(rng, ["{t}, {w}", "{w}, {t}", "{w} of {t}", "{t} {w}"]).format(t=text, w=word))
    return out
