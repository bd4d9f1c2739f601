"""In which layers do a prompt, a prefix and LoRA move the attention over the text? Two minutes.

    python tutorials/experiments/attention.py      attention.csv

Each learns *before-last* with the learning rate that methods.py chose. What counts is where the
last token of 24 test sentences looks: the softmax of its scores over the text alone, which in every
layer and head is compared with that of the base.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import torch
from methods import labs_and_arms
from script import SEEDS, attention_scores, in_columns, run_script

from train import train_arms

TASK, STEPS, SENTENCES = "before-last", 64, 24
RATES = {("prompt", 28): 9, ("prefix", 28): 0.3, ("lora", 0): 0.01}
COLUMNS = ("task", "method", "length", "rate", "seed", "step", "layer", "moved")


def run(lab):
    """Rows with COLUMNS: layers are counted from one, `moved` is as in `moved_by`."""
    texts = [question for question, _ in lab.rows(TASK, "test", SENTENCES)]
    rows = []
    for way, rate in RATES.items():
        for own, arms in labs_and_arms(lab, TASK, way, [rate], SEEDS):
            train_arms(own, arms, STEPS, f"attention, {way[0]}")
            for arm in arms:
                with torch.inference_mode():
                    past = arm.soft.past(own.model)
                moved = moved_by(lab.model, own.model, past, texts)  # (L,)
                for layer, share in enumerate(moved.tolist(), 1):
                    row = {"task": TASK, **arm.columns, "seed": arm.seed, "step": STEPS}
                    rows.append({**row, "layer": layer, "moved": round(share, 4)})
    return in_columns(rows, COLUMNS)


def moved_by(base, model, past, texts):
    """What share of the attention over the text is elsewhere than in the base, (L,): 0 where every
    word has the share that it has there, 1 where nothing is left in its place."""
    total = torch.zeros(base.config.n_layer)  # (L,)
    for ids in texts:
        before = last_scores(base, ids).softmax(2)  # (L, H, T)
        after = last_scores(model, ids, past).softmax(2)  # (L, H, T)
        total += (after - before).abs().sum(2).mean(1) / 2  # (L,)
    return total / len(texts)


def last_scores(model, ids, past=None):
    """How well the last token's queries fit each key of the text, in every layer and head: scores
    (L, H, T). The keys of the past are left out."""
    scores = attention_scores(model, ids, past)  # L tensors (H, T, S)
    return torch.stack([of_layer[:, -1, -len(ids) :] for of_layer in scores])  # (L, H, T)


if __name__ == "__main__":
    run_script("attention", run)
