"""Run with `python -m pytest tests` in this folder."""
import argparse
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from transformers import EncodecConfig, EncodecModel

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import codec
import contrast
import encode
import export
import fastconv
import kernels
import lm
import rollout
import sample
import start
import train_lm
import unfold
import widen
import windows
import wordpieces
from test_wordpieces import toy_words
from composer.render import Piece, draw, loudness, make_piece
from composer.styles import NAMES
from composer.theory import HALF_FRAMES, asked_bpm, bpm_of, frequency
from adversary import Adversary, taken_for_real, told_apart
from config import CODEC, CODECS, HOP, TEXT
from muon import orthogonal
from quantizer import Quantizer, dequantize, in_effect, quantize
from spectral import PITCH_SCALES, SpectralLoss
from config import CODEBOOKS, KEEP, SIDES, WINDOW
from windows import MIDDLE, PREFIX, START, Pieces, longest_prefix


def models(sizes=CODEC):
    torch.manual_seed(0)
    plain = codec.build(sizes).eval()
    reference = EncodecModel(EncodecConfig(**sizes)).eval()
    reference.load_state_dict(codec.with_weight_norm(plain.state_dict()))
    return plain, reference


@pytest.mark.parametrize("frames", (7, 8))
@pytest.mark.parametrize("sizes", CODECS.values(), ids=CODECS)
def test_codec_equals_transformers(sizes, frames):
    """Also in what it learns; eight frames go into rows of several samples, seven do not."""
    plain, reference = models(sizes)
    reference.train()   # its recurrent layers learn only so; nothing else differs
    audio = torch.randn(2, sizes["audio_channels"], frames * HOP)
    z, theirs = fastconv.encode(plain, audio), reference.encoder(audio).transpose(1, 2)
    assert torch.allclose(z, theirs, atol=1e-5)
    y, theirs_too = fastconv.decode(plain, 3 * z), reference.decoder(3 * theirs.transpose(1, 2))
    assert torch.allclose(y, theirs_too, atol=1e-5)
    weights = torch.randn(y.shape)
    (y * weights).sum().backward()
    (theirs_too * weights).sum().backward()
    wanted = dict(reference.named_parameters())
    for name, p in plain.named_parameters():
        if name.endswith("conv.bias"):
            other = wanted[name].grad
            assert (p.grad - other).norm() < 1e-4 * other.norm(), name
        elif "lstm" in name:
            assert (p.grad - wanted[name].grad).norm() < 1e-4 * wanted[name].grad.norm(), name
        elif name.endswith("conv.weight"):
            # Of the weight norm: how long a row is and where it points are learned apart; the length is checked.
            row = p.flatten(1)
            along = (p.grad.flatten(1) * row).sum(1) / row.norm(dim=1)
            other = wanted[name[:-len("weight")] + "parametrizations.weight.original0"].grad.flatten()
            assert (along - other).norm() < 1e-4 * other.norm(), name


@torch.no_grad()
@pytest.mark.parametrize("sizes", CODECS.values(), ids=CODECS)
def test_codes_equal_transformers(sizes):
    plain, reference = models(sizes)
    for a, b in zip(plain.quantizer.layers, reference.quantizer.layers):
        a.codebook.embed.normal_(0, 0.05)
        b.codebook.embed.copy_(a.codebook.embed)
    audio = torch.randn(1, sizes["audio_channels"], 9 * HOP) * 0.3
    codes = quantize(plain, fastconv.encode(plain, audio))
    assert torch.equal(codes, reference.encode(audio).audio_codes[0])
    y = fastconv.decode(plain, dequantize(plain, codes))
    assert torch.allclose(y, reference.decode(codes[None], [None]).audio_values, atol=1e-5)


@torch.no_grad()
def test_decoder_equals_transformers():
    model = lm.build().eval()
    text, codes = torch.randint(3, 300, (2, 9)), torch.randint(0, 512, (2, CODEBOOKS, 30))
    mask, ids = torch.ones_like(text), lm.delay(codes)
    mine = lm.decoder_logits(model, ids, lm.text_states(model, text, mask), mask)
    theirs = model(input_ids=text, attention_mask=mask, decoder_input_ids=ids.reshape(2 * CODEBOOKS, -1)).logits
    assert torch.allclose(mine.reshape(theirs.shape), theirs, atol=1e-4)


@pytest.mark.parametrize("name", CODECS)
def test_a_codec_alone_is_written_and_comes_back(tmp_path, name):
    torch.manual_seed(0)
    model = codec.build(CODECS[name])
    torch.save(dict(sizes=name, model=model.state_dict()), tmp_path / "codec.pt")
    export.write_codec(tmp_path / "alone", tmp_path / "codec.pt")
    back = unfold.codec_of(tmp_path / "alone")
    assert unfold.sizes_of(back) == name
    state = unfold.codec_state(back, name)
    for key, value in model.state_dict().items():
        assert (state[key] - value).norm() <= 2e-3 * value.norm() + 1e-6, key


def test_the_codec_that_is_kept_keeps_a_tone():
    """By transformers, from its own folder."""
    folder = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "models", "continuo-band-codec")
    kept = unfold.codec_of(folder)
    assert unfold.sizes_of(kept) == "band"
    t = torch.arange(50 * HOP) / 32000
    tone = 0.1 * torch.sin(2 * torch.pi * 440 * t)[None, None]
    with torch.no_grad():
        codes = kept.encode(tone, bandwidth=1.8)
        assert codes.audio_codes.shape == (1, 1, 8, 50)
        heard = kept.decode(codes.audio_codes, codes.audio_scales).audio_values[0, 0]
    power = torch.fft.rfft(heard * torch.hann_window(len(t))).abs() ** 2
    assert power[870:891].sum() > 0.7 * power.sum()
    assert heard.square().mean() == pytest.approx(0.005, rel=0.3)


def learn(run, pool, **more):
    """A few steps of `codec.py` on noise; its checkpoint."""
    options = dict(run=str(run), pool=str(pool), minutes=0.02, device="cpu", threads=1, batch=1, frames=8, warm=60, following=0.3, commit=0.02,
                   lr=1e-3, muon_lr=4e-3, mag=0.6, over=1.0, wave=0.5, bf16=0, only_decoder=False, adversary=None, fool=0.3, alike=1.0)
    codec.train(argparse.Namespace(**dict(options, **more)))
    return torch.load(run / "codec.pt", map_location="cpu", weights_only=False)


def test_a_codec_whose_decoder_alone_goes_on_keeps_its_codes(tmp_path):
    noise = np.random.default_rng(0).integers(-9000, 9000, (2, 20 * HOP), dtype=np.int16)
    np.save(tmp_path / "audio.npy", noise)
    (tmp_path / "info.json").write_text("[]")
    with pytest.raises(SystemExit, match="no codebooks yet"):
        learn(tmp_path, tmp_path, only_decoder=True)
    torch.manual_seed(0)
    model = codec.build()
    books = Quantizer(model, "cpu")
    books.books, books.ready = [torch.randn(book.shape) for book in books.books], True
    adversary = Adversary()
    judging = torch.optim.AdamW(adversary.parameters())
    codec.save(str(tmp_path / "codec.pt"), model, [], books, (adversary, judging), step=500, spent=60.0, only_decoder=False)
    before = torch.load(tmp_path / "codec.pt", map_location="cpu", weights_only=False)
    after = learn(tmp_path, tmp_path, only_decoder=True, adversary=0.0)
    assert after["step"] > before["step"] and after["spent"] < 60
    for name, value in before["model"].items():
        assert torch.equal(after["model"][name], value) != (name.startswith("decoder.") and value.is_floating_point()), name
    # One that was taken out of a checkpoint folder has nothing but its model.
    os.makedirs(tmp_path / "kept")
    torch.save(dict(sizes=before["sizes"], model=before["model"]), tmp_path / "kept" / "codec.pt")
    kept = learn(tmp_path / "kept", tmp_path, only_decoder=True, adversary=0.0)["model"]
    for name, value in before["model"].items():
        assert name.endswith(("embed_avg", "cluster_size")) or torch.equal(kept[name], value) != name.startswith("decoder."), name
    # Going on with the whole codec would change what was encoded.
    assert learn(tmp_path, tmp_path)["step"] == after["step"]


def test_codes_in_effect_are_those_that_are_used():
    assert in_effect(torch.full((512,), 3.0)) == pytest.approx(512, rel=1e-3)
    assert in_effect(torch.tensor([5.0, 5.0, 0.0, 0.0])) == pytest.approx(2, rel=1e-3)


def test_an_adversary_tells_noise_of_the_same_colour_from_a_tone():
    """Which a distance of coarse spectra does not."""
    torch.manual_seed(0)
    t = torch.arange(6400) / 32000
    draw = lambda: (torch.sin(2 * torch.pi * (400 + 100 * torch.rand(4, 1)) * t), 0.7 * torch.randn(4, 6400))
    adversary = Adversary(width=4)
    opt = torch.optim.AdamW(adversary.parameters(), 3e-3)
    told = lambda: sum(told_apart(judge, *pair)[0].item() for judge in adversary.judges for pair in [draw()])
    first = told()
    for _ in range(75):
        opt.zero_grad()
        told_apart(adversary.draw(), *draw())[0].backward()
        opt.step()
    assert told() < 0.5 * first
    real, made = draw()
    made.requires_grad_()
    for judge in adversary.judges:
        _, wanted = told_apart(judge, real, made)
        assert float(taken_for_real(judge, real, wanted)[1].detach()) == 0
        fooled, alike = taken_for_real(judge, made, wanted)
        assert float(alike.detach()) > 0
        (fooled + alike).backward()
    assert made.grad.abs().sum() > 0


def test_the_loss_of_a_codec_hears_a_note_that_is_a_semitone_off():
    """At 110 Hz, where the bands of the mel scales are wider than that."""
    t = torch.arange(32000) / 32000
    tone = lambda semitones: 0.3 * torch.sin(2 * torch.pi * 110 * 2 ** (semitones / 12) * t)[None]
    loss_of = SpectralLoss()
    loudest = lambda semitones, size: int(loss_of.bands(tone(semitones), size)[0].mean(1).argmax())
    assert loudest(1, 2048) == loudest(0, 2048)
    size, per_octave, lowest, _, _ = PITCH_SCALES[0]
    assert loudest(1, size) == loudest(0, size) + per_octave // 12
    assert abs(lowest * 2 ** (loudest(0, size) / per_octave) - 110) < 2


def test_a_note_that_is_not_steady_is_nearer_than_none():
    """A codec of 4,550 steps left high notes out: with a plain mean of logarithms a note whose phase jumps at every frame cost more
    than silence does."""
    torch.manual_seed(0)
    t = torch.arange(32 * HOP) / 32000
    hiss = 0.003 * torch.randn(1, len(t))
    jumps = (2 * torch.pi * torch.rand(32)).repeat_interleave(HOP)
    loss_of = SpectralLoss()
    for hz in (440, 1000, 2000, 3000):
        note = lambda phase: hiss + 0.1 * torch.sin(2 * torch.pi * hz * t + phase)
        log, magnitude, _ = (float(none / some) for none, some in zip(loss_of(hiss, note(0)), loss_of(note(jumps), note(0))))
        assert log > 1.25 and magnitude > 1.1, (hz, log, magnitude)
        assert float(loss_of(note(0), note(0))[0]) == 0


def test_noise_between_notes_is_too_loud_and_a_gap_is_not():
    """What the decoder of a codec leaves between partials and notes costs where all bands count alike, and only there."""
    torch.manual_seed(0)
    t = torch.arange(32 * HOP) / 32000
    note = 0.1 * torch.sin(2 * torch.pi * 440 * t)[None] * (t < 0.5)
    noise = 0.005 * torch.randn(1, len(t))
    loss_of = SpectralLoss()
    (log, _, over), (quieter, _, under) = loss_of(note + noise, note), loss_of(0.5 * note, note)
    assert over > 0.75 * log and over > 0.5
    assert under < 1e-6 and quieter > 0


def test_delay_is_undone():
    codes = torch.randint(0, 512, (3, CODEBOOKS, 17))
    assert torch.equal(lm.undelay(lm.delay(codes)), codes)


def test_levels_wait_as_in_transformers():
    codes = torch.randint(0, 512, (1, CODEBOOKS, 17))
    decoder = lm.build().decoder
    start = torch.full((CODEBOOKS, 1), lm.PAD)
    _, wanted = decoder.build_delay_pattern_mask(start, lm.PAD, max_length=17 + CODEBOOKS)
    mine = lm.delay(codes)[0, :, :wanted.shape[1]]
    # Where it wants the pad, and nowhere else among what it says, there is one.
    assert torch.equal((wanted == lm.PAD), (mine == lm.PAD))


def test_the_kernel_of_a_gpu_attends_as_plain_products_do():
    q, k, v = (torch.randn(2, 3, 10, 8) for _ in range(3))
    causal = torch.full((10, 10), -1e4).triu(1)[None]
    words = torch.zeros(2, 10)
    words[1, 6:] = -1e4
    words = words[:, None].repeat(1, 3, 1).flatten(0, 1)[:, None]
    for bias in (causal, words):
        assert torch.allclose(lm.fused(q, k, v, bias), lm.attend(q, k, v, bias), atol=1e-5)


@pytest.mark.parametrize("columns", [5, 128, 300])
def test_gradients_of_attention_are_those_of_plain_products(columns):
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, columns, 8, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    plain = torch.nn.functional.scaled_dot_product_attention(*inputs, is_causal=True)
    mine = kernels.causal(*inputs)
    by = torch.randn_like(plain)
    want, got = (torch.autograd.grad((out * by).sum(), inputs) for out in (plain, mine))
    assert torch.allclose(plain, mine, atol=1e-9) and all(torch.allclose(a, b, atol=1e-9) for a, b in zip(want, got))


def test_gradients_of_likelihoods_are_those_of_cross_entropy():
    torch.manual_seed(0)
    x, heads = torch.randn(2, 7, 24, requires_grad=True), [torch.nn.Linear(24, 512, bias=False) for _ in range(3)]
    ids = torch.randint(0, 512, (2, 3, 7))
    ids[0, 1, 4:], by = lm.PAD, torch.rand(2, 3, 7)
    logits = torch.stack([head(x) for head in heads], 1)
    plain = torch.nn.functional.cross_entropy(logits.movedim(3, 1), ids, ignore_index=lm.PAD, reduction="none")
    mine = kernels.nats(x, heads, ids, lm.PAD)
    leaves = [x, *(head.weight for head in heads)]
    want, got = (torch.autograd.grad((out * by).sum(), leaves) for out in (plain, mine))
    assert torch.allclose(plain, mine, atol=1e-5) and all(torch.allclose(a, b, atol=1e-5) for a, b in zip(want, got))


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


def test_an_adversary_hears_what_is_quiet_and_high():
    torch.manual_seed(0)
    t = torch.arange(6400) / 32000
    bow = lambda: 1e-3 * torch.randn(4, 6400)
    draw = lambda breath: 0.5 * torch.sin(2 * torch.pi * (150 + 100 * torch.rand(4, 1)) * t) + breath
    judge = Adversary(width=4).judges[2]
    opt = torch.optim.AdamW(judge.parameters(), 3e-3)
    told = lambda: told_apart(judge, draw(bow()), draw(0.0))[0]
    for _ in range(40):
        opt.zero_grad()
        told().backward()
        opt.step()
    assert float(told().detach()) < 1.0


def test_an_asked_tempo_means_the_nearest_one_of_the_grid():
    rng = np.random.default_rng(0)
    for half in HALF_FRAMES:
        for _ in range(50):
            asked = asked_bpm(rng, half)
            assert abs(asked - bpm_of(half)) <= 0.5 + min(abs(asked - bpm_of(h)) for h in HALF_FRAMES)


@torch.no_grad()
def test_first_heads_start_by_looking_back():
    torch.manual_seed(0)
    model = lm.build().eval()
    start.start(model)
    dec = model.decoder.model.decoder
    ids = torch.randint(0, 512, (1, CODEBOOKS, 60))
    x = sum(dec.embed_tokens[k](ids[:, k]) for k in range(CODEBOOKS)) + lm.positions(60, dec.config.hidden_size, "cpu")
    attention, heads = dec.layers[0].self_attn, dec.config.num_attention_heads
    h = dec.layers[0].self_attn_layer_norm(x)
    scores = lm._heads(attention.q_proj(h), heads) @ lm._heads(attention.k_proj(h), heads).mT
    for head, back in enumerate(start.LOOK_BACK):
        at = torch.arange(20, 60)
        best = scores[0, head].masked_fill(torch.ones(60, 60, dtype=torch.bool).triu(1), -1e9)[20:].argmax(-1)
        assert ((at - best - back).abs() <= 1).float().mean() > 0.7


@torch.no_grad()
def test_a_decoder_starts_by_saying_what_came_after_the_same_before():
    torch.manual_seed(0)
    model = lm.build().eval()
    start.start(model)
    once = torch.randint(0, 512, (2, CODEBOOKS, 120))
    ids = lm.delay(torch.cat([once, once], 2))
    nats = lm.nats(model, ids[:, :, :-1], ids, torch.zeros(2, 1, lm.DECODER["hidden_size"]), torch.zeros(2, 1))
    first, again = float(nats[:, :, 20:110].mean()), float(nats[:, :, 140:230].mean())
    assert first < np.log(512) + 0.3 and again < first - 0.4, (first, again)


def pieces(count=24, frames=400):
    """Piece i has the code i everywhere."""
    codes = [np.full((CODEBOOKS, frames), i, np.int16) for i in range(count)]
    return Pieces(toy_words(), codes, [make_info(i) for i in range(count)])


def make_info(i):
    style = NAMES[i % 3]
    half = (20, 24)[i // 3 % 2]
    return dict(style=style, half=half, captions=[f"{style} {int(bpm_of(half))} bpm", style])


def test_a_splice_ends_in_the_asked_piece_and_begins_with_another(monkeypatch):
    monkeypatch.setattr(windows, "OVERDUE", 0.0)
    some, rng = pieces(), np.random.default_rng(1)
    codes, text, first = some.batch(rng, 64, MIDDLE, 1.0)
    assert (first >= PREFIX).all() and (first < longest_prefix(MIDDLE)).all()
    for row, at, ids in zip(codes.numpy(), first.tolist(), text.tolist()):
        asked = row[0, at]
        assert (row[:, at:] == asked).all() and (row[:, :at] == row[0, 0]).all()
        assert [w for w in ids if w] in [w for w, _ in some.words[asked]]
    assert (codes[:, 0, 0] != codes[:, 0, -1]).float().mean() > 0.9


def test_only_what_comes_after_a_splice_is_learned():
    torch.manual_seed(0)
    model, args = lm.build(), argparse.Namespace(noise=0.0, bf16=0)
    codes, text = torch.randint(0, 512, (1, CODEBOOKS, 40)), torch.randint(3, 300, (1, 5))
    loss = lambda c, first: train_lm.loss_on(model, (c, text, torch.tensor([first])), torch.device("cpu"), args, None)
    plain, spliced = loss(codes, 0), loss(codes, 30)
    logits = lm.decoder_logits(model, lm.delay(codes)[:, :, :-1], lm.text_states(model, text, torch.ones_like(text)), torch.ones_like(text))
    after = [torch.nn.functional.cross_entropy(logits[0, k, 30 + k:40 + k], codes[0, k, 30:]) for k in range(CODEBOOKS)]
    assert torch.allclose(spliced, torch.stack(after), atol=1e-4) and not torch.allclose(plain, spliced, atol=1e-4)


def test_a_section_is_called_by_its_own_words_while_it_lasts():
    tok = toy_words()
    part = lambda start, end, word: dict(start=start, end=end, captions=[word])
    info = dict(make_info(0), captions=["techno"], sections=[part(0, 400, "intro techno"), part(400, 900, "drop techno")])
    some, rng = Pieces(tok, [np.zeros((CODEBOOKS, 900), np.int16)], [info]), np.random.default_rng(0)
    ids = lambda text: tok.encode(text).ids
    said = lambda at: [some.caption(rng, 0, False, at) for _ in range(60)]
    assert ids("intro techno") in said(0) and ids("drop techno") in said(500) and ids("techno") in said(0)
    assert ids("intro techno") not in said(390) and ids("drop techno") not in said(0)


@torch.no_grad()
def test_a_codec_of_one_side_comes_to_hear_the_middle_and_to_say_two():
    one, two = (codec.build(dict(CODEC, audio_channels=sides)).eval() for sides in (1, 2))
    two.load_state_dict(codec.fitted(one.state_dict(), 2))
    sides = torch.randn(1, 2, 8 * HOP)
    latents = fastconv.encode(two, sides)
    assert torch.allclose(latents, fastconv.encode(one, sides.mean(1)), atol=1e-5)
    said = fastconv.decode(two, latents)
    assert said.shape == sides.shape and torch.equal(said[:, 0], said[:, 1])
    assert torch.allclose(said[:, :1], fastconv.decode(one, latents), atol=1e-5)


def test_sound_is_judged_by_its_middle_and_by_one_side_of_each_piece():
    sides = torch.tensor([[[1.0, 2.0], [3.0, 6.0]], [[5.0, 5.0], [7.0, 9.0]]])
    assert codec.views(sides, torch.tensor([1, 0])).tolist() == [[2, 4], [6, 7], [3, 6], [5, 5]]
    assert codec.views(sides[:, :1], torch.tensor([0, 0])).tolist() == [[1, 2], [5, 5]]


def test_of_a_codec_and_of_codes_with_more_levels_the_first_are_kept(tmp_path):
    state = codec.build(dict(CODEC, target_bandwidths=[1.8])).state_dict()
    assert codec.fitted(state).keys() == codec.build().state_dict().keys() != state.keys()
    codes = np.arange(2 * 8 * 5).reshape(2, 8, 5)
    np.savez(tmp_path / "codes-0000.npz", codes=codes, info=json.dumps([{}, {}]))
    kept, _ = encode.load_codes([tmp_path / "codes-0000.npz"])
    assert np.array_equal(np.stack(kept), codes[:, :CODEBOOKS])


def test_a_full_window_may_begin_with_all_that_a_stream_keeps():
    assert longest_prefix(WINDOW) == KEEP


def test_an_overdue_chord_is_held_past_its_bar_and_ends_at_a_bar_line():
    """Frame i of a piece has the code i, so a held sound is a short cycle of old frames."""
    rng, bar = np.random.default_rng(2), 40
    codes = [np.tile(np.arange(1200, dtype=np.int16), (CODEBOOKS, 1)) for _ in range(24)]
    some = Pieces(toy_words(), codes, [dict(make_info(i), half=bar // 2) for i in range(24)])
    for _ in range(50):
        made = some.overdue(rng, 0, 300, WINDOW)
        assert made.shape == (CODEBOOKS, WINDOW)
        after, held = made[0, 300:], made[0, 300 - bar:300]
        assert (np.diff(after) == 1).all() and after[0] % bar == 0
        assert after[0] == 0 or (len(np.unique(held)) <= 8 and held[-1] == after[0] - 1)


def lively(i, rng, frames=900):
    """Codes like those of a piece of style i: bars that mostly repeat, and chords that change."""
    bar = rng.integers(0, 60, (CODEBOOKS, 40)) + 60 * (i % 3)
    codes = np.stack([np.roll(bar, 7 * (n // 4), 1) for n in range(frames // 40 + 1)], 1).reshape(CODEBOOKS, -1)[:, :frames]
    noise = rng.random(codes.shape) < 0.3
    return np.where(noise, rng.integers(0, 60, codes.shape) + 60 * (i % 3), codes).astype(np.int16)


def judged(count=24):
    rng = np.random.default_rng(4)
    codes = [lively(i, rng) for i in range(count)]
    some = Pieces(toy_words(), codes, [dict(make_info(i), half=20) for i in range(count)])
    return some, rollout.Ear(some), rng


def test_a_section_that_sounds_like_its_pieces_is_good():
    # Of a few pieces nobody knows what is usual.
    some, ear, rng = judged(240)
    made = [rollout.Section(lively(i, rng)[:, :WINDOW], i, some.infos[i], ear) for i in range(240)]
    assert np.mean([s.good for s in made]) > 0.6 and all(s.belief > 0.6 for s in made)


def test_a_section_of_another_style_is_not_good():
    some, ear, rng = judged()
    assert not rollout.Section(lively(1, rng)[:, :WINDOW], 0, some.infos[0], ear).good


def test_a_section_that_stands_still_for_four_seconds_is_never_good():
    some, ear, rng = judged()
    for i in range(24):
        codes = lively(i, rng)[:, :WINDOW].copy()
        at = int(rng.integers(0, WINDOW - 110))
        codes[:, at:at + 110] = codes[:, at:at + 1]
        section = rollout.Section(codes, i, some.infos[i], ear)
        assert section.still and not section.good


@torch.no_grad()
def test_a_widened_decoder_says_what_the_smaller_one_said(monkeypatch):
    torch.manual_seed(0)
    # Position waves are not quite as fast as they were: what attends by them sharply has to be learned again.
    monkeypatch.setattr(start, "SHARP", 2.5)
    monkeypatch.setattr(start, "LIKE", 0.5)
    new = lm.build().eval()
    monkeypatch.setattr(lm, "DECODER", dict(lm.DECODER, hidden_size=192, ffn_dim=768))
    old = lm.build().eval()
    start.start(old)
    some = pieces()
    for i, codes in enumerate(some.codes):
        codes[:] = lively(i, np.random.default_rng(i), codes.shape[1])
    batch = some.batch(np.random.default_rng(0), 2, 120)
    widen.widen(old, new, batch)
    mask, ids = (batch[1] > 0).long(), lm.delay(batch[0])[:, :, :-1]
    want, got = (lm.decoder_logits(m, ids, lm.text_states(m, batch[1], mask), mask) for m in (old, new))
    assert torch.corrcoef(torch.stack([want.flatten(), got.flatten()]))[0, 1] > 0.97


def test_training_goes_on_from_a_checkpoint_folder(tmp_path):
    torch.manual_seed(0)
    model, other = lm.build(), lm.build()
    model.save_pretrained(tmp_path)
    start.start_from(other, tmp_path)
    mine = dict(model.named_parameters())
    assert all(torch.equal(p, mine[n]) for n, p in other.named_parameters() if not n.startswith("audio_encoder."))


@torch.no_grad()
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_what_is_known_is_read_at_once_as_it_is_one_by_one(guidance):
    torch.manual_seed(0)
    model = lm.build().eval()
    start.start(model)
    generator = sample.Generator.of(model, toy_words())
    ctx = torch.randn(2 if guidance == 1 else 4, 3, lm.DECODER["hidden_size"])
    bias = torch.zeros(len(ctx), 1, 1, 3)
    draw = lambda logits: generator.pick(logits, 2, guidance, 1.0, 1, None)
    made = generator.window(torch.zeros(2, CODEBOOKS, 0, dtype=torch.long), 30, ctx, bias, draw)
    assert torch.equal(made, generator.window(made[:, :, :20], 30, ctx, bias, draw))
    other = made[:, :, :20].roll(1, 0)
    assert torch.equal(other, generator.window(other, 30, ctx, bias, draw)[:, :, :20])


def test_a_rendered_pool_is_encoded_piece_by_piece(tmp_path):
    """Each side of a piece is a row."""
    audio = np.repeat(np.arange(8, dtype=np.int16)[:, None], 5 * HOP, 1)
    np.save(tmp_path / "audio.npy", audio)
    (tmp_path / "info.json").write_text(json.dumps([dict(piece=i // SIDES) for i in range(8)]))
    found = list(encode.pooled(argparse.Namespace(pool=str(tmp_path), shard=2), 1))
    assert [info["piece"] for _, info in found] == [2, 3]
    assert np.array_equal(np.rint(found[1][0][:, 0] * 32767), 3 * SIDES + np.arange(SIDES)) and found[0][0].shape == (SIDES, 5 * HOP)


def test_shards_of_a_pool_follow_those_that_are_there(tmp_path, monkeypatch):
    rows = np.arange(8 * SIDES)
    np.save(tmp_path / "audio.npy", np.repeat(rows[:, None].astype(np.int16), 5 * HOP, 1))
    (tmp_path / "info.json").write_text(json.dumps([dict(piece=int(i // SIDES), half=1) for i in rows]))
    monkeypatch.setattr(encode, "load_codec", lambda *_: None)
    monkeypatch.setattr(encode, "encode_audio", lambda _, sound: torch.round(32767 * sound.mean(1)[:, None, :20]).repeat(1, 8, 1))
    encode.main(argparse.Namespace(threads=1, out=str(tmp_path), codec="", device="cpu", pool=str(tmp_path), shard=4, first_shard=3, workers=1))
    codes, infos = encode.load_codes([tmp_path / "codes-0003.npz", tmp_path / "codes-0004.npz"])
    assert [info["piece"] for info in infos] == list(range(8))
    assert all(abs(c[0, 0] - rows[i * SIDES:(i + 1) * SIDES].mean()) < 1 for i, c in enumerate(codes))      # of both sides


def test_a_text_that_nothing_was_learned_of_says_nothing(tmp_path):
    torch.manual_seed(0)
    model, tok = lm.build(), toy_words()
    torch.save({k: v for k, v in model.state_dict().items() if k.startswith(("text_encoder", "enc_to_dec_proj"))}, tmp_path / "text.pt")
    wordpieces.write(tmp_path / "words", tok, torch.randn(TEXT["vocab_size"], TEXT["d_model"]).numpy())
    start.start_text(model, tmp_path / "text.pt", tmp_path / "words")
    ids, text = lm.delay(torch.randint(0, 512, (2, CODEBOOKS, 9))), torch.randint(3, 9, (2, 4))
    mask = torch.ones_like(text)
    nats = lambda keep: lm.nats(model, ids[:, :, :-1], ids, lm.text_states(model, text, mask, torch.tensor(keep)), mask)
    assert torch.equal(nats([1, 1]), nats([0, 0]))
    nats([1, 1]).sum().backward()   # and yet it can learn to
    assert model.decoder.model.decoder.layers[0].encoder_attn.v_proj.weight.grad.abs().sum() > 0


def test_a_resumed_training_goes_on_as_if_never_stopped(tmp_path):
    """Six steps at once, and three and three, give the same weights."""
    tok = toy_words()
    torch.manual_seed(0)
    text = {k: v for k, v in lm.build().state_dict().items() if k.startswith(("text_encoder", "enc_to_dec_proj"))}
    torch.save(text, tmp_path / "text.pt")
    wordpieces.write(tmp_path / "words", tok, torch.zeros(TEXT["vocab_size"], TEXT["d_model"]).numpy())
    some = Pieces(tok, [lively(i, np.random.default_rng(i)) for i in range(24)], [make_info(i) for i in range(24)])
    device, workers = torch.device("cpu"), ThreadPoolExecutor(1)

    def go(folder, times):
        for steps in times:
            args = argparse.Namespace(run=str(folder), init=None, text=str(tmp_path / "text.pt"), words=str(tmp_path / "words"),
                                      lr=1e-3, noise=0.1, bf16=0, threads=1, batch=1)
            os.makedirs(folder, exist_ok=True)
            run = train_lm.Run(args, device)
            for _ in range(steps):
                batch = tuple(b[:1] for b in some.batch(run.rng, 1, START))
                train_lm.gradients(run.model, run.params, batch, device, args, run.rng, workers, contrast.Other(tok))
                run.update(run.rate(1e6 - run.columns, 1e5), workers)
                run.columns += START
            run.save()
        return run

    one, two = go(tmp_path / "one", [6]), go(tmp_path / "two", [3, 3])
    assert one.step == two.step == 6 and one.columns == two.columns
    assert all(torch.equal(a, b) for a, b in zip(one.params + one.average, two.params + two.average))


def test_the_learning_rate_depends_on_columns_and_falls_at_the_end_only():
    run = train_lm.Run.__new__(train_lm.Run)
    run.step, shares = 10000, []
    for run.columns in (1e6, 40e6, 55e6, 60e6):
        shares.append(run.rate(60e6 - run.columns, 10e6))
    assert shares == [1, 1, 0.5, 0]


def test_music_begins_at_bar_lines_anywhere():
    """Frame i of a piece has the code i."""
    codes, rng = [np.tile(np.arange(480, dtype=np.int16), (CODEBOOKS, 1)) for _ in range(24)], np.random.default_rng(3)
    some = Pieces(toy_words(), codes, [dict(make_info(i), half=20) for i in range(24)])
    first = some.batch(rng, 200, START)[0][:, 0, 0].numpy()
    assert (first % 40 == 0).all() and len(np.unique(first)) > 8 and 0.05 < (first == 0).mean() < 0.5
    assert (some.batch(rng, 200, MIDDLE)[0][:, 0, 0].numpy() % 40 == 0).mean() < 0.8


def test_an_encoder_gains_nothing_by_saying_all_more_quietly_or_nearly_alike():
    torch.manual_seed(0)
    z = torch.randn(64, 24, CODEC["hidden_size"])
    said = []
    for loud, level in ((1.0, 0.0), (0.01, 0.0), (1.0, 5.0)):
        quantizer = Quantizer(codec.build(), "cpu")
        quantizer.buffer = [(z * loud + level).flatten(0, 1)]
        torch.manual_seed(1)
        quantizer.start()
        said.append(float(quantizer(z * loud + level, 0, 0)[1]))
    assert said[0] > 0.5
    assert max(said) < 1.05 * min(said), said
