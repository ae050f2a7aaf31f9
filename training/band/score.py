"""What plays when: a composed piece as notes in samples."""
from dataclasses import dataclass

import numpy as np

from . import form, grooves, harmony
from .instruments import INSTRUMENTS, KITS
from .melody import Tune
from .styles import NAMES, STYLES
from .tempo import GRID, STEP, tempo_of

DRUMS = "drums"
ENERGY = (0.8, 0.8, 1.0, 1.0)       # how hard a section of each level is played
# Songs of a style. A small decoder learns what comes again, and nothing of what does not: a song has its key, band, groove, chords and
# tunes, a tempo too, and its pieces differ in form. Codes are of all players together: with three who may be missing there would be eight
# songs to learn instead of one. And at another tempo all codes are others.
SONGS = 6
ROLES = ("bass", "chords", "pad", "arp", "lead", "answer")
# Which roles sound in a section of each level. A break keeps the tune.
LAYERS = {0: {"pad", "chords", "lead"}, 1: {"bass", "chords", "arp"}, 2: {"bass", "chords", "arp", "lead"},
          3: {"bass", "chords", "pad", "arp", "lead", "answer"}}


@dataclass(frozen=True)
class Note:
    start: int      # samples
    length: int
    role: str
    pitch: int
    velocity: int


class Score:
    """A piece of `frames` codec frames in a style: one of its songs, played as `rng` draws it."""

    def __init__(self, rng, style, frames, half=None):
        self.style, self.spec = style, STYLES[style]
        s, self.frames = self.spec, frames
        place, song = NAMES.index(style), int(rng.integers(SONGS))
        self.half = half or tempo_of(song, SONGS, s["bpm"])
        self.step = self.half * STEP
        own = np.random.default_rng([place, song])
        self.root = (place + 2 * song) % 12     # the songs of a style are in as many keys
        self.progs = self.draw_progressions(own)
        self.groove = int(own.integers(len(s["grooves"])))
        self.kit = str(own.choice(s["kit"]))
        self.cast = {r: str(own.choice(s[r])) for r in ROLES if s[r]}
        players = np.random.default_rng([place, song, 1])
        for role, chance in (("pad", 0.6), ("arp", 0.5), ("answer", 0.7)):
            if role in self.cast and players.random() > chance:
                del self.cast[role]
        bars = -(-frames // (2 * self.half))
        self.form = form.sections(rng, str(rng.choice(s["forms"])), int(players.choice(s["lifts"])), bars)
        low = INSTRUMENTS[self.cast["lead"]].low if "lead" in self.cast else 60
        high = INSTRUMENTS[self.cast["lead"]].high if "lead" in self.cast else 84
        self.tunes = {p: Tune(own, s["density"] * (1.1 if p == "B" else 1.0), int(np.clip(64, low + 3, high - 19))) for p in "ABC"}
        self.arp = [[0, 1, 2, 3], [0, 2, 1, 3], [3, 2, 1, 0], [0, 1, 3, 2], [0, 2, 3, 2]][own.integers(5)]
        self.notes, self.bars = [], []
        self.write()

    def draw_progressions(self, rng):
        """Chords of the parts: A and B differ, of one mood; C is another turn of the first."""
        family = harmony.PROGRESSIONS[str(rng.choice(self.spec["progs"]))]
        texts = [family[i].split() for i in rng.permutation(len(family))[:2]]
        a, b = texts[0], texts[-1]
        small = lambda t: harmony.mode_of(t) in ("minor", "dorian", "phrygian")
        if small(a) != small(b):
            b = a[2:] + a[:2] if len(a) > 2 else a
        return dict(A=a, B=b, C=[b[0], *b[1:2]] if len(b) > 1 else a)

    def scale(self):
        return harmony.mode_of(self.progs["A"])

    def at(self, bar, step):
        """The sample where a sixteenth starts: swung, and on the grid (moved by 10 ms at most)."""
        swing = self.spec["swing"] * self.step if step % 2 else 0
        if self.spec["swing"] > 0.3 and step % 4 == 2:
            swing = self.spec["swing"] * self.step
        return bar * 16 * self.step + int(round((step * self.step + swing) / GRID)) * GRID

    def add(self, bar, step, length, role, pitch, velocity):
        start, samples = self.at(bar, step), int(round(length * self.step / GRID)) * GRID
        self.notes.append(Note(start, max(GRID, samples), role, int(pitch), int(np.clip(velocity, 8, 127))))

    def write(self):
        """Write all bars. `bars` says of each bar: its section, and its chord. A chord is voiced from
        the one before when it comes first, and the same whenever it comes again."""
        bar, voices, voicings = 0, None, {}
        for section in self.form:
            numerals = self.progs[section.part]
            for i in range(section.bars):
                place = i // self.spec["hold"] % len(numerals)
                root, tones = harmony.chord(numerals[place])
                following = harmony.chord(numerals[(i + 1) // self.spec["hold"] % len(numerals)])[0]
                key = self.root + section.lift
                classes = [(key + root + t) % 12 for t in tones]
                if "chords" in self.cast:
                    name = (section.part, section.lift, place)
                    if name not in voicings:
                        voicings[name] = harmony.voiced(classes, self.low_of("chords", 52), min(4, len(classes)), voices)
                    voices = voicings[name]
                self.write_bar(bar, i, section, classes, (key + following) % 12, voices)
                self.bars.append((section, classes))
                bar += 1

    def write_bar(self, bar, i, section, classes, following, voices):
        layers = LAYERS[section.level]
        force = ENERGY[section.level]
        drums, bass, chords = self.spec["grooves"][self.groove]
        scale = harmony.keys_of(self.root + section.lift, self.scale())
        scale = sorted({c for c in scale if all((c - d) % 12 not in (1, 11) for d in classes)} | {c % 12 for c in classes})
        fill = self.spec["fills"] and i == section.bars - 1 and section.level >= 2
        self.write_drums(bar, i, section, drums, fill, force)
        if "bass" in self.cast and "bass" in layers:
            self.write_bass(bar, bass, classes, following, force)
        if "chords" in self.cast and "chords" in layers:
            self.write_chords(bar, "hold" if section.level == 0 else chords, voices, force)
        if "pad" in self.cast and "pad" in layers:
            for note in harmony.voiced(classes[:3], self.low_of("pad", 55), 3):
                self.add(bar, 0, 16, "pad", note, 62 * force)
        if "arp" in self.cast and "arp" in layers:
            self.write_arp(bar, classes, force)
        alone = "chords" not in self.cast
        if "lead" in self.cast and ("lead" in layers or alone):
            self.write_tune(bar, i, "lead", section, classes, scale, force)
        if "answer" in self.cast and "answer" in layers:
            self.write_tune(bar, i, "answer", section, classes, scale, force)

    def low_of(self, role, wanted):
        return max(wanted, INSTRUMENTS[self.cast[role]].low)

    def write_drums(self, bar, i, section, groove, fill, force):
        if section.level == 0 or groove == "none":
            return
        for step, note, velocity in grooves.hits(groove):
            quiet = section.level == 1 and note in (35, 36, 38, 39)
            if quiet or (fill and step >= 12 and note not in (36, 42)):
                continue
            self.add(bar, step, 1, DRUMS, note, velocity * force)
        if fill:
            for step, note, velocity in grooves.FILL:
                self.add(bar, step, 1, DRUMS, note, velocity * force)
        if i == 0 and section.level == 3:
            self.add(bar, 0, 4, DRUMS, 49, 95)

    def write_bass(self, bar, groove, classes, following, force):
        low = INSTRUMENTS[self.cast["bass"]].low
        root = harmony.near(classes[0], max(low, 31))
        lead = harmony.near(following, max(low, 31))
        pitch = dict(r=root, f=root + (classes[2] - classes[0]) % 12, o=root + 12, t=root + (classes[1] - classes[0]) % 12,
                     l=lead + (1 if lead < root else -1))
        for step, length, symbol in grooves.struck(grooves.BASS[groove]):
            self.add(bar, step, length * 0.95, "bass", pitch[symbol], (104 if step == 0 else 94) * force)

    def write_chords(self, bar, groove, voices, force):
        for step, length, symbol in grooves.struck(grooves.CHORDS[groove]):
            for note in voices:
                self.add(bar, step, length * 0.96, "chords", note, (88 if symbol == "X" else 72) * force)

    def write_arp(self, bar, classes, force):
        notes = harmony.voiced(classes[:4], self.low_of("arp", 60), 4)
        every = self.spec["arp_every"]
        for j, step in enumerate(range(0, 16, every)):
            self.add(bar, step, every * 0.95, "arp", notes[self.arp[j % 4]], (84 if step % 4 == 0 else 70) * force)

    def write_tune(self, bar, i, role, section, classes, scale, force):
        """The lead plays the call; where there is an answer, that has the second half of a phrase."""
        phrase = i % 4
        answered = "answer" in self.cast and section.level == 3
        if role == "answer" and phrase < 2 or role == "lead" and answered and phrase >= 2 and i % 8 < 4:
            return
        tune, place = self.tunes[section.part], INSTRUMENTS[self.cast[role]]
        for step, length, note in tune.bar(phrase, classes, scale):
            while note > place.high:
                note -= 12
            while note < place.low:
                note += 12
            self.add(bar, step, length * 0.95, role, note, (100 if step % 8 == 0 else 90) * force)

    def program(self, role):
        return INSTRUMENTS[self.cast[role]] if role != DRUMS else KITS[self.kit]
