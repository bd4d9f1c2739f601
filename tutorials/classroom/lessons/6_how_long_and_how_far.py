# %% [markdown]
r"""
# How long, and how far

One learned vector can be enough, if it gets the time. And under a sliding window a prompt works
only as long as it stays in sight.

After this class you can

1. put an error bar on an accuracy that holds both the seeds and the sentences;
2. choose a prompt's length by the one-standard-error rule, and say what the choice depends on;
3. say what a sliding window does to a prompt, how far it reaches, and what pinning changes.

Needs: the class on what a prompt is. A **prompt** is P **virtual tokens**: learned vectors of C
numbers each, put before the text in the place of P token embeddings. The base model is **frozen**:
only these vectors are trained.
"""

# %%
import sys
sys.path.insert(0, "classroom")
from statistics import mean, variance
import torch
from matplotlib import pyplot
from checks import exercise
from model import GPT, GPTConfig, visible
from softprompt import PromptTuning, initial_embeddings, prefill
from train import COLOURS, TASKS, Lab, best_hard_prompt, chosen_length, commonest_answer, fit
from train import load_base, load_data, mean_error, mean_of_arms, measure, new_arm, score
from train import score_hard_prompt, share_of
lab = Lab(*load_base(device="cpu"), load_data("../out"))  # the model is frozen

# %% [markdown]
r"""
## 1. How long?

The task is *first-letter-last*: the first letter of the last word of a sentence. The base never
practised it. First we look at what needs no training: always the commonest answer, no prompt, and
instructions in words, called **hard prompts**. There are four. The best one is chosen on
**validation** sentences, and its accuracy is told on **test** sentences, which choose nothing.

What the papers say about length: more than one virtual token is needed for most models, and after
20 there is little gain (Lester et al. 2021, figure 3a). More helps, up to 10 for one task and up to
200 for another (Li and Liang 2021, section 7.2).

**Before you run it:** how good will the best hard prompt be on this task?
"""

# %%
NEW = "first-letter-last"
best_text = best_hard_prompt(lab, NEW)  # on 240 validation sentences
answer = commonest_answer(TASKS[NEW].pairs(lab.data["train"]))
levels = {"always": share_of(answer, TASKS[NEW].pairs(lab.data["test"][:240]))}
for name, words in (("none", ""), ("wording", best_text)):
    loss, levels[name] = score_hard_prompt(lab, NEW, words, "test", 240)
print({name: round(level, 3) for name, level in levels.items()}, best_text)

# %% [markdown]
r"""
Now we train. An **arm** is one run: one prompt, its own sentences, its own learning rate. A **seed**
is the number that decides where an arm starts (rows of the embedding table, drawn at random) and
which sentences it sees. Six lengths with three seeds are 18 arms. They train as one mixed batch.

An accuracy is uncertain for two reasons: another seed gives another prompt, and other sentences give
another share of right answers. With k seeds of mean p and variance v, all on the same n sentences,
the **standard error** is

$$\text{error} = \sqrt{\frac{v}{k} + \frac{p\,(1-p)}{n}}$$

All seeds read the same sentences. So the second part is not divided by k.

**Before you run it:** we look after 10, 20 and 64 steps. Draw accuracy over length for each of the
three. Where is one vector?
"""

# %%
LENGTHS, SEEDS, LOOKS = (1, 2, 4, 8, 16, 64), range(3), (10, 20, 64)  # LOOKS: training steps
arms, rows = [], []  # a row for each arm, look and split
for P in LENGTHS:
    for seed in SEEDS:  # the learning rate is 3 of the embeddings' standard deviation, for all
        arms.append(new_arm(lab, NEW, "prompt", "vocab", P, 3.0, seed))
        arms[-1].columns = {"method": "prompt", "length": P}
for step in fit(lab.model, arms, {NEW: lab.rows(NEW, "train")}, LOOKS[-1], 16):
    if step in LOOKS:
        rows += measure(lab, arms, step, "valid", 120)
rows += measure(lab, arms, LOOKS[-1], "test", 240)

# %%
def my_error(accuracies, n):
    """k seeds on the same n sentences -> their mean accuracy and its standard error."""
    p = mean(accuracies)
    return p, (variance(accuracies) / len(accuracies) + p * (1 - p) / n) ** 0.5

runs = {}  # (split, step) -> {length: the accuracies of its seeds}
for row in rows:
    lengths = runs.setdefault((row["split"], row["step"]), {})
    lengths.setdefault(row["length"], []).append(row["accuracy"])
points = {step: [my_error(x, 120) for x in runs["valid", step].values()] for step in LOOKS}
theirs = torch.tensor([mean_error(x, 120) for x in runs["valid", 20].values()])
print("largest difference to mean_error:", float((torch.tensor(points[20]) - theirs).abs().max()))

# %%
figure, axes = pyplot.subplots(1, 3, figsize=(11.5, 4), sharey=True, layout="constrained")
for axis, (step, line) in zip(axes, points.items()):
    axis.errorbar(LENGTHS, *zip(*line), fmt="o-", color=COLOURS["prompt"], capsize=4)
    axis.plot(LENGTHS, list(runs["valid", step].values()), ".", color="0.2", ms=6)
    for name, label in zip(levels, ("commonest answer", "no prompt", "best hard prompt")):
        axis.axhline(levels[name], color=COLOURS[name], ls="--", lw=1, label=label)
    axis.set(xscale="log", xticks=LENGTHS, xticklabels=LENGTHS, xlabel="virtual tokens (dot: seed)",
             title=f"{step} steps: 1 vector {line[0][0]:.2f}, best {max(line)[0]:.2f}")
    axis.minorticks_off()
axes[0].set_ylabel("right answers (share of 120)")
axes[2].legend(frameon=False, loc="center right", bbox_to_anchor=(1, 0.67))
pyplot.show()

# %% [markdown]
r"""
**What to notice.** At the end all lengths are equal. The papers' rise is a rise in *speed* here: after
20 steps one vector has 0.22. The dots are mostly high or low, seldom in the middle. A run first
learns which letters are common. Then it finds the task, within a few steps. So a mean of three seeds
mostly says how many have found it, and its bar is wide. 64 vectors are late in two of three seeds.

### The same with more seeds (by hand, once)

The optimizer AdamW remembers earlier gradients. The project gives it a short memory (betas of 0.6
and 0.9), most people the usual one (0.9 and 0.999). Six seeds, 120 validation sentences:

| virtual tokens | 1 | 2 | 4 | 8 | 16 | 64 |
|---|---|---|---|---|---|---|
| 20 steps, short memory | 0.28 | 0.74 | 0.74 | 0.86 | 0.76 | 0.51 |
| 64 steps, short memory | 0.83 | 0.92 | 0.92 | 0.92 | 0.92 | 0.91 |
| 64 steps, usual memory | 0.23 | 0.78 | 0.88 | 0.90 | 0.83 | 0.70 |

So three seeds make one vector look too good: one of the six still had 0.54 after 64 steps. With the
usual memory the papers' picture is back, and 64 vectors are behind as well. The learning rate was
chosen by hand too: with 1 or 1.5 in place of 3, one of two single vectors had less than 0.4 at the end.

### Exercise 1: the one-standard-error rule

The best of six lengths is partly the luckiest. So the rule (Breiman et al. 1984) does not ask for
the best. Take the best mean and subtract its standard error: that is the **bar**. Choose the
smallest length whose mean is at the bar or above. Choose on validation, and tell the test result.

<details><summary>Hint</summary>

Make a list of pairs (mean, standard error), one for each length. `max` of pairs compares the means
first. Then `min(P for P, (p, _) in zip(lengths, pairs) if ...)`.

</details>
"""

# %%
@exercise
def one_se(lengths, accuracies, n):
    """lengths in any order, for each of them a list of runs, all on the same n sentences
    -> one of the lengths. The standard error is that of seeds and sentences, as above."""
    raise NotImplementedError

# %%
for step in LOOKS:
    accuracies = list(runs["valid", step].values())
    best = LENGTHS[points[step].index(max(points[step]))]
    chosen = one_se(LENGTHS, accuracies, 120)
    then = [row for row in rows if row["step"] == step]
    same = chosen == chosen_length(then, NEW, "prompt")
    print(f"{step} steps: best length {best:2d}, chosen {chosen:2d}, as by chosen_length: {same}")
for P in (chosen, best):
    p, error = my_error(runs["test", LOOKS[-1]][P], 240)
    print(f"test accuracy of length {P}: {p:.3f} ± {error:.3f}")

# %% [markdown]
r"""
**What to notice.** At the end four vectors have the best mean, and the rule takes one. On the test they
differ by less than one error. Earlier, the rule takes two. With the six seeds of the table it takes
8 after 20 steps, and 2 after 64. So the rule answers for these seeds, this rate and this time, not
for prompts in general. And a wide bar makes it choose short: where few seeds vary much, the
rule says little.

## 2. How far: the window

In attention a **query** (a position that asks) meets **keys** (positions that are asked). In this
base a query sees only the last W = 64 keys, itself included. This **sliding window** keeps long
texts cheap. But a prompt stands at the beginning: when the text goes on, it slides out of sight.

A prompt can be **pinned**: its positions stay visible whatever the window. One rule says what a
query at position q sees of a key at position k (a position of −1 is an empty slot):

- a real key: k ≥ 0
- not in the future: k ≤ q
- near enough: k > q − W, **or** k < pinned

**Before you run it:** three virtual tokens, nine text tokens, W = 4. Draw both masks on paper. With
`pinned=0`, how many text tokens see a virtual token?
"""

# %%
def may_see(q_pos, k_pos, W, pinned):
    """Positions of T queries and of S keys -> (T, S), True where the query sees the key."""
    q, k = q_pos[:, None], k_pos[None, :]  # (T, 1), (1, S)
    near_enough = (k > q - W) | (k < pinned)  # (T, S)
    return (k >= 0) & (k <= q) & near_enough  # (T, S)

some = torch.tensor([0, 1, 2, -1, 3, 4, 5, 6, 7])  # with an empty slot
for pinned in (0, 3):
    mine = may_see(some, some, 4, pinned)  # (T, S)
    [theirs] = visible(some[None], some[None], torch.tensor([pinned]), 4)  # (T, S)
    print(f"pinned={pinned}: {int((mine != theirs).sum())} entries differ from model.visible")

# %%
P, T, W = 3, 9, 4
figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
for axis, pinned in zip(axes, (0, P)):
    mask = may_see(torch.arange(P, P + T), torch.arange(P + T), W, pinned)  # (T, P + T)
    for t, k in mask.nonzero().tolist():
        colour = COLOURS["prompt"] if k < P else "0.75"  # virtual tokens in colour, text in grey
        axis.add_patch(pyplot.Rectangle((k - 0.5, t - 0.5), 1, 1, facecolor=colour, ec="white"))
    sees = int(mask[:, :P].any(1).sum())
    axis.set(xlim=(-0.5, P + T - 0.5), ylim=(T - 0.5, -0.5), xticks=range(P + T), yticks=range(T),
             xlabel=f"key (0 to {P - 1}: the prompt)", ylabel="text token that asks",
             title=f"pinned={pinned}: {sees} of {T} text tokens see the prompt", aspect="equal")
pyplot.show()

# %% [markdown]
r"""
**What to notice.** Sliding, each text token sees W = 4 keys. Only text tokens 0, 1 and 2 see any of the
prompt, and from token 3 on it is out of sight. Pinned, all nine see it, and the text slides as before.
Pinned keys come on top of the window: that is the price.

## 3. Reach, by theory and by gradient

A text token that does not see the prompt can still *hear* of it. In layer 1 a near token reads from
the prompt. In layer 2 a later token reads from that token. In each layer information travels at most
W − 1 positions. So in L layers it travels at most **L · (W − 1)**: here 4 · 63 = 252.

### Exercise 2: does it arrive?

Write this as a function. Then we ask the gradient. The **gradient** of a logit with respect to a
virtual token says how much the logit changes when the vector moves a little. Where nothing arrives
it is exactly zero. **Before you run it:** L = 2, W = 4, P = 3. Which text tokens hear of token 0?

<details><summary>Hint</summary>

Virtual token j is at position j. The text stands behind all P virtual tokens. So text token t is at
position P + t. How far apart are they?

</details>
"""

# %%
@exercise
def reaches(L, W, P, j, t):
    """L layers, window W, nothing pinned: True where virtual token j (from 0) of P can change the
    logits at text position t (from 0), else False."""
    raise NotImplementedError

# %%
torch.manual_seed(0)
small = GPT(GPTConfig(vocab_size=50, block_size=32, n_layer=2, n_head=2, n_embd=16, window=4))
for p in small.requires_grad_(False).parameters():
    p.copy_(torch.randn(p.shape) / 2)  # large weights, so that every path counts
soft, text = PromptTuning(torch.randn(3, 16)), torch.randint(50, (1, 9))  # P = 3, T = 9

def pull(pinned):
    """How strongly the top logit of text token t depends on virtual token j, (T, P)."""
    logits, _ = small(text, soft.past(small, pinned))  # (1, T, V); pinned: all of it, or none
    grads = [torch.autograd.grad(top, soft.embeddings, retain_graph=True)[0]
             for top in logits[0].amax(1)]  # (P, C) each
    return torch.stack(grads).norm(dim=2)  # (T, P)

# %%
theory = torch.tensor([[reaches(2, 4, 3, j, t) for j in range(3)] for t in range(9)])  # (T, P)
print(f"{int(((pull(False) > 0) != theory).sum())} of {theory.numel()} differ from the theory")
figure, axes = pyplot.subplots(1, 2, figsize=(10, 2.4), sharey=True, layout="constrained")
for axis, pinned in zip(axes, (False, True)):
    size = pull(pinned)  # (T, P)
    size = size.where(size > 0, torch.nan).log10()  # exactly zero stays white
    shown = axis.imshow(size.T, cmap="viridis", vmin=-2.5, vmax=0.5)
    axis.set(title=f"pinned={pinned}: {int(size.isnan().sum())} of 27 gradients are exactly zero",
             xlabel="text token", ylabel="virtual token", yticks=range(3), xticks=range(9))
figure.colorbar(shown, ax=axes, label="log10 of the size")
pyplot.show()

# %% [markdown]
r"""
**What to notice.** Theory and gradient agree everywhere. Sliding, virtual token 0 arrives up to text
token 3, at distance L · (W − 1) = 6. Behind that the gradient is exactly zero: there a prompt can
neither help nor learn. Pinned, nothing is zero, and nothing fades with the distance. (The Mistral
paper writes L · W: its window counts W keys *before* the query, ours counts the query too.)

## 4. How far on the base

What *can* arrive is one thing. Does it help? The prompts of 16 vectors from part 1 were trained
right before the text. Now we put n tokens of other sentences between prompt and question, and ask
once pinned and once sliding. The best hard prompt goes through the same test: as P token embeddings
it is a prompt like any other, only not learned.

The base practised this. One batch in five of its training had up to 200 tokens of other sentences
between an English instruction and the text, and the instruction was pinned.

**Before you run it:** W = 64, and the reach is 252. Where does each of the four curves fall?
"""

# %%
from itertools import product
ids = lab.tok.encode(best_text)
words = PromptTuning(initial_embeddings(lab.model, len(ids), "text", ids))  # as vectors
softs = {"prompt": [arm.soft for arm in arms if arm.soft.length == 16], "wording": [words]}
BETWEEN, far, asked = (0, 32, 48, 64, 128, 192), {}, lab.rows(NEW, "test", 240)
other = lab.tok.encode("\n" + "\n".join(sentence.text for sentence in lab.data["valid"][-40:]))
for (kind, members), pinned, n in product(softs.items(), (True, False), BETWEEN):
    rows = [(other[:n] + question, answer) for question, answer in asked] * len(members)
    with torch.inference_mode():
        past = prefill(members, lab.model, pinned)  # a row for each prompt
        accuracies = mean_of_arms(score(lab.model, past, rows), len(members))[1].tolist()
    far[kind, pinned, n] = mean_error(accuracies, 240)

# %%
figure, axis = pyplot.subplots(figsize=(8.5, 4.4), layout="constrained")
for kind, name in (("prompt", "prompt of 16 vectors"), ("wording", "best hard prompt")):
    for pinned, style, how in ((True, "o-", "pinned"), (False, "s:", "sliding")):
        line = [far[kind, pinned, n] for n in BETWEEN]  # (mean, error) each
        axis.errorbar(BETWEEN, *zip(*line), fmt=style, color=COLOURS[kind], capsize=4,
                      label=f"{name}, {how}")
axis.axhline(levels["always"], color=COLOURS["always"], ls="--", lw=1, label="commonest answer")
axis.set(xlabel="tokens of other text between prompt and question", ylabel="right answers (share)",
         title=f"Prompt, 64 tokens away: pinned {far['prompt', True, 64][0]:.2f}, "
               f"sliding {far['prompt', False, 64][0]:.2f}")
axis.legend(frameon=False, loc="center right", bbox_to_anchor=(1, 0.33))
pyplot.show()

# %% [markdown]
r"""
**What to notice.** Pinned, the prompt stays at about 0.95. Sliding, it is lost once it is out of sight,
far inside the reach of 252. A message could arrive through several
layers, but nobody taught the base to hand it on.

Pinned, the best hard prompt works at a distance too: 0.52 at 64. The next best (*Name the first letter
of the last word*, not drawn) falls to 0.09, though pinned. What is pinned must also be clear.

### Why you have not met this elsewhere

PEFT, a common library for soft prompts, puts virtual tokens before the text like any tokens. On a
model with a window they slide out: it computes what `pinned=False` does. We know of no library that
pins a prompt. Many models have no window, or one of thousands of tokens. There a short text
hides the problem. The nearest relatives of pinning are the global tokens of Longformer and the first
tokens that StreamingLLM keeps.

## Exercise 3: what pinning costs

Pinned keys are seen on top of the window. Count the keys that one query sees in one layer. A key
that is pinned *and* near counts once. (So a prompt of 100 in our base makes it up to 164 keys.)

<details><summary>Hint</summary>

First count the near keys: W, or fewer at the beginning. The keys before those can be seen only if
they are pinned. `min` helps twice.

</details>
"""

# %%
@exercise
def keys_seen(t, P, W, pinned):
    """How many keys the query at text position t (from 0) sees in one layer, itself included,
    behind P virtual tokens, of which the first `pinned` are pinned (0 <= pinned <= P)."""
    raise NotImplementedError

# %% [markdown]
r"""
## Summary

An accuracy needs an error bar that holds seeds and sentences. By the one-standard-error rule one
or two vectors are enough for this task, if they get 64 steps with a short memory. With fewer steps,
or with AdamW's usual memory, one vector is far behind: length buys speed here. Under a sliding window
a prompt is out of sight after W tokens and out of reach after L · (W − 1) positions, and on this base
it is lost as soon as it is out of sight. A pinned prompt works at every distance that we tried. It
costs up to P more keys for each query.

How many examples does it need? That is one more experiment of this kind, in [RESULTS.md](RESULTS.md):
some 64 different sentences for this task, shown again and again, are about as good as 1,024.

## Sources

- Lester, Al-Rfou and Constant 2021, *The Power of Scale for Parameter-Efficient Prompt Tuning*,
  arXiv 2104.08691 (length: figure 3a)
- Li and Liang 2021, *Prefix-Tuning: Optimizing Continuous Prompts for Generation*, arXiv 2101.00190
- Loshchilov and Hutter 2017, *Decoupled Weight Decay Regularization* (AdamW), arXiv 1711.05101
- Breiman, Friedman, Olshen and Stone 1984, *Classification and Regression Trees* (the rule)
- Jiang et al. 2023, *Mistral 7B*, arXiv 2310.06825 (sliding window)
- Beltagy, Peters and Cohan 2020, *Longformer: The Long-Document Transformer*, arXiv 2004.05150
- Xiao et al. 2023, *Efficient Streaming Language Models with Attention Sinks*, arXiv 2309.17453
  (StreamingLLM)
"""
