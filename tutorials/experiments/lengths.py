"""What do more steps do for each length? Half an hour.

    python tutorials/experiments/lengths.py      lengths.csv

The main job gives every length the same budget of steps. Here each length learns two and eight
facts twice: with that budget, and with one that is long enough to see where it ends.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from script import SEEDS, run_script

from train import FINAL, Plan, arms_of_lengths, measure, train_arms

TASKS = ("swap-1", "swap-4")
BUDGETS = (200, 1200)  # steps


def run(lab):
    """Rows as those of the main job's length.csv; `step` is the budget."""
    plan, rows = Plan(length_seeds=len(SEEDS)), []
    for task in TASKS:
        for budget in BUDGETS:
            arms = arms_of_lengths(lab, plan, task, "prompt", SEEDS[0])
            train_arms(lab, arms, budget, f"{task}, {budget} steps")
            rows += measure(lab, arms, budget, "valid", FINAL)
            rows += measure(lab, arms, budget, "test", FINAL)
    return rows


if __name__ == "__main__":
    run_script("lengths", run)
