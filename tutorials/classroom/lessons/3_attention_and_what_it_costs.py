# %% [markdown]
r"""
# Attention and what it costs

Attention compares each token with each before it. What does that cost, and how does one pay less?

After this class you can

1. write attention with shared heads and a window;
2. compute a softmax over keys that you never see all at once;
3. say which ways change the result, and which do not.

Needs: queries, keys and values; `model.py` open beside you.

B rows, T tokens, S keys, D numbers in a head, L layers. W is the **window**: how many keys a query
may see, itself included. H query heads share Hkv heads of keys and values: **grouped-query
attention** (GQA), in groups of G = H / Hkv. A **pair** is one query with one key: one score.

## 1. Attention in five lines

**Before you run it:** the base has H = 4 and Hkv = 2. Which query heads read key head 0? Will
torch, model.py and our five lines give the same numbers?
"""

# %%
import sys
sys.path.insert(0, "classroom")
import math
from dataclasses import replace
from time import process_time  # of this process alone: other programs do not count
from timeit import repeat
import torch
from torch.nn.functional import scaled_dot_product_attention as torchs
from shared import open_lab
from checks import exercise
import drawings
import flash
from model import GPT, attention, attention_mask
lab = open_lab()
torch.set_num_threads(1)  # one core, so that times can be compared
torch.manual_seed(0)
config = lab.model.config
H, Hkv, D, L, W = (config.n_head, config.n_kv_head, config.head_dim, config.n_layer, config.window)

# %%
def my_attention(q, k, v, see):  # q (B, H, T, D), k and v (B, Hkv, S, D), see (T, S)
    G = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(G, 1), v.repeat_interleave(G, 1)  # (B, H, S, D) each
    scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5  # (B, H, T, S)
    weights = scores.masked_fill(~see, -torch.inf).softmax(3)  # (B, H, T, S): each row sums to 1
    return weights @ v  # (B, H, T, D)

def seen(T, window):
    back = torch.arange(T)[:, None] - torch.arange(T)  # (T, T): how far back the key is
    return (back >= 0) & (back < window)  # (T, T): True where query t sees key s

def random_heads(T):
    return [torch.randn(1, heads, T, D) for heads in (H, Hkv, Hkv)]  # q, k, v

# %%
def project_mask(T, window):  # 0 where a key is seen, else minus infinity
    positions = torch.arange(T)[None]  # (B, T)
    nothing_pinned = torch.zeros(1, dtype=torch.long)  # (B,)
    return attention_mask(positions, positions, nothing_pinned, window, torch.float32)

q, k, v = random_heads(400)
for window in (400, W):
    mine = my_attention(q, k, v, seen(400, window))  # (B, H, T, D)
    from_torch = torchs(q, k, v, seen(400, window), enable_gqa=True)
    from_model = attention(q, k, v, project_mask(400, window))
    for name, other in {"torch": from_torch, "model.py": from_model}.items():
        apart = (mine - other).abs().max()
        print(f"window {window}: the largest difference to {name} is {apart:.0e}")

# %% [markdown]
r"""
**What to notice.** The three agree up to rounding. `repeat_interleave` lays the copies side by
side: the first two query heads read key head 0.

## 2. The cache, and what GQA shares

While a model writes, it keeps the keys and values of all tokens so far, in each layer: the
**cache** (here a `Past`).

### Exercise 1

How many bytes are the keys and values of T tokens, in all layers, one row, float32 (4 bytes a
number)?

<details><summary>Hint</summary>

`config` has `n_layer`, `n_head`, `n_kv_head` and `head_dim`. One of the four plays no part.

</details>

**Before you run the cell behind it:** with fewer key heads, is the cache smaller, are the scores
fewer, or both?
"""

# %%
@exercise
def kv_cache_bytes(config, T):
    """The bytes of keys and values of T tokens in all layers, one row, float32: an int."""
    raise NotImplementedError

# %%
for heads in (4, 2, 1):
    shape = replace(config, n_kv_head=heads)
    _, past = GPT(shape)(torch.zeros(1, 256, dtype=torch.long))  # untrained: only to count
    counted = sum(states.nbytes for states in past.keys + past.values)
    scores = shape.n_layer * shape.n_head * 256 * 256
    formula = kv_cache_bytes(shape, 256)
    print(f"Hkv = {heads}, G = {H // heads}: cache of 256 tokens {formula:,} bytes "
          f"(counted in a Past: {counted:,}), scores {scores:,}")
all_weights = 4 * sum(p.numel() for p in lab.model.parameters())  # bytes
as_long = all_weights / kv_cache_bytes(config, 1)  # tokens
print(f"{as_long:,.0f} tokens of cache are as big as the base")

# %% [markdown]
r"""
**What to notice.** A group's query heads share keys and values, so the cache is G times smaller.
The pairs are *not* fewer: each query head has scores of its own.

## 3. What a window does

A window keeps each query to its W nearest keys. The first `pinned` keys stay visible, so that a
soft prompt does not slide out of sight. **Before you run it:** through a second layer, a token
hears of what its keys have seen. How far back does the last token hear?
"""

# %%
key = torch.arange(64)  # (S,)
causal = seen(64, 64)  # (T, S)
patterns = {
    "all keys": causal,
    "window of 16": seen(64, 16),
    "window of 12, 4 pinned": seen(64, 12) | causal & (key < 4),
}
heard = {}
for name, see in patterns.items():
    heard[name] = see.float() @ see.float() > 0  # (T, S): one of my keys has seen it
unheard = int((~heard["window of 16"][-1]).sum())  # by the last token

# %%
title = "Whom does the last token hear of, directly and through a second layer?"
found = f"Under a window of 16, {unheard} of 64 tokens are out of reach even through a second layer"
drawings.patterns_seen(patterns, heard, title)

# %% [markdown]
r"""
**What to notice.** Each layer reaches W - 1 tokens further, so L layers reach **L (W - 1)**. Pinned
keys are seen by all, but hear nothing of the text: a place for a prompt.

How much arrives from the farthest word? Let every layer look at all its W keys alike. **Before you
run it:** for L = 4 and W = 64, as in the base, beyond which distance comes less than a thousandth?
"""

# %%
even = seen(300, W).float()  # (T, S)
even = even / even.sum(1, keepdim=True)  # each query looks at all its keys alike
shares, passed_on = {}, torch.eye(300)
for layers in range(1, L + 1):
    passed_on = even @ passed_on  # (T, S): through one layer more
    shares[layers] = passed_on[-1].flip(0)  # (S,): the last token's share, by how far back
reach = L * (W - 1)
beyond = shares[L].flip(0).cumsum(0).flip(0)  # (S,): all that comes from this far back or farther
practice = int((beyond >= 0.001).sum()) - 1

# %%
title = "From how far back does the last token hear, through one to four layers?"
found = (f"The farthest word is {reach} back, but from beyond {practice} comes less than a "
         f"thousandth (the farthest word: {shares[L][reach]:.0e})")
drawings.reach_through_layers(shares, W, title)

# %% [markdown]
r"""
**What to notice.** To the farthest word there is one path only: every layer must look at exactly
its last key. To words in the middle there are many. So little arrives from far away. In practice
the reach is shorter still: somebody must have taught the tokens between to hand a message on. Class
6 tests that.

## 4. Two ways to have a window

A mask says which pairs count. But all are *computed*, and most thrown away. To save, leave pairs
out: W queries in a row, a **block**, need no more than 2 W - 1 keys. **Before you run it:** T
becomes twice as long. By which factor should the time of a mask grow, and that of blocks?
"""

# %%
def my_blocks(q, k, v, window):
    parts, T = [], q.shape[2]
    for start in range(0, T, window):
        first, end = max(0, start - window + 1), min(start + window, T)  # keys that one may see
        back = torch.arange(start, end)[:, None] - torch.arange(first, end)  # (up to W, 2 W - 1)
        see = (back >= 0) & (back < window)
        few = k[:, :, first:end], v[:, :, first:end]
        parts.append(torchs(q[:, :, start:end], *few, see, enable_gqa=True))
    return torch.cat(parts, 2)  # (B, H, T, D)

def milliseconds(way, *given):  # of CPU time, the best of five
    return 1000 * min(repeat(lambda: way(*given), timer=process_time, number=1, repeat=5))

sizes, times = [256, 512, 1024, 2048, 4096], {"mask": [], "blocks": []}
for T in sizes:
    heads, mask = random_heads(T), project_mask(T, W)
    times["mask"].append(milliseconds(attention, *heads, mask))
    times["blocks"].append(milliseconds(my_blocks, *heads, W))
apart = (my_blocks(*heads, W) - attention(*heads, mask)).abs().max()

# %%
title = "How does the time grow with the text: window as a mask, window in blocks?"
times_faster = times["mask"][-1] / times["blocks"][-1]
found = (f"The same numbers (largest difference {apart:.0e}): at T = {sizes[-1]:,} blocks are "
         f"about {times_faster:.0f} times faster on this machine")
drawings.mask_and_blocks(sizes, times, title)

# %% [markdown]
r"""
**What to notice.** Twice the text is four times the pairs with a mask, twice with blocks. Blocks
pay when T is far above W. Our texts are short, so model.py has a mask.

## 5. Flash: a softmax one tile at a time

Softmax divides by a sum over all keys, after subtracting the largest score: exp(90) is too large
for float32. **Before you write it:** you have seen the scores 1 and 3. Now 90 comes. What do you do
with the sum so far?

### Exercise 2

`parts` gives tensors of scores (n,), one after another, each to be looked at once. Return
log(sum(exp(score))) over all of them, the **log-sum-exp**. Scores may be near 1,000 or -1,000.

<details><summary>Hint</summary>

Remember two numbers: the largest score `top`, and the sum of exp(score - top). When `top` becomes
`new`, the old sum is multiplied by exp(top - new).

</details>

The cell behind it does this for **tiles** of 64 keys, and carries the weighted values along, as
`absorb` in classroom/flash.py does.
"""

# %%
@exercise
def running_lse(parts):
    """The log-sum-exp of all scores in all parts: a float."""
    raise NotImplementedError

# %%
def my_absorb(out, top, total, scores, v):  # scores (..., T, S) of one more tile of keys
    new = torch.maximum(top, scores.amax(-1, keepdim=True))  # (..., T, 1)
    shrink, weights = (top - new).exp(), (scores - new).exp()  # (..., T, 1), (..., T, S)
    return out * shrink + weights @ v, new, total * shrink + weights.sum(-1, keepdim=True)

q, k, v = 20 * torch.randn(3, 1, 1, 1, 256, D, dtype=torch.double)  # (B, Hkv, G, T, D) each
mine = theirs = flash.nothing(q)  # before the first key: out 0, top -infinity, total 0
for start in range(0, 256, 64):
    k_i, v_i = k[..., start:start + 64, :], v[..., start:start + 64, :]  # a tile of 64 keys
    mine = my_absorb(*mine, q @ k_i.mT / D**0.5, v_i)
    theirs = flash.absorb(theirs, q, k_i[0], v_i[0])  # its k and v are (B, Hkv, S, D)
out, top, total = mine
print(f"largest score {top.max():.0f}")
print(f"to a softmax over all keys: {(out / total - torchs(q, k, v)).abs().max():.0e}")
print(f"to flash.absorb: {(out - theirs[0]).abs().max():.0e}")
print(f"log-sum-exp of query 0: {running_lse(((q @ k.mT)[0, 0, 0, 0] / D**0.5).split(64)):.3f} is "
      f"{top[0, 0, 0, 0, 0] + total[0, 0, 0, 0, 0].log():.3f}")

# %% [markdown]
r"""
**What to notice.** The differences are rounding: nothing is approximated. And only one tile of
scores was there at any time.

**Why it is fast.** `my_attention` writes all scores to memory, and reads and writes them again for
mask, softmax and product. This **memory traffic** takes longer than the arithmetic. A tile stays in
the fastest memory. torch's own attention for CPUs is flash. **Before you run it:** how many times
faster is it?
"""

# %%
faster = {}
for T in sizes[1:4]:
    heads = random_heads(T)
    whole = milliseconds(my_attention, *heads, seen(T, T))
    tiles = milliseconds(lambda q, k, v: torchs(q, k, v, is_causal=True, enable_gqa=True), *heads)
    faster[T] = whole / tiles
    print(f"T = {T:,}: five lines hold {4 * H * T * T:,} bytes of scores at a time; "
          f"torch's flash is {faster[T]:.0f} times faster")

# %% [markdown]
r"""
**What to notice.** The same numbers, much sooner. (Skipping the future saves at most a half.) The
ratios are this machine's.

## 6. One line of the backward

Flash attention (Dao et al. 2022) keeps no weights for the backward. It makes them again, tile by
tile: exp(score - log-sum-exp). One sum over all keys is in the way. Write P for the weights, O = P
V for the output, dX for the gradient of the loss by X:

    dP_ts = dO_t.V_s
    dS_ts = P_ts (dP_ts - sum_r(P_tr dP_tr))
    sum_r(P_tr dP_tr) = dO_t.sum_r(P_tr V_r) = dO_t.O_t

So **dS = P * (dP - rowsum(dO * O))**: the output already has that sum, and no tile waits for
another.
"""

# %%
q, k, v, dO = torch.randn(4, 96, D, dtype=torch.double)  # (T, D) each
scores = (q @ k.T / D**0.5).masked_fill(~seen(96, 96), -torch.inf).requires_grad_()  # (T, S)
P = scores.softmax(1)  # (T, S)
O = P @ v  # (T, D)
dS = P * (dO @ v.T - (dO * O).sum(1, keepdim=True))  # (T, S)
[slope] = torch.autograd.grad(O, scores, dO)  # (T, S)
print(f"our line differs from autograd by {(dS - slope).abs().max():.0e}")

# %% [markdown]
r"""
**What to notice.** It is autograd's gradient. For each query flash keeps one number, the
log-sum-exp, in place of T weights.

## 7. Ring: the keys come past

A text may be too long for one machine. In **ring attention** (Liu et al. 2023) each of R workers
has T / R of the queries, keys and values. Something goes round, and is taken in with `absorb`.
**Before you run it:** what should travel, and how often with R = 4?
"""

# %%
def my_ring(q, k, v, R):  # one worker after another; on R machines they would all work at once
    queries = q.unflatten(1, (Hkv, -1)).chunk(R, 3)  # R of (B, Hkv, G, T / R, D)
    keys, values = k.chunk(R, 2), v.chunk(R, 2)  # R of (B, Hkv, T / R, D) each
    triangle = seen(q.shape[2] // R, q.shape[2])  # (T / R, T / R)
    outs, visits = [], []
    for worker in range(R):
        state = flash.nothing(queries[worker])
        here = [(worker - step) % R for step in range(R)]  # whose keys and values, step by step
        for source in here:
            see = triangle if source == worker else None
            if source <= worker:  # a later worker's keys are in the future
                state = flash.absorb(state, queries[worker], keys[source], values[source], see)
        outs.append(flash.finish(state)[0])
        visits.append(here)
    return torch.cat(outs, 3).flatten(1, 2), visits  # (B, H, T, D)

q, k, v = random_heads(512)
out, visits = my_ring(q, k, v, 4)
apart = (out - torchs(q, k, v, is_causal=True, enable_gqa=True)).abs().max()

# %%
title = "Whose keys and values are at which worker, step by step?"
found = (f"Each part of the keys and values travels {len(visits) - 1} times among {len(visits)} "
         f"workers; nothing is lost (largest difference {apart:.0e})")
drawings.ring_visits(visits, title)

# %% [markdown]
r"""
**What to notice.** Keys and values travel, R - 1 times each. Queries stay, and with them their
running output, maximum and sum. GQA helps again: fewer keys to send. A light cell is a visit in
vain: the keys are in the future.
"""

# %% [markdown]
r"""
## Summary

GQA shares keys and values between query heads: the cache is G times smaller, the pairs stay. A
window makes pairs fewer and changes the result; L layers reach L (W - 1) back, in practice less.
Leaving pairs out saves time, a mask does not. Flash and ring give the same numbers, one tile at a
time.
"""

# %% [markdown]
r"""
## Homework

### Exercise 3. The fixed pattern

Child et al. (2019) have two patterns that reach further than a window with fewer pairs.
**Strided**: the last 8 keys, and every 8th key before them. **Fixed**: the text is cut into blocks
of `stride` tokens. A query sees the keys of its own block, and the last key of each block before
it. Nobody sees the future.

<details><summary>Hint</summary>

With `t = torch.arange(T)[:, None]` and `s = torch.arange(T)`, `s // stride` is the block of a key
and `s % stride` its place there. Comparisons of `t` and `s` give (T, T).

</details>

**Before you run the cell behind it:** which of the two has fewer pairs?
"""

# %%
@exercise
def fixed_pattern(T, stride):
    """True where a query (row) sees a key (column): a bool tensor (T, T)."""
    raise NotImplementedError

# %%
back = key[:, None] - key  # (T, S)
sparse = {
    "window of 16": seen(64, 16),
    "strided by 8": seen(64, 8) | causal & (back % 8 == 0),
    "fixed by 8": fixed_pattern(64, 8),
}
heard_of = {name: see.float() @ see.float() > 0 for name, see in sparse.items()}
pairs = {name: int(see.sum()) for name, see in sparse.items()}

# %%
title = "Which pattern has the fewest pairs, and which reach everybody?"
found = (f"Fixed has the fewest pairs ({pairs['fixed by 8']} of {int(causal.sum()):,}), and reaches"
         " everybody in two layers")
drawings.patterns_seen(sparse, heard_of, title)

# %% [markdown]
r"""
**What to notice.** Both reach everybody with fewer pairs than the window. The price: in the fixed
pattern one key of each block must speak for the whole block.

### Exercise 4. Who works how much in the ring?

How many pairs (a query and a key that is not in its future) does each worker compute? Worker 0 has
the first tokens. T is a multiple of R.

<details><summary>Hint</summary>

With n = T / R: its own keys are a triangle, n (n + 1) / 2 pairs. The keys of each worker before it
are a square.

</details>

The cells behind it also run classroom/ring.py: the same ring with two real processes.
"""

# %%
@exercise
def ring_work(T, R):
    """The pairs of workers 0 to R - 1: a list of R ints. T is a multiple of R."""
    raise NotImplementedError

# %%
from subprocess import check_output
work = ring_work(512, 4)
import ring
launch = "-m torch.distributed.run --standalone --nproc-per-node=2".split()
print(check_output([sys.executable, *launch, ring.__file__], text=True))

# %%
title = "Is the work of four workers even?"
found = f"The last of four workers computes {work[-1] / work[0]:.0f} times the pairs of the first"
drawings.work_of_workers(work, title)

# %% [markdown]
r"""
**What to notice.** The work is uneven. It is even if each worker gets one piece from the start of
the text and one from the end. The real processes share one machine, so speed is not measured.

## Sources

- Ainslie et al. 2023, arXiv 2305.13245 (grouped queries)
- Beltagy et al. 2020, arXiv 2004.05150 (a window, and tokens that all see)
- Child et al. 2019, arXiv 1904.10509 (strided and fixed patterns)
- Dao et al. 2022, arXiv 2205.14135 (flash attention)
- Liu et al. 2023, arXiv 2310.01889 (ring attention)
- Milakov & Gimelshein 2018, arXiv 1805.02867 (running maximum and sum)
"""
