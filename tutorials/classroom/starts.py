"""How many steps a prompt needs, from every start and at every learning rate, for class 5.

    python tutorials/classroom/starts.py      five minutes on two cores

Eight seeds: five race, and three are there to choose a rate with. Rates rise over five steps and
fall in a line; those of train.py's experiment are constant. Noise has one rate more. A row of
measured/starts.csv is one prompt of 16 vectors: its loss before any training and the steps until
its loss is at the threshold. Rates are in units of the embeddings' spread.

The rates that users of other libraries meet follow, for three of the starts. These prompts train to
the end, and the table has their accuracy on the test sentences as well (nan: not measured).
"""

import math

import shared
from shared import EXAMPLES, VALID, steps_to_threshold

from train import STARTS, fit, guard, measure, progress

TASK_STEPS = {"first-letter-last": 40, "library": 4}
LENGTH = 16
EVERY = 2  # steps between two looks
RATES = (0.5, 1, 2, 4, 8)
SEEDS = range(8)  # 0 to 4 race, 5 to 7 choose a rate
MORE_RATES = {"normal": (16,)}

# Absolute rates: the default of Hugging Face's Trainer, PEFT's comparison of methods, PEFT's guide,
# and Lester et al. 2021.
USUAL_RATES = (0.00005, 0.001, 0.03, 0.3)
USUAL_STARTS = ("related", "vocab", "normal")
USUAL_SEEDS = range(5)
USUAL_STEPS = 60


def arms_at(lab, task, start, rate, seeds):
    """An arm for each seed."""
    return shared.arms_of(lab, task, start, LENGTH, rate, seeds)


def curves_of(lab, task, arms, steps, to_the_end=False):
    """Train the arms as one batch, to the end or until all have learned the task: the curve of
    each, [(step, loss)]."""
    curves = [[] for _ in arms]
    rows = {task: lab.rows(task, "train")}
    for step in fit(lab.model, arms, rows, steps, EXAMPLES):
        if step % EVERY == 0:
            for curve, row in zip(curves, measure(lab, arms, step, "valid", VALID)):
                curve.append((step, row["loss"]))
            learned = all(steps_to_threshold(curve) < math.inf for curve in curves)
            if learned and not to_the_end:
                break
    return curves


def row_of(arm, curve, accuracy=math.nan):
    """The row of the table for one arm."""
    _, first_loss = curve[0]
    row = {"task": arm.task, **arm.columns, "seed": arm.seed, "first_loss": first_loss}
    return {**row, "steps": steps_to_threshold(curve), "accuracy": accuracy}


def race(lab, task, steps):
    """Every start at every rate; the seeds of one start at one rate are a batch."""
    pairs = []
    for start in STARTS:
        for rate in (*RATES, *MORE_RATES.get(start, ())):
            pairs.append((start, rate))
    results = []
    for start, rate in progress(pairs, len(pairs), f"starts, {task}"):
        arms = arms_at(lab, task, start, rate, SEEDS)
        for arm, curve in zip(arms, curves_of(lab, task, arms, steps)):
            results.append(row_of(arm, curve))
    return results


def usual_rates(lab, task):
    """Three starts at the rates that users meet, trained to the end."""
    spread = lab.model.model.embed_tokens.weight.std().item()
    results = []
    for start in progress(USUAL_STARTS, len(USUAL_STARTS), "usual rates"):
        arms = []
        for rate in USUAL_RATES:
            arms += arms_at(lab, task, start, round(rate / spread, 5), USUAL_SEEDS)
        curves = curves_of(lab, task, arms, USUAL_STEPS, to_the_end=True)
        for arm, curve, accuracy in zip(arms, curves, shared.right_on_test(lab, arms)):
            results.append(row_of(arm, curve, accuracy))
    return results


def main():
    lab = shared.open_lab()
    results = []
    for task, steps in TASK_STEPS.items():
        results += race(lab, task, steps)
    results += usual_rates(lab, "first-letter-last")
    shared.write_measured("starts", results)


if __name__ == "__main__":
    guard(main)
