"""What a decoder begins with to keep time: heads that know where the beats of the asked tempo are.

A beat is where a wave of the tempo's length comes to its top, and the position waves of a decoder add up to any such wave: as a query
they are multiplied with a key that only the tempo has to say. Nobody finds that by chance. Of a decoder of 28.9 M columns the position
waves could not be read behind the first layer (5 % of their power, all else was what had been heard), so it guessed tempi. Here a head
of the first layer carries them past that (`start.py`), two heads that read the text attend to a word of tempo on its beats, and on
its bar lines (where a window begins, a bar does), and a third one always attends to it and says which tempo it is.

And the text has to be heard at all. Its states were nearly the same for all words (cosine 0.85) and a fifth as loud as what else is read, so
what they said was a thirtieth of the residual stream, and no head could be missed. They begin with no common part and as loud."""
import torch

import lm
from band.words import STYLE_WORDS
from composer.theory import HALF_FRAMES, bpm_of
from config import CODEBOOK_SIZE, CODEBOOKS
from start import CLOCK, LOOK_BACK
from wordpieces import TEMPI

SAYINGS = ("{style}, {bpm} bpm", "{style} {bpm} bpm", "{bpm} bpm {style}", "{style} at {bpm} bpm")
EVERY = (0.5, 2.0)      # what the heads hear, in halves of a bar: a beat, a bar
COLUMNS = 150           # in which beats are placed
BLUR = 0.8              # columns around a beat
SHARP = 7.0             # gain of the queries
SAID = 3.0              # spread of what a head says on a beat, if it attends to nothing else
NAMED = 1.0             # ... of what is said of the tempo
ALWAYS = 32.0           # score of the tempo for the head that always attends to it


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


def to_unit_spread(projection, states):
    """Changes the projection that made `states` [words, hidden] so that their mean is zero and their spread is one."""
    mean = states.mean(0)
    spread = (states - mean).square().mean().sqrt().clamp(min=1e-6)
    projection.weight /= spread
    projection.bias.copy_((projection.bias - mean) / spread)
    return (states - mean) / spread


def held(model):
    """Weights that stay as they begin, and where in them: who attends to beats, and who carries the waves. Nobody listens to beats at
    first, so the shortest way down is to turn them off: after 3.7 M columns nothing was left of them. With queries and keys held, what
    they said was made quiet instead, and the states that they read drifted away."""
    layer = model.decoder.model.decoder.layers[0]
    reads = lambda attention, rows: [(p.weight, rows) for p in (attention.q_proj, attention.k_proj, attention.v_proj)]
    writes = lambda attention, rows: [(attention.out_proj.weight, (slice(None), rows))]
    return [part for attention, rows in heads(layer) for part in (*reads(attention, rows), *writes(attention, rows))]


def heads(layer):
    """Attentions of the first layer, and the rows of their heads that keep time."""
    size = layer.self_attn.q_proj.weight.shape[0] // len(LOOK_BACK)
    return (layer.encoder_attn, slice((len(EVERY) + 1) * size)), (layer.self_attn, slice(CLOCK * size, (CLOCK + 1) * size))


@torch.no_grad()
def room_of(model):
    """Directions [width, some] in which these heads write."""
    written = torch.cat([attention.out_proj.weight[:, rows] for attention, rows in heads(model.decoder.model.decoder.layers[0])], 1)
    return torch.linalg.qr(written[:, written.norm(dim=0) > 1e-3])[0]


@torch.no_grad()
def clear(model, room):
    """Nothing else is written there before it is read. An update by Muon is as large in directions that matter to nobody: they fill
    up, and the waves drown in them."""
    decoder = model.decoder.model.decoder
    for embedding in decoder.embed_tokens:
        embedding.weight -= embedding.weight @ room @ room.T
    for attention, rows in heads(decoder.layers[0]):
        kept = attention.out_proj.weight[:, rows].clone()
        attention.out_proj.weight -= room @ (room.T @ attention.out_proj.weight)
        attention.out_proj.weight[:, rows] = kept


@torch.no_grad()
def keep_time(model, tok):
    """Set the heads of the first layer that are to read the text."""
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
    states = to_unit_spread(model.enc_to_dec_proj, states)
    is_tempo = (tempo >= 0).float()[:, None]
    names = torch.nn.functional.one_hot(tempo.clamp(min=0), len(HALF_FRAMES)) * is_tempo
    carried = decoder.layers[0].self_attn.out_proj.weight[:, CLOCK * size:(CLOCK + 1) * size]
    free = torch.linalg.qr(torch.cat([carried, torch.randn(width, len(EVERY) + len(HALF_FRAMES))], 1))[0][:, size:] * width ** 0.5
    for head, every in enumerate((*EVERY, None)):
        rows, first = slice(head * size, (head + 1) * size), head * size
        for p in (attention.q_proj, attention.k_proj, attention.v_proj):
            p.weight[rows] = 0
        attention.out_proj.weight[:, rows] = 0
        if every:
            keys = beat_keys(every, lm.speeds(width, "cpu")[fast])[tempo.clamp(min=0)] * is_tempo
            attention.q_proj.weight[rows] = SHARP * size ** 0.5 * query.T
            attention.k_proj.weight[rows] = solve(states, keys).T
            attention.v_proj.weight[first] = solve(states, is_tempo)[:, 0]
            attention.out_proj.weight[:, first] = SAID * free[:, head]
        else:
            seen_all = seen[0].flatten(0, 1)
            attention.q_proj.weight[first] = ALWAYS * size ** 0.5 * solve(seen_all, torch.ones(len(seen_all), 1))[:, 0]
            attention.k_proj.weight[first] = solve(states, is_tempo)[:, 0]
            attention.v_proj.weight[first:first + len(HALF_FRAMES)] = solve(states, names).T
            attention.out_proj.weight[:, first:first + len(HALF_FRAMES)] = NAMED * free[:, len(EVERY):]
