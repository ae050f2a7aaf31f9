"""The tempo grid: a bar is a whole number of codec frames, so that a bar that repeats has the same
codes. Tempi and their words are those of `composer/theory.py`."""
from composer.theory import HALF_FRAMES, asked_bpm, bpm_of

SR = 32000
FRAME = 1280            # samples per codec frame (25 Hz)
STEP = FRAME // 8       # a sixteenth is `half` of these
GRID = FRAME // 2       # every note begins and ends on it, and on a block of the synthesiser (64 samples)


def pick_tempo(rng, span):
    low, high = span
    if rng.random() < 0.12:
        low, high = max(60, low * 0.8), min(178, high * 1.2)
    return int(rng.choice([h for h in HALF_FRAMES if low * 0.985 <= bpm_of(h) <= high * 1.015]))
