"""What the decoder makes of its captions when it plays for a while, in training.

A decoder that has only heard composed music does not know where its own mistakes lead. So it
plays for captions of the pieces it learns from, and every section is judged by its codes
alone: does it sound like the asked style, do codes come again after a bar (of the band: four) of the asked tempo as
often as in pieces, and does it move? A section that stands still for four seconds anywhere, or that
has fewer different sounds than pieces of its style have, is never good. Good sections are learned
like pieces, so that playing on stays right; all others only as what comes before a splice.
"""
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from config import CODEBOOK_SIZE, CYCLE, FRAME_RATE, KEEP, WINDOW
from sample import Generator

SECONDS = 60
SETTINGS = ((2.5, 1.0), (1.0, 1.0), (2.5, 0.7))     # guidance and temperature, in turns
TOP_K = 250
STILL = 4 * FRAME_RATE  # frames in which something new must come


def picture(codes):
    """Which codes of the two first levels sound in a section [K, frames]."""
    counts = [np.bincount(codes[k], minlength=CODEBOOK_SIZE) for k in range(2)]
    return np.sqrt(np.concatenate(counts) / codes.shape[1]).astype(np.float32)


def cycle_repeats(codes, half):
    """Share of first codes that come again `CYCLE` bars later."""
    frames = 2 * CYCLE * half
    return float((codes[0, frames:] == codes[0, :-frames]).mean())


def sounds(codes):
    """Different sounds of a section [K, frames]: first codes that occur in it."""
    return len(np.unique(codes[0]))


def movement(codes):
    """The fewest different sounds in any four seconds: a held sound is a short cycle of codes."""
    last = max(1, codes.shape[1] - STILL + 1)
    return min(sounds(codes[:, at:at + STILL]) for at in range(0, last, FRAME_RATE // 2))


class Ear:
    """A linear classifier of styles by codes, and what is usual in pieces of each style."""

    def __init__(self, pieces, crops=2, steps=150):
        rng = np.random.default_rng(0)
        self.styles = sorted(pieces.of_style)
        x = np.stack([picture(pieces.crop(rng, i, WINDOW // 2)) for i in range(len(pieces.codes)) for _ in range(crops)])
        y = np.repeat([self.styles.index(i["style"]) for i in pieces.infos], crops)
        x, y = torch.from_numpy(x), torch.from_numpy(y)
        self.net = torch.nn.Linear(x.shape[1], len(self.styles))
        opt = torch.optim.AdamW(self.net.parameters(), lr=0.02, weight_decay=0.01)
        for _ in range(steps):
            loss = torch.nn.functional.cross_entropy(self.net(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
        # Bars repeat this often, and this many sounds are heard in a section and in its stillest
        # four seconds. More repetition or fewer sounds is a frozen loop.
        self.repeats, self.movement, self.sounds = {}, {}, {}
        for style, rows in pieces.of_style.items():
            crops_of = [(pieces.crop(rng, i, WINDOW), pieces.infos[i]["half"]) for i in rows]
            self.repeats[style] = np.quantile([cycle_repeats(c, half) for c, half in crops_of], (0.1, 0.9))
            self.movement[style] = np.quantile([movement(c) for c, _ in crops_of], 0.05)
            self.sounds[style] = np.quantile([sounds(c) for c, _ in crops_of], 0.05)

    @torch.no_grad()
    def belief(self, codes, style):
        """Probability of `style` for a section; the lower one of its halves."""
        middle = codes.shape[1] // 2
        x = torch.from_numpy(np.stack([picture(codes[:, :middle]), picture(codes[:, middle:])]))
        return float(self.net(x).softmax(-1)[:, self.styles.index(style)].min())


class Section:
    """Codes [K, window] that the decoder made for the piece `row`. Good: the asked style, as much
    on the beat as pieces are, and never still."""

    def __init__(self, codes, row, info, ear):
        self.codes, self.row, self.style, self.half = codes, row, info["style"], info["half"]
        self.belief, self.repeats = ear.belief(codes, self.style), cycle_repeats(codes, self.half)
        low, high = ear.repeats[self.style]
        self.still = movement(codes) < ear.movement[self.style] or sounds(codes) < ear.sounds[self.style]
        self.good = bool(self.belief > 0.6 and low <= self.repeats <= high and not self.still)


def play(model, tok, pieces, ear, count, turn, threads=2, device="cpu", precision=torch.float32):
    """Sections of `count` rollouts for captions that name a tempo where there is one."""
    rng = np.random.default_rng([turn, 5])
    generator = Generator.of(model, tok, device, precision)
    guidance, temperature = SETTINGS[turn % len(SETTINGS)]
    rows = rng.integers(len(pieces.codes), size=count)
    texts = [str(rng.choice(pieces.infos[r]["captions"])) for r in rows]

    def one(part):
        return generator.codes(texts[part::threads], SECONDS * FRAME_RATE, seed=1000 * turn + part, guidance=guidance,
                               temperature=temperature, top_k=TOP_K).cpu().numpy()

    out = []
    with ThreadPoolExecutor(threads) as pool:
        for part, made in enumerate(pool.map(one, range(threads))):
            for row, codes in zip(rows[part::threads], made):
                for at in range(0, codes.shape[1] - WINDOW + 1, KEEP // 2):
                    out.append(Section(codes[:, at:at + WINDOW], int(row), pieces.infos[row], ear))
    in_style = np.array([s.belief > 0.5 for s in out])
    late = in_style.reshape(count, -1)[:, -1]
    print(f"rollouts at guidance {guidance}, temperature {temperature}: asked style in {in_style.mean():.2f} of sections, "
          f"in {late.mean():.2f} of the last; codes that repeat after {CYCLE} bars {np.mean([s.repeats for s in out]):.2f}; "
          f"still {np.mean([s.still for s in out]):.2f}; good {np.mean([s.good for s in out]):.2f}", flush=True)
    return out
