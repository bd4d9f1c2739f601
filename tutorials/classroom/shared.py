"""What several classes share: the base and the sentences, how arms are trained and counted, and the
tables that took long to measure, and where a model looks."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from model import rotate
from train import (
    Lab,
    fit,
    hashed,
    load_base,
    load_data,
    measure,
    new_arm,
    read_results,
    say,
    write_results,
    write_text,
)

CLASSROOM = Path(__file__).resolve().parent
ROOT = CLASSROOM.parents[1]

EXAMPLES = 16  # sentences a step, for each arm
TEST = 240  # sentences of every final number, as in the main job
VALID = 32  # sentences of a curve


# ------------------------------------------------------------------ the base and the sentences

# Of the test sentences that the solved copies were made with, the first bytes of their hashes.
SOLVED_SENTENCES = CLASSROOM / "measured" / "test_sentences.txt"


def open_lab(out=ROOT / "out"):
    """The frozen base, its tokenizer and the sentences of the packages that are installed here.
    Says by how much numbers may differ from the solved copies."""
    lab = Lab(*load_base(device="cpu"), load_data(out))
    say(sentences_differ(test_marks(lab)))
    return lab


def test_marks(lab):
    """A mark of each test sentence, from its text."""
    return [hashed(sentence.text)[:4].hex() for sentence in lab.data["test"][:TEST]]


def sentences_differ(marks):
    """In words, by how much numbers may differ from the solved copies."""
    solved = set(SOLVED_SENTENCES.read_text(encoding="utf-8").split())
    others = len(set(marks) - solved)
    if not others:
        return (
            "The test sentences are those of the solved copy: an accuracy may differ by 0.02, "
            "since other processors round otherwise."
        )
    return (
        f"{others} of the {len(marks)} test sentences are not those of the solved copy, since "
        "other versions of the packages are installed here: an accuracy may differ by 0.06, "
        "which is two standard errors."
    )


def write_test_marks(lab):
    """Remember the test sentences of this run as those of the solved copies."""
    write_text(SOLVED_SENTENCES, "\n".join(test_marks(lab)) + "\n")


# ------------------------------------------------------------------ arms


def arms_of(lab, task, start, length, rate, seeds, method="prompt"):
    """One arm for each seed."""
    arms = []
    for seed in seeds:
        arm = new_arm(lab, task, method, start, length, rate, seed)
        arm.columns = {"start": start, "rate": rate}
        arms.append(arm)
    return arms


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


# ------------------------------------------------------------------ what took long to measure


def measured(name, columns):
    """The rows of a table in classroom/measured; `columns` is {name: type}. The script that made
    the table, and makes it again, has the table's name."""
    return read_results(table_of(name), columns)


def write_measured(name, columns, rows):
    """Write the table of this name."""
    write_results(table_of(name), columns, rows)


def table_of(name):
    return CLASSROOM / "measured" / f"{name}.csv"


# ------------------------------------------------------------------ where a model looks


@torch.inference_mode()
def attention_scores(model, ids, past=None):
    """How well each query of a text (a list of ids) behind a past of one row fits each key, in
    each layer: L tensors (H, T, S), minus infinity where a query does not see a key. Their softmax
    is the attention."""
    scores = []

    def remember(attention, given):
        x, k, _, cos, sin, mask = given  # k (1, Hkv, S, D)
        q = rotate(attention.heads(attention.q_proj(x)), cos, sin)  # (1, H, T, D)
        k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)  # (1, H, S, D)
        of_layer = q @ k.transpose(2, 3) / q.shape[3] ** 0.5 + mask  # (1, H, T, S)
        scores.append(of_layer[0])  # (H, T, S)

    hooks = [block.self_attn.register_forward_pre_hook(remember) for block in model.model.layers]
    try:
        model.hidden(torch.tensor([ids]), past)
    finally:
        for hook in hooks:
            hook.remove()
    return scores
