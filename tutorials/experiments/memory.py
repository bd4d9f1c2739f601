"""How much does a prompt remember? A quarter of an hour.

    python tutorials/experiments/memory.py      memory.csv

flips   K random tokens get an answer each, thrown with a coin: one of two other tokens. There is no
        rule in them, so a prompt has to remember each. It learns all K at once, until more steps
        change little, and is asked for the same K again. Lengths, bases of three widths, a prefix.
list    64 short sentences with their true answers, the first letter of the last word (a rule), and
        with the same answers shuffled among the sentences (a list). Prompts are asked for the same
        64 again, and after the rule also for sentences that they never saw.
"""

import math
import random
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))
import torch
import torch.nn.functional as F
from script import SEEDS, TUTORIALS, arms_of, in_columns, learn, run_script

from softprompt import prefill
from train import FINAL, TASKS, Lab, fit, load_base, measure, new_arm, progress

COLUMNS = (
    "part",
    "base",
    "task",  # flips, the rule, or list
    "method",
    "length",
    "numbers",  # that are learned
    "flips",  # or sentences: how many there are to remember
    "seed",
    "step",
    "split",  # train: asked for the same again
    "loss",  # of flips in the choice between the two answers
    "accuracy",
)


def run(lab):
    """Rows with COLUMNS. The bases of flips are those of this folder."""
    rows = []
    for plan in PLANS:
        model, tok = load_base(TUTORIALS / f"{plan.base}.pt", lab.model.device.type)
        rows += run_flips(Lab(model, tok, lab.data), plan)
    return in_columns(rows + run_list(lab), COLUMNS)


# ------------------------------------------------------------------ flips of a coin

BYTES = 256  # so many tokens at the beginning are single bytes: many of them no sentence has
STEPS, MORE_STEPS = 600, 1800
RATES = {"prompt": 3, "prefix": 0.3}  # in units of the size of what moves


class Plan(NamedTuple):
    """Soft prompts of one kind and length on one base, each with some flips per learned number."""

    base: str
    method: str
    length: int
    flips_per_number: tuple
    steps: int = STEPS


FINE = (1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)
COARSE = (1 / 4, 1 / 2, 1)
PLANS = (
    Plan("base-small", "prompt", 1, FINE),
    Plan("base-small", "prompt", 2, FINE),
    Plan("base-small", "prompt", 4, FINE),
    Plan("base-small", "prompt", 8, COARSE),
    Plan("base-small", "prefix", 1, COARSE),
    Plan("base-tiny", "prompt", 1, FINE),
    Plan("base-tiny", "prompt", 4, COARSE),
    Plan("base", "prompt", 1, FINE),
    Plan("base-small", "prompt", 4, (1 / 2,), MORE_STEPS),
)


class Flip(NamedTuple):
    """A token, the answer that the coin chose, and the other answer: ids."""

    token: int
    right: int
    wrong: int


def coin_flips(lab, K, seed):
    """K different tokens, each with an answer thrown by a coin: [Flip]."""
    coin = random.Random(f"{seed} {K}")
    [heads], [tails] = lab.tok.encode(" h"), lab.tok.encode(" t")
    tokens = coin.sample(range(BYTES, lab.tok.end), K)
    return [Flip(token, *coin.sample((heads, tails), 2)) for token in tokens]


def margins(model, past, flips):
    """By how much the logit of the right answer is above that of the wrong one, (A, K): K flips of
    each arm, arm after arm, behind the row of `past` (A rows) of the arm."""
    tokens, right, wrong = torch.tensor(flips, device=model.device).T  # (A K,) each
    arms = len(past.positions)
    K = len(flips) // arms
    arm = torch.arange(arms, device=model.device).repeat_interleave(K)  # (A K,)
    h, _ = model.hidden(tokens[:, None], past.rows(arm))  # (A K, 1, C)
    table = model.model.embed_tokens.weight  # (V, C)
    difference = (h[:, 0] * (table[right] - table[wrong])).sum(1)  # (A K,)
    return difference.view(arms, K)  # (A, K)


def choice_loss(model, past, flips):
    """The mean loss of each arm in the choice between the two answers, in nats, (A,)."""
    return F.softplus(-margins(model, past, flips)).mean(1)  # (A,)


def flip_arms(lab, method, length, K, seeds=SEEDS):
    """Arms that have K flips to learn, and {the task of an arm: its flips}. Each seed has tokens,
    coins and a start of its own."""
    arms, flips = [], {}
    for seed in seeds:
        task = f"flips {seed}"
        arms.append(new_arm(lab, task, method, "vocab", length, RATES[method], seed))
        flips[task] = coin_flips(lab, K, seed)
    return arms, flips


@torch.inference_mode()
def remembered(lab, arms, flips):
    """[(accuracy, loss)] of each arm on its own flips."""
    past = prefill([arm.soft for arm in arms], lab.model)
    asked = []
    for arm in arms:
        asked += flips[arm.task]
    margin = margins(lab.model, past, asked)  # (A, K)
    accuracies = (margin > 0).float().mean(1)  # (A,)
    losses = F.softplus(-margin).mean(1)  # (A,)
    return list(zip(accuracies.tolist(), losses.tolist()))


def run_flips(lab, plan):
    """The rows of one plan, flips after flips."""
    soft = new_arm(lab, "flips", plan.method, "vocab", plan.length, 1, 0).soft
    numbers, rows = sum(p.numel() for p in soft.parameters()), []
    for share in plan.flips_per_number:
        K = round(share * numbers)
        arms, flips = flip_arms(lab, plan.method, plan.length, K)
        training = fit(lab.model, arms, flips, plan.steps, K, choice_loss)
        for _ in progress(training, plan.steps + 1, f"{plan.base}, {plan.length}, {K} flips"):
            pass
        for arm, (accuracy, loss) in zip(arms, remembered(lab, arms, flips)):
            row = {"part": "flips", "base": plan.base, "task": "flips", "method": plan.method}
            row |= {"length": plan.length, "numbers": numbers, "flips": K, "seed": arm.seed}
            row |= {"step": plan.steps, "split": "train"}
            rows.append({**row, "loss": round(loss, 4), "accuracy": round(accuracy, 4)})
    return rows


def bits_held(row):
    """How many bits of its flips a prompt holds. A flip is one bit. A loss of log 2 nats is a
    guess and holds nothing of it, a loss of 0 all of it."""
    return max(0, row["flips"] * (1 - row["loss"] / math.log(2)))


# ------------------------------------------------------------------ a rule or a list

RULE = "first-letter-last"
SENTENCES, LONGEST = 64, 30  # how many there are, and the characters of the longest
RULE_LENGTHS, LIST_LENGTHS = (1, 16), (1, 4, 16, 64)
LIST_STEPS, LIST_RATE = 400, 3


def run_list(lab):
    """Prompts of several lengths learn the rule, and a list of each seed."""
    short = [sentence for sentence in lab.data["train"] if len(sentence.text) <= LONGEST]
    few = Lab(lab.model, lab.tok, {"train": short[:SENTENCES], "test": lab.data["test"]})
    rule, lists = [], []
    for length in RULE_LENGTHS:
        rule += arms_of(few, RULE, "vocab", LIST_RATE, length=length)
    for seed in SEEDS:
        task = add_list(few, seed)
        for length in LIST_LENGTHS:
            lists += arms_of(few, task, "vocab", LIST_RATE, [seed], length=length)
    for arm in lists:
        arm.columns["task"] = "list"
    for arm in rule + lists:
        arm.columns["numbers"] = arm.soft.embeddings.numel()
    learn(few, rule + lists, LIST_STEPS, "a rule or a list", splits=())
    rows = measure(few, rule + lists, LIST_STEPS, "train", SENTENCES)
    rows += measure(few, rule, LIST_STEPS, "test", FINAL)
    return [{"part": "list", "base": "base", "flips": SENTENCES, **row} for row in rows]


def add_list(lab, seed):
    """A task of this lab's training sentences, whose answers are shuffled among them: its name."""
    sentences, name = lab.data["train"], f"list {seed}"
    answers = [TASKS[RULE].answer(sentence) for sentence in sentences]
    random.Random(seed).shuffle(answers)
    shuffled = {sentence.text: answer for sentence, answer in zip(sentences, answers)}
    TASKS[name] = TASKS[RULE]._replace(
        answer=lambda sentence: shuffled[sentence.text], sweep=None, steps={}
    )
    return name


if __name__ == "__main__":
    run_script("memory", run)
