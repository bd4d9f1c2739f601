"""What a rule costs and what a list costs: measured/rule_or_list.csv.

    python tutorials/classroom/rule_or_list.py      about five minutes on one core

64 short sentences. As a *rule*, each has its true answer, the first letter of its last word. As a
*list*, the same answers are shuffled among the sentences, so that nothing but memory helps. Prompts
of several lengths learn the one or the other, and are then asked for the same 64 again (split
"known"). What learned the true answers is also asked for 240 sentences that it never saw ("test").
"""

import random

import shared
import torch

from softprompt import prefill
from train import (
    Lab,
    fit,
    guard,
    load_base,
    load_data,
    mean_of_arms,
    new_arm,
    progress,
    score,
)

TASK = "first-letter-last"
SENTENCES, LONGEST = 64, 30  # how many there are, and the characters of the longest
LENGTHS = {"true": (1, 16), "shuffled": (1, 4, 16, 64)}
SEEDS = range(5)
STEPS, EXAMPLES, RATE = 400, 16, 3


def short_rows(lab):
    """The first short training sentences as rows of ids."""
    rows = lab.rows(TASK, "train")
    short = [len(sentence.text) <= LONGEST for sentence in lab.data["train"]]
    return [row for row, is_short in zip(rows, short) if is_short][:SENTENCES]


def shuffled_answers(rows, seed):
    """The same questions and the same answers, but each question gets the answer of another one
    or, by chance, its own."""
    answers = [answer for _, answer in rows]
    random.Random(seed).shuffle(answers)
    return [(question, answer) for (question, _), answer in zip(rows, answers)]


def arms_and_rows(lab):
    """All arms, and {the task of an arm: what it has to learn}."""
    arms, rows = [], {"true": short_rows(lab)}
    for seed in SEEDS:
        rows[f"shuffled {seed}"] = shuffled_answers(rows["true"], seed)
        for length in LENGTHS["true"]:
            arms.append(new_arm(lab, "true", "prompt", "vocab", length, RATE, seed))
        for length in LENGTHS["shuffled"]:
            task = f"shuffled {seed}"
            arms.append(new_arm(lab, task, "prompt", "vocab", length, RATE, seed))
    return arms, rows


@torch.inference_mode()
def asked_again(lab, arms, rows, split):
    """Rows of results: how many of the rows[task of the arm] each arm has right."""
    past = prefill([arm.soft for arm in arms], lab.model)
    asked = []
    for arm in arms:
        asked += rows[arm.task]
    _, accuracies = mean_of_arms(score(lab.model, past, asked), len(arms))
    results = []
    for arm, accuracy in zip(arms, accuracies.tolist()):
        row = {"answers": arm.task.split()[0], "length": arm.soft.length, "seed": arm.seed}
        row |= {"split": split, "accuracy": round(accuracy, 4)}
        results.append({**row, "sentences": len(asked) // len(arms)})
    return results


def runs_of(results, split):
    """{"true" or "shuffled": {length: [accuracy of each seed]}} of a split."""
    runs = {}
    for row in results:
        if row["split"] == split:
            of_length = runs.setdefault(row["answers"], {})
            of_length.setdefault(row["length"], []).append(row["accuracy"])
    return runs


def main():
    lab = Lab(*load_base(device="cpu"), load_data(shared.ROOT / "out"))
    arms, rows = arms_and_rows(lab)
    training = fit(lab.model, arms, rows, STEPS, EXAMPLES)
    for _ in progress(training, STEPS + 1, "a rule or a list"):
        pass
    results = asked_again(lab, arms, rows, "known")
    of_a_rule = [arm for arm in arms if arm.task == "true"]
    results += asked_again(lab, of_a_rule, {"true": lab.rows(TASK, "test", shared.TEST)}, "test")
    shared.write_measured("rule_or_list", results)


if __name__ == "__main__":
    guard(main)
