"""Prompts that start where a neighbour's prompt ended (SPoT, Vu et al. 2021), for class 5.

    python tutorials/classroom/neighbour.py      five minutes on two cores

A neighbour is a trained prompt of another task. Five seeds each, 16 vectors:

- swap-4 (eight letters swapped) from a prompt of swap-1, which has two of these letters, from one
  of first-letter-first, which has none, and from sampled tokens;
- first-letter-last from a prompt of first-letter-first (its operation) and from one of
  last-letter-last (its word), at every rate of starts.py, until all seeds have learned it. The same
  from sampled tokens is in starts.csv.

A row of measured/neighbour.csv is one prompt at one step: on validation sentences, and at the end
of swap-4 on test sentences. Rates are in units of the embeddings' spread.
"""

import math

import shared
from shared import EXAMPLES, TEST, VALID, steps_needed
from starts import RATES

from softprompt import PromptTuning
from train import Arm, fit, guard, measure, progress, say

LENGTH = 16
SEEDS = range(5)
RATE = 3  # of the neighbours and of swap-4, as for lengths in train.py
NEIGHBOUR_STEPS = {"swap-1": 200, "first-letter-first": 40, "last-letter-last": 40}
FACTS, FACTS_STEPS, FACTS_LOOKS = "swap-4", 120, range(0, 121, 20)
RULE, RULE_STEPS, RULE_LOOKS = "first-letter-last", 40, range(0, 41, 2)


def trained_prompts(lab, task):
    """The prompt of each seed, from sampled tokens."""
    arms = shared.arms_of(lab, task, "vocab", LENGTH, RATE, SEEDS)
    accuracies = shared.learn(lab, arms, NEIGHBOUR_STEPS[task])
    say(f"{task}: accuracy {min(accuracies):.2f} to {max(accuracies):.2f}")
    return [arm.soft for arm in arms]


def arms_from(neighbour, softs, task, rate):
    """One arm for each seed, from the neighbour's prompt of that seed."""
    arms = []
    for seed, soft in zip(SEEDS, softs):
        arm = Arm(PromptTuning(soft.embeddings), task, rate, seed)
        arm.columns = {"start": neighbour, "rate": rate}
        arms.append(arm)
    return arms


def learn_facts(lab, neighbours):
    """swap-4 from two neighbours and from sampled tokens: rows of results."""
    arms = shared.arms_of(lab, FACTS, "vocab", LENGTH, RATE, SEEDS)
    for neighbour in ("swap-1", "first-letter-first"):
        arms += arms_from(neighbour, neighbours[neighbour], FACTS, RATE)
    results = []
    rows = {FACTS: lab.rows(FACTS, "train")}
    training = fit(lab.model, arms, rows, FACTS_STEPS, EXAMPLES)
    for step in progress(training, FACTS_STEPS + 1, FACTS):
        if step in FACTS_LOOKS:
            results += measure(lab, arms, step, "valid", VALID)
    return results + measure(lab, arms, FACTS_STEPS, "test", TEST)


def learn_rule(lab, neighbours):
    """first-letter-last from two neighbours, at every rate: rows of results."""
    results = []
    for neighbour in ("first-letter-first", "last-letter-last"):
        for rate in progress(RATES, len(RATES), f"{RULE} from {neighbour}"):
            arms = arms_from(neighbour, neighbours[neighbour], RULE, rate)
            results += until_learned(lab, arms)
    return results


def until_learned(lab, arms):
    """Rows of results, look after look, until all arms have learned the rule."""
    results = []
    for step in fit(lab.model, arms, {RULE: lab.rows(RULE, "train")}, RULE_STEPS, EXAMPLES):
        if step in RULE_LOOKS:
            results += measure(lab, arms, step, "valid", VALID)
            [steps] = steps_needed(results, RULE).values()
            if max(steps) < math.inf:
                break
    return results


def main():
    lab = shared.open_lab()
    neighbours = {}
    for task in progress(NEIGHBOUR_STEPS, len(NEIGHBOUR_STEPS), "neighbours"):
        neighbours[task] = trained_prompts(lab, task)
    results = learn_facts(lab, neighbours) + learn_rule(lab, neighbours)
    shared.write_measured("neighbour", results)


if __name__ == "__main__":
    guard(main)
