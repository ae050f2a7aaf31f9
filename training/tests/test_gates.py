"""Run with `python -m pytest tests/test_gates.py` in this folder, with `requirements-gates.txt` installed."""
import os
import sys

import numpy as np
import pytest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

pytest.importorskip("librosa")
from band import words
from band.styles import NAMES
from gates import embedding, hearing, prompts, wanted

RATE = 22050


def tone(notes, seconds, rate=RATE):
    t = np.arange(int(seconds * rate)) / rate
    return sum(0.1 * np.sin(2 * np.pi * 440 * 2 ** ((n - 69) / 12) * t) for n in notes).astype(np.float32)


def test_a_held_chord_stands_still_and_a_beat_does_not():
    held = tone((57, 60, 64), 12)
    beat = np.zeros_like(held)
    for at in range(0, len(beat) - 2000, RATE // 2):
        beat[at:at + 2000] += np.random.default_rng(0).normal(0, 0.3, 2000).astype(np.float32) * np.linspace(1, 0, 2000, dtype=np.float32)
    assert hearing.still_seconds(held, RATE) >= 10 and hearing.still_seconds(held + beat, RATE) <= 0.5


def test_harmony_lasts_as_long_as_its_chord():
    one, other = (57, 60, 64), (55, 59, 62)
    assert hearing.same_harmony_seconds(tone(one, 24), RATE) == 24
    assert hearing.same_harmony_seconds(np.concatenate([tone(c, 4) for c in (one, other) * 3]), RATE) <= 8


def test_pitch_classes_are_counted_by_their_durations():
    even = [(i, i + 1.0, 60 + n) for i, n in enumerate((0, 2, 4, 5))]
    assert abs(hearing.pitch_classes(even) - 4) < 1e-6 and hearing.pitch_classes([(0, 9, 60)]) == 1


def test_a_tempo_is_found_at_half_and_double_too():
    for bpm in (60, 120, 240):
        assert hearing.tempo_found(np.arange(0, 20, 60 / bpm), 120)
    assert not hearing.tempo_found(np.arange(0, 20, 60 / 90), 120)


def test_sides_are_measured_against_the_middle():
    x = tone((60,), 1)
    assert hearing.side_mid_db(np.stack([x, x], 1)) < -80 and abs(hearing.side_mid_db(np.stack([x, 0 * x], 1))) < 0.1


def test_a_set_is_near_to_itself():
    rng = np.random.default_rng(0)
    draw = lambda shift: [v / np.linalg.norm(v) for v in rng.normal(shift, 1, (40, 8))]
    assert abs(embedding.distance(draw(0), draw(0))) < 0.2 * embedding.distance(draw(0), draw(1))


def test_a_gate_passes_only_when_every_measure_is_there_and_reached():
    reached = {w.measure: w.limit * (0.9 if (w.sign == "<") == (w.limit > 0) else 1.1) for w in wanted.WANTED["decoder"]}
    assert wanted.verdict("decoder", reached)[1]
    assert not wanted.verdict("decoder", dict(reached, still_share=0.25))[1]
    del reached["notes_per_s"]
    assert not wanted.verdict("decoder", reached)[1]


def test_a_milestone_is_told_what_is_worse_than_before():
    before = dict(still_share=0.17, tempo_found=0.93, beat_spread=0.046, notes_per_s=4.7)
    told = lambda **after: next(l for l in wanted.verdict("decoder", after, before)[0] if l.startswith("worse"))
    better = dict(still_share=0.0, tempo_found=0.92, beat_spread=0.04, notes_per_s=5.8)
    assert told(**better) == "worse than before: nothing"
    assert told(**dict(better, tempo_found=0.9, notes_per_s=None)) == "worse than before: notes_per_s, tempo_found"


def test_free_prompts_are_forty_and_none_was_trained_on():
    captions = {w.lower() for table in (words.STYLE_WORDS, words.USES, words.KNOWN, words.MOODS) for ws in table.values() for w in ws}
    asked = [p for p, _ in prompts.FREE]
    assert len(asked) == len(set(asked)) == 40 and not captions & {p.lower() for p in asked}
    assert all(styles <= set(NAMES) for _, styles in prompts.FREE)
