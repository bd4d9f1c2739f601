"""What does each vector of a prompt hold, and how much is it looked at? Four minutes.

    python tutorials/experiments/vectors.py      vectors.csv, tutorials/figures/vectors.png

Prompts of 16 vectors learn two facts (swap-1: say R for C and C for R). Then one vector after
another is hidden from the text, and what is lost is what needed this vector. Beside that stands the
share of the attention that it gets: from the first word in the last layer but one, and in the last
layer from the arrow, where the answer begins. Vectors are counted from one; vector 0 in the table
means that none is hidden, and the attention of all together.
"""

import sys
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).resolve().parent))
import torch
from matplotlib.figure import Figure
from script import arms_of, attention_scores, run_script

from model import Past
from train import COMMON_LETTERS, FINAL, first_letter, score, train_arms, where

TASK, P, STEPS, RATE, SEEDS = "swap-1", 16, 200, 3, range(10)
FUTURE = 2**20  # a position behind every text

# What the first word begins with: R and C are swapped, A is the commonest of the others.
LETTERS = COMMON_LETTERS[:3]
GROUPS = {letter: (letter,) for letter in LETTERS} | {"other": (LETTERS[2], "other")}
SHOWN = (*LETTERS[:2], "other")

# A question is a line break, the sentence and an arrow.
WORD, ARROW = 1, -1  # the slots of the first word's first token and of the arrow


def run(lab):
    """Rows: task, seed, vector (the hidden one), letter (one of GROUPS), accuracy while the vector
    is hidden, from_word and from_arrow (shares of attention while it is not)."""
    arms = arms_of(lab, TASK, "vocab", RATE, SEEDS, length=P)
    train_arms(lab, arms, STEPS, "vectors")
    letters = [letter_of(sentence) for sentence in lab.data["test"][:FINAL]]
    rows = []
    for arm in arms:
        looks = looks_at(lab, arm)  # (B, 2, P + 1)
        for vector in range(P + 1):
            right = right_without(lab, arm, [vector] if vector else [])
            for name, group in GROUPS.items():
                own = [i for i, letter in enumerate(letters) if letter in group]
                row = {"task": TASK, "seed": arm.seed, "vector": vector, "letter": name}
                row["accuracy"] = round(mean(right[i] for i in own), 4)
                from_word, from_arrow = looks[own, :, vector].mean(0).tolist()
                row |= {"from_word": round(from_word, 4), "from_arrow": round(from_arrow, 4)}
                rows.append(row)
    return rows


def letter_of(sentence):
    """The first letter if it is one of LETTERS, else "other"."""
    letter = first_letter(sentence)
    return letter if letter in LETTERS else "other"


def looks_at(lab, arm):
    """For each test sentence the shares of attention that the vectors get from the first word and
    from the arrow: those of all together, then of each, (B, 2, P + 1). Means of the heads."""
    with torch.inference_mode():
        past = arm.soft.past(lab.model)
    looks = []
    for question, _ in lab.rows(arm.task, "test", FINAL):
        before_last, last = attention_scores(lab.model, question, past)[-2:]  # (H, T, S) each
        from_word = before_last[:, WORD].softmax(-1).mean(0)  # (S,)
        from_arrow = last[:, ARROW].softmax(-1).mean(0)  # (S,)
        looks.append(torch.stack((from_word, from_arrow))[:, :P])  # (2, P)
    looks = torch.stack(looks)  # (B, 2, P)
    return torch.cat((looks.sum(2, keepdim=True), looks), 2)  # (B, 2, P + 1)


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


def lost_rows(rows):
    """The rows of hidden vectors, with the accuracy that is lost in the column `lost`."""
    results = []
    for row in rows:
        if row["vector"] > 0:
            [whole] = where(rows, seed=row["seed"], letter=row["letter"], vector=0)
            results.append({**row, "lost": whole["accuracy"] - row["accuracy"]})
    return results


def lost_alone(rows, letter):
    """Of one prompt's rows from `lost_rows`: how much more each vector loses of this letter than of
    any other, (P,)."""
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
    """What is lost without each vector: the clearest prompt large, four others below it."""
    rows = lost_rows(rows)
    first = clearest_seed(rows)
    seeds = [first, *sorted({row["seed"] for row in rows} - {first})]
    shown = seeds[:5]
    figure = Figure(figsize=(9, 7), layout="constrained")
    heights = [2.2] + [1] * (len(shown) - 1)
    axes = figure.subplots(len(shown), 1, gridspec_kw={"height_ratios": heights}, squeeze=False)
    for axis, seed in zip(axes[:, 0], shown):
        image = draw_prompt(axis, where(rows, seed=seed))
        said = f" (the clearest of {len(seeds)})" if seed == first else ""
        axis.set_title(f"seed {seed}{said}", fontsize=9, loc="left")
    axes[-1, 0].set_xlabel("the vector that is hidden (a number: at least 0.1 is lost)")
    figure.colorbar(image, ax=axes, label="accuracy that is lost")
    figure.suptitle("What is lost when one vector of a prompt is hidden")
    return figure


def draw_prompt(axis, rows):
    """One prompt: a row of squares for each kind of letter, a column for each vector."""
    grid = [[row["lost"] for row in where(rows, letter=letter)] for letter in SHOWN]  # (3, P)
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
