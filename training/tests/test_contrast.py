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
    other = contrast.Other(tok, tempo=1)
    text = texts(tok, "rock, 128 bpm", "rain and guitar", "64 bpm 128 bpm", "at 174 bpm rock")
    for _ in range(200):
        wrong, asked = other(rng, text, 4)
        assert asked.tolist() == [True, False, False, True]
        changed = wrong != text
        assert changed.sum(1).tolist() == [1, 0, 0, 1]
        for row, bpm in ((0, 128), (3, 174)):
            said = other.bpm[wrong[row][changed[row]]][0]
            assert abs(math.log2(said / bpm)) < 0.8 and meant(said) != meant(bpm)


def test_a_caption_of_another_window_is_wrong_and_the_same_one_is_not():
    tok = toy_words()
    text = texts(tok, "rock, 128 bpm", "rain and guitar", "rain and guitar", "at 174 bpm rock")
    wrong, asked = contrast.Other(tok, tempo=0)(np.random.default_rng(0), text, 3)
    assert asked.tolist() == [True, True, False]
    assert np.array_equal(wrong, text[[3, 0, 1]])


def test_most_captions_with_a_tempo_only_get_another_one():
    tok, rng = toy_words(), np.random.default_rng(0)
    text = texts(tok, "rock, 128 bpm", "rain and guitar")
    whole = [np.array_equal(contrast.Other(tok)(rng, text, 1)[0][0], text[1]) for _ in range(200)]
    assert abs(sum(whole) / 200 - (1 - contrast.TEMPO)) < 0.12


def test_the_right_tempo_must_be_the_likelier_one():
    alike = torch.full((2, CODEBOOKS, 11), math.log(CODEBOOK_SIZE))
    asked = torch.tensor([True, False])
    assert abs(float(contrast.loss(alike, alike, asked)) - math.log(2)) < 1e-5
    knows = alike.clone()
    knows[0, 0, 2] = 0.02
    assert contrast.loss(knows, alike, asked) < 0.01 < 4 < contrast.loss(alike, knows, asked)
    # Who is not asked does not count.
    assert float(contrast.loss(knows, alike, torch.tensor([False, False]))) == 0
