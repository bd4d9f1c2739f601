"""The figures of the classes. A function is named after what it shows; it draws, and computes
nothing. `title` is a question in the class copies and the finding in the solved ones."""

import math
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


def seeds_and_mean(axis, runs, colour, label=None):
    """A line through the means of runs, {x: [a value of each seed]}, and a small dot for a seed."""
    axis.plot(list(runs), [mean(values) for values in runs.values()], "o-", color=colour, lw=2)
    for x, values in runs.items():
        axis.plot([x] * len(values), values, ".", color=colour, alpha=0.4, ms=5)
    if label:
        last, values = list(runs.items())[-1]
        style = {"xytext": (7, 0), "textcoords": "offset points", "va": "center", "fontsize": 9}
        axis.annotate(label, (last, mean(values)), color=colour, weight="bold", **style)


def powers_of_two(axis, values):
    """A logarithmic x axis with ticks at these values."""
    axis.set_xscale("log", base=2)
    axis.set_xticks(values, [f"{value:g}" for value in values])
    axis.minorticks_off()


def accuracy_over_length(points, seeds, levels, questions, title):
    """A panel for each task. points: {task: {length: (mean accuracy, error)}}; seeds: {task:
    {length: [accuracy of each seed]}}; levels: {task: {name of what needs no training: accuracy}};
    questions: {task: what it asks}."""
    _, axes = new_axes(title, 12, 4.2, columns=len(points), sharey=True)
    for axis, (task, line) in zip(axes[0], points.items()):
        colour = COLOURS[task]
        means, errors = zip(*line.values())
        axis.errorbar(list(line), means, errors, fmt="o-", color=colour, lw=2, elinewidth=1)
        for length, accuracies in seeds[task].items():
            axis.plot([length] * len(accuracies), accuracies, ".", color="black", ms=4, zorder=5)
        for name, height in levels[task].items():
            level(axis, name, height)
        powers_of_two(axis, list(line))
        axis.set_title(f"{task}: {questions[task]}", fontsize=10, color=colour)
        axis.set_xlabel("vectors (dot: a seed; bar: one standard error)")
        axis.set_ylim(0, 1.03)
    axes[0, 0].set_ylabel("accuracy on the test sentences")


LENGTH_COLOURS = {1: "#0072B2", 2: "#009E73", 4: "#E69F00", 8: "#D55E00"}


def flips_by_length(curves, live, title):
    """The same runs twice: over the flips, and over the flips for each vector. curves: {length:
    {flips: [accuracy of each seed]}}; live: {flips: accuracy} of a prompt of one vector."""
    _, axes = new_axes(title, 12, 4.2, columns=2, sharey=True)
    for length, runs in curves.items():
        colour = LENGTH_COLOURS[length]
        label = f"{length} vector{'s' if length > 1 else ''}"
        seeds_and_mean(axes[0, 0], runs, colour, label)
        of_each = {flips / length: values for flips, values in runs.items()}
        seeds_and_mean(axes[0, 1], of_each, colour)
    for axis in axes[0]:
        axis.plot(list(live), list(live.values()), "x", color="black", ms=9, mew=2, zorder=5)
        axis.axhline(0.5, color="0.6", ls="--", lw=1)
        axis.text(0.01, 0.505, "guessing", color="0.4", transform=axis.get_yaxis_transform())
        axis.set_ylim(0.45, 1.02)
    powers_of_two(axes[0, 0], [8, 16, 32, 64, 128, 256, 512])
    powers_of_two(axes[0, 1], [8, 16, 32, 64])
    axes[0, 0].set_xlabel("coin flips to learn (cross: trained just now)")
    axes[0, 1].set_xlabel("coin flips for each vector")
    axes[0, 0].set_ylabel("accuracy on the same flips")


FLIP_LABELS = {  # of a base and a method
    ("base.pt", "prompt"): ("prompt, 128 numbers a vector", COLOURS["prompt"]),
    ("base-small.pt", "prompt"): ("prompts, 64 numbers a vector", "#0072B2"),
    ("base-tiny.pt", "prompt"): ("prompts, 24 numbers a vector", "#CC79A7"),
    ("base-small.pt", "prefix"): ("prefix of one vector", COLOURS["prefix"]),
}


def bits_over_numbers(most, title):
    """How many bits are held over how many numbers are learned. most: {(base, method, length,
    numbers): [bits of each seed]}; beside them, lines of one bit for two and for four numbers."""
    _, [[axis]] = new_axes(title, 9, 4.6)
    numbers = sorted({key[-1] for key in most})
    ends = [numbers[0] / 1.2, numbers[-1] * 1.2]
    for share, text in ((2, "one bit for\ntwo numbers"), (4, "one bit for\nfour numbers")):
        axis.plot(ends, [end / share for end in ends], color="0.75", lw=1)
        axis.text(ends[-1] * 1.05, ends[-1] / share, text, color="0.4", va="center", fontsize=9)
    for (base, method, _, count), bits in most.items():
        colour = FLIP_LABELS[base, method][1]
        axis.plot([count] * len(bits), bits, ".", color=colour, alpha=0.4, ms=5)
        axis.plot(count, mean(bits), "o", color=colour, ms=9)
    for place, (text, colour) in enumerate(FLIP_LABELS.values()):
        style = {"color": colour, "weight": "bold", "va": "top", "transform": axis.transAxes}
        axis.text(0.03, 0.97 - 0.08 * place, text, **style)
    powers_of_two(axis, numbers)
    axis.set_yscale("log", base=2)
    axis.set_yticks([8, 16, 32, 64, 128], ["8", "16", "32", "64", "128"])
    axis.minorticks_off()
    axis.set_xlabel("numbers that are learned (small dot: a seed)")
    axis.set_ylabel("bits held, at most")


def rule_beside_list(runs, common, title):
    """runs: {"true" or "shuffled": {length: [accuracy of each seed]}}; `common`: the commonest
    answer's share."""
    _, [[axis]] = new_axes(title, 8, 4)
    seeds_and_mean(axis, runs["true"], COLOURS["prompt"], "true answers:\na rule")
    seeds_and_mean(axis, runs["shuffled"], "#D55E00", "shuffled:\na list")
    level(axis, "always", common)
    powers_of_two(axis, list(runs["shuffled"]))
    axis.set_ylim(0, 1.03)
    axis.set_xlabel("vectors (small dot: a seed)")
    axis.set_ylabel("accuracy on the same 64 sentences")


def masks_beside(masks, P, title):
    """Which key each text token sees: {name: mask (T, P + T)}. The prompt's keys in colour."""
    _, axes = new_axes(title, 9, 4.6, columns=len(masks), sharey=True)
    for axis, (name, mask) in zip(axes[0], masks.items()):
        T, S = mask.shape
        for t, k in mask.nonzero().tolist():
            colour = COLOURS["prompt"] if k < P else "0.75"
            box = pyplot.Rectangle((k - 0.5, t - 0.5), 1, 1, facecolor=colour, edgecolor="white")
            axis.add_patch(box)
        axis.set(xlim=(-0.5, S - 0.5), ylim=(T - 0.5, -0.5), xticks=range(S), yticks=range(T))
        axis.set(xlabel=f"key (0 to {P - 1}: the prompt)", title=name, aspect="equal")
    axes[0, 0].set_ylabel("text token that asks")


def accuracy_far_away(curves, common, title):
    """curves: {(kind, how): {tokens between: (mean accuracy, error)}}, where kind is "prompt" or
    "wording" and how is "pinned" or "sliding"."""
    _, [[axis]] = new_axes(title, 9, 4.2)
    labels = []
    for (kind, how), line in curves.items():
        means, errors = zip(*line.values())
        style = "o-" if how == "pinned" else "s:"
        axis.errorbar(list(line), means, errors, fmt=style, color=COLOURS[kind], lw=2, elinewidth=1)
        labels.append((means[-1], f"{NAMES_FAR_AWAY[kind]}, {how}", COLOURS[kind]))
    level(axis, "always", common)
    axis.set_ylim(-0.03, 1.03)
    axis.set_xlabel("tokens of other text between prompt and question")
    axis.set_ylabel("accuracy on the test sentences")
    train.label_lines(axis, labels)


NAMES_FAR_AWAY = {"prompt": "prompt of 16 vectors", "wording": "best hard prompt"}
DISTANCE_COLOURS = ("#56B4E9", "#0072B2", "#000000")


def who_must_see(by_seen, by_reader, title):
    """by_seen: {tokens between: {vectors that the arrow still sees: accuracy}}; by_reader: {who
    sees the prompt: [accuracy of each seed]}."""
    _, axes = new_axes(title, 12, 4.2, columns=2, sharey=True, width_ratios=[1.3, 1])
    left, right = axes[0]
    for (n, line), colour in zip(by_seen.items(), DISTANCE_COLOURS):
        left.plot(list(line), list(line.values()), "o-", color=colour, label=f"{n} tokens between")
    left.legend(frameon=False)
    left.set_xlabel("vectors that the arrow still sees, of 16")
    left.set_ylabel("accuracy")
    left.set_ylim(-0.03, 1.03)
    for place, accuracies in enumerate(by_reader.values()):
        right.bar(place, mean(accuracies), color=COLOURS["prompt"], alpha=0.5, width=0.6)
        right.plot([place] * len(accuracies), accuracies, ".", color="black", ms=5)
    right.set_xticks(range(len(by_reader)), list(by_reader))
    right.set_xlabel("who sees the prompt (dot: a seed)")


def sizes_of_gradients(sizes, title):
    """How strongly text token t depends on virtual token j: {name: size (T, P)}; white is exactly
    zero."""
    figure, axes = new_axes(title, 10, 2.9, columns=len(sizes), sharey=True)
    for axis, (name, size) in zip(axes[0], sizes.items()):
        logarithm = size.where(size > 0, math.nan).log10()  # (T, P)
        image = axis.imshow(logarithm.T, cmap="viridis", vmin=-2.5, vmax=0.5)
        axis.set(title=name, xlabel="text token", xticks=range(len(size)), yticks=range(3))
    axes[0, 0].set_ylabel("virtual token")
    figure.colorbar(image, ax=axes, label="log10 of the size")


# ---------------------------------------------------------------- 7: hundreds of prompts, and scale


# ------------------------------------------------------------------ 8: a real model
