"""The figures of the classes. A function is named after what it shows; it draws, and computes
nothing. `title` is a question in the class copies and the finding in the solved ones."""

from statistics import mean

from matplotlib import pyplot

import train

LABELS = {
    "none": "no prompt",
    "always": "commonest answer",
    "wording": "best hard prompt",
    "prompt": "prompt tuning",
    "prefix": "prefix tuning",
    "lora": "LoRA",
    "full": "fine-tuning all weights",
}
COLOURS = {**train.COLOURS, "lora": "#CC79A7", "full": "#D55E00"}


def new_axes(title, width=8, height=4, rows=1, columns=1, **shared):
    """The figure under a title, and its axes, (rows, columns)."""
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(width, height), squeeze=False, layout="constrained", **shared
    )
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def level(axis, name, height):
    """A baseline: a dashed line across the axis, with its name at the right end."""
    axis.axhline(height, color=COLOURS[name], ls="--", lw=1)
    style = {"color": COLOURS[name], "fontsize": 8, "va": "bottom", "ha": "right"}
    axis.text(0.99, height, LABELS[name], transform=axis.get_yaxis_transform(), **style)


# ------------------------------------------------------------------ 1: a prompt is a matrix


# ------------------------------------------------------------------ 2: can you read it?


# ------------------------------------------------------------------ 3: attention and what it costs


# ------------------------------------------------------------------ 4: a prefix is a learned cache


# ------------------------------------------------------------------ 5: where to start


# ------------------------------------------------------------------ 6: how long, and how far


# ---------------------------------------------------------------- 7: hundreds of prompts, and scale


# ------------------------------------------------------------------ 8: a real model


WAYS = {  # (how, examples) in measured/tickets.csv: the name below its dots
    ("none", 0): "no prompt",
    ("question", 0): "a question",
    ("named", 0): "answers\nnamed",
    ("shown", 8): "8 solved\nexamples",
    ("shown", 32): "32 solved\nexamples",
    ("prompt", 128): "prompt of 16,\n128 tickets",
    ("prefix", 128): "prefix of 16,\n128 tickets",
}
WORDS = ("question", "named", "shown")  # these have the colour of hard prompts


def dots_and_mean(axis, x, values, colour):
    """The runs as dots, and their mean as a short line with its number."""
    axis.plot([x] * len(values), values, "o", ms=4, alpha=0.5, color=colour)
    axis.hlines(mean(values), x - 0.3, x + 0.3, color=colour, lw=3)
    axis.text(x + 0.33, mean(values), f"{mean(values):.2f}", fontsize=8, va="center", color=colour)


def accuracy_of_words_and_of_learning(runs, always, title):
    """Every way to ask, a dot for each split; beside it the number of solved tickets that a hard
    prompt shows and that a prefix learns from. runs: {(how, examples): [accuracies]}."""
    figure, axes = new_axes(title, 11, 4.2, columns=2, width_ratios=(5, 3), sharey=True)
    left, right = axes[0]
    for x, (how, examples) in enumerate(WAYS):
        colour = COLOURS["wording" if how in WORDS else how]
        dots_and_mean(left, x, runs[how, examples], colour)
    left.set_xticks(range(len(WAYS)), WAYS.values(), fontsize=8)
    level(left, "always", always)
    left.set(xlim=(-0.5, len(WAYS)), ylim=(0.2, 1.02), ylabel="accuracy on 32 test tickets")
    labels = []
    for how, name, kind in (
        ("shown", "shown in\nwords", "wording"),
        ("prefix", "prefix", "prefix"),
    ):
        numbers = sorted(examples for way, examples in runs if way == how)
        for n in numbers:
            values = runs[how, n]
            right.plot([n] * len(values), values, "o", ms=4, alpha=0.5, color=COLOURS[kind])
        means = [mean(runs[how, n]) for n in numbers]
        right.plot(numbers, means, lw=2, color=COLOURS[kind])
        labels.append((means[-1], name, COLOURS[kind]))
    right.set_xscale("log", base=2)
    right.set_xticks((8, 32, 128), ("8", "32", "128"))
    right.set(xlabel="solved tickets", xlim=(6, 170))
    train.label_lines(right, labels)


def accuracy_over_length(runs, title):
    """How much of a list prompts of several lengths store, over training steps: mean and range.
    runs: {(length, step): [accuracies]}."""
    figure, axes = new_axes(title, 8, 4)
    axis, labels = axes[0, 0], []
    lengths = sorted({length for length, _ in runs})
    steps = sorted({step for _, step in runs})
    for length, colour in zip(lengths, ("#E69F00", "#009E73", "#0072B2")):
        at = [runs[length, step] for step in steps]
        axis.fill_between(steps, list(map(min, at)), list(map(max, at)), color=colour, alpha=0.2)
        axis.plot(steps, list(map(mean, at)), color=colour, lw=2)
        labels.append((mean(at[-1]), f"{length} vector{'s' * (length > 1)}", colour))
    axis.axhline(0.5, color=COLOURS["always"], ls="--", lw=1)
    style = {"color": COLOURS["always"], "fontsize": 8, "va": "bottom", "ha": "right"}
    axis.text(0.99, 0.5, "guessing", transform=axis.get_yaxis_transform(), **style)
    axis.set(xlabel="training steps", ylabel="accuracy on the 26 coins", ylim=(0.3, 1.03))
    train.label_lines(axis, labels)


DISTILLED = {"related": "#009E73", "vocab": "#E69F00"}  # by the start of the student


def divergence_over_steps(curves, title):
    """How far students are from their teacher: {start: [[nats, step after step] of each seed]}."""
    figure, axes = new_axes(title, 8, 4)
    axis, labels = axes[0, 0], []
    names = {"related": "the text's\nown start", "vocab": "random\ntokens"}
    for start, name in names.items():
        steps = range(len(curves[start][0]))
        for curve in curves[start]:
            axis.plot(steps, curve, color=DISTILLED[start], lw=0.8, alpha=0.5)
        means = [mean(at) for at in zip(*curves[start])]
        axis.plot(steps, means, color=DISTILLED[start], lw=2.5)
        labels.append((means[-1], name, DISTILLED[start]))
    axis.set_yscale("log")
    axis.set_yticks((0.03, 0.1, 0.3, 1, 3), ("0.03", "0.1", "0.3", "1", "3"))
    axis.minorticks_off()
    axis.set(xlabel="training steps, each with 8 new places", ylabel="nats from the teacher")
    train.label_lines(axis, labels, gap=0.14)


PASTS = {  # what stands before a question: its colour
    "nothing": COLOURS["none"],
    "long text": COLOURS["wording"],
    "its first 16 slots": COLOURS["none"],
    "distilled": DISTILLED["related"],
    "from random tokens": DISTILLED["vocab"],
}


def what_a_distilled_prefix_saves(right, always, costs, title):
    """Accuracy behind each past, a dot a seed: {name: [accuracies]}, and what some of them cost:
    {name: (megabytes, milliseconds)}."""
    figure, axes = new_axes(title, 11, 4, columns=3, width_ratios=(2, 1, 1))
    left, *others = axes[0]
    for x, (name, values) in enumerate(right.items()):
        dots_and_mean(left, x, values, PASTS[name])
    left.set_xticks(range(len(right)), [in_two_lines(name) for name in right], fontsize=8)
    left.set(xlim=(-0.5, len(right)), ylim=(0, 1), ylabel="accuracy on 80 test places")
    level(left, "always", always)
    for axis, column, unit in zip(others, (0, 1), ("MB of cache", "CPU milliseconds a question")):
        for x, (name, cost) in enumerate(costs.items()):
            axis.bar(x, cost[column], color=PASTS[name], alpha=0.6)
            axis.text(x, cost[column], f"{cost[column]:.1f}", ha="center", va="bottom", fontsize=9)
        axis.set_xticks(range(len(costs)), [in_two_lines(name) for name in costs], fontsize=8)
        axis.set(ylabel=unit)


def in_two_lines(name):
    """A name whose second word begins a new line."""
    return name.replace(" ", "\n", 1)
