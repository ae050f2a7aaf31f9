"""Clips that a gate listens to, made by Continuo itself. What is there already is kept, so that a
stopped run goes on."""
import json
import os
import re
import subprocess

import numpy as np
import soundfile

from . import prompts

RATE = 32000


def asked(kind, seeds):
    """(name, prompt, seconds, seed, what is known of it) of every clip."""
    if kind == "decoder":
        for style, bpm, prompt in prompts.CARD:
            for seed in range(seeds):
                yield f"{style}-{seed}", prompt, 30, 100 + seed, dict(style=style, bpm=bpm)
    elif kind == "long":
        for i, prompt in enumerate(prompts.LONG):
            yield f"long-{i}", prompt, 600, 100, dict(style=None, bpm=None)
    else:
        for i, (prompt, styles) in enumerate(prompts.FREE):
            yield f"free-{i:02d}", prompt, 20, 100 + i, dict(styles=sorted(styles))
        for i, prompt in enumerate(prompts.STRANGE):
            yield f"strange-{i}", prompt, 20, 200 + i, dict(styles=None)


def make(kind, model, binary, folder, seeds=3, only=None, extra=()):
    """Write the clips as FLAC, and `clips.json` beside them."""
    os.makedirs(folder, exist_ok=True)
    listing = []
    for name, prompt, seconds, seed, known in asked(kind, seeds):
        if only and not re.search(only, name):
            continue
        path = os.path.join(folder, name + ".flac")
        if not os.path.exists(path):
            wav = os.path.join(folder, ".new.wav")
            subprocess.run([binary, "generate", prompt, "--model", model, "--seconds", str(seconds), "--seed", str(seed),
                            "-o", wav, *extra], check=True, capture_output=True)
            audio, rate = soundfile.read(wav, dtype="float32", always_2d=True)
            soundfile.write(path + ".tmp", audio, rate, format="FLAC")
            os.replace(path + ".tmp", path)
            os.remove(wav)
        listing.append(dict(file=name + ".flac", prompt=prompt, seed=seed, **known))
    with open(os.path.join(folder, "clips.json"), "w") as f:
        json.dump(listing, f, indent=1)
    return listing


def render(folder, band, each=3, seconds=20):
    """Renders of the composer, so many of each style: what a style sounds like."""
    if band:
        from band.piece import NAMES, make_piece
    else:
        from composer.render import NAMES, make_piece
    os.makedirs(folder, exist_ok=True)
    listing = []
    for i, style in enumerate(NAMES):
        for n in range(each):
            name = f"{style}-{n}.flac"
            audio, _ = make_piece(91_000_000 + 100 * i + n, seconds, style)
            soundfile.write(os.path.join(folder, name), np.atleast_2d(audio).T, RATE)
            listing.append(dict(file=name, style=style))
    with open(os.path.join(folder, "clips.json"), "w") as f:
        json.dump(listing, f, indent=1)
    return listing


def codec_speed(model, binary):
    """How many times faster than real time Continuo decodes with the codec of a checkpoint folder, one voice."""
    told = subprocess.run([binary, "bench", "codec", "--model", model, "--voices", "1", "--json"], check=True, capture_output=True)
    return json.loads(told.stdout)["results"][0]["realtime"]


def load(folder):
    """(what is known, audio [samples, channels], rate) of every clip of a folder."""
    with open(os.path.join(folder, "clips.json")) as f:
        for item in json.load(f):
            audio, rate = soundfile.read(os.path.join(folder, item["file"]), dtype="float32", always_2d=True)
            yield item, audio, rate
