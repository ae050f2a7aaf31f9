"""Take the codec out of a checkpoint folder again, as `codec.py` would have left it:
`python unfold.py --model DIR --out codec.pt`. A new decoder can then keep it."""
import argparse
import os

import torch
import torch.nn.utils.parametrize as parametrize
from transformers import MusicgenForConditionalGeneration


def codec_state(folder):
    codec = MusicgenForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).audio_encoder
    for module in codec.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
    return codec.state_dict()


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--model", required=True)
    p.add_argument("--out", required=True)
    a = p.parse_args()
    os.makedirs(os.path.dirname(a.out) or ".", exist_ok=True)
    torch.save(dict(model=codec_state(a.model)), a.out)
