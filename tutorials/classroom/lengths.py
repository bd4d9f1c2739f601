"""How long a prompt must be for what it has to hold: measured/lengths.csv.

    python tutorials/classroom/lengths.py      about ten minutes on one core

The length experiment of train.py with five seeds: a rule (*first-letter-last*), two facts
(*swap-1*) and eight facts (*swap-4*), each learned by prompts of 1 to 64 vectors. The commonest
answer, no prompt and the best hard prompt stand in the table as well.
"""

import shared

from train import Plan, compare_lengths, guard

PLAN = Plan(length_seeds=5, methods=("prompt",))


def main():
    shared.write_measured("lengths", compare_lengths(shared.open_lab(), PLAN, first_seed=0))


if __name__ == "__main__":
    guard(main)
