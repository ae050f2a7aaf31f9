"""Measure a checkpoint. Prints JSON; --out keeps some clips and the JSON.

    python evaluate.py --model DIR [--binary PATH_TO_CONTINUO] [--parts clips,guidance,codec,hours]

With --binary the clips come from Continuo itself, else they are sampled with PyTorch.
The style classifier has seen only renders of the composer; the beat tracker is librosa's.
"""
import argparse
import json
import os
import re
import subprocess
import tempfile

import librosa
import numpy as np
import soundfile
import torch

from composer.render import loudness
from config import SR
from measures import (bar_similarity, codec_table, distinct_bars, longest_silence, style_of, tempo_found,
                      train_classifier)
from sample import Generator

# The sampling defaults were chosen on other prompts: `CHOOSING` in `choose.py`.
PROMPTS = [
    ("lofi", 80, "mellow lofi hip hop, 80 bpm"), ("techno", 128, "driving techno, 128 bpm"),
    ("house", 120, "deep house, 120 bpm"), ("dnb", 172, "drum and bass, 172 bpm"),
    ("synthwave", 100, "80s synthwave, 100 bpm"), ("chiptune", 140, "8-bit chiptune, 140 bpm"),
    ("trap", 140, "dark trap, 140 bpm"), ("dub", 75, "reggae dub, 75 bpm"), ("funk", 105, "funk groove, 105 bpm"),
    ("ambient", None, "calm ambient"), ("piano", None, "gentle solo piano"), ("strings", None, "cinematic strings"),
]


def by_continuo(args, prompt, seconds, seed, guidance=None):
    """One clip from the binary, and how many times faster than real time it was made."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "clip.wav")
        command = [args.binary, "generate", prompt, "--model", args.model, "--seconds", str(seconds), "-o", path,
                   "--seed", str(seed), *args.extra.split()]
        if guidance is not None:
            command += ["--guidance", str(guidance)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        speed = re.search(r"\(([\d.]+)x real time\)", done.stdout + done.stderr)
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    audio = audio.mean(1)
    audio = librosa.resample(audio, orig_sr=rate, target_sr=SR) if rate != SR else audio
    return audio, float(speed[1]) if speed else None


def make_clips(args, prompt, first_seed, count, seconds, guidance=None):
    if not args.binary:
        return list(args.generator.clips([prompt] * count, seconds, seed=first_seed, guidance=guidance))
    clips = []
    for i in range(count):
        clip, speed = by_continuo(args, prompt, seconds, first_seed + i, guidance)
        clips.append(clip)
        args.speeds.append(speed)
    return clips


def clip_rows(args, classifier):
    """The measures of every prompt, and their means."""
    rows, tempo_ok, style_ok, bars = {}, [], [], []
    for number, (style, bpm, prompt) in enumerate(PROMPTS[: args.prompts]):
        clips = make_clips(args, prompt, 1000 * number, args.clips, args.seconds)
        row = dict(named=[style_of(classifier, c)[0] for c in clips])
        row["style"] = float(np.mean([n == style for n in row["named"]]))
        style_ok += [n == style for n in row["named"]]
        if bpm:
            hits = [tempo_found(c, bpm) for c in clips]
            row["tempo"] = float(np.mean(hits))
            tempo_ok += hits
            similar = [bar_similarity(c, bpm) for c in clips]
            bars += similar
            row["bar_similarity"], row["random_similarity"] = np.round(np.mean(similar, 0), 3).tolist()
        row["lufs"] = round(float(np.mean([loudness(c) for c in clips])), 1)
        row["longest_silence_s"] = round(max(longest_silence(c) for c in clips), 2)
        row["peak"] = round(float(max(np.abs(c).max() for c in clips)), 3)
        row["clipped_samples"] = int(sum((np.abs(c) >= 0.999).sum() for c in clips))
        rows[prompt] = row
        print(prompt, row, flush=True)
        if args.out:
            for i, c in enumerate(clips[:2]):
                soundfile.write(os.path.join(args.out, f"{style}-{i}.wav"), np.clip(c, -1, 1), SR)
    levels = [r["lufs"] for r in rows.values()]
    bar, random = np.round(np.mean(bars, 0), 3).tolist()
    return dict(tempo_found=float(np.mean(tempo_ok)), style_named=float(np.mean(style_ok)), bar_similarity=bar,
                random_similarity=random, loudness_spread_lu=round(max(levels) - min(levels), 1),
                longest_silence_s=max(r["longest_silence_s"] for r in rows.values()),
                clipped_samples=sum(r["clipped_samples"] for r in rows.values()), prompts=rows)


def guidance_rows(args, classifier):
    """Text adherence at guidance 1 and 3."""
    out = {}
    for g in (1.0, 3.0):
        scores, right, tempo = [], [], []
        for number, (style, bpm, prompt) in enumerate(PROMPTS[: args.prompts]):
            for c in make_clips(args, prompt, 77000 + 100 * number, 4, 14, g):
                name, probabilities = style_of(classifier, c)
                scores.append(float(np.log(probabilities[style] + 1e-6)))
                right.append(name == style)
                if bpm:
                    tempo.append(tempo_found(c, bpm))
        out[str(g)] = dict(log_probability=round(float(np.mean(scores)), 3), named=round(float(np.mean(right)), 3),
                           tempo=round(float(np.mean(tempo)), 3))
        print("guidance", g, out[str(g)], flush=True)
    return out


def minute_row(audio, classifier, style, bpm):
    """Measures of one minute, from its three thirds and from the whole."""
    thirds = [audio[i * 20 * SR:(i + 1) * 20 * SR] for i in range(3)]
    bar, random = np.mean([bar_similarity(t, bpm) for t in thirds], 0)
    different, bars = distinct_bars(audio, bpm)
    return dict(style=[style_of(classifier, t)[0] for t in thirds], tempo=[tempo_found(t, bpm) for t in thirds],
                bar_similarity=round(float(bar), 3), random_similarity=round(float(random), 3),
                distinct_bars=f"{different} of {bars}", lufs=round(loudness(audio), 1),
                longest_silence_s=round(longest_silence(audio), 2), peak=round(float(np.abs(audio).max()), 3))


def hour_rows(args, classifier):
    """The first and the last minute of long streams; the quietest and loudest minute."""
    out = {}
    for style, bpm, prompt in PROMPTS[: args.hours]:
        audio, speed = by_continuo(args, prompt, 60 * args.minutes, 60)
        minute = 60 * SR
        levels = [loudness(audio[i * minute:(i + 1) * minute]) for i in range(args.minutes)]
        last = audio[(args.minutes - 1) * minute:args.minutes * minute]
        out[prompt] = {"1": minute_row(audio[:minute], classifier, style, bpm),
                       str(args.minutes): minute_row(last, classifier, style, bpm),
                       "lufs_of_minutes": [round(min(levels), 1), round(max(levels), 1)],
                       "longest_silence_s": round(longest_silence(audio), 2), "times_real_time": speed}
        print(prompt, out[prompt], flush=True)
        if args.out:
            soundfile.write(os.path.join(args.out, f"{style}-minute-{args.minutes}.wav"), last, SR)
    return out


def measure(args):
    torch.set_num_threads(args.threads)
    args.speeds = []
    parts = args.parts.split(",")
    args.generator = Generator(args.model) if "codec" in parts or not args.binary else None
    if args.out:
        os.makedirs(args.out, exist_ok=True)
    if args.classifier and os.path.exists(args.classifier):
        classifier, held_out = torch.load(args.classifier, weights_only=False)
    else:
        classifier, held_out = train_classifier()
        if args.classifier:
            torch.save((classifier, held_out), args.classifier)
    result = {"generator": "continuo" if args.binary else "PyTorch", "clips_per_prompt": args.clips,
              "seconds": args.seconds, "classifier_accuracy_on_held_out_renders": held_out}
    if "clips" in parts:
        result.update(clip_rows(args, classifier))
    if args.speeds:
        result["times_real_time"] = dict(median=round(float(np.median(args.speeds)), 1), least=min(args.speeds))
    if "guidance" in parts:
        result["guidance"] = guidance_rows(args, classifier)
    if "codec" in parts:
        result["codec"] = codec_table(args.generator)
    if "hours" in parts:
        result["hour"] = hour_rows(args, classifier)
    return result


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--model", required=True)
    p.add_argument("--binary")
    p.add_argument("--extra", default="", help="more arguments for the binary")
    p.add_argument("--classifier", help="file that keeps the trained classifier")
    p.add_argument("--clips", type=int, default=10)
    p.add_argument("--seconds", type=float, default=20)
    p.add_argument("--prompts", type=int, default=len(PROMPTS))
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--parts", default="clips", help="of clips, guidance, codec, hours (which needs --binary)")
    p.add_argument("--hours", type=int, default=2, help="how many prompts play for an hour")
    p.add_argument("--minutes", type=int, default=60, help="length of these streams")
    p.add_argument("--out")
    a = p.parse_args()
    text = json.dumps(measure(a), indent=1)
    print(text)
    if a.out:
        with open(os.path.join(a.out, "figures.json"), "w") as f:
            f.write(text + "\n")
