"""Compose a piece and render it: `make_piece(seed)` gives audio and what is in it."""
from functools import lru_cache

import numpy as np
from scipy import signal

from . import drums, theory
from .captions import make_caption
from .styles import NAMES, STYLES
from .synth import SR, add_note
from .theory import HALF_FRAMES, bpm_of

FRAME = 1280             # samples per codec frame (25 Hz)
STEP_UNIT = FRAME // 8   # a sixteenth is `half` of these
GRID = FRAME // 2        # every onset lies on it: drum hits then have only two phases in a frame
GROOVES = 4              # sets of patterns per style; parts of one set always play together
MOTIFS = 3               # lead motifs per style


def pick_tempo(rng, spec):
    low, high = spec["bpm"]
    if rng.random() < 0.12:
        low, high = max(60, low * 0.8), min(178, high * 1.2)
    choices = [h for h in HALF_FRAMES if low * 0.985 <= bpm_of(h) <= high * 1.015]
    return int(rng.choice(choices))


def motif(rng, density):
    """A one-bar rhythm with scale steps: list of (step16, length16, degree offset)."""
    grid = [0, 2, 3, 4, 6, 8, 10, 11, 12, 14]
    weights = np.array([3, 1, .6, 2, 1.5, 2.5, 1.2, .6, 2, 1])
    count = max(2, int(rng.normal(2 + 6 * density, 0.8)))
    starts = sorted(rng.choice(grid, size=min(count, 9), replace=False, p=weights / weights.sum()))
    degree, out = int(rng.choice([0, 2, 4])), []
    for i, s in enumerate(starts):
        end = starts[i + 1] if i + 1 < len(starts) else 16
        out.append((int(s), int(min(end - s, 6)), degree))
        degree = int(np.clip(degree + rng.choice([-2, -1, -1, 1, 1, 2]), -2, 7))
    return out


@lru_cache(maxsize=None)
def motifs(style):
    """The motifs of a style, each with an answer that ends another way."""
    out = []
    for i in range(MOTIFS):
        rng = np.random.default_rng([NAMES.index(style), i])
        a = motif(rng, STYLES[style]["lead_density"])
        b = [(s, n, d if s < 8 else max(-2, d - 1)) for s, n, d in a]
        out.append((a, b))
    return out


def rhythm(text):
    """Split a rhythm string into (step, length, symbol)."""
    out = []
    for i, c in enumerate(text):
        if c == "-" and out:
            out[-1][1] += 1
        elif c not in ".-":
            out.append([i, 1, c])
    return out


class Piece:
    """What plays in a piece; bars are drawn into track buffers."""

    def __init__(self, rng, style, half=None):
        self.style, self.spec = style, STYLES[style]
        s = self.spec
        self.half = half or pick_tempo(rng, s)
        self.step = self.half * STEP_UNIT
        self.bpm = bpm_of(self.half)
        self.scale = str(rng.choice(s["scales"]))
        self.root = theory.KEYS[self.scale]
        progs = [p for p in s["progs"] if p == self.scale] or [p for p in s["progs"] if p not in theory.SCALES] or s["progs"]
        known = theory.PROGRESSIONS[str(rng.choice(progs))]
        self.progs = [known[i] for i in rng.permutation(len(known))[:2]]
        self.form = str(rng.choice(theory.FORMS))
        self.energy = int(rng.choice([0, 1, 2], p=[0.2, 0.45, 0.35]))
        self.groove = int(rng.integers(GROOVES))
        pick = lambda items: items[self.groove % len(items)] if items else None
        self.drum, self.bass, self.chords = pick(s["drums"]), pick(s["bass"]), pick(s["chords"])
        self.arp = pick(s["arp"]) if rng.random() < (0.65 if s["chords"] and s["drums"] else 0.85) else None
        self.lead = pick(s["lead"]) if rng.random() < (0.45 + 0.2 * self.energy) else None
        self.motif = motifs(style)[rng.integers(MOTIFS)]
        self.arp_order = [[0, 1, 2, 3], [0, 2, 1, 2], [3, 2, 1, 0], [0, 1, 2, 1]][self.groove % 4]
        if self.energy == 0 and self.drum:
            self.drum = {k: v for k, v in self.drum.items() if k not in "po"}
        self.fill_every = (8, 4, 8, 16)[self.groove % 4]
        if self.style == "piano" and self.arp:
            self.chords = None

    def instruments(self):
        names = [x[0] for x in (self.bass, self.chords, self.arp) if x]
        return sorted(set(names + ([self.lead] if self.lead else [])))

    def at(self, bar, step):
        """The sample where a sixteenth starts: swung, and moved to the grid (at most 10 ms)."""
        swing = self.spec["swing"] * self.step if step % 2 else 0
        return bar * 16 * self.step + int(round((step * self.step + swing) / GRID)) * GRID

    def chord_at(self, bar):
        """The scale step that the chord of a bar stands on. A form has turns of equal length."""
        hold, turns = self.spec["hold"], 2 if self.bpm > 115 else 1
        long = hold * turns * max(map(len, self.progs))
        prog = self.progs["AB".index(self.form[bar // long % len(self.form)])]
        return prog[bar // hold % len(prog)]

    def chord_notes(self, bar):
        size = 4 if self.spec["sevenths"] else 3
        return theory.chord(self.root, self.scale, self.chord_at(bar), size)

    def play(self, out, bar, step, name, note, length, velocity):
        add_note(out, self.at(bar, step), name, note, int(length * self.step), velocity, bar * 16 * self.step)

    def draw_drums(self, out, bar, fill, light):
        kit = drums.kit(self.spec["kit"])
        gains = {"X": 1.0, "x": 0.75, "o": 0.35}
        level = {"k": 0.95, "s": 0.75, "h": 0.30, "o": 0.32, "p": 0.35}
        kicks = []
        for voice, pattern in self.drum.items():
            for i, c in enumerate(pattern):
                if c == "." or (fill and i >= 12 and voice in "sh"):
                    continue
                if light and voice in "ks":
                    continue
                at = self.at(bar, i)
                drums.add_hit(out, at, kit[voice], gains[c] * level[voice])
                if voice == "k":
                    kicks.append(at)
        if fill:
            for i, v in ((12, "s"), (13, "t"), (14, "t"), (15, "u")):
                drums.add_hit(out, self.at(bar, i), kit[v], 0.55)
        return kicks

    def draw_bass(self, out, bar):
        name, text = self.bass
        notes = self.chord_notes(bar)
        low = 33 if name in ("sub", "808", "reese") else 36
        root = theory.note_near(notes[0], low)
        pitch = {"r": root, "f": root + 7, "o": root + 12, "t": root + notes[1] - notes[0], "s": root - 2}
        for i, n, c in rhythm(text):
            self.play(out, bar, i, name, pitch[c], n * 0.92, 0.9)

    def draw_chords(self, out, bar):
        name, text = self.chords
        notes = theory.voiced([n % 12 for n in self.chord_notes(bar)], 55 + 5 * self.spec["tone"])
        for i, n, _ in rhythm(text):
            for note in notes:
                self.play(out, bar, i, name, note, n * 0.95, 1.15 / len(notes))

    def draw_arp(self, out, bar):
        name, every = self.arp
        low = 60 if name != "piano" else 55
        notes = theory.voiced([n % 12 for n in self.chord_notes(bar)[:3]], low, 4)
        for j, i in enumerate(range(0, 16, every)):
            note = notes[self.arp_order[j % 4]]
            self.play(out, bar, i, name, note, every * 0.9, 0.5)

    def draw_lead(self, out, bar):
        base = self.chord_at(bar)
        for i, n, d in self.motif[bar % 4 == 3]:
            note = self.root + 60 + theory.degree(self.scale, base % 7 + d)
            note = self.spec["lead_low"] + (note - self.spec["lead_low"]) % 12
            self.play(out, bar, i, self.lead, note, n * 0.9, 0.6)


def plan(rng, bars, piece):
    """Which layers sound in each bar: full groove first, then breaks and returns. A break is
    so short that a window of the decoder hears the beat before it or after it."""
    out, mode = [], "full"
    while len(out) < bars:
        length = int(rng.choice([4, 4, 8]))
        if mode == "break":
            length = 2 if piece.bpm < 118 else 4
        out += [mode] * length
        if mode == "full":
            mode = str(rng.choice(["full", "nolead", "break", "light"], p=[0.45, 0.25, 0.15, 0.15]))
        else:
            mode = "full"
    return out[:bars]


@lru_cache(maxsize=None)
def room(seconds=1.4, seed=5):
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * SR)) / SR
    ir = rng.standard_normal(len(t)) * np.exp(-t * 4.5 / seconds)
    sos = signal.butter(1, [200, 4500], "bandpass", fs=SR, output="sos")
    ir = signal.sosfilt(sos, ir)
    ir[: int(0.012 * SR)] = 0
    return (ir / np.sqrt((ir**2).sum())).astype(np.float32)


@lru_cache(maxsize=None)
def _weighting():
    shelf = signal.iirfilter(1, 1500, btype="highpass", fs=SR, output="sos")
    low = signal.butter(2, 38, "highpass", fs=SR, output="sos")
    return shelf, low


def loudness(audio):
    """Approximate integrated loudness (K-weighting by a high-pass and a shelf, gated)."""
    shelf, low = _weighting()
    x = signal.sosfilt(low, audio[::1])
    x = x + 0.58 * signal.sosfilt(shelf, x)
    block = x[: len(x) // 12800 * 12800].reshape(-1, 12800)
    power = (block**2).mean(1)
    power = power[power > 1e-7]
    if len(power) == 0:
        return -70.0
    power = power[power > power.mean() * 0.1]
    return float(-0.691 + 10 * np.log10(power.mean()))


def delayed(track, step, feedback=0.45):
    out, gain, shift = np.zeros_like(track), 1.0, max(1, round(3 * step / FRAME)) * FRAME
    for i in range(1, 4):
        gain *= feedback
        if i * shift < len(track):
            out[i * shift:] += gain * track[:-i * shift]
    return out


def mix(piece, tracks, kicks, n):
    s = piece.spec
    music = tracks["bass"] * 0.9
    wet = np.zeros(n, np.float32)
    for name in ("chords", "arp", "lead"):
        track = tracks[name]
        if s["delay"] and name != "chords" or s["delay"] >= 0.3:
            track = track + s["delay"] * delayed(track, piece.step)
        music = music + track
        wet += track
    if s["sidechain"] and kicks:
        duck = np.ones(n, np.float32)
        shape = 1 - s["sidechain"] * np.exp(-np.arange(int(0.28 * SR), dtype=np.float32) / (0.09 * SR))
        for k in (k for k in kicks if k < n):
            m = min(len(shape), n - k)
            duck[k:k + m] = np.minimum(duck[k:k + m], shape[:m])
        music, wet = music * duck, wet * duck
    if s["reverb"]:
        music = music + s["reverb"] * 1.3 * signal.oaconvolve(wet, room(2.2 if s["reverb"] > 0.3 else 1.2))[:n]
    return (music + tracks["drums"]).astype(np.float32)


def master(audio, gain):
    sos = signal.butter(2, 28, "highpass", fs=SR, output="sos")
    audio = signal.sosfilt(sos, audio) * gain
    return (np.tanh(audio * 1.05) * 0.93).astype(np.float32)


def draw(piece, modes, n):
    """Draw bars and mix them: one mode per bar, `n` samples."""
    tracks = {k: np.zeros(n, np.float32) for k in ("drums", "bass", "chords", "arp", "lead")}
    kicks = []
    for bar, mode in enumerate(modes):
        light = mode == "break"
        if piece.drum:
            fill = (bar + 1) % piece.fill_every == 0 and not light and piece.style != "dub"
            kicks += piece.draw_drums(tracks["drums"], bar, fill, light)
        if piece.bass and mode != "light":
            piece.draw_bass(tracks["bass"], bar)
        if piece.chords:
            piece.draw_chords(tracks["chords"], bar)
        if piece.arp:
            piece.draw_arp(tracks["arp"], bar)
        if piece.lead and (mode == "full" or light):
            piece.draw_lead(tracks["lead"], bar)
    return mix(piece, tracks, kicks, n)


@lru_cache(maxsize=None)
def groove_gain(style, groove, target=-16.0):
    """One gain per groove, so that the same bar has the same samples in every piece."""
    rng = np.random.default_rng(groove)
    while True:
        piece = Piece(rng, style)
        if piece.groove == groove:
            break
    n = 8 * 16 * piece.step
    return 10 ** ((target - loudness(draw(piece, ["full"] * 8, n))) / 20)


def make_piece(seed, seconds=24.0, style=None, half=None):
    """Returns (audio float32 mono 32 kHz starting on bar one, info dict with captions)."""
    rng = np.random.default_rng(seed)
    style = style or str(rng.choice(NAMES))
    piece = Piece(rng, style, half)
    n = int(round(seconds * SR / FRAME)) * FRAME
    bars = n // (16 * piece.step) + 1
    mixed = draw(piece, plan(rng, bars, piece), n)
    audio = master(mixed, groove_gain(style, piece.groove))
    info = dict(seed=int(seed), style=style, bpm=piece.bpm, half=piece.half, root=piece.root, scale=piece.scale,
                energy=piece.energy, instruments=piece.instruments(), kit=piece.spec["kit"])
    info["captions"] = [make_caption(rng, info) for _ in range(8)]
    return audio, info
