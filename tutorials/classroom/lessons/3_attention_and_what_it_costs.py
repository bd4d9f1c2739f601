# %% [markdown]
r"""
# Attention and what it costs

Attention compares each token with each token before it: this class counts what that costs, and
shows five ways to pay less.

After this class you can

1. write attention from torch alone, with shared heads and a window, and count what it costs;
2. compute a softmax over keys that you never see all at once, and derive its gradient;
3. say which ways change the result (window, sparse) and which do not (flash, ring).

Needs: the idea of queries, keys and values; `model.py` open beside you.

Letters: B rows, T tokens, S keys, D numbers in a head. W is the **window**: how many keys a query
may see, itself included. H query heads share Hkv heads of keys and values, G = H / Hkv query heads
each: this is **grouped-query attention** (GQA). A **pair** is one query with one key.

## 1. Attention in five lines

We write attention from torch alone. The project's `attention` does the same, and leaves the softmax to
torch; it takes its mask as numbers that are added to the scores. **Before you run it:** the base has H
= 4 and Hkv = 2. Which query heads read key head 0? Will three programs for one formula give the same
numbers?
"""

# %%
import sys
sys.path.insert(0, "classroom")
from dataclasses import replace
import torch
from matplotlib import pyplot
from torch.nn.functional import scaled_dot_product_attention as torchs
from checks import exercise
import flash
from model import GPT, attention, attention_mask
from train import load_base
model, _ = load_base(device="cpu")  # frozen
torch.set_num_threads(1)  # one core, so that times can be compared

# %%
torch.manual_seed(0)

def my_attention(q, k, v, see):  # q (B, H, T, D), k and v (B, Hkv, S, D), see (T, S)
    G = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(G, 1), v.repeat_interleave(G, 1)  # (B, H, S, D) each
    scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5  # (B, H, T, S)
    weights = scores.masked_fill(~see, -torch.inf).softmax(3)  # (B, H, T, S): each row sums to 1
    return weights @ v  # (B, H, T, D)

def seen(T, window):
    back = torch.arange(T)[:, None] - torch.arange(T)  # (T, T): how far back the key is
    return (back >= 0) & (back < window)  # (T, T): True where query t sees key s

# %%
config = model.config
H, Hkv, D, W = config.n_head, config.n_kv_head, config.head_dim, config.window
def project_mask(T, window):  # 0 where a key is seen, else minus infinity: (B, 1, T, S)
    pos, pinned = torch.arange(T)[None], torch.zeros(1, dtype=torch.long)  # (B, T), (B,)
    return attention_mask(pos, pos, pinned, window, torch.float32)

q, k, v = (torch.randn(1, heads, 400, D) for heads in (H, Hkv, Hkv))  # (B, H or Hkv, T, D)
for window in (400, W):
    mine = my_attention(q, k, v, seen(400, window))  # (B, H, T, D)
    theirs = torchs(q, k, v, seen(400, window), enable_gqa=True)  # (B, H, T, D)
    apart = [mine - theirs, mine - attention(q, k, v, project_mask(400, window))]
    print(f"window {window}: torch, model.py differ by", *(f"{x.abs().max():.0e}" for x in apart))

# %% [markdown]
r"""
**What to notice.** The three agree up to the rounding of float32. `repeat_interleave` lays the
copies side by side, so the first two query heads read key head 0, and the last two key head 1.

## 2. The cache: what is kept

While a model writes, it keeps the keys and values of all tokens so far, in each of its L layers.
This is the **cache** (in this project a `Past`). GQA makes it smaller.

### Exercise 1

How many bytes are the keys and values of T tokens, in all layers, for one row in float32 (4 bytes
a number)?

<details><summary>Hint</summary>

`config` has `n_layer`, `n_head`, `n_kv_head` and `head_dim`. One of the four plays no part. Keys
*and* values are kept.

</details>

**Before you run the cell behind it:** how long must a text be until its cache is as big as all
weights of the base (four megabytes)?
"""

# %%
@exercise
def kv_cache_bytes(config, T):
    """The bytes of keys and values of T tokens in all layers, one row, float32: an int."""
    raise NotImplementedError

# %%
groups, size = [1, 2, 4], 4 * sum(p.numel() for p in model.parameters())  # of the base, bytes
shapes = [replace(config, n_kv_head=heads) for heads in groups]
pasts = [GPT(shape)(torch.zeros(1, 256).long())[1] for shape in shapes]  # untrained: only to count
pyplot.plot(groups, [kv_cache_bytes(shape, 2000) / 1e6 for shape in shapes], "s-", color="#D55E00")
pyplot.plot(groups, [sum(x.nbytes for x in p.keys + p.values) / 1e6 for p in pasts], "o-")
pyplot.axhline(size / 1e6, color="0.45", linestyle="--")
pyplot.legend(["2,000 tokens, by the formula", "256 tokens, measured", "all weights of the base"])
pyplot.gca().set(xlabel="Hkv (heads of keys and values)", xticks=groups, ylabel="MB", ylim=0)
pyplot.title(f"{size / kv_cache_bytes(config, 1):,.0f} tokens of cache are as big as the base")
print(f"{kv_cache_bytes(config, 1):,} bytes for each token")

# %% [markdown]
r"""
**What to notice.** Half the key heads, half the cache. It grows with Hkv and with T; H plays no
part. Here each token adds 2,048 bytes. The pairs do *not* become fewer: each query head still has
scores of its own. What sharing does to the answers cannot be seen here, since the base was trained
with one Hkv only.

## 3. Fewer pairs: sparse patterns

A window is a **local** pattern. Child et al. (2019) add two that reach further. **Strided**: the
last 8 keys, and every 8th key before them. **Fixed**: see the exercise. In this project the rule for
what is visible has one more part: the first `pinned` keys stay visible whatever the window, so
that a soft prompt (learned vectors before the text) never slides out of sight.

### Exercise 2

Fixed: the text is cut into blocks of `stride` tokens. A query sees the keys of its own block, and
the last key of each block before it. Nobody sees the future.

<details><summary>Hint</summary>

With `t = torch.arange(T)[:, None]` and `s = torch.arange(T)`, `s // stride` is the block of a key
and `s % stride` its place there. Comparisons of `t` and `s` give (T, T).

</details>

**Before you run the cell behind it:** which pattern has the fewest pairs? Through two layers a
token hears of what its keys have seen. Whom does the last token hear of then?
"""

# %%
@exercise
def fixed_pattern(T, stride):
    """True where a query (row) sees a key (column): a bool tensor (T, T)."""
    raise NotImplementedError

# %%
full, key = seen(64, 64), torch.arange(64)  # (T, T), (T,)
patterns = {"full": full, "window of 16": seen(64, 16), "fixed by 8": fixed_pattern(64, 8),
            "strided by 8": seen(64, 8) | full & ((key[:, None] - key) % 8 == 0),
            "window of 12, 4 pinned": seen(64, 12) | full & (key < 4)}  # (T, T) each
few = min(patterns, key=lambda name: patterns[name].sum())
figure, axes = pyplot.subplots(1, 5, figsize=(14, 3.6), layout="constrained")
figure.suptitle(f"Dark: seen. Light: heard of through two layers. The fewest pairs: {few}\n")
for axis, (name, see) in zip(axes, patterns.items()):
    two = see.float() @ see.float() > 0  # (T, T): one of my keys has seen it
    axis.imshow(see.int() + two.int(), cmap="Blues")
    axis.set(title=f"{name}\n{see.sum():,} pairs", xlabel="key (token)", ylabel="query (token)")

# %% [markdown]
r"""
**What to notice.** Two layers under a window reach two windows back and no further. Fixed and
strided have fewer pairs than the window, 512 and 708, and yet reach everybody in two layers: the
first brings the news to a key that I see. The price is that this one key must speak for many.
Pinned keys are seen by all later tokens. But they come first and hear nothing of the text, so they
pass none of it on: a place for a prompt.

## 4. A mask saves nothing

A pattern says which pairs count. It does not say which are *computed*: a mask over all scores
computes every pair and throws most of them away. To save, leave the pairs out. W queries in a row
need no more than 2 W - 1 keys, so we cut the text into **blocks** of W queries.

Then the clock: CPU time, since other programs interrupt every long call. "Whole" and "in strips" are
`my_attention`, once for all queries and once for 64 at a time: the same pairs and the same numbers.
**Before you run it:** T becomes twice as long. By which factor should each way's time grow? Which will
be slower, a mask or none?
"""

# %%
def my_blocks(q, k, v, window):
    parts, T = [], q.shape[2]
    for start in range(0, T, window):
        first, end = max(0, start - window + 1), min(start + window, T)  # keys that one may see
        back = torch.arange(start, end)[:, None] - torch.arange(first, end)  # (up to W, 2 W - 1)
        few, see = [k[:, :, first:end], v[:, :, first:end]], (back >= 0) & (back < window)
        parts.append(torchs(q[:, :, start:end], *few, see, enable_gqa=True))
    return torch.cat(parts, 2)  # (B, H, T, D)

q, k, v = (torch.randn(1, heads, 1000, D) for heads in (H, Hkv, Hkv))  # (B, H or Hkv, T, D)
apart = my_blocks(q, k, v, W) - attention(q, k, v, project_mask(1000, W))
print(f"blocks and model.py's mask differ by {apart.abs().max():.0e}")

# %%
from time import process_time  # of this process only: others do not count
from timeit import repeat
sizes, took = [128, 256, 512, 1024, 2048], {}
for T in sizes:
    q, k, v = (torch.randn(1, heads, T, D) for heads in (H, Hkv, Hkv))  # (B, H or Hkv, T, D)
    see, near = seen(T, T), project_mask(T, W)
    ways = [lambda: torchs(q, k, v, enable_gqa=True),
            lambda: torchs(q, k, v, is_causal=True, enable_gqa=True),
            lambda: attention(q, k, v, near), lambda: my_blocks(q, k, v, W),
            lambda: my_attention(q, k, v, see),
            lambda: [my_attention(x, k, v, s) for x, s in zip(q.split(64, 2), see.split(64))]]
    took[f"{T:,}"] = [1000 * min(repeat(way, timer=process_time, number=1)) for way in ways]

# %%
names = ["all pairs", "causal", "window as a mask", "window in blocks", "whole", "in strips"]
colours = ["0.6", "#000000", "#D55E00", "#009E73", "#CC79A7", "#0072B2"]
figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.2), sharey=True)
for n, times in enumerate(zip(*took.values())):
    axes[n // 4].semilogy(list(took), times, "o-", color=colours[n], label=names[n])
mask, blocks, whole, strips = took["2,048"][2:]
axes[0].set_title(f"Blocks are {mask / blocks:.0f} times faster than a mask (T = 2,048)")
axes[1].set_title(f"Same pairs: strips are {whole / strips:.1f} times faster")
for axis in axes:
    axis.semilogy(4.0 ** torch.arange(5) / 4, ":", color="0.5", label="4 times for twice the text")
    axis.set(xlabel="T (tokens)", ylabel="CPU time (ms)")
    axis.legend()

# %% [markdown]
r"""
**What to notice.** A mask costs all pairs, and is read too. Causal attention without one is faster
in long texts: perhaps torch skips tiles of the future. Blocks pay when T is far
above W; model.py, for short texts, has a mask.

The odd time: *whole* takes more than four times as long for twice the text, *strips* with the same
pairs do not. The rest is memory: large arrays go back to the system and return as new pages.
(Told to keep them, *whole* took as long.)

## 5. Flash: a softmax without the whole row

Softmax divides by a sum over all keys. It first subtracts the largest score, since exp(90) is too
large for float32. Must we see all scores for that? No. **Before you write it:** you have seen the
scores 1 and 3. Now 90 comes. What do you do with the sum that you have so far?

### Exercise 3

`parts` gives tensors of scores (n,), one after another, and each can be looked at once. Return
log(sum(exp(score))) over all of them, the **log-sum-exp**. Scores may be near 1,000 or -1,000,
where exp alone gives infinity or zero.

<details><summary>Hint</summary>

Remember two numbers: the largest score `top`, and the sum of exp(score - top). When `top` becomes
`new`, the old sum is multiplied by exp(top - new).

</details>

**The cell behind it** does this for tiles of keys, and carries the weighted values along.
`absorb` in classroom/flash.py is the same step. Will they agree where exp alone overflows?
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
for k_i, v_i in zip(k.split(64, 3), v.split(64, 3)):  # tiles of 64 keys
    mine = my_absorb(*mine, q @ k_i.mT / D**0.5, v_i)
    theirs = flash.absorb(theirs, q, k_i[0], v_i[0])  # its k and v are (B, Hkv, S, D)
apart = [mine[0] / mine[2] - torchs(q, k, v), *map(torch.sub, mine, theirs)]
print(f"largest score {mine[1].max():.0f}; differ by", *(f"{x.abs().max():.0e}" for x in apart))

# %% [markdown]
r"""
**What to notice.** The largest score is above 1,000: there exp alone overflows even in float64. The
first difference is to torch's softmax over all keys, the others to what flash.py remembers: values,
largest score, sum. All are rounding: shrinking what was summed so far approximates nothing.
And no more than one tile of scores was there at any time.

## 6. One line of the backward

Flash attention (Dao et al. 2022) goes through the keys in tiles, as above, and keeps no weights.
But the backward needs them. It makes them again: exp(score - log-sum-exp), one number kept for each
query. One sum is still in the way. Write P for the weights, O = P V for the output, and dX for the
gradient of the loss with respect to X:

    P_ts   = exp(S_ts) / sum over r of exp(S_tr)             softmax of row t
    dP_ts  = dO_t . V_s                                      since O_t = sum over s of P_ts V_s
    dS_ts  = P_ts (dP_ts - sum over r of P_tr dP_tr)         the derivative of a softmax
    the sum = dO_t . (sum over r of P_tr V_r) = dO_t . O_t   put dP in, and O comes out

So **dS = P * (dP - rowsum(dO * O))**. The sum over all keys is a number that the output already has.
No tile waits for another. **Before you run it:** what must flash attention keep for its backward?
"""

# %%
q, k, v, dO = torch.randn(4, 96, D, dtype=torch.double)  # (T, D) each
scores = (q @ k.T / D**0.5).masked_fill(~seen(96, 96), -torch.inf).requires_grad_()  # (T, S)
P = scores.softmax(1)  # (T, S)
O = P @ v  # (T, D)
dS = P * (dO @ v.T - (dO * O).sum(1, keepdim=True))  # (T, S)
[slope] = torch.autograd.grad(O, scores, dO)  # (T, S)
print(f"dS by hand differs from autograd by {(dS - slope).abs().max():.0e}")
q, k, v = (torch.randn(1, heads, 512, D, requires_grad=True) for heads in (H, Hkv, Hkv))
out = flash.Flash.apply(q.unflatten(1, (Hkv, -1)), k, v, 128)  # (B, Hkv, G, T, D)
print("flash keeps", [tuple(x.shape) for x in out.grad_fn.saved_tensors])

# %% [markdown]
r"""
**What to notice.** Our line is autograd's gradient, up to rounding. Flash keeps q, k, v, the output,
and in the last shape one number for each query. `my_attention` keeps the weights, T numbers for each
query. The price: every tile of scores is computed again in the backward. So flash saves memory, and no
pair that is needed. Whether it is also faster depends on how it is written: ours is a loop of Python.

## 7. Ring: the keys come past

A text may be too long for one machine. In **ring attention** (Liu et al. 2023) each of R workers
has T / R of the queries, keys and values. The queries stay. Keys and values go round, from each
worker to the next, R - 1 times. Each worker takes in what it gets with `absorb`.

### Exercise 4

How many pairs (a query and a key that is not in its future) does each worker compute? Worker 0
has the first tokens. T is a multiple of R.

<details><summary>Hint</summary>

With n = T / R: its own keys are a triangle, n (n + 1) / 2 pairs. The keys of each worker before it
are a square.

</details>

**Before you run the cells behind it:** with R = 4, how often does each key travel? Is the result
exact? We play the workers one after another; then classroom/ring.py does it with real processes.
"""

# %%
@exercise
def ring_work(T, R):
    """The pairs of workers 0 to R - 1: a list of R ints. T is a multiple of R."""
    raise NotImplementedError

# %%
def my_ring(q, k, v, R):  # one worker after another; on R machines they would all work at once
    queries, kv = q.unflatten(1, (Hkv, -1)).chunk(R, 3), torch.stack((k, v)).chunk(R, 3)
    outs, sent, triangle = [], 0, seen(q.shape[2] // R, q.shape[2])  # (T / R, T / R)
    for worker in range(R):
        state = flash.nothing(queries[worker])  # (B, Hkv, G, T / R, D) and two of (..., 1)
        for step in range(R):
            source, see = (worker - step) % R, None if step else triangle  # whose keys are here
            sent += kv[source].nbytes if step else 0  # its own need not travel
            if source <= worker:  # a later worker's keys are in the future
                state = flash.absorb(state, queries[worker], *kv[source], see)
        outs.append(flash.finish(state)[0])
    return torch.cat(outs, 3).flatten(1, 2), sent  # (B, H, T, D)

# %%
from subprocess import check_output
outs, sent = zip(*(my_ring(q, k, v, R) for R in (1, 2, 4, 8)))  # the 512 tokens of above
apart = max((out - torchs(q, k, v, is_causal=True, enable_gqa=True)).abs().max() for out in outs)
work, all_keys = ring_work(512, 4), k.nbytes + v.nbytes  # pairs of each worker; bytes
figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.6))
axes[0].bar(["1", "2", "4", "8"], [x / all_keys for x in sent], color="#009E73")
axes[1].bar(["first", "second", "third", "last"], [n / 1000 for n in work], color="#0072B2")
axes[0].set(title=f"R = 8: all travels {sent[3] / all_keys:.0f} times", xlabel="R", ylabel="times")
axes[1].set(title=f"Last of 4: {work[3] / work[0]:.0f} times the first", ylabel="1,000 pairs")
command = "-m torch.distributed.run --standalone --nproc-per-node=2 classroom/ring.py".split()
print(f"my_ring: {apart:.0e} off; ring.py:", check_output([sys.executable, *command], text=True))

# %% [markdown]
r"""
**What to notice.** The result is the same up to rounding, also with real processes: with two workers
all keys and values travel once. With fewer key heads less travels, so GQA helps here too. Part of it is
in vain: the keys of a later worker pass an earlier one that may not see them. The work is uneven. It is
even if each worker gets one piece from the start of the text and one from the end. The processes share
one machine, so speed is not measured.

## Summary

Attention compares all pairs. GQA makes the cache smaller and leaves the pairs. A window or a sparse
pattern has fewer pairs: the result changes, and time is saved only where pairs are left out, not
masked. Flash and ring give the same result. Flash keeps one number for each query in place of
a row of weights; ring puts the tiles on several machines. Both rest on one step, the running
softmax. And the clock measures memory too, not only arithmetic.

## Sources

- Ainslie et al. 2023, arXiv 2305.13245 (grouped queries)
- Beltagy et al. 2020, arXiv 2004.05150 (a window, and tokens that all see)
- Child et al. 2019, arXiv 1904.10509 (strided and fixed patterns)
- Dao et al. 2022, arXiv 2205.14135 (flash attention)
- Liu et al. 2023, arXiv 2310.01889 (ring attention)
- Milakov & Gimelshein 2018, arXiv 1805.02867 (running maximum and sum)
"""
