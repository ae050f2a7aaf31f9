"""A wider decoder that begins nearly where a smaller one ended:
`python widen.py --model DIR --codes DIR --out init.pt`, then `train_lm.py --init init.pt`.

Every old column of the residual stream goes to the new one whose position wave is nearest in speed; what is new is
read by nobody at first and writes nothing. The norms see more columns than before, so their gains are set by the
spread that the old decoder shows on a few pieces. Position waves are a few per cent faster or slower than they
were: what looks far back must be learned again, and soon is."""
import argparse
import glob

import numpy as np
import torch
from transformers import MusicgenForConditionalGeneration

import lm
import wordpieces
from encode import load_codes
from windows import Pieces


def columns(old, new):
    """Where the columns of the old stream go: [old]."""
    waves = torch.round(torch.arange(old // 2) * (new // 2 - 1) / (old // 2 - 1)).long()
    return torch.cat([waves, new // 2 + waves])


def rows(heads, old, new):
    """Where the outputs of the old heads go: the first part of each new head."""
    return (torch.arange(heads)[:, None] * (new // heads) + torch.arange(old // heads)[None]).flatten()


def norms(model):
    return {n: m for n, m in model.decoder.model.decoder.named_modules() if isinstance(m, torch.nn.LayerNorm)}


@torch.no_grad()
def spreads(model, batch):
    """Mean variance of what each norm of a decoder gets to see."""
    out, hooks = {}, []
    for name, module in norms(model).items():
        hooks.append(module.register_forward_pre_hook(
            lambda m, x, name=name: out.__setitem__(name, float(x[0].var(-1, unbiased=False).mean()))))
    codes, text, _ = batch
    mask = (text > 0).long()
    lm.decoder_states(model, lm.delay(codes)[:, :, :-1], lm.text_states(model, text, mask), mask)
    for hook in hooks:
        hook.remove()
    return out


def placed(shape, values, into_rows=None, into_columns=None, rest=0.0):
    """A matrix of noise of standard deviation `rest` in the new rows; else zero but for `values`."""
    out = rest * torch.randn(shape)
    r = torch.arange(values.shape[0]) if into_rows is None else into_rows
    c = torch.arange(values.shape[1]) if into_columns is None else into_columns
    out[r] = 0
    out[r[:, None], c[None]] = values
    return out


@torch.no_grad()
def widen(old, new, batch):
    """Fill the model `new` from the narrower `old`."""
    size, wide = old.config.decoder.hidden_size, new.config.decoder.hidden_size
    heads = old.config.decoder.num_attention_heads
    c, r, noise = columns(size, wide), rows(heads, size, wide), wide ** -0.5
    level = lambda w: w - w.mean(0, keepdim=True)      # the norms take away the mean in any case
    state, target = old.state_dict(), new.state_dict()
    seen = spreads(old, batch)
    fresh = torch.ones(wide, dtype=torch.bool)
    fresh[c] = False
    waves = lm.positions(batch[0].shape[2], wide, "cpu")[:, fresh]
    for name, want in target.items():
        w = state.get(name)
        if name.startswith("audio_encoder") or w is None:
            continue
        if name.startswith(("text_encoder", "enc_to_dec_proj")) and w.shape[1:] != want.shape[1:]:
            continue        # another text encoder: `pretrain_text.py` makes it
        if name.startswith("text_encoder"):
            got = w
        elif name.startswith("enc_to_dec_proj"):
            got = torch.zeros_like(want)
            got[c] = w
        elif "embed_tokens" in name:
            got = placed(want.shape, w - w.mean(1, keepdim=True), into_columns=c)
        elif "lm_heads" in name:
            got = placed(want.shape, w, into_columns=c)
        elif "q_proj" in name:
            got = placed(want.shape, w * (wide / size) ** 0.5, r, c)
        elif "k_proj" in name or "v_proj" in name:
            got = placed(want.shape, w, r, c, noise)
        elif "out_proj" in name:
            got = placed(want.shape, level(w), c, r)
        elif "fc1" in name:
            got = placed(want.shape, w, None, c, noise)
        elif "fc2" in name:
            got = placed(want.shape, level(w), c)
        else:
            norm = name.removeprefix("decoder.model.decoder.").rpartition(".")[0]
            share, spread = size / wide, seen[norm]
            gain = ((share * spread + (1 - share) * float(waves.var())) / spread) ** 0.5
            got = torch.ones_like(want) if name.endswith("weight") else torch.zeros_like(want)
            got[c] = w * gain if name.endswith("weight") else w
        target[name].copy_(got)
    return new


def loss(model, batch):
    codes, text, _ = batch
    mask, ids = (text > 0).long(), lm.delay(batch[0])
    with torch.no_grad():
        nats = lm.nats(model, ids[:, :, :-1], ids, lm.text_states(model, text, mask), mask)
    return [round(float(v), 3) for v in lm.loss_of(nats, ids)]


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--model", required=True)
    p.add_argument("--codes", required=True)
    p.add_argument("--out", required=True)
    a = p.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    old = MusicgenForConditionalGeneration.from_pretrained(a.model, dtype=torch.float32).eval()
    new = lm.build().eval()
    codes, infos = load_codes(sorted(glob.glob(a.codes + "/*.npz"))[:1])
    pieces = Pieces(wordpieces.load(a.model), codes[:16], infos[:16])
    batch = pieces.batch(np.random.default_rng(0), 8, 240)
    print("loss of the old decoder", loss(old, batch), flush=True)
    widen(old, new, batch)
    print("loss of the new one    ", loss(new, batch), flush=True)
    torch.save({k: v for k, v in new.state_dict().items() if not k.startswith("audio_encoder")}, a.out)
