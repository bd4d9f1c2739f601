"""The figures of the classes. A function is named after what it shows; it draws, and computes
nothing. `title` is a question in the class copies and the finding in the solved ones."""

import math
from statistics import median

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


def loss_at_two_rates(steps, curves, threshold, title):
    """curves: {(start, rate): [losses of each seed]}. A panel for each rate."""
    rates = list(dict.fromkeys(rate for _, rate in curves))
    figure, axes = new_axes(title, 9.5, 4, columns=len(rates), sharey=True)
    for axis, rate in zip(axes[0], rates):
        axis.axhline(threshold, color="black", ls="--", lw=1)
        axis.set_title(f"rate {rate:g}")
        axis.set_yscale("log")
        axis.set_yticks([0.05, 0.1, 0.5, 1, 2, 5], ["0.05", "0.1", "0.5", "1", "2", "5"])
        axis.minorticks_off()
        axis.set_xlabel("training steps")
        labels = []
        for (start, of_rate), seeds in curves.items():
            if of_rate == rate:
                for losses in seeds:
                    axis.plot(steps, losses, color=COLOURS[start], lw=2)
                labels.append((max(losses[-1] for losses in seeds), start))
        names = [(end, train.STARTS[start].label, COLOURS[start]) for end, start in labels]
        train.label_lines(axis, names, gap=0.08)
        axis.text(steps[-1], threshold, "threshold", va="bottom", ha="right", fontsize=9)
    axes[0, 0].set_ylabel("validation loss (nats a token)\none line a seed")


def steps_over_rate(needed, live, last, task, title):
    """needed: {(start, rate): [steps of each seed]}, as train.py draws it; live: the same of the
    arms that were trained in the notebook, as rings."""
    figure, axes = new_axes(title, 9, 5.4)
    axis = axes[0, 0]
    train.draw_steps_over_rate(axis, needed, last, task)
    starts = list(dict.fromkeys(start for start, _ in needed))
    for (start, rate), seeds in live.items():
        heights = [train.height_of(steps, last) for steps in seeds]
        aside = 0.04 * (starts.index(start) - (len(starts) - 1) / 2)  # as draw_steps_over_rate
        ring = {"mfc": "none", "mec": COLOURS[start], "mew": 1.5, "ms": 11, "ls": "none"}
        axis.plot([rate * 2**aside] * len(heights), heights, "o", **ring)
    axis.text(0.99, 0.97, "rings: trained just now", transform=axis.transAxes, ha="right", va="top")


TURN = 2.399963  # the golden angle: dots one after another spread evenly around the middle


def around_the_middle(distances):
    """Places x and y at these distances from the middle, in directions that mean nothing."""
    places = [(float(r), TURN * i) for i, r in enumerate(distances)]
    return [r * math.cos(turn) for r, turn in places], [r * math.sin(turn) for r, turn in places]


def cloud_and_noise(lengths, step_length, turned, title):
    """lengths: {"vocab" and "normal": of their vectors}; step_length: {rate: how far a step goes};
    turned: {(start, rate): degrees by which the step turns a vector}. Lengths are true."""
    figure, axes = new_axes(title, 10, 5.2, columns=2)
    for axis, reach in zip(axes[0], (13.5, 1.5)):
        axis.set_aspect("equal")
        axis.set_xlim(-reach, reach)
        axis.set_ylim(-reach, reach)
        axis.axis("off")
        for start, size in (("vocab", 3), ("normal", 14)):
            axis.scatter(*around_the_middle(lengths[start]), s=size, color=COLOURS[start], lw=0)
    far = float(lengths["normal"].mean())
    near = float(lengths["vocab"].mean())
    whole, middle = axes[0]
    draw_turn(whole, far, 8, step_length[8], turned["normal", 8])
    draw_turn(whole, -far, 1, step_length[1], turned["normal", 1])
    draw_turn(middle, near, 1, step_length[1], turned["vocab", 1])
    whole.text(0, -1.6, "all tokens", color=COLOURS["vocab"], weight="bold", ha="center", va="top")
    whole.text(0, far + 0.8, "N(0, 1)", color=COLOURS["normal"], weight="bold", ha="center")
    whole.set_title("the whole", fontsize=10)
    middle.set_title("its middle, 9 times as large: the tokens", fontsize=10)


def draw_turn(axis, x, rate, length, degrees):
    """A vector from the middle to x, a step across it of this length, and where it then points."""
    axis.plot([0, x], [0, 0], color="black", lw=1)
    axis.plot([0, x], [0, length], color="black", lw=1, ls=":")
    arrow = {"arrowstyle": "-|>", "color": "black", "lw": 2.5, "shrinkA": 0, "shrinkB": 0}
    axis.annotate("", (x, length), (x, 0), arrowprops=arrow)
    low = axis.get_ylim()[0]
    box = {"fc": "white", "ec": "none", "alpha": 0.85, "pad": 1}
    text = f"a step at rate {rate}\nturns it by {degrees:.0f}°"
    axis.text(x * 0.98, low * 0.04, text, ha="center", va="top", fontsize=9, bbox=box)


def first_loss_and_steps(points, last, title):
    """points: {(task, start): [(loss before training, steps) of each seed]}. A panel for each
    task, and in it a large dot at the medians of each start."""
    tasks = list(dict.fromkeys(task for task, _ in points))
    figure, axes = new_axes(title, 10.5, 4.8, columns=len(tasks), sharey=True)
    for axis, task in zip(axes[0], tasks):
        for (of_task, start), seeds in points.items():
            if of_task == task:
                draw_start_at(axis, seeds, start, last)
        train.finish_steps_axis(axis, last, task)
        axis.set_xlabel("loss before training (nats a token)")
        axis.margins(x=0.2)
    axes[0, 0].set_ylabel("steps until the task is learned\n(large dot: medians; small: a seed)")


def draw_start_at(axis, seeds, start, last):
    losses = [loss for loss, _ in seeds]
    heights = [train.height_of(steps, last) for _, steps in seeds]
    x, y = median(losses), median(heights)
    colour = COLOURS[start]
    axis.plot(losses, heights, ".", color=colour, alpha=0.5, ms=6)
    axis.plot(x, y, "o", color=colour, ms=11)
    style = {"color": colour, "weight": "bold", "fontsize": 9, "rotation": 40}
    beside = {"textcoords": "offset points", "rotation_mode": "anchor"}  # slanting, to keep apart
    axis.annotate(train.STARTS[start].label, (x, y), (6, 6), **style, **beside)


def accuracy_at_usual_rates(usual, known, baselines, title):
    """usual: {(start, absolute rate): [(steps, accuracy) of each seed]}; known: {absolute rate: who
    uses it}; baselines: {name: accuracy}."""
    figure, axes = new_axes(title, 9, 4.8)
    axis = axes[0, 0]
    rates = list(known)
    labels = []
    for start in dict.fromkeys(start for start, _ in usual):
        colour = COLOURS[start]
        means = []
        for place, rate in enumerate(rates):
            seeds = [accuracy for _, accuracy in usual[start, rate]]
            axis.plot([place] * len(seeds), seeds, ".", color=colour, alpha=0.5, ms=7)
            means.append(sum(seeds) / len(seeds))
        axis.plot(range(len(rates)), means, "o-", color=colour, lw=2)
        labels.append((means[-1], train.STARTS[start].label, colour))
    for name, accuracy in baselines.items():
        level(axis, name, accuracy)
    numbers = [f"{rate:.5f}".rstrip("0") for rate in rates]  # 0.00005 and not 5e-05
    names = [f"{number}\n{user}" for number, user in zip(numbers, known.values())]
    axis.set_xticks(range(len(rates)), names)
    axis.set_xlim(-0.3, len(rates) - 0.2)  # room for the names of the baselines
    axis.set_xlabel("absolute learning rate")
    axis.set_ylabel("accuracy after 60 steps\n(line: mean; dot: a seed)")
    axis.set_ylim(-0.03, 1.03)
    train.label_lines(axis, labels, gap=0.07)


NEIGHBOURS = {  # label and colour of each start
    "vocab": ("sampled tokens", COLOURS["vocab"]),
    "swap-1": ("swap-1\n(2 of the 8 letters)", COLOURS["swap-1"]),
    "first-letter-first": ("first-letter-first", "#7F7F7F"),
    "last-letter-last": ("last-letter-last", "#CC79A7"),
}


def neighbours(swap, ends, baselines, steps_from, last, title):
    """On swap-4, swap: {start: {step: [accuracy of each seed]}}, ends: {start: [the same at the end
    on test sentences]}, baselines: {name: accuracy}. On first-letter-last, steps_from: {(start,
    rate): [steps of each seed]}."""
    figure, axes = new_axes(title, 11.5, 4.8, columns=2)
    facts, rule = axes[0]
    labels = []
    for start, curve in swap.items():
        name, colour = NEIGHBOURS[start]
        means = [sum(seeds) / len(seeds) for seeds in curve.values()]
        lows = [min(seeds) for seeds in curve.values()]
        highs = [max(seeds) for seeds in curve.values()]
        facts.fill_between(list(curve), lows, highs, color=colour, alpha=0.15, lw=0)
        facts.plot(list(curve), means, "o-", color=colour, lw=2)
        tested = sum(ends[start]) / len(ends[start])
        facts.plot(max(curve) + 8, tested, "D", color=colour, ms=9)
        labels.append((tested, name, colour))
    for name, accuracy in baselines.items():
        level(facts, name, accuracy)
    facts.set_ylim(0, 1.02)
    facts.set_xlabel("training steps (diamonds: at the end, 240 test sentences)")
    facts.set_ylabel("accuracy (line: mean; band: all seeds)")
    facts.set_title("swap-4: facts that the base does not know")
    train.label_lines(facts, labels, gap=0.1)

    labels = []
    for start in dict.fromkeys(start for start, _ in steps_from):
        name, colour = NEIGHBOURS[start]
        rates = [rate for of_start, rate in steps_from if of_start == start]
        medians = []
        for rate in rates:
            heights = [train.height_of(steps, last) for steps in steps_from[start, rate]]
            rule.plot([rate] * len(heights), heights, ".", color=colour, alpha=0.5, ms=6)
            medians.append(median(heights))
        rule.plot(rates, medians, "o-", color=colour, lw=2)
        labels.append((medians[-1], name, colour))
    rule.set_xscale("log", base=2)
    rule.set_xticks(rates, [f"{rate:g}" for rate in rates])
    rule.set_xlabel("learning rate (in units of the spread)")
    rule.set_ylabel("steps until the task is learned")
    train.finish_steps_axis(rule, last, "first-letter-last")
    rule.set_title("first-letter-last: a rule")
    train.label_lines(rule, labels)


# ------------------------------------------------------------------ 6: how long, and how far


# ---------------------------------------------------------------- 7: hundreds of prompts, and scale


# ------------------------------------------------------------------ 8: a real model
