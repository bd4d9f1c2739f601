"""What several notebooks share: how they train arms and count right answers, colours and labels."""

import train
from train import fit, measure

EXAMPLES = 16  # sentences a step, for each arm
TEST = 240  # sentences of every final number, as in the main job
VALID = 32  # sentences of a curve

LABELS = {
    "none": "no prompt",
    "wording": "best hard prompt",
    "prompt": "prompt tuning",
    "prefix": "prefix tuning",
    "lora": "LoRA",
    "full": "fine-tuning all weights",
}
COLOURS = {**train.COLOURS, "lora": "#CC79A7", "full": "#D55E00"}


def watch(lab, arms, steps, looks, examples=EXAMPLES):
    """Train all arms as one batch. Returns rows of results, look after look and in each of them arm
    after arm: how they do on validation sentences, at the steps in `looks`."""
    rows = {arm.task: lab.rows(arm.task, "train") for arm in arms}
    results = []
    for step in fit(lab.model, arms, rows, steps, examples):
        if step in looks:
            results += measure(lab, arms, step, "valid", VALID)
    return results


def right_on_test(lab, arms):
    """The share of the test sentences that each arm has right: a list."""
    return [row["accuracy"] for row in measure(lab, arms, 0, "test", TEST)]


def learn(lab, arms, steps, examples=EXAMPLES):
    """Train all arms as one batch. Returns what share of the test sentences each has right."""
    watch(lab, arms, steps, (), examples)
    return right_on_test(lab, arms)
