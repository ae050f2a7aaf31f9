"""The MusicGen decoder with its T5 text encoder, computed for training.

Parameters live in the transformers modules, so that saving gives the exact layout;
the forward pass here is the same mathematics with less work.
"""
import math

import torch
import torch.nn.functional as F
from transformers import EncodecConfig, MusicgenConfig, MusicgenDecoderConfig, MusicgenForConditionalGeneration, T5Config

import kernels
from config import CODEBOOK_SIZE, CODEBOOKS, CODEC, DECODER, TEXT

PAD = CODEBOOK_SIZE


def build():
    config = MusicgenConfig(text_encoder=T5Config(**TEXT).to_dict(), audio_encoder=EncodecConfig(**CODEC).to_dict(),
                            decoder=MusicgenDecoderConfig(**DECODER).to_dict())
    return MusicgenForConditionalGeneration(config)


def speeds(width, device):
    """Radians per column of the position waves, fastest first."""
    half = width // 2
    return torch.exp(torch.arange(half, dtype=torch.float32, device=device) * -(math.log(10000) / (half - 1)))


def positions(count, width, device, start=0):
    angle = torch.arange(start, start + count, dtype=torch.float32, device=device)[:, None] * speeds(width, device)[None]
    return torch.cat([angle.cos(), angle.sin()], 1)


def delay(codes):
    """codes [batch, K, frames] -> delayed ids [batch, K, 1 + frames + K - 1] with a start column."""
    b, k, n = codes.shape
    out = torch.full((b, k, n + CODEBOOKS), PAD, dtype=torch.long, device=codes.device)
    for i in range(k):
        out[:, i, 1 + i:1 + i + n] = codes[:, i]
    return out


def undelay(ids):
    n = ids.shape[2] - CODEBOOKS
    return torch.stack([ids[:, i, 1 + i:1 + i + n] for i in range(ids.shape[1])], 1)


def text_states(model, ids, mask, keep=None):
    """Projected text states [batch, words, hidden] of ids [batch, words], or of embeddings [batch, words, width];
    `keep` 0 gives the null condition."""
    read = dict(inputs_embeds=ids) if ids.is_floating_point() else dict(input_ids=ids)
    states = model.text_encoder(**read, attention_mask=mask).last_hidden_state
    states = model.enc_to_dec_proj(states)
    mask = mask if keep is None else mask * keep[:, None]
    return states * mask[..., None].to(states.dtype)


def _heads(x, n):
    b, t, w = x.shape
    return x.view(b, t, n, w // n).transpose(1, 2)


def fused(q, k, v, bias):
    """Attention by the kernel of a GPU; `bias` as below."""
    shape = (q.shape[0], q.shape[1], *bias.shape[1:]) if len(bias) > 1 else (1, 1, *bias.shape[1:])
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.view(shape).to(q.dtype))


def attend(q, k, v, bias):
    """Attention by plain products: on a CPU in bf16 far faster than the fused kernel, most of
    all backwards. `bias` [1 or batch x heads, 1 or queries, keys] is added to the scores."""
    if q.is_cuda:
        return fused(q, k, v, bias)
    with torch.autocast(q.device.type, enabled=False):
        scores = torch.baddbmm(bias.to(q.dtype), q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2), alpha=q.shape[-1] ** -0.5)
        return (scores.softmax(-1) @ v.flatten(0, 1)).view(q.shape)


def decoder_states(model, ids, context, mask):
    """ids [batch, K, columns] -> what the last layers read [batch, columns, hidden]."""
    dec = model.decoder.model.decoder
    n = dec.config.num_attention_heads
    x = sum(dec.embed_tokens[k](ids[:, k]) for k in range(CODEBOOKS))
    x = x + positions(ids.shape[2], x.shape[2], x.device)
    bias = torch.zeros(mask.shape, device=x.device).masked_fill(mask == 0, -1e4)
    bias = bias[:, None].repeat(1, n, 1).flatten(0, 1)[:, None]
    for layer in dec.layers:
        h = layer.self_attn_layer_norm(x)
        a = layer.self_attn
        q, k, v = F.linear(h, torch.cat([a.q_proj.weight, a.k_proj.weight, a.v_proj.weight])).chunk(3, -1)
        y = kernels.causal(_heads(q, n), _heads(k, n), _heads(v, n))
        x = x + a.out_proj(y.transpose(1, 2).reshape(h.shape))
        h = layer.encoder_attn_layer_norm(x)
        a = layer.encoder_attn
        k, v = F.linear(context, torch.cat([a.k_proj.weight, a.v_proj.weight])).chunk(2, -1)
        q = _heads(a.q_proj(h), n)
        y = attend(q, _heads(k, n), _heads(v, n), bias)
        x = x + a.out_proj(y.transpose(1, 2).reshape(h.shape))
        h = layer.final_layer_norm(x)
        x = x + layer.fc2(F.gelu(layer.fc1(h)))
    return dec.layer_norm(x)


def decoder_logits(model, ids, context, mask):
    """ids [batch, K, columns] -> logits [batch, K, columns, codebook size]."""
    x = decoder_states(model, ids, context, mask)
    return torch.stack([head(x) for head in model.decoder.lm_heads], 1)


def nats(model, ids, target, context, mask):
    """How unlikely `target` [batch, K, 1 + columns] is after the inputs `ids` [batch, K, columns]: [batch, K, columns], 0 for what does
    not count."""
    states = decoder_states(model, ids, context, mask)
    return kernels.nats(states, model.decoder.lm_heads, target[:, :, 1:], PAD)


def loss_of(nats, target):
    """Mean of `nats` per codebook, of codes that count."""
    return nats.sum((0, 2)) / (target[:, :, 1:] != PAD).sum((0, 2))
