"""Song form: what follows what, how much of the band plays, and the words for it."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    name: str       # word of the trade
    bars: int
    level: int      # 0 bare to 3 full
    part: str       # "A", "B" or "C": which progression and tune
    lift: int = 0   # semitones by which the key is moved


# (name, bars, level, part): a piece takes as many as its length holds, and may begin later
# than at the first.
FORMS = {
    "song": ("intro 4 1 A", "verse 8 2 A", "chorus 8 3 B", "verse 8 2 A", "chorus 8 3 B", "break 4 0 C", "chorus 8 3 B+", "ending 4 1 A"),
    "dance": ("intro 4 1 A", "build 4 2 A", "drop 8 3 A", "break 4 0 B", "build 4 2 B", "drop 8 3 B", "drop 8 3 A", "ending 4 1 A"),
    "loop": ("intro 4 1 A", "verse 8 2 A", "chorus 8 3 B", "break 4 1 A", "verse 8 2 A", "chorus 8 3 B"),
    "tune": ("verse 8 2 A", "verse 8 2 A", "chorus 8 3 B", "verse 8 2 A", "break 4 0 C", "chorus 8 3 B+", "ending 4 1 A"),
    "swell": ("intro 4 0 A", "verse 8 1 A", "verse 8 2 B", "chorus 8 3 B", "break 4 0 A", "chorus 8 3 A", "ending 4 1 A"),
    "theme": ("intro 4 1 A", "verse 8 1 A", "build 4 2 C", "chorus 8 3 B", "break 4 0 C", "build 4 2 A", "chorus 8 3 B+", "ending 4 1 A"),
}
WORDS = {
    "intro": ["intro", "introduction", "opening", "the beginning"],
    "verse": ["verse", "main part", "groove", "steady part"],
    "chorus": ["chorus", "hook", "full band", "big chorus", "refrain"],
    "build": ["build-up", "rising", "building tension", "getting louder"],
    "drop": ["drop", "main drop", "full energy", "peak"],
    "break": ["break", "breakdown", "quiet part", "bridge", "stripped down"],
    "ending": ["ending", "outro", "final part", "closing"],
}


def sections(rng, kind, lift, bars):
    """Sections that fill `bars` bars. The last chorus is lifted into another key, by `lift` semitones."""
    out = []
    plan = FORMS[kind]
    at = int(rng.integers(0, 3)) if rng.random() < 0.4 else 0
    while sum(s.bars for s in out) < bars:
        name, count, level, part = plan[at % len(plan)].split()
        out.append(Section(name, int(count), int(level), part[0], lift if part.endswith("+") else 0))
        at += 1
    return out
