# %% [markdown]
r"""
# Hundreds of prompts, and the power of scale

One frozen model, the *base*, serves hundreds of soft prompts in one batch. How much a prompt lacks
beside new weights depends on how large the base is, and on what it practised.

After this class you can

1. lay different prompts row under row, and show that no row touches another;
2. say what a prompt's file must remember, and what an update of the base does;
3. draw the gap between prompts and new weights over the size of the base.

Needs: what a `Past` is (class 4). A *virtual token* is a learned vector in the place of a token; P of
them are a prompt. A *prefix* is P learned keys and values in every layer. B rows are a batch, S slots
a past, V tokens a vocabulary.

## 1. A batch in which every row has another prompt

We train 200 soft prompts at once, an *arm* each: 160 prompts and 40 prefixes, of 8 to 20 virtual
tokens, for 16 tasks. It is a short training, 6 steps of 4 sentences. So each starts from a *hard
prompt*, an instruction in words, and only its numbers move.

Their pasts are laid row under row. A shorter past is filled up with *empty slots*, of position -1:
nothing is here. **Before you run it:** at which position does the text start in each row? Can a row
see its neighbour's prompt?
"""

# %%
import sys
sys.path.insert(0, "classroom")
from shared import TEST, measured, open_lab, watch
import torch
import drawings
import scale
import update
from checks import exercise
from methods import lab_on_a_copy
from model import Past, read
from softprompt import PromptTuning, batch, load, prefill, save
from train import TASKS, commonest_answer, mean_error, new_arm, score, share_of

lab = open_lab()
model, tok = lab.model, lab.tok

# %%
RATES = {"prompt": 1.5, "prefix": 0.3}  # in units of the size of what moves
practised = [name for name, task in TASKS.items() if task.practised]  # 16 tasks
arms = []
for n in range(200):
    task = practised[n % 16]
    method = "prefix" if n % 5 == 0 else "prompt"
    length = 8 + 5 * n % 13  # virtual tokens
    arms.append(new_arm(lab, task, method, "related", length, RATES[method], seed=n))
watch(lab, arms, 6, (), examples=4)  # trains them all as one batch
softs = [arm.soft.requires_grad_(False) for arm in arms]

# %%
def filled_up(states, S):  # (1, Hkv, P, D) -> (1, Hkv, S, D)
    return torch.nn.functional.pad(states, (0, 0, 0, S - states.shape[2]))

def my_batch(pasts):
    S = max(past.positions.shape[1] for past in pasts)
    keys, values = [], []
    for layer in range(len(pasts[0].keys)):
        keys.append(torch.cat([filled_up(past.keys[layer], S) for past in pasts]))  # (B, Hkv, S, D)
        values.append(torch.cat([filled_up(past.values[layer], S) for past in pasts]))
    positions = []
    for past in pasts:
        own = past.positions[0].tolist()  # 0, 1, 2, ...
        positions.append(own + [-1] * (S - len(own)))
    return Past(keys, values, torch.tensor(positions), torch.cat([past.pinned for past in pasts]))

# %%
pasts = [soft.past(model) for soft in softs]  # B = 1 each
past, theirs = my_batch(pasts), batch(pasts)  # B = 200 twice
for row in range(3):
    print(f"row {row}, text from {past.length[row]:2d} on:", past.positions[row].tolist())
difference = 0
for ours, project in zip(past.keys + past.values, theirs.keys + theirs.values):
    difference = max(difference, (ours - project).abs().max().item())
print("largest difference to the project's batch:", difference)

# %%
title = "Where do 200 pasts of different lengths have their empty slots?"
found = f"Behind each prompt: {len(softs)} pasts are one batch, and each has its own length"
drawings.slots_of_a_batch([soft.kind for soft in softs], past.positions.tolist(), title)

# %% [markdown]
r"""
**What to notice.** The text starts where each row's own prompt ends, not where the longest ends.
Prompts and prefixes stand in one batch, since both are keys, values and positions. Our batch and the
project's are equal.

### Exercise 1: one pass for all

Prompt i stands before text i. Prompts and texts have different lengths. Return the logits at each
text's last token, with one pass over the prompts and one over the texts. (`prefill` runs prompts of
any lengths through the model in one padded pass, and returns their pasts as one batch.)

<details><summary>Hint</summary>

Texts may be padded on the left with ids of -1. Then every last token is in the last column.
`prefill([PromptTuning(x) for x in vectors], model)` makes the past.

</details>
"""

# %%
@exercise
def mixed_logits(model, vectors, rows):
    """vectors: B tensors (P_i, C); rows: B lists of ids -> logits (B, V) at the last tokens."""
    raise NotImplementedError

# %% [markdown]
r"""
Your function now asks 160 prompts a question each. Then they are asked one at a time. Then one user is
malicious: the first prompt is made of NaN, "not a number", which spoils whatever is computed from it.
Last, all 200 answer behind their own prompt, and behind the one of the next row. **Before you run
it:** how many rows does the NaN reach?
"""

# %%
asked = [lab.rows(arm.task, "test")[n] for n, arm in enumerate(arms)]  # (question, answer) each
mine = [n for n, soft in enumerate(softs) if soft.kind == "prompt"]  # 160 rows
vectors = [softs[n].embeddings for n in mine]
rows = [asked[n][0] for n in mine]
together = mixed_logits(model, vectors, rows)  # (160, V)
alone = torch.cat([mixed_logits(model, [x], [row]) for x, row in zip(vectors, rows)])  # (160, V)
poisoned = mixed_logits(model, [vectors[0] * torch.nan, *vectors[1:]], rows)  # (160, V)
print(f"largest difference, alone or together: {(alone - together).abs().max():.1e}")
print("rows with a NaN:", poisoned.isnan().any(1).sum().item())
print("largest difference in the other rows:", (poisoned - together)[1:].abs().max().item())
own = score(model, past, asked).right.mean()
next_row = past.rows(torch.arange(200).roll(-1))
print(f"accuracy behind its own prompt {own:.2f}, behind the next row's "
      f"{score(model, next_row, asked).right.mean():.2f}")

# %% [markdown]
r"""
Is it fast? The prompts' states are ready before the clock starts. It counts the processor's time.
**Before you run it:** 200 questions behind 200 prompts: how many times as fast is one batch as one
question at a time?
"""

# %%
from statistics import median
from time import process_time
questions = [question for question, _ in asked]
single = [past.rows(torch.tensor([n])) for n in range(200)]  # B = 1 each
model.generate(questions[:1], 2, single[0])  # the first call is slow: not on the clock
for N in (1, 8, 40, 200):
    own_pasts, ratios = past.rows(torch.arange(N)), []
    for turn in range(3):
        begun = process_time()
        together = model.generate(questions[:N], 2, own_pasts)
        between = process_time()
        alone = [model.generate([questions[n]], 2, single[n])[0] for n in range(N)]
        ratios.append((process_time() - between) / (between - begun))
    print(f"N = {N:3d}: {median(ratios):4.1f} times as fast ({min(ratios):.1f} to "
          f"{max(ratios):.1f}), equal answers: {together == alone}")

# %% [markdown]
r"""
**What to notice.** NOTICE1

## 2. What a file must remember

A prompt is saved. Then one number of the base becomes the next one that float32 has. **Before you run
it:** what must the file hold, so that nobody uses it wrongly in a year? Will `load` notice the change?
"""

# %%
from tempfile import mkdtemp
path = f"{mkdtemp()}/count.pt"
arm = arms[2]
save(arm.soft, path, model, task=arm.task, steps=6)
content = read(path, "a soft prompt", ("kind", "base", "facts", "state"))
size = len(open(path, "rb").read())
print(f"{size:,} bytes, {arm.soft.embeddings.nbytes:,} of them vectors")
print("kind:", content["kind"], "| facts:", content["facts"], "| base:", content["base"][:16])
nudged = lab_on_a_copy(lab).model
weight = nudged.model.norm.weight
weight[0] = torch.nextafter(weight[0], torch.tensor(9.0))
print("one number of the base:", model.model.norm.weight[0].item(), "becomes", weight[0].item())
try:
    load(path, nudged)
except ValueError as problem:
    print(str(problem).replace(path, "count.pt"))

# %% [markdown]
r"""
**What to notice.** NOTICE2

## 3. A base that moves on

Is `load` too strict? The base trains 20 more steps of 32 sentences on tasks that it practised, at a
learning rate of 3e-4 (gentle) or 1e-3 (strong). There are five of each, with a seed of their own.
Prompts of five seeds are tried before and after. Two controls stand beside them: prompts trained anew
on three of the new bases, and the hard prompt that was best before. That took minutes:
`python tutorials/classroom/update.py` made the table, and makes it again.

**Before you run it:** after an update, which is safer, an old prompt or a hard one?
"""

# %%
results = measured("update", update.COLUMNS)
NEW = "first-letter-last"  # the base never practised it
valid = {row["words"]: row["share"] for row in results
         if row["split"] == "valid" and row["update"] == "none"}
best = max(valid, key=valid.get)  # the hard prompt of the new task, before the updates
shares, always = {}, {}
for row in results:
    is_shown = row["update"] in ("none", "gentle", "strong") and row["split"] == "test"
    is_best = row["method"] != "wording" or row["task"] != NEW or row["words"] == best
    if row["answers"] == "right" and is_shown and is_best:
        where = row["task"], row["update"], row["method"]
        shares.setdefault(where, []).append(row["share"])
for task in update.PROMPT_TASKS:
    answer = commonest_answer(TASKS[task].pairs(lab.data["train"]))
    always[task] = share_of(answer, TASKS[task].pairs(lab.data["test"][:TEST]))

# %%
means = {where: sum(values) / len(values) for where, values in shares.items()}
title = "What does an update of the base do to old prompts and to hard ones?"
found = f"FOUND3"
drawings.after_an_update(shares, always, title)

# %% [markdown]
r"""
**What to notice.** NOTICE3

The hard prompt of the new task *rises*, and nobody practised that task. Why? First look at what the
wrong answers are. The task has two parts: *what* is asked (the first letter), and *of which word* (the
last). Then look at controls: updates at the same rate that practise only the tasks of the last word
(repeat it, its last letter, its length), only the others, or *library* alone, and a move in a random
direction, as far as the strong update goes. **Before you run it:** which of them lift a hard prompt?
"""

# %%
kinds, runs = {}, {}
for row in results:
    if (row["task"], row["method"], row["split"]) == (NEW, "wording", "test"):
        where = row["words"], row["update"]
        seeds = 1 if row["update"] == "none" else len(update.UPDATE_SEEDS)
        of_words = kinds.setdefault(where, dict.fromkeys(update.KINDS, 0))
        of_words[row["answers"]] += row["share"] / seeds
        if row["answers"] == "right":
            runs.setdefault(where, []).append(row["share"])
right = {where: of_words["right"] for where, of_words in kinds.items()}

# %%
title = "Why does a hard prompt of the new task rise after an update?"
found = f"FOUND4"
drawings.answers_to_hard_prompts(kinds, runs, title)

# %% [markdown]
r"""
**What to notice.** NOTICE4

## 4. The power of scale

Lester et al. (2021) found that prompts catch up with *fine-tuning*, training all weights, as models
grow. Here are three bases. All read the same texts. The two small ones practised tasks for half as many
steps, so size is not all that differs. Three tasks: *library*, which they practised;
*first-letter-last*, of which they practised the parts; *before-last* (repeat the word before the last),
outside of all that they practised. Five ways: the best hard prompt, a prompt of 16, a prefix of 16,
*LoRA* (small matrices learned beside each attention weight), and all weights. Each has its learning
rate chosen on another seed, by validation. Five seeds. `classroom/scale.py` made the table.

**Before you run it:** grey is the gap between prompt and all weights. On which task does it close?
"""

# %%
measurements = measured("scale", scale.COLUMNS)
BASES = ("base-tiny", "base-small", "base")

def accuracies(base, task, method):  # of each seed
    return [row["accuracy"] for row in measurements if row["split"] == "test"
            and (row["base"], row["task"], row["method"]) == (base, task, method)]

numbers = {row["base"]: row["numbers"] for row in measurements}
sizes = [numbers[base] for base in BASES]
points, commonest = {}, {}
for task in scale.STEPS:
    [commonest[task]] = accuracies("base", task, "always")
    for method in ("wording", "prompt", "prefix", "lora", "full"):
        points[task, method] = [mean_error(accuracies(base, task, method), TEST) for base in BASES]

# %%
title = "Where does a prompt come near new weights as the base grows?"
found = f"FOUND5"
drawings.accuracy_over_size(sizes, points, commonest, title)

# %% [markdown]
r"""
**What to notice.** NOTICE5

### Exercise 2: how much of the gap is closed?

The hard prompt has one accuracy; prompt and all weights have one for each seed. Which part of the way
from the hard prompt to all weights does the prompt go? Take means over seeds. Return None where all
weights are not better than the hard prompt: there is no gap.

<details><summary>Hint</summary>

The way is mean(full) - english. The prompt may go less than nothing of it, or more than all.

</details>
"""

# %%
@exercise
def gap_closed(english, prompt, full):
    """The hard prompt's accuracy, two lists of accuracies (one a seed) -> the part of the gap
    closed, or None."""
    raise NotImplementedError

# %%
gaps, seeds, closed = {}, {}, {}
for task in scale.STEPS:
    gaps[task], seeds[task], closed[task] = [], [], []
    for place, base in enumerate(BASES):
        [english] = accuracies(base, task, "wording")
        prompt, full = accuracies(base, task, "prompt"), accuracies(base, task, "full")
        (low, low_error), (high, high_error) = points[task, "prompt"][place], points[task, "full"][place]
        gaps[task].append((high - low, (low_error**2 + high_error**2) ** 0.5))
        seeds[task].append([b - a for a, b in zip(prompt, full)])
        closed[task].append(gap_closed(english, prompt, full))

# %%
title = "Does the gap between prompt and all weights close as the base grows?"
found = f"FOUND6"
drawings.gap_over_size(sizes, gaps, seeds, closed, title)

# %% [markdown]
r"""
**What to notice.** NOTICE6
"""

# %% [markdown]
r"""
## Summary

SUMMARY
"""

# %% [markdown]
r"""
## Homework

HOMEWORK
"""

# %%
@exercise
def is_of_another_base(path, model):
    """True where the prompt in the file is of another base, False where it is of this one."""
    raise NotImplementedError

# %% [markdown]
r"""
## Sources

- Lester, Al-Rfou and Constant 2021, *The Power of Scale for Parameter-Efficient Prompt Tuning*
  (scale, one model for many prompts), arXiv 2104.08691
- Li and Liang 2021, *Prefix-Tuning: Optimizing Continuous Prompts for Generation* (a batch of
  users, each with a prefix of their own), arXiv 2101.00190
- Hu et al. 2021, *LoRA: Low-Rank Adaptation of Large Language Models*, arXiv 2106.09685
"""
