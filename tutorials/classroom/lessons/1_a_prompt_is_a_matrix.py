# %% [markdown]
r"""
# A prompt is a matrix

For the model an instruction in words, a **hard prompt**, is a matrix of numbers. A **soft prompt**
is such a matrix whose numbers were learned.

After this class you can

1. give a model vectors in place of words, and say why all texts can share them;
2. train these vectors with your own step, while the model stays as it is;
3. count what a prompt costs, and say for which models "0.001 %" is true.

Needs: embeddings, cross-entropy, gradient descent. Letters: B rows, T tokens of text, P vectors, C
numbers in a vector, V tokens in the vocabulary.

## 1. Take an instruction apart

Our model, the **base**, has a million numbers. It is **frozen**: none of them ever changes here. An
instruction is cut into **tokens**, which are pieces of words. Each token has a number, its **id**.
The id selects one row of the **embedding table** (V, C). The model computes with these rows, never
with the words.

**Before you run it:** into how many tokens will our instruction be cut? How many numbers are that?
"""

# %%
import sys
sys.path.insert(0, "classroom")
import tempfile
from pathlib import Path
import torch
from matplotlib import pyplot
from shared import open_lab
import plots
from checks import exercise
from softprompt import PromptTuning, load, save
from train import TASKS, Arm, Lab, answer_to, arm_of_tokens, collate, draw_rows, fit
from train import load_base, measure, untrained, where
lab = open_lab()
model, tok = lab.model, lab.tok  # the frozen base and its tokenizer

# %%
ids = tok.encode("Which letter does the last word begin with?")  # P numbers
table = model.model.embed_tokens.weight  # (V, C)
instruction = table[ids]  # (P, C)

# %%
P, C = instruction.shape
title = "What does the model get in place of the words?"
found = f"The instruction as the model gets it: {P} rows of {C} = {P * C:,} numbers"
pyplot.figure(figsize=(10, 3.6))
pyplot.imshow(instruction, cmap="coolwarm", vmin=-0.2, vmax=0.2, aspect="auto")
pyplot.yticks(range(P), [f"{tok.decode([i])!r}   id {i}" for i in ids])
pyplot.xlabel(f"the {C} numbers of a row")
pyplot.title(title, loc="left", weight="bold");

# %% [markdown]
r"""
**What to notice.** There are more rows than words: rare words are cut into pieces.

### Exercise 1: vectors before the text

`model(idx)` takes ids. `model(embeds=...)` takes vectors in their place. Both return two things,
the **logits** and a *past*. You need the logits. Put the same P vectors before each of B texts.
Return the logits of the text's tokens only.

<details><summary>Hint</summary>

`model.model.embed_tokens(idx)` gives the text's rows, (B, T, C). `vectors.expand(B, -1, -1)` shows
the vectors once for each text. `torch.cat(..., 1)` puts one behind the other. The first P slots of
the logits belong to the vectors.

</details>
"""

# %%
@exercise
def vectors_before_text(model, vectors, idx):
    """vectors (P, C), idx (B, T) ids -> logits (B, T, V) of the text behind the vectors."""
    raise NotImplementedError

# %% [markdown]
r"""
## 2. Once for all texts

Your function copies the vectors for each text. Is that necessary? The base is **causal**: a token
sees itself and what stands before it, never what comes later.
"""

# %%
names = ["vector 1", "vector 2", "vector 3", "text 1", "text 2", "text 3", "text 4"]
seen = torch.ones(7, 7).tril().bool()  # a row sees the columns up to its own
title = "Who sees whom?"
found = "No vector sees the text: what is computed there is the same for every text"
plots.mask(seen, title, names, names)

# %% [markdown]
r"""
**What to notice.** No vector sees the text. So what the model computes there is the same for every
text. Once is enough.

A later token reads two things of an earlier one in each layer: its **key** and its **value**. All
keys and values together are the **past** that the model returns. Any text can be put behind a past:
`model(idx, past)`.

**Before you run it:** 16 sentences stand behind the instruction's ids, behind your vectors, or
behind one past, which the vectors made alone. By how much will the logits differ?
"""

# %%
NEW = "first-letter-last"  # the task of this class: see below
questions = [question for question, _ in lab.rows(NEW, "test") if len(question) == 20]  # one length
idx = torch.tensor(questions[:16])  # (B, T)
words = torch.tensor([ids] * 16)  # (B, P)
by_ids, _ = model(torch.cat((words, idx), 1))  # (B, P + T, V)

_, past = model(embeds=instruction[None])  # the vectors alone, as one row
ways = {
    "your function": vectors_before_text(model, instruction, idx),
    "one past for all": model(idx, past)[0],
    "no instruction": model(idx)[0],
}  # (B, T, V) each
for name, logits in ways.items():
    print(f"{name}: logits differ by at most {(by_ids[:, P:] - logits).abs().max():.5f}")

# %% [markdown]
r"""
**What to notice.** Sharing is exact: one past for 16 sentences gives the logits of the words. (Sums
in another order may change the fifth digit.) The last line shows what a difference looks like.

## 3. A new task

This **task** is *first-letter-last*: say the first letter of the last word. The base never
practised it. It practised first letters of other words, and other things about last words. A row is
a sentence, an arrow and the answer. The share of answers that are exactly right is the
**accuracy**. Four hard prompts mean the same.
"""

# %%
question, answer = lab.rows(NEW, "train")[0]
print("a row:", tok.decode(question + answer).strip())
texts = TASKS[NEW].hard_prompts
arms = [arm_of_tokens(lab, NEW, tok.encode(text)) for text in texts]
for text, row in zip(texts, measure(lab, arms, 0, "test", 240)):
    print(f"{row['accuracy']:.2f}  {text}")
rows = where(untrained(lab, NEW), split="test")  # what needs no training
baselines = {row["method"]: row["accuracy"] for row in rows}
print(baselines)

# %% [markdown]
r"""
**What to notice.** It is luck with words. A **baseline** is the simplest thing
that could work: `none` is no prompt, `always` says the commonest letter every time, `wording` is
the hard prompt that was best on *other* sentences.

## 4. Your step

The vectors need not be rows of the table. So let them move. Learned vectors in the place of tokens
are **virtual tokens**, and this method is **prompt tuning** (Lester et al. 2021).
`PromptTuning(vectors)` keeps a copy of the vectors as `embeddings`, which may be trained.
`.past(model)` runs them through the base once, as in section 2.

A step takes 16 sentences with their answers. The **loss** is minus the logarithm of the probability
of the right token. Its gradient goes back through the frozen base into the vectors. Only they move.

### Exercise 2: one step

Do one step of gradient descent: the vectors minus `rate` times the gradient of the loss. Return new
vectors, and leave the given ones as they are.

<details><summary>Hint</summary>

`soft = PromptTuning(vectors)`. The loss is `model.loss(idx, targets, soft.past(model))`. After
`loss.backward()` the gradient is in `soft.embeddings.grad`.

</details>
"""

# %%
@exercise
def one_prompt_step(model, vectors, idx, targets, rate):
    """vectors (P, C), idx and targets (B, T) -> the vectors after one step (P, C)."""
    raise NotImplementedError

# %% [markdown]
r"""
**Before you run it:** the vectors start at the instruction. After how many of your steps will they
beat the best hard prompt?
"""

# %%
learned, curve = instruction, []
for step in range(61):
    if step % 5 == 0:  # a look: how good are they now?
        # A prompt with its task; rate 0: it is only measured.
        arm = Arm(PromptTuning(learned), NEW, 0, columns={"by": "your vectors"})
        curve += measure(lab, [arm], step, "test", 240)
    if step == 60:
        break
    examples = draw_rows(lab.rows(NEW, "train"), 0, step, 16)  # 16 at random; 0 is the seed
    idx, targets = collate(examples, "cpu")  # (B, T) each
    learned = one_prompt_step(model, learned, idx, targets, 0.1)  # (P, C)

# %%
title = "When do your vectors beat the best words?"
found = (
    f"Accuracy {baselines['wording']:.2f} with the best words, "
    f"{curve[-1]['accuracy']:.2f} after 60 of your steps"
)
plots.lines(curve, "step", "accuracy", "by", title, levels=baselines)

# %% [markdown]
r"""
**What to notice.** The same instruction, moved a little, does the task. But
the vectors have seen 960 sentences with answers, the hard prompts none. And this is one run. Is it
luck?

## 5. Only then `fit`

The project's `fit` is your loop for many prompts at once. Each of them is an **arm**: its vectors,
its learning rate, and its **seed**, which decides what sentences it draws. All arms train in one
batch over one base, and none touches another. Five arms start from the instruction.
"""

# %%
# This rate is a distance, in units of the table's spread. Yours, 0.1, multiplied a gradient.
arms = [Arm(PromptTuning(instruction), NEW, rate=1.5, seed=seed) for seed in range(5)]
for step in fit(model, arms, {NEW: lab.rows(NEW, "train")}, 60, 16):
    pass  # it stops before each step, so that one can look
print([row["accuracy"] for row in measure(lab, arms, 60, "test", 240)])

# %% [markdown]
r"""
**What to notice.** No: five seeds agree.

## 6. Count and keep

A prompt is P C numbers. In **fine-tuning** all numbers of a model are trained, and all are kept for
each task. One often reads that a soft prompt needs only "0.001 %" of them.

**Before you run it:** for which of these models are 16 vectors at most 0.001 %?
"""

# %%
shapes = {  # numbers in the model, and C
    "our base": (1_000_576, 128),
    "SmolLM2 135M": (134_515_008, 576),
    "GPT-2 XL 1.6B": (1_557_611_200, 1600),
    "Llama 7B": (6_738_415_616, 4096),
    "Llama 2 70B": (68_976_648_192, 8192),
}

# %%
title = 'When is "0.001 %" true?'
found = '"0.001 %" is true of 16 vectors from 7 billion numbers on'
pyplot.figure(figsize=(9, 3.4))
percents = [100 * 16 * width / size for size, width in shapes.values()]
pyplot.semilogx(percents, list(shapes), "o")
pyplot.axvline(0.001, color="0.5", ls="--", zorder=0)
pyplot.xlabel("16 vectors in percent of the model's numbers (dashed: 0.001 %)")
pyplot.title(title, loc="left", weight="bold");

# %% [markdown]
r"""
**What to notice.** 16 vectors are 0.2 % of our base. The percentage falls with size: a vector grows
with the width C of a model, the model with its depth and the square of its width.

The last cell saves your prompt, and loads it for a fresh base.
"""

# %%
fresh = Lab(*load_base(device="cpu"), lab.data)  # the base again, as it is on disk
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "first-letter-last.pt"
    save(PromptTuning(learned), path, model, task=NEW)
    print(f"{path.stat().st_size:,} bytes")
    again = load(path, fresh.model)  # refused if the base is another
print(answer_to(fresh, "Return the adjacency matrix of a graph.", again))

# %% [markdown]
r"""
**What to notice.** The file stores the vectors, their kind, a few facts such
as the task, and the base's **fingerprint**, a code made of all its numbers. The base itself is not
in it. `save` took the fingerprint of your base after training; `load` compared it with that of the
base on disk. They are equal: so training changed nothing in the base.

## Summary

An instruction is a matrix of P rows. It stands first and the model is causal: so it goes through
once, and all texts share its past. That is exact. Let its numbers move, and your own step learns a
task at which our hard prompts are poor. A file holds P C numbers and the base's fingerprint. 16
vectors are 0.2 % of our base, and 0.001 % from 7 billion numbers on.
"""

# %% [markdown]
r"""
## Homework

### Exercise 3: how long may it be?

Somebody allows you a share of a model's numbers, say 0.001 %, which is 0.00001. How many virtual
tokens are that, at most?

<details><summary>Hint</summary>

The share of the numbers is `share * n_parameters`. One virtual token takes `n_embd` of them. A part
of a token does not help.

</details>
"""

# %%
@exercise
def longest_prompt(n_parameters, n_embd, share):
    """The largest P, an int, whose P C numbers are at most `share` times the parameters."""
    raise NotImplementedError

# %%
for name, (size, width) in shapes.items():
    print(f"{name:15} {longest_prompt(size, width, 1e-5):4} virtual tokens")

# %% [markdown]
r"""
### Ten lines of `fit`

Here is the loop of `fit` for one arm. Three things are new beside your step. *AdamW* divides each
gradient by its usual size (what this makes of a learning rate stands in [README](README.md),
"Learning rates"). A gradient longer than 1 is *clipped* to length 1. The rate rises for five steps
and then falls.

**Before you run it:** will these vectors be those of `fit`, in which four other arms trained beside
them? Then multiply the loss by 1,000 in the cell. Will the vectors still do the task?
"""

# %%
rate, soft = 1.5 * table.std().item(), PromptTuning(instruction)
optimizer = torch.optim.AdamW(soft.parameters(), lr=rate, betas=(0.6, 0.9), weight_decay=0)
for step in range(60):
    idx, targets = collate(draw_rows(lab.rows(NEW, "train"), 0, step, 16), "cpu")
    loss = model.loss(idx, targets, soft.past(model))
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(soft.parameters(), 1.0)
    optimizer.param_groups[0]["lr"] = rate * min((step + 1) / 5, 1, 1.1 - step / 60)
    optimizer.step()
difference = (arms[0].soft.embeddings - soft.embeddings).abs().max()
moved = (soft.embeddings - instruction).abs().mean()
print(f"largest difference to the vectors of fit {difference:.1e}; they moved by {moved:.2f}")

# %% [markdown]
r"""
**What to notice.** The vectors are those of `fit`, up to rounding: arms do not
touch each other. With 1,000 times the loss they do the task just as well. AdamW divides by the
size. But now each gradient is clipped, so the late ones count as much as the first, and the vectors
move farther.

## Sources

- Lester, Al-Rfou & Constant 2021, arXiv 2104.08691 (prompt tuning)
- Loshchilov & Hutter 2017, arXiv 1711.05101 (AdamW)
"""
