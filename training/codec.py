"""Train the codec: `python codec.py --pool DIR --run DIR --minutes 30 [--device cuda]`.

MUSIC=band makes one for recorded instruments; there an adversary joins after `--adversary` of the time."""
import argparse
import math
import os
import time

import numpy as np
import torch
import torch.nn.utils.parametrize as parametrize
from transformers import EncodecConfig, EncodecModel
from transformers.audio_utils import mel_filter_bank

import fastconv
from adversary import Adversary, taken_for_real, told_apart
from config import CODEC, HOP, MUSIC, SR
from data import load_pool
from muon import Muon
from precision import bf16_is_faster
from quantizer import Quantizer

SCALES = ((2048, 96), (512, 48), (128, 20))
# A fourth scale tells neighbouring notes apart, which 96 mel bands cannot below 1 kHz.
PITCH = 8192
PER_OCTAVE, LOWEST, OCTAVES = 24, 55.0, 7
MEL_SHARE = 0.5      # of the loss; notes are what a codec is judged by
QUIET = 2e-4, 1e-3   # what a band of the mel scales, and of this one, counts as silence


def pitch_bank(n=PITCH):
    """Triangles [bands, bins] a quarter tone apart; the lowest are as wide as the spectrum can tell."""
    bins = np.arange(n // 2 + 1) * SR / n
    centres = LOWEST * 2 ** (np.arange(PER_OCTAVE * OCTAVES) / PER_OCTAVE)
    width = np.maximum(centres * (2 ** (1 / PER_OCTAVE) - 1), 1.2 * SR / n)
    bank = np.maximum(0, 1 - np.abs(bins - centres[:, None]) / width[:, None]).astype(np.float32)
    return bank / np.maximum(bank.sum(1, keepdims=True), 1)


def build(sizes=CODEC):
    """The transformers model with plain weights (`with_weight_norm` gives the saved form)."""
    model = EncodecModel(EncodecConfig(**sizes))
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
    return model


def with_weight_norm(state):
    """State dict of `build()` -> the same function as a transformers state dict."""
    out = {}
    for name, value in state.items():
        if name.endswith("conv.weight"):
            stem = name[: -len("weight")] + "parametrizations.weight.original"
            out[stem + "0"] = value.flatten(1).norm(dim=1).reshape(-1, 1, 1)
            out[stem + "1"] = value
        else:
            out[name] = value
    return out


class SpectralLoss(torch.nn.Module):
    def __init__(self):
        super().__init__()
        for n, mels in SCALES:
            self.register_buffer(f"window{n}", torch.hann_window(n))
            bank = mel_filter_bank(n // 2 + 1, mels, 0.0, 15000.0, SR, mel_scale="slaney").T.astype(np.float32)
            bank = bank / np.maximum(bank.sum(1, keepdims=True), 1)
            self.register_buffer(f"bank{n}", torch.tensor(bank))
        self.register_buffer(f"window{PITCH}", torch.hann_window(PITCH))
        self.register_buffer(f"bank{PITCH}", torch.tensor(pitch_bank()))

    def bands(self, x, n):
        window = getattr(self, f"window{n}")
        s = torch.stft(x, n, n // 4, window=window, return_complex=True, center=True)
        mag = torch.sqrt(s.real**2 + s.imag**2 + 1e-10) / (n / 4)
        return torch.matmul(getattr(self, f"bank{n}"), mag)

    def forward(self, y, x):
        log_loss = mag_loss = 0.0
        for n, quiet, share in [(n, QUIET[0], MEL_SHARE / len(SCALES)) for n, _ in SCALES] + [(PITCH, QUIET[1], 1 - MEL_SHARE)]:
            a, b = self.bands(y, n), self.bands(x, n)
            log_loss = log_loss + share * (torch.log(a + quiet) - torch.log(b + quiet)).abs().mean()
            mag_loss = mag_loss + share * (a - b).abs().mean()
        return log_loss, mag_loss


def batch_of(pool, rng, size, frames):
    out = np.empty((size, frames * HOP), np.float32)
    for i in range(size):
        row = rng.integers(len(pool))
        at = HOP * rng.integers(0, pool.shape[1] // HOP - frames)
        out[i] = pool[row, at:at + frames * HOP]
    return torch.from_numpy(out / 32768.0)


def train(args):
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    os.makedirs(args.run, exist_ok=True)
    path = os.path.join(args.run, "codec.pt")
    pool, _ = load_pool(args.pool)
    torch.manual_seed(0)
    model, loss_of = build().to(device), SpectralLoss().to(device)
    adversary = Adversary().to(device)
    judging = torch.optim.AdamW(adversary.parameters(), 3e-4, betas=(0.8, 0.99))
    quantizer = Quantizer(model, device)
    params = [p for n, p in model.named_parameters() if not n.startswith("quantizer")]
    opts = [Muon([p for p in params if p.dim() > 1 and min(p.flatten(1).shape) > 4], args.muon_lr),
            torch.optim.AdamW([p for p in params if p.dim() == 1 or min(p.flatten(1).shape) <= 4], args.lr,
                              betas=(0.8, 0.97), weight_decay=0.0)]
    for o in opts:
        for g in o.param_groups:
            g["peak"] = g["lr"]
    step, spent = 0, 0.0
    if os.path.exists(path):
        saved = torch.load(path, map_location=device, weights_only=False)
        model.load_state_dict(saved["model"])
        for o, state in zip(opts, saved["opts"]):
            o.load_state_dict(state)
        step, spent = saved["step"], saved["spent"]
        quantizer.load(saved["quantizer"])
        if "adversary" in saved:
            adversary.load_state_dict(saved["adversary"])
            judging.load_state_dict(saved["judging"])
    dtype = torch.bfloat16 if args.bf16 else torch.float32
    judging_in = lambda: torch.autocast(device.type, torch.bfloat16, enabled=bool(args.bf16))
    rng = np.random.default_rng(step + 7)
    begin, last_save = time.time() - spent, time.time()
    log = {}
    while True:
        spent = time.time() - begin
        done = spent / (args.minutes * 60)
        if done >= 1:
            break
        scale = min(1, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        if quantizer.ready:
            # The codebooks follow the encoder by their averages.
            scale *= args.following
        for o in opts:
            for g in o.param_groups:
                g["lr"] = g["peak"] * scale
        x = batch_of(pool, rng, args.batch, args.frames).to(device)
        z = fastconv.encode(model, x, dtype)
        q, commit, usage = quantizer(z, step, args.warm)
        y = fastconv.decode(model, q, dtype)
        log_loss, mag_loss = loss_of(y, x)
        wave = (y - x).abs().mean()
        loss = log_loss + 30 * mag_loss + args.wave * wave + args.commit * commit
        told = fooled = alike = torch.zeros(())
        if args.adversary is not None and done >= args.adversary:
            judge = adversary.draw()
            with judging_in():
                told, seen = told_apart(judge, x, y)
            judging.zero_grad(set_to_none=True)
            told.backward()
            judging.step()
            with judging_in():
                fooled, alike = taken_for_real(judge, y, seen)
            joined = min(1, (done - args.adversary) / 0.05)
            loss = loss + joined * (args.fool * fooled + args.alike * alike)
        model.zero_grad(set_to_none=True)
        loss.backward()
        for o in opts:
            o.step()
        step += 1
        for k, v in (("log", log_loss), ("mag", mag_loss), ("wave", wave), ("commit", commit), ("told", told), ("fooled", fooled), ("alike", alike)):
            v = float(v.detach())
            log[k] = 0.95 * log.get(k, v) + 0.05 * v
        if step % 25 == 0:
            print(f"{step} {spent:.0f}s lr {scale:.2f} " + " ".join(f"{k} {v:.4f}" for k, v in log.items()),
                  "usage", usage, flush=True)
        if time.time() - last_save > 120:
            save(path, model, opts, quantizer, (adversary, judging), step, spent)
            last_save = time.time()
    save(path, model, opts, quantizer, (adversary, judging), step, spent)


def save(path, model, opts, quantizer, adversary, step, spent):
    quantizer.store()
    torch.save(dict(model=model.state_dict(), opts=[o.state_dict() for o in opts], quantizer=quantizer.state(), sizes=MUSIC,
                    adversary=adversary[0].state_dict(), judging=adversary[1].state_dict(), step=step, spent=spent), path + ".tmp")
    os.replace(path + ".tmp", path)


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--pool", required=True)
    p.add_argument("--run", required=True)
    p.add_argument("--minutes", type=float, default=30)
    p.add_argument("--device", default="cpu")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--frames", type=int, default=24)
    p.add_argument("--warm", type=int, default=400, help="steps without codebooks")
    p.add_argument("--following", type=float, default=0.3, help="part of the learning rate that is left with them")
    p.add_argument("--commit", type=float, default=0.02, help="of the loss; 0.1 makes all codes one within a hundred steps")
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--muon-lr", type=float, default=4e-3)
    p.add_argument("--wave", type=float, default=2.0)
    p.add_argument("--bf16", type=int, help="1 or 0; by default whatever is faster here")
    p.add_argument("--adversary", type=float, help="share of the time after which one joins; 0.3 is good")
    p.add_argument("--fool", type=float, default=0.3)
    p.add_argument("--alike", type=float, default=1.0)
    a = p.parse_args()
    if a.bf16 is None:
        a.bf16 = bf16_is_faster(torch.device(a.device).type)
    train(a)
