"""How long a prompt must be for what it has to hold: measured/lengths.csv.

    python tutorials/classroom/lengths.py      about ten minutes on one core

The length experiment of train.py with five seeds: a rule (*first-letter-last*), two facts
(*swap-1*) and eight facts (*swap-4*), each learned by prompts of 1 to 64 vectors. The commonest
answer, no prompt and the best hard prompt stand in the table as well.
"""

import shared

from train import (
    EXPERIMENTS,
    Lab,
    Plan,
    compare_lengths,
    guard,
    load_base,
    load_data,
)

SEEDS = 5
STEPS = {"first-letter-last": 64, "swap-1": 200, "swap-4": 200}
COLUMNS = EXPERIMENTS["length"].columns


def main():
    lab = Lab(*load_base(device="cpu"), load_data(shared.ROOT / "out"))
    results = []
    for task, steps in STEPS.items():
        plan = Plan(length_seeds=SEEDS, length_steps=((task, {"prompt": steps}),))
        results += compare_lengths(lab, plan, first_seed=0)
        shared.write_measured("lengths", COLUMNS, results)


if __name__ == "__main__":
    guard(main)
