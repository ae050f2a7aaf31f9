"""Measure a checkpoint. Prints JSON and, with --out, keeps the clips.

    python evaluate.py --model DIR [--binary PATH_TO_CONTINUO] [--clips 10] [--parts tempo,style,...]

Without --binary the clips are sampled with PyTorch. The style classifier sees only
renders of the composer; the beat tracker is librosa's.
"""
import argparse
import json
import os
import subprocess
import tempfile

import librosa
import numpy as np
import soundfile
import torch

from composer.render import loudness
from config import SR
from measures import (bar_similarity, codec_table, longest_silence, style_of, tempo_found, train_classifier)
from sample import Generator

PROMPTS = [
    ("lofi", 80, "mellow lofi hip hop, 80 bpm"), ("techno", 128, "driving techno, 128 bpm"),
    ("house", 120, "deep house, 120 bpm"), ("dnb", 172, "drum and bass, 172 bpm"),
    ("synthwave", 100, "80s synthwave, 100 bpm"), ("chiptune", 140, "8-bit chiptune, 140 bpm"),
    ("trap", 140, "dark trap, 140 bpm"), ("dub", 75, "reggae dub, 75 bpm"), ("funk", 105, "funk groove, 105 bpm"),
    ("ambient", None, "calm ambient"), ("piano", None, "gentle solo piano"), ("strings", None, "cinematic strings"),
]


def make_clips(args, prompt, first_seed, guidance=None):
    if not args.binary:
        return list(args.generator.clips([prompt] * args.clips, args.seconds, seed=first_seed, guidance=guidance))
    clips = []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(args.clips):
            path = os.path.join(folder, "clip.wav")
            command = [args.binary, "generate", prompt, "--seconds", str(args.seconds), "-o", path, "--seed", str(first_seed + i)]
            subprocess.run(command + args.extra.split(), check=True, stdout=subprocess.DEVNULL)
            audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
            audio = audio.mean(1)
            clips.append(librosa.resample(audio, orig_sr=rate, target_sr=SR) if rate != SR else audio)
    return clips


def measure(args):
    torch.set_num_threads(args.threads)
    args.generator = Generator(args.model) if not args.binary or args.guidance or args.codec else None
    result = {"generator": "continuo" if args.binary else "PyTorch", "clips_per_prompt": args.clips, "seconds": args.seconds}
    if args.classifier and os.path.exists(args.classifier):
        classifier, held_out = torch.load(args.classifier, weights_only=False)
    else:
        classifier, held_out = train_classifier()
        if args.classifier:
            torch.save((classifier, held_out), args.classifier)
    result["classifier_accuracy_on_held_out_renders"] = held_out
    rows, tempo_ok, style_ok = {}, [], []
    for number, (style, bpm, prompt) in enumerate(PROMPTS[: args.prompts]):
        clips = make_clips(args, prompt, 1000 * number)
        row = dict(style=float(np.mean([style_of(classifier, c)[0] == style for c in clips])))
        row["named"] = [style_of(classifier, c)[0] for c in clips]
        style_ok += [n == style for n in row["named"]]
        if bpm:
            hits = [tempo_found(c, bpm) for c in clips]
            row["tempo"] = float(np.mean(hits))
            tempo_ok += hits
            similar = [bar_similarity(c, bpm) for c in clips]
            row["bar_similarity"], row["random_similarity"] = np.round(np.mean(similar, 0), 3).tolist()
        row["lufs"] = round(float(np.mean([loudness(c) for c in clips])), 1)
        row["longest_silence_s"] = round(max(longest_silence(c) for c in clips), 2)
        row["peak"] = round(float(max(np.abs(c).max() for c in clips)), 3)
        row["clipped_samples"] = int(sum((np.abs(c) >= 0.999).sum() for c in clips))
        rows[prompt] = row
        print(prompt, row, flush=True)
        if args.out:
            os.makedirs(args.out, exist_ok=True)
            for i, c in enumerate(clips[:2]):
                soundfile.write(os.path.join(args.out, f"{style}-{i}.wav"), np.clip(c, -1, 1), SR)
    levels = [r["lufs"] for r in rows.values()]
    result.update(tempo_found=float(np.mean(tempo_ok)), style_named=float(np.mean(style_ok)),
                  loudness_spread_lu=round(max(levels) - min(levels), 1), prompts=rows)
    if args.guidance:
        result["guidance"] = {}
        for g in (1.0, 2.0, 3.0):
            scores, right = [], []
            for number, (style, _, prompt) in enumerate(PROMPTS[: args.prompts]):
                for c in args.generator.clips([prompt] * 4, 12, seed=77 + number, guidance=g):
                    name, probabilities = style_of(classifier, c)
                    scores.append(float(np.log(probabilities[style] + 1e-6)))
                    right.append(name == style)
            result["guidance"][str(g)] = dict(log_probability=round(float(np.mean(scores)), 3), named=float(np.mean(right)))
    if args.codec:
        result["codec"] = codec_table(args.generator)
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
    p.add_argument("--guidance", action="store_true", help="also compare guidance 1, 2 and 3 (PyTorch)")
    p.add_argument("--codec", action="store_true", help="also compare the codec with Opus")
    p.add_argument("--out")
    print(json.dumps(measure(p.parse_args()), indent=1))
