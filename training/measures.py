"""The measures that `evaluate.py` reports."""
import io

import librosa
import numpy as np
import soundfile
import torch

from composer.render import make_piece
from composer.styles import NAMES
from composer.theory import HALF_FRAMES, bpm_of
from config import SR


def log_mel(audio, hop=640, mels=40):
    s = librosa.feature.melspectrogram(y=audio, sr=SR, n_fft=2048, hop_length=hop, n_mels=mels, fmax=8000)
    return np.log(s + 1e-3)


def features(audio):
    """Timbre and rhythm statistics of a clip: level-free mel means, spreads and modulation."""
    m = log_mel(audio)
    m = m - m.mean()
    flux = np.maximum(np.diff(m, axis=1), 0)
    bands = [flux[i:i + 10].sum(0) for i in range(0, 40, 10)]
    out = [m.mean(1), m.std(1), flux.mean(1)]
    for b in bands:
        spectrum = np.abs(np.fft.rfft((b - b.mean()) * np.hanning(len(b)), 2048))
        groups = np.array_split(spectrum[20:420], 20)  # 0.5 to 10 Hz
        groups = np.array([g.mean() for g in groups])
        out.append(np.log(groups + 1e-2))
    return np.concatenate(out).astype(np.float32)


def train_classifier(per_style=60, seconds=16):
    """A linear classifier on features of composer renders; returns it and its held-out accuracy."""
    x, y = [], []
    for label, style in enumerate(NAMES):
        for i in range(per_style):
            audio, _ = make_piece(7_000_000 + label * 1000 + i, seconds + 6, style)
            at = (i % 4) * SR
            x.append(features(audio[at:at + seconds * SR]))
            y.append(label)
    x, y = torch.tensor(np.stack(x)), torch.tensor(y)
    test = torch.arange(len(y)) % 5 == 0
    mean, std = x[~test].mean(0), x[~test].std(0) + 0.2
    torch.manual_seed(0)
    net = torch.nn.Linear(x.shape[1], len(NAMES))
    opt = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.3)
    for _ in range(300):
        noise = 0.3 * torch.randn_like(x[~test])
        loss = torch.nn.functional.cross_entropy(net((x[~test] - mean) / std + noise), y[~test])
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        right = (net((x[test] - mean) / std).argmax(1) == y[test]).float().mean()
    return (net, mean, std), round(float(right), 3)


@torch.no_grad()
def style_of(classifier, audio):
    net, mean, std = classifier
    p = torch.softmax(net((torch.tensor(features(audio)) - mean) / std), -1)
    return NAMES[int(p.argmax())], dict(zip(NAMES, p.tolist()))


def tempo_found(audio, bpm, tolerance=0.04):
    """Whether the beat tracker's tempo is the asked one (half and double count)."""
    _, beats = librosa.beat.beat_track(y=audio, sr=SR, hop_length=320, units="time")
    if len(beats) < 4:
        return False
    slope = np.polyfit(np.arange(len(beats)), beats, 1)[0]
    found = 60.0 / slope
    return any(abs(found / (bpm * f) - 1) <= tolerance for f in (0.5, 1.0, 2.0))


def longest_silence(audio, threshold_db=-50):
    block = audio[: len(audio) // 1600 * 1600].reshape(-1, 1600)
    quiet = 10 * np.log10((block**2).mean(1) + 1e-12) < threshold_db
    best = run = 0
    for q in quiet:
        run = run + 1 if q else 0
        best = max(best, run)
    return best * 0.05


def bar_frames(bpm):
    """Mel frames of 20 ms in a bar, at the composer's tempo next to `bpm`."""
    return 4 * min(HALF_FRAMES, key=lambda h: abs(bpm_of(h) - bpm))


def bar_similarity(audio, bpm):
    """Mean correlation of mel frames at a lag of one bar, and at random lags off the beat."""
    m = log_mel(audio)
    m = m - m.mean(1, keepdims=True)
    bar = bar_frames(bpm)

    def at(lag):
        a, b = m[:, :-lag].ravel(), m[:, lag:].ravel()
        return float(np.corrcoef(a, b)[0, 1])

    rng = np.random.default_rng(0)
    lags = [int(bar / 4 * (k + f)) for k, f in zip(rng.integers(1, 8, 12), rng.uniform(0.15, 0.85, 12))]
    return max(at(bar + d) for d in (-1, 0, 1)), float(np.mean([at(l) for l in lags]))


def distinct_bars(audio, bpm, same=0.9):
    """How many different bars there are, out of how many: a bar counts as new when its mel
    picture correlates less than `same` with every one before. A frozen loop has one or two."""
    m = log_mel(audio)
    m = m - m.mean(1, keepdims=True)
    bar, seen = bar_frames(bpm), []
    count = m.shape[1] // bar
    for i in range(count):
        x = m[:, i * bar:(i + 1) * bar].ravel()
        if all(np.corrcoef(x, y)[0, 1] < same for y in seen):
            seen.append(x)
    return len(seen), count


def mel_distance(a, b):
    return float(np.abs(log_mel(a, 512, 80) - log_mel(b, 512, 80)).mean())


def opus(audio, kbps):
    buffer = io.BytesIO()
    level = 1 - (kbps * 1000 - 6000) / 250000
    soundfile.write(buffer, librosa.resample(audio, orig_sr=SR, target_sr=48000), 48000, format="OGG",
                    subtype="OPUS", compression_level=level)
    size = buffer.tell()
    buffer.seek(0)
    out, rate = soundfile.read(buffer, dtype="float32")
    out = librosa.resample(out, orig_sr=rate, target_sr=SR)
    return np.pad(out, (0, max(0, len(audio) - len(out))))[: len(audio)], size * 8 / (len(audio) / SR) / 1000


def si_sdr(estimate, target):
    scale = (estimate @ target) / (target @ target)
    error = estimate - scale * target
    return float(10 * np.log10((scale * target) @ (scale * target) / (error @ error + 1e-9)))


@torch.no_grad()
def codec_table(generator, per_style=2):
    """Log-mel distance (nats) and SI-SDR (dB) of the codec and of Opus on unseen renders."""
    model, rows = generator.model.audio_encoder, {"codec": [], "opus 6": [], "opus 12": []}
    used = [set() for _ in range(4)]
    for label, style in enumerate(NAMES):
        for i in range(per_style):
            audio, _ = make_piece(8_000_000 + 100 * label + i, 10, style)
            codes = model.encode(torch.tensor(audio)[None, None]).audio_codes
            for k in range(4):
                used[k].update(codes[0, 0, k].tolist())
            out = model.decode(codes, [None]).audio_values[0, 0].numpy()
            rows["codec"].append((mel_distance(out, audio), si_sdr(out, audio), 0.9))
            for kbps in (6, 12):
                out, rate = opus(audio, kbps)
                rows[f"opus {kbps}"].append((mel_distance(out, audio), si_sdr(out, audio), rate))
    table = {k: dict(zip(("log_mel", "si_sdr_db", "kbit_s"), np.round(np.mean(v, 0), 2).tolist())) for k, v in rows.items()}
    table["codebook_usage_in_this_sample"] = [round(len(u) / 512, 2) for u in used]
    return table
