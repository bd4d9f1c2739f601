# %% [markdown]
r"""
# Where to start

The start of a prompt decides how fast it learns, and the learning rate decides what you see of that.

After this class you can

1. write four ways to start a prompt, each in a line or two;
2. run a fair race between starts: a learning rate for each, several seeds, a threshold fixed before;
3. tell a head start from pace, and say why a prompt of random numbers often seems not to learn.

Needs: the class on what a prompt is. A prompt is a matrix of P **virtual tokens**: learned vectors
with C numbers each, put before the text in the place of P token embeddings. The model is frozen.
Losses are in **nats**: minus the natural logarithm of the probability of the right token.

## 1. Four ways to start

The embedding table has one row of C numbers for each of the V tokens. A prompt can start from

- **text**: the rows of the tokens of some text, repeated or cut to P rows;
- **sampled tokens**: P rows of the table, drawn at random;
- a **matched Gaussian**: random numbers with the mean and the standard deviation of each column
  of the table;
- **N(0, 1)**: random numbers with mean 0 and standard deviation 1, whatever the table looks like.
  This is the default of PEFT, a library that many people use for prompts.

We write all four from the table, and compare them with `softprompt.initial_embeddings`.
**Before you run it:** which of the four has the longest vectors, and by what factor?
"""

# %%
import sys
sys.path.insert(0, "classroom")
import math
from statistics import mean, median
import torch
from matplotlib import pyplot
from checks import exercise
from shared import COLOURS, learn, right_on_test, watch
from softprompt import initial_embeddings
from train import STARTS, TASKS, Lab, best_hard_prompt, commonest_answer, load_base, load_data
from train import new_arm, score_hard_prompt, share_of
lab = Lab(*load_base(device="cpu"), load_data("../out"))  # the model is frozen

# %%
EASY, NEW, P, model = "library", "first-letter-last", 16, lab.model
table, text = model.model.embed_tokens.weight, lab.tok.encode(TASKS[NEW].unseen[0])  # (V, C)
gens = [torch.Generator().manual_seed(7) for _ in range(3)]
by_hand = {
    "text": table[(text * P)[:P]],
    "vocab": table[torch.randperm(len(table), generator=gens[0])[:P]],
    "matched": table.mean(0) + table.std(0) * torch.randn(P, table.shape[1], generator=gens[1]),
    "normal": torch.randn(P, table.shape[1], generator=gens[2])}
for method, mine in by_hand.items():  # (P, C) each
    theirs = initial_embeddings(model, P, method, text, torch.Generator().manual_seed(7))
    print(f"{method:8s} largest difference {(mine - theirs).abs().max():.0e},",
          f"mean length of a vector {mine.norm(dim=1).mean():5.2f}")

# %% [markdown]
r"""
**What to notice.** Ours are equal to the project's. Noise with standard deviation 1 is 17 times
as long as a token's vector. Nobody sees this in the code: one line looks as good as another.

## 2. A fair race has three rules

Two tasks. *Library* (which of six libraries a sentence is from) was practised by the base. *First
letter of the last word* was never practised. Five starts: *related text* is a hard prompt (words that
ask for the task), *unrelated text* is about a train; then the three random ones. An **arm** is one run
of an experiment. A **seed** sets the random numbers of an arm and the sentences that it sees.

1. Each start gets **its own learning rate**, chosen on seeds that do not run in the race.
2. The **threshold** is fixed now, before we see a curve: 90 % of the way from the loss without a
   prompt to the best mean loss of any start.
3. **Five seeds** for each start; we say the median and the range.

**Exercise 1.** The race counts steps to the threshold. Write the function that counts.

<details><summary>Hint</summary>

Go through steps and losses together with `zip`. Return the first step whose loss is at or below
the threshold. After the loop return `math.inf`: such a run is slower than any other.

</details>

After the exercise come **the rates**. AdamW moves each number by about the learning rate in every
step, however small the gradient is. The project gives a prompt's learning rate in units of the
**spread** (the standard deviation) of the table's numbers. Each start tries four, from a twentieth to
forty times the spread, with half as many steps and two seeds of their own; all arms train in one mixed
batch. What counts is
the mean loss on 32 validation sentences over the run.
**Before you run it:** which start wants the highest rate? Think of the lengths above.
"""

# %%
@exercise
def steps_to(steps, losses, threshold):
    """The first of `steps` with a loss at or below the threshold, math.inf where there is none.
    steps: a list of ints, going up. losses: a list of floats, as many."""
    raise NotImplementedError

# %%
STEPS, names = {EASY: 8, NEW: 48}, ("related", "unrelated", "vocab", "matched", "normal")
none = {task: score_hard_prompt(lab, task, "", "valid", 32)[0] for task in STEPS}  # no prompt
RATES, tuned, best, spread = (0.05, 0.5, 4.5, 40.5), {}, {}, float(table.std())  # in spreads
for task, steps in STEPS.items():
    arms = [new_arm(lab, task, "prompt", name, P, rate, seed)
            for name in names for rate in RATES for seed in (1000, 1001)]
    rows = watch(lab, arms, steps // 2, (2, 5, 10, 20, steps // 2), 8)  # 8 sentences a step
    losses = torch.tensor([row["loss"] for row in rows]).view(-1, 5, 4, 2)
    tuned[task] = losses.mean(0)  # (start, rate, seed): the mean over the run
    for name, line in zip(names, tuned[task].mean(2)):
        best[task, name] = RATES[int(line.argmin())]

# %%
pyplot.rcParams["axes.formatter.min_exponent"] = 4  # 0.1 and not 10 to the power of -1
figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.4), constrained_layout=True)
rates = [rate * spread for rate in RATES]
for axis, task in zip(axes, (EASY, NEW)):
    for name, found in zip(names, tuned[task]):  # found (rate, seed)
        axis.fill_between(rates, found.amin(1), found.amax(1), color=COLOURS[name], alpha=0.12)
        axis.plot(rates, found.mean(1), "o-", color=COLOURS[name], label=STARTS[name].label)
        axis.plot(best[task, name] * spread, found.mean(1).min(), "*", ms=16, color=COLOURS[name])
    axis.set(xscale="log", xlabel="learning rate", ylabel="mean loss of the run (nats a token)")
    axis.set_title(f"{task}: the best rate (star) is {best[task, 'related'] * spread:.2g} for\n"
                   f"related text, {best[task, 'normal'] * spread:.2g} for N(0, 1)", fontsize=11)
legend = axes[1].legend(frameon=False, fontsize=9)

# %% [markdown]
r"""
**What to notice.** *New task*: the best rates differ by a factor of nine. Noise wants the largest
rate, forty times the spread of the table (by hand, more was worse). Related text learns at every
rate but that one. At the rate of related text, noise has twice the loss (1.20 and 0.58). At its
own rate it has 0.71. So one rate for all decides who wins.

*Library*: the losses are close together, and with two seeds the star is mostly chance.

## 3. The race

Now all starts run, each at its own rate: 8 steps of 8 sentences for *library*, 48 for the new task.
Five seeds a start, and all arms of a task are one mixed batch. The threshold is the one that we
wrote down above. **Before you run it:** which start has the lowest loss before any training? Will
the same start be the first at the threshold?
"""

# %%
WATCH = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 48)
raced, race, right, level, counted = {}, {}, {}, {}, {}
for task, steps in STEPS.items():
    raced[task] = [new_arm(lab, task, "prompt", name, P, best[task, name], seed)
                   for name in names for seed in range(5)]
    rows = watch(lab, raced[task], steps, WATCH, 8)
    race[task] = torch.tensor([r["loss"] for r in rows]).view(-1, 5, 5)  # (step, start, seed)
    right[task] = right_on_test(lab, raced[task])  # at the end
    level[task] = none[task] - 0.9 * (none[task] - race[task].mean(2).min().item())
    for name, runs in zip(names, race[task].permute(1, 2, 0).tolist()):  # runs: each seed's losses
        counted[task, name] = [steps_to(WATCH, run, level[task]) for run in runs]

# %%
figure, axes = pyplot.subplots(1, 2, figsize=(10, 5.6), constrained_layout=True)
for axis, task in zip(axes, (EASY, NEW)):
    for name, found in zip(names, race[task].unbind(1)):  # found (step, seed)
        x, label = WATCH[: len(found)], f"{STARTS[name].label}: {median(counted[task, name])} steps"
        axis.fill_between(x, found.amin(1), found.amax(1), color=COLOURS[name], alpha=0.1)
        axis.plot(x, found.median(1).values, color=COLOURS[name], label=label)
    axis.axhline(none[task], color=COLOURS["none"], ls=":", label="no prompt")
    axis.axhline(level[task], color="0.3", ls="--", lw=1, label="threshold")
    lowest = STARTS[names[race[task][0].mean(1).argmin()]].label
    axis.set(yscale="log", xlabel="training steps", ylabel="validation loss (nats a token)",
             title=f"{task}: lowest at step 0 is {lowest}")
    axis.legend(frameon=False, ncol=2, loc="upper center", bbox_to_anchor=(0.5, -0.12))

# %% [markdown]
r"""
**What to notice.** *Library*: related text is below the threshold before it begins, the others
after a step or two. (Its first step lifts it above the threshold again.)

*New task*: related text has the highest loss at step 0 and is the first, after 5 steps. Unrelated
text has the lowest and needs 25. Noise needs 10, as sampled tokens do.

Slow runs wait between 1.7 and 2 nats, where a prompt only guesses how common each letter is. Then
they fall within a few steps.

## 4. Head start or pace?

A start can be first for two reasons. A **head start**: its loss is lower at step 0. **Pace**: from
equal loss on, it needs fewer steps. To see the pace, we move the curves until they are equal. The
goal is the lowest loss at step 0 of any start. Each curve begins to count when it comes down to it.

**Exercise 2.** Curves are measured at some steps only. Write the function that says when a curve
came down to the goal, on a straight line between two measured steps.

<details><summary>Hint</summary>

Find the first loss at or below the goal. With the step and the loss before it (`s`, `a`) and its
own (`t`, `b`), the part of the way is `(a - goal) / (a - b)`. The first point has none before it.

</details>
"""

# %%
@exercise
def came_down(steps, losses, goal):
    """When the losses first come down to the goal, between two steps on a straight line: a number.
    It is steps[0] where they begin at or below the goal, math.inf where they never get there."""
    raise NotImplementedError

# %%
goal = race[NEW][0].mean(1).min().item()  # the lowest mean loss at step 0
figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.4), sharey=True, constrained_layout=True)
for name, runs in zip(names, race[NEW].permute(1, 2, 0).tolist()):  # runs: the losses of each seed
    curve = [median(losses) for losses in zip(*runs)]
    pace = [came_down(WATCH, x, level[NEW]) - came_down(WATCH, x, goal) for x in runs]
    label = f"{STARTS[name].label}: {median(pace):.0f} ({min(pace):.0f} to {max(pace):.0f})"
    for axis, shift in zip(axes, (0, came_down(WATCH, curve, goal))):
        axis.plot([step - shift for step in WATCH], curve, color=COLOURS[name], label=label)
axes[0].set(yscale="log", xlabel="training steps", ylabel="loss (nats)", title="As measured")
axes[1].set(xlabel=f"steps since {goal:.2f} nats", title="Moved to be equal: hardly a change")
legend = axes[1].legend(frameon=False, fontsize=9, title="steps from there to the threshold")

# %% [markdown]
r"""
**What to notice.** *New task*: to move the curves changes little. From equal loss on, related text
needs 4 steps, unrelated text 24. This is pace. The head start of unrelated text was worth a step.

*Library*: related text starts where the others end. All of it is a head start, and no pace can be
seen.

So a low loss before training says that the base already does the task. It does not say how fast a
prompt will learn what the base does not do.

## 5. What users of PEFT see

PEFT has three starts: text, sampled tokens, and N(0, 1), the default. It sets no learning rate. The
default of Hugging Face's Trainer is 0.00005. PEFT's own comparison of methods uses 0.001 for
prompts: there N(0, 1) had 25 % right and sampled tokens 36 %, and a user reports that noise
"doesn't learn". PEFT's guide uses 0.03 (with text). These are absolute rates: ours are those
divided by the spread of the table.

We train three starts at 0.001 and at 0.03, three seeds each, with our optimizer (its memory is
shorter than AdamW's usual one). **Before you run it:** a number of N(0, 1) has size 1, a number of
the table has size 0.06. How many steps does each need at 0.001 to move by its own size?
"""

# %%
three = ("related", "vocab", "normal")
users = [new_arm(lab, NEW, "prompt", name, P, rate / spread, seed)
         for name in three for rate in (0.001, 0.03) for seed in range(3)]
shown = learn(lab, users, STEPS[NEW], 8) + right[NEW]
started = [name for name in three for _ in range(6)] + [name for name in names for _ in range(5)]
points = {name: [] for name in names}
for name, arm, share in zip(started, users + raced[NEW], shown):  # the race at each start's rate
    begin = new_arm(lab, NEW, "prompt", name, P, arm.rate, arm.seed).soft.embeddings  # (P, C)
    moved = (arm.soft.embeddings - begin).norm() / begin.norm()
    points[name].append((arm.rate * spread, moved.item(), share))

# %%
for name, size in (("sampled tokens", spread), ("N(0, 1)", 1.0)):
    needed = [f"{size / float(rate):,.0f} at {rate}" for rate in ("0.00005", "0.001", "0.03")]
    print(f"{name}: steps to move a number by its own size:", *needed, sep="  ")
words = best_hard_prompt(lab, NEW)
unprompted, told = (score_hard_prompt(lab, NEW, text, "test", 240)[1] for text in ("", words))
common = commonest_answer(TASKS[NEW].pairs(lab.data["train"]))
always = share_of(common, TASKS[NEW].pairs(lab.data["test"][:240]))
lines = {"none": ("no prompt", ":", unprompted), "always": ("commonest answer", "--", always),
         "wording": ("best hard prompt", "-.", told)}
print(f"best hard prompt by validation: {words!r}")

# %%
figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.4), sharey=True, constrained_layout=True)
for axis, column in zip(axes, (0, 1)):
    for name in three:
        x, y = [p[column] for p in points[name]], [p[2] for p in points[name]]
        axis.plot(x, y, "o", color=COLOURS[name], alpha=0.6, label=STARTS[name].label)
    for method, (label, style, y) in lines.items():
        axis.axhline(y, color=COLOURS[method], ls=style, lw=1, label=label)
axes[0].set(xscale="log", xlabel="learning rate", ylabel="right of 240 test sentences (share)",
            title=f"At a rate of 0.03: {mean(shown[9:12]):.2f} right from\nsampled tokens, "
                  f"{mean(shown[15:18]):.2f} from N(0, 1)")
axes[1].set(xscale="log", xlabel="distance moved in own lengths", title="Here noise is like tokens")
legend = axes[1].legend(frameon=False, loc="center left", bbox_to_anchor=(0, 0.66), fontsize=9)

# %% [markdown]
r"""
**What to notice.** At 0.001 only related text learns. At 0.03 sampled tokens learn, noise only in
part. At its own rate noise has 0.95 right, like all others. The users' reports are true, but
the cause is the rate.

AdamW's step has the size of the rate. To move a number by its own size at 0.001 takes noise 1,000
steps, tokens 63. Counted in own lengths (right figure), the two look alike. Related text needs
only a tenth of its length.

## 6. How sure are we?

A ratio of two medians from five seeds is uncertain. The **bootstrap** shows how much: draw five of
the five seeds with repeats, for both starts, take the ratio of the medians, and do this 2,000
times. The middle 95 % of the ratios is the interval.

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
gen, cells, own = random.Random(0), [], counted[NEW, "related"]
draws = [(gen.choices(range(5), k=5), gen.choices(range(5), k=5)) for _ in range(2000)]
for n, name in enumerate(names):
    found = counted[NEW, name]
    low, high = bootstrap_ratio(found, own, draws)
    ratio = f"{median(found) / median(own):.1f}  [{low:.1f} to {high:.1f}]"
    steps = f"{median(found)}  ({min(found)} to {max(found)})"
    end = f"{mean(right[NEW][5 * n : 5 * n + 5]):.2f}"
    rate, at_0 = f"{best[NEW, name] * spread:.2g}", f"{race[NEW][0, n].mean():.2f}"
    cells.append([STARTS[name].label, rate, at_0, steps, ratio, end])

# %%
titles = ["start", "its rate", "loss at step 0", "steps (range)", "x related text [95 %]",
          "right at the end"]
figure, axis = pyplot.subplots(figsize=(10, 2.8), constrained_layout=True)
drawn = axis.table(cells, colLabels=titles, cellLoc="center", loc="center", edges="horizontal")
drawn.auto_set_font_size(False)
drawn.set_fontsize(11)
drawn.scale(1, 1.8)
for n, name in enumerate(names):
    drawn[n + 1, 0].get_text().set(color=COLOURS[name], weight="bold")
ends = [float(row[-1]) for row in cells]
axis.set_title(f"{NEW}: different speed, but {min(ends)} to {max(ends)} right at the end")
axis.set_axis_off()

# %% [markdown]
r"""
**What to notice.** At the end all starts are equal: the differences are about one standard error of
a share of 240 sentences (0.01). Only the speed differs, and it is uncertain. The matched Gaussian
is slower than related text, by a factor of 1.2 or of 8: five seeds cannot say. Sampled tokens may
be as fast (1.0).

We expected noise that looks like the table to beat noise that does not. It did not: at its own rate,
plain noise has the better median.

## One more exercise

**Exercise 4.** A friend has measured two starts at many rates, in tuning and in the race. Compare
them fairly: take each start's rate from the tuning, and its steps from the race.

<details><summary>Hint</summary>

`min(rates, key=...)` finds the rate with the lowest mean tuning loss. The race must have no say in
this choice.

</details>
"""

# %%
@exercise
def fair_medians(tuning, race):
    """tuning is {start: {rate: [losses]}}, race is {start: {rate: [steps]}} with the same keys
    -> {start: the median of its steps in the race, at the rate that tuning chooses}."""
    raise NotImplementedError

# %% [markdown]
r"""
## Summary

Four starts are a line or two each. They can be compared only with a learning rate for each start,
several seeds and a threshold that is written down before. On a task that the base practised, related
text had a head start and nothing was left to learn. On a new task it had the highest loss at step 0 and
the best pace: 5 steps, against 10 from sampled tokens and from N(0, 1), 25 from unrelated text and from
a matched Gaussian, with wide intervals. At the end all were equal.

Some choices of this class were made after we had seen races like it, with the same seeds. With 16
sentences a step, one run of five from related text took 25 steps. On another grid of
rates (0.5, 1.5, 4.5, 13.5 and 40.5 times the spread) unrelated text chose 1.5, and one of its five
runs never arrived. The order of the starts was much the same; the narrow range of related text was
not.

N(0, 1) "does not learn" at the learning rates that PEFT's users try, because its numbers are 16 times
as large as a token's and AdamW's step is not. Give it a rate for its size and it learns. (The README
shows the starts at five rates, from 0.5 to 8 times the spread, with 16 sentences a step.)

The papers report that text and sampled tokens beat random starts most on small models and with few
examples. For each such result, ask which rate the random start had, and who chose it.

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
