"""Drum sounds. Each kit is a fixed set of samples, made once from fixed seeds."""
from functools import lru_cache

import numpy as np
from scipy import signal

from .synth import SR


def _t(seconds):
    return np.arange(int(seconds * SR), dtype=np.float64) / SR


def _noise(seconds, low, high, seed):
    noise = np.random.default_rng(seed).standard_normal(int(seconds * SR))
    sos = signal.butter(2, [low, min(high, 15500)], "bandpass", fs=SR, output="sos")
    noise = signal.sosfilt(sos, noise)
    return noise / np.std(noise)


def kick(freq, decay, sweep, click):
    t = _t(min(decay * 4, 0.7))
    phase = 2 * np.pi * (freq * t + sweep * 0.03 * (1 - np.exp(-t / 0.03)))
    body = np.sin(phase) * np.exp(-t / decay)
    return body + click * np.exp(-t / 0.004) * np.sin(2 * np.pi * 1800 * t)


def snare(tone, decay, noise, low, high, seed):
    t = _t(min(decay * 5, 0.5))
    body = np.sin(2 * np.pi * (tone * t + 1.2 * (1 - np.exp(-t / 0.02)))) * np.exp(-t / 0.07)
    return 0.7 * body + noise * _noise(len(t) / SR, low, high, seed) * np.exp(-t / decay)


def clap(seed, decay=0.09):
    t = _t(0.35)
    env = np.exp(-t / decay)
    for delay in (0.0, 0.011, 0.022):
        env = env + (t >= delay) * np.exp(-np.maximum(t - delay, 0) / 0.006)
    return 0.32 * env * _noise(0.35, 900, 3200, seed)


def hat(decay, low, seed, seconds=None):
    t = _t(seconds or min(decay * 5, 0.4))
    metal = sum(np.sign(np.sin(2 * np.pi * f * t)) for f in (5320, 6170, 7433, 8210)) / 4
    sos = signal.butter(2, low, "highpass", fs=SR, output="sos")
    metal = signal.sosfilt(sos, metal)
    return (0.35 * metal + 0.20 * _noise(len(t) / SR, low, 14000, seed)) * np.exp(-t / decay)


def tom(freq, decay=0.16):
    t = _t(0.5)
    return np.sin(2 * np.pi * (freq * t + 1.5 * (1 - np.exp(-t / 0.04)))) * np.exp(-t / decay)


def rim(freq=1650):
    t = _t(0.08)
    return (np.sin(2 * np.pi * freq * t) + 0.6 * np.sin(2 * np.pi * 0.37 * freq * t)) * np.exp(-t / 0.012)


def shaker(seed):
    t = _t(0.09)
    return 0.35 * _noise(0.09, 5500, 12000, seed) * np.minimum(t / 0.02, 1) * np.exp(-t / 0.03)


# kick, snare, closed hat, open hat, percussion and two toms per kit.
@lru_cache(maxsize=None)
def kit(name):
    k = {
        "dusty": dict(k=kick(52, 0.13, 60, 0.1), s=snare(190, 0.09, 0.30, 900, 5000, 11),
                      h=0.6 * hat(0.025, 5000, 12), o=0.5 * hat(0.12, 5000, 13), p=0.6 * rim(1300)),
        "909": dict(k=kick(50, 0.15, 140, 0.5), s=clap(21), h=0.7 * hat(0.03, 7000, 22),
                    o=0.7 * hat(0.11, 6500, 23), p=0.6 * rim()),
        "techno": dict(k=kick(46, 0.17, 160, 0.8), s=clap(31, 0.06), h=0.8 * hat(0.02, 8000, 32),
                       o=0.7 * hat(0.08, 7500, 33), p=0.5 * tom(210, 0.06)),
        "break": dict(k=kick(58, 0.09, 90, 0.6), s=snare(220, 0.10, 0.42, 1200, 9000, 41),
                      h=0.7 * hat(0.03, 6000, 42), o=0.6 * hat(0.16, 5500, 43), p=0.6 * shaker(44)),
        "gated": dict(k=kick(55, 0.12, 90, 0.5), s=snare(170, 0.17, 0.38, 600, 7000, 51),
                      h=0.6 * hat(0.03, 6500, 52), o=0.6 * hat(0.12, 6000, 53), p=tom(140)),
        "chip": dict(k=kick(70, 0.06, 200, 0.0), s=0.5 * _noise(0.12, 600, 9000, 61) * np.exp(-_t(0.12) / 0.04),
                     h=0.25 * _noise(0.04, 4000, 14000, 62) * np.exp(-_t(0.04) / 0.012),
                     o=0.25 * _noise(0.12, 4000, 14000, 63) * np.exp(-_t(0.12) / 0.05), p=0.5 * rim(900)),
        "trap": dict(k=kick(48, 0.12, 120, 0.7), s=snare(200, 0.07, 0.40, 1500, 10000, 71) ,
                     h=0.7 * hat(0.018, 8000, 72), o=0.6 * hat(0.12, 7000, 73), p=0.7 * rim(2000)),
        "dub": dict(k=kick(50, 0.14, 70, 0.2), s=rim(1500) * 0.9, h=0.5 * hat(0.03, 5500, 82),
                    o=0.5 * hat(0.10, 5500, 83), p=0.8 * tom(180, 0.10)),
        "funk": dict(k=kick(60, 0.09, 70, 0.5), s=snare(230, 0.08, 0.34, 1000, 8000, 91),
                     h=0.7 * hat(0.025, 6500, 92), o=0.7 * hat(0.13, 6000, 93), p=0.6 * shaker(94)),
        "soft": dict(k=kick(48, 0.14, 40, 0.05), s=0.5 * shaker(98), h=0.4 * shaker(99), o=0.4 * shaker(99), p=0.4 * rim()),
    }[name]
    k.setdefault("t", tom(150))
    k.setdefault("u", tom(105))
    return {key: value.astype(np.float32) for key, value in k.items()}


def add_hit(buffer, start, sample, velocity):
    total = min(len(sample), len(buffer) - start)
    if total > 0 and start >= 0:
        buffer[start:start + total] += sample[:total] * np.float32(velocity)
