"""Unseen pieces of the band before and after a codec, for its gate:
`python codec_pairs.py --codec codec.pt --out DIR [--pieces 27] [--seconds 20]`.

What comes back is what a model has: both sides, of the codes of their middle."""
import argparse
import os

import numpy as np
import soundfile
import torch

import fastconv
from band.piece import NAMES, make_piece
from config import SR
from encode import encode_audio, load_codec
from quantizer import dequantize

FIRST_SEED = 90_000_000     # far from those that are learned


@torch.no_grad()
def through(codec, audio):
    """Audio [sides, samples] after encoding and decoding."""
    codes = encode_audio(codec, torch.from_numpy(audio)[None])
    return np.clip(fastconv.decode(codec, dequantize(codec, codes))[0].numpy(), -1, 1)


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--codec", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--pieces", type=int, default=len(NAMES))
    p.add_argument("--seconds", type=float, default=20)
    p.add_argument("--threads", type=int, default=1)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    os.makedirs(a.out, exist_ok=True)
    codec = load_codec(a.codec)
    for i in range(a.pieces):
        audio, info = make_piece(FIRST_SEED + i, a.seconds, NAMES[i % len(NAMES)])
        name = os.path.join(a.out, f"{info['style']}-{i}")
        soundfile.write(name + ".ref.flac", audio.T, SR)
        soundfile.write(name + ".out.flac", through(codec, audio).T, SR)
