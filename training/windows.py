"""Windows of codes that the decoder is trained on.

- Plain windows, from the start of a piece or from anywhere, as a stream needs both. Many begin
  inside a held chord that ends at the bar line.
- Beginnings, short and often with a caption that names a tempo: there the text decides, not the past.
- Splices: first something that contradicts the caption (another style, the same style at
  another tempo, a stuck sound, or what the decoder itself made), then the piece that the caption
  asks for, from its start or from a bar line. Only what comes after the splice is learned. This
  is what pulls a long stream back to its text.
- Overdue chords, a kind of splice: a sound of the piece itself is held for seconds, and then the
  piece goes on at its bar line. This is the way out of standing still.
"""
import re

import numpy as np
import torch

from config import KEEP, WINDOW

WORDS = 40
NAMED = re.compile(r"[0-9] ?bpm|tempo [0-9]", re.I)     # a caption that says a tempo
START = 10              # frames of the windows that teach how music begins: what a text decides is in the first four
MIDDLE = 250            # frames of the windows that teach most of the rest: three for one long one
SPLICES = 0.4           # share of the middle and full windows that are splices
PREFIX = 15             # fewest frames before a splice
BEGIN = 0.15            # share of plain windows, and of what follows a splice, from the start of a piece
AT_BAR = 0.4            # share of plain windows from another bar line: music may begin at any of them
OVERDUE = 0.25          # share of splices that are overdue chords
STUCK = 0.1             # share of the others that begin with a stuck sound
TEMPO = 0.35            # ... with the same style at another tempo
HEARD = 0.3             # ... with what the decoder made, once there is some
SECTION = 150           # frames that must be left of a section for its caption
OF_SECTION = 0.4        # share of captions that are those of a section, where there are some
GOOD = 0.15             # share of plain full windows that the decoder made itself, and made well


def longest_prefix(frames):
    """Frames that come before a splice at most: as many as a stream keeps, in a full window."""
    return frames * KEEP // WINDOW


class Pieces:
    """Codes with their captions. `heard` are sections that the decoder made: see `rollout.py`."""

    def __init__(self, tok, codes, infos):
        self.tok, self.codes, self.infos, self.heard = tok, [], [], []
        # Ids of every caption, and whether it names a tempo; of whole pieces, and of their sections.
        self.words, self.parts, self.of_style = [], [], {}
        self.add(codes, infos)

    def add(self, codes, infos):
        """More pieces."""
        for row, info in zip(codes, infos):
            self.of_style.setdefault(info["style"], []).append(len(self.codes))
            self.codes.append(row)
            self.infos.append(info)
            self.words.append(self.read(self.tok, info["captions"]))
            self.parts.append([(p["start"], p["end"], self.read(self.tok, p["captions"])) for p in info.get("sections", [])])

    @staticmethod
    def read(tok, captions):
        return [(tok.encode(c).ids[:WORDS], bool(NAMED.search(c))) for c in captions]

    def caption(self, rng, row, tempo, at=None):
        """Ids of a caption. From frame `at` of the piece on, it may be that of the section there, if
        most of a chord cycle is left of it."""
        words = self.words[row]
        here = [w for start, end, w in self.parts[row] if at is not None and start <= at < end - SECTION]
        if here and rng.random() < OF_SECTION:
            words = here[0]
        said = [w for w, named in words if named] if tempo else []
        said = said or [w for w, _ in words]
        return said[rng.integers(len(said))]

    def crop(self, rng, row, frames):
        at = rng.integers(0, self.codes[row].shape[1] - frames + 1)
        return self.codes[row][:, at:at + frames]

    def astray(self, rng, row, frames):
        """Codes [K, frames] that contradict the captions of piece `row`; and whether only the
        named tempo tells."""
        info, what = self.infos[row], rng.random()
        if what < STUCK:
            short = self.crop(rng, rng.integers(len(self.codes)), int(rng.integers(1, 20)))
            return np.tile(short, frames // short.shape[1] + 1)[:, :frames], False
        if what < STUCK + TEMPO:
            others = [i for i in self.of_style[info["style"]] if self.infos[i]["half"] != info["half"]]
            if others:
                return self.crop(rng, rng.choice(others), frames), True
        elif what < STUCK + TEMPO + HEARD and self.heard:
            made = self.heard[rng.integers(len(self.heard))]
            if not made.good or (made.style, made.half) != (info["style"], info["half"]):
                at = rng.integers(0, made.codes.shape[1] - frames + 1)
                return made.codes[:, at:at + frames], True
        others = [s for s in self.of_style if s != info["style"]]
        style = others[rng.integers(len(others))] if others else info["style"]
        return self.crop(rng, rng.choice(self.of_style[style]), frames), False

    def bar_lines(self, row, frames):
        """Frames at which bars of a piece begin that leave room for `frames` more."""
        return np.arange(0, self.codes[row].shape[1] - frames + 1, 2 * self.infos[row]["half"])

    def continued(self, rng, row, frames, begin=BEGIN):
        """Codes [K, frames] of piece `row` from its start or from a bar line, and where that is."""
        at = 0 if rng.random() < begin else int(rng.choice(self.bar_lines(row, frames)))
        return self.codes[row][:, at:at + frames], at

    def overdue(self, rng, row, first, frames):
        """Codes [K, frames] of piece `row` whose sound stands still for more than a bar before
        frame `first`, where a bar begins; before that comes what led to it."""
        lines = self.bar_lines(row, frames - first)
        at = int(rng.choice(lines[1:] if len(lines) > 1 else lines))
        if at == 0:
            return self.codes[row][:, :frames]
        codes, bar = self.codes[row], 2 * self.infos[row]["half"]
        held = codes[:, max(0, at - int(rng.integers(1, 9))):at]
        length = min(first, max(bar + int(rng.integers(20, 200)), first - at))
        stuck = np.tile(held, length // held.shape[1] + 1)[:, -length:]
        before = codes[:, at - (first - length):at]
        return np.concatenate([before, stuck, codes[:, at:at + frames - first]], 1)

    def splice(self, rng, row, frames):
        first = int(rng.integers(PREFIX, longest_prefix(frames)))
        if rng.random() < OVERDUE:
            first = max(first, min(2 * self.infos[row]["half"] + 30, longest_prefix(frames)))
            return self.overdue(rng, row, first, frames), first, self.caption(rng, row, rng.random() < 0.5)
        before, tempo = self.astray(rng, row, first)
        after, at = self.continued(rng, row, frames - first)
        return np.concatenate([before, after], 1), first, self.caption(rng, row, tempo or rng.random() < 0.5, at)

    def window(self, rng, frames, splices):
        """Codes [K, frames], where learning begins, and the ids of a caption."""
        row = int(rng.integers(len(self.codes)))
        if rng.random() < splices:
            return self.splice(rng, row, frames)
        if frames == START:
            # From bar lines anywhere: the starts of a few thousand pieces are soon known by heart.
            codes, at = self.continued(rng, row, START)
            return codes, 0, self.caption(rng, row, rng.random() < 0.9, at)
        if frames == WINDOW and rng.random() < GOOD:
            own = [h for h in self.heard if h.good and h.style == self.infos[row]["style"]]
            if own:
                made = own[rng.integers(len(own))]
                return made.codes, 0, self.caption(rng, made.row, True)
        if rng.random() < BEGIN + AT_BAR:
            codes, at = self.continued(rng, row, frames, BEGIN / (BEGIN + AT_BAR))
        else:
            at = int(rng.integers(0, self.codes[row].shape[1] - frames + 1))
            codes = self.codes[row][:, at:at + frames]
        return codes, 0, self.caption(rng, row, False, at)

    def batch(self, rng, size, frames, splices=0.0):
        """Codes [size, K, frames], text ids [size, words], first learned frames [size]."""
        codes, first, ids = zip(*(self.window(rng, frames, splices) for _ in range(size)))
        text = np.zeros((size, max(map(len, ids))), np.int64)
        for i, w in enumerate(ids):
            text[i, :len(w)] = w
        return torch.from_numpy(np.stack(codes).astype(np.int64)), torch.from_numpy(text), torch.tensor(first)
