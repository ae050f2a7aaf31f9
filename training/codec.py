"""Train the codec: `python codec.py --pool DIR --run DIR --minutes 30 [--device cuda]`.

MUSIC=band makes one for recorded instruments. With `--only-decoder` a trained one goes on: its encoder and codebooks stay, so what was
encoded stays valid, and its decoder learns, best with an adversary, which joins after `--adversary` of the time."""
import argparse
import math
import os
import time

import numpy as np
import torch
import torch.nn.utils.parametrize as parametrize
from transformers import EncodecConfig, EncodecModel

import fastconv
from adversary import Adversary, taken_for_real, told_apart
from config import CODEBOOKS, CODEC, HOP, MUSIC, SIDES
from data import load_pool
from muon import Muon
from precision import bf16_is_faster
from quantizer import Quantizer, dequantize, quantize
from spectral import SpectralLoss

LEARNING = 200      # steps in which an adversary learns to judge before it is listened to


def build(sizes=CODEC):
    """The transformers model with plain weights (`with_weight_norm` gives the saved form)."""
    model = EncodecModel(EncodecConfig(**sizes))
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
    return model


def fitted(state, sides=SIDES, levels=CODEBOOKS):
    """The state dict of a codec, of its first levels. One with one side comes to say `sides`, equal ones at first: it hears their
    middle, so that its codes stay what they are."""
    level = lambda name: int(name.split(".")[2]) if name.startswith("quantizer.layers.") else 0
    state = {name: value for name, value in state.items() if level(name) < levels}
    first = "encoder.layers.0.conv.weight"
    if state[first].shape[1] < sides:
        last = "decoder.layers.%d.conv." % max(int(name.split(".")[2]) for name in state if name.startswith("decoder.layers."))
        state[first] = state[first].repeat(1, sides, 1) / sides
        state |= {last + part: torch.cat([state[last + part]] * sides) for part in ("weight", "bias")}
    return state


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


def batch_of(pool, rng, size, frames):
    """Sound [size, sides, samples] of a pool, in which the sides of a piece are rows that follow each other."""
    out = np.empty((size, SIDES, frames * HOP), np.float32)
    for i in range(size):
        row = SIDES * rng.integers(len(pool) // SIDES)
        at = HOP * rng.integers(0, pool.shape[1] // HOP - frames)
        out[i] = pool[row:row + SIDES, at:at + frames * HOP]
    return torch.from_numpy(out / 32768.0)


def views(sound, side):
    """What sound [batch, sides, samples] is judged by, [more, samples]: its middle, and of each piece one of the sides, `side` [batch].
    The sides alone would not tell that they cancel each other in the middle."""
    if sound.shape[1] == 1:
        return sound[:, 0]
    return torch.cat([sound.mean(1), sound[torch.arange(len(sound)), side]])


def part_of(rng, frames):
    """Samples of half of the frames: a judge hears no more at a time."""
    at = int(rng.integers(frames - frames // 2 + 1))
    return slice(at * HOP, (at + frames // 2) * HOP)


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
    learns = ("decoder.",) if args.only_decoder else ("encoder.", "decoder.")
    params = [p for n, p in model.named_parameters() if n.startswith(learns)]
    opts = [Muon([p for p in params if p.dim() > 1 and min(p.flatten(1).shape) > 4], args.muon_lr),
            torch.optim.AdamW([p for p in params if p.dim() == 1 or min(p.flatten(1).shape) <= 4], args.lr,
                              betas=(0.8, 0.97), weight_decay=0.0)]
    for o in opts:
        for g in o.param_groups:
            g["peak"] = g["lr"]
    step, spent, judged = 0, 0.0, 0
    if os.path.exists(path):
        saved = torch.load(path, map_location=device, weights_only=False)
        model.load_state_dict(fitted(saved["model"]))
        if "quantizer" in saved:
            quantizer.load(saved["quantizer"])
        else:   # taken out of a checkpoint folder: `unfold.py`
            quantizer = Quantizer(model, device)
            quantizer.ready = True
        step = saved.get("step", 0)
        if saved.get("only_decoder") and not args.only_decoder:
            print("only its decoder learns by now")
            return
        if "opts" in saved and saved.get("only_decoder", False) == args.only_decoder:
            spent = saved["spent"]
            for o, state in zip(opts, saved["opts"]):
                o.load_state_dict(state)
        if "adversary" in saved:
            adversary.load_state_dict(saved["adversary"])
            judging.load_state_dict(saved["judging"])
            judged = saved.get("judged", 0)
    if args.only_decoder and not quantizer.ready:
        raise SystemExit(f"{path} has no codebooks yet: train it without --only-decoder first")
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
        with torch.set_grad_enabled(not args.only_decoder):
            z = fastconv.encode(model, x, dtype)
        if args.only_decoder:
            q, commit, usage = dequantize(model, quantize(model, z)), torch.zeros(()), []
        else:
            q, commit, usage = quantizer(z, step, args.warm)
        y = fastconv.decode(model, q, dtype)
        side = torch.from_numpy(rng.integers(SIDES, size=len(x))).to(device)
        x, y = views(x, side), views(y, side)
        log_loss, mag_loss, over_loss = loss_of(y, x)
        wave = (y - x).abs().mean()
        loss = log_loss + args.mag * mag_loss + args.over * over_loss + args.wave * wave + args.commit * commit
        told = fooled = alike = torch.zeros(())
        if args.adversary is not None and done >= args.adversary:
            judge, some = adversary.draw(), part_of(rng, args.frames)
            with judging_in():
                told, seen = told_apart(judge, x[::SIDES, some], y[::SIDES, some])
            judging.zero_grad(set_to_none=True)
            told.backward()
            judging.step()
            # Who cannot judge yet is not listened to.
            judged += 1
            if judged > LEARNING:
                with judging_in():
                    fooled, alike = taken_for_real(judge, y[::SIDES, some], seen)
                loss = loss + args.fool * fooled + args.alike * alike
        model.zero_grad(set_to_none=True)
        loss.backward()
        for o in opts:
            o.step()
        step += 1
        for k, v in (("log", log_loss), ("mag", mag_loss), ("over", over_loss), ("wave", wave), ("commit", commit), ("told", told), ("fooled", fooled), ("alike", alike)):
            v = float(v.detach())
            log[k] = 0.95 * log.get(k, v) + 0.05 * v
        if step % 25 == 0:
            print(f"{step} {spent:.0f}s lr {scale:.2f} " + " ".join(f"{k} {v:.4f}" for k, v in log.items()),
                  "usage", usage, flush=True)
        if time.time() - last_save > 120:
            save(path, model, opts, quantizer, (adversary, judging), step=step, spent=spent, judged=judged, only_decoder=args.only_decoder)
            last_save = time.time()
    save(path, model, opts, quantizer, (adversary, judging), step=step, spent=spent, judged=judged, only_decoder=args.only_decoder)


def save(path, model, opts, quantizer, adversary, **progress):
    quantizer.store()
    torch.save(dict(model=model.state_dict(), opts=[o.state_dict() for o in opts], quantizer=quantizer.state(), sizes=MUSIC,
                    adversary=adversary[0].state_dict(), judging=adversary[1].state_dict(), **progress), path + ".tmp")
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
    p.add_argument("--mag", type=float, default=0.6)
    p.add_argument("--over", type=float, default=0.0, help="what is louder than it should be")
    p.add_argument("--wave", type=float, default=2.0)
    p.add_argument("--bf16", type=int, help="1 or 0; by default whatever is faster here")
    p.add_argument("--only-decoder", action="store_true", help="the encoder and its codes stay as they are")
    p.add_argument("--adversary", type=float, help="share of the time after which one joins")
    p.add_argument("--fool", type=float, default=0.05)
    p.add_argument("--alike", type=float, default=0.2)
    a = p.parse_args()
    if a.bf16 is None:
        a.bf16 = bf16_is_faster(torch.device(a.device).type)
    train(a)
