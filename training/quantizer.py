"""Residual vector quantisation: moving-average codebooks with restarts."""
import torch
import torch.nn.functional as F

DECAY = 0.99


class Quantizer:
    """Owns the codebooks while training; `store` copies them into the model."""

    def __init__(self, model, device):
        self.layers = [layer.codebook for layer in model.quantizer.layers]
        self.books = [b.embed.detach().clone().to(device) for b in self.layers]
        self.count = [torch.ones(b.shape[0], device=device) for b in self.books]
        self.sums = [b.clone() for b in self.books]
        self.buffer, self.ready = [], False

    def state(self):
        return dict(books=self.books, count=self.count, sums=self.sums, ready=self.ready)

    def load(self, s):
        kept = slice(len(self.layers))      # it may have had more levels
        self.books, self.count, self.sums, self.ready = s["books"][kept], s["count"][kept], s["sums"][kept], s["ready"]

    def store(self):
        for layer, book, count, sums in zip(self.layers, self.books, self.count, self.sums):
            layer.embed.copy_(book)
            layer.embed_avg.copy_(sums)
            layer.cluster_size.copy_(count)
            layer.inited.fill_(1)

    @torch.no_grad()
    def start(self):
        """k-means on the collected latents, level by level."""
        rest = torch.cat(self.buffer)
        for i, book in enumerate(self.books):
            size = book.shape[0]
            centers = rest[torch.randperm(len(rest), device=rest.device)[:size]].clone()
            for _ in range(8):
                ids = nearest(rest, centers)
                total = torch.zeros_like(centers).index_add_(0, ids, rest)
                n = torch.bincount(ids, minlength=size).float()
                used = n > 0
                centers[used] = total[used] / n[used, None]
                centers[~used] = rest[torch.randperm(len(rest), device=rest.device)[: int((~used).sum())]]
            self.books[i] = centers
            share = len(self.buffer[-1]) / size
            self.count[i] = torch.full((size,), share, device=rest.device)
            self.sums[i] = centers * share
            rest = rest - centers[nearest(rest, centers)]
        self.buffer, self.ready = [], True

    def __call__(self, z, step, warm):
        """Returns (quantised latents with straight-through gradient, commitment loss, how many codes each level
        has in effect)."""
        flat = z.reshape(-1, z.shape[-1])
        if not self.ready:
            if step >= warm - 60:
                self.buffer.append(flat.detach().clone())
            if step < warm:
                return z, 1e-3 * flat.pow(2).mean(), []
            self.start()
        rest, total, commit, usage = flat, torch.zeros_like(flat), 0.0, []
        # Against what there is to tell apart: otherwise the encoder makes it small, in the end all alike.
        spread = flat.detach().var(0).mean().clamp(min=1e-8)
        for i, book in enumerate(self.books):
            with torch.no_grad():
                ids = nearest(rest, book)
                picked = book[ids]
            commit = commit + F.mse_loss(rest, picked) / spread
            self.update(i, rest.detach(), ids)
            total = total + picked
            rest = rest - picked
            usage.append(round(in_effect(self.count[i])))
        q = flat + (total - flat).detach()
        return q.reshape(z.shape), commit, usage

    @torch.no_grad()
    def update(self, i, x, ids):
        size = self.books[i].shape[0]
        n = torch.bincount(ids, minlength=size).float()
        total = torch.zeros_like(self.books[i]).index_add_(0, ids, x)
        self.count[i].mul_(DECAY).add_(n, alpha=1 - DECAY)
        self.sums[i].mul_(DECAY).add_(total, alpha=1 - DECAY)
        mean = len(x) / size
        dead = self.count[i] < 0.1 * mean
        if dead.any():
            k = int(dead.sum())
            fresh = x[torch.randint(len(x), (k,), device=x.device)]
            self.count[i][dead] = 0.5 * mean
            self.sums[i][dead] = fresh * 0.5 * mean
        self.books[i] = self.sums[i] / self.count[i].clamp(min=1e-6)[:, None]


def in_effect(count):
    """As many codes as would say as much if all were used alike: the exponential of the entropy."""
    share = count / count.sum()
    return float(torch.exp(-(share * torch.log(share.clamp(min=1e-12))).sum()))


def nearest(x, book):
    return torch.addmm(book.pow(2).sum(1)[None], x, book.t(), beta=1, alpha=-2).argmin(1)


@torch.no_grad()
def quantize(model, z):
    """latents [batch, frames, hidden] -> codes [batch, codebooks, frames]."""
    rest, codes = z.reshape(-1, z.shape[-1]), []
    for layer in model.quantizer.layers:
        ids = nearest(rest, layer.codebook.embed)
        rest = rest - layer.codebook.embed[ids]
        codes.append(ids.reshape(z.shape[:2]))
    return torch.stack(codes, 1)


@torch.no_grad()
def dequantize(model, codes):
    return sum(layer.codebook.embed[codes[:, i]] for i, layer in enumerate(model.quantizer.layers))
