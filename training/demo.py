"""One WAV per style, and its captions: `python demo.py --out demo`."""
import argparse
import os

import soundfile

from composer.render import SR, make_piece
from composer.styles import NAMES

if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--out", default="demo")
    p.add_argument("--seconds", type=float, default=40)
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    os.makedirs(a.out, exist_ok=True)
    for i, style in enumerate(NAMES):
        audio, info = make_piece(a.seed * 100 + i, a.seconds, style)
        soundfile.write(os.path.join(a.out, style + ".wav"), audio, SR)
        print(f"{style}: {info['bpm']:.0f} bpm, {info['captions'][0]}")
