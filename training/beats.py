"""What a decoder begins with to keep time: heads that know where the beats of the asked tempo are.

A beat is where a wave of the tempo's length comes to its top, and the position waves of a decoder add up to any such wave: as a query
they are multiplied with a key that only the tempo has to say. Nobody finds that by chance. Of a decoder of 28.9 M columns the position
waves could not be read behind the first layer (5 % of their power, all else was what had been heard), so it guessed tempi. Here a head
of the first layer carries them past that (`start.py`), and two heads that read the text attend to a word of tempo on its beats, and on
its bar lines: where a window begins, a bar does."""
import torch

import lm
from band.words import STYLE_WORDS
from composer.theory import HALF_FRAMES, bpm_of
from config import CODEBOOK_SIZE, CODEBOOKS
from wordpieces import TEMPI

SAYINGS = ("{style}, {bpm} bpm", "{style} {bpm} bpm", "{bpm} bpm {style}", "{style} at {bpm} bpm")
EVERY = (0.5, 2.0)      # what the heads hear, in halves of a bar: a beat, a bar
COLUMNS = 150           # in which beats are placed
BLUR = 0.8              # columns around a beat
SHARP = 7.0             # gain of the queries
SAID = 4.0              # spread of what a head says on a beat, if it attends to nothing else


def solve(x, y):
    """The matrix [inputs, outputs] that makes y of x, by least squares that keep it small."""
    x, y = x.double(), y.double()
    gram = x.T @ x
    return torch.linalg.solve(gram + 1e-4 * gram.trace() * torch.eye(len(gram), dtype=gram.dtype), x.T @ y).float()


def beat_keys(every, speeds):
    """For each tempo [tempi, 2 x waves] the sum of position waves that is one on its beats."""
    at = torch.arange(COLUMNS, dtype=torch.float64)
    angle = at[:, None] * speeds.double()
    waves, keys = torch.cat([angle.cos(), angle.sin()], 1), []
    for half in HALF_FRAMES:
        beats = torch.arange(0, COLUMNS + half, half * every).floor()
        wanted = torch.exp(-0.5 * ((at[:, None] - beats) / BLUR) ** 2).sum(1)
        keys.append(solve(waves, (wanted - wanted.mean())[:, None])[:, 0])
    keys = torch.stack(keys)
    return keys / (waves.float() @ keys.T).max(0).values.mean()


@torch.no_grad()
def word_states(model, tok):
    """States [words, hidden] of what captions with a tempo say, and the tempo of each, -1 for other words."""
    states, tempo = [], []
    styles = [word for words in STYLE_WORDS.values() for word in words]
    named = {tok.token_to_id(f"\u2581{bpm}"): bpm for bpm in TEMPI}
    for i, bpm in enumerate(list(TEMPI) * len(SAYINGS)):
        ids = tok.encode(SAYINGS[i // len(TEMPI)].format(style=styles[i % len(styles)], bpm=bpm)).ids
        text = torch.tensor([ids])
        states.append(lm.text_states(model, text, torch.ones_like(text))[0])
        tempo += [meant(named[word]) if word in named else -1 for word in ids]
    return torch.cat(states), torch.tensor(tempo)


def meant(bpm):
    return min(range(len(HALF_FRAMES)), key=lambda i: abs(bpm_of(HALF_FRAMES[i]) - bpm))


@torch.no_grad()
def keep_time(model, tok):
    """Set the first heads of the first layer that read the text."""
    decoder = model.decoder.model.decoder
    width, count = decoder.config.hidden_size, decoder.config.num_attention_heads
    size, attention = width // count, decoder.layers[0].encoder_attn
    fast = torch.arange(size // 2)
    ids = lm.delay(torch.randint(CODEBOOK_SIZE, (16, CODEBOOKS, COLUMNS)))
    text = torch.ones(len(ids), 1, dtype=torch.long)
    seen = []
    hook = decoder.layers[0].encoder_attn_layer_norm.register_forward_hook(lambda *call: seen.append(call[2]))
    lm.decoder_states(model, ids, lm.text_states(model, text, text), text)
    hook.remove()
    waves = lm.positions(ids.shape[2], width, "cpu")[:, torch.cat([fast, width // 2 + fast])]
    query = solve(seen[0].flatten(0, 1), waves.repeat(len(ids), 1))
    states, tempo = word_states(model, tok)
    is_tempo = (tempo >= 0).float()[:, None]
    for head, every in enumerate(EVERY):
        rows = slice(head * size, (head + 1) * size)
        keys = beat_keys(every, lm.speeds(width, "cpu")[fast])[tempo.clamp(min=0)] * is_tempo
        attention.q_proj.weight[rows] = SHARP * size ** 0.5 * query.T
        attention.k_proj.weight[rows] = solve(states, keys).T
        attention.v_proj.weight[rows], attention.out_proj.weight[:, rows] = 0, 0
        attention.v_proj.weight[head * size] = solve(states, is_tempo)[:, 0]
        attention.out_proj.weight[:, head * size] = SAID * torch.randn(width)
