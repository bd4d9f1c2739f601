"""The figures of the classes. A function is named after what it shows; it draws, and computes
nothing. `title` is a question in the class copies and the finding in the solved ones."""

from statistics import mean, median

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


def slots_of_a_batch(kinds, positions, title):
    """kinds: "prompt" or "prefix" of each row; positions: of its slots, -1 where one is empty. A
    line for each row of the batch."""
    figure, axes = new_axes(title, 8.5, 4.6)
    axis = axes[0, 0]
    for row, (kind, places) in enumerate(zip(kinds, positions)):
        filled = sum(place >= 0 for place in places)
        axis.barh(row, len(places), height=1, color="0.93")
        axis.barh(row, filled, height=1, color=COLOURS[kind])
    rows, slots = len(positions), len(positions[0])
    beside = {"va": "center", "weight": "bold", "fontsize": 9}
    for height, kind in ((0.85, "prompt"), (0.5, "prefix")):
        place = (1.02, height)
        axis.text(*place, kind, transform=axis.transAxes, color=COLOURS[kind], **beside)
    axis.text(1.02, 0.15, "empty:\nposition -1", transform=axis.transAxes, color="0.5", **beside)
    axis.set(xlim=(0, slots), ylim=(rows - 0.5, -0.5), xticks=range(0, slots + 1, 4))
    axis.set(xlabel="slots of the past; the text stands behind them", ylabel="row of the batch")


UPDATE_LABELS = {"none": "before", "gentle": "gentle", "strong": "strong"}
PROMPT_LABELS = {"old": "old prompts", "anew": "trained anew", "wording": "hard prompt"}
PROMPT_COLOURS = {
    "old": COLOURS["prompt"],
    "anew": COLOURS["prefix"],
    "wording": COLOURS["wording"],
}


def after_an_update(shares, always, title):
    """shares: {(task, update, method): [accuracy of each run]}; always: {task: accuracy}. Dots are
    runs, a bar is their median."""
    tasks = list(always)
    figure, axes = new_axes(title, 10, 4.2, columns=len(tasks), sharey=True)
    aside = {"wording": -0.25, "old": 0, "anew": 0.25}
    for axis, task in zip(axes[0], tasks):
        for (of_task, update, method), values in shares.items():
            if of_task == task:
                x = list(UPDATE_LABELS).index(update) + aside[method]
                colour = PROMPT_COLOURS[method]
                beside = [x + 0.16 * (i / len(values) - 0.5) for i in range(len(values))]
                axis.plot(beside, values, ".", color=colour, alpha=0.5, ms=6)
                axis.plot(x, median(values), "_", color=colour, ms=20, mew=3)
        level(axis, "always", always[task])
        axis.set_title(train.TASKS[task].question, fontsize=10)
        axis.set(xlim=(-0.6, 2.6), ylim=(0, 1.03))
        axis.set_xticks(range(3), UPDATE_LABELS.values())
        axis.set_xlabel("the base, before and after an update")
    axes[0, 0].set_ylabel("accuracy on the test sentences\n(bar: median; dot: a run)")
    for place, (method, text) in enumerate(PROMPT_LABELS.items()):
        style = {"color": PROMPT_COLOURS[method], "weight": "bold", "fontsize": 9}
        axis.text(1.03, 0.7 - 0.1 * place, text, transform=axis.transAxes, **style)


UPDATES_SAID = {"none": "before", "strong": "strong: all tasks", "gentle": "gentle: all tasks"}
ANSWERS = {
    "right": COLOURS["prompt"],
    "first letter of another word": "#56B4E9",
    "something else of the last word": "#CC79A7",
    "neither": "0.85",
}


def answers_to_hard_prompts(shares, title):
    """shares: {(words, update): {kind of answer: [share of each seed]}}. A panel for each hard
    prompt, a bar for each update: means of the seeds."""
    wordings = list(dict.fromkeys(words for words, _ in shares))
    updates = list(dict.fromkeys(update for _, update in shares))
    figure, axes = new_axes(title, 11, 6.4, rows=2, columns=2, sharex=True, sharey=True)
    for axis, words in zip(axes.flat, wordings):
        for y, update in enumerate(updates):
            left = 0
            for kind, colour in ANSWERS.items():
                share = mean(shares[words, update][kind])
                axis.barh(y, share, left=left, color=colour, height=0.75)
                left += share
            seeds = shares[words, update]["right"]
            axis.plot(seeds, [y] * len(seeds), "k.", ms=4)
            style = {"color": ANSWERS["right"], "weight": "bold", "va": "center", "fontsize": 9}
            axis.text(1.02, y, f"{mean(seeds):.2f}", **style)
        axis.set_title(f'"{words}"', fontsize=10)
        axis.set_yticks(range(len(updates)), [UPDATES_SAID.get(name, name) for name in updates])
        axis.set(xlim=(0, 1), ylim=(len(updates) - 0.5, -0.5))
    for axis in axes[1]:
        axis.set_xlabel("share of the answers to the test sentences (dots: right, a seed)")
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=colour) for colour in ANSWERS.values()]
    figure.legend(handles, ANSWERS, loc="outside lower center", ncol=4, frameon=False)


def size_said(numbers):
    """62 thousand, 1 million"""
    if numbers < 10**6:
        return f"{numbers / 1000:.0f} thousand"
    return f"{numbers / 10**6:.0f} million"


def accuracy_over_size(sizes, accuracies, always, title):
    """sizes: numbers in each base; accuracies: {(task, method): [[of each seed] of each base]};
    always: {task: accuracy}. Lines: medians. Between a prompt and all weights the gap is grey."""
    figure, axes = new_axes(title, 11, 4.4, columns=len(always), sharey=True)
    for axis, task in zip(axes[0], always):
        labels, middles = [], {}
        for (of_task, method), of_bases in accuracies.items():
            if of_task == task:
                middles[method] = [median(seeds) for seeds in of_bases]
                colour, width = COLOURS[method], 3 if method in ("prompt", "full") else 1.2
                axis.plot(sizes, middles[method], "o-", color=colour, lw=width)
                for size, seeds in zip(sizes, of_bases):
                    axis.plot([size] * len(seeds), seeds, ".", color=colour, alpha=0.5, ms=5)
                labels.append((middles[method][-1], LABELS[method], colour))
        axis.fill_between(sizes, middles["prompt"], middles["full"], color="0.85", zorder=0)
        level(axis, "always", always[task])
        size_axis(axis, sizes)
        axis.set_ylim(-0.03, 1.03)
        axis.set_title(train.TASKS[task].question, fontsize=10)
    train.label_lines(axis, labels)
    axes[0, 0].set_ylabel("accuracy on the test sentences\n(line: median; small dot: a seed)")


def size_axis(axis, sizes):
    axis.set_xscale("log")
    axis.set_xticks(sizes, [size_said(numbers).replace(" ", "\n") for numbers in sizes])
    axis.minorticks_off()
    axis.set_xlabel("numbers in the base")


def gap_over_size(sizes, gaps, closed, title):
    """gaps: {task: [[all weights minus prompt, of each seed] of each base]}; closed: {task: [of
    each base, the part of the way from hard prompt to all weights that a prompt goes, or None]}."""
    figure, axes = new_axes(title, 10, 4.4, columns=2)
    gap, way = axes[0]
    for axis, heights in ((gap, [0]), (way, [0, 1])):
        size_axis(axis, sizes)
        for height in heights:
            axis.axhline(height, color="black", lw=1)
    labels, ways = [], []
    for place, (task, of_bases) in enumerate(gaps.items()):
        colour, question = GAP_COLOURS[task], train.TASKS[task].question
        x = [size * 1.06 ** (place - 1) for size in sizes]  # a little apart
        middles = [median(seeds) for seeds in of_bases]
        gap.plot(x, middles, "o-", color=colour, lw=3)
        for size, seeds in zip(x, of_bases):
            gap.plot([size] * len(seeds), seeds, ".", color=colour, alpha=0.5)
        labels.append((middles[-1], question, colour))
        shown = [(size, part) for size, part in zip(sizes, closed[task]) if part is not None]
        if shown:
            way.plot(*zip(*shown), "o-", color=colour, lw=3)
            ways.append((shown[-1][1], question, colour))
        else:
            style = {"color": colour, "weight": "bold", "fontsize": 9}
            way.text(1.03, 0.05, f"no gap: {question}", transform=way.transAxes, **style)
    gap.set_ylabel("accuracy: all weights minus prompt\n(line: median; small dot: a seed)")
    way.set_ylabel("part of the way from the best hard prompt\nto all weights that a prompt goes")
    for axis, texts in ((gap, labels), (way, ways)):
        axis.set_ylim(axis.get_ylim())  # all is drawn: the labels need the limits
        train.label_lines(axis, texts, gap=0.08)


GAP_COLOURS = {
    "library": COLOURS["library"],
    "first-letter-last": COLOURS["first-letter-last"],
    "before-last": COLOURS["full"],
}


MARKS = {"base-small": "o", "base-small-lm": "v"}


def with_and_without_practice(accuracies, always, title):
    """accuracies: {(base, task, method): [of each seed]} of two bases of one size; always: {task:
    accuracy}. Circles: the base practised tasks. Triangles: it did not."""
    figure, axes = new_axes(title, 10, 4, columns=len(always), sharey=True)
    methods = list(dict.fromkeys(method for _, _, method in accuracies))
    for axis, task in zip(axes[0], always):
        for (base, of_task, method), seeds in accuracies.items():
            if of_task == task:
                x, colour = methods.index(method), COLOURS[method]
                fill = colour if base == "base-small" else "white"
                look = {"color": colour, "mfc": fill, "ms": 10}
                axis.plot(x, median(seeds), MARKS[base], **look)
                axis.plot([x + 0.2] * len(seeds), seeds, MARKS[base], **{**look, "ms": 3})
        level(axis, "always", always[task])
        axis.set_title(train.TASKS[task].question, fontsize=10)
        axis.set(xlim=(-0.5, len(methods) - 0.5), ylim=(-0.03, 1.03))
        names = [LABELS[method].replace(" ", "\n") for method in methods]
        axis.set_xticks(range(len(methods)), names)
    axes[0, 0].set_ylabel("accuracy on the test sentences")
    said = (
        "filled circle: the small base practised tasks;   open triangle: it learned language alone;"
        "   large: median, small: a seed"
    )
    figure.supxlabel(said, fontsize=9, color="0.4")


# ------------------------------------------------------------------ 8: a real model
