"""The EnCodec encoder and decoder of transformers, computed with matrix products.

Few channels at a high rate make ordinary 1-D convolutions slow on a CPU. Here a
signal is [batch, time, channels]; several neighbouring samples form one row, and a
convolution is one product with a banded matrix. Results equal the reference.
"""
import torch
import torch.nn.functional as F


def _reflect(x, left, right):
    parts = [x[:, 1:left + 1].flip(1)] if left else []
    parts.append(x)
    if right:
        parts.append(x[:, -right - 1:-1].flip(1))
    return torch.cat(parts, 1) if len(parts) > 1 else x


def conv_same(x, module, group):
    """Stride-1 convolution; `group` samples are handled per row."""
    w, b = module.conv.weight, module.conv.bias
    out_ch, in_ch, k = w.shape
    batch, time, _ = x.shape
    half = (k - 1) // 2
    while time % group:
        group //= 2
    taps = w.permute(2, 1, 0)
    big = torch.stack([F.pad(taps, (0, 0, 0, 0, p, group - 1 - p)) for p in range(group)], 2)
    big = big.reshape((group + k - 1) * in_ch, group * out_ch)
    rows = x.reshape(batch, time // group, group * in_ch)
    if half:
        wide = half * in_ch
        first = x[:, 1:half + 1].flip(1).reshape(batch, 1, wide)
        last = x[:, -half - 1:-1].flip(1).reshape(batch, 1, wide)
        if group >= half:
            before = torch.cat([first, rows[:, :-1, -wide:]], 1)
            after = torch.cat([rows[:, 1:, :wide], last], 1)
            rows = torch.cat([before, rows, after], 2)
        else:
            padded = _reflect(x, half, half)
            rows = torch.cat([padded[:, i:i + time] for i in range(k)], 2)
    return (torch.matmul(rows, big) + b.repeat(group)).reshape(batch, time, out_ch)


def conv_down(x, module):
    """Convolution with kernel 2s and stride s (length must be a multiple of s)."""
    w, b = module.conv.weight, module.conv.bias
    out_ch, in_ch, k = w.shape
    s = k // 2
    right = s // 2
    x = _reflect(x, s - right, right)
    blocks = x.reshape(x.shape[0], -1, s * in_ch)
    taps = w.permute(2, 1, 0).reshape(2, s * in_ch, out_ch)
    return torch.matmul(blocks[:, :-1], taps[0]) + torch.matmul(blocks[:, 1:], taps[1]) + b


def conv_up(x, module):
    """Transposed convolution with kernel 2s and stride s, trimmed like the reference."""
    w, b = module.conv.weight, module.conv.bias
    in_ch, out_ch, k = w.shape
    s = k // 2
    batch, time, _ = x.shape
    taps = w.permute(2, 0, 1)
    head = taps[:s].permute(1, 0, 2).reshape(in_ch, s * out_ch)
    tail = taps[s:].permute(1, 0, 2).reshape(in_ch, s * out_ch)
    y = F.pad(torch.matmul(x, head), (0, 0, 0, 1)) + F.pad(torch.matmul(x, tail), (0, 0, 1, 0))
    left = s - s // 2
    return y.reshape(batch, (time + 1) * s, out_ch)[:, left:left + time * s] + b


def _group(rate_channels):
    return max(1, 128 // rate_channels)


def residual(x, block):
    g = _group(x.shape[2])
    y = conv_same(F.elu(x), block.block[1], g)
    return x + conv_same(F.elu(y), block.block[3], g)


def lstm(x, module):
    y, _ = module.lstm(x.transpose(0, 1).contiguous())
    return y.transpose(0, 1) + x


def encode(model, audio):
    """audio [batch, samples] -> latents [batch, frames, hidden]."""
    layers = model.encoder.layers
    x = conv_same(audio.unsqueeze(-1), layers[0], 8)
    i = 1
    while type(layers[i]).__name__ == "EncodecResnetBlock":
        x = residual(x, layers[i])
        x = conv_down(F.elu(x), layers[i + 2])
        i += 3
    x = lstm(x, layers[i])
    return conv_same(F.elu(x), layers[i + 2], 1)


def decode(model, latents):
    """latents [batch, frames, hidden] -> audio [batch, samples]."""
    layers = model.decoder.layers
    x = conv_same(latents, layers[0], 1)
    x = lstm(x, layers[1])
    i = 2
    while i + 2 < len(layers):
        x = conv_up(F.elu(x), layers[i + 1])
        x = residual(x, layers[i + 2])
        i += 3
    return conv_same(F.elu(x), layers[i + 1], 8).squeeze(-1)
