"""Run with `python -m pytest tests` in this folder."""
import os
import sys

import numpy as np
import pytest
import torch

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import beats
import lm
import start
import wordpieces
from composer.theory import HALF_FRAMES, bpm_of
from config import CODEBOOKS, TEXT
from test_wordpieces import WORDS


@pytest.fixture(scope="module")
def decoder():
    """A decoder that has learned nothing, and its tokenizer."""
    torch.manual_seed(0)
    tok, rows = wordpieces.build(WORDS, np.random.default_rng(0).normal(0, 1, (len(WORDS), 128)), TEXT["d_model"])
    model = lm.build().eval()
    with torch.no_grad():
        model.text_encoder.shared.weight[:len(rows)] = torch.as_tensor(rows, dtype=torch.float32)
    start.start(model)
    beats.keep_time(model, tok)
    return model, tok


@torch.no_grad()
def attended(decoder, caption, head):
    """How much a head attends to the tempo, at each column of random codes."""
    model, tok = decoder
    ids = tok.encode(caption).ids
    layer, seen = model.decoder.model.decoder.layers[0], []
    hook = layer.encoder_attn_layer_norm.register_forward_hook(lambda *call: seen.append(call[2]))
    text = torch.tensor([ids])
    states = lm.text_states(model, text, torch.ones_like(text))
    lm.decoder_states(model, lm.delay(torch.randint(0, 512, (8, CODEBOOKS, 110))), states.expand(8, -1, -1), torch.ones(8, len(ids)))
    hook.remove()
    size = seen[0].shape[2] // model.config.decoder.num_attention_heads
    rows = slice(head * size, (head + 1) * size)
    attention = layer.encoder_attn
    scores = (seen[0] @ attention.q_proj.weight[rows].T) @ (states @ attention.k_proj.weight[rows].T).mT
    return (scores * size ** -0.5).softmax(2)[:, :, place_of_tempo(tok, ids)].mean(0)


def place_of_tempo(tok, ids):
    return next(i for i, word in enumerate(ids) if word in {tok.token_to_id(f"\u2581{bpm}") for bpm in wordpieces.TEMPI})


@torch.no_grad()
def test_one_head_always_says_which_tempo_it_is(decoder):
    said = []
    for caption in ("rock, 120 bpm", "metal guitar at 120 bpm", "rock, 100 bpm"):
        assert attended(decoder, caption, len(beats.EVERY)).min() > 0.8
        model, tok = decoder
        ids = tok.encode(caption).ids
        states = lm.text_states(model, torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long))[0, place_of_tempo(tok, ids)]
        attention = model.decoder.model.decoder.layers[0].encoder_attn
        first = len(beats.EVERY) * (attention.v_proj.weight.shape[0] // model.config.decoder.num_attention_heads)
        said.append(attention.v_proj.weight[first:first + len(HALF_FRAMES)] @ states)
    same, other = (torch.cosine_similarity(said[0], s, 0) for s in said[1:])
    assert same > other + 0.3, (same, other)


@torch.no_grad()
def test_what_keeps_time_is_not_drowned_nor_turned_off(decoder):
    """One step of any size: nothing else writes where it writes, and it is as it was."""
    model = lm.build()
    model.load_state_dict(decoder[0].state_dict())
    kept, room = [(p, at, p[at].clone()) for p, at in beats.held(model)], beats.room_of(model)
    layer = model.decoder.model.decoder.layers[0]
    for p in (*(e.weight for e in model.decoder.model.decoder.embed_tokens), layer.self_attn.out_proj.weight):
        p += torch.randn(p.shape)
    for p, at, value in kept:
        p[at] = value
    beats.clear(model, room)
    assert all(torch.equal(p[at], value) for p, at, value in kept)
    assert all((e.weight @ room).abs().max() < 1e-4 for e in model.decoder.model.decoder.embed_tokens)
    others = torch.ones(layer.self_attn.out_proj.weight.shape[1], dtype=torch.bool)
    others[beats.heads(layer)[1][1]] = False
    assert (room.T @ layer.self_attn.out_proj.weight[:, others]).abs().max() < 1e-4


@pytest.mark.parametrize("bpm", (75, 100, 120, 140))
def test_two_heads_know_the_beats_and_bars_of_the_asked_tempo(decoder, bpm):
    half = min(HALF_FRAMES, key=lambda half: abs(bpm_of(half) - bpm))
    for head, every in enumerate(beats.EVERY):
        heard = attended(decoder, f"rock, {bpm} bpm", head)
        on = torch.arange(0, 101, half * every).floor().long()
        off = (on[:-1] + half * every / 2).long()
        assert heard[on].mean() > 1.5 * heard[off].mean(), (head, heard[on], heard[off])
        other = torch.arange(0, 101, 0.87 * half * every).floor().long()[1:]
        assert heard[on].mean() > 1.3 * heard[other].mean(), (head, heard[on], heard[other])
