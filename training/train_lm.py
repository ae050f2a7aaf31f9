"""Train decoder and text encoder on codes:
`python train_lm.py --codes DIR --words DIR --text text.pt --run DIR --columns 60e6 [--device cuda]`.

With `--init DIR` it begins with the decoder of a checkpoint folder, with `--init init.pt` with that of a smaller one
(`widen.py`); without `--text` also with its text encoder. `--phrases` (`phrases.py`) makes captions of free words.
The learning rate is constant but for its rise at first and the `--anneal` columns at the end, so that a run
can be stopped, resumed and lengthened: `--columns` may change from one time to the next. With `--minutes` it ends
by the clock instead. `lm.pt` is all that it needs; it is written every two minutes and when the process is asked to end."""
import argparse
import glob
import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

import band.captions
import composer.captions
import contrast
import lm
import rollout
import wordpieces
from config import CODEBOOKS, FRAME_RATE, WINDOW
from encode import load_codes
from muon import Muon
from precision import bf16_is_faster
from start import start, start_from, start_text
from windows import MIDDLE, SPLICES, START, Pieces

EARLY = 1.5e6           # columns without splices, if it begins with nothing
WEIGHTS = np.linspace(1.4, 0.6, CODEBOOKS)      # of the codebooks: the first carries the beat
NOISIER = np.linspace(1.0, 2.5, CODEBOOKS)      # and has the fewest codes replaced
HELD_OUT = 16           # pieces
ROLL_FROM = (5e6, 1e6)  # the decoder first hears itself after these columns: from nothing, from a checkpoint
ANNEALED = 0.3          # share of the time in which the learning rate falls, if it ends by the clock
WARM = 100              # steps in which the learning rate rises
AVERAGE = 0.998         # of the weights that are kept for use
LENGTHS = (START, MIDDLE, START, WINDOW, START, WINDOW)   # of the windows of one step after another
CAPTIONS, OF_SECTIONS = 32, 6   # of each piece and of each section, if they are made here


def optimizers(model, lr):
    """Muon for the matrices inside the layers, AdamW for everything else. Two of Muon, so that two threads can step. The
    text encoder can read captions by now, and follows slowly: as fast as the decoder it learned in the first million
    columns to say always the same, since what a decoder cannot use yet only disturbs it."""
    attention, forward, adam, text = [], [], [], []
    for name, p in model.named_parameters():
        if name.startswith(("audio_encoder", "text_encoder.shared")):
            p.requires_grad_(False)     # codec, and the table of word pieces
        elif name.startswith(("text_encoder", "enc_to_dec_proj")):
            text.append(p)
        elif p.dim() == 2 and ".layers." in name:
            (forward if ".fc" in name else attention).append(p)
        else:
            adam.append(p)
    return [Muon(attention, lr=lr * 2, weight_decay=0.02), Muon(forward, lr=lr * 2, weight_decay=0.02),
            torch.optim.AdamW(text, lr=0.02 * lr, betas=(0.9, 0.98), weight_decay=0.0),
            torch.optim.AdamW(adam, lr=lr, betas=(0.9, 0.95), weight_decay=0.01)]


class Run:
    """All that a stopped training needs to go on as if nothing had been."""

    def __init__(self, args, device):
        torch.manual_seed(0)
        self.path = os.path.join(args.run, "lm.pt")
        self.model = lm.build().to(device)
        if not os.path.exists(self.path):
            if args.init:
                start_from(self.model, args.init)
            else:
                start(self.model)
            if args.text:
                start_text(self.model, args.text, args.words)
        self.opts = optimizers(self.model, args.lr)
        self.peaks = [o.param_groups[0]["lr"] for o in self.opts]
        self.params = [p for p in self.model.parameters() if p.requires_grad]
        self.names = [n for n, p in self.model.named_parameters() if p.requires_grad]
        self.step, self.columns, self.spent, self.rolled, self.heard = 0, 0, 0.0, 0, []
        self.rng = np.random.default_rng(3)
        if os.path.exists(self.path):
            self.load(torch.load(self.path, map_location=device, weights_only=False))
        else:
            self.average = [p.detach().clone() for p in self.params]

    def load(self, saved):
        self.model.load_state_dict(saved["model"], strict=False)
        for o, s in zip(self.opts, saved["opts"]):
            o.load_state_dict(s)
        self.average = [saved["average"][n] for n in self.names]
        self.step, self.columns, self.spent = saved["step"], saved["columns"], saved["spent"]
        self.rolled, self.heard = saved["rolled"], saved["heard"]
        self.rng.bit_generator.state = saved["rng"]
        torch.set_rng_state(saved["torch_rng"].cpu())

    def save(self):
        average = dict(zip(self.names, self.average))
        model = {n: p for n, p in self.model.state_dict().items() if not n.startswith("audio_encoder.")}
        torch.save(dict(model=model, average=average, opts=[o.state_dict() for o in self.opts],
                        step=self.step, columns=self.columns, spent=self.spent, rolled=self.rolled, heard=self.heard,
                        rng=self.rng.bit_generator.state, torch_rng=torch.get_rng_state()), self.path + ".tmp")
        os.replace(self.path + ".tmp", self.path)

    def swap(self):
        """Exchange the weights for their average, or back."""
        for p, mean in zip(self.params, self.average):
            p.data, mean.data = mean.data, p.data

    def rate(self, left, anneal):
        """Share of the highest learning rate, `left` before the end: both in columns, or in seconds."""
        return min(1, (self.step + 1) / WARM, max(0.0, left / anneal))

    def update(self, scale, workers):
        torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        for o, peak in zip(self.opts, self.peaks):
            o.param_groups[0]["lr"] = peak * scale
        list(workers.map(lambda o: o.step(), self.opts))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.params, 1 - min(AVERAGE, self.step / (self.step + 10)))
        self.step += 1


def called_anew(infos, phrases):
    """Captions with free words, of pieces and of the sections of the band's."""
    for info in infos:
        rng = np.random.default_rng([info["seed"], 2])
        make = band.captions.make_caption if "sections" in info else composer.captions.make_caption
        info["captions"] = [make(rng, info, phrases=phrases) for _ in range(CAPTIONS)]
        for part in info.get("sections", []):
            part["captions"] = band.captions.section_captions(rng, info, part, OF_SECTIONS, phrases)


def next_batch(run, pieces, args):
    """Every other step sees many beginnings, most with a tempo, where the text decides and not the past; a third of all columns
    are in full windows."""
    early = run.columns < EARLY and not args.init
    frames = LENGTHS[run.step % len(LENGTHS)]
    size = max(1, args.batch * WINDOW // frames)
    return pieces.batch(run.rng, size, frames, 0 if early or frames == START else SPLICES)


def measure(run, held_out, device, args, tok):
    full, spliced, first, start = (held_out.batch(np.random.default_rng(1), *size)
                                   for size in ((16, WINDOW), (16, WINDOW, 1.0), (64, FRAME_RATE), (64, START)))
    with torch.no_grad():
        value = [loss_on(run.model, full, device, args, None), loss_on(run.model, spliced, device, args, None),
                 *(loss_on(run.model, first, device, args, None, keep) for keep in (1, 0))]
        choices = [losses_on(run.model, start, device, args, None, other=contrast.Other(tok, tempo))[1] for tempo in (1, 0)]
    print("held out: window, after a splice, one second with and without text",
          [[round(float(v), 3) for v in l] for l in value], "choice of two tempi, of two captions", [round(float(c), 3) for c in choices], flush=True)


def train(args):
    torch.set_num_threads(1 if args.device == "cpu" else args.threads)
    device = torch.device(args.device)
    os.makedirs(args.run, exist_ok=True)
    run, tok = Run(args, device), wordpieces.load(args.words)
    other = contrast.Other(tok)
    phrases = None
    if args.phrases:
        with open(args.phrases) as f:
            phrases = json.load(f)
    print("parameters", sum(p.numel() for p in run.params) / 1e6, "M; columns", run.columns, flush=True)
    asked = []
    for s in (signal.SIGTERM, signal.SIGINT):
        signal.signal(s, lambda *_: asked.append(True))
    pieces, held_out, shards, log = None, None, 0, None
    workers = ThreadPoolExecutor(args.threads)
    last = last_save = begin = time.time()
    left = lambda: args.minutes * 60 - (time.time() - begin) if args.minutes else args.columns - run.columns
    anneal = args.minutes * 60 * ANNEALED if args.minutes else args.anneal
    while left() > 0 and not asked:
        if run.step % 100 == 0 or not pieces:
            found = sorted(glob.glob(os.path.join(args.codes, "codes-????.npz")))
            if len(found) != shards:
                codes, infos = load_codes(found[shards:])
                shards = len(found)
                if phrases:
                    called_anew(infos, phrases)
                if pieces:
                    pieces.add(codes, infos)
                elif len(codes) <= HELD_OUT:
                    raise SystemExit(f"{len(codes)} pieces in {args.codes}: encode.py has to make more than the {HELD_OUT} that are held out")
                else:
                    held_out = Pieces(tok, codes[:HELD_OUT], infos[:HELD_OUT])
                    pieces = Pieces(tok, codes[HELD_OUT:], infos[HELD_OUT:])
                    pieces.heard = run.heard
                print("pieces", len(pieces.codes), flush=True)
        if args.rollouts and run.columns >= max(ROLL_FROM[bool(args.init)], run.rolled + args.roll_every):
            run.swap()
            made = rollout.play(run.model, tok, pieces, rollout.Ear(pieces), args.rollouts, run.step, args.threads, device,
                                torch.bfloat16 if args.bf16 else torch.float32)
            run.swap()
            run.heard = pieces.heard = pieces.heard[-len(made):] + made
            run.rolled = run.columns
        batch = next_batch(run, pieces, args)
        losses = gradients(run.model, run.params, batch, device, args, run.rng, workers, other)
        scale = run.rate(left(), anneal)
        run.update(scale, workers)
        run.columns += batch[0].shape[0] * batch[0].shape[2]
        run.spent, last = run.spent + time.time() - last, time.time()
        log = losses if log is None else 0.9 * log + 0.1 * losses
        if run.step % 25 == 0:
            print(f"{run.step} {run.columns / 1e6:.2f}M {run.spent:.0f}s lr {scale:.2f} loss",
                  [round(float(v), 3) for v in log], flush=True)
        if run.step % 200 == 0:
            run.swap()
            measure(run, held_out, device, args, tok)
            run.swap()
        if time.time() - last_save > 120:
            run.save()
            last_save = time.time()
    run.save()


def corrupt(ids, most):
    """Replace some input codes by others of the same codebook, so that the model survives
    its own mistakes; each row has its own rate up to `most`, fine codebooks have more."""
    rate = most * torch.rand(len(ids), 1, 1, device=ids.device)
    rate = rate * torch.tensor(NOISIER, dtype=torch.float32, device=ids.device)[None, :, None]
    order = torch.randperm(ids.shape[2], device=ids.device)
    other = ids.roll(1, 0)[:, :, order]
    swap = (torch.rand(ids.shape, device=ids.device) < rate) & (ids != lm.PAD) & (other != lm.PAD)
    return torch.where(swap, other, ids)


def losses_on(model, batch, device, args, rng, known=1, other=None):
    """Losses of the codebooks, and of the choice between the captions of some rows and wrong ones."""
    codes, text, first = batch
    keep = torch.full((len(text),), known)
    if rng is not None:
        keep = torch.from_numpy((rng.random(len(text)) > 0.15).astype(np.int64))
    some = -(-len(text) // contrast.OF_ROWS) if other else 0
    texts, kept = text, torch.cat([keep, keep[:some]])
    if other:
        wrong, asked = other(rng or np.random.default_rng(1), text.numpy(), some)
        texts = torch.cat([text, torch.from_numpy(wrong)])
    codes, texts, kept, first = (b.to(device) for b in (codes, texts, kept, first))
    mask = (texts > 0).long()
    ids = lm.delay(codes)
    seen = ids if rng is None else corrupt(ids, args.noise)
    early = torch.arange(codes.shape[2], device=device) < first[:, None]
    target = lm.delay(codes.masked_fill(early[:, None], lm.PAD))
    with torch.autocast(device.type, torch.bfloat16, enabled=bool(args.bf16), cache_enabled=False):
        context = lm.text_states(model, texts, mask, kept)
        twice = lambda ids: torch.cat([ids, ids[:some]])
        right, wrong = lm.nats(model, twice(seen)[:, :, :-1], twice(target), context, mask).split([len(codes), some])
    choice = torch.zeros((), device=device)
    if other:
        asked = (torch.from_numpy(asked) & (keep[:some] > 0)).to(device)
        choice = contrast.loss(right[:some], wrong, asked)
    return lm.loss_of(right, target), choice


def loss_on(model, batch, device, args, rng, known=1):
    return losses_on(model, batch, device, args, rng, known)[0]


def gradients(model, params, batch, device, args, rng, workers, other=None):
    """Set the gradients of a batch, and return the losses. Beginnings are compared under `other` captions. On a CPU each thread takes a part
    of the rows: threads that share every single product wait for each other much more."""
    parts = args.threads if device.type == "cpu" else 1
    weights = torch.tensor(WEIGHTS / WEIGHTS.sum(), dtype=torch.float32, device=device)
    seeds = rng.integers(1 << 40, size=parts)
    compared = other if batch[0].shape[2] == START else None

    def one(i):
        rows = tuple(b[i::parts] for b in batch)
        losses, choice = losses_on(model, rows, device, args, np.random.default_rng(seeds[i]), other=compared)
        whole = (losses * weights).sum() + contrast.WEIGHT * choice
        return losses.detach(), torch.autograd.grad(whole / parts, params)

    done = list(workers.map(one, range(parts)))
    for p, *grads in zip(params, *(g for _, g in done)):
        p.grad = sum(grads[1:], grads[0])
    return sum(l for l, _ in done) / parts


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--codes", required=True)
    p.add_argument("--words", required=True, help="folder of wordpieces.py, or of a checkpoint: its tokenizer")
    p.add_argument("--text", help="text encoder, from pretrain_text.py")
    p.add_argument("--init", help="decoder to begin with: checkpoint folder, or init.pt of widen.py")
    p.add_argument("--phrases", help="from phrases.py")
    p.add_argument("--run", required=True)
    p.add_argument("--columns", type=float, default=60e6, help="frames to learn, all in all")
    p.add_argument("--anneal", type=float, default=10e6, help="of them with a falling learning rate")
    p.add_argument("--minutes", type=float, help="end after so long, instead of by columns")
    p.add_argument("--device", default="cpu")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--batch", type=int, default=6, help="full windows, or as many columns of shorter ones")
    p.add_argument("--lr", type=float, default=1.5e-3)
    p.add_argument("--noise", type=float, default=0.1)
    p.add_argument("--rollouts", type=int, default=16, help="how many pieces the decoder plays to hear itself")
    p.add_argument("--roll-every", type=float, default=2.5e6, help="columns")
    p.add_argument("--bf16", type=int, help="1 or 0; by default whatever is faster here")
    a = p.parse_args()
    if a.bf16 is None:
        a.bf16 = bf16_is_faster(torch.device(a.device).type)
    if not a.text and not a.init:
        p.error("say --text, --init or both")
    train(a)
