"""In which layers a prompt, a prefix and LoRA move the attention over the text: for class 4.

    python tutorials/classroom/attention_moved.py      about two minutes of one core

It trains five seeds of each on before-last, at the learning rates in measured/four_methods.csv, and
writes measured/attention_moved.csv. What counts is where the last token of 24 test sentences looks:
its softmax over the text alone, which of every layer and head is compared with that of the base.
"""

import torch
from four_methods import RACE_SEEDS, batches_of
from shared import attention_scores, measured, open_lab, write_measured

from train import guard, train_arms

TASK, STEPS, SENTENCES = "before-last", 64, 24
WAYS = ("prompt 28", "prefix 28", "lora")


def last_scores(model, ids, past=None):
    """How well the last token's queries fit each key of the text, in every layer and head: scores
    (L, H, T). The keys of the past are left out."""
    scores = attention_scores(model, ids, past)  # L tensors (H, T, S)
    return torch.stack([of_layer[:, -1, -len(ids) :] for of_layer in scores])  # (L, H, T)


def moved_by(base, model, past, texts):
    """What share of the attention over the text is elsewhere than in the base, (L,): 0 where every
    word has the share that it has there, 1 where nothing is left in its place."""
    total = torch.zeros(base.config.n_layer)  # (L,)
    for ids in texts:
        before = last_scores(base, ids).softmax(2)  # (L, H, T)
        after = last_scores(model, ids, past).softmax(2)  # (L, H, T)
        total += (after - before).abs().sum(2).mean(1) / 2  # (L,)
    return total / len(texts)


def rates_of_the_race():
    """{way: the learning rate that it has in four_methods.csv}."""
    rows = measured("four_methods")
    raced = [row for row in rows if row["part"] == "race"]
    return {
        row["way"]: row["rate"] for row in raced if (row["task"], row["steps"]) == (TASK, STEPS)
    }


def main():
    lab, rates, results = open_lab(), rates_of_the_race(), []
    texts = [ids for ids, _ in lab.rows(TASK, "test", SENTENCES)]
    for way in WAYS:
        for own, arms in batches_of(lab, TASK, way, [rates[way]], RACE_SEEDS):
            train_arms(own, arms, STEPS, f"attention, {way}")
            for arm in arms:
                with torch.inference_mode():
                    past = arm.soft.past(own.model)
                moved = moved_by(lab.model, own.model, past, texts)  # (L,)
                for layer, share in enumerate(moved.tolist(), 1):
                    row = {"way": way, "seed": arm.seed, "layer": layer}
                    results.append({**row, "moved": round(share, 4)})
    write_measured("attention_moved", results)


if __name__ == "__main__":
    guard(main)
