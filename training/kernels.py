"""Parts of the decoder with gradients of their own.

On a CPU a small decoder waits for memory more than for products. What autograd would read and write again and again, scores of an
attention and likelihoods of all codes, is here kept once, in the precision of the products, and in parts that caches can hold."""
import torch
import torch.nn.functional as F

QUERIES = 128       # of a part: its scores fit a cache
SMALLEST = 1e-30    # likelihood that has a logarithm


class Causal(torch.autograd.Function):
    """Attention of [rows, columns, size] to columns that are not later."""

    @staticmethod
    def parts(columns):
        return [(at, min(columns, at + QUERIES)) for at in range(0, columns, QUERIES)]

    @staticmethod
    def forward(ctx, q, k, v):
        with torch.autocast(q.device.type, enabled=False):
            scale = q.shape[-1] ** -0.5
            q, k, v = (q * scale).contiguous(), k.contiguous(), v.contiguous()
            later = torch.full((QUERIES, QUERIES), float("-inf"), dtype=q.dtype, device=q.device).triu(1)
            out, shares = torch.empty_like(q), []
            for at, end in Causal.parts(q.shape[1]):
                scores = q[:, at:end] @ k[:, :end].mT
                scores[:, :, at:] += later[:end - at, :end - at]
                shares.append(scores.softmax(-1))
                out[:, at:end] = shares[-1] @ v[:, :end]
        ctx.save_for_backward(q, k, v, out, *shares)
        return out

    @staticmethod
    def backward(ctx, grad):
        q, k, v, out, *shares = ctx.saved_tensors
        grad = grad.contiguous()
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        mean = (grad * out).sum(-1, keepdim=True)
        for (at, end), share in zip(Causal.parts(q.shape[1]), shares):
            dv[:, :end] += share.mT @ grad[:, at:end]
            scores = (grad[:, at:end] @ v[:, :end].mT).sub_(mean[:, at:end]).mul_(share)
            dq[:, at:end] = scores @ k[:, :end]
            dk[:, :end] += scores.mT @ q[:, at:end]
        return dq * q.shape[-1] ** -0.5, dk, dv


def causal(q, k, v):
    """Attention of [batch, heads, columns, size] to columns that are not later."""
    if q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return Causal.apply(*(x.flatten(0, 1) for x in (q, k, v))).view(q.shape)


class Nats(torch.autograd.Function):
    """Nats [rows] of the codes `target` [rows] under the logits `x` [rows, width] times `weight` [codes, width]."""

    @staticmethod
    def forward(ctx, x, weight, target):
        with torch.autocast(x.device.type, enabled=False):
            likely = (x @ weight.T).softmax(-1)
            ctx.save_for_backward(x, weight, target, likely)
            return -likely.gather(1, target[:, None])[:, 0].float().clamp(min=SMALLEST).log()

    @staticmethod
    def backward(ctx, grad):
        x, weight, target, likely = ctx.saved_tensors
        grad = grad.to(likely.dtype)[:, None]
        logits = (likely * grad).scatter_add_(1, target[:, None], -grad)
        return logits @ weight, logits.T @ x, None


def nats(x, heads, ids, pad):
    """How unlikely the codes `ids` [batch, K, columns] are after the states `x` [batch, columns, width]: [batch, K, columns], 0 where
    there is none (`pad`). `heads` are the last layers, one for each codebook."""
    kind = x.device.type
    precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    flat = x.flatten(0, 1).to(precision)
    out = [Nats.apply(flat, head.weight.to(precision), one.masked_fill(one == pad, 0)).masked_fill(one == pad, 0)
           for head, one in zip(heads, ids.transpose(0, 1).flatten(1))]
    return torch.stack(out, 1).view(len(x), x.shape[1], -1).transpose(1, 2)
