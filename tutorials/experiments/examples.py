"""How few examples are enough? Three minutes.

    python tutorials/experiments/examples.py      examples.csv

Prompts of 16 vectors learn a rule and two facts, for as many steps as in the main job. But each
seed has so few training sentences of its own, again and again.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from script import arms_of, in_columns, learn, run_script

from train import LENGTH_RATES, TASKS, draw_rows

RULE_AND_FACTS = ("first-letter-last", "swap-1")
EXAMPLES = (16, 32, 64, 128, 256, 1024)  # different sentences
COLUMNS = ("task", "examples", "seed", "step", "split", "loss", "accuracy")


def run(lab):
    """Rows with COLUMNS: `examples` is the number of different sentences."""
    rows = []
    for task in RULE_AND_FACTS:
        steps = TASKS[task].steps["prompt"]
        for n in EXAMPLES:
            arms = arms_of(lab, task, "vocab", LENGTH_RATES["prompt"])
            for arm in arms:
                arm.columns = {"examples": n}
            rows += learn(lab, arms, steps, f"{task}, {n} examples", draw=from_few(n))
    return in_columns(rows, COLUMNS)


def from_few(n):
    """A way to draw the rows of a step, for `train.fit`: from n rows that the seed has chosen."""

    def draw(rows, seed, step, size):
        few = draw_rows(rows, seed, "few", n)
        return draw_rows(few, seed, step, size)

    return draw


if __name__ == "__main__":
    run_script("examples", run)
