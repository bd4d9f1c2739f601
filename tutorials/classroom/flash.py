"""Attention piece by piece: a softmax over all keys, computed without seeing all keys at once.

    flash_attention      tiles with a running maximum and sum (Milakov & Gimelshein 2018, arXiv
                         1805.02867), recomputed in the backward (Dao et al. 2022, arXiv 2205.14135)
    strided_attention    the sparse pattern of Child et al. 2019 (arXiv 1904.10509): two small
                         attentions, merged into one softmax

Causal, in plain PyTorch: what is saved here is memory. Letters (B, T, S, H, ...) as in model.py.
"""

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable


def score(q, k, see=None):
    """q (B, Hkv, G, T, D), k (B, Hkv, S, D), see (T, S) or None for all -> (B, Hkv, G, T, S)."""
    scores = torch.einsum("bhgtd,bhsd->bhgts", q, k) * q.shape[-1] ** -0.5  # (B, Hkv, G, T, S)
    return scores if see is None else scores.masked_fill(~see, -torch.inf)


def nothing(q):
    """What the queries q (B, Hkv, G, T, D) know before the first key: (out, top, total)."""
    first = q[..., :1]  # (B, Hkv, G, T, 1)
    return torch.zeros_like(q), torch.full_like(first, -torch.inf), torch.zeros_like(first)


def absorb(state, q, k, v, see=None):
    """What they know after the keys k and values v (B, Hkv, S, D) of one more tile.

    out    the sum of exp(score - top) v over all keys so far, (B, Hkv, G, T, D)
    top    the largest score so far, (B, Hkv, G, T, 1)
    total  the sum of exp(score - top) over all keys so far, (B, Hkv, G, T, 1)

    The first tile of each query must hold a key that it sees.
    """
    out, top, total = state
    scores = score(q, k, see)  # (B, Hkv, G, T, S)
    new = torch.maximum(top, scores.amax(-1, keepdim=True))  # (B, Hkv, G, T, 1)
    shrink, weights = (top - new).exp(), (scores - new).exp()  # (B, Hkv, G, T, 1 and S)
    out = out * shrink + torch.einsum("bhgts,bhsd->bhgtd", weights, v)  # (B, Hkv, G, T, D)
    return out, new, total * shrink + weights.sum(-1, keepdim=True)


def finish(state):
    """(attention's output (B, Hkv, G, T, D), log-sum-exp of the scores (B, Hkv, G, T, 1))."""
    out, top, total = state
    return out / total, top + total.log()


def tiles(T, tile, device=None):
    """(rows, columns, see) of all tiles that a causal mask leaves: those above the diagonal are
    never computed, those on it are half seen, and see is None where all is seen."""
    for i in range(0, T, tile):
        n = min(tile, T - i)
        for j in range(0, i + 1, tile):
            see = torch.ones(n, n, dtype=torch.bool, device=device).tril() if i == j else None
            yield slice(i, i + n), slice(j, min(j + tile, T)), see  # see (n, n)


class Flash(torch.autograd.Function):
    """q (B, Hkv, G, T, D), k and v (B, Hkv, T, D) -> (B, Hkv, G, T, D)."""

    @staticmethod
    def forward(ctx, q, k, v, tile):
        states = {}  # of the queries that start at row i; the tiles of a row come one after another
        for rows, columns, see in tiles(q.shape[3], tile, q.device):
            queries = q[..., rows, :]  # (B, Hkv, G, tile, D)
            before = states.get(rows.start) or nothing(queries)
            states[rows.start] = absorb(before, queries, k[:, :, columns], v[:, :, columns], see)
        out, lse = (torch.cat(x, 3) for x in zip(*map(finish, states.values())))
        ctx.save_for_backward(q, k, v, out, lse)  # and no tile of weights
        ctx.tile = tile
        return out  # (B, Hkv, G, T, D)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        q, k, v, out, lse = ctx.saved_tensors
        dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        mean = (grad * out).sum(-1, keepdim=True)  # (B, Hkv, G, T, 1)
        for rows, columns, see in tiles(q.shape[3], ctx.tile, q.device):
            q_i, grad_i = q[..., rows, :], grad[..., rows, :]  # (B, Hkv, G, tile, D)
            k_j, v_j = k[:, :, columns], v[:, :, columns]  # (B, Hkv, tile, D)
            # The weights were thrown away. With the log-sum-exp they come back in one step.
            weights = (score(q_i, k_j, see) - lse[..., rows, :]).exp()  # (B, Hkv, G, tile, tile)
            change = torch.einsum("bhgtd,bhsd->bhgts", grad_i, v_j) - mean[..., rows, :]
            change = weights * change * q.shape[-1] ** -0.5  # (B, Hkv, G, tile, tile)
            dv[:, :, columns] += torch.einsum("bhgts,bhgtd->bhsd", weights, grad_i)
            dk[:, :, columns] += torch.einsum("bhgts,bhgtd->bhsd", change, q_i)
            dq[..., rows, :] += torch.einsum("bhgts,bhsd->bhgtd", change, k_j)
        return dq, dk, dv, None


def flash_attention(q, k, v, tile=128):
    """Causal attention, tile by tile: q (B, H, T, D), k and v (B, Hkv, T, D) -> (B, H, T, D).

    The backward keeps q, k, v, the output and the log-sum-exp, and computes the weights again.
    """
    return Flash.apply(q.unflatten(1, (k.shape[1], -1)), k, v, tile).flatten(1, 2)  # (B, H, T, D)


def attend(q, k, v, see):
    """Plain attention over some keys: q (..., T, D), k and v (..., S, D), see (..., T, S)
    -> its output (..., T, D), and the log-sum-exp (..., T, 1) that `merge` needs."""
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5  # (..., T, S)
    scores = scores.masked_fill(~see, -torch.inf)
    lse = scores.logsumexp(-1, keepdim=True)  # (..., T, 1)
    return (scores - lse).exp() @ v, lse


def merge(out_a, lse_a, out_b, lse_b):
    """One softmax over the keys of a and of b, which have none in common: (out, lse)."""
    lse = torch.logaddexp(lse_a, lse_b)  # (..., T, 1)
    return (lse_a - lse).exp() * out_a + (lse_b - lse).exp() * out_b, lse


def strided_attention(q, k, v, stride):
    """The last `stride` keys, itself included, and every stride-th one before them:
    q (B, H, T, D), k and v (B, Hkv, T, D), T a multiple of stride -> (B, H, T, D).

    T (stride + T / stride) pairs are needed, 2 T stride + T^2 / stride scores are computed.
    """
    T, Hkv = q.shape[2], k.shape[1]
    if T % stride:
        raise ValueError(f"T={T} is not a multiple of stride={stride}")
    N, R = T // stride, stride
    q = q.unflatten(2, (N, R)).unflatten(1, (Hkv, -1))  # (B, Hkv, G, N, R, D)
    k, v = (x.unflatten(2, (N, R))[:, :, None] for x in (k, v))  # (B, Hkv, 1, N, R, D)
    # Near: a block of R queries needs its own R keys and the R before them.
    k_near, v_near = (
        torch.cat((F.pad(x, (0, 0, 0, 0, 1, 0))[..., :-1, :, :], x), -2) for x in (k, v)
    )  # (B, Hkv, 1, N, 2 R, D)
    see = torch.ones(N, R, 2 * R, dtype=torch.bool, device=q.device).tril(R).triu(1)  # (N, R, 2 R)
    see[0, :, :R] = False  # nothing is before the first block
    out, lse = attend(q, k_near, v_near, see)  # (B, Hkv, G, N, R, D and 1)
    if N > 1:  # Far: the same place in all blocks before: R small causal attentions, a block late.
        q, k, v = (x.transpose(-2, -3) for x in (q, k, v))  # (..., R, N, D)
        see = torch.ones(N - 1, N - 1, dtype=torch.bool, device=q.device).tril()  # (N - 1, N - 1)
        far = attend(q[..., 1:, :], k[..., :-1, :], v[..., :-1, :], see)  # (..., R, N - 1, D and 1)
        far = (x.transpose(-2, -3) for x in far)  # (..., N - 1, R, D and 1)
        late, _ = merge(out[..., 1:, :, :], lse[..., 1:, :, :], *far)  # (..., N - 1, R, D)
        out = torch.cat((out[..., :1, :, :], late), -3)  # (B, Hkv, G, N, R, D)
    return out.flatten(3, 4).flatten(1, 2)  # (B, H, T, D)
