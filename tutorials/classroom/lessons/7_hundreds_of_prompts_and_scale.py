# %% [markdown]
r"""
# Hundreds of prompts, and the power of scale

One frozen model, the **base**, serves hundreds of soft prompts in one batch.

After this class you can

1. lay different prompts row under row, and test whether one row touches another;
2. say what an update of the base does to its prompts;
3. measure the gap between words, prompts and new weights as the base grows.

Needs: classes 1 and 4. B rows are a batch, V tokens a vocabulary. A **hard prompt** is an
instruction in words.

## 1. A batch in which every row has another prompt

We train 160 prompts and 40 prefixes at once, no two alike: of 8 to 20 virtual tokens, for 16 tasks
that the base practised. Each starts at an instruction, so six steps are enough.
"""

# %%
import sys
sys.path.insert(0, "classroom")
from copy import deepcopy
from statistics import median
from tempfile import mkdtemp
from time import process_time
from timeit import timeit
import torch
from matplotlib import pyplot
from shared import open_lab, table
import plots
from checks import exercise
from plots import LOOKS, Look
from softprompt import PromptTuning, batch, load, prefill, save
from train import TASKS, fit, new_arm, read_rows, score, where
lab = open_lab()
model = lab.model

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
Each leaves a **past**: the keys and values of its virtual tokens. `batch` lays the pasts
row under row. A shorter past gets **empty slots** behind it. A query sees keys by their positions,
wherever they lie. An empty slot has the position -1, which no token has: no query sees it.
"""

# %%
past = batch([soft.past(model) for soft in softs])  # B = 200 rows
text = past.length[:8, None] + torch.arange(4)  # (8, 4): four tokens of text
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
**What to notice.** Each text starts where its own prompt ends, as if the row were alone.

### Exercise 1: one pass for all

Prompt i stands before text i. Both may have any length. Return the logits (the scores of the next
token) at each text's last token. Use one pass over the prompts, and one over the texts.

<details><summary>Hint</summary>

`prefill([PromptTuning(x) for x in vectors], model)` runs prompts of any lengths through the model
together, and returns their pasts as one batch. A short text gets ids of -1 (no token) **on the
left**: then every last token is in the last column. An id of -1 takes no position: the text's first
token still follows its own prompt.

</details>
"""

# %%
@exercise
def mixed_logits(model, vectors, rows):
    """vectors: B tensors (P_i, C); rows: B lists of ids -> logits (B, V) at the last tokens."""
    raise NotImplementedError

# %% [markdown]
r"""
Does one row touch another? We spoil the first of the 160 prompts: all its numbers become NaN, "not
a number". Whatever is computed from a NaN is a NaN. **Before you run it:** how many of the 160 rows
will be spoiled?
"""

# %%
asked = [lab.rows(arm.task, "test")[n] for n, arm in enumerate(arms)]  # (question, answer) each
prompts = [n for n in range(200) if softs[n].kind == "prompt"]  # 160 rows
vectors, rows = [softs[n].embeddings for n in prompts], [asked[n][0] for n in prompts]
sound = mixed_logits(model, vectors, rows)  # (160, V)
spoiled = mixed_logits(model, [vectors[0] * torch.nan, *vectors[1:]], rows)  # (160, V)
print("rows with a NaN:", spoiled.isnan().any(1).sum().item())
print("the other rows change by", (spoiled - sound)[1:].abs().max().item())

# %% [markdown]
r"""
**What to notice.** The NaN stays in its row. No other row changes, not even in the last digit: a
row's queries read the keys of their own row alone.

Now all 200 answer a question each. **Before you run it:** what if each row stands behind the next
row's prompt? And how many times as fast is one batch as 200 calls?
"""

# %%
next_row = past.rows(torch.arange(200).roll(-1))
for name, before in (("its own", past), ("the next row's", next_row)):
    print(f"accuracy behind {name} prompt: {score(model, before, asked).right.mean():.2f}")
questions = [question for question, _ in asked]
each = [(questions[n : n + 1], 2, past.rows(torch.tensor([n]))) for n in range(200)]
alone = timeit(lambda: [model.generate(*one) for one in each], timer=process_time, number=1)
together = timeit(lambda: model.generate(questions, 2, past), timer=process_time, number=1)
print(f"one batch is {alone / together:.0f} times as fast")

# %% [markdown]
r"""
**What to notice.** Behind the next row's prompt nearly all is wrong: each row really has its own
task. The batch is several times as fast, since the weights are read once for all rows.

## 2. A base that moves on

A prompt is saved. Then **one** number of the base changes in its last digit. Will `load` notice?
"""

# %%
path = f"{mkdtemp()}/count.pt"
save(softs[2], path, model, task=arms[2].task)
changed = deepcopy(model)
weight = changed.model.norm.weight  # (C,)
weight[0] = torch.nextafter(weight[0], torch.tensor(9.0))  # the next number that a computer has
try:
    load(path, changed)
except ValueError as problem:
    print(str(problem).replace(path, "count.pt"))

# %% [markdown]
r"""
**What to notice.** The file holds the vectors and the **fingerprint** of the base: a short code
made of its shape and all its weights. So `load` notices one digit, and refuses.

Is that too strict? Somebody trains the base for 20 more steps, on tasks that it practised before:
an **update**. We ask how many words a sentence has. Three things can answer: an old prompt, the
hard prompt, and a prompt trained anew on the updated base. **Before you run it:** after an update,
which is safer, an old prompt or a hard one?
"""

# %%
rates = {"none": 0, "gentle": 3e-4, "strong": 1e-3}  # absolute: about what a weight moves in a step
after = where(read_rows(table("update")), split="test", task="count")
for row in after:
    row["absolute rate of the update"] = rates[row["update"]]

title = "What does an update of the base do?"
found = "A strong update costs prompts and words alike"
looks = {"old": Look("old prompt", "#44AA99"), "wording": LOOKS["wording"],
         "anew": Look("trained anew", "#882255")}
x = "absolute rate of the update"
plots.lines(after, x, "accuracy", "method", title, average=median, looks=looks)

# %% [markdown]
r"""
**What to notice.** Lines are medians. The gentle update costs little. After the strong one old
prompts have 0.76 in place of 0.94, and the hard prompt ends nearly as low. Trained anew, a prompt
gets a part of it back. (For the first letter of the last word old prompts mostly hold, and words
even rise.)

So neither is safe, and `load` refuses. Test old prompts again, on validation sentences.

## 3. The power of scale

**Fine-tuning** trains all weights. Lester et al. (2021) found: the larger the model, the smaller
the gap between a prompt and fine-tuning. We have three bases, of 62, 279 and 1,001 thousand
numbers. The two small ones also practised for half as many steps. So we see what a *better* base
does; size is a part of that.

*library* (which library is the sentence from?) was practised. Of *first-letter-last* the parts were
practised. *before-last* (the word before the last) is new.

**Before you run it:** on which task will the prompt catch up?
"""

# %%
KNOWN = {"library": "practised", "first-letter-last": "parts practised", "before-last": "new"}
SIZES = {"base-tiny": 62, "base-small": 279, "base": 1001}  # thousand numbers
x, scale = "thousand numbers in the base", []
for task in KNOWN:
    for row in where(read_rows(table("methods")), split="test", task=task):
        short = row["step"] < 64 and row["length"] in (0, 16)  # the runs that all bases have
        if row["base"] in SIZES and row["method"] in ("wording", "prompt", "full") and short:
            scale.append({**row, x: SIZES[row["base"]], "known": KNOWN[task]})

title = "Where does a prompt catch up with new weights?"
found = "A prompt catches up where the base practised the task or its parts"
plots.lines(scale, x, "accuracy", "method", title, "known", median, log=True)

# %% [markdown]
r"""
**What to notice.** On the left all three are alike on every base: there words are enough. In the
middle the lines of prompt and new weights meet on the largest base, though a prompt has 0.2 % of
the numbers. On the right a gap opens, and stays. A prompt combines what the base can do; training
the weights can also add what the base cannot do. (On the middle base one prompt of five got stuck.)

### Exercise 2: how much of the gap is closed?

The **gap** is the way from the best words to all weights. Which part of it does the prompt go? Take
medians over the seeds. Return None where all weights are not better than words: there is no gap.

<details><summary>Hint</summary>

The gap is median(full) - words. The part may be below 0 or above 1.

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
        print(f"{task:18} {base:11}", "no gap" if part is None else f"{part:.2f}")

# %% [markdown]
r"""
**What to notice.** Where the parts were practised, the prompt closes all of the gap on the largest
base. Of the new task it closes less than half. And look at the words in the middle of the figure:
on the largest base they rise too. So try words first. How far they reach depends on what a base
practised, and not on size alone: on class 8's tickets words only guess, with a model 134 times as
large.

## Summary

A row reads its own keys alone. So hundreds of prompts share one base. After an update, test prompts
and words again. As the base gets better, words do more where it knows the parts, and prompts come
nearer to new weights there. For a new task words stay at nothing, and the gap opens.
"""

# %% [markdown]
r"""
## Homework

### Exercise 3: which base is it from?

`load` refuses a prompt of another base, and also a file that is damaged. Say which of the two it
is.

<details><summary>Hint</summary>

`read(path, "a soft prompt", ("kind", "base"))`, from `model.py`, gives what is in the file. It
raises a ValueError if the file is damaged.
`model.fingerprint()` is what this base would write into a file.

</details>
"""

# %%
from model import read

@exercise
def base_in_file(path, model):
    """One of "this base", "another base" and "damaged": the file cannot be read."""
    raise NotImplementedError

# %%
content = read(path, "a soft prompt", ("kind", "base", "facts", "state"))
print(content["kind"], content["facts"], tuple(content["state"]["embeddings"].shape))
print(base_in_file(path, model), "|", base_in_file(path, changed))

# %% [markdown]
r"""
### What do words do on a better base?

**Before you run it:** what happens to the best hard prompt as the base grows, for a task that was
practised, for three of which the parts were, and for the new one?
"""

# %%
hard = []
for task in ("library", "repeat-second", "letters-third", "first-letter-last", "before-last"):
    for row in where(read_rows(table("methods")), split="test", task=task, method="wording"):
        if row["base"] in SIZES:
            hard.append({**row, x: SIZES[row["base"]]})

title = "What do the best words do on each base?"
found = "A better base does more when it is only asked"
others = {"repeat-second": "#6A51A3", "letters-third": "#3182BD", "before-last": "#8C564B"}
looks = {}
for task in dict.fromkeys(row["task"] for row in hard):
    looks[task] = Look(TASKS[task].question, others.get(task, TASKS[task].colour))
plots.lines(hard, x, "accuracy", "task", title, log=True, looks=looks)

# %% [markdown]
r"""
**What to notice.** The practised task is easy for all three. Of the next three no base practised
more than the parts. The largest base does more of them when it is only asked. *before-last*, the
new one, stays near 0.

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
