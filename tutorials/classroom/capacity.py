"""How many coin flips a soft prompt holds: measured/capacity.csv.

    python tutorials/classroom/capacity.py      about ten minutes on one core

K random tokens get an answer each, thrown with a coin: one of two other tokens. There is no rule in
them, so a prompt has to remember every one. It is trained on all K at once, to convergence, and
then asked for the same K again. Five seeds: each has tokens, coins and a start of its own.

Lengths, bases of three widths and a prefix: what decides how many flips are held? Each gets from an
eighth of a flip to one flip for each number that is learned. The rows with more steps than the
others say how much longer training still changes.
"""

import math
import random
from statistics import mean
from typing import NamedTuple

import shared
import torch
import torch.nn.functional as F

from softprompt import prefill
from train import Lab, fit, guard, load_base, new_arm, progress

SEEDS = range(5)
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
    Plan("base-small.pt", "prompt", 1, FINE),
    Plan("base-small.pt", "prompt", 2, FINE),
    Plan("base-small.pt", "prompt", 4, FINE),
    Plan("base-small.pt", "prompt", 8, COARSE),
    Plan("base-small.pt", "prefix", 1, COARSE),
    Plan("base-tiny.pt", "prompt", 1, FINE),
    Plan("base-tiny.pt", "prompt", 4, COARSE),
    Plan("base.pt", "prompt", 1, FINE),
    Plan("base-small.pt", "prompt", 4, (1 / 2,), MORE_STEPS),
)


# ------------------------------------------------------------------ coin flips


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


def flip_arms(lab, method, length, K, seeds):
    """Arms that have K flips to learn, and {the task of an arm: its flips}."""
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


# ------------------------------------------------------------------ how much is held


def curves_of(results, steps=STEPS):
    """{(base, method, length, numbers): {flips: [row of each seed]}}, runs of so many steps."""
    curves = {}
    for row in results:
        if row["steps"] == steps:
            what = row["base"], row["method"], row["length"], row["numbers"]
            curve = curves.setdefault(what, {})
            curve.setdefault(row["flips"], []).append(row)
    return curves


def bits_held(row):
    """How many bits of its flips a prompt holds. A flip is one bit. A loss of log 2 nats is a
    guess and holds nothing of it, a loss of 0 all of it."""
    return max(0, row["flips"] * (1 - row["loss"] / math.log(2)))


def most_bits(curve):
    """Of one curve, {flips: [row of each seed]}: the bits that each seed holds of that number of
    flips of which most are held."""
    return max(([bits_held(row) for row in rows] for rows in curve.values()), key=mean)


# ------------------------------------------------------------------ the table


def numbers_in(soft):
    """How many numbers are learned."""
    return sum(p.numel() for p in soft.parameters())


def measure_flips(lab, plan, K):
    """Rows of results: an arm for each seed, each with K flips of its own."""
    arms, flips = flip_arms(lab, plan.method, plan.length, K, SEEDS)
    title = f"{plan.base}, {plan.method} of {plan.length}, {K} flips"
    training = fit(lab.model, arms, flips, plan.steps, K, choice_loss)
    for _ in progress(training, plan.steps + 1, title):
        pass
    results = []
    for arm, (accuracy, loss) in zip(arms, remembered(lab, arms, flips)):
        row = {"base": plan.base, "width": lab.model.config.n_embd, "method": plan.method}
        row |= {"length": plan.length, "numbers": numbers_in(arm.soft), "flips": K}
        row |= {"steps": plan.steps, "seed": arm.seed}
        results.append({**row, "accuracy": round(accuracy, 4), "loss": round(loss, 4)})
    return results


def main():
    results = []
    for plan in PLANS:
        lab = Lab(*load_base(shared.ROOT / "tutorials" / plan.base, "cpu"), None)
        numbers = numbers_in(new_arm(lab, "", plan.method, "vocab", plan.length, 1, 0).soft)
        for share in plan.flips_per_number:
            results += measure_flips(lab, plan, round(share * numbers))
        shared.write_measured("capacity", results)


if __name__ == "__main__":
    guard(main)
