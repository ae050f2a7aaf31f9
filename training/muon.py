"""Muon: momentum whose update is made orthogonal; for matrices and (flattened) convolutions."""
from collections import defaultdict

import torch

from precision import bf16_is_faster


@torch.no_grad()
def orthogonal(g, steps=5):
    """Nearest semi-orthogonal matrices (roughly) of a batch [..., rows, columns]."""
    a, b, c = 3.4445, -4.7750, 2.0315
    flip = g.shape[-2] > g.shape[-1]
    x = g.mT if flip else g
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    if bf16_is_faster(x.device.type):
        x = x.bfloat16()
    for _ in range(steps):
        s = x @ x.mT
        x = a * x + (b * s + c * s @ s) @ x
    x = x.to(g.dtype)
    return x.mT if flip else x


class Muon(torch.optim.Optimizer):
    """Parameters of one shape are updated together."""

    def __init__(self, params, lr=2e-3, momentum=0.95, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            shapes = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    shapes[tuple(p.flatten(1).shape)].append(p)
            for shape, same in shapes.items():
                updates = []
                for p in same:
                    state = self.state[p]
                    if "m" not in state:
                        state["m"] = torch.zeros_like(p)
                    state["m"].lerp_(p.grad, 1 - group["momentum"])
                    updates.append(p.grad.lerp(state["m"], group["momentum"]).reshape(shape))
                updates = orthogonal(torch.stack(updates)) * (0.2 * max(shape) ** 0.5)
                for p, u in zip(same, updates):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(u.reshape(p.shape), alpha=-group["lr"])
