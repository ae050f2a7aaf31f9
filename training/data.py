"""Render a pool of pieces to disk (int16 audio and captions), with several processes.

    python data.py --out DIR --pieces 480 --seconds 32

With MUSIC=band recorded instruments play: left and right are two rows of the pool, so that a codec hears both
sides; `info.json` has one entry per row all the same.
"""
import argparse
import json
import multiprocessing
import os

import numpy as np

from composer.render import FRAME, SR, make_piece
from config import BAND


def _job(args):
    seed, seconds, band = args
    if band:
        from band.piece import make_piece as play
    else:
        play = make_piece
    audio, info = play(seed, seconds)
    return (np.clip(np.atleast_2d(audio), -1, 1) * 32767).astype(np.int16), info


def render_pool(out, pieces, seconds, first_seed=1, workers=2, band=False):
    os.makedirs(out, exist_ok=True)
    n, sides = int(round(seconds * SR / FRAME)) * FRAME, 2 if band else 1
    audio = np.lib.format.open_memmap(os.path.join(out, "audio.npy"), "w+", np.int16, (pieces * sides, n))
    infos = []
    jobs = [(first_seed + i, seconds, band) for i in range(pieces)]
    with multiprocessing.Pool(workers) as pool:
        for i, (a, info) in enumerate(pool.imap(_job, jobs, chunksize=4)):
            audio[i * sides:(i + 1) * sides] = a
            infos += [info] * sides
    audio.flush()
    with open(os.path.join(out, "info.json"), "w") as f:
        json.dump(infos, f)


def load_pool(folder):
    audio = np.load(os.path.join(folder, "audio.npy"), mmap_mode="r")
    with open(os.path.join(folder, "info.json")) as f:
        return audio, json.load(f)


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--out", required=True)
    p.add_argument("--pieces", type=int, default=480)
    p.add_argument("--seconds", type=float, default=32)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--workers", type=int, default=2)
    a = p.parse_args()
    render_pool(a.out, a.pieces, a.seconds, a.seed, a.workers, BAND)
