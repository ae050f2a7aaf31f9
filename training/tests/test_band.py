"""Run with `python -m pytest tests` in this folder. What plays needs FluidSynth and FluidR3 GM."""
import os
import sys

import numpy as np
import pytest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from band import captions, fluid, grooves, harmony, room, words
from band.instruments import INSTRUMENTS, KIT_WORDS, KITS
from band.melody import Tune
from band.piece import describe, make_piece
from band.score import DRUMS, ROLES, SONGS, Note, Score
from band.styles import NAMES, STYLES
from band.tempo import FRAME, GRID, SR, tempi, tempo_of

font = pytest.mark.skipif(not os.path.exists(fluid.FONT), reason="no sound font")


def score(seed=1, style="rock", frames=1600):
    return Score(np.random.default_rng(seed), style, frames)


def test_every_style_has_players_rhythms_and_words():
    for name in NAMES:
        spec = STYLES[name]
        assert all(i in INSTRUMENTS for role in ROLES for i in spec[role]) and all(k in KITS and k in KIT_WORDS for k in spec["kit"])
        for drums, bass, chords in spec["grooves"]:
            assert drums in grooves.DRUMS and bass in grooves.BASS and chords in grooves.CHORDS
        assert all(len(table[name]) > 2 for table in (words.STYLE_WORDS, words.USES, words.MOODS))


def test_rhythms_fill_a_bar():
    for table in (grooves.BASS, grooves.CHORDS, *grooves.DRUMS.values()):
        assert all(len(text) == 16 for text in table.values())


def test_numerals_mean_what_they_say():
    assert harmony.chord("V7") == (7, [0, 4, 7, 10]) and harmony.chord("bVI") == (8, [0, 4, 7])
    assert harmony.chord("ii7") == (2, [0, 3, 7, 10]) and harmony.chord("i5") == (0, [0, 7, 12])
    for family in harmony.PROGRESSIONS.values():
        assert all(harmony.chord(n) for text in family for n in text.split())


def test_a_progression_knows_its_mode():
    mode = lambda text: harmony.mode_of(text.split())
    assert mode("I V vi IV") == "major" and mode("i bVI bIII bVII") == "minor" and mode("i7 IV7") == "dorian"
    assert mode("I bVII IV I") == "mixolydian" and mode("vi IV I V") == "major"


def test_all_keys_and_moved_choruses_come_up():
    keys = [{score(seed, style, 100).root for seed in range(40)} for style in NAMES]
    assert all(len(own) == SONGS for own in keys)
    assert all(one | two == set(range(12)) for one, two in zip(keys, keys[1:]))
    assert any(section.lift for seed in range(40) for section in score(seed).form)


def test_pieces_of_a_song_share_their_music_and_tempo_and_differ_in_form():
    made = {}
    for seed in range(40):
        s = score(seed, "lofi")
        made.setdefault(s.root, []).append(s)
    assert len(made) == SONGS
    for same in made.values():
        assert len({(str(s.progs), s.groove, s.kit, str(s.cast), s.half) for s in same}) == 1
    assert all(len({str(s.form) for s in same}) > 1 for same in made.values() if len(same) > 3)


def test_the_songs_of_a_style_have_the_tempi_of_its_span():
    for name in NAMES:
        span = STYLES[name]["bpm"]
        of_songs = [tempo_of(song, SONGS, span) for song in range(SONGS)]
        assert len(set(of_songs)) == min(SONGS, len(tempi(span)))
        assert {min(of_songs), max(of_songs)} == {min(tempi(span)), max(tempi(span))} or len(tempi(span)) < 2


def test_every_start_lies_on_the_grid_and_every_bar_on_a_frame():
    for style in NAMES:
        s = score(3, style)
        assert 16 * s.step % FRAME == 0 and s.notes
        assert all(n.start % GRID == 0 and n.length > 0 and 8 <= n.velocity < 128 for n in s.notes)


def test_notes_keep_to_their_instruments():
    for style in NAMES:
        s = score(4, style)
        for n in s.notes:
            if n.role in ("lead", "answer"):
                assert INSTRUMENTS[s.cast[n.role]].low <= n.pitch <= INSTRUMENTS[s.cast[n.role]].high


def test_most_notes_are_in_the_key_of_their_section():
    for style in NAMES:
        s = score(5, style)
        scale = harmony.keys_of(s.root, s.scale())
        tuned = [n for n in s.notes if n.role != DRUMS and s.bars[n.start // (16 * s.step)][0].lift == 0]
        assert np.mean([n.pitch % 12 in scale for n in tuned]) > 0.6, style


def test_a_phrase_that_comes_again_has_the_same_notes():
    s = score(2, "folk", 3000)
    bar, at = 16 * s.step, 0
    for section in s.form:
        if section.bars == 8 and section.name == "verse":
            first, second = (sorted((n.start - b * bar, n.role, n.pitch, n.velocity) for n in s.notes
                                    if b * bar <= n.start < (b + 3) * bar) for b in (at, at + 4))
            assert first == second
        at += section.bars


def test_an_answer_follows_a_call():
    tune = Tune(np.random.default_rng(1), 0.6, 64)
    scale, chord = harmony.keys_of(0, "major"), [0, 4, 7]
    bars = [tune.bar(i, chord, scale) for i in range(4)]
    rhythm = lambda bar: [(step, length) for step, length, _ in bar]
    assert rhythm(bars[0]) == rhythm(bars[1]) != rhythm(bars[2])
    assert bars[3][-1][2] % 12 == 0 and all(n % 12 in scale for bar in bars for _, _, n in bar)


def test_sections_cover_a_piece_and_their_captions_name_them():
    rng = np.random.default_rng(0)
    for style in NAMES:
        s = score(6, style)
        info = describe(6, s)
        assert info["sections"][0]["start"] == 0 and info["sections"][-1]["end"] == s.frames
        for part in info["sections"]:
            said = captions.section_captions(rng, info, part, 2)
            assert all(any(word in text for word in captions.form.WORDS[part["name"]]) for text in said)


def test_captions_are_many():
    rng = np.random.default_rng(0)
    info = describe(7, score(7, "jazz"))
    made = [captions.make_caption(rng, info) for _ in range(200)]
    assert all(made) and len(set(made)) > 150


def test_rain_joins_its_own_beginning():
    drops = room.rain(50 * FRAME)
    assert np.abs(drops[:, 0] - drops[:, -1]).max() < 8 * np.abs(np.diff(drops, axis=1)).mean()


@font
def test_instruments_are_tuned_to_440():
    s = score(1, "piano")
    s.cast, s.notes = {"lead": "piano"}, [Note(0, SR, "lead", 69, 100)]
    heard = fluid.player(fluid.FONT).play(s, 50 * FRAME).mean(0)
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard)), 1 << 19))
    assert abs(np.argmax(spectrum) * SR / (1 << 19) - 440) < 1.5


@font
def test_a_bar_that_comes_again_has_the_same_samples():
    s = score(1, "rock")
    bar = 16 * s.step
    s.notes = [Note(b * bar + step * s.step // GRID * GRID, 3 * GRID, role, pitch, 100)
               for b in range(4) for step, role, pitch in ((0, DRUMS, 36), (4, DRUMS, 38), (0, "bass", 40), (8, "chords", 60))]
    heard = room.in_room(fluid.player(fluid.FONT).play(s, 4 * bar), 0.1)
    rest = heard[:, 3 * bar:] - heard[:, 2 * bar:3 * bar]
    assert (rest ** 2).mean() < 1e-4 * (heard[:, 3 * bar:] ** 2).mean()


@font
def test_pieces_are_level_wide_and_repeatable():
    for style in ("lofi", "metal", "choir"):
        audio, info = make_piece(3, 16, style)
        again, _ = make_piece(3, 16, style)
        # A voice of FluidSynth that is used again fades from its last level, for 2 ms.
        assert ((audio - again) ** 2).mean() < 1e-5 * (audio ** 2).mean() and info["style"] == style
        mid, side = audio.mean(0), (audio[0] - audio[1]) / 2
        assert np.abs(audio).max() < 0.95 and -20 < room.loudness(mid) < -13
        assert -14 < 10 * np.log10((side ** 2).mean() / (mid ** 2).mean()) < -4
