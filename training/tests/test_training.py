"""Run with `python -m pytest tests` in this folder."""
import argparse
import os
import sys

import numpy as np
import torch
from transformers import EncodecConfig, EncodecModel

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import codec
import fastconv
import lm
import rollout
import tokenizer
import train_lm
from composer.render import Piece, draw, loudness, make_piece
from composer.styles import NAMES
from composer.theory import HALF_FRAMES, asked_bpm, bpm_of, frequency
from config import CODEC, HOP
from muon import orthogonal
from quantizer import dequantize, quantize
from windows import PREFIX, Pieces


def models():
    torch.manual_seed(0)
    plain = codec.build().eval()
    reference = EncodecModel(EncodecConfig(**CODEC)).eval()
    reference.load_state_dict(codec.with_weight_norm(plain.state_dict()))
    return plain, reference


@torch.no_grad()
def test_codec_equals_transformers():
    plain, reference = models()
    audio = torch.randn(2, 7 * HOP)
    z = fastconv.encode(plain, audio)
    assert torch.allclose(z, reference.encoder(audio[:, None]).transpose(1, 2), atol=1e-5)
    y = fastconv.decode(plain, 3 * z)
    assert torch.allclose(y, reference.decoder(3 * z.transpose(1, 2))[:, 0], atol=1e-5)


@torch.no_grad()
def test_codes_equal_transformers():
    plain, reference = models()
    for a, b in zip(plain.quantizer.layers, reference.quantizer.layers):
        a.codebook.embed.normal_(0, 0.05)
        b.codebook.embed.copy_(a.codebook.embed)
    audio = torch.randn(1, 9 * HOP) * 0.3
    codes = quantize(plain, fastconv.encode(plain, audio))
    assert torch.equal(codes, reference.encode(audio[:, None]).audio_codes[0])
    y = fastconv.decode(plain, dequantize(plain, codes))
    assert torch.allclose(y, reference.decode(codes[None], [None]).audio_values[:, 0], atol=1e-5)


@torch.no_grad()
def test_decoder_equals_transformers():
    model = lm.build().eval()
    text, codes = torch.randint(3, 300, (2, 9)), torch.randint(0, 512, (2, 4, 30))
    mask, ids = torch.ones_like(text), lm.delay(codes)
    mine = lm.decoder_logits(model, ids, lm.text_states(model, text, mask), mask)
    theirs = model(input_ids=text, attention_mask=mask, decoder_input_ids=ids.reshape(8, -1)).logits
    assert torch.allclose(mine.reshape(theirs.shape), theirs, atol=1e-4)


def test_delay_is_undone():
    codes = torch.randint(0, 512, (3, 4, 17))
    assert torch.equal(lm.undelay(lm.delay(codes)), codes)


def test_muon_update_is_nearly_orthogonal():
    values = torch.linalg.svdvals(orthogonal(torch.randn(64, 192)))
    assert values.min() > 0.5 and values.max() < 1.4


def test_pieces_are_level_and_repeatable():
    for style in NAMES:
        audio, info = make_piece(3, 12, style)
        again, _ = make_piece(3, 12, style)
        assert np.array_equal(audio, again) and info["style"] == style
        assert np.abs(audio).max() < 0.95 and -19 < loudness(audio) < -13
        assert 59 < info["bpm"] < 180 and all(info["captions"])


def test_notes_repeat_within_the_table():
    for midi in range(31, 96):
        assert abs(frequency(midi) * 0.48 - round(frequency(midi) * 0.48)) < 1e-6


def test_a_repeated_bar_repeats_to_the_sample():
    for style in NAMES:
        piece = Piece(np.random.default_rng(5), style)
        piece.spec = dict(piece.spec, reverb=0.0, delay=0.0, hold=8)
        bar = 16 * piece.step
        assert bar % HOP == 0
        audio = draw(piece, ["full"] * 4, 4 * bar)
        second, third = audio[bar:2 * bar], audio[2 * bar:3 * bar]
        assert np.abs(second - third).max() < 1e-4 * np.abs(second).max(), style


def test_an_asked_tempo_means_the_nearest_one_of_the_grid():
    rng = np.random.default_rng(0)
    for half in HALF_FRAMES:
        for _ in range(50):
            asked = asked_bpm(rng, half)
            assert abs(asked - bpm_of(half)) <= 0.5 + min(abs(asked - bpm_of(h)) for h in HALF_FRAMES)


def test_every_tempo_is_one_token():
    tok = tokenizer.build(2000)
    for bpm in (60, 85, 128, 174):
        assert f"\u2581{bpm}" in tok.encode(f"techno, {bpm} bpm").tokens


@torch.no_grad()
def test_first_heads_start_by_looking_back():
    torch.manual_seed(0)
    model = lm.build().eval()
    train_lm.start(model)
    dec = model.decoder.model.decoder
    ids = torch.randint(0, 512, (1, 4, 60))
    x = sum(dec.embed_tokens[k](ids[:, k]) for k in range(4)) + lm.positions(60, dec.config.hidden_size, "cpu")
    attention, heads = dec.layers[0].self_attn, dec.config.num_attention_heads
    h = dec.layers[0].self_attn_layer_norm(x)
    scores = lm._heads(attention.q_proj(h), heads) @ lm._heads(attention.k_proj(h), heads).mT
    for head, back in enumerate(train_lm.LOOK_BACK[:heads]):
        at = torch.arange(20, 60)
        best = scores[0, head].masked_fill(torch.ones(60, 60, dtype=torch.bool).triu(1), -1e9)[20:].argmax(-1)
        assert ((at - best - back).abs() <= 1).float().mean() > 0.7


def pieces(count=24, frames=400):
    """Piece i has the code i everywhere."""
    codes = [np.full((4, frames), i, np.int16) for i in range(count)]
    return Pieces(tokenizer.build(2000), codes, [make_info(i) for i in range(count)])


def make_info(i):
    style = NAMES[i % 3]
    half = (20, 24)[i // 3 % 2]
    return dict(style=style, half=half, captions=[f"{style} {int(bpm_of(half))} bpm", style])


def test_a_splice_ends_in_the_asked_piece_and_begins_with_another():
    some, rng = pieces(), np.random.default_rng(1)
    codes, text, first = some.batch(rng, 64, 240, 1.0)
    assert (first >= PREFIX[0]).all() and (first < PREFIX[1]).all()
    for row, at, ids in zip(codes.numpy(), first.tolist(), text.tolist()):
        asked = row[0, at]
        assert (row[:, at:] == asked).all() and (row[:, :at] == row[0, 0]).all()
        assert [w for w in ids if w] in [w for w, _ in some.words[asked]]
    assert (codes[:, 0, 0] != codes[:, 0, -1]).float().mean() > 0.9


def test_only_what_comes_after_a_splice_is_learned():
    torch.manual_seed(0)
    model, args = lm.build(), argparse.Namespace(noise=0.0, bf16=0)
    codes, text = torch.randint(0, 512, (1, 4, 40)), torch.randint(3, 300, (1, 5))
    loss = lambda c, first: train_lm.loss_on(model, (c, text, torch.tensor([first])), torch.device("cpu"), args, None)
    plain, spliced = loss(codes, 0), loss(codes, 30)
    logits = lm.decoder_logits(model, lm.delay(codes)[:, :, :-1], lm.text_states(model, text, torch.ones_like(text)), torch.ones_like(text))
    after = [torch.nn.functional.cross_entropy(logits[0, k, 30 + k:40 + k], codes[0, k, 30:]) for k in range(4)]
    assert torch.allclose(spliced, torch.stack(after), atol=1e-4) and not torch.allclose(plain, spliced, atol=1e-4)


def test_sections_are_judged_by_style_and_beat():
    some = pieces()
    ear = rollout.Ear(some)
    right = [rollout.Section(some.codes[i][:, :240], i, some.infos[i], ear) for i in range(6)]
    wrong = rollout.Section(some.codes[1][:, :240], 0, some.infos[0], ear)
    rollout.judge(right + [wrong], ear)
    assert all(s.good for s in right) and not wrong.good


def test_training_goes_on_from_a_checkpoint_folder(tmp_path):
    torch.manual_seed(0)
    model, other = lm.build(), lm.build()
    model.save_pretrained(tmp_path)
    train_lm.start_from(other, tmp_path)
    mine = dict(model.named_parameters())
    assert all(torch.equal(p, mine[n]) for n, p in other.named_parameters() if not n.startswith("audio_encoder."))
