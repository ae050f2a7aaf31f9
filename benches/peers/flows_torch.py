"""Solver steps and codecs of MelodyFlow and Stable Audio Open Small in PyTorch on this CPU, random weights, f32.

The peer of `continuo bench transform` and `continuo bench loop`: the same sizes, the same work, plain PyTorch modules.
    pip install torch
    python benches/peers/flows_torch.py transform --seconds 30
    python benches/peers/flows_torch.py loop
"""

import argparse
import json
import math
import resource
import time

import torch
import torch.nn.functional as F
from torch import nn


def rotate(x, cos, sin):
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)


class FlowLayer(nn.Module):
    def __init__(self, d, h):
        super().__init__()
        self.h = h
        self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in range(3))
        self.qkv, self.out = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d, bias=False)
        self.cq, self.ckv, self.cout = nn.Linear(d, d, bias=False), nn.Linear(d, 2 * d, bias=False), nn.Linear(d, d, bias=False)
        self.up, self.down = nn.Linear(d, 4 * d, bias=False), nn.Linear(4 * d, d, bias=False)

    def heads(self, x):
        return x.unflatten(-1, (self.h, -1)).transpose(1, 2)

    def attend(self, q, k, v, mask=None):
        # The extra key of zeros stands in front.
        k, v = F.pad(k, (0, 0, 1, 0)), F.pad(v, (0, 0, 1, 0))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(-2)

    def forward(self, x, step, text, mask, cos, sin):
        q, k, v = (self.heads(t) for t in self.qkv(self.norms[0](x) + step).chunk(3, -1))
        x = x + self.out(self.attend(rotate(q, cos, sin), rotate(k, cos, sin), v))
        k, v = (self.heads(t) for t in self.ckv(text).chunk(2, -1))
        x = x + self.cout(self.attend(self.heads(self.cq(self.norms[1](x) + step)), k, v, mask))
        return x + self.down(F.gelu(self.up(self.norms[2](x))))


class Flow(nn.Module):
    def __init__(self, d=1536, h=24, layers=24, latents=128):
        super().__init__()
        self.d, self.h = d, h
        self.inp, self.outp, self.norm = nn.Linear(latents, d, bias=False), nn.Linear(d, latents, bias=False), nn.LayerNorm(d)
        self.layers = nn.ModuleList(FlowLayer(d, h) for _ in range(layers))
        self.skips = nn.ModuleList(nn.Linear(2 * d, d, bias=False) for _ in range((layers - 1) // 2))

    def forward(self, z, step, text, mask):
        x, stack, n = self.inp(z), [], len(self.layers)
        dim = self.d // self.h
        freq = 10000 ** (-torch.arange(0, dim, 2) / dim)
        angle = torch.arange(x.shape[1])[:, None] * freq
        for i, layer in enumerate(self.layers):
            if i > n / 2:
                x = self.skips[i % len(self.skips)](torch.cat([x, stack.pop()], -1))
            x = layer(x, step, text, mask, angle.cos(), angle.sin())
            if i < n / 2 - 1:
                stack.append(x)
        return self.outp(self.norm(x))


class Snake(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, c, 1))

    def forward(self, x):
        return x + (self.alpha * x).sin().pow(2) / (self.alpha + 1e-9)


class Unit(nn.Module):
    def __init__(self, c, inner, kernel, dilation, reflect):
        super().__init__()
        mode = "reflect" if reflect else "zeros"
        pad = (kernel - 1) * dilation // 2
        self.body = nn.Sequential(
            Snake(c), nn.Conv1d(c, inner, kernel, dilation=dilation, padding=pad, padding_mode=mode), Snake(inner), nn.Conv1d(inner, c, 1)
        )

    def forward(self, x):
        return x + self.body(x)


class Recurrent(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.lstm = nn.LSTM(c, c, 2)

    def forward(self, x):
        y = x.permute(2, 0, 1)
        return (self.lstm(y)[0] + y).permute(1, 2, 0)


def seanet():
    down, c = [nn.Conv1d(2, 64, 7, padding=3, padding_mode="reflect")], 64
    for r in (5, 6, 8, 8):
        down += [Unit(c, c // 2, 3, 1, True), Snake(c), nn.Conv1d(c, 2 * c, 2 * r, r, padding=(r + 1) // 2)]
        c *= 2
    down += [Recurrent(c), Snake(c), nn.Conv1d(c, 256, 7, padding=3, padding_mode="reflect")]
    up = [nn.Conv1d(128, c, 7, padding=3, padding_mode="reflect"), Recurrent(c)]
    for r in (8, 8, 6, 5):
        up += [Snake(c), nn.ConvTranspose1d(c, c // 2, 2 * r, r, padding=r // 2), Unit(c // 2, c // 4, 3, 1, True)]
        c //= 2
    up += [Snake(c), nn.Conv1d(c, 2, 7, padding=3, padding_mode="reflect")]
    return nn.Sequential(*down), nn.Sequential(*up)


class DitBlock(nn.Module):
    def __init__(self, d, h):
        super().__init__()
        self.h, head = h, d // h
        self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in range(3))
        self.qn, self.kn, self.cqn, self.ckn = (nn.LayerNorm(head) for _ in range(4))
        self.qkv, self.out = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d, bias=False)
        self.cq, self.ckv, self.cout = nn.Linear(d, d, bias=False), nn.Linear(d, 2 * d, bias=False), nn.Linear(d, d, bias=False)
        self.gate, self.down = nn.Linear(d, 8 * d), nn.Linear(4 * d, d)

    def heads(self, x):
        return x.unflatten(-1, (self.h, -1)).transpose(1, 2)

    def turn(self, x, cos, sin):
        a, b, rest = x[..., :32], x[..., 32:64], x[..., 64:]
        return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)

    def forward(self, x, ctx, cos, sin):
        q, k, v = (self.heads(t) for t in self.qkv(self.norms[0](x)).chunk(3, -1))
        q, k = self.turn(self.qn(q), cos, sin), self.turn(self.kn(k), cos, sin)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))
        q = self.cqn(self.heads(self.cq(self.norms[1](x))))
        k, v = (self.heads(t) for t in self.ckv(ctx).chunk(2, -1))
        x = x + self.cout(F.scaled_dot_product_attention(q, self.ckn(k), v).transpose(1, 2).flatten(-2))
        a, b = self.gate(self.norms[2](x)).chunk(2, -1)
        return x + self.down(a * F.silu(b))


class Dit(nn.Module):
    def __init__(self, d=1024, h=8, depth=16):
        super().__init__()
        self.inp, self.outp = nn.Linear(64, d, bias=False), nn.Linear(d, 64, bias=False)
        self.blocks = nn.ModuleList(DitBlock(d, h) for _ in range(depth))

    def forward(self, x, token, ctx):
        x = torch.cat([token, self.inp(x)], 1)
        angle = torch.arange(x.shape[1])[:, None] * 10000 ** (-torch.arange(0, 64, 2) / 64)
        for block in self.blocks:
            x = block(x, ctx, angle.cos(), angle.sin())
        return self.outp(x)[:, 1:]


def oobleck():
    widths, strides = [128, 128, 256, 512, 1024, 2048], [2, 4, 4, 8, 8]
    down, up = [nn.Conv1d(2, 128, 7, padding=3)], [nn.Conv1d(64, 2048, 7, padding=3)]
    for i, s in enumerate(strides):
        down += [Unit(widths[i], widths[i], 7, n, False) for n in (1, 3, 9)]
        down += [Snake(widths[i]), nn.Conv1d(widths[i], widths[i + 1], 2 * s, s, padding=(s + 1) // 2)]
    down += [Snake(2048), nn.Conv1d(2048, 128, 3, padding=1)]
    for i, s in reversed(list(enumerate(strides))):
        up += [Snake(widths[i + 1]), nn.ConvTranspose1d(widths[i + 1], widths[i], 2 * s, s, padding=(s + 1) // 2)]
        up += [Unit(widths[i], widths[i], 7, n, False) for n in (1, 3, 9)]
    up += [Snake(128), nn.Conv1d(128, 2, 7, padding=3, bias=False)]
    return nn.Sequential(*down), nn.Sequential(*up)


def best(run, times):
    run()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return min(taken)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["transform", "loop"])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--codec-seconds", type=float, default=5.0)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    results = []

    def report(what, sound, seconds):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        results.append({"what": what, "dtype": "f32", "sound_seconds": sound, "seconds": seconds,
                        "seconds_per_second_of_sound": seconds / sound, "peak_gb": peak})

    with torch.inference_mode():
        if args.what == "transform":
            frames = int(args.seconds * 25)
            model = Flow().eval()
            z, text = torch.randn(2, frames, 128), torch.randn(2, 32, 1536)
            mask = torch.zeros(2, 1, 1, 33)
            mask[1, :, :, 1:] = -math.inf
            step = torch.randn(2, 1, 1536)
            report("guided step", frames / 25, best(lambda: model(z, step, text, mask), args.runs))
            del model
            encoder, decoder = seanet()
            rate, hop, latents = 48000, 1920, 128
        else:
            model, window = Dit().eval(), 524288 / 44100
            for what, rows in (("step", 1), ("guided step", 2)):
                x, token, ctx = torch.randn(rows, 256, 64), torch.randn(rows, 1, 1024), torch.randn(rows, 65, 1024)
                report(what, window, best(lambda: model(x, token, ctx), args.runs))
            del model
            encoder, decoder = oobleck()
            rate, hop, latents = 44100, 2048, 64
        frames = max(int(args.codec_seconds * rate) // hop, 1)
        sound, z = 0.1 * torch.randn(1, 2, frames * hop), torch.randn(1, latents, frames)
        report("encode", frames * hop / rate, best(lambda: encoder(sound), 1))
        report("decode", frames * hop / rate, best(lambda: decoder(z), 1))
    print(json.dumps({"bench": f"torch {args.what}", "threads": args.threads, "results": results}))


if __name__ == "__main__":
    main()
