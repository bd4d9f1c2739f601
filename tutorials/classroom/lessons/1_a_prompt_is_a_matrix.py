# %% [markdown]
r"""
# A prompt is a matrix

An instruction in words, a **hard prompt**, is a matrix of numbers for the model. A **soft prompt**
is such a matrix whose numbers were learned.

After this class you can

1. take an instruction apart into vectors, and give them to the model in place of words;
2. train these vectors with your own step, while the model stays as it is;
3. count what a prompt costs, and say for which models "0.001 %" is true.

Needs: embeddings, cross-entropy, gradient descent. Letters: B rows, T tokens of text, P vectors, C
numbers in a vector, V tokens in the vocabulary.

## 1. Take an instruction apart

Our model, the **base**, has a million numbers (C = 128, V = 2,048). It is **frozen**: no number of
it ever changes here. An instruction is cut into **tokens**, which are pieces of words. Each token
has a number, its **id**, which selects one row of the embedding table (V, C). The model computes
with these rows.

**Before you run it:** into how many tokens is "Which letter does the last word begin with?" cut?
How many numbers are that?
"""

# %%
import sys
sys.path.insert(0, "classroom")
import tempfile
from pathlib import Path
import torch
from shared import open_lab, right_on_test, score_hard_prompt
import drawings
from checks import exercise
from model import read
from softprompt import PromptTuning, load, save
from train import TASKS, Arm, best_hard_prompt, collate, commonest_answer, draw_rows, fit
from train import load_base, measure, score, share_of
lab = open_lab()
model, tok = lab.model, lab.tok  # the frozen base and its tokenizer
NEW = "first-letter-last"
ids = tok.encode("Which letter does the last word begin with?")  # P numbers
table = model.model.embed_tokens.weight  # (V, C)
instruction = table[ids]  # (P, C)
P, C = instruction.shape

# %%
title = "What does the model get in place of the words?"
found = f"The instruction as the model gets it: {P} rows of {C} = {P * C:,} numbers"
names = [f"{tok.decode([i])!r}   id {i:4}" for i in ids]
drawings.draw_rows_of_numbers(instruction, names, title)

# %% [markdown]
r"""
**What to notice.** There are more rows than words, because rare words are cut into pieces.

### Exercise 1: vectors before the text

`model(idx)` takes ids. `model(embeds=...)` takes vectors in their place. Both return two things,
the logits and a *past*; take the first. Put the same P vectors before each of B texts. Return the
logits at the text's tokens only.

<details><summary>Hint</summary>

`model.model.embed_tokens(idx)` gives the text's rows, (B, T, C). `vectors.expand(B, -1, -1)` shows
the vectors once for each text. `torch.cat(..., 1)` puts one behind the other. Then cut the first P
slots away.

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

In the exercise each text carried its own copy of the vectors. Is that necessary? The base is
**causal**: a token sees what stands before it, never what comes later. Later tokens read two things
of each earlier token, in every layer: its **key** and its **value**. All keys and values together
are the **past** that the model returns. Any text can be put behind a past.

**Before you run it:** 16 sentences follow the ids of the instruction, its vectors by your function,
or one past: the vectors went through the model alone, once. By how much do the logits differ? And
are the instruction's values the same if a sentence stands *before* it?
"""

# %%
questions = [question for question, _ in lab.rows(NEW, "test") if len(question) == 20]
idx = torch.tensor(questions[:16])  # (B, T)
words = torch.tensor([ids] * 16)  # (B, P)
from_ids, whole = model(torch.cat((words, idx), 1))  # (B, P + T, V), and the past of all of it
_, turned = model(torch.cat((idx, words), 1))  # the sentences come first
_, past = model(embeds=instruction[None])  # the instruction alone, one row

ways = {
    "your vectors": vectors_before_text(model, instruction, idx),
    "one past": model(idx, past)[0],
    "nothing": model(idx)[0],
}  # (B, T, V) each
for name, logits in ways.items():
    print(f"logits after ids, against {name}: {(from_ids[:, P:] - logits).abs().max():.1e}")
alone, behind, before = past.values[-1], whole.values[-1][:, :, :P], turned.values[-1][:, :, -P:]
print(f"values of the instruction, with a sentence behind it: {(alone - behind).abs().max():.1e}")
print(f"values of the instruction, with a sentence before it: {(alone - before).abs().max():.1e}")

# %% [markdown]
r"""
**What to notice.** One past, shared by all 16 sentences, gives the logits of the words. The
difference is zero, or near 0.00001 where sums are added in another order. Without the instruction
it is 16: so this test can fail.
Why is sharing exact? What the model computes at the instruction depends only on what stands before
it, and no sentence does. A sentence *behind* it changes none of its values; a sentence *before* it
does.

## 3. A new task

A **task** is what we ask of a sentence. This one is called *first-letter-last*: say the first
letter of the last word. The base never practised it. It did practise first letters of other words,
and other things about last words. An answer is right if the base writes it exactly; the share of
right answers is the **accuracy**. A **baseline** is the simplest thing that could work: always give
the commonest answer. The best hard prompt is chosen on 240 *other* sentences, for validation. The
test has no say in it.

**Before you run it:** four hard prompts mean the same. Will they be equally good?
"""

# %%
accuracies = {}
for text in ["", *TASKS[NEW].hard_prompts]:
    _, accuracies[text] = score_hard_prompt(lab, NEW, text, "test", 240)
best = best_hard_prompt(lab, NEW)  # chosen on validation sentences
letter = commonest_answer(TASKS[NEW].pairs(lab.data["train"]))
always = share_of(letter, TASKS[NEW].pairs(lab.data["test"][:240]))

# %%
title = "Are four hard prompts with one meaning equally good?"
lowest = min(accuracies[text] for text in TASKS[NEW].hard_prompts)
found = f"No: with one meaning, accuracy goes from {lowest:.3f} to {accuracies[best]:.3f}"
drawings.draw_hard_prompts(accuracies, best, always, 240, title)

# %% [markdown]
r"""
**What to notice.** It depends on luck with words. Two of the four are worse than always giving one
letter.

## 4. Five lines

Nothing in the model asks that the vectors are rows of the table. So let them move. The class below
keeps them as a `Parameter`, which is what training may change. Its `past` runs them through the
base once. Learned vectors in the place of tokens are called **virtual tokens**, and this method is
called **prompt tuning** (Lester et al. 2021). The project's class for it is `PromptTuning`.

The base has a **window**: a token sees only the last 64 slots. The project **pins** virtual tokens,
so that they stay visible however long the text is. This class does not. So we keep to sentences
that fit into the window together with the prompt.

**Before you run it:** 16 sentences stand behind both classes. Do the losses differ?
"""

# %%
class FiveLines(torch.nn.Module):
    def __init__(self, vectors):
        super().__init__()
        self.vectors = torch.nn.Parameter(vectors.clone())  # (P, C)
    def past(self, model):
        return model(embeds=self.vectors[None])[1]

fitting = [row for row in lab.rows(NEW, "train") if len(row[0]) + len(row[1]) + P <= 64]
idx, targets = collate(fitting[:16], "cpu")  # (B, T) each
mine = FiveLines(instruction).past(model)
theirs = PromptTuning(instruction).past(model)
print(f"losses {model.loss(idx, targets, mine):.4f}, {model.loss(idx, targets, theirs):.4f}")
print(f"largest difference of logits {(model(idx, mine)[0] - model(idx, theirs)[0]).abs().max()}")

# %% [markdown]
r"""
**What to notice.** Five lines do what the project's class does: the largest difference is zero.

## 5. Your step

A step draws 16 sentences with their answers. The **loss** is minus the logarithm of the probability
of the right token, in **nats** (natural logarithms). Its gradient goes back through the frozen base
into the vectors, and only they move.

### Exercise 2: one step

Do one step of plain gradient descent: vectors minus rate times gradient of `model.loss`. Return new
vectors. Leave the model and the given vectors as they are.

<details><summary>Hint</summary>

`moving = vectors.clone().requires_grad_()` is a copy with a gradient. The past of `moving` goes
into `model.loss(idx, targets, past)`. After `.backward()` the gradient is in `moving.grad`.

</details>

The loop behind the exercise does your step 60 times. **Before you run it:** after how many steps
will the loss be below 0.5? And the accuracy at the end?
"""

# %%
@exercise
def one_prompt_step(model, vectors, idx, targets, rate):
    """vectors (P, C), idx and targets (B, T) -> the vectors after one step (P, C), no gradient."""
    raise NotImplementedError

# %%
STEPS, RATE = 60, 0.1
learned, losses = instruction, []
for step in range(STEPS):
    idx, targets = collate(draw_rows(fitting, 0, step, 16), "cpu")  # drawn at random; 0: the seed
    with torch.no_grad():
        losses.append(model.loss(idx, targets, FiveLines(learned).past(model)).item())
    learned = one_prompt_step(model, learned, idx, targets, RATE)  # (P, C)

with torch.no_grad():
    past = FiveLines(learned).past(model)
    right = score(model, past, lab.rows(NEW, "test", 240)).right  # (240,) of 1 and 0
bars = {"none": accuracies[""], "wording": accuracies[best], "prompt": right.mean().item()}

# %%
title = "How far does the loss fall, and what is the accuracy?"
words, vectors = bars["wording"], bars["prompt"]
found = f"Accuracy {words:.3f} with the best words, {vectors:.3f} after your {STEPS} steps"
drawings.draw_loss_and_bars(losses, bars, always, 240, title)

# %% [markdown]
r"""
**What to notice.** The same instruction, moved, does the task. The vectors have seen 960 sentences
with answers, the hard prompts none. This is one run. Is it luck?

## 6. Only then `fit`

The project's `fit` is your loop for many prompts at once. Each run is called an **arm**: its
vectors, its learning rate, and its **seed**, which decides what sentences it draws. All arms are
rows of one batch over one base. None touches another. Its step is *AdamW* in place of plain
gradient descent (see the homework).

**Before you run it:** five arms start from the instruction. How far apart will they end?
"""

# %%
arms = [Arm(PromptTuning(instruction), NEW, rate=1.5, seed=seed) for seed in range(5)]
# The rate is in spreads of the table: see the homework.
curves = []
for step in fit(model, arms, {NEW: fitting}, STEPS, 16):  # stops before each step, after the last
    if step in (0, 2, 5, 10, 20, 40, STEPS):
        curves += measure(lab, arms, step, "valid", 64)
final = right_on_test(lab, arms)  # of each arm
print("accuracy on 240 test sentences:", [round(accuracy, 3) for accuracy in final])

# %%
title = "Do all five seeds learn the task?"
found = f"All five seeds learn it: test accuracy from {min(final):.3f} to {max(final):.3f}"
drawings.draw_seeds_over_steps(curves, bars["wording"], always, title)

# %% [markdown]
r"""
**What to notice.** It is not luck: in the end the seeds agree.

## 7. Count and keep

A prompt is P C numbers. In **fine-tuning** all N numbers of a model are trained, and kept for each
task. One often reads that a soft prompt needs "0.001 %" of the numbers.

**Before you run them:** from which size on are 16 vectors at most 0.001 %? The last cell saves your
prompt and loads it for a fresh base. What must the file store?
"""

# %%
shapes = {  # numbers in the model, and C
    "our base": (1_000_576, 128),
    "SmolLM2 135M": (134_515_008, 576),
    "GPT-2 XL 1.6B": (1_557_611_200, 1600),
    "Llama 7B": (6_738_415_616, 4096),
    "T5-XXL 11B": (11_135_332_352, 4096),
    "Llama 2 70B": (68_976_648_192, 8192),
}
percents = {}
for length in (100, 16, 1):
    percents[length] = [100 * length * width / size for size, width in shapes.values()]
first = [name for name, percent in zip(shapes, percents[16]) if percent <= 0.001][0]
sizes_of_models = [size for size, _ in shapes.values()]

# %%
title = 'When is "0.001 %" true?'
found = f'"0.001 %" is true of 16 vectors from {first} on, not for smaller models'
drawings.draw_percents(list(shapes), sizes_of_models, percents, title)

# %%
fresh, _ = load_base(device="cpu")  # the base again, as it is on disk
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "first-letter-last.pt"
    save(PromptTuning(learned), path, model, task=NEW)
    print(f"{path.stat().st_size:,} bytes")
    content = read(path, "a soft prompt", ("kind", "base", "facts", "state"))
    again = load(path, fresh)  # refused where the base is another
vectors = content["state"]["embeddings"]
print(f"kind {content['kind']}, facts {content['facts']}, vectors {tuple(vectors.shape)}")
print(f"base {content['base'][:16]}..., the fresh base {fresh.fingerprint()[:16]}...")
row = tok.encode("\nReturn the adjacency matrix of a graph. ->")
for name, past in {"without a prompt": None, "with it": again.past(fresh)}.items():
    [answer] = fresh.generate([row], 8, past, stop=tok.end)
    print(f"{name}: {tok.decode(answer)!r}")

# %% [markdown]
r"""
**What to notice.** Our 16 vectors are 0.2 % of our base. The percentage falls with size: a vector
grows with the width C of a model, the model with its depth and the square of its width. A file
stores the vectors, their kind, a few facts such as the task, and the base's **fingerprint**, a code
made of all its numbers. The base itself is not in it. The vectors mean something for this base
only: another is refused. Training changed nothing in ours, for the fingerprint is the same.

## Summary

An instruction is a matrix of P rows of the embedding table. It stands first and the model is
causal. So it goes through once, and all texts share its past: that is exact. Let the numbers move,
and your own step learns a task for which our hard prompts fail. A file holds P C numbers and the
base's fingerprint. 16 vectors are 0.2 % here, and 0.001 % from 7 billion numbers on.
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
gradient by its usual size. A gradient longer than 1 is *clipped* to length 1. The rate rises for
five steps and then falls. What is left of a gradient in AdamW is a number near 1 or -1, and the
rate times that is the step. So a rate is a *distance*. The project gives it in units of the size of
what moves: for a prompt, the spread (standard deviation) of the numbers in the embedding table.

**Before you run it:** will these vectors be those of `fit`, in which four other arms trained beside
them? If the loss is multiplied by 1,000, how far does one step of plain gradient descent (SGD) go,
and one of AdamW?
"""

# %%
rate, soft = 1.5 * table.std().item(), FiveLines(instruction)
optimizer = torch.optim.AdamW(soft.parameters(), lr=rate, betas=(0.6, 0.9), weight_decay=0)
for step in range(STEPS):
    idx, targets = collate(draw_rows(fitting, 0, step, 16), "cpu")
    loss = model.loss(idx, targets, soft.past(model))
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(soft.parameters(), 1.0)
    optimizer.param_groups[0]["lr"] = rate * min((step + 1) / 5, 1, 1.1 - step / STEPS)
    optimizer.step()
difference = (arms[0].soft.embeddings - soft.vectors).abs().max()
moved = (soft.vectors - instruction).abs().mean()
print(f"largest difference to the vectors of fit {difference:.1e}; they moved by {moved:.2f}")

# %%
for method in (torch.optim.SGD, torch.optim.AdamW):
    for factor in (1, 1000):
        moving = FiveLines(instruction)
        optimizer = method(moving.parameters(), lr=rate, weight_decay=0)
        loss = factor * model.loss(idx, targets, moving.past(model))
        loss.backward()
        optimizer.step()
        moved = (moving.vectors - instruction).abs().mean() / rate
        print(f"{method.__name__:5}, loss x {factor:5,}: a number moves by {moved:.5f} rates")

# %% [markdown]
r"""
**What to notice.** The vectors are those of `fit`, up to rounding: arms do not touch each other. A
step of AdamW has the same size for a loss a thousand times larger. That of SGD has not.

## Sources

- Lester, Al-Rfou & Constant 2021, arXiv 2104.08691 (prompt tuning)
- Loshchilov & Hutter 2017, arXiv 1711.05101 (AdamW)
"""
