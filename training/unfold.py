"""Take the codec out of a checkpoint folder again, of a whole model or of a codec alone, as `codec.py` would have left
it: `python unfold.py --model DIR --out codec.pt`. A new decoder can then keep it."""
import argparse
import os

import torch
import torch.nn.utils.parametrize as parametrize
from transformers import AutoConfig, EncodecModel, MusicgenForConditionalGeneration

from codec import fitted
from config import CODECS


def codec_of(folder):
    if AutoConfig.from_pretrained(folder).model_type == "encodec":
        return EncodecModel.from_pretrained(folder, dtype=torch.float32)
    return MusicgenForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).audio_encoder


def sizes_of(codec):
    """The name of its sizes in `config.py`; it may have more levels, and only one side."""
    for name, sizes in CODECS.items():
        if all(getattr(codec.config, key) == value for key, value in sizes.items() if key not in ("target_bandwidths", "audio_channels")):
            return name
    raise SystemExit("the codec has sizes that config.py does not know")


def codec_state(codec, sizes):
    """Its state with plain weights, as `codec.fitted` makes it."""
    for module in codec.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
    return fitted(codec.state_dict(), CODECS[sizes]["audio_channels"])


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--model", required=True)
    p.add_argument("--out", required=True)
    a = p.parse_args()
    os.makedirs(os.path.dirname(a.out) or ".", exist_ok=True)
    codec = codec_of(a.model)
    sizes = sizes_of(codec)
    torch.save(dict(sizes=sizes, model=codec_state(codec, sizes)), a.out)
