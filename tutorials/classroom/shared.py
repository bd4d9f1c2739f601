"""What several classes share: the base and the sentences, how arms are trained and counted, the
tables that took long to measure, how rows are read, and where a model looks."""

import math
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, median, variance

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "experiments"))
import pretrain  # noqa: F401  adds the tasks of the base to TASKS

from model import Past, rotate
from train import (
    COMMON_LETTERS,
    THRESHOLD,
    Lab,
    first_letter,
    fit,
    hashed,
    load_base,
    load_data,
    mean_of_arms,
    measure,
    new_arm,
    read_rows,
    say,
    score,
    write_rows,
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


def table(name):
    """The path of the table that tutorials/experiments/NAME.py left, for `train.read_rows`."""
    return ROOT / "tutorials" / "experiments" / f"{name}.csv"


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


@torch.inference_mode()
def score_hard_prompt(lab, task, hard_prompt, split, n):
    """(loss, accuracy) of the base with an instruction in words, on the first n sentences."""
    rows = lab.rows(task, split, n, hard_prompt)
    losses, accuracies = mean_of_arms(score(lab.model, None, rows), 1)
    return losses.item(), round(accuracies.item(), 4)  # as in the tables


# ------------------------------------------------------------------ what took long to measure


def measured(name):
    """The rows of a table in classroom/measured. The script that made the table, and makes it
    again, has the table's name."""
    return read_rows(table_of(name))


def write_measured(name, rows):
    """Write the table of this name."""
    write_rows(table_of(name), rows)


def table_of(name):
    return CLASSROOM / "measured" / f"{name}.csv"


# ------------------------------------------------------------------ how rows are read


def steps_to_threshold(curve, threshold=THRESHOLD):
    """The first step of a curve [(step, loss)] where the loss is at most the threshold; infinity
    where it never is."""
    return min((step for step, loss in curve if loss <= threshold), default=math.inf)


def steps_needed(results, task):
    """{(start, rate): [steps to the threshold of each seed]}."""
    curves = defaultdict(list)
    for row in results:
        if row["task"] == task and row["split"] == "valid":
            curves[row["start"], row["rate"], row["seed"]].append((row["step"], row["loss"]))
    needed = defaultdict(list)
    for (start, rate, _), curve in curves.items():
        needed[start, rate].append(steps_to_threshold(curve))
    return dict(needed)


def times_sooner(needed, slow, fast):
    """How many times as many steps the start `slow` needs as the start `fast`: at each learning
    rate, {rate: ratio}, and each start at its own best rate. Medians of the seeds; a task learned
    at once counts as one step. Where one of the two never gets there, there is no ratio (NaN)."""
    steps = {where: max(1, median(seeds)) for where, seeds in needed.items()}
    at_rate, best = {}, {slow: math.inf, fast: math.inf}
    for rate in sorted({rate for _, rate in steps}):
        slow_steps = steps.get((slow, rate), math.inf)
        fast_steps = steps.get((fast, rate), math.inf)
        if max(slow_steps, fast_steps) < math.inf:
            at_rate[rate] = slow_steps / fast_steps
        best[slow] = min(best[slow], slow_steps)
        best[fast] = min(best[fast], fast_steps)
    at_best = best[slow] / best[fast] if max(best.values()) < math.inf else math.nan
    return at_rate, at_best


def mean_error(accuracies, n):
    """The mean accuracy, and its standard error over the seeds and over n sentences as a sample."""
    p = mean(accuracies)
    of_seeds = variance(accuracies) / len(accuracies) if len(accuracies) > 1 else 0.0
    of_sentences = p * (1 - p) / n
    return p, (of_seeds + of_sentences) ** 0.5


# ------------------------------------------------------------------ what each vector holds

NONE_HIDDEN = -1
FUTURE = 2**20  # a position behind every text


def hide(past, vector):
    """The past with one virtual token hidden from every text behind it, or NONE_HIDDEN.

    Its position is moved into the future, where no text sees it. (As an empty slot it would let the
    text move up by a position, and that alone can cost answers.)
    """
    if vector == NONE_HIDDEN:
        return past
    positions = past.positions.clone()  # (1, P)
    positions[:, vector] = FUTURE
    return Past(past.keys, past.values, positions, past.pinned)


def letter_of(sentence):
    """The first letter if *swap-1* moves it, else "other"."""
    letter = first_letter(sentence)
    return letter if letter in COMMON_LETTERS[:2] else "other"


def accuracies_without(results, seed):
    """{(letter, hidden vector): accuracy} of one seed's prompt."""
    accuracies = {}
    for row in results:
        if row["seed"] == seed:
            accuracies[row["letter"], row["vector"]] = row["accuracy"]
    return accuracies


def answers_lost(results, seed):
    """{letter: [accuracy lost without each vector]} of one seed's prompt."""
    accuracies = accuracies_without(results, seed)
    lost = defaultdict(list)
    for (letter, vector), accuracy in sorted(accuracies.items()):
        if vector != NONE_HIDDEN:
            lost[letter].append(accuracies[letter, NONE_HIDDEN] - accuracy)
    return dict(lost)


def lost_alone(lost, letter):
    """Of each vector: how much more is lost of this letter than of any other, (P,)."""
    others = [values for name, values in lost.items() if name != letter]
    return [own - max(rest) for own, *rest in zip(lost[letter], *others)]


# ------------------------------------------------------------------ where a model looks


@torch.inference_mode()
def attention_scores(model, ids, past=None):
    """How well each query of a text (a list of ids) behind a past of one row fits each key, in
    each layer: L tensors (H, T, S), minus infinity where a query does not see a key. Their softmax
    is the attention. Past and text are short enough for one block, see `model.seen_in_blocks`."""
    scores = []

    def remember(attention, given):
        x, k, _, cos, sin, _, [mask] = given  # k (1, Hkv, S, D), mask (1, 1, T, S)
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
