"""One WAV per style, and a caption: `python demo.py --out demo [--band]`."""
import argparse
import os

import numpy as np
import soundfile

from composer.render import SR


def composers(band):
    """The names of the styles, and what makes a piece: by synthesis, or by recorded instruments."""
    if band:
        from band.piece import NAMES, make_piece
    else:
        from composer.render import NAMES, make_piece
    return NAMES, make_piece


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--out", default="demo")
    p.add_argument("--seconds", type=float, default=40)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--band", action="store_true", help="recorded instruments instead of synthesis")
    a = p.parse_args()
    os.makedirs(a.out, exist_ok=True)
    names, make_piece = composers(a.band)
    for i, style in enumerate(names):
        audio, info = make_piece(a.seed * 100 + i, a.seconds, style)
        soundfile.write(os.path.join(a.out, style + ".wav"), np.atleast_2d(audio).T, SR)
        print(f"{style}: {info['bpm']:.0f} bpm, {info['captions'][0]}")
