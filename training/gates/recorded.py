"""Recorded music to compare with: tunes of free games, out of Debian packages. They are only measured,
and never learned from. `make gate-music` installs them."""
import glob

import numpy as np
import soundfile

PACKAGES = {
    "wesnoth-1.16-music": "/usr/share/games/wesnoth/1.16/data/core/music/*.ogg",
    "hyperrogue-music": "/usr/share/hyperrogue/music/*.ogg",
    "singularity-music": "/usr/share/games/singularity/music/**/*.ogg",
    "lincity-ng-data": "/usr/share/games/lincity-ng/music/**/*.ogg",
}
MIDDLE_S = 30


def tunes(most=24):
    """Paths of about as many tunes from each package."""
    found = [sorted(glob.glob(pattern, recursive=True)) for pattern in PACKAGES.values()]
    out = []
    for turn in range(max(map(len, found), default=0)):
        out += [files[turn] for files in found if turn < len(files)]
    if not out:
        raise SystemExit("no recorded music here: `make gate-music` installs some")
    return out[:most]


def middle(path, seconds=MIDDLE_S):
    """Audio [samples, channels] from the middle of a file, and its rate."""
    with soundfile.SoundFile(path) as f:
        size = int(min(seconds * f.samplerate, f.frames))
        f.seek((f.frames - size) // 2)
        return f.read(size, dtype="float32", always_2d=True), f.samplerate
