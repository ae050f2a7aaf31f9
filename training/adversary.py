"""Judges that learn to tell a codec's output from its input, by spectra of several resolutions; what they see keeps
partials where a distance of spectra alone is content with noise of the right colour."""
import torch
import torch.nn.functional as F
from torch.nn.utils.parametrizations import weight_norm

SIZES = (2048, 1024, 512)
SOFT = 0.3          # exponent of magnitudes: what is quiet, and high, counts too
QUIET = 1e-7        # power that counts as silence


class Judge(torch.nn.Module):
    """Complex spectrum of one size -> a map of verdicts, and what was seen on the way."""

    def __init__(self, size, width):
        super().__init__()
        self.size = size
        self.register_buffer("window", torch.hann_window(size), persistent=False)
        conv = lambda i, o, kernel, stride=(1, 1), dilation=(1, 1): weight_norm(torch.nn.Conv2d(
            i, o, kernel, stride, dilation=dilation, padding=[d * (k - 1) // 2 for d, k in zip(dilation, kernel)]))
        self.layers = torch.nn.ModuleList([
            conv(2, width, (3, 9)), *(conv(width, width, (3, 9), (1, 2), (d, 1)) for d in (1, 2, 4)), conv(width, width, (3, 3))])
        self.last = conv(width, 1, (3, 3))

    def forward(self, audio):
        spectrum = torch.stft(audio, self.size, self.size // 4, window=self.window, return_complex=True, normalized=True)
        x = torch.view_as_real(spectrum).permute(0, 3, 2, 1)
        x, seen = x * (x.square().sum(1, keepdim=True) + QUIET) ** ((SOFT - 1) / 2), []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            seen.append(x)
        return self.last(x), seen


class Adversary(torch.nn.Module):
    """Judges of audio [batch, samples]; one of them, drawn at random, is asked at a time."""

    def __init__(self, width=16):
        super().__init__()
        self.judges = torch.nn.ModuleList(Judge(size, width) for size in SIZES)

    def draw(self):
        return self.judges[int(torch.randint(len(self.judges), ()))]


def told_apart(judge, real, made):
    """What a judge learns from, and what it saw of the real ones."""
    verdict, seen = judge(real)
    loss = F.relu(1 - verdict).mean() + F.relu(1 + judge(made.detach())[0]).mean()
    return loss, [layer.detach() for layer in seen]


def taken_for_real(judge, made, wanted):
    """What the codec learns from: to be taken for real, and to look alike on the way."""
    verdict, seen = judge(made)
    alike = sum((a - b).abs().mean() / (b.abs().mean() + 1e-6) for a, b in zip(seen, wanted)) / len(seen)
    return -verdict.mean(), alike
