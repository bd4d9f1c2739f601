"""What class 4 reads: prompt, prefix, LoRA and all weights on three tasks, a list of facts for
prompt and prefix, and three ways to move a prefix.

    python tutorials/classroom/four_methods.py      about 25 minutes of one core

It writes measured/four_methods.csv. Each way tries its learning rates with two seeds; the rate with
the best accuracy on validation sentences goes into the race, which has five other seeds. What
counts is the race's accuracy on test sentences. A list of facts (swap-4) has the main job's rates.
"""

import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

import torch
import torch.nn as nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from methods import AllWeights, LoRA, lab_on_a_copy, numbers_in
from shared import EXAMPLES, TEST, VALID, open_lab, write_measured

from softprompt import PrefixMLP, past_of_states
from train import LENGTH_RATES, Arm, fit, guard, measure, new_arm, progress

SEARCH_SEEDS = (100, 101)
RACE_SEEDS = (0, 1, 2, 3, 4)
LOOKS = (0, 1, 2, 4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64)  # steps of the curves

# The learning rates that each way tries. Those of prompt and prefix are in units of train.sizes;
# the others are absolute.
RATES = {
    "prompt 28": (1, 3, 9, 27),
    "prompt 112": (1, 3, 9, 27, 81),
    "prefix 28": (0.1, 0.3, 0.9),
    "prefix 28, one rate": (0.03, 0.1, 0.3, 0.9),
    "prefix 28, MLP": (0.001, 0.003, 0.01, 0.03),
    "lora": (0.003, 0.01, 0.03),
    "full": (0.0003, 0.001, 0.003),
}
SOFT = ("prompt 28", "prompt 112", "prefix 28")  # what the main job has
THREE_PREFIXES = ("prefix 28", "prefix 28, one rate", "prefix 28, MLP")
ALL = tuple(RATES)

# Of each task: the steps, and the ways that are measured on it.
PARTS = [
    ("library", 16, (*SOFT, "lora", "full")),
    ("first-letter-last", 64, ALL),
    ("before-last", 64, ALL),
]
# Four times as many steps, at the rates that the search chose for this task.
LONGER = ("before-last", 256, ("prefix 28", "lora"))
# A list of facts, at the learning rates of the main job.
FACTS = ("swap-4", 160, SOFT)


class AtOneRate(nn.Module):
    """A prefix whose numbers all move at one absolute rate, in whatever layer they are: to
    train.sizes this is no prefix."""

    kind = "prefix"

    def __init__(self, prefix):
        super().__init__()
        self.keys, self.values, self.length = prefix.keys, prefix.values, prefix.length

    def past(self, model, pinned=True):
        """As `PromptTuning.past`."""
        return past_of_states(self.keys, self.values, model, pinned)


def arm_of(lab, task, way, rate, seed):
    """(a lab, an arm of it). What changes the base itself gets a copy of the lab."""
    if way in ("lora", "full"):
        lab = lab_on_a_copy(lab)
        soft = LoRA(lab.model, seed) if way == "lora" else AllWeights(lab.model)
        arm = Arm(soft, task, rate, seed)
    else:
        method, length = way.split(",")[0].split()
        arm = new_arm(lab, task, method, "vocab", int(length), rate, seed)
    if way == "prefix 28, one rate":
        arm.soft = AtOneRate(arm.soft)
    if way == "prefix 28, MLP":
        torch.manual_seed(seed)  # of the MLP's weights
        vectors = new_arm(lab, task, "prompt", "vocab", 28, rate, seed).soft.embeddings  # (P, C)
        arm.soft = PrefixMLP.start(lab.model, vectors)
    arm.columns = {"way": way, "numbers": numbers_in(arm.soft), "rate": rate}
    return lab, arm


def batches_of(lab, task, way, rates, seeds):
    """[(a lab, arms that train in it as one batch)] of one way."""
    found = [arm_of(lab, task, way, rate, seed) for rate in rates for seed in seeds]
    if way in ("lora", "full"):
        return [(own, [arm]) for own, arm in found]
    return [(lab, [arm for _, arm in found])]


def learn(lab, task, steps, way, rates, part, looks=()):
    """Rows of results of one way at these rates, for the search or for the race."""
    seeds, split = (SEARCH_SEEDS, "valid") if part == "search" else (RACE_SEEDS, "test")
    results = []
    for own, arms in batches_of(lab, task, way, rates, seeds):
        rows = {task: own.rows(task, "train")}
        training = fit(own.model, arms, rows, steps, EXAMPLES)
        for step in progress(training, steps + 1, f"{task}, {steps} steps, {way}, {part}"):
            if step in looks:
                results += measure(own, arms, step, "valid", VALID)
        results += measure(own, arms, steps, split, TEST)
    return [{**row, "steps": steps, "part": part} for row in results]


def best_rate(results):
    """The rate with the best mean accuracy; among equals, the one with the smallest loss."""

    def goodness(rate):
        rows = [row for row in results if row["rate"] == rate]
        return mean(row["accuracy"] for row in rows), -mean(row["loss"] for row in rows)

    return max({row["rate"] for row in results}, key=goodness)


def search_and_race(lab, task, steps, ways):
    """Rows of results of one task, and {way: the rate that the search chose}."""
    looks = LOOKS if task == "first-letter-last" else ()
    results, chosen = [], {}
    for way in ways:
        tried = learn(lab, task, steps, way, RATES[way], "search")
        chosen[way] = best_rate(tried)
        results += tried + learn(lab, task, steps, way, [chosen[way]], "race", looks)
    return results, chosen


def race_longer(lab, chosen):
    """Rows of results of LONGER."""
    task, steps, ways = LONGER
    results = []
    for way in ways:
        results += learn(lab, task, steps, way, [chosen[way]], "race")
    return results


def race_facts(lab):
    """Rows of results of FACTS."""
    task, steps, ways = FACTS
    results = []
    for way in ways:
        method, _ = way.split()
        results += learn(lab, task, steps, way, [LENGTH_RATES[method]], "race")
    return results


# ------------------------------------------------------------------ what the class reads


def raced(rows, task, way, steps):
    """The accuracies of one way in the race, one a seed."""
    found = []
    for row in rows:
        if (row["task"], row["way"], row["steps"]) == (task, way, steps):
            if (row["part"], row["split"]) == ("race", "test"):
                found.append(row["accuracy"])
    return found


def curves(rows, task, way):
    """{step: [the loss of each seed on validation sentences]} of one way in the race."""
    found = defaultdict(list)
    for row in rows:
        if (row["task"], row["way"]) == (task, way):
            if (row["part"], row["split"]) == ("race", "valid"):
                found[row["step"]].append(row["loss"])
    return dict(found)


def tried(rows, task, way):
    """{learning rate: mean accuracy on validation sentences} of the search."""
    found = defaultdict(list)
    for row in rows:
        if (row["task"], row["way"], row["part"]) == (task, way, "search"):
            found[row["rate"]].append(row["accuracy"])
    return {rate: mean(accuracies) for rate, accuracies in found.items()}


def main():
    lab = open_lab()
    results, chosen = [], {}
    for task, steps, ways in PARTS:
        found, chosen[task] = search_and_race(lab, task, steps, ways)
        results += found
    results += race_longer(lab, chosen[LONGER[0]])
    results += race_facts(lab)
    write_measured("four_methods", results)


if __name__ == "__main__":
    guard(main)
