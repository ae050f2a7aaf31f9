"""How far a codec's output is from its input: a distance of spectra of several resolutions."""
import numpy as np
import torch
from transformers.audio_utils import mel_filter_bank

from config import SR

# Samples of a window, mel bands, share of the loss.
MEL_SCALES = ((2048, 96, 0.2), (512, 48, 0.15), (128, 20, 0.1))
# 96 mel bands cannot tell neighbouring notes apart below 1 kHz: samples of a window, bands of an octave, lowest Hz, octaves, share.
# The longer window tells notes apart, the shorter one when they begin.
PITCH_SCALES = ((8192, 24, 55.0, 7, 0.3), (4096, 12, 110.0, 6, 0.25))
QUIET = 2e-4, 1e-3   # what a band of the mel scales, and of the others, counts as silence


def pitch_bank(n, per_octave, lowest, octaves):
    """Triangles [bands, bins] a part of an octave apart; the lowest are as wide as the spectrum can tell."""
    bins = np.arange(n // 2 + 1) * SR / n
    centres = lowest * 2 ** (np.arange(per_octave * octaves) / per_octave)
    width = np.maximum(centres * (2 ** (1 / per_octave) - 1), 1.2 * SR / n)
    bank = np.maximum(0, 1 - np.abs(bins - centres[:, None]) / width[:, None]).astype(np.float32)
    return bank / np.maximum(bank.sum(1, keepdims=True), 1)


class SpectralLoss(torch.nn.Module):
    """How far spectra are apart, by logarithm, by magnitude, and by what is louder than it should be; 0 is equal.

    A plain mean of the logarithms is content with silence where a note should be: a note fills few bands, and one that is not
    perfectly steady costs more in the empty bands beside it than it gains. So loud bands count more, and magnitudes are
    compared by their squares, octave by octave, so that a bass does not hide what is above it. Then the empty bands count for little, and
    fill with noise between notes and partials: that is the third, where all bands count alike."""

    def __init__(self):
        super().__init__()
        self.scales = {}
        for n, mels, share in MEL_SCALES:
            bank = mel_filter_bank(n // 2 + 1, mels, 0.0, 15000.0, SR, mel_scale="slaney").T.astype(np.float32)
            self.add_scale(n, bank / np.maximum(bank.sum(1, keepdims=True), 1), mels // 4, QUIET[0], share)
        for n, per_octave, lowest, octaves, share in PITCH_SCALES:
            self.add_scale(n, pitch_bank(n, per_octave, lowest, octaves), per_octave, QUIET[1], share)

    def add_scale(self, n, bank, group, quiet, share):
        self.register_buffer(f"window{n}", torch.hann_window(n))
        self.register_buffer(f"bank{n}", torch.tensor(bank))
        self.scales[n] = group, quiet, share

    def bands(self, x, n):
        window = getattr(self, f"window{n}")
        s = torch.stft(x, n, n // 4, window=window, return_complex=True, center=True)
        mag = torch.sqrt(s.real**2 + s.imag**2 + 1e-10) / (n / 4)
        return torch.matmul(getattr(self, f"bank{n}"), mag)

    def forward(self, y, x):
        log_loss = mag_loss = over_loss = 0.0
        for n, (group, quiet, share) in self.scales.items():
            a, b = self.bands(y, n), self.bands(x, n)
            loud = (b + quiet).sqrt()
            weight = 0.5 + 0.5 * loud / loud.mean((1, 2), keepdim=True)
            higher = torch.log(a + quiet) - torch.log(b + quiet)
            log_loss = log_loss + share * (weight * higher.abs()).mean()
            over_loss = over_loss + share * higher.relu().mean()
            apart, size = ((v.unflatten(1, (-1, group)).pow(2).mean((2, 3)) + 1e-12).sqrt() for v in (a - b, b))
            size = (size + quiet).sqrt()
            mag_loss = mag_loss + share * ((apart / size).sum(1) / size.sum(1)).mean()
        return log_loss, mag_loss, over_loss
