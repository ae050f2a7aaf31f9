"""Choose the sampling defaults, on prompts that `evaluate.py` does not use:

    python choose.py --model DIR [--classifier FILE] --try 2:0.5:30 --try 3:0.7:50

Each trial is guidance:temperature:top_k; without one the defaults of the folder are measured.
"""
import argparse
import os

import numpy as np
import soundfile
import torch

from config import SR
from evaluate import by_continuo
from measures import bar_similarity, distinct_bars, style_of, tempo_found, train_classifier
from sample import Generator

CHOOSING = [
    ("lofi", 75, "chill lofi beats, 75 bpm"), ("techno", 136, "minimal techno, 136 bpm"),
    ("house", 125, "house music with piano, 125 bpm"), ("dnb", 175, "liquid drum and bass, 175 bpm"),
    ("synthwave", 107, "retrowave, 107 bpm"), ("chiptune", 125, "8-bit game music, 125 bpm"),
    ("trap", 130, "trap beat, 130 bpm"), ("dub", 83, "roots reggae, 83 bpm"), ("funk", 115, "disco funk, 115 bpm"),
    ("ambient", None, "ambient soundscape"), ("piano", None, "slow piano"), ("strings", None, "string quartet"),
]


def trial(args, generator, classifier, guidance, temperature, top_k):
    prompts = [p for _, _, p in CHOOSING for _ in range(args.clips)]
    if args.binary:
        args.extra = f"--temperature {temperature} --top-k {top_k}"
        clips = [by_continuo(args, p, args.seconds, args.seed + i, guidance)[0] for i, p in enumerate(prompts)]
    else:
        clips = generator.clips(prompts, args.seconds, seed=args.seed, guidance=guidance, temperature=temperature, top_k=top_k)
    named, tempo, bars, lines = [], [], [], []
    for i, (style, bpm, _) in enumerate(CHOOSING):
        line = []
        for j, clip in enumerate(clips[i * args.clips:(i + 1) * args.clips]):
            name = style_of(classifier, clip)[0]
            named.append(name == style)
            line.append(name)
            if bpm:
                tempo.append(tempo_found(clip, bpm))
                bars.append((*bar_similarity(clip, bpm), distinct_bars(clip, bpm)[0]))
                line[-1] += f" {'on' if tempo[-1] else 'off'} {bars[-1][0]:.2f}"
            if args.out and j == 0:
                soundfile.write(os.path.join(args.out, f"{style}.wav"), np.clip(clip, -1, 1), SR)
        lines.append(f"  {style}: " + ", ".join(line))
    bar, random, different = np.mean(bars, 0)
    print(f"guidance {guidance} temperature {temperature} top-k {top_k}: style {np.mean(named):.2f} tempo {np.mean(tempo):.2f} "
          f"bar {bar:.2f} random {random:.2f} distinct bars {different:.1f}", flush=True)
    if args.verbose:
        print("\n".join(lines), flush=True)


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--model", required=True)
    p.add_argument("--binary", help="generate with Continuo instead of PyTorch")
    p.add_argument("--classifier")
    p.add_argument("--try", dest="trials", action="append", default=[])
    p.add_argument("--clips", type=int, default=2)
    p.add_argument("--seconds", type=float, default=16)
    p.add_argument("--seed", type=int, default=5)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--out", help="folder for one clip per prompt")
    p.add_argument("--verbose", action="store_true")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    g = Generator(a.model)
    if a.out:
        os.makedirs(a.out, exist_ok=True)
    if a.classifier and os.path.exists(a.classifier):
        cl, _ = torch.load(a.classifier, weights_only=False)
    else:
        cl, _ = train_classifier()
    d = g.defaults
    for t in a.trials or [f"{d['guidance']}:{d['temperature']}:{d['top_k']}"]:
        gs, ts, ks = t.split(":")
        trial(a, g, cl, float(gs), float(ts), int(ks))
