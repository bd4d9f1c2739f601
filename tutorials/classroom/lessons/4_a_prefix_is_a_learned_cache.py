# %% [markdown]
r"""
# A prefix is a learned cache

What a prompt leaves behind in a model is keys and values; a prefix learns these directly.

After this class you can

1. turn a prompt into its own prefix, and count the numbers of both;
2. say what a prefix adds to a head's output, and why a prefix of zeros is not nothing;
3. predict which tasks a prompt, a prefix and LoRA cannot learn, and test it.

Needs: what a query, a key and a value are; `softprompt.py` open beside you.

## 1. What a prompt leaves behind

A *virtual token* is a learned vector in the place of a word's vector. P of them are a *prompt*. They
go once through the model. In every layer each one leaves a *key* and a *value*; later tokens read
nothing else. The project calls these a `Past`, as in a cache. A *prefix* makes keys and values
themselves the learned numbers. **Before you run it:** we cut a prompt's keys and values out and use
them as a prefix. How far apart will the *logits* be (the scores of the next token)?
"""

# %%
import sys
sys.path.insert(0, "classroom")
import torch
from matplotlib import pyplot
from checks import exercise
from shared import COLOURS, learn, right_on_test, watch
from methods import AllWeights, LoRA, lab_on_a_copy
from model import Past, rotate
from softprompt import PrefixMLP, PrefixTuning, PromptTuning
from train import STARTS, TASKS, Arm, Lab, best_hard_prompt, commonest_answer, load_base, load_data
from train import new_arm, score, score_hard_prompt, share_of
lab = Lab(*load_base(device="cpu"), load_data("../out"))  # the base is frozen

# %%
model, tok = lab.model, lab.tok
start = STARTS["related"].embeddings(lab, "first-letter-last", 16, None)  # English text, (P, C)
_, left = model(embeds=start[None])  # a Past: what these vectors leave behind
keys, values = torch.cat(left.keys), torch.cat(left.values)  # (L, Hkv, P, D) each
def my_past(keys, values, P):  # of each layer (Hkv, P, D)
    return Past([k[None] for k in keys], [v[None] for v in values], torch.arange(P)[None], P)

text = torch.tensor([tok.example("Return the adjacency matrix of the graph.", "")[0]])  # (1, T)
mine, _ = model(text, my_past(keys, values, 16))  # (1, T, V)
for soft in (PromptTuning.start(model, start), PrefixTuning.start(model, start)):
    theirs, _ = model(text, soft.past(model))  # (1, T, V)
    print(f"my prefix against {type(soft).__name__}: {(mine - theirs).abs().max():.0e}")

# %% [markdown]
r"""
**What to notice.** The logits are the same. The model is *causal*: what it computes at a virtual token
never depends on the text behind. So keys and values can be computed once and kept, as for words that
were read before. From here on a prefix is free. A prompt's vectors decide the keys and values of all
layers together; a prefix may choose those of each layer alone.

### Exercise 1. Count the numbers

L layers, H query heads, D numbers a head, C numbers a vector. *GQA* (grouped-query attention) means
that several query heads share one key and value head, so that there are only Hkv < H of these. How
many numbers are learned in a prompt of P vectors, and in a prefix of P?

<details><summary>Hint</summary>

A prompt is one (P, C) tensor. A prefix has keys *and* values in *every* layer, (L, Hkv, P, D) each.
The configuration has `n_layer`, `n_kv_head`, `head_dim`, `n_embd`.

</details>
"""

# %%
@exercise
def count_numbers(config, P):
    """How many numbers are learned: (in a prompt, in a prefix) of P virtual tokens."""
    raise NotImplementedError

# %% [markdown]
r"""
### Numbers for one virtual token

| model | L | H | Hkv | D | prompt: C | prefix: 2 L Hkv D | ratio |
|---|---|---|---|---|---|---|---|
| this base | 4 | 4 | 2 | 32 | 128 | 512 | 4 |
| this base without GQA | 4 | 4 | 4 | 32 | 128 | 1,024 | 8 |
| SmolLM2-135M | 30 | 9 | 3 | 64 | 576 | 11,520 | 20 |
| Mistral-7B | 32 | 32 | 8 | 128 | 4,096 | 65,536 | 16 |

## 2. A prefix of zeros is not nothing

A head's output is a mean of values, and the weights are a *softmax*: exp(score), divided by the sum of
all of these. So attention over prefix and text is a mix: (1 - m) · (attention over the text)
+ m · (attention over the prefix), where m is the prefix's share of that sum.

A key of zeros gives a score of 0, and values of zeros add nothing. After the exercise we put P such
slots before two English questions that this base answers well: which of six libraries is a sentence
from, and what is its third word? **Before you run it:** from which P on does it hurt? Which task
suffers more?

### Exercise 2. Merge two softmaxes

Each part has its own output, and its *lse*: the logarithm of its sum of exp(score).

<details><summary>Hint</summary>

m = exp(prefix_lse) / (exp(own_lse) + exp(prefix_lse)), which is a sigmoid of the difference. m is (T,),
the outputs are (T, D): m needs a last dimension of 1.

</details>
"""

# %%
@exercise
def merge(own, own_lse, prefix, prefix_lse):
    """Attention over both, (T, D), from the text's output (T, D) and lse (T,) and the prefix's."""
    raise NotImplementedError

# %%
def always(task):  # share right with always the commonest answer of the training sentences
    common = commonest_answer(TASKS[task].pairs(lab.data["train"]))
    return share_of(common, TASKS[task].pairs(lab.data["test"][:240]))

for task in ("library", "repeat-third"):
    for P in (0, 4, 16, 64):
        zeros = torch.zeros(4, 2, P, 32)  # (L, Hkv, P, D)
        asked = lab.rows(task, "test", 240, TASKS[task].practised[0])  # behind a hard prompt
        right = score(model, my_past(zeros, zeros, P), asked).right.mean()
        print(f"{task:12s} {P:2d} slots of zeros: {right:.3f} right (always {always(task):.3f})")

# %% [markdown]
r"""
**What to notice.** Zeros are not nothing: each takes a share of the softmax, and less is read from the
text. With 16 of them the third word is found for 0.19 of the sentences, without them for 0.98. The
library is still named with 64 of them, 0.79. A rough impression of the text is enough for that; to
repeat one word, attention must be exact.

## 3. Training a prompt and its prefix

The task is one that the base never practised: the first letter of the last word. Prompt and prefix
start equal, from English text. A *seed* decides which sentences are drawn; we use two. The learning
rate is how far a number moves in a step. Here it is given in units of the size of what moves: of each
layer's *RMS* (root mean square) for a prefix. Li and Liang found prefix training unsteady. They let an
*MLP*, a small network, make the keys and values while training; `to_prefix` keeps only these. **Before
you run it:** which of the three is down first? Does the MLP help?
"""

# %%
task, LOOKS, arms = "first-letter-last", (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 64), []
for seed in (0, 1):
    for kind, rate in (("prompt", 1.5), ("prefix", 0.15)):
        arms.append(new_arm(lab, task, kind, "related", 16, rate, seed))
    torch.manual_seed(seed)  # of the MLP's weights
    mlp = PrefixMLP.start(model, start)
    arms.append(Arm(mlp, task, 0.003, seed))
rows = watch(lab, arms, 64, LOOKS)  # fit trains them; at each look, measure
prefix = mlp.to_prefix()
folded, _ = model(text, my_past(prefix.keys, prefix.values, 16))  # (1, T, V)
apart = (model(text, mlp.past(model))[0] - folded).abs().max()
print(f"MLP: {sum(p.numel() for p in mlp.parameters()):,} trained; folded: {apart:.0e} apart")

# %%
figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
rms = values.square().mean((1, 2, 3)).sqrt()  # of each layer, (L,)
left.bar(list("1234"), rms, color=COLOURS["prefix"])
left.set(title=f"Values grow {rms[3] / rms[0]:.0f} times by layer 4", xlabel="layer", ylabel="RMS")
names, losses = ["prompt", "prefix", "mlp"] * 2, torch.tensor([row["loss"] for row in rows])
for arm, name, curve in zip(arms, names, losses.view(-1, 6).T):  # curve: a loss for each look
    style = "--" if name == "mlp" else "-"
    right.semilogy(LOOKS, curve, style, color=COLOURS[arm.soft.kind], label=f"{name}, {arm.seed}")
right.set(title=f"At step 64: all below {losses[-6:].max():.2f}", xlim=(0, 30),
          xlabel="training steps", ylabel="loss (nats a token)")
right.legend(title="kind, seed", frameon=False)
pyplot.show()

# %% [markdown]
r"""
**What to notice.** Values are 12 times bigger in layer 4 than in layer 1. One absolute rate would be too
big below or too small above; one in units of the layer's size fits all. All kinds are down in some ten
steps; one prompt jumps back. The plain prefix is as steady as the one from the MLP. What Li and Liang
found does not show here, with two seeds. Perhaps the rate by layers has done that; we did not test it.

## 4. LoRA, and three tasks

*LoRA* changes the model itself, a little: beside a weight matrix W it puts a learned product of two
thin matrices, W x + 2 B A x. A has 4 rows, B has 4 columns, and B starts at zero. Three lines do it; a
*hook* is a function that PyTorch calls on a layer's output. The project's `LoRA` does this for the
four attention projections of every layer.

We compare on three tasks: *library*, which the base practised; the first letter of the last word, of
which it practised the parts; and *before-last*, the word before the last, which lies outside of all
that it practised. In the first and the last a prefix has 28 virtual tokens: as many numbers as this
LoRA. We tried three or four learning rates by hand (P = 16, other seeds) and took one of the best by
validation loss. So LoRA and *fine-tuning all weights* do better on *before-last* than in methods.py,
which has one rate for all tasks. **Before you run it:** order prompt, prefix, LoRA and all weights for
each task.
"""

# %%
def my_lora(linear, rank=4):
    A = torch.nn.Parameter(torch.randn(rank, linear.in_features) / linear.in_features**0.5)
    B = torch.nn.Parameter(torch.zeros(linear.out_features, rank))
    linear.register_forward_hook(lambda layer, x, y: y + 2 * x[0] @ A.T @ B.T)
    return A, B

ours, theirs = lab_on_a_copy(lab).model, lab_on_a_copy(lab).model
A, B = my_lora(ours.model.layers[0].self_attn.q_proj)
B.data.normal_()  # at the start B is zero, and LoRA changes nothing
lora = LoRA(theirs)
lora.down[0].data, lora.up[0].data = A.data, B.data  # its first pair is for the same projection
print(f"mine against LoRA: {(ours(text)[0] - theirs(text)[0]).abs().max():.0e}")

# %%
from itertools import product
STEPS = {"library": 15, "first-letter-last": 64, "before-last": 64}
found = {"first-letter-last": list(zip(names, right_on_test(lab, arms)))}  # those of above
for task, rates in (("library", (1.5, 0.15)), ("before-last", (13.5, 0.45))):
    kinds = ("prompt", "prompt", "prefix", "prefix")
    arms = [new_arm(lab, task, kinds[i], "related", 28, rates[i // 2], i % 2) for i in range(4)]
    found[task] = list(zip(kinds, learn(lab, arms, STEPS[task])))
for task, method, seed in product(STEPS, ("full", "lora"), (0, 1)):
    other = lab_on_a_copy(lab)  # both change the base itself
    soft = LoRA(other.model, seed) if method == "lora" else AllWeights(other.model)
    arm = Arm(soft, task, 0.01 if method == "lora" else 0.001, seed)
    found[task] += zip([method], learn(other, [arm], STEPS[task]))

# %%
figure, axes = pyplot.subplots(1, 3, figsize=(11, 4), sharey=True, constrained_layout=True)
axes[0].set(ylim=(0, 1), ylabel="right (share); dashed: commonest answer")
for axis, task in zip(axes, STEPS):
    for name, words in (("none", ""), ("wording", best_hard_prompt(lab, task))):
        right = score_hard_prompt(lab, task, words, "test", 240)[1]
        axis.plot(f"{'hard' if words else 'no'}\nprompt", right, "o", color=COLOURS[name], ms=9)
    trained = [point for point in found[task] if point[0] != "mlp"]
    for method, right in trained:
        axis.plot(method, right, "o", color=COLOURS[method], ms=9, alpha=0.7)
    axis.axhline(always(task), color=COLOURS["always"], ls="--")
    ends = [right for _, right in trained]
    axis.set_title(f"{TASKS[task].question}:\ntrained {min(ends):.2f} to {max(ends):.2f}")

# %% [markdown]
r"""
**What to notice.** Where the base knows the task, or its parts, all that is trained ends alike. On
*before-last* the ways part: prompt and prefix have about a third right, all weights and LoRA about 0.7.
It is not the count: the prefix of 28 has exactly LoRA's 14,336 numbers. But "cannot learn" is too
strong. By hand, with one seed and four times as many steps, a prefix came to 0.61. (LoRA was not
trained so long.)

## 5. What one layer forbids

In one layer a prefix multiplies the attention over the text by 1 - m and adds a mean of its own values.
It cannot say "look less at this word and more at that one": the *relative* attention, over the text
alone, stays as it is (Petrov et al. 2023). LoRA changes queries and keys, so it can.

A toy: one head, fixed keys for eight places, new values in every text. Its query looks at place 5, the
task is to return the value of place 1. Values have variance 1, so an answer that reads nothing has a
squared error of 1. **Before you run it:** where does the error of a prefix end? And in the base, which
has four layers: in which of them can a prefix move the relative attention?
"""

# %%
losses, gen = {"prefix": [], "lora": []}, torch.manual_seed(0)
places, texts = torch.randn(8, 32), torch.randn(100, 64, 8, 32)  # keys (T, D); values
for method, P in (("prefix", 16), ("lora", 0)):
    k, v, A, B = torch.randn(P, 32), torch.zeros(P, 32), torch.randn(1, 32) / 6, torch.zeros(32, 1)
    learned = [p.requires_grad_() for p in ((k, v) if P else (A, B))]
    for batch in texts:  # (B, T, D)
        query = places[5] + 2 * B @ A @ places[5]  # (D,); B is zero for the prefix
        weights = (torch.cat((k, places)) @ query / 32**0.5).softmax(0)  # (P + T,)
        out = weights @ torch.cat((v.expand(64, -1, -1), batch), 1)  # (B, D)
        losses[method].append((out - batch[:, 1]).square().mean())
        for p, slope in zip(learned, torch.autograd.grad(losses[method][-1], learned)):
            p.data -= slope

# %%
def over_text(model, ids, past=None):  # the last token's softmax over the text alone, (L, H, T)
    def look(layer, given):
        x, k, _, cos, sin, _ = given
        q = rotate(layer.heads(layer.q_proj(x)), cos, sin)[:, :, -1:]  # (1, H, 1, D)
        k = k[:, :, -len(ids):].repeat_interleave(2, 1)  # (1, H, T, D): two heads share a key
        found.append((q @ k.transpose(2, 3) / 32**0.5).softmax(3)[0, :, 0].detach())  # (H, T)
    found = []
    hooks = [block.self_attn.register_forward_pre_hook(look) for block in model.model.layers]
    model.hidden(torch.tensor([ids]), past)
    for hook in hooks:
        hook.remove()
    return torch.stack(found)

# %%
figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
ends = ", ".join(f"{name} {errors[-1]:.2f}" for name, errors in losses.items())
left.set(title=f"Toy, at the end: {ends}", xlabel="steps", ylabel="squared error (1)")
for i, method in enumerate(("lora", "prompt", "prefix")):  # of before-last, the second seed
    base, past = (model, arms[2 * i - 1].soft.past(model)) if i else (other.model, None)
    moved = torch.stack([(over_text(base, ids, past) - over_text(model, ids)).abs().sum(2).mean(1)
                         for ids, _ in lab.rows("before-last", "test", 24)]).mean(0) / 2  # (L,)
    right.bar(torch.arange(1, 5) + 0.27 * (i - 1), moved, 0.25, color=COLOURS[method], label=method)
    left.plot([loss.item() for loss in losses.get(method, [])], color=COLOURS[method])
    right.set(xlabel="layer", xticks=range(1, 5), ylabel="share of the attention moved")
    right.set_title(f"Base: {method} moves {moved[0]:.2f} in layer 1, {moved[2]:.2f} in layer 3")
    right.legend(frameon=False)

# %% [markdown]
r"""
**What to notice.** In the toy a prefix can only silence the text, so its error ends near 1; LoRA turns
the query and has none. In layer 1 of the base prompt and prefix move 0.00, as the theorem says. Yet in
layer 3 the prefix moves nearly as much as LoRA: what it adds below changes the queries and keys above.
The theorem holds for one layer, not for a stack. It may explain why a new way of reading is learned
slowly; it does not forbid it.

## Exercises at the end

### Exercise 3. The share of zeros

One query's scores over a text are given (already divided by √D). P keys of zeros come before them.
Which share m of the softmax do they take?

<details><summary>Hint</summary>

exp(0) = 1, so P zeros add P to the sum of exp(scores) over the last dimension.

</details>
"""

# %%
@exercise
def zero_mass(scores, P):
    """The share of P zero keys beside keys with these scores: (..., S) -> (...)."""
    raise NotImplementedError

# %% [markdown]
r"""
### Exercise 4. A prefix that says nothing

Make a `Past` of P slots that changes no logit at all, whatever the keys and values are.

<details><summary>Hint</summary>

A score of 0 still takes its share. Which position does the rule at the top of `model.py` never let
anybody see? One row: keys and values are (1, Hkv, P, D), L times; positions are (1, P).

</details>
"""

# %%
@exercise
def silent_prefix(model, P):
    """A Past of one row with P slots that nobody ever sees."""
    raise NotImplementedError

# %% [markdown]
r"""
## Summary

A prompt leaves keys and values in every layer; a prefix learns them directly, with 2 L Hkv D numbers a
virtual token in place of C. In each head it adds a share m of its own and takes the same share from
the text, also when it is all zeros. One layer of it cannot turn attention from one word to another. So
prompt and prefix are quick where the base has what the task needs, and slow where a new way of
reading must be learned; LoRA, which changes queries and keys, is quicker there.

## Sources

Li & Liang 2021, *Prefix-Tuning*, arXiv 2101.00190 (the MLP is in section 4.3). Lester et al. 2021,
*The Power of Scale for Parameter-Efficient Prompt Tuning*, arXiv 2104.08691. Hu et al. 2021, *LoRA*,
arXiv 2106.09685. Petrov et al. 2023, *When Do Prompting and Prefix-Tuning Work?*, arXiv 2310.19698 (ICLR
2024). Ainslie et al. 2023, *GQA*, arXiv 2305.13245.
"""
