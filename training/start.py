"""What a decoder begins with: heads that find what came after the same before.

Most of music comes again after some bars. A transformer finds it by two heads in turn, one that looks a column back and one in the next layer
that compares what that one saw with what sounds now ("induction heads", Olsson et al., 2022), and it takes millions of columns until chance
brings them together. Here they begin together: heads of the first layer look a few columns back and leave a sketch of what they see, heads of
the second look for the columns before which it was as it is now, and the last layer says what was there."""
import torch
from transformers import MusicgenForConditionalGeneration

import lm
import wordpieces
from config import CODEBOOK_SIZE, CODEBOOKS

LOOK_BACK = (1, 2, 3, 4, 6)     # columns that heads of the first layer look back
LOUD = 1.6          # spread of the sum of all codes in a dimension; position waves have 1
SHARP = 3.5         # gain of queries and keys of the heads that look back
LIKE = 1.5          # ... and of those that look for the same
SKETCHES = 3        # of the heads that look back, those that leave a sketch
LEFT = 1.4          # gain of what they leave
FINDERS = 2         # heads of the second layer that look for the same
FOUND = 2.0         # gain of what these found
SAID = 0.0375       # ... and of the last layer, times the root of the count of codebooks


class Rooms:
    """Dimensions of the residual stream: `fast` position waves by which columns are told apart, `slow` ones that hardly change in a
    window and so are free for what is found, and `codes` between them."""

    def __init__(self, width, heads):
        self.head, half = width // heads, width // 2
        wave = torch.arange(width) % half
        self.fast = torch.where(wave < self.head // 2)[0]
        self.slow = torch.where(wave >= half - self.head)[0]
        self.codes = torch.where((wave >= self.head // 2) & (wave < half - self.head))[0]


def orthonormal(count, width, dims, unseen=()):
    """Rows [count, width] of random directions in the dimensions `dims`, beside the one where all `unseen` are alike."""
    rows = torch.zeros(count, width)
    rows[:, dims] = torch.randn(count, len(dims))
    if len(unseen):
        rows[:, unseen] -= rows[:, unseen].mean(1, keepdim=True)
    rows[:, dims] = torch.linalg.qr(rows[:, dims].T)[0].T
    return rows


def look_back(attention, rooms, width):
    """Each head attends to the column `LOOK_BACK` behind, by the fast waves."""
    waves = rooms.fast[:rooms.head // 2]
    speed = lm.speeds(width, "cpu")[waves]
    for head, back in enumerate(LOOK_BACK):
        rows = head * rooms.head + waves
        for w, shift in ((attention.q_proj.weight, float(back)), (attention.k_proj.weight, 0.0)):
            cos, sin = SHARP * torch.cos(speed * shift), SHARP * torch.sin(speed * shift)
            w[head * rooms.head:(head + 1) * rooms.head] = 0
            w[rows, waves], w[rows, width // 2 + waves] = cos, sin
            w[rows + rooms.head // 2, width // 2 + waves], w[rows + rooms.head // 2, waves] = cos, -sin


def find_the_same(first, second, rooms, width):
    """Sketches of the columns before, by `first`, and heads of `second` that attend to where these are as they are now. Returns what
    these read of the codes there, and where they write it: [dimensions, width] each."""
    size = rooms.head
    rows = lambda head: slice(head * size, (head + 1) * size)
    now = orthonormal(size, width, rooms.codes)
    before = orthonormal(SKETCHES * size, width, torch.cat([rooms.fast, rooms.codes]))
    for head in range(SKETCHES):
        first.v_proj.weight[rows(head)] = now
        first.out_proj.weight[:, rows(head)] = LEFT * before[rows(head)].T
    seen = [now, *before.split(size)]
    third = size // 3
    mixed = lambda back: torch.cat([seen[back][:third], seen[back + 1][third:2 * third], seen[back + 2][2 * third:]])
    count = size - 1
    read = orthonormal(FINDERS * count, width, rooms.codes)
    # Cosines of the slow waves are 1 in a whole window: what is found is written beside them.
    write = orthonormal(FINDERS * count, width, rooms.slow, rooms.slow[rooms.slow < width // 2])
    # One compares the last column, closely; the other the last three.
    for head, (query, key) in enumerate(((seen[0], seen[1]), (mixed(0), mixed(1)))):
        second.q_proj.weight[rows(head)], second.k_proj.weight[rows(head)] = LIKE * query, LIKE * key
        second.v_proj.weight[rows(head)], second.out_proj.weight[:, rows(head)] = 0, 0
        of, at = slice(head * count, (head + 1) * count), slice(head * size, head * size + count)
        second.v_proj.weight[at], second.out_proj.weight[:, at] = read[of], FOUND * write[of].T
    return read, write


@torch.no_grad()
def start(model):
    """Weights of a decoder that has learned nothing, but to look for what was heard before."""
    decoder = model.decoder.model.decoder
    width = decoder.config.hidden_size
    rooms = Rooms(width, decoder.config.num_attention_heads)
    for embedding in decoder.embed_tokens:
        embedding.weight.zero_()
        embedding.weight[:, rooms.codes] = LOUD * CODEBOOKS ** -0.5 * torch.randn(len(embedding.weight), len(rooms.codes))
    for name, p in decoder.named_parameters():
        if ".layers." in name and p.dim() == 2:
            writes = "out_proj" in name or "fc2" in name
            torch.nn.init.normal_(p, std=(0.3 if writes else 1.0) * p.shape[1] ** -0.5)
            if writes:
                p[rooms.slow] = 0
    first, second = (layer.self_attn for layer in decoder.layers[:2])
    look_back(first, rooms, width)
    read, write = find_the_same(first, second, rooms, width)
    for embedding, head in zip(decoder.embed_tokens, model.decoder.lm_heads):
        head.weight.copy_(SAID * CODEBOOKS ** 0.5 * embedding.weight[:CODEBOOK_SIZE] @ read.T @ write)


@torch.no_grad()
def start_text(model, path, words):
    """Take the table of word pieces, the pre-trained text encoder, and paths from it into the decoder that say nothing
    yet: the first thing that they learn is what to say."""
    wordpieces.put_table(model, words)
    model.load_state_dict(torch.load(path, weights_only=True), strict=False)
    config = model.decoder.config
    rooms = Rooms(config.hidden_size, config.num_attention_heads)
    for name, p in model.decoder.named_parameters():
        if ".encoder_attn." in name and p.dim() == 2:
            torch.nn.init.normal_(p, std=p.shape[1] ** -0.5)
            if "v_proj" in name:
                p.zero_()
            elif "out_proj" in name:
                p[rooms.slow] = 0


def start_from(model, folder):
    """Take decoder and text encoder of a checkpoint folder, or what `widen.py` made of one."""
    if str(folder).endswith(".pt"):
        model.load_state_dict(torch.load(folder, weights_only=True), strict=False)
        return
    kept = MusicgenForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    size = lambda m: (m.config.decoder.num_hidden_layers, m.config.decoder.hidden_size)
    if size(kept) != size(model):
        raise SystemExit("the decoder in %s has %d layers of %d, config.py asks for %d of %d: widen it first (INIT=wide)"
                         % (folder, *size(kept), *size(model)))
    state = kept.state_dict()
    model.load_state_dict({k: v for k, v in state.items() if not k.startswith("audio_encoder.")}, strict=False)
