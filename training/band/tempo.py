"""The tempo grid: a bar is a whole number of codec frames, so that a bar that repeats has the same
codes. Tempi and their words are those of `composer/theory.py`."""
from composer.theory import HALF_FRAMES, asked_bpm, bpm_of

SR = 32000
FRAME = 1280            # samples per codec frame (25 Hz)
STEP = FRAME // 8       # a sixteenth is `half` of these
GRID = FRAME // 2       # every note begins and ends on it, and on a block of the synthesiser (64 samples)


def tempi(span):
    """Those of the grid from `span[0]` to `span[1]` bpm."""
    low, high = span
    return [half for half in HALF_FRAMES if low * 0.985 <= bpm_of(half) <= high * 1.015]


def tempo_of(song, songs, span):
    """The tempo of a song of a style: together its songs have all tempi of its span, or as many as there are songs, from end to end."""
    grid = tempi(span)
    return grid[song % len(grid)] if len(grid) <= songs else grid[round(song * (len(grid) - 1) / (songs - 1))]
