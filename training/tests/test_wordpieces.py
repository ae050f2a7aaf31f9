"""Run with `python -m pytest tests` in this folder."""
import os
import sys

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import wordpieces

WORDS = ["[PAD]", "[unused0]", "\u4e00", "the", "rock", "metal", "guitar", "rain", "128", "play", "##ing", "##s", "ing",
         *"abcdefghijklmnopqrstuvwxyz", *"0123456789", *("##" + c for c in "abcdefghijklmnopqrstuvwxyz0123456789"), ",", "-"]


def table():
    rng = np.random.default_rng(0)
    vectors = rng.normal(0, 1, (len(WORDS), 32)).astype(np.float32)
    vectors[WORDS.index("metal")] = vectors[WORDS.index("rock")] + 0.3 * rng.normal(0, 1, 32)
    return wordpieces.build(WORDS, vectors, 8)


def toy_words():
    return table()[0]


def test_a_word_is_spelled_by_the_fewest_pieces():
    tok, _ = table()
    assert tok.encode("playing rocks").tokens == ["\u2581play", "ing", "\u2581rock", "s", "</s>"]


def test_every_tempo_is_one_piece():
    tok, _ = table()
    for bpm in (60, 128, 174):
        assert f"\u2581{bpm}" in tok.encode(f"guitar, {bpm} bpm").tokens


def test_near_tempi_are_alike_and_no_other_numbers():
    bpm = np.array(wordpieces.TEMPI)
    rows = np.stack([wordpieces.tempo(n, 64) for n in bpm])
    assert np.allclose((rows ** 2).mean(1), 1)
    near = rows @ rows.T / 64
    apart = np.abs(np.log2(bpm[:, None] / bpm))
    assert near[apart < np.log2(1.01)].min() > 0.9 and near[apart > np.log2(1.04)].max() < 0.85
    assert np.abs(near[apart > np.log2(1.5)]).max() < 0.6
    tok, table_rows = table()
    assert np.allclose(table_rows[tok.encode("128").ids[0]], wordpieces.tempo(128, 8), atol=1e-6)


def test_any_typed_word_has_a_spelling_and_case_does_not_matter():
    tok, rows = table()
    assert tok.token_to_id("<unk>") not in tok.encode("Zydeco Qwx-9").ids
    assert tok.encode("ROCK Café").ids == tok.encode("rock cafe").ids
    assert tok.get_vocab_size() == len(rows) and not rows[:3].any()


def test_words_that_are_used_alike_are_near():
    tok, rows = table()
    near = lambda a, b: float(wordpieces.meaning(tok, rows, a) @ wordpieces.meaning(tok, rows, b))
    assert near("rock", "metal") > max(near("rock", "rain"), near("rock", "guitar"))
    assert wordpieces.nearest(tok, rows, "metal", dict(wet=["rain"], loud=["rock"])) == "loud"
