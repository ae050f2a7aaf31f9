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
from composer.render import loudness, make_piece
from composer.styles import NAMES
from composer.theory import frequency
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
