"""Prompt, prefix, LoRA or new weights: which learns what, as the base grows? Forty minutes.

    python tutorials/experiments/methods.py      methods.csv, tutorials/figures/methods.png

Three tasks: one that the bases practised (library), one of which they practised the parts
(first-letter-last), one outside of all that they practised (before-last). Each way tries its
learning rates with seeds of their own; the rate with the least validation loss goes into the race
of five other seeds. Race and search stand in one table: the race has the rows of test sentences and
those of the curves, the search has seeds from 100 on.

What needs no training stands there too, for more tasks: what a hard prompt does as the base grows.
`base-small-lm` read the same texts as `base-small` and practised no task.
"""

import sys
from collections.abc import Callable
from copy import copy, deepcopy
from pathlib import Path
from statistics import mean
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))
import torch
import torch.nn as nn
from script import LOOKS, SEEDS, TUTORIALS, best_rate, in_columns, learn, run_script

from softprompt import PrefixMLP, PrefixTuning, PromptTuning, past_of_states
from train import FINAL, LENGTH_RATES, STARTS, TASKS, Arm, Lab, load_base, panels, untrained, where

# ------------------------------------------------------------------ what changes the base itself


class InsideBase(nn.Module):
    """What is trained inside of the base: nothing comes before the text.

    To `train.fit` and `train.measure` it is a soft prompt with an empty past. It changes what its
    model computes, so each needs a copy of the base of its own, see `lab_on_a_copy`.
    """

    kind = "weights"

    def past(self, model, pinned=True):
        """The Past of one row without slots."""
        return model.empty_past()


class AllWeights(InsideBase):
    """Fine-tuning all weights of the model that is given."""

    def __init__(self, model):
        super().__init__()
        self.model = model.requires_grad_(True)


class LoRA(InsideBase):
    """LoRA (Hu et al. 2021, arXiv 2106.09685) inside of the model that is given: every attention
    projection W becomes W + 2 up down, with down (rank, in) and up (out, rank). The paper calls
    them A and B. `up` starts at zero, so that the model starts as it is."""

    def __init__(self, model, seed=0, rank=4):
        super().__init__()
        self.down, self.up = nn.ParameterList(), nn.ParameterList()
        generator = torch.Generator().manual_seed(seed)
        for linear in attention_projections(model):
            size = linear.in_features
            down = torch.randn(rank, size, generator=generator) / size**0.5  # (rank, in)
            up = torch.zeros(linear.out_features, rank)  # (out, rank)
            down, up = nn.Parameter(down.to(model.device)), nn.Parameter(up.to(model.device))
            linear.register_forward_hook(added_to_output(down, up))
            self.down.append(down)
            self.up.append(up)


def attention_projections(model):
    """The linear layers of attention: of each layer those of queries, keys, values and output."""
    projections = []
    for block in model.model.layers:
        projections += block.self_attn.children()
    return projections


def added_to_output(down, up):
    """The hook of a linear layer that adds 2 up down x to what it makes of x."""

    def hook(linear, inputs, output):
        [x] = inputs  # (B, T, in)
        return output + 2 * x @ down.T @ up.T  # (B, T, out)

    return hook


def lab_on_a_copy(lab):
    """The same lab with a copy of the base, which may be changed."""
    other = copy(lab)
    other.model = deepcopy(lab.model)
    return other


# ------------------------------------------------------------------ the ways


class AtOneRate(nn.Module):
    """A prefix whose numbers all move at one absolute rate, in whatever layer they are: to
    `train.sizes` this is no prefix."""

    kind = "prefix"

    def __init__(self, prefix):
        super().__init__()
        self.keys, self.values, self.length = prefix.keys, prefix.values, prefix.length

    def past(self, model, pinned=True):
        """As `PromptTuning.past`."""
        return past_of_states(self.keys, self.values, model, pinned)


class Method(NamedTuple):
    """A way to tell the base what to do."""

    label: str  # with the length, in virtual tokens
    colour: str
    start: Callable  # (model, embeddings (P, C), seed) -> what is trained


METHODS = {
    "prompt": Method(
        "prompt of {}",
        LOOKS["prompt"].colour,
        lambda model, embeddings, seed: PromptTuning(embeddings),
    ),
    "prefix": Method(
        "prefix of {}",
        LOOKS["prefix"].colour,
        lambda model, embeddings, seed: PrefixTuning.start(model, embeddings),
    ),
    "prefix, one rate": Method(
        "prefix of {}, one rate",
        "#AA7744",
        lambda model, embeddings, seed: AtOneRate(PrefixTuning.start(model, embeddings)),
    ),
    "prefix, MLP": Method(
        "prefix of {}, MLP",
        "#DDAA77",
        lambda model, embeddings, seed: PrefixMLP.start(model, embeddings),
    ),
    "lora": Method("LoRA", LOOKS["lora"].colour, lambda model, embeddings, seed: LoRA(model, seed)),
    "full": Method(
        "all weights", LOOKS["full"].colour, lambda model, embeddings, seed: AllWeights(model)
    ),
}
INSIDE = ("lora", "full")  # what changes the base


def labs_and_arms(lab, task, way, rates, seeds):
    """[(a lab, the arms that train in it as one batch)] of one way, (method, length)."""
    pairs = [(rate, seed) for rate in rates for seed in seeds]
    if way[0] not in INSIDE:
        return [(lab, [arm_of(lab, task, way, *pair) for pair in pairs])]
    alone = []
    for pair in pairs:
        own = lab_on_a_copy(lab)
        alone.append((own, [arm_of(own, task, way, *pair)]))
    return alone


def arm_of(lab, task, way, rate, seed):
    """An arm of a way. What changes the base needs a lab on a copy."""
    method, length = way
    generator = torch.Generator().manual_seed(seed)
    embeddings = STARTS["vocab"].embeddings(lab, task, length, generator)  # (P, C)
    torch.manual_seed(seed)  # of an MLP's weights
    soft = METHODS[method].start(lab.model, embeddings, seed)
    columns = {"method": method, "length": length, "numbers": numbers_in(soft), "rate": rate}
    return Arm(soft, task, rate, seed, columns)


def numbers_in(soft):
    """How many numbers are trained."""
    return sum(p.numel() for p in soft.parameters())


# ------------------------------------------------------------------ the plan


class Race(NamedTuple):
    """Ways that race on a task."""

    base: str
    task: str
    steps: int
    rates: dict  # {(method, length): the learning rates that are tried}; one is not tried
    searched: tuple = (100, 101)  # the seeds that choose a rate
    looks: tuple = ()  # steps of the curves


# Rates of prompts and prefixes are in units of `train.sizes`, the others are absolute.
CHANGES = {("lora", 0): (3e-3, 1e-2, 3e-2), ("full", 0): (3e-4, 1e-3, 3e-3)}
SOFT = {
    ("prompt", 28): (1, 3, 9, 27),
    ("prompt", 112): (1, 3, 9, 27, 81),
    ("prefix", 28): (0.1, 0.3, 0.9),
}
THREE_PREFIXES = {
    ("prefix, one rate", 28): (0.03, 0.1, 0.3, 0.9),
    ("prefix, MLP", 28): (0.001, 0.003, 0.01, 0.03),
}
SHORT = {("prompt", 16): (0.3, 1, 3), ("prefix", 16): (0.03, 0.1, 0.3)}

EVERY_WAY = {**SOFT, **THREE_PREFIXES, **CHANGES}
LONGER = {("prefix", 28): (0.3,), ("lora", 0): (0.01,)}  # as chosen for 64 steps
FACTS = {way: (LENGTH_RATES[way[0]],) for way in SOFT}  # as in the main job
LOOKS = (0, 1, 2, 4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64)

BASES = ("base-tiny", "base-small", "base", "base-small-lm")
RACES = [
    Race("base", "library", 16, SOFT),  # the others stand among SHORT
    Race("base", "first-letter-last", 64, EVERY_WAY, looks=LOOKS),
    Race("base", "before-last", 64, EVERY_WAY),
    Race("base", "before-last", 256, LONGER),
    Race("base", "swap-4", 160, FACTS),
]
for base in BASES:
    for task, steps in (("library", 16), ("first-letter-last", 48), ("before-last", 48)):
        RACES.append(Race(base, task, steps, {**SHORT, **CHANGES}, searched=(100,)))

IN_WORDS = (  # tasks for which hard prompts are tried on each base
    "library",
    "kind",
    "count",
    "repeat-second",
    "first-letter-last",
    "letters-third",
    "before-last",
)
COLUMNS = (
    "base",
    "task",
    "method",  # none, wording and always are not trained
    "length",
    "numbers",  # that are trained
    "rate",
    "seed",
    "step",
    "split",
    "loss",
    "accuracy",
)

# ------------------------------------------------------------------ the experiment


def run(lab):
    """Rows with COLUMNS. The bases are those of this folder; the lab gives the sentences."""
    labs, rows = {}, []
    for base in BASES:
        model, tok = load_base(TUTORIALS / f"{base}.pt", lab.model.device.type)
        labs[base] = Lab(model, tok, lab.data)
        for task in IN_WORDS:
            rows += [{"base": base, **row} for row in untrained(labs[base], task)]
    for entry in RACES:
        for way in entry.rates:
            rows += race(labs[entry.base], entry, way)
    return in_columns(rows, COLUMNS)


def race(lab, entry, way):
    """The rows of one way: those of the search, where more than one rate is tried, and those of the
    race."""
    rates, rows = entry.rates[way], []
    if len(rates) > 1:
        rows = learn_way(lab, entry, way, rates, entry.searched, ("valid",))
        rates = [best_rate(rows)]
    return rows + learn_way(lab, entry, way, rates, SEEDS, ("test",), entry.looks)


def learn_way(lab, entry, way, rates, seeds, splits, looks=()):
    """The rows of one way at these rates and seeds."""
    rows, title = [], f"{entry.base}, {entry.task}, {entry.steps} steps, {way[0]} {way[1]}"
    for own, arms in labs_and_arms(lab, entry.task, way, rates, seeds):
        rows += learn(own, arms, entry.steps, title, splits, looks)
    return [{"base": entry.base, **row} for row in rows]


# ------------------------------------------------------------------ the picture

UNTRAINED = {"none": "no prompt", "wording": "best hard prompt"}
SHOWN = [("none", 0), ("wording", 0), *SOFT, *CHANGES]


def draw(rows):
    """A panel for each task: the accuracy of each way on test sentences, on the largest base."""
    rows = where(rows, base="base", split="test")
    figure, axes = panels(3, width=4, height=5)
    for axis, entry in zip(axes, RACES):
        task = TASKS[entry.task]
        axis.set_title(f"{task.label}:\n{task.question}", fontsize=11)
        axis.set_xlabel(f"accuracy after {entry.steps} steps")
        [always] = where(rows, task=entry.task, method="always")
        axis.axvline(always["accuracy"], color="0.7", ls="--", zorder=0)
        for y, (method, length) in enumerate(SHOWN):
            step = 0 if method in UNTRAINED else entry.steps
            way = {"task": entry.task, "method": method, "length": length, "step": step}
            seeds = [row["accuracy"] for row in where(rows, **way)]
            colour = (METHODS.get(method) or LOOKS[method]).colour
            axis.plot(seeds, [y + 0.2] * len(seeds), ".", color=colour, alpha=0.5, ms=4)
            axis.plot(mean(seeds), y, "o", color=colour)
            axis.annotate(f"{mean(seeds):.2f}", (mean(seeds), y - 0.15), ha="center")
    axes[0].set_xlim(-0.06, 1.06)
    axes[0].set_ylim(len(SHOWN) - 0.5, -0.7)  # the first on top
    axes[0].set_yticks(range(len(SHOWN)), [label_of(rows, *way) for way in SHOWN])
    figure.suptitle("Accuracy of each way, and how many numbers it trains")
    said = (
        f"{FINAL} test sentences · large dot: mean · small dot: a seed · dashed: commonest answer"
    )
    figure.supxlabel(said, fontsize=9)
    return figure


def label_of(rows, method, length):
    """What the picture calls a way."""
    if method in UNTRAINED:
        return UNTRAINED[method]
    numbers = where(rows, method=method, length=length)[0]["numbers"]
    return f"{METHODS[method].label.format(length)}\n{numbers:,} numbers"


if __name__ == "__main__":
    run_script("methods", run, draw)
