"""Pitched sounds: two additive wavetables per note, cross-faded by the filter envelope.

Phases are locked to the bar line, so that a repeated bar gives the same samples and a held
note a short cycle of codec frames."""
from functools import lru_cache

import numpy as np

from .theory import frequency

SR = 32000
MAX_HARMONICS = 24


def _rolloff(kind, k):
    if kind == "saw":
        return 1.0 / k
    if kind == "square":
        return (k % 2) / k
    if kind == "pulse25":
        return np.abs(np.sin(np.pi * k * 0.25)) / k
    if kind == "tri":
        return (k % 2) / k**2 * np.where(k % 4 == 3, -1.0, 1.0)
    if kind == "soft":
        return 1.0 / k**1.8
    if kind == "organ":
        return np.isin(k, [1, 2, 3, 4, 6, 8]) * np.where(k == 1, 1.0, 0.5)
    if kind == "sine":
        return (k == 1) * 1.0
    raise ValueError(kind)


# wave; f0/f1/ft: filter cutoff start, end (Hz) and its decay; attack, decay (to
# `sustain`), release in s; hold: longest note in s; damp: extra decay of the high
# harmonics (plucked and struck strings); beat: slow swell; partials: (number, gain, decay).
def _p(wave, f0, f1, ft, attack, decay, sustain, release, gain=1.0, hold=2.0,
       damp=0.0, partials=None, beat=0.0):
    return dict(wave=wave, f0=f0, f1=f1, ft=ft, attack=attack, decay=decay, sustain=sustain,
                release=release, gain=gain, hold=hold, damp=damp, partials=partials, beat=beat)


PATCHES = {
    "epiano": _p("soft", 2200, 900, 0.5, 0.004, 1.2, 0.15, 0.15, 1.0, damp=1.5,
                 partials=[(1, 1.0, 1.0), (2, 0.25, 1.5), (4, 0.18, 5.0), (7, 0.10, 14.0)]),
    "piano": _p("soft", 5000, 1800, 0.6, 0.003, 1.6, 0.0, 0.25, 1.1, hold=3.5, damp=0.7),
    "pad": _p("saw", 700, 1100, 1.5, 0.35, 2.0, 0.9, 0.5, 0.55, hold=5.0),
    "glass": _p("sine", 9000, 9000, 1.0, 0.5, 2.0, 0.9, 0.9, 0.9, hold=6.0,
                partials=[(1, 1.0, 0.05), (2, 0.35, 0.1), (3, 0.12, 0.2), (5, 0.05, 0.3)]),
    "strings": _p("saw", 1500, 2300, 0.8, 0.16, 2.0, 0.95, 0.30, 0.6, hold=5.0, beat=0.3),
    "cello": _p("saw", 1100, 900, 0.8, 0.08, 2.0, 0.85, 0.2, 0.9, hold=5.0),
    "pluck": _p("saw", 4200, 350, 0.10, 0.002, 0.5, 0.0, 0.08, 1.0, hold=1.0),
    "stab": _p("saw", 3600, 700, 0.15, 0.003, 0.35, 0.0, 0.06, 0.8, hold=0.8),
    "organ": _p("organ", 3500, 2500, 0.2, 0.004, 0.3, 0.7, 0.04, 0.75, hold=1.0),
    "square": _p("square", 6000, 4500, 0.2, 0.002, 0.25, 0.6, 0.03, 0.5, hold=1.5),
    "pulse25": _p("pulse25", 7000, 6000, 0.2, 0.002, 0.12, 0.35, 0.02, 0.45, hold=1.0),
    "tribass": _p("tri", 6000, 6000, 0.2, 0.002, 0.5, 0.9, 0.02, 1.3, hold=1.5),
    "sawbass": _p("saw", 1400, 380, 0.18, 0.003, 0.4, 0.6, 0.04, 1.0, hold=1.5),
    "acid": _p("saw", 2600, 300, 0.12, 0.002, 0.3, 0.4, 0.03, 0.9, hold=0.8),
    "sub": _p("sine", 900, 900, 0.3, 0.006, 1.0, 0.8, 0.08, 1.5, hold=3.0,
              partials=[(1, 1.0, 0.3), (2, 0.18, 1.5), (3, 0.06, 3.0)]),
    "808": _p("sine", 900, 900, 0.3, 0.003, 1.8, 0.0, 0.12, 1.7, hold=2.5,
              partials=[(1, 1.0, 0.5), (2, 0.22, 2.0), (3, 0.10, 3.0)]),
    "reese": _p("saw", 800, 420, 0.5, 0.01, 1.0, 0.9, 0.06, 1.2, hold=3.0, beat=1.0),
    "finger": _p("soft", 1600, 500, 0.15, 0.004, 0.7, 0.3, 0.05, 1.4, hold=1.5, damp=1.5),
    "slap": _p("saw", 3500, 500, 0.07, 0.002, 0.4, 0.25, 0.03, 1.1, hold=1.0),
    "clav": _p("pulse25", 4500, 1600, 0.12, 0.002, 0.25, 0.0, 0.03, 0.7, hold=0.6, damp=1.0),
    "guitar": _p("saw", 3000, 900, 0.2, 0.002, 0.8, 0.0, 0.08, 0.9, hold=1.5, damp=1.2),
    "brass": _p("saw", 900, 2600, 0.08, 0.03, 0.4, 0.7, 0.06, 0.7, hold=1.2),
    "bell": _p("sine", 9000, 9000, 1, 0.002, 1.6, 0.0, 0.4, 0.8, hold=3.0,
               partials=[(1, 1.0, 1.0), (3, 0.3, 3.0), (4, 0.2, 2.5), (6, 0.1, 6.0)]),
    "flute": _p("soft", 2500, 2000, 0.3, 0.05, 0.6, 0.85, 0.10, 0.8, hold=2.5),
    "sawlead": _p("saw", 3200, 2200, 0.3, 0.01, 0.5, 0.75, 0.08, 0.6, hold=2.0),
    "marimba": _p("sine", 9000, 9000, 1, 0.002, 0.5, 0.0, 0.1, 1.1, hold=1.0,
                  partials=[(1, 1.0, 3.0), (4, 0.3, 12.0)]),
    "harp": _p("soft", 3500, 1500, 0.4, 0.002, 1.2, 0.0, 0.3, 1.0, hold=2.5, damp=1.0),
}


TABLE = 15360  # samples; every pitch repeats within this length


@lru_cache(maxsize=4000)
def tables(name, midi):
    """One period of the note with its filter open and closed (phase locked to time zero)."""
    p, freq = PATCHES[name], frequency(midi)
    t = np.arange(TABLE) / SR
    if p["partials"]:
        parts = [(k, a, d) for k, a, d in p["partials"] if k * freq < 12000]
    else:
        k = np.arange(1, max(2, min(MAX_HARMONICS, int(10000 / freq)) + 1))
        parts = [(int(i), float(a), 0.0) for i, a in zip(k, _rolloff(p["wave"], k)) if a]
    out = []
    for cutoff, closed in ((p["f0"], 0), (p["f1"], 1)):
        wave = np.zeros(TABLE)
        for k, amp, damp in parts:
            amp = amp / np.sqrt(1 + (k * freq / cutoff) ** 4) * np.exp(-0.35 * damp * closed)
            wave += amp * np.sin(2 * np.pi * k * freq * t + 0.7 * k * k)
        out.append((wave * 0.3 * p["gain"]).astype(np.float32))
    return out


@lru_cache(maxsize=None)
def envelope(name):
    """Gains of the open and closed table over the longest note."""
    p = PATCHES[name]
    t = np.arange(int(p["hold"] * SR), dtype=np.float32) / SR
    body = np.minimum(t / p["attack"], 1) * (p["sustain"] + (1 - p["sustain"]) * np.exp(-t / p["decay"]))
    if p["beat"]:
        body = body * (1 - 0.25 * p["beat"] * (1 - np.cos(2 * np.pi * 3.125 * t)))
    opened = np.exp(-t / (p["ft"] + (0.5 / p["damp"] if p["damp"] else 0)))
    return (body * opened).astype(np.float32), (body * (1 - opened)).astype(np.float32)


def add_note(buffer, start, name, midi, length, velocity=1.0, origin=0):
    """Mix one note into `buffer` at sample `start`, released after `length` samples; its phase
    counts from sample `origin`."""
    opened, closed = envelope(name)
    release = int(PATCHES[name]["release"] * SR)
    total = min(length + release, len(opened), len(buffer) - start)
    if total <= 0 or start < 0:
        return
    bright, dark = tables(name, int(midi))
    at = (start - origin) % TABLE
    reps = (at + total) // TABLE + 1
    note = np.tile(bright, reps)[at:at + total] * opened[:total]
    note += np.tile(dark, reps)[at:at + total] * closed[:total]
    note *= np.float32(velocity)
    tail = total - length
    if tail > 0:
        note[length:] *= np.exp(-5.0 * np.arange(tail, dtype=np.float32) / release)
    fade = min(160, total)
    note[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    buffer[start:start + total] += note
