"""Measure what an update of the base does to prompts and to hard prompts, for class 7.

    python tutorials/classroom/update.py

Some four minutes on one core. It writes measured/update.csv.

An update is 20 more steps of 32 sentences on tasks that the base practised, asked for in the words
that it practised them in. It has a seed of its own. Five updates differ in their learning rate and
in what is practised; a sixth moves every weight as far as the strong one, in a random direction.
After each of them the four hard prompts of the task never practised are tried, and what their
answers are. After the gentle and the strong one also old prompts and the hard prompts of other
tasks; after the strong one also prompts trained anew.
"""

from collections import Counter
from typing import NamedTuple

import shared
import torch
from methods import AllWeights, lab_on_a_copy

from train import (
    TASKS,
    Arm,
    bare,
    best_hard_prompt,
    fit,
    guard,
    measure,
    progress,
)

NEW = "first-letter-last"
PRACTISED = [name for name, task in TASKS.items() if task.practised]
LAST = [name for name in PRACTISED if name.endswith("-last")]


class Update(NamedTuple):
    tasks: list  # that are practised once more; none: a random direction
    rate: float  # AdamW's learning rate


UPDATES = {
    "gentle": Update(PRACTISED, 3e-4),
    "strong": Update(PRACTISED, 1e-3),
    "the last word alone": Update(LAST, 1e-3),
    "without the last word": Update([name for name in PRACTISED if name not in LAST], 1e-3),
    "library alone": Update(["library"], 1e-3),
    "random direction": Update([], 1e-3),
}
UPDATE_STEPS, UPDATE_EXAMPLES = 20, 32
UPDATE_SEEDS = (0, 1, 2, 3, 4)
ANEW_SEEDS = (0, 1, 2)  # of the updates after which prompts are trained anew

PROMPT_TASKS = ("library", "count", NEW)
PROMPT_SEEDS = (0, 1, 2, 3, 4)
PROMPT_LENGTH, PROMPT_RATE, PROMPT_STEPS = 8, 1.5, 32


# ------------------------------------------------------------------ an update


def updated(lab, name, seed):
    """The lab on a copy of its base, after the update of this name."""
    update, moved = UPDATES[name], lab_on_a_copy(lab)
    if not update.tasks:
        move_at_random(moved.model, lab.model, updated(lab, "strong", seed).model, seed)
        return moved
    arm = Arm(AllWeights(moved.model), "more", update.rate, seed)
    rows = {"more": practice(lab, update.tasks)}
    for _ in fit(moved.model, [arm], rows, UPDATE_STEPS, UPDATE_EXAMPLES):
        pass
    moved.model.requires_grad_(False)
    return moved


def practice(lab, tasks):
    """500 training sentences for each task, asked for as the base learned it."""
    rows = []
    for name in tasks:
        task = TASKS[name]
        for i, sentence in enumerate(lab.data["train"][:500]):
            words = task.practised[i % len(task.practised)]
            rows.append(lab.tok.example(sentence.text, task.answer(sentence), words))
    return rows


def move_at_random(model, base, strong, seed):
    """Move each parameter of the model as far from the base as that of `strong` is."""
    generator = torch.Generator().manual_seed(seed)
    for p, before, after in zip(model.parameters(), base.parameters(), strong.parameters()):
        direction = torch.randn(p.shape, generator=generator)
        p += direction * (after - before).norm() / direction.norm()


# ------------------------------------------------------------------ what is measured


KINDS = (
    "right",
    "first letter of another word",
    "something else of the last word",
    "neither",
)


def kind_of_answer(sentence, said):
    """Of which of the KINDS an answer to "the first letter of the last word" is. The question has
    two parts: what is asked of a word (its first letter), and of which word (the last)."""
    words = [bare(word) for word in sentence.text.split()]
    last = words[-1]
    if said == last[0]:
        return "right"
    if said in (last, last[-1], str(len(last))):
        return "something else of the last word"
    if said in [word[0] for word in words[:3]]:
        return "first letter of another word"
    return "neither"


def answers_in_words(lab, words, n=shared.TEST):
    """{kind of answer: share} of the new task behind this hard prompt, on the test sentences."""
    sentences = lab.data["test"][:n]
    questions = [question for question, _ in lab.rows(NEW, "test", n, words)]
    kinds = Counter()
    for first in range(0, n, 60):
        answers = lab.model.generate(questions[first : first + 60], 8, stop=lab.tok.end)
        for sentence, ids in zip(sentences[first:], answers):
            kinds[kind_of_answer(sentence, lab.tok.decode(ids).strip())] += 1
    return {kind: kinds[kind] / n for kind in KINDS}


def new_task_in_words(lab):
    """Rows for the four hard prompts of the task never practised."""
    rows = []
    for words in TASKS[NEW].hard_prompts:
        row = {"task": NEW, "method": "wording", "words": words, "seed": 0}
        valid = shared.score_hard_prompt(lab, NEW, words, "valid", shared.TEST)[1]
        rows.append({**row, "split": "valid", "answers": "right", "share": valid})
        for kind, share in answers_in_words(lab, words).items():
            rows.append({**row, "split": "test", "answers": kind, "share": share})
    return rows


def other_tasks_in_words(lab, best):
    """Rows for the hard prompts {task: words} of other tasks."""
    rows = []
    for task, words in best.items():
        share = shared.score_hard_prompt(lab, task, words, "test", shared.TEST)[1]
        row = {"task": task, "method": "wording", "words": words, "seed": 0}
        rows.append({**row, "split": "test", "answers": "right", "share": share})
    return rows


def train_prompts(lab):
    arms = []
    for task in PROMPT_TASKS:
        arms += shared.arms_of(lab, task, "vocab", PROMPT_LENGTH, PROMPT_RATE, PROMPT_SEEDS)
    shared.watch(lab, arms, PROMPT_STEPS, ())
    return arms


def rows_of_prompts(lab, arms, method):
    """Rows for prompts, on the base of this lab."""
    rows = []
    for result in measure(lab, arms, PROMPT_STEPS, "test", shared.TEST):
        row = {"task": result["task"], "method": method, "words": "", "seed": result["seed"]}
        rows.append({**row, "split": "test", "answers": "right", "share": result["accuracy"]})
    return rows


def before_updates(lab):
    """The prompts, the best hard prompts {task: words}, and rows of results."""
    arms = train_prompts(lab)
    best = {task: best_hard_prompt(lab, task) for task in PROMPT_TASKS if task != NEW}
    rows = new_task_in_words(lab) + other_tasks_in_words(lab, best)
    return arms, best, rows + rows_of_prompts(lab, arms, "old")


def after_update(lab, name, seed, arms, best):
    """Rows of results after one update."""
    moved = updated(lab, name, seed)
    rows = new_task_in_words(moved)
    if name in ("gentle", "strong"):
        rows += other_tasks_in_words(moved, best)
        rows += rows_of_prompts(moved, arms, "old")
    if name == "strong" and seed in ANEW_SEEDS:
        rows += rows_of_prompts(moved, train_prompts(moved), "anew")
    return rows


# ------------------------------------------------------------------ what the class reads from it


def best_words(results):
    """The hard prompt of the new task that is best on the validation sentences before an update."""
    shares = {}
    for row in results:
        if row["update"] == "none" and row["split"] == "valid":
            shares[row["words"]] = row["share"]
    return max(shares, key=shares.get)


def accuracies_after(results):
    """{(task, update, method): [test accuracy of each run]} before and after the gentle and the
    strong update. Of the new task's hard prompts, the one that was best before."""
    best, accuracies = best_words(results), {}
    for row in results:
        other_words = row["task"] == NEW and row["words"] not in ("", best)
        if row["answers"] != "right" or row["split"] != "test" or other_words:
            continue
        if row["update"] in ("none", "gentle", "strong"):
            where = row["task"], row["update"], row["method"]
            accuracies.setdefault(where, []).append(row["share"])
    return accuracies


def answers_after(results):
    """Of the new task's hard prompts, {(words, update): {kind of answer: [share of each seed]}} on
    the test sentences."""
    shares = {}
    for row in results:
        if (row["task"], row["method"], row["split"]) == (NEW, "wording", "test"):
            kinds = shares.setdefault((row["words"], row["update"]), {})
            kinds.setdefault(row["answers"], []).append(row["share"])
    return shares


# ------------------------------------------------------------------ all of it


def main():
    lab = shared.open_lab()
    arms, best, rows = before_updates(lab)
    results = [{**row, "update": "none", "update_seed": 0} for row in rows]
    plan = [(name, seed) for seed in UPDATE_SEEDS for name in UPDATES]
    for name, seed in progress(plan, len(plan), "update"):
        for row in after_update(lab, name, seed, arms, best):
            results.append({**row, "update": name, "update_seed": seed})
    for row in results:
        row["share"] = round(row["share"], 4)
    shared.write_measured("update", results)


if __name__ == "__main__":
    guard(main)
