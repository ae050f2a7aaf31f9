"""Run with `python -m pytest tests` in this folder."""
import os
import sys
from types import SimpleNamespace

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import band.captions
import phrases
from band.piece import describe
from band.score import Score
from band.words import KNOWN, STYLE_WORDS as BAND, USES
from composer.captions import STANDS_FOR, make_caption
from composer.styles import NAMES
from gates.prompts import FREE, STRANGE
from windows import NAMED

INFO = dict(style="strings", bpm=75.0, half=40, root=7, scale="major", energy=1, instruments=["strings", "cello"], kit=None)


def test_every_style_of_the_band_has_something_that_is_played_for_it():
    assert set(STANDS_FOR) | set(NAMES) == set(BAND) and not set(STANDS_FOR) & set(NAMES)
    assert all(set(instead) <= set(NAMES) for instead in STANDS_FOR.values())
    assert set(KNOWN) == set(USES) == set(BAND)


def test_a_piece_is_also_called_by_what_it_stands_for_and_by_free_phrases():
    rng, free = np.random.default_rng(0), {"strings": ["a lake in winter"]}
    said = [make_caption(rng, INFO, free) for _ in range(600)]
    names = sum(any(w in text for w in BAND["trailer"]) for text in said)
    assert sum("a lake in winter" in text for text in said) > 60 and names > 3
    assert not any("a lake" in make_caption(rng, INFO) for _ in range(200))


def test_only_a_tempo_counts_as_a_named_tempo():
    assert NAMED.search("techno, 128 bpm") and NAMED.search("tempo 90 bpm, dub") and not NAMED.search("808 trap in the 80s")


def test_phrases_hold_nothing_that_a_gate_asks():
    """Some prompts are single words of the vocabulary."""
    reader = SimpleNamespace(words=["monks", "chopin", "jamaica", "lake", "winter", "[PAD]", "##s"])
    texts = phrases.asked(reader, np.random.default_rng(0), 500)
    assert {"lake", "winter"} <= set(texts) and len(texts) > 490
    assert not set(texts) & ({p for p, _ in FREE} | set(STRANGE))


def test_the_band_is_called_by_names_examples_and_free_phrases_too():
    rng, free = np.random.default_rng(0), {"jazz": ["a lake in winter"]}
    info = describe(1, Score(rng, "jazz", 400))
    part = info["sections"][0]
    said = [band.captions.make_caption(rng, info, phrases=free) for _ in range(300)]
    said += band.captions.section_captions(rng, info, part, 300, free)
    for words in (["a lake in winter"], KNOWN["jazz"], BAND["jazz"]):
        assert 10 < sum(any(w in text for w in words) for text in said) < 500
    assert not any("a lake" in band.captions.make_caption(rng, info) for _ in range(200))
