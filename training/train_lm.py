"""Train decoder and text encoder on codes:
`python train_lm.py --codes DIR --tokenizer DIR --text text.pt --run DIR --minutes 50 [--device cuda]`.

With `--init DIR` instead of `--text` it begins with the decoder and text encoder of a checkpoint folder."""
import argparse
import glob
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from transformers import MusicgenForConditionalGeneration

import lm
import rollout
import tokenizer as tok_module
from config import FRAME_RATE, WINDOW
from encode import load_codes
from muon import Muon
from windows import SPLICES, START, Pieces

SHORT = 150             # frames of the windows at first
FIRST = 0.25            # share of the time with these windows only
WEIGHTS = (1.4, 1.1, 0.9, 0.6)  # of the codebooks: the first carries the beat
HELD_OUT = 16           # pieces
ROLL_FROM = (0.5, 0.04) # the decoder first hears itself after this share of the time: from nothing, from a checkpoint
ROLL_EVERY = 0.2        # of the time
LOOK_BACK = (1, 2, 3, 4, 6)     # columns that the first heads start to look back


def start(model):
    """Initial weights: near-identity layers; token embeddings that leave the fast position
    waves alone; and first heads that look a few columns back, for these are slow to learn."""
    gain = 2.5
    width, heads = model.decoder.config.hidden_size, model.decoder.config.num_attention_heads
    size = width // heads
    waves = torch.arange(size // 2)
    for name, p in model.decoder.named_parameters():
        if "embed_tokens" in name:
            torch.nn.init.normal_(p, std=0.4)
            with torch.no_grad():
                p[:, waves] = 0
                p[:, width // 2 + waves] = 0
        elif ".layers." in name and p.dim() == 2:
            scale = 0.3 if "out_proj" in name or "fc2" in name else 1.0
            torch.nn.init.normal_(p, std=scale * p.shape[1] ** -0.5)
    speed = lm.speeds(width, "cpu")[waves]
    attention = model.decoder.model.decoder.layers[0].self_attn
    with torch.no_grad():
        for head, back in enumerate(LOOK_BACK[:heads]):
            rows = head * size + waves
            for w, shift in ((attention.q_proj.weight, float(back)), (attention.k_proj.weight, 0.0)):
                cos, sin = gain * torch.cos(speed * shift), gain * torch.sin(speed * shift)
                w[head * size:(head + 1) * size] = 0
                w[rows, waves], w[rows, width // 2 + waves] = cos, sin
                w[rows + size // 2, width // 2 + waves], w[rows + size // 2, waves] = cos, -sin


def start_text(model, path):
    """Take the pre-trained text encoder, and a strong path from it into the decoder."""
    model.load_state_dict(torch.load(path, weights_only=True), strict=False)
    for name, p in model.decoder.named_parameters():
        if ".encoder_attn." in name and p.dim() == 2:
            torch.nn.init.normal_(p, std=p.shape[1] ** -0.5)


def start_from(model, folder):
    """Take decoder and text encoder of a checkpoint folder."""
    state = MusicgenForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).state_dict()
    model.load_state_dict({k: v for k, v in state.items() if not k.startswith("audio_encoder.")}, strict=False)


def optimizers(model, lr):
    """Muon for the matrices inside the layers, AdamW for everything else. Two of Muon, so
    that two threads can step."""
    attention, forward, adam, text = [], [], [], []
    for name, p in model.named_parameters():
        if name.startswith("audio_encoder"):
            p.requires_grad_(False)
        elif name.startswith(("text_encoder", "enc_to_dec_proj")):
            text.append(p)
        elif p.dim() == 2 and ".layers." in name:
            (forward if ".fc" in name else attention).append(p)
        else:
            adam.append(p)
    return [Muon(attention, lr=lr * 2, weight_decay=0.02), Muon(forward, lr=lr * 2, weight_decay=0.02),
            torch.optim.AdamW(text, lr=0.4 * lr, betas=(0.9, 0.98), weight_decay=0.0),
            torch.optim.AdamW(adam, lr=lr, betas=(0.9, 0.95), weight_decay=0.01)]


def train(args):
    torch.set_num_threads(1 if args.device == "cpu" else args.threads)
    device = torch.device(args.device)
    os.makedirs(args.run, exist_ok=True)
    path = os.path.join(args.run, "lm.pt")
    torch.manual_seed(0)
    model = lm.build().to(device)
    if args.init:
        start_from(model, args.init)
    else:
        start(model)
        start_text(model, args.text)
    opts = optimizers(model, args.lr)
    peaks = [o.param_groups[0]["lr"] for o in opts]
    params = [p for p in model.parameters() if p.requires_grad]
    print("parameters", sum(p.numel() for p in params) / 1e6, "M", flush=True)
    step, spent = 0, 0.0
    if os.path.exists(path):
        saved = torch.load(path, map_location=device, weights_only=False)
        model.load_state_dict(saved["model"], strict=False)
        for o, s in zip(opts, saved["opts"]):
            o.load_state_dict(s)
        step, spent = saved["step"], saved["spent"]
    tok = tok_module.load(args.tokenizer)
    pieces, held_out, shards, rolled = None, None, 0, 0.0
    rng = np.random.default_rng(step + 3)
    begin, last_save, log = time.time() - spent, time.time(), None
    workers = ThreadPoolExecutor(args.threads)
    while True:
        if step % 100 == 0 or not pieces:
            found = sorted(glob.glob(os.path.join(args.codes, "*.npz")))
            if len(found) != shards:
                codes, infos = load_codes(found)
                shards, heard = len(found), pieces.heard if pieces else []
                held_out = Pieces(tok, codes[:HELD_OUT], infos[:HELD_OUT])
                pieces = Pieces(tok, codes[HELD_OUT:], infos[HELD_OUT:])
                pieces.heard = heard
                print("pieces", len(pieces.codes), flush=True)
        spent = time.time() - begin
        done = spent / (args.minutes * 60)
        if done >= 1:
            break
        due = done >= ROLL_FROM[bool(args.init)] and (not pieces.heard or done - rolled >= ROLL_EVERY)
        if args.rollouts and due:
            made = rollout.play(model, tok, pieces, rollout.Ear(pieces), args.rollouts, step, args.threads, device)
            pieces.heard, rolled = pieces.heard[-len(made):] + made, done
        scale = min(1, (step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
        for o, peak in zip(opts, peaks):
            o.param_groups[0]["lr"] = peak * scale
        # Short windows first. Later every third step sees many beginnings with a tempo: there
        # the text decides, not the past.
        early = done < FIRST and not args.init
        size, window = (args.batch, WINDOW)
        if early:
            window = SHORT
        elif step % 3 == 0:
            size, window = size * WINDOW // START, START
        batch = pieces.batch(rng, size, window, SPLICES if window == WINDOW else 0)
        losses = gradients(model, params, batch, device, args, rng, workers)
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        list(workers.map(lambda o: o.step(), opts))
        step += 1
        log = losses if log is None else 0.9 * log + 0.1 * losses
        if step % 25 == 0:
            print(f"{step} {spent:.0f}s lr {scale:.2f} loss", [round(float(v), 3) for v in log], flush=True)
        if step % 200 == 0:
            with torch.no_grad():
                full, spliced, first = (held_out.batch(np.random.default_rng(1), *size)
                                        for size in ((16, WINDOW), (32, WINDOW, 1.0), (64, FRAME_RATE)))
                value = [loss_on(model, full, device, args, None), loss_on(model, spliced, device, args, None),
                         *(loss_on(model, first, device, args, None, keep) for keep in (1, 0))]
            print("held out: window, after a splice, one second with and without text",
                  [[round(float(v), 3) for v in l] for l in value], flush=True)
        if time.time() - last_save > 60:
            save(path, model, opts, step, spent)
            last_save = time.time()
    save(path, model, opts, step, spent)


def corrupt(ids, most):
    """Replace some input codes by others of the same codebook, so that the model survives
    its own mistakes; each row has its own rate up to `most`, fine codebooks have more."""
    rate = most * torch.rand(len(ids), 1, 1, device=ids.device)
    rate = rate * torch.tensor([1.0, 1.5, 2.0, 2.5], device=ids.device)[None, :, None]
    order = torch.randperm(ids.shape[2], device=ids.device)
    other = ids.roll(1, 0)[:, :, order]
    swap = (torch.rand(ids.shape, device=ids.device) < rate) & (ids != lm.PAD) & (other != lm.PAD)
    return torch.where(swap, other, ids)


def loss_on(model, batch, device, args, rng, known=1):
    codes, text, first = (b.to(device) for b in batch)
    mask = (text > 0).long()
    keep = torch.full((len(text),), known, device=device)
    if rng is not None:
        keep = torch.from_numpy((rng.random(len(text)) > 0.15).astype(np.int64)).to(device)
    ids = lm.delay(codes)
    seen = ids if rng is None else corrupt(ids, args.noise)
    with torch.autocast(device.type, torch.bfloat16, enabled=bool(args.bf16), cache_enabled=False):
        context = lm.text_states(model, text, mask, keep)
        logits = lm.decoder_logits(model, seen[:, :, :-1], context, mask)
    early = torch.arange(codes.shape[2], device=device) < first[:, None]
    return lm.loss_of(logits, lm.delay(codes.masked_fill(early[:, None], lm.PAD)))


def gradients(model, params, batch, device, args, rng, workers):
    """Set the gradients of a batch, and return the losses. On a CPU each thread takes a part
    of the rows: threads that share every single product wait for each other much more."""
    parts = args.threads if device.type == "cpu" else 1
    weights = torch.tensor(WEIGHTS, device=device) / sum(WEIGHTS)
    seeds = rng.integers(1 << 40, size=parts)

    def one(i):
        rows = tuple(b[i::parts] for b in batch)
        losses = loss_on(model, rows, device, args, np.random.default_rng(seeds[i]))
        return losses.detach(), torch.autograd.grad((losses * weights).sum() / parts, params)

    done = list(workers.map(one, range(parts)))
    for p, *grads in zip(params, *(g for _, g in done)):
        p.grad = sum(grads[1:], grads[0])
    return sum(l for l, _ in done) / parts


def save(path, model, opts, step, spent):
    torch.save(dict(model=model.state_dict(), opts=[o.state_dict() for o in opts], step=step, spent=spent), path + ".tmp")
    os.replace(path + ".tmp", path)


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--codes", required=True)
    p.add_argument("--tokenizer", required=True)
    p.add_argument("--text", help="from pretrain_text.py")
    p.add_argument("--init", help="checkpoint folder to begin with")
    p.add_argument("--run", required=True)
    p.add_argument("--minutes", type=float, default=50)
    p.add_argument("--device", default="cpu")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--batch", type=int, default=10)
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--noise", type=float, default=0.1)
    p.add_argument("--rollouts", type=int, default=40, help="how many pieces the decoder plays to hear itself")
    p.add_argument("--bf16", type=int, default=1)
    a = p.parse_args()
    if bool(a.text) == bool(a.init):
        p.error("say either --text or --init")
    train(a)
