# %% [markdown]
r"""
# A prefix is a learned cache

What a prompt leaves behind in a model is keys and values. A prefix learns these directly.

After this class you can

1. compare a prompt and a prefix in numbers;
2. say what a prefix of zeros does;
3. say what LoRA can and one layer of a prefix cannot.

Needs: classes 1 and 3; `softprompt.py` open beside you.

## 1. What a prompt leaves behind

P learned vectors (*virtual tokens*) are a *prompt*. In every layer each one leaves a *key* and a
*value*; later tokens read nothing else. A *prefix* makes these keys and values themselves the
learned numbers. **Before you run it:** we use a prompt's keys and values as a prefix. How far apart
will the *logits* be (the scores of the next token)?
"""

# %%
import sys
sys.path.insert(0, "classroom")
from dataclasses import replace
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
import torch
from shared import measured, open_lab, score_hard_prompt
from checks import exercise
import attention_moved
import drawings
import four_methods
from methods import LoRA, lab_on_a_copy
from model import GPTConfig, Past
from softprompt import PrefixTuning, PromptTuning, save
from train import STARTS, TASKS, best_hard_prompt, commonest_answer, score, share_of, sizes
lab = open_lab()

# %%
model, config = lab.model, lab.model.config
start = STARTS["related"].embeddings(lab, "first-letter-last", 16, None)  # English text, (P, C)
_, left = model(embeds=start[None])  # a Past: what these vectors leave behind

def my_past(keys, values, P):  # of each layer (1, Hkv, P, D)
    return Past(keys, values, torch.arange(P)[None], P)  # the last P: all of it stays visible

ids, _ = lab.tok.example("Return the adjacency matrix of the graph.", "")
text = torch.tensor([ids])  # (1, T)
mine, _ = model(text, my_past(left.keys, left.values, 16))  # (1, T, V)
softs = [PromptTuning.start(model, start), PrefixTuning.start(model, start)]
for soft in softs:
    theirs, _ = model(text, soft.past(model))  # (1, T, V)
    print(f"my prefix against {type(soft).__name__}: {(mine - theirs).abs().max():.0e}")

# %% [markdown]
r"""
**What to notice.** The logits are the same. A prompt's vectors decide the keys and values of all
layers together; a prefix may choose those of each layer alone.

### Exercise 1. Count the numbers

How many numbers are learned in a prompt of P vectors, and in a prefix of P? A vector has C numbers;
there are Hkv key heads.

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
shapes = {
    "our base": config,
    "our base without GQA": replace(config, n_kv_head=config.n_head),
    "SmolLM2-135M": GPTConfig(49152, 8192, 30, 9, 576, 3),
    "Mistral-7B": GPTConfig(32000, 32768, 32, 32, 4096, 8),
}
for name, shape in shapes.items():
    prompt, prefix = count_numbers(shape, 1)
    print(f"{name:20s} one virtual token: prompt {prompt:5,} numbers, prefix {prefix:6,} "
          f"({prefix / prompt:.0f} times)")
with TemporaryDirectory() as folder:
    for soft in softs:
        file = Path(folder) / f"{soft.kind}.pt"
        save(soft, file, model)
        tensors = {name: tuple(p.shape) for name, p in soft.saved_tensors().items()}
        print(f"the file of a {soft.kind} of 16 holds {tensors}: {file.stat().st_size:,} bytes")

# %% [markdown]
r"""
**What to notice.** A prefix has 2 L Hkv D numbers for each virtual token, in place of C. While
answering they cost the same: a prompt's keys and values are computed once and kept.

## 2. A prefix of zeros

A head's weights are a *softmax*: exp(score), divided by the sum of all of these. So attention over
prefix and text is a mix: 1 - m times the attention over the text, plus m times that over the
prefix. The **gate** m is the prefix's share of that sum.

### Exercise 2. The share of zeros

One query's scores over a text are given (already divided by √D). P keys of zeros come before them.
Which share m do they take?

<details><summary>Hint</summary>

A key of zeros has the score 0, and exp(0) = 1. So P of them add P to the sum of exp(scores) over
the last dimension.

</details>

Then P zeros stand before two questions: which library is a sentence from, and what is its third
word? **Before you run it:** from which P on does it hurt? Which task suffers more?
"""

# %%
@exercise
def zero_mass(scores, P):
    """The share of P zero keys beside keys with these scores: (..., S) -> (...)."""
    raise NotImplementedError

# %%
lengths, gates = (0, 2, 4, 8, 16, 32, 64), []
accuracies, common = {"library": [], "repeat-third": []}, {}
for task in accuracies:
    answer = commonest_answer(TASKS[task].pairs(lab.data["train"]))
    common[task] = share_of(answer, TASKS[task].pairs(lab.data["test"][:240]))
for P in lengths:
    zeros = [torch.zeros(1, config.n_kv_head, P, config.head_dim)] * config.n_layer
    past = my_past(zeros, zeros, P)
    for task in accuracies:  # behind a hard prompt
        asked = lab.rows(task, "test", 240, TASKS[task].practised[0])
        accuracies[task].append(score(model, past, asked).right.mean().item())
    scores = [attention_moved.last_scores(model, ids, past) for ids, _ in asked[:24]]  # (L, H, T)
    gates.append(mean(zero_mass(of_text, P).mean().item() for of_text in scores))

# %%
title = "Zeros before the question: which share do they take, and what does it cost?"
found = (f"{lengths[4]} zeros take {gates[4]:.2f} of the attention: the third word falls from "
         f"{accuracies['repeat-third'][0]:.2f} to {accuracies['repeat-third'][4]:.2f}")
drawings.zeros_take(lengths, gates, accuracies, common, title)

# %% [markdown]
r"""
**What to notice.** P zeros take the share P / (P + sum of exp(scores)), and less is read from the
text. To name a library a rough impression is enough. To repeat one word it is not.

## 3. Why a prefix takes a smaller rate

In each step AdamW moves each number by about the *learning rate*, in units of the size of what
moves. That is the spread of the embedding table for a prompt, and for a prefix the root mean square
of each layer's keys, and of its values. Our usual rates are 3 and 0.1. **Before you run it:** in
absolute numbers, which makes the longer steps?
"""

# %%
moving = {
    "embeddings (prompt)": (3, sizes(softs[0], model)),
    "keys (prefix)": (0.1, sizes(softs[1], model)[:4]),  # of each layer
    "values (prefix)": (0.1, sizes(softs[1], model)[4:]),
}
for name, (rate, size) in moving.items():
    steps = [rate * x for x in size]
    print(f"{name:20s} size {min(size):.2f} to {max(size):.2f}, rate {rate}: "
          f"a step of {min(steps):.3f} to {max(steps):.3f}")

# %% [markdown]
r"""
**What to notice.** Most keys and values are ten to twenty times as large as embeddings. The unit is
larger: that is a part of the reason. At 3 and 0.1 the absolute steps of a prefix are still the
shorter ones; perhaps because all layers move at once (not tested). And one absolute rate would not
fit all layers.

## 4. What the MLP is for

Li and Liang (2021) found prefix training unsteady. They let an *MLP*, a small network, make the
keys and values while training (*reparameterisation*), and kept only what it makes: `to_prefix`.
Each way below tried three rates on other seeds; the best one raced, with five seeds. **Before you
run it:** does the MLP help?
"""

# %%
results = measured("four_methods")
named = {"prefix 28": "each layer's own rate", "prefix 28, one rate": "one rate for all layers",
         "prefix 28, MLP": "through an MLP"}
losses, reached = {}, {}
for way, name in named.items():
    losses[name] = four_methods.curves(results, "first-letter-last", way)
    reached[name] = four_methods.raced(results, "before-last", way, 64)

# %%
title = "Three ways to move a prefix: which is down first, and which gets farther?"
ends = [f"{mean(accuracies):.2f}" for accuracies in reached.values()]
found = (f"The MLP is not ahead: on the harder task it reaches {ends[2]}, "
         f"one rate for all layers {ends[1]}, each layer's own rate {ends[0]}")
drawings.ways_to_move(losses, reached, title)

# %% [markdown]
r"""
**What to notice.** Here the MLP is neither steadier nor better. Perhaps our rates by layer do what
it did for Li and Liang: one rate for all layers is slower, too. The MLP helps training, where it
helps; it is no part of the prefix.

## 5. LoRA, and three tasks

*LoRA* changes the model itself, a little: beside a weight matrix W it puts a learned product of two
thin matrices, W x + 2 B A x, here at all attention projections. A prefix of 28, a prompt of 112 and
LoRA have the same count of numbers, 14,336. The third task, *before-last*, asks for the word before
the last; the base practised nothing like it. Rates were chosen as above. **Before you run it:**
order the methods for each task.
"""

# %%
def my_lora(linear, rank=4):
    A = torch.nn.Parameter(torch.randn(rank, linear.in_features) / linear.in_features**0.5)
    B = torch.nn.Parameter(torch.zeros(linear.out_features, rank))
    linear.register_forward_hook(lambda layer, x, y: y + 2 * x[0] @ A.T @ B.T)  # adds to its output
    return A, B

ours, theirs = lab_on_a_copy(lab).model, lab_on_a_copy(lab).model
A, B = my_lora(ours.model.layers[0].self_attn.q_proj)
B.data.normal_()  # as if it had been trained
lora = LoRA(theirs)
lora.down[0].data, lora.up[0].data = A.data, B.data  # its first pair is for the same projection
print(f"mine against the project's LoRA: {(ours(text)[0] - theirs(text)[0]).abs().max():.0e}")

# %%
STEPS = {"library": 16, "first-letter-last": 64, "before-last": 64}
race, baselines = {}, {}
for task, steps in STEPS.items():
    words = best_hard_prompt(lab, task)
    pairs = TASKS[task].pairs(lab.data["test"][:240])
    baselines[task] = {
        "none": score_hard_prompt(lab, task, "", "test", 240)[1],
        "wording": score_hard_prompt(lab, task, words, "test", 240)[1],
        "always": share_of(commonest_answer(TASKS[task].pairs(lab.data["train"])), pairs),
    }
    race[task] = {}
    for way in ("prompt 28", "prompt 112", "prefix 28", "lora", "full"):
        race[task][way] = four_methods.raced(results, task, way, steps)
numbers = {row["way"]: row["numbers"] for row in results}

# %%
title = "Which method learns which task?"
outside = {way: mean(accuracies) for way, accuracies in race["before-last"].items()}
found = (f"Outside of what the base practised, LoRA learns more ({outside['lora']:.2f}) than a "
         f"prompt ({outside['prompt 112']:.2f}) or prefix ({outside['prefix 28']:.2f}) of its size")
drawings.four_methods(race, baselines, numbers, title)

# %% [markdown]
r"""
**What to notice.** Where the base knows the task, or its parts, all that is trained ends alike. On
the third task LoRA and all weights reach about twice what a prompt does; a prefix is between.

## 6. What one layer forbids

In one layer a prefix multiplies the attention over the text by 1 - m and adds a mean of its own
values. What a prompt leaves behind is such a prefix. LoRA changes queries and keys.

A toy of one head: its query looks at place 5 of eight, the task is to return the value of place 1.
An answer that reads nothing has an error of 1. **Before you run it:** where does the error of a
prefix end? In which of the base's four layers can a prefix move the relative attention?
"""

# %%
errors, gen = {"prefix": [], "lora": []}, torch.manual_seed(0)
places, texts = torch.randn(8, 32), torch.randn(100, 64, 8, 32)  # keys (T, D); values
for method, P in (("prefix", 16), ("lora", 0)):
    k, v = torch.randn(P, 32), torch.zeros(P, 32)
    A, B = torch.randn(1, 32) / 6, torch.zeros(32, 1)
    learned = [p.requires_grad_() for p in ((k, v) if P else (A, B))]
    for batch in texts:  # (B, T, D)
        query = places[5] + 2 * B @ A @ places[5]  # (D,); B stays zero for the prefix
        weights = (torch.cat((k, places)) @ query / 32**0.5).softmax(0)  # (P + T,)
        out = weights @ torch.cat((v.expand(64, -1, -1), batch), 1)  # (B, D)
        error = (out - batch[:, 1]).square().mean()
        errors[method].append(error.item())
        for p, slope in zip(learned, torch.autograd.grad(error, learned)):
            p.data -= slope

# %%
moved = {way: {layer: [] for layer in (1, 2, 3, 4)} for way in attention_moved.WAYS}
for row in measured("attention_moved"):
    moved[row["way"]][row["layer"]].append(row["moved"])  # of five seeds, trained on before-last
first = max(moved["prefix 28"][1])
third = {way: mean(layers[3]) for way, layers in moved.items()}

# %%
title = "Who can move the attention over the text, in one layer and in four?"
found = (f"One layer of a prefix cannot (error {errors['prefix'][-1]:.2f}, layer 1: {first:.2f}); "
         f"a stack can (layer 3: prefix {third['prefix 28']:.2f}, LoRA {third['lora']:.2f})")
drawings.attention_moved(errors, moved, title)

# %% [markdown]
r"""
**What to notice.** One layer of a prefix cannot say "look less at this word and more at that one":
the *relative* attention over the text stays as it is (Petrov et al. 2023). In the toy it can only
silence the text, in layer 1 of the base it moves nothing. LoRA can turn attention in each layer. In
higher layers prompt and prefix do it too, indirectly: what they add below changes the text's
queries and keys.


## 7. Prompt against prefix in numbers

**Before you run it:** *swap-4* asks for eight facts that the base does not know. Which is better
there, at equal vectors, and at equal numbers?
"""

# %%
table = {"equal vectors": "prompt 28", "equal numbers": "prompt 112", "": "prefix 28"}
for task, steps in [*STEPS.items(), ("swap-4", 160)]:
    for said, way in table.items():
        accuracies = four_methods.raced(results, task, way, steps)
        print(f"{task:17s} {way:10s} {numbers[way]:6,} numbers: {mean(accuracies):.2f} "
              f"(seeds: {min(accuracies):.2f} to {max(accuracies):.2f})  {said}")
for way in ("prefix 28", "lora"):  # 256 steps in place of 64
    longer = four_methods.raced(results, "before-last", way, 256)
    print(f"before-last, four times the steps, {way}: {mean(longer):.2f} "
          f"(seeds: {min(longer):.2f} to {max(longer):.2f})")

# %% [markdown]
r"""
**What to notice.** A rule makes no difference. For facts, and for a new way of reading, a prefix is
ahead at equal vectors. At equal numbers it is ahead by less, and on the facts the seeds overlap.
With four times the steps the prefix comes to 0.66 and LoRA to 0.93: it does not catch up.
"""

# %% [markdown]
r"""
## Summary

A prompt leaves keys and values in every layer; a prefix learns them, with 2 L Hkv D numbers a
virtual token in place of C. One layer cannot turn attention
from one word to another; LoRA can. In four layers prompt and prefix learn a new way of reading too,
but less of it.
"""

# %% [markdown]
r"""
## Homework

### Exercise 3. Merge two softmaxes

Each part, text and prefix, has its own output, and its *lse*: the logarithm of its sum of
exp(score). Make attention over both from these. It is the mix of section 2.

<details><summary>Hint</summary>

m = exp(prefix_lse) / (exp(own_lse) + exp(prefix_lse)), which is a sigmoid of the difference. m is
(T,), the outputs are (T, D): m needs a last dimension of 1.

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

# %%
silent, _ = model(text, silent_prefix(model, 8))  # (1, T, V)
alone, _ = model(text)  # (1, T, V)
print(f"with 8 silent slots and without: {(silent - alone).abs().max():.0e} apart")

# %% [markdown]
r"""
## Sources

- Ainslie et al. 2023, arXiv 2305.13245 (grouped queries)
- Hu et al. 2021, arXiv 2106.09685 (LoRA)
- Lester et al. 2021, arXiv 2104.08691 (prompt tuning)
- Li and Liang 2021, arXiv 2101.00190 (prefix tuning; the MLP is in section 4.3)
- Petrov et al. 2023, arXiv 2310.19698 (what prompts and prefixes cannot do in one layer)
"""
