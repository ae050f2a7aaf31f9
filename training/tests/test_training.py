"""Run with `python -m pytest tests` in this folder."""
import os
import sys

import numpy as np
import torch
from transformers import EncodecConfig, EncodecModel

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import codec
import fastconv
import lm
import tokenizer
import train_lm
from composer.render import Piece, draw, loudness, make_piece
from composer.styles import NAMES
from composer.theory import HALF_FRAMES, asked_bpm, bpm_of, frequency
from config import CODEC, HOP
from muon import orthogonal
from quantizer import dequantize, quantize


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
