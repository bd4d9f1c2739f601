"""What the experiments share: the lab, how arms are made, trained and measured, and the tables.

An experiment is a file with `run(lab) -> rows`. As a program it writes these rows to a table of its
own name beside it, and a picture into tutorials/figures where README or RESULTS shows one. The
classes read the tables. Importing this file adds the tasks of the base to TASKS.
"""

import sys
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import torch
import torch.nn as nn

TUTORIALS = Path(__file__).resolve().parents[1]
sys.path[1:1] = [str(TUTORIALS), str(TUTORIALS.parent)]

import pretrain  # noqa: E402, F401

from model import require_writable, rotate  # noqa: E402
from train import (  # noqa: E402
    CURVE,
    EXAMPLES,
    FINAL,
    THRESHOLD,
    command_line,
    constant,
    fit,
    guard,
    measure,
    new_arm,
    open_lab,
    progress,
    where,
    write_picture,
    write_rows,
)

FIGURES = TUTORIALS / "figures"
SEEDS = range(5)


# ------------------------------------------------------------------ tables


def table_of(name):
    """The table that the experiment of this name leaves."""
    return Path(__file__).with_name(f"{name}.csv")


def in_columns(rows, columns):
    """The rows with these columns, in this order; a cell is empty where a row has no such thing."""
    return [{name: row.get(name, "") for name in columns} for row in rows]


def run_script(name, run, draw=None, open_lab=open_lab):
    """The program of an experiment. `open_lab` makes the lab of what the command line says."""

    def work():
        about = sys.modules["__main__"].__doc__
        settings = command_line(f"{name}.py", about).parse_args()
        require_writable(table_of(name))
        rows = run(open_lab(settings))
        write_rows(table_of(name), rows)
        if draw:
            write_picture(FIGURES / f"{name}.png", draw, rows)

    guard(work)


class Look(NamedTuple):
    """How a picture shows a thing: what `train.draw_lines` asks of a look."""

    label: str
    colour: str


LOOKS = {  # a thing has one colour everywhere; those of tasks and starts stand in train.py
    "none": Look("no prompt", "#595959"),
    "always": Look("commonest answer", "#A6A6A6"),
    "wording": Look("best hard prompt", "#000000"),
    "prompt": Look("prompt tuning", "#44AA99"),
    "prefix": Look("prefix tuning", "#661100"),
    "lora": Look("LoRA", "#AA4499"),
    "full": Look("fine-tuning all weights", "#CC6677"),
}


# ------------------------------------------------------------------ arms


def arms_of(lab, task, start, rate, seeds=SEEDS, method="prompt", length=16):
    """An arm for each seed."""
    arms = []
    for seed in seeds:
        arm = new_arm(lab, task, method, start, length, rate, seed)
        arm.columns = {"start": start, "method": method, "length": length, "rate": rate}
        arms.append(arm)
    return arms


def learn(lab, arms, steps, title, splits=("valid", "test"), looks=(), **more):
    """Train the arms as one batch. Rows of results: at the steps in `looks` on the sentences of a
    curve, and in the end on those of the final numbers. `more` goes to `train.fit`."""
    rows, examples = [], {arm.task: lab.rows(arm.task, "train") for arm in arms}
    training = fit(lab.model, arms, examples, steps, EXAMPLES, **more)
    for step in progress(training, steps + 1, title):
        if step in looks:
            rows += measure(lab, arms, step, "valid", CURVE)
    for split in splits:
        rows += measure(lab, arms, steps, split, FINAL)
    return rows


def until_learned(lab, arms, steps, title):
    """Train the arms of one task at constant rates. An arm stops when it has learned the task, at
    the latest after these steps. Two rows of each: at the start, and where it stopped."""
    rows, racing = [], list(arms)
    examples = {arms[0].task: lab.rows(arms[0].task, "train")}
    training = fit(lab.model, racing, examples, steps, EXAMPLES, schedule=constant)
    for step in progress(training, steps + 1, title):
        for arm, row in zip(list(racing), measure(lab, racing, step, "valid", CURVE)):
            learned = row["loss"] <= THRESHOLD
            if learned:
                racing.remove(arm)
            if learned or step in (0, steps):
                rows.append(row)
    return rows


def best_rate(rows):
    """The learning rate with the least mean validation loss."""
    tried = where(rows, split="valid")

    def loss(rate):
        return mean(row["loss"] for row in where(tried, rate=rate))

    return min(sorted({row["rate"] for row in tried}), key=loss)


# ------------------------------------------------------------------ pasts as soft prompts


class Before(nn.Module):
    """A past that is there already, as a soft prompt: whatever stands before a text can be measured
    as an arm."""

    kind = "past"

    def __init__(self, past):
        super().__init__()
        self.ready = past

    def past(self, model, pinned=True):
        """As `PromptTuning.past`; it is pinned or not, as it was made."""
        return self.ready


# ------------------------------------------------------------------ where a model looks


@torch.inference_mode()
def attention_scores(model, ids, past=None):
    """How well each query of a text (a list of ids) behind a past of one row fits each key, in
    each layer: L tensors (H, T, S), minus infinity where a query does not see a key. Their softmax
    is the attention."""
    scores = []

    def remember(attention, given):
        x, k, _, cos, sin, _, [mask] = given  # k (1, Hkv, S, D); a short text is one block
        q = rotate(attention.heads(attention.q_proj(x)), cos, sin)  # (1, H, T, D)
        k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)  # (1, H, S, D)
        of_layer = q @ k.transpose(2, 3) / q.shape[3] ** 0.5 + mask  # (1, H, T, S)
        scores.append(of_layer[0])  # (H, T, S)

    hooks = [block.self_attn.register_forward_pre_hook(remember) for block in model.model.layers]
    try:
        model.hidden(torch.tensor([ids], device=model.device), past)
    finally:
        for hook in hooks:
            hook.remove()
    return scores
