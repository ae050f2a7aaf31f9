"""The EnCodec encoder and decoder of transformers, computed with matrix products.

Few channels at a high rate make ordinary 1-D convolutions slow on a CPU. Here a signal is [batch, time, channels].
`group` neighbouring samples form one row, to which the ends of its neighbours are added, and every convolution, also
with a stride or transposed, is one product of these wide rows with a banded matrix. The activation before it is
computed on the way into the wide rows. Results equal the reference.
"""
import torch
import torch.nn.functional as F

GRAIN = 160     # channels that a row should have at least


class WideRows(torch.autograd.Function):
    """[batch, time, channels] -> [batch, time / group, (before + group + after) * channels], `before` and `after` <= `group`.

    Outside the signal lies its mirror image, or silence."""

    @staticmethod
    def forward(x, group, before, after, mirror, active):
        batch, time, channels = x.shape
        rows, left, right = time // group, before * channels, after * channels
        wide = x.new_empty(batch, rows, left + group * channels + right)
        inner = wide[:, :, left:left + group * channels]
        x = x.reshape(batch, rows, group * channels)
        torch.ops.aten.elu.out(x, out=inner) if active else inner.copy_(x)
        if before:
            wide[:, 1:, :left] = inner[:, :-1, -left:]
            wide[:, 0, :left] = ends(wide, left, group, channels, 0, before) if mirror else 0
        if after:
            wide[:, :-1, -right:] = inner[:, 1:, :right]
            wide[:, -1, -right:] = ends(wide, left, group, channels, -1, after) if mirror else 0
        return wide

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.x, ctx.sizes, ctx.active = inputs[0].shape, inputs[1:5], inputs[5]
        if ctx.active:
            ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx, grad):
        (batch, time, channels), (group, before, after, mirror) = ctx.x, ctx.sizes
        left, right, full = before * channels, after * channels, group * channels
        inner = grad[:, :, left:left + full].contiguous()
        if before:
            inner[:, :-1, -left:] += grad[:, 1:, :left]
            if mirror:
                inner.view(batch, -1, channels)[:, 1:before + 1] += grad[:, 0, :left].reshape(batch, before, channels).flip(1)
        if after:
            inner[:, 1:, :right] += grad[:, :-1, -right:]
            if mirror:
                inner.view(batch, -1, channels)[:, -after - 1:-1] += grad[:, -1, -right:].reshape(batch, after, channels).flip(1)
        if ctx.active:
            result = ctx.saved_tensors[0][:, :, left:left + full]
            inner = torch.ops.aten.elu_backward(inner, 1, 1, 1, True, result)
        return inner.reshape(batch, time, channels), None, None, None, None, None


def ends(wide, left, group, channels, row, count):
    """The mirror image of the first or last `count` samples next to an end, which is not repeated."""
    if group > count:
        signal = wide[:, row, left:left + group * channels].reshape(-1, group, channels)
    else:
        two = slice(0, 2) if row == 0 else slice(-2, None)
        signal = wide[:, two, left:left + group * channels].reshape(len(wide), -1, channels)
    signal = signal[:, 1:count + 1] if row == 0 else signal[:, -count - 1:-1]
    return signal.flip(1).reshape(len(wide), -1)


def product(wide, matrix, bias, channels):
    """[batch, rows, wide] x [wide, samples * channels] -> [batch, time, channels]."""
    batch, rows, _ = wide.shape
    bias = bias.repeat(matrix.shape[1] // channels).to(wide.dtype)
    return torch.addmm(bias, wide.flatten(0, 1), matrix.to(wide.dtype)).view(batch, -1, channels)


def conv_same(x, module, active=True):
    """Stride-1 convolution, kernel odd."""
    w, b = module.conv.weight, module.conv.bias
    out_ch, in_ch, k = w.shape
    half, group = k // 2, 1
    while group * in_ch < GRAIN or group < half:
        group *= 2
    while x.shape[1] % group:
        group //= 2
    taps = w.permute(2, 1, 0)
    if group < half:
        x = F.elu(x) if active else x
        x = F.pad(x.mT, (half, half), mode="reflect").mT
        wide = torch.cat([x[:, i:x.shape[1] - 2 * half + i] for i in range(k)], 2)
        return product(wide, taps.reshape(k * in_ch, out_ch), b, out_ch)
    big = torch.stack([F.pad(taps, (0, 0, 0, 0, p, group - 1 - p)) for p in range(group)], 2)
    wide = WideRows.apply(x, group, half, half, True, active)
    return product(wide, big.reshape((group + k - 1) * in_ch, group * out_ch), b, out_ch)


def conv_down(x, module):
    """Activation and convolution with kernel 2s and stride s (length must be a multiple of s)."""
    w, b = module.conv.weight, module.conv.bias
    out_ch, in_ch, k = w.shape
    s = k // 2
    wide = WideRows.apply(x, s, s - s // 2, s // 2, True, True)
    return product(wide, w.permute(2, 1, 0).reshape(k * in_ch, out_ch), b, out_ch)


def conv_up(x, module):
    """Activation and transposed convolution with kernel 2s and stride s, trimmed like the reference: `s` samples of the
    output depend on a row, the end of what the one before spreads and the beginning of what the next does."""
    w, b = module.conv.weight, module.conv.bias
    in_ch, out_ch, k = w.shape
    s = k // 2
    left = s - s // 2
    taps = w.permute(2, 0, 1)   # [2s, in, out]
    none = lambda n: taps.new_zeros(n, in_ch, out_ch)
    before = torch.cat([taps[s + left:], none(left)])
    here = taps[left:left + s]
    after = torch.cat([none(s - left), taps[:left]])
    matrix = torch.stack([before, here, after]).permute(0, 2, 1, 3).reshape(3 * in_ch, s * out_ch)
    return product(WideRows.apply(x, 1, 1, 1, False, True), matrix, b, out_ch)


def residual(x, block):
    return x + conv_same(conv_same(x, block.block[1]), block.block[3])


def lstm(x, module):
    y, _ = module.lstm(x.transpose(0, 1).float().contiguous())
    return y.transpose(0, 1).to(x.dtype) + x


def encode(model, audio, dtype=torch.float32):
    """audio [batch, sides, samples], or [batch, samples] for equal sides -> latents [batch, frames, hidden]; computed in `dtype`."""
    layers = model.encoder.layers
    if audio.dim() == 2:
        audio = audio[:, None].expand(-1, layers[0].conv.in_channels, -1)
    x = conv_same(audio.mT.contiguous().to(dtype), layers[0], active=False)
    i = 1
    while type(layers[i]).__name__ == "EncodecResnetBlock":
        x = conv_down(residual(x, layers[i]), layers[i + 2])
        i += 3
    return conv_same(lstm(x, layers[i]), layers[i + 2]).float()


def decode(model, latents, dtype=torch.float32):
    """latents [batch, frames, hidden] -> audio [batch, sides, samples]; computed in `dtype`."""
    layers = model.decoder.layers
    x = lstm(conv_same(latents.to(dtype), layers[0], active=False), layers[1])
    i = 2
    while i + 2 < len(layers):
        x = residual(conv_up(x, layers[i + 1]), layers[i + 2])
        i += 3
    return conv_same(x, layers[i + 1]).mT.float()
