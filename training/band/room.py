"""What comes after the instruments: one fixed stereo room, rain, and the level of the whole."""
from functools import lru_cache

import numpy as np
from scipy import signal

from composer.render import loudness

from .tempo import SR

# Pieces of one song share their samples, so level and width come in steps.
TARGET, STEP_DB = -16.5, 3.0    # LUFS
WIDTHS, WIDEST = (2.0, 1.4, 1.0, 0.7, 0.5), 0.6     # of the difference of the sides, and the most of it over their sum


@lru_cache(maxsize=None)
def response(seconds=1.8, seed=5):
    """Impulse response [2, n]: it never moves, so it does not blur a bar that comes again."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * SR)) / SR
    noise = rng.standard_normal((2, len(t))) * np.exp(-t * 6.0 / seconds)
    noise = signal.sosfilt(signal.butter(2, [220, 6000], "bandpass", fs=SR, output="sos"), noise)
    for side, early in ((0, (11, 23, 41)), (1, (13, 29, 37))):
        for ms in early:
            noise[side, ms * SR // 1000] += 4.0 * np.std(noise[side, :SR // 10])
    noise[:, : SR // 100] = 0
    return (noise / np.sqrt((noise ** 2).sum(1, keepdims=True))).astype(np.float32)


def in_room(dry, amount):
    """Stereo audio [2, n] with the room around it."""
    if not amount:
        return dry
    send = dry.mean(0)
    wet = np.stack([signal.oaconvolve(send, side)[: dry.shape[1]] for side in response()])
    return dry + amount * 1.8 * wet


@lru_cache(maxsize=8)
def rain(period, seed=3):
    """Rain [2, period] that joins its own beginning: noise with drops."""
    rng = np.random.default_rng(seed)
    freqs = np.fft.rfftfreq(period, 1 / SR)
    shape = freqs / (300 + freqs) / (1 + (freqs / 5000) ** 2) ** 0.5
    spectrum = shape * np.exp(2j * np.pi * rng.random((2, len(freqs))))
    out = np.fft.irfft(spectrum, period)
    out /= out.std()
    for at in rng.integers(0, period, period // 1600):
        drop = np.hanning(64) * np.sin(2 * np.pi * rng.uniform(2000, 6000) * np.arange(64) / SR) * rng.uniform(0.5, 4)
        side = rng.integers(2)
        index = (at + np.arange(64)) % period
        out[side, index] += drop
    return (0.02 * out).astype(np.float32)


def master(audio, target=TARGET):
    """Width, high-pass, level and a soft limit."""
    mid, side = audio.mean(0), (audio[0] - audio[1]) / 2
    most = WIDEST * np.sqrt((mid ** 2).mean() / ((side ** 2).mean() + 1e-12))
    side = side * next((w for w in WIDTHS if w <= most), WIDTHS[-1])
    audio = np.stack([mid + side, mid - side])
    audio = signal.sosfilt(signal.butter(2, 30, "highpass", fs=SR, output="sos"), audio)
    gain = round((target - loudness(audio.mean(0))) / STEP_DB) * STEP_DB
    return (np.tanh(audio * 10 ** (gain / 20) * 1.05) * 0.93).astype(np.float32)
