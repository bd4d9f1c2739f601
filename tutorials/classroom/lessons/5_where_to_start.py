# %% [markdown]
r"""
# Where to start

A prompt is trained, so it has to start somewhere. Does it matter where?

After this class you can

1. run a fair race between starts;
2. say which learning rate a start wants, and why;
3. tell a head start from pace.

Needs: class 1. A **prompt** is P **virtual tokens**: learned vectors of C numbers in the place of
token embeddings. Losses are in **nats**: minus the natural logarithm of the right token's
probability.

## 1. Ways to start

The embedding table has a row of C numbers for each of V tokens. A prompt can start from

- **text**: the rows of its tokens, repeated or cut to P rows. The text can be *related* to the task
  (an instruction for it), be for *another task*, or be *unrelated* (about a train);
- **sampled tokens**: P rows of the table, drawn at random;
- a **matched Gaussian**: random numbers with the mean and standard deviation of each column;
- **noise, N(0, 1)**: random numbers of mean 0 and standard deviation 1, whatever the table looks
  like. The library PEFT takes noise if one says nothing.
"""

# %%
import sys
sys.path.insert(0, "classroom")
from shared import open_lab, table
import math
from statistics import median
from matplotlib import pyplot
import plots
from checks import exercise
from script import arms_of
from train import CURVE, EXAMPLES, STARTS, THRESHOLD, averages_of, constant, fit, measure
from train import new_arm, read_rows, steps_needed, where
lab = open_lab()  # the base is frozen

# %% [markdown]
r"""
## 2. A race

The base never practised the *rule* "the first letter of the last word". When has a prompt learned
it? We fix a **threshold** before we see a curve: a loss of 0.5 nats on validation sentences. What
counts is the steps until then.

One training of one prompt is an **arm**. Its **seed** sets its random numbers and its sentences.
Learning rates are in units of the **spread**: the standard deviation of the table's numbers. Here a
rate is the same in every step.

**Exercise 1.** Write the function that counts.

<details><summary>Hint</summary>

Go through the rows. Return the step of the first one whose loss is low enough. After the loop
return `math.inf`: this arm never got there.

</details>
"""

# %%
@exercise
def steps_to(rows, threshold):
    """rows: dicts with "step" and "loss" of one arm, steps going up -> the first step with a loss
    at or below the threshold; math.inf where there is none."""
    raise NotImplementedError

# %% [markdown]
r"""
Now three starts train at two rates, with two seeds each. **Before you run it:** which start is
fastest at rate 1/4, and which at rate 16?
"""

# %%
RULE, STEPS, arms = "first-letter-last", 30, []
for start in ("related", "vocab", "normal"):
    for rate in (1 / 4, 16):
        arms += arms_of(lab, RULE, start, rate, seeds=(0, 1))
sentences, rows = {RULE: lab.rows(RULE, "train")}, []
for step in fit(lab.model, arms, sentences, STEPS, EXAMPLES, schedule=constant):
    rows += measure(lab, arms, step, "valid", CURVE)  # a row for each arm
for first in where(rows, step=0):
    own = where(rows, start=first["start"], rate=first["rate"], seed=first["seed"])
    print(f"{first['start']:8s} rate {first['rate']:5g}: {steps_to(own, THRESHOLD)} steps")

# %%
title = "Does one start win at both learning rates, 1/4 and 16?"
found = "At rate 1/4 related text wins, and noise never learns; at rate 16 noise is first"
shown = [row for row in rows if row["step"] % 3 == 0]
plots.lines(shown, x="step", y="loss", by="start", panel="rate", title=title)

# %% [markdown]
r"""
**What to notice.** No start wins at both rates.

The main job, `python train.py`, ran all starts at five rates. It also ran two **facts**: the base
practised "the first letter of the first word", but now R and C have changed places. Nobody but the
prompt can know that. **Before you open the picture:** which line falls from left to right? And does
the start matter more for the rule or for the facts?

<details><summary>The picture (open it after your bet)</summary>

![Steps until a prompt has learned a rule and two facts](figures/initialization.png)

Noise is the one start whose line falls and falls. For the rule, the starts lie far apart. For the
facts, all are nearly alike if each has its best rate: some 50 to 70 steps.

</details>

A fair race gives each start its own best rate. But the best of five tries is partly luck. So half
of the seeds choose the rate, and the **other** half race.

**Exercise 2.** Write this fair choice.

<details><summary>Hint</summary>

`averages_of(rows, "rate", "steps", median)` is a dict: {rate: the median of the steps at this
rate}. `min(medians, key=medians.get)` is the key with the smallest value. Look at `race` only when
the rate is fixed.

</details>
"""

# %%
@exercise
def fair_steps(choose, race):
    """choose, race: rows of one start, dicts with "rate" and "steps", at the same rates
    -> (rate, steps): the rate with the lowest median in `choose` (the lowest of equals), and the
    median of the steps in `race` at this rate."""
    raise NotImplementedError

# %%
starts = read_rows(table("starts"))  # made by tutorials/experiments/starts.py
needed = steps_needed(where(starts, part="race"))
for start in STARTS:
    own = where(needed, start=start)
    choose = [row for row in own if row["seed"] % 2 == 0]
    race = [row for row in own if row["seed"] % 2 == 1]
    rate, steps = fair_steps(choose, race)
    print(f"{STARTS[start].label:22s} rate {rate:6g}: {steps:2g} steps")

# %% [markdown]
r"""
**What to notice.** Related text is first, and by far. Noise at its own rate is no worse than
sampled tokens. But it wants a far higher rate than related text. Why?

## 3. Why noise wants a high rate

AdamW divides each gradient by its usual size. So a step moves each number by about the rate. And
each layer divides a vector by its own size before it reads it (RMSNorm). So what the model sees of
a step is how far it **turns** the vector. **Before you run it:** at rate 1 a step is about as long
as a token's vector. By how many degrees does it turn a token, and by how many noise?
"""

# %%
embeddings = lab.model.model.embed_tokens.weight  # (V, C)
spread, C = embeddings.std().item(), embeddings.shape[1]
lengths = {"a token": embeddings.norm(dim=1).mean().item(), "noise": C**0.5}
for name, length in lengths.items():
    for rate in (1, 16):
        step_length = rate * spread * C**0.5
        degrees = math.degrees(math.atan(step_length / length))
        print(f"{name:8s} length {length:4.1f}, rate {rate:2d}: turned by {degrees:.0f} degrees")

# %% [markdown]
r"""
**What to notice.** Noise is 16 times as long, so it needs 16 times the rate for the same turn.

Users of PEFT report that noise "doesn't learn". The cause is [the rate](README.md#learning-rates).

## 4. Why related text is fast

How far is it from a start to a prompt that works? We train in very small steps: 1/64 of the size of
the start's own numbers. So a prompt stops soon after it has learned the rule. Then we measure by
how much its vectors have turned. **Before you run it:** which start has the shortest way, and which
the longest?
"""

# %%
title = "How far is it from each start to a prompt that works?"
moved = where(starts, part="distance")
found = "A few degrees from related text, some 20 to 30 from the others"
plots.dots(moved, x="start", y="turn", title=title)
pyplot.xlim(0)
pyplot.xlabel("degrees that the vectors have turned when the rule is learned")

# %% [markdown]
r"""
**What to notice.** A prompt that works lies next door to related text. Why? When the base
practised, its instructions were words, and the words of our rule were among them. So related text
is fast, and wants small steps: large steps jump over this near prompt. From all other
starts the way is long, and noise is no further away than tokens. (The way is not all: text of
another task has the longest, and is not the slowest.)

## 5. Head start or pace?

A start can be first for two reasons. A **head start**: its loss is low before any training. Or
**pace**: its loss begins high, and falls fast. *Library* (which library is a sentence from?) is a
task that the base practised. **Before you run it:** does related text begin with the lowest loss on
all three tasks?
"""

# %%
for task in ("library", "swap-1", RULE):  # swap-1: the two facts
    for start in ("related", "vocab", "normal"):
        arm = new_arm(lab, task, "prompt", start, 16, 1, seed=0)
        [row] = measure(lab, [arm], 0, "valid", 64)
        print(f"{task:18s} {STARTS[start].label:15s} loss at step 0: {row['loss']:.1f} nats")

# %% [markdown]
r"""
**What to notice.** Three tasks, three answers.

- *Library*: related text is below the threshold before any training. A head start, and nothing is
  left to learn.
- The facts: related text begins 3 nats lower, since its words are right but for R and C. A head
  start in loss, which saves few steps: the two facts stand in no words.
- The rule: related text begins highest, and was first in the fair race. That is pace: its way is
  short (section 4).

The loss says how wrong the answers are now. It does not say how far away the right ones are.

## Summary

A fair race has a threshold fixed before, several seeds, and for each start a rate that other seeds
have chosen.

A rule is near its words: there related text has the shortest way, and is fast. Facts stand in no
words: there all starts need nearly as many steps, each at its best rate. Noise is as good as
tokens, but on the rule wants 16 times the rate. A low loss at step 0 does not promise few steps.

Which rate first? Here 1/4 from related text and 1 from tokens for a rule, 4 for facts, and from
noise 16 for both. Then try one four times as low and one four times as high, on validation
sentences.
"""

# %% [markdown]
r"""
## Homework

**A neighbour's prompt.** Can a trained prompt of one task be the start for another (*SPoT*, Vu et
al. 2021)? *Swap-4* has eight facts: eight letters have changed places. *Swap-1* has two of them.
*First-letter-first* has none, only the rule. **Before you run it:** which of the two helps?
"""

# %%
title = "Is a neighbour's prompt a good start for eight facts?"
rows = where(starts, part="neighbour", task="swap-4", split="valid")
looks = {"swap-1": plots.Look("has two of the facts", "#332288"),
         "first-letter-first": plots.Look("has the rule alone", "#999933"),
         "vocab": STARTS["vocab"]}
found = "One that has facts is; one that has the rule alone helps little"
plots.lines(rows, x="step", y="accuracy", by="start", title=title, looks=looks)

# %% [markdown]
r"""
**What to notice.** The prompt of swap-1 is right on half of the sentences before it learns
anything. It is a head start in facts, and the others do not catch up. The rule alone helps little:
any prompt finds it soon.
"""

# %% [markdown]
r"""
**A start of your own.** Write one as an entry of `STARTS` in train.py, for example the mean of all
tokens with a little noise. Say before you run it how long its vectors are, and which rate it will
want. Then run `python train.py --quick`.
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
- PEFT on GitHub: issue 2816 (noise "doesn't learn")
"""
