"""Train the T5-style unigram tokenizer on captions and write the two tokenizer files.

    python tokenizer.py --out DIR
"""
import argparse
import io
import json
import os
import string

import numpy as np
import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2 as pb
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram

from composer.captions import make_caption
from composer.render import Piece, bpm_of
from composer.styles import NAMES

PIECES, SENTINELS = 800, 100
TEMPI = range(50, 200)
EXTRA_WORDS = """music song track beat tune melody rhythm loop background sound with and the of for in a to
loud soft happy sad angry scary sleepy morning night rain ocean city summer winter love party coffee drive
jazz rock pop classical metal country blues latin disco electronic acoustic vocal choir violin cello trumpet
saxophone drum guitar bass synth organ harp bell marimba flute clap hat kick snare""".split()


def captions(count, seed=9):
    rng = np.random.default_rng(seed)
    for i in range(count):
        piece = Piece(rng, NAMES[i % len(NAMES)])
        info = dict(style=piece.style, bpm=bpm_of(piece.half), half=piece.half, root=piece.root, scale=piece.scale,
                    energy=piece.energy, instruments=piece.instruments(), kit=piece.spec["kit"])
        yield make_caption(rng, info)


def build(count=40000):
    lines = list(captions(count))
    lines += EXTRA_WORDS * 40 + [str(n) + " bpm" for n in range(55, 185)] * 10
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type="unigram", vocab_size=PIECES,
        hard_vocab_limit=False, character_coverage=1.0, normalization_rule_name="nmt_nfkc_cf",
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, pad_piece="<pad>", eos_piece="</s>", unk_piece="<unk>",
        required_chars=string.ascii_lowercase + string.digits + ".,-&/'!?#()+:", num_threads=1, minloglevel=2)
    proto = pb.ModelProto.FromString(model.getvalue())
    vocab = [(p.piece, p.score) for p in proto.pieces]
    known = {piece for piece, _ in vocab}
    # A tempo is one token: likelier than any two pieces that spell it.
    vocab += [(f"\u2581{n}", -4.0) for n in TEMPI if f"\u2581{n}" not in known]
    vocab = [(p, -4.0 if p[1:].isdigit() and int(p[1:]) in TEMPI else s) for p, s in vocab]
    vocab += [(f"<extra_id_{i}>", 0.0) for i in range(SENTINELS - 1, -1, -1)]
    tok = Tokenizer(Unigram(vocab, unk_id=2, byte_fallback=False))
    tok.normalizer = normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")])
    tok.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    tok.decoder = decoders.Metaspace(prepend_scheme="always")
    names = ["<pad>", "</s>", "<unk>"] + [f"<extra_id_{i}>" for i in range(SENTINELS - 1, -1, -1)]
    tok.add_special_tokens([AddedToken(n, normalized=False, special=True) for n in names])
    return tok


def write(folder):
    os.makedirs(folder, exist_ok=True)
    tok = build()
    tok.save(os.path.join(folder, "tokenizer.json"))
    config = dict(backend="tokenizers", eos_token="</s>", extra_ids=SENTINELS,
                  extra_special_tokens=[f"<extra_id_{i}>" for i in range(SENTINELS)], model_max_length=512,
                  pad_token="<pad>", tokenizer_class="T5Tokenizer", unk_token="<unk>")
    with open(os.path.join(folder, "tokenizer_config.json"), "w") as f:
        json.dump(config, f, indent=2)
    return tok


def load(folder):
    return Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--out", required=True)
    a = p.parse_args()
    tok = write(a.out)
    print(tok.get_vocab_size())
    for text in ("Lo-Fi hip hop at 128 bpm", "zydeco", "techno", ""):
        print(text, tok.encode(text).tokens)
