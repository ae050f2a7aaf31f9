"""`make_piece(seed)` composes a piece, plays it, and says what is in it."""
import numpy as np

from .captions import make_caption, section_captions
from .fluid import FONT, player
from .harmony import NOTE_NAMES
from .room import in_room, master, rain
from .score import Score
from .styles import NAMES
from .tempo import FRAME, SR, bpm_of


def describe(seed, score):
    """What is in a score, for captions and measures. Sections are given in codec frames."""
    bar, at, parts = 2 * score.half, 0, []
    for section in score.form:
        if at < score.frames:
            parts.append(dict(name=section.name, level=section.level, start=at, end=min(score.frames, at + section.bars * bar),
                              root=(score.root + section.lift) % 12))
        at += section.bars * bar
    drums = any(n.role == "drums" for n in score.notes)
    return dict(seed=int(seed), style=score.style, bpm=bpm_of(score.half), half=score.half, root=score.root,
                key=NOTE_NAMES[score.root], scale=score.scale(), cast=score.cast, kit=score.kit if drums else None,
                groove=score.groove, sections=parts)


def make_piece(seed, seconds=64.0, style=None, half=None, font=FONT):
    """Audio [2, samples] at 32 kHz that starts on a bar line, and a dict of what is in it."""
    rng = np.random.default_rng(seed)
    style = style or str(rng.choice(NAMES))
    frames = int(round(seconds * SR / FRAME))
    score = Score(rng, style, frames, half)
    audio = in_room(player(font).play(score, frames * FRAME), score.spec["room"])
    if score.spec["noise"]:
        period = 16 * score.step
        audio = audio * 0.9 + np.tile(rain(period), (1, audio.shape[1] // period + 1))[:, : audio.shape[1]]
    info = describe(seed, score)
    info["captions"] = [make_caption(rng, info) for _ in range(8)]
    for part in info["sections"]:
        part["captions"] = section_captions(rng, info, part, 3)
    return master(audio), info
