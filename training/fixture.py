"""Reference values from transformers for the tests of the server:
`python fixture.py --model DIR [--check lm.pt]` writes DIR/fixture.safetensors."""
import argparse
import os

import torch
from safetensors.torch import save_file
from transformers import MusicgenForConditionalGeneration

import lm
import wordpieces
from config import CODEBOOK_SIZE, CODEBOOKS

PROMPT = "warm lofi hip hop at 85 bpm"
FRAMES = 37  # with the start column and the delay: 40 columns


def load(folder):
    model = MusicgenForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


@torch.no_grad()
def reference_logits(model, text, ids, null):
    states = model.text_encoder(input_ids=text).last_hidden_state
    mask = torch.ones_like(text)
    states = model.enc_to_dec_proj(states) * mask[..., None]
    if null:
        states, mask = states * 0, mask * 0
    flat = ids.reshape(-1, ids.shape[-1])
    out = model.decoder(input_ids=flat, encoder_hidden_states=states, encoder_attention_mask=mask).logits
    return out.reshape(CODEBOOKS, ids.shape[-1], CODEBOOK_SIZE)


@torch.no_grad()
def make(folder):
    model, tok = load(folder), wordpieces.load(folder)
    text = torch.tensor([tok.encode(PROMPT).ids])
    codes = torch.randint(0, CODEBOOK_SIZE, (1, CODEBOOKS, FRAMES - 1), generator=torch.Generator().manual_seed(1))
    ids = lm.delay(codes)
    cond, null = reference_logits(model, text, ids, False), reference_logits(model, text, ids, True)
    mask = torch.ones_like(text)
    for keep, want in ((1, cond), (0, null)):
        keep = torch.full((1,), keep)
        mine = lm.decoder_logits(model, ids, lm.text_states(model, text, mask, keep), mask * keep)[0]
        print("largest difference to the training forward pass", float((mine - want).abs().max()))
    fixed = torch.randint(0, CODEBOOK_SIZE, (1, CODEBOOKS, 20), generator=torch.Generator().manual_seed(2))
    audio = model.audio_encoder.decode(fixed[None], [None]).audio_values
    columns = torch.arange(4, ids.shape[-1], 5)
    save_file({
        "text.input_ids": text, "lm.delayed_ids": ids[0].contiguous(), "lm.columns": columns,
        "lm.logits_cond": cond[:, columns].contiguous(), "lm.logits_uncond": null[:, columns].contiguous(),
        "codec.codes": fixed[0].contiguous(), "codec.audio": audio.reshape(-1).contiguous(),
    }, os.path.join(folder, "fixture.safetensors"), metadata={"prompt": PROMPT})
    print(os.path.getsize(os.path.join(folder, "fixture.safetensors")), "bytes,", len(columns), "of", ids.shape[-1], "columns")


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--model", required=True)
    make(p.parse_args().model)
