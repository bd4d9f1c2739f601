# %% [markdown]
r"""
# Attention and what it costs

Attention compares each token with each before it. What does that cost, and how does one pay less?

After this class you can

1. write attention with shared heads and a window;
2. compute a softmax over keys that you never see all at once;
3. say which ways to pay less change the result, and which do not.

Needs: queries, keys and values; softmax. Keep `model.py` open beside you.

**Letters.** B rows, T tokens (queries), S keys, D numbers in a head. A **window** W is how many
keys a query may see, itself included. One query with one key is a **pair**: one score in each head.

## 1. Attention in five lines

In **grouped-query attention** (GQA) H query heads share Hkv heads of keys and values. G = H / Hkv
query heads are a group. **Before you run it:** our base has H = 4 and Hkv = 2. Which query heads
read the first key head?
"""

# %%
import sys
sys.path.insert(0, "classroom")
import math
from dataclasses import replace
from time import process_time
from timeit import repeat
import torch
from torch.nn.functional import scaled_dot_product_attention as torch_attention
import plots
from checks import exercise
from model import GPT
from shared import open_lab
config = open_lab().model.config
H, Hkv, D, W = config.n_head, config.n_kv_head, config.head_dim, config.window
torch.set_num_threads(1)  # one core, so that times can be compared
torch.manual_seed(0)

# %%
def my_attention(q, k, v, see):  # q (B, H, T, D), k and v (B, Hkv, S, D), see (T, S)
    groups = q.unflatten(1, (k.shape[1], -1))  # (B, Hkv, G, T, D)
    # k[:, :, None] is (B, Hkv, 1, S, D): the 1 serves all G heads of the group.
    scores = groups @ k[:, :, None].mT / q.shape[3] ** 0.5  # (B, Hkv, G, T, S)
    weights = scores.masked_fill(~see, -torch.inf).softmax(-1)  # each row sums to 1
    return (weights @ v[:, :, None]).flatten(1, 2)  # (B, H, T, D)

def seen(queries, keys, window):  # their places in the text, (T,) and (S,)
    back = queries[:, None] - keys  # (T, S): how far back the key is
    return (back >= 0) & (back < window)  # (T, S): True where the query sees the key

def random_heads(T):
    return [torch.randn(1, heads, T, D) for heads in (H, Hkv, Hkv)]  # q, k, v

# %%
q, k, v = random_heads(400)
places = torch.arange(400)  # (T,)
see = seen(places, places, W)  # (T, T)
mine, theirs = my_attention(q, k, v, see), torch_attention(q, k, v, see, enable_gqa=True)
print(f"mine and torch's are {(mine - theirs).abs().max():.0e} apart")

# %% [markdown]
r"""
**What to notice.** The same up to rounding. Query heads 1 and 2 read the first key head, 3 and 4
the second. *How* GQA is computed is a change of shape, and no key is copied. But a model with fewer
key heads has other numbers: it is another model, and was trained so.

## 2. The cache

While a model writes, it keeps the keys and values of all tokens so far, in each layer. This is the
**cache**.

### Exercise 1. How big is the cache?

How many bytes are the keys and values of T tokens, in all layers, for one row? A number is a
float32: 4 bytes.

<details><summary>Hint</summary>

`config` has `n_layer`, `n_head`, `n_kv_head` and `head_dim`. One of the four plays no part.

</details>
"""

# %%
@exercise
def kv_cache_bytes(config, T):
    """The bytes of keys and values of T tokens in all layers, one row, float32: an int."""
    raise NotImplementedError

# %%
for heads in (4, 2, 1):
    shape = replace(config, n_kv_head=heads)
    _, past = GPT(shape)(torch.zeros(1, 200, dtype=torch.long))  # not trained: only to count
    counted = sum(states.nbytes for states in past.keys + past.values)
    print(f"Hkv = {heads}: cache {kv_cache_bytes(shape, 200):,} bytes (counted: {counted:,})")

# %% [markdown]
r"""
**What to notice.** The cache is G times smaller than with a key head for each query head. The
scores are *not* fewer: each query head has its own.

## 3. What a window does

With a window each query sees its W nearest keys. The first `pinned` keys stay visible: so a soft
prompt does not slide out of sight.
"""

# %%
key = torch.arange(16)  # (T,)
see = seen(key, key, 5) | seen(key, key, 16) & (key < 3)  # (T, T)

# %%
title = "Window 5, 3 pinned: what does each token see?"
found = "Window 5, 3 pinned: the last token sees 8 of 16 keys"
plots.mask(see, title)

# %% [markdown]
r"""
A token also hears of what its keys have heard, one layer below. So each layer reaches W - 1 tokens
further back: L layers reach **L (W - 1)**. For our base, with L = 4 and W = 64, that is 252. But
how much arrives? Let each token look at all its keys alike, in each layer. **Before you run it:**
from how many tokens back does most come, through four layers?
"""

# %%
places = torch.arange(300)  # (T,)
even = seen(places, places, W).float()  # (T, T)
even = even / even.sum(1, keepdim=True)  # each query looks at all its keys alike
rows, heard = [], torch.eye(300)
for layer in (1, 2, 3, 4):
    heard = even @ heard  # (T, T), through one layer more
    for back in range(0, 253, 18):
        share = heard[-1, 299 - back].item()
        rows.append({"layers": f"layers: {layer}", "tokens back": back, "share": share})

# %%
title = "How much is heard, from how far back?"
found = f"Most from 126 back; from 252 hardly anything ({share:.0e})"
plots.lines(rows, x="tokens back", y="share", by="layers", title=title)

# %% [markdown]
r"""
**What to notice.** Four layers reach 252. Most comes from 126 back, the middle: many paths lead
there. To the farthest token there is one path only. And somebody must have taught the tokens
between to hand a message on: class 6 tests it.

## 4. A window must be cut, not masked

A mask hides pairs, but all of them are *computed*. To save time, leave the hidden ones out. A
**block** is W queries in a row. The first of them sees W - 1 keys before the block. So a block
needs at most 2 W - 1 keys. **Before you run it:** the text becomes twice as long. How many times as
long does it take with a mask, and with blocks?
"""

# %%
def my_blocks(q, k, v, window):
    outs = []
    for queries in torch.arange(q.shape[2]).split(window):  # places of one block, (W,)
        first = max(0, queries[0] - window + 1)  # the farthest key that one of them sees
        keys = torch.arange(first, queries[-1] + 1)  # at most 2 W - 1 places
        see = seen(queries, keys, window)  # (W, at most 2 W - 1)
        outs.append(my_attention(q[:, :, queries], k[:, :, keys], v[:, :, keys], see))
    return torch.cat(outs, 2)  # (B, H, T, D)

def milliseconds(way, *given):  # of this process alone, the best of three
    return 1000 * min(repeat(lambda: way(*given), timer=process_time, number=1, repeat=3))

# %%
rows = []
for T in (256, 512, 1024, 2048):
    heads, places = random_heads(T), torch.arange(T)
    see = seen(places, places, W)  # (T, T)
    masked, in_blocks = milliseconds(my_attention, *heads, see), milliseconds(my_blocks, *heads, W)
    rows += [{"way": "mask", "tokens": T, "milliseconds": masked},
             {"way": "blocks", "tokens": T, "milliseconds": in_blocks}]
apart = (my_blocks(*heads, W) - my_attention(*heads, see)).abs().max()
print(f"blocks and mask are {apart:.0e} apart")

# %%
title = "A window: how does the time grow with the text?"
found = f"Blocks: the same numbers, {masked / in_blocks:.0f} times as fast"
plots.lines(rows, x="tokens", y="milliseconds", by="way", title=title)

# %% [markdown]
r"""
**What to notice.** With a mask, twice the text is about four times the time; with blocks, twice.
This saves time, not memory: our cache keeps all keys.

## 5. Flash: a softmax one tile at a time

Softmax divides by a sum of exp(score) over all keys. exp(90) is too large for a float32, so one
subtracts the largest score from all first. **Before you write it:** you have seen the scores 1 and
3. Now comes 90. What do you do with the sum so far?

### Exercise 2. A running sum

`parts` is a list of tensors of scores. Look at each of them once, one after another. Return
log(sum(exp(score))) over all: the **log-sum-exp**. Scores may be near 1,000 or -1,000.

<details><summary>Hint</summary>

Remember two numbers: the largest score `top`, and the sum of exp(score - top). When `top` becomes
`new`, the old sum is multiplied by exp(top - new).

</details>

The cell after the exercise computes this running sum for **tiles** of 64 keys, and carries the sum
of the values along.
"""

# %%
@exercise
def running_lse(parts):
    """The log-sum-exp of all scores in all parts: a float."""
    raise NotImplementedError

# %%
# out: the sum of exp(score - top) times value; total: that of exp(score - top).
def absorb(out, top, total, scores, v):  # scores (T, n) and values v (n, D) of one more tile
    new = torch.maximum(top, scores.amax(1, keepdim=True))  # (T, 1)
    shrink, weights = (top - new).exp(), (scores - new).exp()  # (T, 1), (T, n)
    return out * shrink + weights @ v, new, total * shrink + weights.sum(1, keepdim=True)

q, k, v = 20 * torch.randn(3, 256, D, dtype=torch.double)  # (T, D) each; 20: exp would overflow
out, top, total = torch.zeros(256, D), torch.full((256, 1), -torch.inf), torch.zeros(256, 1)
for k_i, v_i in zip(k.split(64), v.split(64)):  # a tile of 64 keys
    out, top, total = absorb(out, top, total, q @ k_i.T / D**0.5, v_i)
apart = (out / total - torch_attention(q, k, v)).abs().max()
print(f"tiles and all keys at once are {apart:.0e} apart")
print(f"log-sum-exp of the first query: {top[0, 0] + total[0, 0].log():.2f}, with yours "
      f"{running_lse((q[0] @ k.T / D**0.5).split(64)):.2f}")

# %% [markdown]
r"""
**What to notice.** Nothing is approximated: the difference is rounding. And only one tile of scores
was there at any time. This is **flash attention** (Dao et al. 2022).

**Why it is fast.** Our five lines write all scores to memory. They read and write them again for
the mask, the softmax and the product. That takes longer than the arithmetic. A tile stays in the
fastest memory. torch's own attention is flash.
"""

# %% [markdown]
r"""
## Summary

| | changes the result? | saves |
|---|---|---|
| grouped queries | yes: another model, trained so | memory of the cache |
| window | yes: far keys are not seen | time, if pairs are left out |
| flash | no | memory of the scores, and time |

Through L layers a window reaches L (W - 1) tokens back, in practice less.
"""

# %% [markdown]
r"""
## Homework

### How much faster is flash?

All pairs are computed. **Before you run it:** which grows faster with the text, our five lines or
torch's flash?
"""

# %%
def flash(q, k, v):
    return torch_attention(q, k, v, is_causal=True, enable_gqa=True)

rows = []
for T in (256, 512, 1024, 2048):
    heads, places = random_heads(T), torch.arange(T)
    see = seen(places, places, T)  # (T, T)
    lines, tiles = milliseconds(my_attention, *heads, see), milliseconds(flash, *heads)
    rows += [{"way": "five lines", "tokens": T, "milliseconds": lines},
             {"way": "flash", "tokens": T, "milliseconds": tiles}]

# %%
title = "All keys: how does the time grow with the text?"
found = f"The same numbers: flash is {lines / tiles:.0f} times as fast"
plots.lines(rows, x="tokens", y="milliseconds", by="way", title=title)

# %% [markdown]
r"""
**What to notice.** The same numbers, much sooner. (Flash also leaves out the future, but that saves
at most a half.) The pairs still grow with the square of the text. The ratios are those of one
machine.
"""

# %% [markdown]
r"""
### Ring attention: the keys come past

A text may be too long for one machine. In **ring attention** (Liu et al. 2023) each of R workers
has T / R of the queries, keys and values. Queries stay. Keys and values go round: R - 1 times, each
worker hands on what it has to the next. It takes in what comes with `absorb`, so the result is
exact. **Before you run it:** worker 1 has the first tokens of the text. Whose keys does it need?
"""

# %%
q, k, v = torch.randn(3, 512, D)  # (T, D) each
R, n = 4, 512 // 4
see = torch.ones(n, n).tril().bool()  # (n, n): no key in the future
outs, pairs = [], torch.zeros(R, R)  # pairs (worker, step), in shares of a square
for worker in range(R):  # worker 0 is "worker 1" below; on R machines all at once
    state = torch.zeros(n, D), torch.full((n, 1), -torch.inf), torch.zeros(n, 1)
    for step in range(R):
        source = (worker - step) % R  # whose keys and values are here now
        scores = q.split(n)[worker] @ k.split(n)[source].T / D**0.5  # (n, n)
        if source == worker:
            scores = scores.masked_fill(~see, -torch.inf)
        if source <= worker:  # else the keys are in the future
            state = absorb(*state, scores, v.split(n)[source])
            pairs[worker, step] = scores.isfinite().float().mean()
    outs.append(state[0] / state[2])
apart = (torch.cat(outs) - torch_attention(q, k, v, is_causal=True)).abs().max()
print(f"apart from all keys on one machine: {apart:.0e}")

# %%
title = "The ring: who computes how much, in each step?"
found = "The ring is exact, but its work is uneven"
names = [f"worker {worker}" for worker in range(1, R + 1)]
plots.squares(pairs.tolist(), names, [f"step {step}" for step in range(1, R + 1)], title)

# %% [markdown]
r"""
**What to notice.** In the first step each worker has a triangle of pairs, then squares; a white
square is a visit in vain. Worker 1 needs only its own keys. The work is even if each worker gets a
piece from the start of the text and one from the end. GQA helps again: there are fewer keys to
send.

### Exercise 3. Who works how much?

How many pairs (a query and a key that is not in its future) does each worker compute? Worker 1 has
the first tokens. T is a multiple of R.

<details><summary>Hint</summary>

With n = T / R: its own keys are a triangle, n (n + 1) / 2 pairs. The keys of each worker before it
are a square.

</details>

The cell behind it runs classroom/ring.py: the same ring with two real processes.
"""

# %%
@exercise
def ring_work(T, R):
    """The pairs of workers 1 to R: a list of R ints. T is a multiple of R."""
    raise NotImplementedError

# %%
from subprocess import check_output
import ring
print(ring_work(512, 4))
launch = "-m torch.distributed.run --standalone --nproc-per-node=2".split()
print(check_output([sys.executable, *launch, ring.__file__], text=True))

# %% [markdown]
r"""
### Exercise 4. The fixed pattern

Child et al. (2019) reach everybody with few pairs. In their *fixed* pattern the text is cut into
pieces of `stride` tokens. A query sees the keys of its own piece, and the last key of each piece
before it. Nobody sees the future. Write it.

<details><summary>Hint</summary>

With `t = torch.arange(T)[:, None]` and `s = torch.arange(T)`, `s // stride` is the piece of a key
and `s % stride` its place there. Comparisons of `t` and `s` give (T, T).

</details>
"""

# %%
@exercise
def fixed_pattern(T, stride):
    """True where a query (row) sees a key (column): a bool tensor (T, T)."""
    raise NotImplementedError

# %%
see = fixed_pattern(18, 6)  # (T, T)
title = "The fixed pattern: what does each token see?"
found = f"The fixed pattern: {see.sum()} of 171 pairs; one key speaks for its piece"
plots.mask(see, title)

# %% [markdown]
r"""
## Sources

- Ainslie et al. 2023, arXiv 2305.13245 (grouped queries)
- Beltagy et al. 2020, arXiv 2004.05150 (a window, and tokens that all see)
- Child et al. 2019, arXiv 1904.10509 (the fixed pattern)
- Dao et al. 2022, arXiv 2205.14135 (flash attention)
- Liu et al. 2023, arXiv 2310.01889 (ring attention)
- Milakov & Gimelshein 2018, arXiv 1805.02867 (running maximum and sum)
"""
