"""python -m gates clips  --kind decoder|long|words --model DIR --binary CONTINUO --out DIR
python -m gates clips  --kind renders [--band] --out DIR
python -m gates decoder --clips DIR [--long DIR] [--before FILE] --out FILE
python -m gates words   --clips DIR --renders DIR [--before FILE] --out FILE
python -m gates codec   --pairs DIR [--model DIR --binary CONTINUO] [--before FILE] --out FILE

Each prints its figures and ends with 0 if the gate is passed. `--only` takes some clips, by a pattern."""
import argparse
import glob
import json
import os
import sys

import soundfile

from . import clips, judge
from .wanted import verdict


def pairs(folder):
    """Audio files NAME.ref.flac and NAME.out.flac."""
    for path in sorted(glob.glob(os.path.join(folder, "*.ref.flac"))):
        before, rate = soundfile.read(path, dtype="float32", always_2d=True)
        after, _ = soundfile.read(path.replace(".ref.", ".out."), dtype="float32", always_2d=True)
        yield before, after, rate


def read(path):
    if not path or not os.path.exists(path):
        return None
    with open(path) as f:
        return json.load(f)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("gate", choices=["clips", "codec", "decoder", "words"])
    p.add_argument("--kind", default="decoder", choices=["decoder", "long", "words", "renders"])
    p.add_argument("--model")
    p.add_argument("--binary", default="../target/release/continuo")
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--only", help="pattern of the names of clips to make")
    p.add_argument("--extra", default="", help="more options for Continuo")
    p.add_argument("--band", action="store_true", help="renders of recorded instruments")
    p.add_argument("--clips")
    p.add_argument("--long")
    p.add_argument("--pairs")
    p.add_argument("--renders")
    p.add_argument("--work", default="run/gates", help="where measures of recorded music are kept")
    p.add_argument("--before", help="figures of the model before")
    p.add_argument("--also", help="more figures, measured elsewhere: a JSON file")
    p.add_argument("--out", required=True)
    a = p.parse_args()
    if a.gate == "clips":
        if a.kind == "renders":
            made = clips.render(a.out, a.band)
        else:
            made = clips.make(a.kind, a.model, a.binary, a.out, a.seeds, a.only, a.extra.split())
        print(len(made), "clips in", a.out)
        return
    os.makedirs(a.work, exist_ok=True)
    before = read(a.before)
    figures = {"codec": lambda: judge.codec(pairs(a.pairs)), "decoder": lambda: judge.decoder(a.clips, a.work, a.long),
               "words": lambda: judge.words(a.clips, a.renders)}[a.gate]()
    if a.gate == "codec" and a.model:
        figures["times_real_time"] = clips.codec_speed(a.model, a.binary)
    figures.update(read(a.also) or {})
    if before and before.get("distance") and figures.get("distance"):
        figures["distance_ratio"] = figures["distance"] / before["distance"]
    with open(a.out, "w") as f:
        json.dump(figures, f, indent=1)
    print(json.dumps({k: v for k, v in figures.items() if not isinstance(v, (list, dict))}))
    lines, good = verdict(a.gate, figures, before)
    print("\n".join(lines))
    sys.exit(0 if good else 1)


main()
