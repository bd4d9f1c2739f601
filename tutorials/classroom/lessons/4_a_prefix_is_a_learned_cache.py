# %% [markdown]
r"""
# A prefix is a learned cache

What a prompt leaves behind in a model is keys and values. A prefix learns these directly.

After this class you can

1. compare a prompt and a prefix in numbers;
2. say what a prefix of zeros does;
3. say what LoRA can do, and one layer of a prefix cannot.

Needs: classes 1 and 3; for exercise 4 also class 2. Keep `softprompt.py` open beside you.

## 1. What a prompt leaves behind

A **prompt** is P learned vectors before the text. In every layer each of them leaves a key and a
value. The text reads nothing else. A **prefix** makes these keys and values themselves the learned
numbers. **Before you run it:** we take the keys and values that a prompt leaves, and build a prefix
of them by hand. How far apart will the logits be (the scores of the next token)?
"""

# %%
import sys
sys.path.insert(0, "classroom")
import torch
from matplotlib import pyplot
import plots
from checks import exercise
from shared import open_lab, table
from attention import last_scores
from model import GPTConfig, Past
from softprompt import PrefixTuning, PromptTuning
from train import STARTS, TASKS, read_rows, score, where
lab = open_lab()
model, config = lab.model, lab.model.config
L, Hkv, D = config.n_layer, config.n_kv_head, config.head_dim
torch.manual_seed(0)

# %%
def my_past(keys, values):  # of each layer (1, Hkv, P, D)
    P = keys[0].shape[2]
    return Past(keys, values, torch.arange(P)[None], pinned=P)  # all P stay visible

vectors = STARTS["related"].embeddings(lab, "first-letter-last", 16, None)  # (P, C), of a text
_, left = model(embeds=vectors[None])  # a Past: what these vectors leave behind
text = torch.tensor([lab.tok.encode("\nReturn the adjacency matrix of the graph. ->")])  # (1, T)
mine, _ = model(text, my_past(left.keys, left.values))  # (1, T, V)
for soft in (PromptTuning(vectors), PrefixTuning.start(model, vectors)):
    theirs, _ = model(text, soft.past(model))  # (1, T, V)
    print(f"my prefix and {type(soft).__name__}: {(mine - theirs).abs().max():.0e} apart")

# %% [markdown]
r"""
**What to notice.** They are the same. So all that a prompt can do, a prefix can do. But the vectors
of a prompt decide the keys and values of *all* layers together. A prefix chooses those of each
layer alone.

### Exercise 1. Count the numbers

How many numbers are learned in a prompt of P virtual tokens, and in a prefix of P? A vector has C
numbers. There are Hkv key heads.

<details><summary>Hint</summary>

A prefix has keys *and* values in *every* layer, (Hkv, P, D) each. The configuration has `n_layer`,
`n_kv_head`, `head_dim`, `n_embd`.

</details>
"""

# %%
@exercise
def count_numbers(config, P):
    """How many numbers are learned: (in a prompt, in a prefix) of P virtual tokens."""
    raise NotImplementedError

# %%
smol = GPTConfig(vocab_size=49152, block_size=8192, n_layer=30, n_head=9, n_embd=576, n_kv_head=3)
for name, shape in (("our base", config), ("SmolLM2-135M, of class 8", smol)):
    prompt, prefix = count_numbers(shape, 1)
    print(f"{name}: for each virtual token a prompt has {prompt:,} numbers, a prefix {prefix:,}")

# %% [markdown]
r"""
**What to notice.** A prefix has 2 L Hkv D numbers for each virtual token, in place of C. While the
model answers they cost the same: a prompt goes through the model once, and then it is keys and
values too.

## 2. Zeros are not off

A query's weights are a softmax: exp(score), divided by the sum over all keys. So a prefix takes its
**share** of that sum, and the text gets what is left. **Before you write it:** does a key of zeros
take a share?

### Exercise 2. The share of zeros

One query's scores over a text are given. P keys of zeros come before them. Which share do they
take?

<details><summary>Hint</summary>

A key of zeros has the score 0, and exp(0) = 1. So P of them add P to the sum of exp(scores) over
the last dimension.

</details>

Then P zeros stand before two questions in words: which library is a sentence from (*library*), and
what is its third word (*repeat-third*)? **Before you run it:** which of the two suffers more?
"""

# %%
@exercise
def zero_share(scores, P):
    """The share of P keys of zeros beside keys with these scores: (..., S) -> (...)."""
    raise NotImplementedError

# %%
asked = {task: lab.rows(task, "test", 120, TASKS[task].practised[0])
         for task in ("library", "repeat-third")}  # each question in words, before 120 sentences
rows = []
for P in (0, 8, 16, 32, 64):
    zeros = [torch.zeros(1, Hkv, P, D)] * L
    for task in asked:
        right = score(model, my_past(zeros, zeros), asked[task]).right.mean().item()
        rows.append({"what": f"{task} right", "zeros": P, "share": right})
    for ids, _ in asked["repeat-third"][:24]:
        scores = last_scores(model, ids, my_past(zeros, zeros))  # (L, H, T): over the text only
        share = zero_share(scores, P).mean().item()
        rows.append({"what": "attention to zeros", "zeros": P, "share": share})

# %%
title = "Zeros before the question: what do they cost?"
found = "Zeros are not off: they take attention from the text"
plots.lines(rows, x="zeros", y="share", by="what", title=title)

# %% [markdown]
r"""
**What to notice.** P zeros take P / (P + sum of exp(scores)). Less is read from the text. To name a
library a rough impression is enough. To repeat one word it is not. So a prefix that says nothing is
not one of zeros, but one that nobody sees (homework).

## 3. What the MLP is for

Li and Liang (2021) found the training of prefixes unsteady. So they let a small network, an
**MLP**, make the keys and values during the training. In the end they keep what it makes, and throw
the MLP away: `to_prefix`. Our prefixes train without it: the keys and the values of each layer have
a learning rate of their own, in units of their size (README.md, *Learning rates*).

Three ways race: ours, one rate for all layers, and an MLP. Each has the best of three or four
rates.
"""

# %%
methods = where(read_rows(table("methods")), base="base")
ways = ("prefix", "prefix, one rate", "prefix, MLP")
curves = where(methods, task="first-letter-last", length=28, split="valid")
curves = [row for row in curves if row["method"] in ways and row["seed"] < 5]

# %%
title = "Three ways to train a prefix: which is fastest?"
found = "All three end alike, and the MLP arrives last"
plots.lines(curves, x="step", y="loss", by="method", title=title)
pyplot.xticks(range(0, 65, 8))

# %% [markdown]
r"""
**What to notice.** Here the MLP does not help. Why it steadied the training of Li and Liang, our
small base cannot tell. It is a help for training, and no part of the prefix.

## 4. Prompt, prefix, LoRA

**LoRA** (Hu et al. 2021) changes the model itself, a little. The output of a weight matrix, M x,
becomes M x + 2 up (down x). Only the thin matrices `down` and `up` are learned. `down` makes 4
numbers of x (4 is the **rank**), `up` makes an output of these. The 2 is a fixed scale. This is
done to the four matrices of attention in each layer. A prompt of 112, a prefix of 28 and our LoRA
have the same count of numbers: 14,336.

*A rule*: say the first letter of the last word (*first-letter-last*). The base practised the parts
of this. *A new rule*: say the word before the last (*before-last*). The base practised nothing like
it. **Before you run it:** order the methods for each task.
"""

# %%
tests = where(methods, split="test")
race = []
for task in ("first-letter-last", "before-last"):
    for method, length, steps in (("wording", 0, 0), ("prompt", 112, 64),
                                  ("prefix", 28, 64), ("lora", 0, 64)):
        race += where(tests, task=task, method=method, length=length, step=steps)

# %%
title = "14,336 numbers each: which method learns which task?"
found = "On a new way of reading LoRA learns far more"
plots.dots(race, x="method", y="accuracy", title=title, panel="task")
pyplot.setp(pyplot.gcf().axes, xlim=(-0.05, 1.05))

# %% [markdown]
r"""
**What to notice.** Where the base knows the parts, all that learns ends alike. On the new way of
reading LoRA is far ahead. Four times the steps bring the prefix to 0.66, still below LoRA. The
prefix is ahead of the prompt on average, but some seeds overlap.

## 5. What one layer forbids

Why LoRA? In one layer, look at one query. A prefix adds keys, so all weights over the text shrink.
**Before you run it:** does each shrink by the same factor?
"""

# %%
scores, of_prefix = torch.randn(6), 3 * torch.randn(16)  # of one query: over a text, a prefix
alone = scores.softmax(0)  # (T,)
behind = torch.cat((of_prefix, scores)).softmax(0)[16:]  # (T,)
print("each weight shrinks to", [f"{ratio:.4f}" for ratio in behind / alone])

# %% [markdown]
r"""
**What to notice.** Yes. So one layer of a prefix cannot say "look less at this word and more at
that one" (Petrov et al. 2023). It can only take attention from all words alike, and add its own
values. LoRA changes the queries and keys themselves, so it can.

But our base has four layers. Leave out what the prefix takes: divide each word's weight by what is
left for the words. (0.6 and 0.4 that become 0.5 and 0.5: 0.1 has moved.) Which share of this
attention **among the words** is elsewhere than in the base? **Before you run it:** in which layers
can a prefix move it?
"""

# %%
title = "before-last: how much attention among the words moves?"
found = "In layer 1 only LoRA moves it; above, all three do"
moved = read_rows(table("attention"))
plots.lines(moved, x="layer", y="moved", by="method", title=title)

# %% [markdown]
r"""
**What to notice.** In layer 1 all words lose alike, so among them prompt and prefix move nothing.
In higher layers they do, indirectly: what they add below changes the text's own queries and keys.
So "a prefix cannot" is true of one layer. Four layers can, but they learned less of it.
"""

# %% [markdown]
r"""
## Summary

A prompt leaves keys and values in every layer. A prefix learns them, with 2 L Hkv D numbers for
each virtual token in place of C. Zeros take a share of the attention. The MLP is a help for
training only: where prefixes train unsteadily, which ours do not. One layer of a prefix cannot turn
attention from one word to another; LoRA can.
"""

# %% [markdown]
r"""
## Homework

### Exercise 3. Merge two softmaxes

Text and prefix have an output each, and an *lse*: the logarithm of its sum of exp(score). Make
attention over both from these.

<details><summary>Hint</summary>

The prefix's share is exp(prefix_lse) / (exp(own_lse) + exp(prefix_lse)), a sigmoid of the
difference. The share is (T,), the outputs are (T, D): the share needs a last dimension of 1.

</details>
"""

# %%
@exercise
def merge(own, own_lse, prefix, prefix_lse):
    """Attention over both, (T, D), from the text's output (T, D) and lse (T,) and the prefix's."""
    raise NotImplementedError

# %% [markdown]
r"""
### Exercise 4. A prefix that says nothing

Make a `Past` of P slots that changes no logit at all. In class 2 a hidden vector went to position
2**20, and the text stayed where it was. Here the text must stand as if nothing were before it.

<details><summary>Hint</summary>

A score of 0 still takes its share. Which position does the rule at the top of `model.py` never let
anybody see? One row: keys and values are (1, Hkv, P, D), L times; positions are (1, P).

</details>
"""

# %%
@exercise
def silent_prefix(model, P):
    """A Past of one row with P slots that nobody ever sees; its keys and values are zeros."""
    raise NotImplementedError

# %%
silent, _ = model(text, silent_prefix(model, 8))  # (1, T, V)
alone, _ = model(text)  # (1, T, V)
print(f"with 8 silent slots and without: {(silent - alone).abs().max():.0e} apart (rounding)")

# %% [markdown]
r"""
## Sources

- Hu et al. 2021, arXiv 2106.09685 (LoRA)
- Lester et al. 2021, arXiv 2104.08691 (prompt tuning)
- Li and Liang 2021, arXiv 2101.00190 (prefix tuning; the MLP is in section 4.3)
- Petrov et al. 2023, arXiv 2310.19698 (what prompts and prefixes cannot do in one layer)
"""
