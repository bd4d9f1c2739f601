"""What does an update of the base do to prompts and to hard prompts? Four minutes.

    python tutorials/experiments/update.py      update.csv

An update is 20 more steps of 32 sentences on tasks that the base practised, asked for in the words
that it practised them in. It has a seed of its own. Five updates differ in their learning rate and
in what is practised; a sixth moves every weight as far as the strong one, in a random direction.
After each of them the four hard prompts of the task never practised are tried, and what their
answers are. After the gentle and the strong one also old prompts and the hard prompts of other
tasks; after the strong one also prompts trained anew.
"""

import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))
import torch
from methods import AllWeights, lab_on_a_copy
from script import SEEDS, arms_of, in_columns, learn, run_script

from train import (
    FINAL,
    TASKS,
    Arm,
    arm_of_tokens,
    bare,
    best_hard_prompt,
    fit,
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
ANEW_SEEDS = (0, 1, 2)  # of the updates after which prompts are trained anew

PROMPT_TASKS = ("library", "count", NEW)
PROMPT_LENGTH, PROMPT_RATE, PROMPT_STEPS = 8, 1.5, 32

# Of which kind a wrong answer is. The question for the first letter of the last word has two parts:
# what is asked of a word, and of which word.
MISTAKES = ("another_word", "another_part", "neither")

COLUMNS = (
    "update",  # none, or one of UPDATES
    "update_seed",
    "task",
    "method",  # wording, old or anew
    "words",  # of a hard prompt
    "seed",  # of a prompt
    "split",
    "accuracy",
    *MISTAKES,  # shares of the answers to a hard prompt of the new task
)


def run(lab):
    """Rows with COLUMNS."""
    arms = train_prompts(lab)
    best = {task: best_hard_prompt(lab, task) for task in PROMPT_TASKS if task != NEW}
    before = new_task_in_words(lab) + other_tasks_in_words(lab, best) + of_prompts(lab, arms, "old")
    rows = [{"update": "none", "update_seed": 0, **row} for row in before]
    plan = [(name, seed) for seed in SEEDS for name in UPDATES]
    for name, seed in progress(plan, len(plan), "update"):
        for row in after_update(lab, name, seed, arms, best):
            rows.append({"update": name, "update_seed": seed, **row})
    return in_columns(rows, COLUMNS)


def after_update(lab, name, seed, arms, best):
    """The rows of one update."""
    moved = updated(lab, name, seed)
    rows = new_task_in_words(moved)
    if name in ("gentle", "strong"):
        rows += other_tasks_in_words(moved, best) + of_prompts(moved, arms, "old")
    if name == "strong" and seed in ANEW_SEEDS:
        rows += of_prompts(moved, train_prompts(moved), "anew")
    return rows


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
        direction = torch.randn(p.shape, generator=generator).to(p.device)
        p += direction * (after - before).norm() / direction.norm()


# ------------------------------------------------------------------ what is measured


def new_task_in_words(lab):
    """Rows for the four hard prompts of the task never practised."""
    rows = []
    for words in TASKS[NEW].hard_prompts:
        [valid] = in_words(lab, NEW, words, "valid")
        [test] = in_words(lab, NEW, words, "test")
        rows += [valid, {**test, **mistakes_of(lab, words)}]
    return rows


def in_words(lab, task, words, split):
    """The row of a hard prompt, in a list."""
    arm = arm_of_tokens(lab, task, lab.tok.encode(words))
    arm.columns = {"method": "wording", "words": words}
    return measure(lab, [arm], 0, split, FINAL)


def mistakes_of(lab, words):
    """{kind of mistake: its share of the answers} of the new task behind this hard prompt."""
    sentences = lab.data["test"][:FINAL]
    questions = [question for question, _ in lab.rows(NEW, "test", FINAL, words)]
    kinds = Counter()
    for first in range(0, len(questions), 60):
        answers = lab.model.generate(questions[first : first + 60], 8, stop=lab.tok.end)
        for sentence, ids in zip(sentences[first:], answers):
            kinds[kind_of_answer(sentence, lab.tok.decode(ids).strip())] += 1
    return {kind: round(kinds[kind] / len(questions), 4) for kind in MISTAKES}


def kind_of_answer(sentence, said):
    """ "right", or which of the MISTAKES an answer is."""
    words = [bare(word) for word in sentence.text.split()]
    last = words[-1]
    if said == last[0]:
        return "right"
    if said in (last, last[-1], str(len(last))):
        return "another_part"
    if said in [word[0] for word in words[:3]]:
        return "another_word"
    return "neither"


def other_tasks_in_words(lab, best):
    """Rows for the hard prompts {task: words} of other tasks."""
    rows = []
    for task, words in best.items():
        rows += in_words(lab, task, words, "test")
    return rows


def train_prompts(lab):
    """Prompts of each of the PROMPT_TASKS, task after task."""
    arms = []
    for task in PROMPT_TASKS:
        arms += arms_of(lab, task, "vocab", PROMPT_RATE, length=PROMPT_LENGTH)
    learn(lab, arms, PROMPT_STEPS, "prompts", splits=())
    return arms


def of_prompts(lab, arms, method):
    """Rows for prompts, on the base of this lab."""
    rows = measure(lab, arms, PROMPT_STEPS, "test", FINAL)
    return [{**row, "method": method} for row in rows]


if __name__ == "__main__":
    run_script("update", run)
