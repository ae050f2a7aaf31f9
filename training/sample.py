"""Generate audio from a checkpoint folder with PyTorch (the server does it in Rust):
`python sample.py --model DIR --prompt "techno, 128 bpm" --out out.wav`."""
import argparse
import copy
import json
import os

import numpy as np
import torch
import torch.nn.functional as F
from transformers import MusicgenForConditionalGeneration

import lm
import wordpieces
from config import CODEBOOKS, KEEP, SR, WINDOW

PAD = lm.PAD


class Generator:
    def __init__(self, folder, device="cpu"):
        model = MusicgenForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval().to(device)
        with open(os.path.join(folder, "generation_config.json")) as f:
            sizes = json.load(f).get("continuo", {})
        self.take(model, wordpieces.load(folder), device, sizes.get("window_frames", WINDOW), sizes.get("keep_frames", KEEP))

    @classmethod
    def of(cls, model, tok, device="cpu", precision=torch.float32):
        """From a model in memory."""
        self = cls.__new__(cls)
        self.take(model if precision == torch.float32 else copy.deepcopy(model).to(precision), tok, device)
        return self

    def take(self, model, tok, device, window=WINDOW, keep=KEEP):
        self.model, self.tok, self.device, self.full, self.keep = model, tok, device, window, keep
        g = model.generation_config
        self.defaults = dict(guidance=g.guidance_scale, top_k=g.top_k, temperature=g.temperature)

    def context(self, prompts):
        ids = [self.tok.encode(p).ids for p in prompts]
        text = torch.zeros(len(ids), max(map(len, ids)), dtype=torch.long)
        for i, row in enumerate(ids):
            text[i, :len(row)] = torch.tensor(row)
        text = text.to(self.device)
        return lm.text_states(self.model, text, (text > 0).long()), (text > 0).long()

    @torch.no_grad()
    def codes(self, prompts, frames, seed=0, guidance=None, top_k=None, temperature=None):
        """Codes [batch, K, frames], one row per prompt. A full window is followed by one that
        starts with the last frames that are kept, as the server does."""
        guidance = self.defaults["guidance"] if guidance is None else guidance
        top_k = self.defaults["top_k"] if top_k is None else top_k
        temperature = self.defaults["temperature"] if temperature is None else temperature
        rng = torch.Generator(self.device).manual_seed(seed)
        ctx, mask = self.context(prompts)
        n = len(prompts)
        bias = (1.0 - mask) * -1e4
        if guidance != 1:
            ctx, bias = torch.cat([ctx, torch.zeros_like(ctx)]), torch.cat([bias, torch.zeros_like(bias)])
        bias = bias[:, None, None].to(ctx.dtype)
        draw = lambda logits: self.pick(logits, n, guidance, temperature, top_k, rng)
        codes = self.window(torch.zeros(n, CODEBOOKS, 0, dtype=torch.long, device=self.device), min(frames, self.full), ctx, bias, draw)
        while codes.shape[2] < frames:
            more = self.window(codes[:, :, -self.keep:], self.full, ctx, bias, draw)
            codes = torch.cat([codes, more[:, :, self.keep:]], 2)
        return codes[:, :, :frames]

    @staticmethod
    def pick(logits, n, guidance, temperature, top_k, rng):
        """logits [2n, K, codes] with and without text, or [n, K, codes] with it -> one code each [n, K]."""
        if len(logits) > n:
            logits = logits[n:] + guidance * (logits[:n] - logits[n:])
        logits = logits / temperature
        if top_k:
            kth = logits.topk(top_k, -1).values[..., -1:]
            logits = logits.masked_fill(logits < kth, -torch.inf)
        flat = logits.softmax(-1).reshape(n * CODEBOOKS, -1)
        return torch.multinomial(flat, 1, generator=rng).reshape(n, CODEBOOKS)

    def heads_on(self, ids, pos, cross, bias, cache, at, end):
        """Logits [rows, K, codes] after column `end` - 1; what the columns `at` to `end` say to later ones goes to `cache`."""
        dec = self.model.decoder.model.decoder
        heads = dec.config.num_attention_heads
        x = sum(dec.embed_tokens[k](ids[:, k, at:end]) for k in range(CODEBOOKS)) + pos[at:end]
        x = x.repeat(len(bias) // len(x), 1, 1)
        for layer, (ck, cv), (k_all, v_all) in zip(dec.layers, cross, cache):
            h, a = layer.self_attn_layer_norm(x), layer.self_attn
            k_all[:, :, at:end] = lm._heads(a.k_proj(h), heads)
            v_all[:, :, at:end] = lm._heads(a.v_proj(h), heads)
            y = F.scaled_dot_product_attention(lm._heads(a.q_proj(h), heads), k_all[:, :, :end], v_all[:, :, :end], is_causal=at == 0)
            x = x + a.out_proj(y.transpose(1, 2).reshape(h.shape))
            h, a = layer.encoder_attn_layer_norm(x), layer.encoder_attn
            y = F.scaled_dot_product_attention(lm._heads(a.q_proj(h), heads), ck, cv, attn_mask=bias)
            x = x + a.out_proj(y.transpose(1, 2).reshape(h.shape))
            x = x + layer.fc2(F.gelu(layer.fc1(layer.final_layer_norm(x))))
        x = dec.layer_norm(x[:, -1])
        return torch.stack([head(x) for head in self.model.decoder.lm_heads], 1)

    def window(self, known, frames, ctx, bias, draw):
        """Codes [n, K, frames] of one window that begins with the frames `known`."""
        n, _, given = known.shape
        dec = self.model.decoder.model.decoder
        heads, width, columns = dec.config.num_attention_heads, dec.config.hidden_size, frames + CODEBOOKS
        cross = [(lm._heads(l.encoder_attn.k_proj(ctx), heads), lm._heads(l.encoder_attn.v_proj(ctx), heads))
                 for l in dec.layers]
        cache = [torch.zeros(2, len(bias), heads, columns, width // heads, device=self.device, dtype=ctx.dtype) for _ in dec.layers]
        ids = torch.full((n, CODEBOOKS, columns), PAD, dtype=torch.long, device=self.device)
        for k in range(CODEBOOKS):
            ids[:, k, 1 + k:1 + k + given] = known[:, k]
        pos = lm.positions(columns, width, self.device).to(ctx.dtype)
        at = 0      # what is known is read all at once
        for end in range(given + 1, columns):
            new = draw(self.heads_on(ids, pos, cross, bias, cache, at, end).float())
            for k in range(CODEBOOKS):
                if given <= end - 1 - k < frames:
                    ids[:, k, end] = new[:, k]
            at = end
        return lm.undelay(ids)

    @torch.no_grad()
    def audio(self, codes):
        """Audio [batch, samples]."""
        return self.model.audio_encoder.decode(codes[None], [None] * len(codes)).audio_values.mean(1).numpy()

    def clips(self, prompts, seconds, **kw):
        return self.audio(self.codes(prompts, int(seconds * 25), **kw))


if __name__ == "__main__":
    import soundfile    # only here: where the decoder hears itself there may be none
    p = argparse.ArgumentParser()
    p.add_argument("--model", required=True)
    p.add_argument("--prompt", action="append", required=True)
    p.add_argument("--seconds", type=float, default=20)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--guidance", type=float)
    p.add_argument("--top-k", type=int)
    p.add_argument("--temperature", type=float)
    p.add_argument("--out", required=True, help="a .wav file, or a folder when there are several prompts")
    a = p.parse_args()
    clips = Generator(a.model).clips(a.prompt, a.seconds, seed=a.seed, guidance=a.guidance, top_k=a.top_k,
                                     temperature=a.temperature)
    for i, clip in enumerate(clips):
        name = a.out if len(clips) == 1 else os.path.join(a.out, f"{i:02d}.wav")
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        soundfile.write(name, np.clip(clip, -1, 1), SR)
