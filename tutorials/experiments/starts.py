"""Why does the start decide? How far away a solution is from each start. Two minutes.

    python tutorials/experiments/starts.py       starts.csv

In small steps a prompt stops soon after it has learned the task. So how far it has moved says how
far away the nearest solutions are. Steps are 1/64 of the size of the start's own numbers, and so
are distances: noise is sixteen times as long as tokens, and a step of it as well.
"""

import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import torch.nn.functional as F
from script import SEEDS, run_script

from train import (
    CURVE,
    EXAMPLES,
    STARTS,
    THRESHOLD,
    constant,
    fit,
    measure,
    new_arm,
    progress,
    sizes,
)

TASK, P, STEPS, SHARE = "first-letter-last", 16, 160, 1 / 64


def run(lab):
    """Rows: start, seed, step (at which the task is learned), what `measure` says, distance (root
    mean square of the movement over that of the start), turn (mean angle in degrees)."""
    arms, begins = [], {}
    for start in STARTS:
        for seed in SEEDS:
            arm = new_arm(lab, TASK, "prompt", start, P, 1, seed)
            embeddings = arm.soft.embeddings.detach()  # (P, C)
            arm.rate = SHARE * embeddings.std().item() / sizes(arm.soft, lab.model)[0]
            arm.columns = {"start": start}
            begins[start, seed] = embeddings.clone()
            arms.append(arm)
    rows, train_rows = [], {TASK: lab.rows(TASK, "train")}
    training = fit(lab.model, arms, train_rows, STEPS, EXAMPLES, schedule=constant)
    for step in progress(training, STEPS + 1, "starts"):
        measured = measure(lab, arms, step, "valid", CURVE)
        for arm, row in zip(list(arms), measured):
            if row["loss"] <= THRESHOLD or step == STEPS:
                begin = begins[arm.columns["start"], arm.seed]
                rows.append({**row, **moved(begin, arm.soft.embeddings.detach())})
                arms.remove(arm)
    return rows


def moved(begin, now):
    """How far vectors (P, C) have moved, in units of their own size, and by what angle."""
    distance = (now - begin).norm() / begin.norm()
    cosines = F.cosine_similarity(begin, now)  # (P,)
    turn = math.degrees(cosines.clamp(-1, 1).acos().mean())
    return {"distance": round(distance.item(), 4), "turn": round(turn, 2)}


if __name__ == "__main__":
    run_script("starts", run)
