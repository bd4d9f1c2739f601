"""How far from its question may a prompt stand, and which tokens must see it? Three minutes.

    python tutorials/experiments/distance.py      distance.csv, tutorials/figures/distance.png

far     A prompt that was trained right before the text, the best hard prompt, and nothing, with
        tokens of other sentences between them and the question. Pinned, they stay visible whatever
        the window; sliding, they leave it as text does.
sees    The prompt right before the question, but hidden from some of its tokens: from all but the
        last one, the arrow, behind which the answer comes, or from the arrow alone.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import torch
from script import LOOKS, Before, Look, arms_of, in_columns, run_script
from vectors import hide

from model import InputError, Past
from train import (
    FINAL,
    TASKS,
    Arm,
    arm_of_tokens,
    best_hard_prompt,
    draw_lines,
    label_lines,
    measure,
    panels,
    train_arms,
    where,
)

STEPS = {"library": 16, "first-letter-last": 64}
P, RATE = 16, 0.3
BETWEEN = (0, 16, 32, 48, 64, 96, 128, 192)  # tokens
READERS = {  # who sees the prompt: (the tokens before the arrow, the arrow)
    "all tokens": (True, True),
    "all but the arrow": (True, False),
    "the arrow alone": (False, True),
}
COLUMNS = (
    "part",
    "task",
    "method",  # prompt, wording or none
    "length",
    "seed",
    "step",
    "between",  # tokens of other text
    "pinned",  # yes or no
    "sees",  # one of READERS
    "split",
    "loss",  # in `sees` there is none: it is the first token of the answer that counts
    "accuracy",
)


def run(lab):
    """Rows with COLUMNS. Raises InputError for a base without a window."""
    if lab.model.config.window is None:
        raise InputError("this base has no window that a prompt could slide out of: give another")
    rows = []
    for task, steps in STEPS.items():
        prompts = arms_of(lab, task, "related", RATE, length=P)
        train_arms(lab, prompts, steps, f"distance, {task}")
        arms = prompts + [words_arm(lab, task, "none", "")]
        arms.append(words_arm(lab, task, "wording", best_hard_prompt(lab, task)))
        for pinned in (True, False):
            for between in BETWEEN:
                rows += measure_far(lab, arms, pinned, between)
        rows += measure_readers(lab, prompts)
    return in_columns(rows, COLUMNS)


def words_arm(lab, task, method, words):
    """An instruction in words, or none, as an arm."""
    ids = lab.tok.encode(words)
    arm = arm_of_tokens(lab, task, ids)
    arm.columns = {"method": method, "length": len(ids)}
    return arm


# ------------------------------------------------------------------ other text between


def measure_far(lab, arms, pinned, between):
    """Rows of results with so many tokens of other text between each prompt and the question."""
    far = []
    for arm in arms:
        soft = Before(past_far_away(lab, arm.soft, between, pinned))
        columns = {**arm.columns, "between": between, "pinned": "yes" if pinned else "no"}
        far.append(Arm(soft, arm.task, 0.0, arm.seed, {**columns, "part": "far"}))
    return measure(lab, far, STEPS[arms[0].task], "test", FINAL)


@torch.inference_mode()
def past_far_away(lab, soft, between, pinned):
    """The past of a soft prompt and so many tokens of other text behind it."""
    filler = torch.tensor([other_text(lab)[:between]], dtype=torch.long, device=lab.model.device)
    past = soft.past(lab.model, pinned)
    return lab.model(filler, past)[1] if between else past


def other_text(lab):
    """The ids of validation sentences: of the last ones, which nothing else is asked of."""
    texts = [sentence.text for sentence in lab.data["valid"][-40:]]
    return lab.tok.encode("\n" + "\n".join(texts))


# ------------------------------------------------------------------ who must see the prompt


def measure_readers(lab, arms):
    """Rows of results where only some tokens of a question see the prompt."""
    rows = []
    for arm in arms:
        for name, sees in READERS.items():
            right = right_seen_by(lab, arm.soft, lab.rows(arm.task, "test", FINAL), *sees)
            row = {"part": "sees", "task": arm.task, **arm.columns, "seed": arm.seed}
            row |= {"step": STEPS[arm.task], "between": 0, "pinned": "yes", "sees": name}
            rows.append({**row, "split": "test", "accuracy": round(right.mean().item(), 4)})
    return rows


@torch.inference_mode()
def right_seen_by(lab, soft, rows, text_sees, arrow_sees):
    """For each of the rows (question, answer) 1.0 where the first token of the answer is right, if
    the prompt is seen or not by the question's tokens before its last, and by the last, (B,)."""
    questions, answers = zip(*rows)
    longest = max(len(question) for question in questions)
    padded = [[-1] * (longest - len(question)) + question for question in questions]
    idx = torch.tensor(padded, device=lab.model.device)  # (B, T)
    first = torch.tensor([answer[0] for answer in answers], device=lab.model.device)  # (B,)
    before = seen_or_not(soft.past(lab.model), soft.length, text_sees)
    _, past = lab.model(idx[:, :-1], before)
    logits, _ = lab.model(idx[:, -1:], seen_or_not(past, soft.length, arrow_sees))  # (B, 1, V)
    return (logits[:, 0].argmax(1) == first).float()  # (B,)


def seen_or_not(past, P, is_seen):
    """The past with its first P slots in sight, or hidden."""
    if not is_seen:
        return hide(past, range(1, P + 1))
    positions = past.positions.clone()  # (B, S)
    positions[:, :P] = torch.arange(P, device=positions.device)
    return Past(past.keys, past.values, positions, past.pinned)


# ------------------------------------------------------------------ the picture

LINES = {
    "prompt, pinned": Look("prompt,\npinned", LOOKS["prompt"].colour),
    "prompt, sliding": Look("prompt,\nsliding", "#99CCBB"),
    "wording, pinned": Look("hard prompt,\npinned", LOOKS["wording"].colour),
    "wording, sliding": Look("hard prompt,\nsliding", "#B0B0B0"),
    "none, sliding": LOOKS["none"],
}


def draw(rows):
    """Accuracy over the tokens between prompt and question: a panel for each task."""
    figure, axes = panels(len(STEPS))
    axes[0].set_ylim(-0.03, 1.04)
    axes[0].set_ylabel(f"accuracy on {FINAL} test sentences")
    for axis, task in zip(axes, STEPS):
        lines = []
        for row in where(rows, part="far", task=task):
            shown = "pinned" if row["pinned"] == "yes" else "sliding"
            lines.append({**row, "line": f"{row['method']}, {shown}"})
        ends = draw_lines(axis, lines, "between", "accuracy", "line", LINES)
        axis.set_xticks(BETWEEN)
        axis.set_xlabel("tokens of other text between prompt and question")
        axis.set_title(f"{TASKS[task].label}: {TASKS[task].question}")
        label_lines(axis, ends, gap=0.1)
    figure.suptitle("Accuracy with other text between prompt and question")
    figure.supxlabel("line: mean of the seeds · small dot: a seed", fontsize=9)
    return figure


if __name__ == "__main__":
    run_script("distance", run, draw)
