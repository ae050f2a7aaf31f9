"""Write a checkpoint folder in the MusicGen layout of transformers (f16):
`python export.py --out DIR --words DIR [--codec codec.pt] [--lm lm.pt]`,
or a codec alone in that of EnCodec: `python export.py --out DIR --codec codec.pt --alone`."""
import argparse
import json
import os
import shutil

import torch
from transformers import EncodecConfig, EncodecModel

import codec as codec_module
import lm
from config import CODEBOOK_SIZE, CODECS, KEEP, SAMPLING, SIDES, SR, WINDOW


def state_of(codec_path, lm_path):
    model = lm.build()
    state = model.state_dict()
    if lm_path:
        saved = torch.load(lm_path, map_location="cpu", weights_only=False)
        trained = dict(saved["model"], **saved.get("average", {}))
        state.update({k: v for k, v in trained.items() if not k.startswith("audio_encoder.")})
    if codec_path:
        trained = torch.load(codec_path, map_location="cpu", weights_only=False)["model"]
        trained = codec_module.with_weight_norm(codec_module.fitted(trained))
        state.update({"audio_encoder." + k: v for k, v in trained.items()})
    model.load_state_dict(state)
    return model


def write_codec(out, path):
    """Sizes are those that the codec was trained with."""
    saved = torch.load(path, map_location="cpu", weights_only=False)
    sizes = CODECS[saved["sizes"]]
    model = EncodecModel(EncodecConfig(**sizes))
    model.load_state_dict(codec_module.with_weight_norm(codec_module.fitted(saved["model"], sizes["audio_channels"])))
    model.half().save_pretrained(out)


def write(out, words, codec_path=None, lm_path=None):
    os.makedirs(out, exist_ok=True)
    torch.manual_seed(0)
    model = state_of(codec_path, lm_path)
    start = dict(bos_token_id=CODEBOOK_SIZE, pad_token_id=CODEBOOK_SIZE, decoder_start_token_id=CODEBOOK_SIZE)
    for key, value in dict(start, max_length=WINDOW + 4, **SAMPLING).items():
        setattr(model.generation_config, key, value)
    model.half().save_pretrained(out)
    path = os.path.join(out, "generation_config.json")
    with open(path) as f:
        config = json.load(f)
    config["continuo"] = dict(window_frames=WINDOW, keep_frames=KEEP)
    with open(path, "w") as f:
        json.dump(config, f, indent=2)
        f.write("\n")
    with open(os.path.join(out, "preprocessor_config.json"), "w") as f:
        json.dump(dict(chunk_length_s=None, feature_extractor_type="EncodecFeatureExtractor", feature_size=SIDES,
                       overlap=None, padding_side="left", padding_value=0.0, processor_class="MusicgenProcessor",
                       return_attention_mask=True, sampling_rate=SR), f, indent=2)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(os.path.join(words, name), out)
    # That of the table of word pieces, which asks to be with it.
    shutil.copy(os.path.join(os.path.dirname(os.path.abspath(__file__)), "LICENSE-Apache-2.0"), out)


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--out", required=True)
    p.add_argument("--words", help="folder of the tokenizer")
    p.add_argument("--codec")
    p.add_argument("--lm")
    p.add_argument("--alone", action="store_true", help="the codec alone")
    a = p.parse_args()
    if a.alone and a.codec:
        write_codec(a.out, a.codec)
        raise SystemExit
    if a.alone or not a.words:
        p.error("say --words, or --codec and --alone")
    write(a.out, a.words, a.codec, a.lm)
