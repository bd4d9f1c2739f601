"""Measure what a prompt and new weights learn on bases of three sizes, for class 7.

    python tutorials/classroom/scale.py

Some six minutes on one core. It writes measured/scale.csv.

Three tasks: one that the bases practised (library), one of which they practised the parts
(first-letter-last), one outside of all that they practised (before-last). Four methods learn each
of them on each base. Their learning rates are those of tutorials/methods.py; one of three is chosen
by the validation loss of a seed that is not used for the final numbers, which are those of the test
sentences. Both stand in the table, beside what needs no training. `base-small-lm` read the same
texts as `base-small` and practised no task.
"""

from statistics import mean

import shared
from methods import BEFORE, RATES, before_arm, inside_arm, lab_on_a_copy

from train import Lab, fit, guard, load_base, load_data, measure, progress, untrained

STEPS = {"library": 16, "first-letter-last": 48, "before-last": 48}
BASES = {
    "base-tiny": tuple(RATES),
    "base-small": tuple(RATES),
    "base": tuple(RATES),
    "base-small-lm": ("prompt", "prefix", "full"),  # LoRA is left out: it takes long
}
LENGTH = 16  # virtual tokens
TRIAL_SEEDS = (100,)  # the rate is chosen by these
SEEDS = (0, 1, 2, 3, 4)  # the final numbers are of these
COLUMNS = ("base", "numbers", "task", "method", "rate", "seed", "split", "loss", "accuracy")


def learn(lab, task, method, runs, split):
    """Train a method at each (rate, seed) of `runs`; rows of results on `split`."""
    if method in BEFORE:  # all arms as one batch
        arms = [before_arm(lab, task, method, LENGTH, rate, seed) for rate, seed in runs]
        return learn_together(lab, arms, split)
    rows = []
    for rate, seed in runs:
        own = lab_on_a_copy(lab)  # the base itself is changed
        rows += learn_together(own, [inside_arm(own, task, method, rate, seed)], split)
    return rows


def learn_together(lab, arms, split):
    task = arms[0].task
    training = fit(lab.model, arms, {task: lab.rows(task, "train")}, STEPS[task], shared.EXAMPLES)
    for _ in training:
        pass
    return measure(lab, arms, STEPS[task], split, shared.TEST)


def best_rate(rows):
    """The learning rate with the lowest mean loss."""
    losses = {}
    for row in rows:
        losses.setdefault(row["rate"], []).append(row["loss"])
    return min(losses, key=lambda rate: mean(losses[rate]))


def results_of(lab, task, method):
    """Rows for the trials of all rates, and for the final numbers at the best one."""
    tried = [(rate, seed) for rate in RATES[method] for seed in TRIAL_SEEDS]
    trials = learn(lab, task, method, tried, "valid")
    best = best_rate(trials)
    return trials + learn(lab, task, method, [(best, seed) for seed in SEEDS], "test")


def without_training(lab, task):
    """Rows for what needs no training, on the test sentences."""
    rows = untrained(lab, task)
    return [{**row, "rate": 0} for row in rows if row["split"] == "test"]


def accuracies(results, base, task, method):
    """The test accuracy of each seed."""
    values = []
    for row in results:
        where = row["base"], row["task"], row["method"]
        if where == (base, task, method) and row["split"] == "test":
            values.append(row["accuracy"])
    return values


def main():
    data = load_data(shared.ROOT / "out")
    plan = [(base, task) for base in BASES for task in STEPS]
    results = []
    for base, task in progress(plan, len(plan), "scale"):
        lab = Lab(*load_base(shared.ROOT / "tutorials" / f"{base}.pt", "cpu"), data)
        numbers = sum(p.numel() for p in lab.model.parameters())
        rows = without_training(lab, task)
        for method in BASES[base]:
            rows += results_of(lab, task, method)
        for row in rows:
            row = {**row, "base": base, "numbers": numbers}
            results.append({name: row[name] for name in COLUMNS})
    shared.write_measured("scale", results)


if __name__ == "__main__":
    guard(main)
