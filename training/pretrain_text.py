"""Teach the text encoder what captions say, before the decoder is trained:
`python pretrain_text.py --words DIR --phrases FILE --out text.pt [--steps 500]`.

From every projected text state, linear heads read style, tempo, key, energy and
instruments. Without this the decoder learns the music and never listens to the text. The table of word pieces
stays as it is; noise on it and words left out make words nearby mean the same.
"""
import argparse
import json
import time
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F

import band.captions
import band.form
import band.styles
import composer.captions
import composer.styles
import lm
import wordpieces
from band.harmony import SCALES as MODES
from band.instruments import INSTRUMENTS
from band.piece import describe
from band.score import Score
from composer.render import Piece
from composer.theory import HALF_FRAMES, SCALES, bpm_of
from config import BAND, FRAME_RATE

END = 1
NOISE = 0.35        # of a table of mean square one
LEFT_OUT = 0.1      # share of words
WORDS = 40
STYLES = band.styles.NAMES if BAND else composer.styles.NAMES
KEYS = list(MODES if BAND else SCALES)
PLAYERS = list(INSTRUMENTS if BAND else composer.captions.INSTRUMENTS)
ENERGIES = 4
CAPTIONS = 4        # of a piece of the band, in a batch: to compose it takes longer than to learn from it


def of_composer(rng, phrases):
    """A caption, and what it may say: scale, energy, who plays."""
    piece = Piece(rng, str(rng.choice(STYLES)))
    info = dict(style=piece.style, bpm=bpm_of(piece.half), half=piece.half, root=piece.root, scale=piece.scale,
                energy=piece.energy, instruments=piece.instruments(), kit=piece.spec["kit"])
    yield info, piece.energy, info["instruments"], composer.captions.make_caption(rng, info, phrases)


def of_band(rng, phrases):
    """The same of a piece of the band, several times: of its sections, and half of the captions are those of the whole piece."""
    info = describe(0, Score(rng, str(rng.choice(STYLES)), FRAME_RATE))
    for _ in range(CAPTIONS):
        part = dict(info["sections"][0], name=str(rng.choice(list(band.form.WORDS))), level=int(rng.integers(ENERGIES)))
        caption = (band.captions.make_caption(rng, info, phrases=phrases) if rng.random() < 0.5 else
                   band.captions.section_captions(rng, info, part, 1, phrases)[0])
        yield info, part["level"], info["cast"].values(), caption


def examples(rng, phrases):
    """Without end: a caption, the labels that it may say, and who plays."""
    while True:
        for info, energy, players, caption in (of_band if BAND else of_composer)(rng, phrases):
            labels = [STYLES.index(info["style"]), HALF_FRAMES.index(info["half"]), KEYS.index(info["scale"]), energy]
            yield caption, labels, [p in players for p in PLAYERS]


def batch_of(tok, drawn, size):
    captions, labels, played = zip(*islice(drawn, size))
    ids = [tok.encode(c).ids[:WORDS] for c in captions]
    text = torch.zeros(size, max(map(len, ids)), dtype=torch.long)
    for i, row in enumerate(ids):
        text[i, :len(row)] = torch.tensor(row)
    return text, torch.tensor(labels), torch.tensor(np.array(played), dtype=torch.float32)


def train(args):
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = torch.device(args.device)
    model, tok = lm.build(), wordpieces.load(args.words)
    wordpieces.put_table(model, args.words)
    with open(args.phrases) as f:
        phrases = json.load(f)
    torch.nn.init.normal_(model.enc_to_dec_proj.weight, std=1.2 * model.enc_to_dec_proj.in_features ** -0.5)
    sizes = [len(STYLES), len(HALF_FRAMES), len(KEYS), ENERGIES, len(PLAYERS)]
    heads = torch.nn.Linear(model.enc_to_dec_proj.out_features, sum(sizes))
    model.to(device), heads.to(device)
    model.text_encoder.shared.weight.requires_grad_(False)
    params = [*(p for p in model.text_encoder.parameters() if p.requires_grad), *model.enc_to_dec_proj.parameters(), *heads.parameters()]
    opt = torch.optim.AdamW(params, lr=args.lr, betas=(0.9, 0.98), weight_decay=0.01)
    drawn, begin = examples(np.random.default_rng(4), phrases), time.time()
    for step in range(args.steps):
        for g in opt.param_groups:
            g["lr"] = args.lr * min(1, (step + 1) / 30, (args.steps - step) / args.steps * 1.5)
        text, labels, played = (b.to(device) for b in batch_of(tok, drawn, args.batch))
        said = (text > 0) & ((torch.rand(text.shape, device=device) > LEFT_OUT) | (text == END))
        mask = said.long()
        rows = F.embedding(text, model.text_encoder.shared.weight)
        rows = rows + NOISE * torch.rand(len(text), 1, 1, device=device) * torch.randn_like(rows)
        out = heads(lm.text_states(model, rows, mask))
        parts = out.split(sizes, -1)
        weight = mask / mask.sum(1, keepdim=True) / len(text)
        loss = 0.0
        for i in range(4):
            target = labels[:, i:i + 1].expand(mask.shape)
            loss = loss + (F.cross_entropy(parts[i].transpose(1, 2), target, reduction="none") * weight).sum()
        target = played[:, None].expand(parts[4].shape)
        loss = loss + 3 * (F.binary_cross_entropy_with_logits(parts[4], target, reduction="none").mean(-1) * weight).sum()
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        opt.step()
        if step % 25 == 0 or step == args.steps - 1:
            right = ((parts[0].argmax(-1) == labels[:, :1]) * weight).sum()
            near = (((parts[1].argmax(-1) - labels[:, 1:2]).abs() <= 1) * weight).sum()
            print(f"{step} {time.time() - begin:.0f}s loss {float(loss.detach()):.3f} style {float(right):.3f} tempo {float(near):.3f}", flush=True)
    keep = {n: p.detach() for n, p in model.named_parameters() if n.startswith(("text_encoder", "enc_to_dec_proj")) and p.requires_grad}
    torch.save(keep, args.out)


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--words", required=True, help="folder of wordpieces.py")
    p.add_argument("--phrases", required=True, help="from phrases.py")
    p.add_argument("--out", required=True)
    p.add_argument("--steps", type=int, default=500)
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--device", default="cpu")
    p.add_argument("--threads", type=int, default=2)
    train(p.parse_args())
