# %% [markdown]
r"""
# Hundreds of prompts, and the power of scale

One frozen model, the **base**, serves hundreds of soft prompts in one batch.

After this class you can

1. lay different prompts row under row, and test whether one row touches another;
2. say what a prompt's file must hold, and what an update of the base does;
3. measure the gap between words, prompts and new weights as the base grows.

Needs: classes 1 and 4. B rows are a batch, P virtual tokens a prompt or a prefix, V tokens a
vocabulary. A **hard prompt** is an instruction in words.

## 1. A batch in which every row has another prompt

We train 160 prompts and 40 prefixes at once, no two alike: of 8 to 20 virtual tokens, for 16 tasks
that the base practised. Each starts at an instruction. So 6 steps of 4 sentences are enough.
"""

# %%
import sys
sys.path.insert(0, "classroom")
from copy import deepcopy
from statistics import median
from tempfile import mkdtemp
from time import process_time
import torch
from matplotlib import pyplot
from shared import open_lab, table
import plots
from checks import exercise
from model import read
from plots import LOOKS, Look
from softprompt import PromptTuning, batch, load, prefill, save
from train import TASKS, fit, new_arm, read_rows, score, where
lab = open_lab()
model, tok = lab.model, lab.tok

# %%
practised = [name for name, task in TASKS.items() if task.practised]
arms = []
for n in range(200):
    method, rate = ("prefix", 0.3) if n % 5 == 0 else ("prompt", 1.5)
    arms.append(new_arm(lab, practised[n % 16], method, "related", 8 + 5 * n % 13, rate, seed=n))
examples = {task: lab.rows(task, "train") for task in practised}
for step in fit(model, arms, examples, 6, 4):  # trains all 200 as one batch
    pass
softs = [arm.soft.requires_grad_(False) for arm in arms]

# %% [markdown]
r"""
Each of them leaves a **past**, keys and values of P slots. `batch` lays the pasts row under row.
Behind a shorter past it puts **empty slots**. An empty slot has the position -1: nothing is here. A
query sees only keys of position 0 or more.

**Before you run it:** at which position does the text start in each row?
"""

# %%
past = batch([soft.past(model) for soft in softs])  # B = 200 rows
text = past.length[:8, None] + torch.arange(4)  # (8, 4): positions of four tokens of text
positions = torch.cat((past.positions[:8], text), 1)  # (8, 24)

# %%
title = "Eight of 200 rows: which position has each slot?"
found = "Empty slots have no position: each text starts where its own prompt ends"
kinds = [f"{arm.soft.kind} for {arm.task}" for arm in arms[:8]]
plots.mask(positions >= 0, title, kinds, [""] * 20 + ["text", "", "", ""])
for row, slot in (positions >= 0).nonzero().tolist():
    pyplot.text(slot + 0.5, row + 0.5, positions[row, slot].item(), ha="center", va="center")
pyplot.xlabel("slot")
pyplot.ylabel("");

# %% [markdown]
r"""
**What to notice.** Each text starts where its own prompt ends, as if the row were alone. So prompts
of all lengths make one batch, and prefixes with them: both are keys, values and positions.

### Exercise 1: one pass for all

Prompt i stands before text i. Both may have any length. Return the logits (the scores of the next
token) at each text's last token. Use one pass over the prompts, and one over the texts.

<details><summary>Hint</summary>

`prefill([PromptTuning(x) for x in vectors], model)` runs prompts of any lengths through the model
together, and returns their pasts as one batch. Texts that are short get ids of -1 **on the left**:
then every last token is in the last column.

</details>
"""

# %%
@exercise
def mixed_logits(model, vectors, rows):
    """vectors: B tensors (P_i, C); rows: B lists of ids -> logits (B, V) at the last tokens."""
    raise NotImplementedError

# %% [markdown]
r"""
Does one row touch another? Your function runs all 160 prompts, together and one by one. Then we
spoil the first prompt: all its numbers become NaN, "not a number". Whatever is computed from a NaN
is a NaN. **Before you run it:** how many of the 160 rows will be spoiled?
"""

# %%
asked = [lab.rows(arm.task, "test")[n] for n, arm in enumerate(arms)]  # (question, answer) each
prompts = [n for n in range(200) if softs[n].kind == "prompt"]  # 160 rows
vectors, rows = [softs[n].embeddings for n in prompts], [asked[n][0] for n in prompts]
together = mixed_logits(model, vectors, rows)  # (160, V)
alone = torch.cat([mixed_logits(model, [x], [row]) for x, row in zip(vectors, rows)])  # (160, V)
spoiled = mixed_logits(model, [vectors[0] * torch.nan, *vectors[1:]], rows)  # (160, V)
print(f"together or alone: logits differ by at most {(alone - together).abs().max():.1e}")
print("rows with a NaN:", spoiled.isnan().any(1).sum().item())
print("the other rows change by", (spoiled - together)[1:].abs().max().item())

# %% [markdown]
r"""
**What to notice.** The NaN stays in its row. No other row changes, not even in the last digit. A
row's queries read the keys of their own row alone. (Together or alone differ by rounding.)

Now all 200 answer a question each. **Before you run it:** how many times as fast is one batch as
200 calls? And what if each row stands behind the next row's prompt?
"""

# %%
next_row = past.rows(torch.arange(200).roll(-1))
for name, before in (("its own", past), ("the next row's", next_row)):
    print(f"accuracy behind {name} prompt: {score(model, before, asked).right.mean():.2f}")
questions = [question for question, _ in asked]
begun = process_time()  # of the processor
together = model.generate(questions, 2, past)
middle = process_time()
alone = []
for n, question in enumerate(questions):
    alone += model.generate([question], 2, past.rows(torch.tensor([n])))
ratio = (process_time() - middle) / (middle - begun)
print(f"one batch is {ratio:.0f} times as fast, the same answers: {together == alone}")

# %% [markdown]
r"""
**What to notice.** Behind the next row's prompt nearly all is wrong: each row really has its own
task. The batch is several times as fast, since the weights are read once for all rows.

## 2. What a file must remember

A prompt is saved. Then **one** number of the base changes in its last digit.
**Before you run it:** what must the file hold? Will `load` notice the change?
"""

# %%
path, arm = f"{mkdtemp()}/count.pt", arms[2]
save(arm.soft, path, model, task=arm.task)
content = read(path, "a soft prompt", ("kind", "base", "facts", "state"))
print(content["kind"], content["facts"], tuple(content["state"]["embeddings"].shape))
print("base:", content["base"])
changed = deepcopy(model)
weight = changed.model.norm.weight  # (C,)
weight[0] = torch.nextafter(weight[0], torch.tensor(9.0))
print(f"one number of the base: {model.model.norm.weight[0]:.9f} becomes {weight[0]:.9f}")
try:
    load(path, changed)
except ValueError as problem:
    print(str(problem).replace(path, "count.pt"))

# %% [markdown]
r"""
**What to notice.** Beside the vectors stand their kind, facts, and the **fingerprint** of the base:
a hash, a short code made of its shape and all its weights. So `load` notices one digit, and
refuses.

## 3. A base that moves on

Is that too strict? Somebody trains the base for 20 more steps, on tasks that it practised before:
an **update**, at one of two learning rates. We try old prompts and two rivals: the best hard
prompt, and prompts trained anew. One task, how many words there are, was practised. The other, the
first letter of the last word, never.

**Before you run it:** after an update, which is safer, an old prompt or a hard one?
"""

# %%
BEST = ("", "Say how many words this sentence has.", "Say how the last word begins.")
strength = {"none": 0, "gentle": 3e-4, "strong": 1e-3}  # learning rate of the update
after = []
for task in ("count", "first-letter-last"):
    for row in where(read_rows(table("update")), split="test", task=task):
        if row["update"] in strength and row["words"] in BEST:
            rate = strength[row["update"]]
            after.append({**row, "rate of the update": rate, "asks": TASKS[task].question})

# %%
title = "What does an update of the base do?"
old = [row["accuracy"] for row in where(after, task="count", method="old", update="strong")]
found = f"Old prompts fall to {median(old):.2f} on one task, and words fall with them"
looks = {"old": Look("old prompt", "#44AA99"), "wording": LOOKS["wording"],
         "anew": Look("trained anew", "#882255")}
plots.lines(after, "rate of the update", "accuracy", "method", title, "asks", median, looks=looks)

# %% [markdown]
r"""
**What to notice.** Lines are medians, small dots are seeds and updates. The gentle update costs
little. The strong one takes a fifth from old prompts on the left, and nearly as much from words.
Prompts trained anew get a part of it back. On the right old prompts mostly hold. There words even
rise: the update practised parts of this task once more.

So neither is safe. `load` refuses, because no file says how an update was done. Test old prompts
again, on validation sentences.

## 4. The power of scale

**Fine-tuning** trains all weights. Lester et al. (2021) found: the larger the model, the smaller
the gap between a prompt and fine-tuning; at ten billion numbers it is gone. We have three bases, of
62, 279 and 1,001 thousand numbers. A warning: the two small ones also practised for half as many
steps. So we see what a *better* base does. Size is a part of that.

*library* (which library is the sentence from?) was practised. Of *first-letter-last* the parts were
practised. *before-last* (the word before the last) is like nothing that was. Learning rates were
chosen on validation sentences.

**Before you run it:** on which task will the prompt catch up?
"""

# %%
KNOWN = {"library": "practised", "first-letter-last": "parts practised", "before-last": "new"}
SIZES = {"base-tiny": 62, "base-small": 279, "base": 1001}  # thousand numbers
tested = where(read_rows(table("methods")), split="test")
tested = [row for row in tested if row["base"] in SIZES]
for row in tested:
    row["thousand numbers in the base"], row["known"] = SIZES[row["base"]], KNOWN.get(row["task"])

scale = []
for task, steps in (("library", 16), ("first-letter-last", 48), ("before-last", 48)):
    for method, length, step in (("wording", 0, 0), ("prompt", 16, steps), ("full", 0, steps)):
        scale += where(tested, task=task, method=method, length=length, step=step)

# %%
title = "Where does a prompt catch up with new weights?"
found = "A prompt catches up where the base practised the parts, and not outside"
plots.lines(scale, "thousand numbers in the base", "accuracy", "method", title, "known",
            median, log=True)

# %% [markdown]
r"""
**What to notice.** In the middle the lines meet on the largest base: a prompt, 0.2 % of the
numbers, is as good as new weights. On the right a gap opens, and stays. A prompt combines what the
base can do; new weights can also teach. (On the middle base one prompt of five got stuck.)

### Exercise 2: how much of the gap is closed?

The **gap** is the way from the best words to all weights. Which part of it does the prompt go? Take
medians over the seeds. Return None where all weights are not better than words: there is no gap.

<details><summary>Hint</summary>

The gap is median(full) - words. The prompt may go less than nothing of it, or more than all.

</details>
"""

# %%
@exercise
def gap_closed(words, prompt, full):
    """The hard prompt's accuracy, two lists of accuracies (one a seed) -> the part of the gap
    closed, or None."""
    raise NotImplementedError

# %%
for task in KNOWN:
    for base in SIZES:
        runs = {"wording": [], "prompt": [], "full": []}
        for row in where(scale, task=task, base=base):
            runs[row["method"]].append(row["accuracy"])
        part = gap_closed(runs["wording"][0], runs["prompt"], runs["full"])
        part = "no gap" if part is None else f"{part:.2f}"
        print(f"{task:18} {base:11} of the gap closed: {part}")

# %% [markdown]
r"""
And the words? **Before you run it:** what happens to the best hard prompt as the base grows, for a
task that was practised, for three of which the parts were, and for the new one?
"""

# %%
hard = []
for task in ("library", "repeat-second", "letters-third", "first-letter-last", "before-last"):
    hard += where(tested, task=task, method="wording")

# %%
title = "What do the best words do on each base?"
found = "A better base does more when it is only asked"
colours = ("#0072B2", "#009E73", "#999933", "#E69F00", "#D55E00")
tasks = dict.fromkeys(row["task"] for row in hard)
looks = {task: Look(TASKS[task].question, colour) for task, colour in zip(tasks, colours)}
plots.lines(hard, "thousand numbers in the base", "accuracy", "task", title, log=True, looks=looks)

# %% [markdown]
r"""
**What to notice.** The practised task is easy for all three. The three in the middle no base
practised, only their parts. The better the base, the more of them it does when it is only asked. So
on a large model try words first. A soft prompt is for what words do not reach: here the first
letter of the last word, 0.42 in words, 0.95 with a prompt.

## Summary

A row reads its own keys alone, and nobody writes to the base. So hundreds of prompts share it, and
none touches another. A file names its base by a fingerprint. After an update, test prompts and
words again. As the base gets better, words and prompts come nearer to new weights where the base
knows the parts. Outside of that the gap opens.
"""

# %% [markdown]
r"""
## Homework

### Exercise 3: which base is it from?

`load` refuses a prompt of another base, and also a file that is damaged. Say which of the two it
is.

<details><summary>Hint</summary>

`read`, in the cell that saved the prompt, raises a ValueError if the file is damaged.
`model.fingerprint()` is what this base would write into a file.

</details>
"""

# %%
@exercise
def base_in_file(path, model):
    """One of "this base", "another base" and "damaged": the file cannot be read."""
    raise NotImplementedError

# %%
print(base_in_file(path, model), "|", base_in_file(path, changed))

# %% [markdown]
r"""
### Size or practice?

`base-small-lm` has the shape of the small base and read the same texts. But it practised no task.
**Before you run it:** which of prompt, prefix and all weights learn on it which library a sentence
is from?
"""

# %%
compared = []
for base, name in (("base-small", "it practised tasks"), ("base-small-lm", "it practised none")):
    for method in ("always", "wording", "prompt", "prefix", "full"):
        for row in where(read_rows(table("methods")), split="test", task="library", base=base):
            if row["method"] == method:
                compared.append({**row, "practice": name})

# %%
title = "One size, with and without practice: what learns the library?"
found = "Without practice a prompt learns nothing, and all weights something"
plots.dots(compared, "method", "accuracy", title, "practice")
pyplot.setp(pyplot.gcf().axes, xlim=(-0.05, 0.9));

# %% [markdown]
r"""
**What to notice.** Without practice a prompt stays below the commonest answer, and a prefix finds
the commonest answer and no more. All weights learn something in the same 16 steps. So at one size
practice decides. A prompt calls up what the base can nearly do; it hardly teaches. More steps were
not tried.
"""

# %% [markdown]
r"""
## Sources

- Lester, Al-Rfou and Constant 2021, *The Power of Scale for Parameter-Efficient Prompt Tuning*,
  arXiv 2104.08691
- Li and Liang 2021, *Prefix-Tuning: Optimizing Continuous Prompts for Generation* (a batch of
  users, each with a prefix of their own), arXiv 2101.00190
"""
