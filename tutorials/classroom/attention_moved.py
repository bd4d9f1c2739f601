"""In which layers a prompt, a prefix and LoRA move the attention over the text: for class 4.

    python tutorials/classroom/attention_moved.py      about two minutes of one core

It trains five seeds of each on before-last, at the learning rates in measured/four_methods.csv, and
writes measured/attention_moved.csv. What counts is where the last token of 24 test sentences looks:
its softmax over the text alone, which of every layer and head is compared with that of the base.
"""

import torch
from four_methods import COLUMNS as RACE_COLUMNS
from four_methods import EXAMPLES, RACE_SEEDS, batches_of
from shared import CLASSROOM, measured, open_lab

from model import rotate
from train import fit, guard, progress, write_results

TASK, STEPS, SENTENCES = "before-last", 64, 24
WAYS = ("prompt 28", "prefix 28", "lora")
COLUMNS = {"way": str, "seed": int, "layer": int, "moved": float}


@torch.inference_mode()
def last_scores(model, ids, past=None):
    """How much the last token's queries fit each key of the text, in every layer and head: scores
    (L, H, T), already divided by the root of D. What `past` adds to the keys is left out."""
    found = []

    def look(attention, given):
        x, k, _, cos, sin, _ = given  # k (1, Hkv, S, D)
        q = rotate(attention.heads(attention.q_proj(x)), cos, sin)[:, :, -1:]  # (1, H, 1, D)
        k = k[:, :, -len(ids) :]  # (1, Hkv, T, D)
        k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)  # (1, H, T, D)
        scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5  # (1, H, 1, T)
        found.append(scores[0, :, 0])  # (H, T)

    hooks = [block.self_attn.register_forward_pre_hook(look) for block in model.model.layers]
    try:
        model.hidden(torch.tensor([ids]), past)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(found)  # (L, H, T)


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
    rows = measured("four_methods", RACE_COLUMNS)
    raced = [row for row in rows if row["part"] == "race"]
    return {
        row["way"]: row["rate"] for row in raced if (row["task"], row["steps"]) == (TASK, STEPS)
    }


def main():
    lab, rates, results = open_lab(), rates_of_the_race(), []
    texts = [ids for ids, _ in lab.rows(TASK, "test", SENTENCES)]
    for way in WAYS:
        for own, arms in batches_of(lab, TASK, way, [rates[way]], RACE_SEEDS):
            training = fit(own.model, arms, {TASK: own.rows(TASK, "train")}, STEPS, EXAMPLES)
            for _ in progress(training, STEPS + 1, f"attention, {way}"):
                pass
            for arm in arms:
                with torch.inference_mode():
                    past = arm.soft.past(own.model)
                moved = moved_by(lab.model, own.model, past, texts)  # (L,)
                for layer, share in enumerate(moved.tolist(), 1):
                    row = {"way": way, "seed": arm.seed, "layer": layer}
                    results.append({**row, "moved": round(share, 4)})
    write_results(CLASSROOM / "measured" / "attention_moved.csv", COLUMNS, results)


if __name__ == "__main__":
    guard(main)
