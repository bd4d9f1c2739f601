"""How long must a prompt be to store a list, on a real model?

    python tutorials/classroom/real_length.py     11 minutes of one core, which writes
                                                  measured/real_length.csv

Each letter of the alphabet gets "left" or "right" by the toss of a coin, 13 of each. There is no
rule to find: a prompt must store all 26. Prompts of 1, 4 and 16 vectors learn all of them at every
step; five seeds, each with its own coins and its own start. The learning rate was tried on one
other list before. Needs the real model of class 8.
"""

import random
import string
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import torch
from own_data import choice_loss, ids_of, judge
from real import open_model
from shared import write_measured

from softprompt import PromptTuning, initial_embeddings
from train import Arm, fit, guard, progress

SIDES = ("left", "right")
LENGTHS, SEEDS, RATE, STEPS, EVERY = (1, 4, 16), tuple(range(5)), 0.3, 40, 5


def coins(seed):
    """[(letter, side)]: a list that nobody can know."""
    letters = string.ascii_uppercase
    sides = list(SIDES) * (len(letters) // 2)
    random.Random(seed).shuffle(sides)
    return list(zip(letters, sides))


def new_arms(model):
    arms = []
    for length in LENGTHS:
        for seed in SEEDS:
            generator = torch.Generator().manual_seed(seed)
            start = initial_embeddings(model, length, "vocab", generator=generator)  # (P, C)
            arms.append(Arm(PromptTuning(start), f"coins {seed}", RATE, seed))
    return arms


def look(model, tok, arms, rows, step):
    """Rows of results: what share of its list each prompt has stored."""
    results = []
    for arm in arms:
        with torch.inference_mode():
            past = arm.soft.past(model)
        found = judge(model, tok, past, rows[arm.task], SIDES).among
        row = {"length": arm.soft.length, "seed": arm.seed, "step": step}
        results.append({**row, "accuracy": round(found, 4), "facts": len(rows[arm.task])})
    return results


def main():
    model, tok = open_model()
    rows = {}
    for seed in SEEDS:
        rows[f"coins {seed}"] = [tok.example(*pair) for pair in coins(seed)]
    arms, results = new_arms(model), []
    loss, size = choice_loss(tok, ids_of(tok, SIDES)), len(rows["coins 0"])
    training = fit(model, arms, rows, STEPS, size, loss)
    for step in progress(training, STEPS + 1, "coins"):
        if step % EVERY == 0:
            results += look(model, tok, arms, rows, step)
    write_measured("real_length", results)


if __name__ == "__main__":
    guard(main)
