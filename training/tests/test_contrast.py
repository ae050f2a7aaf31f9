"""Run with `python -m pytest tests` in this folder."""
import math
import os
import sys

import numpy as np
import torch

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import contrast
from composer.theory import HALF_FRAMES, bpm_of
from config import CODEBOOK_SIZE, CODEBOOKS
from test_wordpieces import toy_words


def texts(tok, *captions):
    rows = [tok.encode(c).ids for c in captions]
    out = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for row, ids in zip(out, rows):
        row[:len(ids)] = ids
    return out


def meant(bpm):
    return min(HALF_FRAMES, key=lambda half: abs(bpm_of(half) - bpm))


def test_only_the_tempo_changes_and_never_to_half_or_double():
    tok, rng = toy_words(), np.random.default_rng(0)
    other = contrast.OtherTempo(tok)
    text = texts(tok, "rock, 128 bpm", "rain and guitar", "64 bpm 128 bpm", "at 174 bpm rock")
    for _ in range(200):
        wrong, named = other(rng, text)
        assert named.tolist() == [True, False, False, True]
        changed = wrong != text
        assert changed.sum(1).tolist() == [1, 0, 0, 1]
        for row, bpm in ((0, 128), (3, 174)):
            said = other.bpm[wrong[row][changed[row]]][0]
            assert abs(math.log2(said / bpm)) < 0.8 and meant(said) != meant(bpm)


def test_the_right_tempo_must_be_the_likelier_one():
    alike = torch.full((2, CODEBOOKS, 11), math.log(CODEBOOK_SIZE))
    named = torch.tensor([True, False])
    assert abs(float(contrast.loss(alike, alike, named)) - math.log(2)) < 1e-5
    knows = alike.clone()
    knows[0, 0, 2] = 0.02
    assert contrast.loss(knows, alike, named) < 0.01 < 4 < contrast.loss(alike, knows, named)
    # What names no tempo is not asked.
    assert float(contrast.loss(knows, alike, torch.tensor([False, False]))) == 0
