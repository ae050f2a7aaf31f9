"""Tunes: a motif of one bar makes a call of two bars and an answer of two, over any chords."""
import numpy as np

from . import harmony

STARTS = [0, 2, 3, 4, 6, 8, 10, 11, 12, 14]
WEIGHTS = np.array([3, 1, .7, 2, 1.4, 2.4, 1.2, .7, 2, 1])


def motif(rng, density):
    """(step, length, move in scale steps) of the notes of a bar; density 0 to 1."""
    count = int(np.clip(round(rng.normal(2 + 6 * density, 0.8)), 1, 9))
    starts = sorted(rng.choice(STARTS, size=count, replace=False, p=WEIGHTS / WEIGHTS.sum()))
    if rng.random() < 0.7:
        starts = sorted({0, *starts})
    ends = [*starts[1:], 16]
    moves = rng.choice([-2, -1, -1, 1, 1, 2, 3], size=len(starts))
    return [(int(s), int(min(e - s, 8)), int(m)) for s, e, m in zip(starts, ends, moves)]


class Tune:
    """Two motifs, and where the tune begins: `bar` gives the notes of any bar."""

    def __init__(self, rng, density, low):
        self.call, self.reply = motif(rng, density), motif(rng, density * 0.8)
        self.low, self.start = low, int(rng.integers(0, 3))

    def bar(self, index, chord_classes, scale):
        """(step, length, note) of bar `index` of a four-bar phrase: on a chord tone where it is
        strong, in steps between; the answer ends on the root and rests."""
        index %= 4
        pattern = self.call if index in (0, 1) else self.reply
        if index == 3:
            pattern = [n for n in pattern if n[0] < 8]
        tones = [harmony.near(c, self.low) for c in chord_classes]
        note = tones[(self.start + index) % len(tones)]
        out = []
        for i, (step, length, move) in enumerate(pattern):
            if i:
                note = harmony.step(scale, note, move if index != 1 else -move)
            if step % 8 == 0:
                note = min((t + o for t in tones for o in (-12, 0, 12)), key=lambda t: abs(t - note))
            note = self.fold(note)
            out.append((step, length, note))
        if index == 3 and out:
            step, _, _ = out[-1]
            out[-1] = (step, 16 - step, self.fold(harmony.near(chord_classes[0], self.low)))
        return out

    def fold(self, note):
        while note > self.low + 19:
            note -= 12
        while note < self.low - 3:
            note += 12
        return note
