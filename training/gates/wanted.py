"""What each gate wants, in one table, and the verdict."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Want:
    measure: str
    sign: str       # "<" or ">"
    limit: float
    unit: str = ""
    what: str = ""


WANTED = {
    "codec": (
        Want("note_f1", ">", 0.45, "", "notes kept: onset and pitch, basic-pitch on both sides"),
        Want("chroma", ">", 0.93, "", "cosine of chroma, mean over time"),
        Want("side_mid_db", ">", -14, "dB", "sides over middle, of what comes out"),
        Want("times_real_time", ">", 30, "x", "decoding by Continuo on two cores"),
    ),
    "decoder": (
        Want("still_share", "<", 0.03, "", "clips with more than 4 s of nothing new"),
        Want("same_harmony_s", "<", 32, "s", "longest same harmony in ten minutes, worst stream"),
        Want("pitch_classes", ">", 4.8, "", "effective pitch classes, tuneful styles"),
        Want("notes_per_s", ">", 6, "", "basic-pitch"),
        Want("tempo_found", ">", 0.9199, "", "within 4 %, half and double allowed, madmom"),
        Want("beat_spread", "<", 0.015, "", "spread of beat intervals, styles with drums, madmom"),
        Want("movement_db", ">", 2.5, "dB", "loudness of 3 s, 5th to 95th percentile"),
        Want("balance_db", "<", 2.5, "dB", "third-octave balance against recorded music"),
        Want("distance_ratio", "<", 0.986, "", "distance to recorded music over that of the model before (7 of 7.1)"),
    ),
    "words": (
        Want("right", ">", 29, "of 40", "free prompts in a style that a person expects"),
        Want("strange_hard", "<", 0.21, "", "share of words without meaning that end in a hard style"),
    ),
    "limits": (
        Want("file_mb", "<", 40, "MB", "the checkpoint in f16"),
        Want("times_real_time", ">", 5, "x", "Continuo on two cores, with guidance"),
        Want("first_sound_ms", "<", 50, "ms", ""),
    ),
}


def passes(want, value):
    return value is not None and (value < want.limit if want.sign == "<" else value > want.limit)


def is_worse(want, old, new):
    """Whether a limit is missed by more than before; what is not measured any more is worse."""
    if old is None or passes(want, new):
        return False
    return new is None or (new > old if want.sign == "<" else new < old)


def verdict(gate, after, before=None):
    """Lines of a table, and whether all is reached. What was not measured is not reached."""
    worse = [w.measure for w in WANTED[gate] if is_worse(w, (before or {}).get(w.measure), after.get(w.measure))]
    lines, good = [f"{'measure':18} {'before':>9} {'after':>9}   wanted"], True
    for want in WANTED[gate]:
        old, new = (before or {}).get(want.measure), after.get(want.measure)
        ok = passes(want, new)
        good &= ok
        show = lambda v: "-" if v is None else f"{v:.3g}"
        lines.append(f"{want.measure:18} {show(old):>9} {show(new):>9}   {want.sign} {want.limit:g} {want.unit:6} "
                     f"{'reached' if ok else 'NOT REACHED':12} {want.what}")
    if before:
        lines.append(f"worse than before: {', '.join(worse) or 'nothing'}")
    lines.append(f"gate {gate}: {'passed' if good else 'refused'}")
    return lines, good
