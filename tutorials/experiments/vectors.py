"""What does each vector of a prompt hold? Two minutes.

    python tutorials/experiments/vectors.py      vectors.csv, tutorials/figures/vectors.png

Prompts of 16 vectors learn two facts (swap-1: say R for C and C for R). Then one vector after
another is hidden from the text, and what is lost is what needed this vector. Vectors are counted
from one; vector 0 in the table means that none is hidden.
"""

import sys
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).resolve().parent))
import torch
from matplotlib.figure import Figure
from script import SEEDS, run_script

from model import Past
from train import COMMON_LETTERS, FINAL, first_letter, new_arm, score, train_arms, where

TASK, P, STEPS, RATE = "swap-1", 16, 200, 3
LETTERS = (*COMMON_LETTERS[:2], "other")  # what the first word begins with: R and C are swapped
FUTURE = 2**20  # a position behind every text


def run(lab):
    """Rows: task, seed, vector (the hidden one), letter, accuracy."""
    arms = [new_arm(lab, TASK, "prompt", "vocab", P, RATE, seed) for seed in SEEDS]
    train_arms(lab, arms, STEPS, "vectors")
    letters = [letter_of(sentence) for sentence in lab.data["test"][:FINAL]]
    rows = []
    for arm in arms:
        for vector in range(P + 1):
            right = right_without(lab, arm, [vector] if vector else [])
            for letter in LETTERS:
                own = [value for value, begins in zip(right, letters) if begins == letter]
                row = {"task": TASK, "seed": arm.seed, "vector": vector, "letter": letter}
                rows.append({**row, "accuracy": round(mean(own), 4)})
    return rows


def letter_of(sentence):
    """The first letter if *swap-1* moves it, else "other"."""
    letter = first_letter(sentence)
    return letter if letter in LETTERS else "other"


@torch.inference_mode()
def right_without(lab, arm, vectors):
    """For each test sentence 1.0 if the answer is right with these vectors hidden, else 0.0."""
    past = hide(arm.soft.past(lab.model), vectors)
    return score(lab.model, past, lab.rows(arm.task, "test", FINAL)).right.tolist()


def hide(past, vectors):
    """The past with these virtual tokens, counted from one, hidden from every text behind it.

    Their positions are moved into the future, where no text sees them. (As empty slots they would
    let the text move up, and that alone can cost answers.)
    """
    positions = past.positions.clone()  # (1, P)
    for vector in vectors:
        positions[:, vector - 1] = FUTURE
    return Past(past.keys, past.values, positions, past.pinned)


def lost(rows):
    """The rows of hidden vectors, with the accuracy that is lost in the column `lost`."""
    results = []
    for row in rows:
        if row["vector"] > 0:
            [whole] = where(rows, seed=row["seed"], letter=row["letter"], vector=0)
            results.append({**row, "lost": whole["accuracy"] - row["accuracy"]})
    return results


def lost_alone(rows, letter):
    """Of one prompt's rows from `lost`: how much more each vector loses of this letter than of any
    other, (P,)."""
    alone = []
    for own in where(rows, letter=letter):
        others = [row["lost"] for row in where(rows, vector=own["vector"]) if row != own]
        alone.append(own["lost"] - max(others))
    return alone


def clearest_seed(rows):
    """The seed in which some vector holds one swapped letter alone most clearly: for each of the
    two, the most that is lost of it and of nothing else; the seed with the largest sum."""

    def clearness(seed):
        own = where(rows, seed=seed)
        return sum(max(lost_alone(own, letter)) for letter in LETTERS[:2])

    return max(sorted({row["seed"] for row in rows}), key=clearness)


def draw(rows):
    """What is lost without each vector: the clearest prompt large, the others below it."""
    rows = lost(rows)
    first = clearest_seed(rows)
    seeds = [first, *sorted({row["seed"] for row in rows} - {first})]
    figure = Figure(figsize=(9, 7), layout="constrained")
    heights = [2.2] + [1] * (len(seeds) - 1)
    axes = figure.subplots(len(seeds), 1, gridspec_kw={"height_ratios": heights}, squeeze=False)
    for axis, seed in zip(axes[:, 0], seeds):
        image = draw_prompt(axis, where(rows, seed=seed))
        said = f" (the clearest of {len(seeds)})" if seed == first else ""
        axis.set_title(f"seed {seed}{said}", fontsize=9, loc="left")
    axes[-1, 0].set_xlabel("the vector that is hidden (a number: at least 0.1 is lost)")
    figure.colorbar(image, ax=axes, label="accuracy that is lost")
    figure.suptitle("What is lost when one vector of a prompt is hidden")
    return figure


def draw_prompt(axis, rows):
    """One prompt: a row of squares for each kind of letter, a column for each vector."""
    grid = [[row["lost"] for row in where(rows, letter=letter)] for letter in LETTERS]  # (3, P)
    image = axis.imshow(grid, cmap="Reds", vmin=0, vmax=1, aspect="auto")
    names = [f"begins with {letter}" for letter in LETTERS[:2]]
    axis.set_yticks(range(3), [*names, "other letters"])
    axis.set_xticks(range(P), range(1, P + 1))
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    for y, line in enumerate(grid):
        for x, value in enumerate(line):
            if value >= 0.1:
                colour = "white" if value > 0.6 else "black"
                axis.text(x, y, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=8)
    return image


if __name__ == "__main__":
    run_script("vectors", run, draw)
