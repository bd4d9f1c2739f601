# %% [markdown]
r"""
# Where to start

A prompt's start and its learning rate decide together how fast it learns.

After this class you can

1. run a fair race between starts;
2. say which learning rate a start wants, and why;
3. tell a head start from pace;
4. say when the prompt of another task is a good start.

Needs: class 1. A prompt is P **virtual tokens**: learned vectors of C numbers in the place of token
embeddings. Losses are in **nats**: minus the natural logarithm of the right token's probability.

## 1. Four ways to start

The embedding table has a row of C numbers for each of V tokens. A prompt can start from

- **text**: the rows of some text, repeated or cut to P rows;
- **sampled tokens**: P rows of the table, drawn at random;
- a **matched Gaussian**: random numbers with the mean and standard deviation of each column;
- **N(0, 1)**: random numbers of mean 0 and standard deviation 1, whatever the table looks like. This
  is the default of PEFT, the library that many people use for prompts.

"""

# %%
import sys
sys.path.insert(0, "classroom")
import math
from statistics import mean, median
import torch
from shared import EXAMPLES, TEST, VALID, arms_of, measured, open_lab, score_hard_prompt
from shared import steps_needed, times_sooner
import drawings
from checks import exercise
from softprompt import initial_embeddings
from train import STARTS, TASKS, THRESHOLD, best_hard_prompt, commonest_answer, fit, measure
from train import related_text, share_of
lab = open_lab()  # the model is frozen
P = 16  # virtual tokens
table = lab.model.model.embed_tokens.weight  # (V, C)
V, C = table.shape

# %% [markdown]
r"""
## 2. The race

The base never practised *the first letter of the last word*. When has a prompt learned it? We fix a
**threshold** before we see a curve: 0.5 nats on validation sentences. What counts is the steps
until then. An **arm** is one training of one prompt. Its **seed** sets its random numbers and its
sentences. Learning rates are in units of the **spread**, the standard deviation of the table's
numbers.

**Exercise 1.** Write the function that counts.

<details><summary>Hint</summary>

Go through steps and losses together with `zip`. Return the first step whose loss is low enough.
After the loop return `math.inf`: this arm never got there.

</details>

Then three starts train at two rates. **Related text** is an instruction for the task.
**Before you run it:** which start will be fastest at rate 1, and which at rate 8?
"""

# %%
@exercise
def steps_to(steps, losses, threshold):
    """The first of `steps` with a loss at or below the threshold, math.inf where there is none.
    steps: a list of ints, going up. losses: a list of floats, as many."""
    raise NotImplementedError

# %%
TASK, STEPS = "first-letter-last", 40
starts, arms = [], []
for start in ("related", "vocab", "normal"):
    for rate in (1, 8):
        arms += arms_of(lab, TASK, start, P, rate, seeds=(0, 1))
        starts += [start, start]
looks = {}  # {step: a row of results for each arm}
for step in fit(lab.model, arms, {TASK: lab.rows(TASK, "train")}, STEPS, EXAMPLES):
    if step % 2 == 0:
        looks[step] = measure(lab, arms, step, "valid", VALID)
    if step == 30:
        break
curves, live = {}, {}  # {(start, rate): the losses of each seed}, {(start, rate): their steps}
for number, arm in enumerate(arms):
    losses = [rows[number]["loss"] for rows in looks.values()]
    where = (starts[number], arm.rate)
    curves.setdefault(where, []).append(losses)
    live.setdefault(where, []).append(steps_to(list(looks), losses, THRESHOLD))
print(live)

# %%
title = "Does one start win at both learning rates?"
slow, fast = median(live["normal", 1]), median(live["normal", 8])
found = (
    f"Noise needs {slow:.0f} steps at rate 1, and {fast:.0f} at rate 8, where it is about as "
    "fast as the others"
)
drawings.loss_at_two_rates(list(looks), curves, THRESHOLD, title)

# %% [markdown]
r"""
**What to notice.** A waiting prompt guesses how common each letter is: that costs 2 nats. Then its
loss falls within a few steps. Two seeds are only a first look.

Six starts (text may be *related* to the task, of *another task*, or *unrelated*), five rates and
eight seeds take minutes. So `python tutorials/classroom/starts.py` ran them once, and we read its
table. Unrelated text is about a train. Noise has one rate more, 16. **Before you run it:** which
line will fall from left to right?
"""

# %%
rows = measured("starts")
runs = [row for row in rows if row["rate"] in (0.5, 1, 2, 4, 8, 16)]

def steps_at_rates(task, seeds):
    """{start: {rate: [steps of these seeds]}} in the table."""
    found = {start: {} for start in STARTS}
    for row in runs:
        if row["task"] == task and row["seed"] in seeds:
            found[row["start"]].setdefault(row["rate"], []).append(row["steps"])
    return found

needed = {}  # {(start, rate): the steps of all seeds}
for start, tried in steps_at_rates(TASK, range(8)).items():
    for rate, steps in tried.items():
        needed[start, rate] = steps
at_rate, _ = times_sooner(needed, "normal", "related")

# %%
title = "How many steps does a prompt need, from each start and at each learning rate?"
found = (
    f"From noise it takes {at_rate[1]:.1f} times the steps of related text at rate 1, and "
    f"{at_rate[8]:.1f} times at rate 8"
)
drawings.steps_over_rate(needed, live, STEPS, TASK, title)

# %% [markdown]
r"""
**What to notice.** Your own runs (rings) lie on the stored dots. Noise is the one start whose line
falls and falls: at 0.5 it hardly ever learns, at 8 it has passed two others. At rates 2 and 4
related text is clearly first. So "how many times faster is text?" has no answer without a rate.

## 3. Why noise wants a high rate

AdamW divides each gradient by its usual size. So a step moves each number by about the rate,
however small the gradient is, and the vector by the rate times the square root of C. Each layer
divides a vector by its own size before it reads it (RMSNorm). So what the model sees of a step is
how far it **turns** the vector. **Before you run it:** at rate 1 a step is about as long as a
token's vector. By how many degrees does it turn noise?
"""

# %%
spread = table.std().item()
vectors = torch.randn(64, C, generator=torch.Generator().manual_seed(0))  # (64, C), noise
lengths = {
    "vocab": table.norm(dim=1),  # (V,)
    "normal": vectors.norm(dim=1),  # (64,)
}
step_length = {rate: rate * spread * C**0.5 for rate in (1, 8)}
turned = {}  # by how many degrees a step across a vector turns it
for start, rate in (("vocab", 1), ("normal", 1), ("normal", 8)):
    turned[start, rate] = math.degrees(math.atan(step_length[rate] / lengths[start].mean()))
    degrees = turned[start, rate]
    print(f"{STARTS[start].label:15s} rate {rate}: a step turns it by {degrees:.0f} degrees")

# %%
title = "How far does one step of AdamW turn a token, and how far noise?"
found = (
    f"A step at rate 1 turns a token by {turned['vocab', 1]:.0f} degrees, and noise, which is "
    f"{lengths['normal'].mean() / lengths['vocab'].mean():.0f} times as long, by "
    f"{turned['normal', 1]:.0f}"
)
drawings.cloud_and_noise(lengths, step_length, turned, title)

# %% [markdown]
r"""
**What to notice.** Lengths are true in this drawing. Directions are not: a page has two dimensions,
a vector 128. Noise is long, and needs a rate for its length.

With such a rate, is it as good as text? Let each start have its best rate. But the best of five
medians in the race itself is partly luck. So the rate is **chosen on other seeds** than those that
race: three choose, five race.

**Exercise 2.** Write this fair choice.

<details><summary>Hint</summary>

Go through the starts. `min(tried, key=...)` finds the rate with the lowest `median(tried[rate])`.
Look at `race` only when the rate is fixed.

</details>
"""

# %%
@exercise
def fair_medians(tuning, race):
    """tuning and race are {start: {rate: [steps]}}, with the same starts and the same rates
    -> {start: (rate, steps)}: the rate with the lowest median in tuning (the first of equals), and
    the median of the start's steps in the race at that rate."""
    raise NotImplementedError

# %% [markdown]
r"""
## 4. Head start or pace?

A start can be first for two reasons. A **head start**: its loss is lower before any training. Or
**pace**: its loss falls in fewer steps. We draw both, each start at its own rate, for the new task
and for *library* (which of six libraries a sentence is from), which the base practised. **Before
you run it:** does the lowest loss at step 0 learn the new task first?
"""

# %%
fair, points = {}, {}
for task in (TASK, "library"):
    fair[task] = fair_medians(steps_at_rates(task, (5, 6, 7)), steps_at_rates(task, range(5)))
    for start, (rate, _) in fair[task].items():
        for row in runs:
            where = (row["task"], row["start"], row["rate"])
            if where == (task, start, rate) and row["seed"] < 5:
                seeds = points.setdefault((task, start), [])
                seeds.append((row["first_loss"], row["steps"]))
for start, (rate, steps) in fair[TASK].items():
    print(f"{STARTS[start].label:22s} rate {rate:3g}: {steps:2.0f} steps")

# %%
title = "Does a low loss before training promise few steps?"
times = fair[TASK]["normal"][1] / fair[TASK]["related"][1]
found = (
    f"No: related text begins highest and is first. Noise at its own rate takes {times:.1f} "
    "times its steps"
)
drawings.first_loss_and_steps(points, STEPS, title)

# %% [markdown]
r"""
**What to notice.** On the new task related text has the highest loss at step 0 and is first: that
is pace. Unrelated text has the lowest loss and is among the last. On *library* both are below the
threshold before any training: that is a head start, and nothing is left to learn. So a low loss at
step 0 says that the task is known already. It does not say how fast one learns.

## 5. What users of PEFT see

PEFT's prompts start from N(0, 1) if one says nothing. Rates there are **absolute**: the rate in our
units times the spread of the table, 0.063. Four are usual: 0.00005 is the default of Hugging Face's
Trainer; PEFT's comparison of methods has 0.001 (there noise had 25 % right, sampled tokens 36 %);
its guide has 0.03; Lester et al. 2021 have 0.3. A user reports that noise "doesn't learn". **Before
you run it:** at which of the four would you report the same after 60 steps?
"""

# %%
KNOWN = {0.00005: "Trainer", 0.001: "PEFT's comparison", 0.03: "PEFT's guide", 0.3: "Lester et al."}
usual = {}  # {(start, absolute rate): [(steps, accuracy) of each seed]}
for row in rows:
    if not math.isnan(row["accuracy"]):
        rate = float(f"{row['rate'] * spread:.1g}")
        usual.setdefault((row["start"], rate), []).append((row["steps"], row["accuracy"]))
for (start, rate), seeds in usual.items():
    steps = median(steps for steps, _ in seeds)
    print(f"{STARTS[start].label:15s} {rate:7.5f} ({rate / spread:.3f} spreads): {steps} steps")

def baselines(task):
    """{name: accuracy on the test sentences} of what needs no training."""
    answer = commonest_answer(TASKS[task].pairs(lab.data["train"]))
    always = share_of(answer, TASKS[task].pairs(lab.data["test"][:TEST]))
    words = best_hard_prompt(lab, task)  # chosen on validation sentences
    return {"always": always, "wording": score_hard_prompt(lab, task, words, "test", TEST)[1]}

# %%
title = "How much has a prompt learned after 60 steps at the usual rates?"
tokens, random_start = (
    mean(accuracy for _, accuracy in usual[start, 0.03]) for start in ("vocab", "normal")
)
found = f"At 0.03 sampled tokens reach {tokens:.2f} and noise {random_start:.2f}; at 0.3 both learn"
drawings.accuracy_at_usual_rates(usual, KNOWN, baselines(TASK), title)

# %% [markdown]
r"""
**What to notice.** Noise learns nothing at two of the four rates, and at 0.03 not in all seeds. At
0.3 it equals the others. So the user is right, but the cause is the rate: 60 steps at 0.001 move a
number by at most 0.06. Noise's numbers are 16 times that. Related text learns even at 0.001.

## 6. A neighbour's prompt

Can a trained prompt of one task be the start for another (*SPoT*, Vu et al. 2021)? In *swap-4* a
prompt says the first letter of the first word, but eight letters have changed places. *Swap-1* has
two of them, R and C. *First-letter-first* has none. The base knows the rule. The swaps are
**facts**, which only a prompt can hold.

The second race is *first-letter-last* again, with neighbours that have its operation or its word.
`python tutorials/classroom/neighbour.py` ran both, five seeds each.
**Before you run it:** which neighbours help?
"""

# %%
rows = measured("neighbour")
swap, ends = {}, {}  # {start: {step: [accuracy of each seed]}}, {start: [at the end, on test]}
for row in rows:
    if row["task"] == "swap-4" and row["split"] == "valid":
        curve = swap.setdefault(row["start"], {})
        curve.setdefault(row["step"], []).append(row["accuracy"])
    if row["task"] == "swap-4" and row["split"] == "test":
        ends.setdefault(row["start"], []).append(row["accuracy"])
steps_from = {}  # {(start, rate): [steps of each seed]}
for rate in (0.5, 1, 2, 4, 8):
    steps_from["vocab", rate] = needed["vocab", rate]
steps_from |= steps_needed(rows, TASK)

# %%
title = "Is a neighbour's prompt a good start?"
found = (
    f"A neighbour that shares facts helps ({mean(ends['swap-1']):.2f} against "
    f"{mean(ends['vocab']):.2f} from sampled tokens); one that shares a rule does not"
)
drawings.neighbours(swap, ends, baselines("swap-4"), steps_from, STEPS, title)

# %% [markdown]
r"""
**What to notice.** *Swap-4*: the prompt of swap-1 is right on half of the sentences before it
learns anything, since it knows R and C. It is a head start in facts, and the others do not catch up
in 120 steps. First-letter-first shares only the rule. *First-letter-last*: no neighbour beats
sampled tokens. One that looks at the wrong word must first be unlearned. Both lines fall to the
right: trained vectors are long, too, and want high rates.
"""

# %% [markdown]
r"""
## Summary

A fair race has a threshold fixed before, several seeds, and for each start a rate that other seeds
have chosen. AdamW's step is as long as the rate says. So the rate that a start wants depends on its
length: related text is best at 2 to 4 spreads, noise, 16 times as long, at 8 to 16. At one
rate for all, noise takes 1.5 to 4 times the steps of related text, or never learns.

A low loss at step 0 is a head start: something is known already. It does not promise pace. A
neighbour's prompt is one in the facts that it shares.
"""

# %% [markdown]
r"""
## Homework

**The four starts.** Which of them has the longest vectors, and how many times as long?
"""

# %%
text = lab.tok.encode(related_text("first-letter-last"))
ours = {
    "text": table[(text * P)[:P]],
    "vocab": table[torch.randperm(V, generator=torch.Generator().manual_seed(7))[:P]],
    "normal": torch.randn(P, C, generator=torch.Generator().manual_seed(7)),
}
noise = torch.randn(P, C, generator=torch.Generator().manual_seed(7))
ours["matched"] = table.mean(0) + table.std(0) * noise  # (P, C), as all of them
for method, start in ours.items():
    gen = torch.Generator().manual_seed(7)
    theirs = initial_embeddings(lab.model, P, method, text, gen)
    difference = (start - theirs).abs().max()
    length = start.norm(dim=1).mean()
    print(f"{method:8s} largest difference {difference:.0f}, length of a vector {length:5.2f}")

# %% [markdown]
r"""
**What to notice.** Ours equal the project's: the largest difference is 0. N(0, 1) is the odd one.
Nobody sees this in the code.
"""

# %% [markdown]
r"""
A ratio of two medians is uncertain. The **bootstrap** shows by how much: draw eight of the eight
seeds with repeats, for both starts, and take the ratio of the medians; do this 2,000 times. The
interval is the middle 95 % of the ratios.

**Exercise 3.** Write it, for draws that are given.

<details><summary>Hint</summary>

For each `(i, j)` in draws take `median(a[x] for x in i)` and the same for `b` and `j`. Sort the
ratios. With `n = round(0.025 * (len(draws) - 1))`: number n from the front, and from the back.

</details>
"""

# %%
@exercise
def bootstrap_ratio(a, b, draws):
    """The 95 % interval (low, high) of median(a) / median(b).
    a, b: lists of numbers. draws: pairs (indices into a, indices into b), lists of ints."""
    raise NotImplementedError

# %%
import random
gen = random.Random(0)
draws = [(gen.choices(range(8), k=8), gen.choices(range(8), k=8)) for _ in range(2000)]
for rate in (1, 2, 4, 8):
    low, high = bootstrap_ratio(needed["normal", rate], needed["related", rate], draws)
    ratio = median(needed["normal", rate]) / median(needed["related", rate])
    print(f"rate {rate}: noise takes {ratio:.1f} times the steps, 95 %: {low:.1f} to {high:.1f}")

# %% [markdown]
r"""
**What to notice.** At each of these rates related text is faster: no interval reaches down to 1.
But eight seeds cannot tell 2.5 times from 5 times.
"""

# %% [markdown]
r"""
**Without a check.** Write a start of your own as an entry of `STARTS` in train.py, for example the
mean of all tokens with a little noise. Say before you run it which rate it will want. Then run
`python train.py --quick`.
"""

# %% [markdown]
r"""
## Sources

- Lester, Al-Rfou and Constant 2021, *The Power of Scale for Parameter-Efficient Prompt Tuning*
  (random, sampled and class-label starts; a constant rate of 0.3), arXiv 2104.08691
- Li and Liang 2021, *Prefix-Tuning: Optimizing Continuous Prompts for Generation* (real words beat
  a random start when examples are few), arXiv 2101.00190
- Vu, Lester, Constant, Al-Rfou and Cer 2021, *SPoT: Better Frozen Model Adaptation through Soft
  Prompt Transfer* (another task's prompt as the start), arXiv 2110.07904
- PEFT on GitHub: issue 2816 (noise "doesn't learn"), pull request 2824 (25 % and 36 %, rate 0.001);
  its guide *Prompt-based methods* (rate 0.03)
"""
