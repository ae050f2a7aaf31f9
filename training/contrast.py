"""Another caption, or the same one with another tempo, to learn the difference from.

What music it is and how fast it goes is decided by a few codes of its first beat; all that follow can be heard from
these. Of three nats in a window the mean over all codes shows almost nothing, and a decoder learns the music long before it
listens. So a window is also asked which of two captions it belongs to. The one that says so best is the decoder whose
likelihoods are right, so nothing else is bent by it."""
import numpy as np
import torch.nn.functional as F

from composer.theory import HALF_FRAMES, asked_bpm, bpm_of
from wordpieces import TEMPI

WEIGHT = 0.3
OF_ROWS = 2                     # one row of so many is asked
TEMPO = 0.75                    # share of captions with a tempo that only get another one
FARTHEST = 0.7                  # octaves between the two tempi: never half or double
NEIGHBOUR = 0.6                 # share of those that are next to each other, and most alike


class Other:
    """Wrong captions. `tempo` is the share of those with a tempo that only get another one; the others become the caption of
    another window."""

    def __init__(self, tok, tempo=TEMPO):
        self.pieces = np.array([tok.token_to_id(f"\u2581{n}") for n in TEMPI])
        self.bpm = np.zeros(tok.get_vocab_size(), np.int64)
        self.bpm[self.pieces] = TEMPI
        self.tempo = tempo

    def __call__(self, rng, text, rows):
        """For the first `rows` captions of `text` [rows or more, words]: wrong ones, and which of them are wrong."""
        other = text[:rows].copy()
        named = (self.bpm[other] > 0).sum(1) == 1
        for row in range(rows):
            if named[row] and rng.random() < self.tempo:
                at = int(np.argmax(self.bpm[text[row]]))
                other[row, at] = self.pieces[another(rng, self.bpm[text[row, at]]) - TEMPI.start]
            elif self.tempo < 1:
                other[row] = text[row - 1]
        return other, (other != text[:rows]).any(1)


def another(rng, bpm):
    """What another tempo of the grid is called than the one that `bpm` means."""
    grid = np.array([bpm_of(half) for half in HALF_FRAMES])
    meant = int(np.abs(grid - bpm).argmin())
    near = [i for i in (meant - 1, meant + 1) if 0 <= i < len(HALF_FRAMES)]
    far = [i for i in np.flatnonzero(np.abs(np.log2(grid / bpm)) < FARTHEST) if i != meant]
    chosen = near if rng.random() < NEIGHBOUR else far
    return round(asked_bpm(rng, HALF_FRAMES[chosen[rng.integers(len(chosen))]]))


def loss(right, wrong, asked):
    """Of the choice between two captions, by the nats [rows, K, columns] under each, of the rows that are asked."""
    return (F.softplus(right.sum((1, 2)) - wrong.sum((1, 2))) * asked).sum() / asked.sum().clamp(min=1)
