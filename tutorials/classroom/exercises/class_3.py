"""The exercises of class 3: our function, its inputs, and the mistakes that many make."""

import math

import torch

from model import GPTConfig


def kv_cache_bytes(config, T):
    """The bytes of keys and values of T tokens in all layers, one row, float32: an int."""
    numbers = 2 * config.n_layer * config.n_kv_head * config.head_dim * T  # keys and values
    return 4 * numbers


def kv_cache_bytes_inputs():
    return [
        (GPTConfig(11, 16, n_layer=2, n_head=4, n_embd=32, n_kv_head=2), 7),
        (GPTConfig(11, 16, n_layer=3, n_head=6, n_embd=32, n_kv_head=1, head_dim=4), 1),
    ]


def bytes_of_all_heads(config, T):
    return 8 * config.n_layer * config.n_head * config.head_dim * T


kv_cache_bytes_mistakes = {
    "you count query heads; only key heads have keys and values": bytes_of_all_heads,
    "you count keys alone, or values alone": lambda config, T: kv_cache_bytes(config, T) // 2,
    "these are numbers; each of them takes 4 bytes": (
        lambda config, T: kv_cache_bytes(config, T) // 4
    ),
}


def running_lse(parts):
    """The log-sum-exp of all scores in all parts: a float."""
    top, total = -math.inf, 0.0
    for part in parts:
        new = max(top, part.max().item())
        total = total * math.exp(top - new)  # what was summed so far, under the new maximum
        total += (part - new).exp().sum().item()
        top = new
    return top + math.log(total)


def running_lse_inputs():
    gen = torch.Generator().manual_seed(0)
    small = [torch.randn(n, generator=gen) for n in (3, 1, 4)]
    return [
        (small,),
        ([torch.tensor([1.0, 3.0]), torch.tensor([90.0])],),
        ([1000 + part for part in small],),
        ([-1000 + part for part in small],),
    ]


def lse_without_top(parts):
    total = sum(part.exp().sum().item() for part in parts)
    return math.log(total) if total else -math.inf


def lse_without_shrinking(parts):
    top, total = -math.inf, 0.0
    for part in parts:
        top = max(top, part.max().item())
        total += (part - top).exp().sum().item()
    return top + math.log(total)


def lse_without_its_top(parts):
    return running_lse(parts) - max(part.max().item() for part in parts)


running_lse_mistakes = {
    "exp of 1,000 is too large for a float, of -1,000 too small: subtract `top`": lse_without_top,
    "`top` becomes larger, and the old sum has to become smaller": lse_without_shrinking,
    "this is the logarithm of the sum alone: add `top` again": lse_without_its_top,
}


def ring_work(T, R):
    """The pairs of workers 1 to R: a list of R ints. T is a multiple of R."""
    n = T // R  # tokens of a worker
    own = n * (n + 1) // 2  # pairs with its own keys
    return [own + before * n * n for before in range(R)]  # and all keys of the workers before it


def ring_work_inputs():
    return [(8, 2), (12, 4), (5, 1), (6, 6)]


ring_work_mistakes = {
    "with its own keys a worker has a triangle of pairs, not a square": (
        lambda T, R: [(T // R) ** 2 * (before + 1) for before in range(R)]
    ),
    "worker 1 has nobody before it": (
        lambda T, R: [pairs + (T // R) ** 2 for pairs in ring_work(T, R)]
    ),
}


def fixed_pattern(T, stride):
    """True where a query (row) sees a key (column): a bool tensor (T, T)."""
    t, s = torch.arange(T)[:, None], torch.arange(T)  # (T, 1), (T,)
    same_block = s // stride == t // stride  # (T, T)
    last_of_block = s % stride == stride - 1  # (T,)
    return (s <= t) & (same_block | last_of_block)  # (T, T)


def fixed_pattern_inputs():
    return [(8, 4), (10, 3), (6, 1), (5, 8)]


def first_of_block(T, stride):
    t, s = torch.arange(T)[:, None], torch.arange(T)  # (T, 1), (T,)
    return (s <= t) & ((s // stride == t // stride) | (s % stride == 0))  # (T, T)


def sees_the_future(T, stride):
    t, s = torch.arange(T)[:, None], torch.arange(T)  # (T, 1), (T,)
    return (s // stride == t // stride) | (s % stride == stride - 1)  # (T, T)


fixed_pattern_mistakes = {
    "it is the last key of each piece that all see, not the first": first_of_block,
    "nobody sees the future": sees_the_future,
}
