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


def draw_rows_of_numbers(rows, names, title):
    """A matrix (P, C) as coloured squares; names are those of its rows."""
    figure, [[axis]] = new_axes(title, 9, 4)
    image = axis.imshow(rows, aspect="auto", cmap="RdBu", vmin=-0.2, vmax=0.2)
    axis.set_yticks(range(len(names)), names, fontsize=9, family="monospace")
    axis.set_xlabel(f"the {rows.shape[1]} numbers of each row")
    axis.spines[["left", "bottom"]].set_visible(False)
    axis.tick_params(length=0)
    figure.colorbar(image, label="size of the number")


def draw_hard_prompts(accuracies, best, always, n, title):
    """{hard prompt: accuracy} as bars, "" being no prompt; `best` is the one that was chosen."""
    _, [[axis]] = new_axes(title, 8, 3)
    names = [text or "no prompt" for text in accuracies]
    for name, accuracy in zip(names, accuracies.values()):
        strong = 1 if name == best else 0.45
        error = standard_error(accuracy, n)
        axis.barh(name, accuracy, xerr=error, color=COLOURS["wording"], alpha=strong)
        text = f"{accuracy:.3f}" + (", chosen on validation" if name == best else "")
        axis.text(accuracy + error + 0.01, name, text, va="center", fontsize=9)
    axis.invert_yaxis()
    axis.axvline(always, color=COLOURS["always"], ls="--", lw=1)
    style = {"color": COLOURS["always"], "fontsize": 8, "va": "top"}
    axis.text(always + 0.01, -0.5, LABELS["always"], **style)
    axis.set_xlim(0, 1)
    axis.set_xlabel(f"accuracy on {n} test sentences (lines: one standard error)")


def standard_error(accuracy, n):
    """The uncertainty of an accuracy that comes from having only n sentences."""
    return (accuracy * (1 - accuracy) / n) ** 0.5


def draw_loss_and_bars(losses, accuracies, always, n, title):
    """The loss of each step, and {"none", "wording" or "prompt": accuracy} beside it."""
    _, [[left, right]] = new_axes(title, 10, 3.8, columns=2)
    left.plot(range(len(losses)), losses, color=COLOURS["prompt"], lw=2)
    left.set_ylim(0)
    left.set_xlabel("steps done (16 sentences each)")
    left.set_ylabel("loss (nats a token)")
    for name, accuracy in accuracies.items():
        label = {"prompt": "16 learned vectors"}.get(name, LABELS[name])
        error = standard_error(accuracy, n)
        right.bar(label, accuracy, yerr=error, color=COLOURS[name], width=0.6)
        right.text(label, accuracy + error + 0.01, f"{accuracy:.3f}", ha="center", va="bottom")
    right.axhline(always, color=COLOURS["always"], ls="--", lw=1)
    style = {"color": COLOURS["always"], "fontsize": 8, "va": "bottom", "ha": "center"}
    right.text(0, always + 0.01, LABELS["always"], **style)
    right.set_ylim(0, 1.05)
    right.set_ylabel(f"accuracy on {n} test sentences")


def draw_seeds_over_steps(curves, wording, always, title):
    """The accuracy of each seed over the steps, from rows of results."""
    _, [[axis]] = new_axes(title, 8, 4)
    for seed in train.values_in_order(curves, "seed"):
        points = [(row["step"], row["accuracy"]) for row in curves if row["seed"] == seed]
        axis.plot(*zip(*points), "o-", color=COLOURS["prompt"], lw=1.5, ms=4, alpha=0.7)
    level(axis, "wording", wording)
    level(axis, "always", always)
    axis.set_ylim(0, 1.02)
    label = "16 vectors,\na line for each seed"
    train.label_lines(axis, [(curves[-1]["accuracy"], label, COLOURS["prompt"])])
    axis.set_xlabel("steps of 16 sentences")
    axis.set_ylabel("accuracy on 64 validation sentences")


def draw_percents(names, sizes, percents, title):
    """{length: [percent of each model's numbers]} over the numbers in the models."""
    _, [[axis]] = new_axes(title, 9, 4.5)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_ylim(3e-6, 30)
    axis.set_yticks(
        [10, 1, 0.1, 0.01, 0.001, 0.0001], ["10", "1", "0.1", "0.01", "0.001", "0.0001"]
    )
    axis.set_xticks([1e6, 1e7, 1e8, 1e9, 1e10, 1e11])
    axis.set_xlabel("numbers in the model")
    axis.set_ylabel("% of them in the prompt")
    axis.axhspan(3e-6, 0.001, color=COLOURS["always"], alpha=0.2, lw=0)
    axis.text(sizes[0], 0.0008, "at most 0.001 %", va="top", fontsize=10)
    for name, size, percent in zip(names, sizes, percents[100]):
        axis.text(size, percent * 1.4, name, rotation=40, rotation_mode="anchor", fontsize=8)
    labels = []
    for length, values in percents.items():
        axis.plot(sizes, values, "o-", color=COLOURS["prompt"], lw=3 if length == 16 else 1)
        vectors = "vector" if length == 1 else "vectors"
        labels.append((values[-1], f"{length} {vectors}", COLOURS["prompt"]))
    train.label_lines(axis, labels)


# ------------------------------------------------------------------ 2: can you read it?

# By the first letter of the first word; "other" letters keep their places, A is one of them.
KIND_COLOURS = {"R": "#0072B2", "C": "#D55E00", "A": "#7F7F7F"}


def draw_snapping(tasks, states, baselines, title):
    """The accuracy of five seeds of each task in each of the `states`: {state: [accuracies]}, five
    of the first task and then five of the second."""
    _, axes = new_axes(title, 10, 4, columns=2, sharey=True)
    for place, (task, axis) in enumerate(zip(tasks, axes[0])):
        of_task = [accuracies[5 * place : 5 * place + 5] for accuracies in states.values()]
        for seed in range(5):
            heights = [accuracies[seed] for accuracies in of_task]
            axis.plot(range(3), heights, "o-", color=COLOURS["prompt"], lw=1.5, alpha=0.7)
        for name, height in baselines[task].items():
            level(axis, name, height)
        axis.set_title(f"{task} ({train.practised_or_not(task)})", fontsize=10)
        axis.set_xticks(range(3), states)
        axis.set_xlim(-0.2, 3.3)
        axis.set_ylim(-0.03, 1.03)
    axes[0, 0].set_ylabel("accuracy on 240 test sentences\n(a line for each seed)")


def draw_lost_answers(lost, title):
    """{"R", "C" or "other": [accuracy lost without each vector]} as squares."""
    figure, [[axis]] = new_axes(title, 9, 2.4)
    image = train.draw_lost(axis, lost)
    axis.set_xlabel("the vector that is hidden")
    figure.colorbar(image, label="accuracy lost")


def draw_what_is_held(held, title):
    """{seed: ["R", "C", "between" or "nothing" of each vector]}, a row for each seed."""
    _, [[axis]] = new_axes(title, 9, 4.2)
    colours = {**KIND_COLOURS, "between": "#D9D9D9", "nothing": "white"}
    for y, row in enumerate(held.values()):
        for x, kind in enumerate(row):
            square = {"facecolor": colours[kind], "edgecolor": "0.8"}
            axis.add_patch(pyplot.Rectangle((x - 0.45, y - 0.42), 0.9, 0.84, **square))
            if kind in KIND_COLOURS:
                axis.text(x, y, kind, ha="center", va="center", color="white", weight="bold")
    vectors = range(len(row))
    axis.set_xlim(-0.6, len(vectors) - 0.4)
    axis.set_ylim(len(held) - 0.4, -0.6)
    axis.set_xticks(vectors, [vector + 1 for vector in vectors])
    axis.set_yticks(range(len(held)), [f"seed {seed}" for seed in held])
    axis.set_xlabel("vector   (coloured: holds this letter alone, grey: between, white: nothing)")
    axis.spines[["left", "bottom"]].set_visible(False)
    axis.tick_params(length=0)


def draw_lost_and_looked(lost, looked, title):
    """What is lost without each vector, and below it what share of the attention it gets from each
    place: {place: {kind: [share of each vector]}}."""
    figure, axes = new_axes(title, 9, 6, rows=1 + len(looked), sharex=True)
    image = train.draw_lost(axes[0, 0], lost)
    axes[0, 0].set_title("accuracy lost without the vector", fontsize=10, loc="left")
    figure.colorbar(image, ax=axes[0, 0])
    for axis, (place, shares) in zip(axes[1:, 0], looked.items()):
        image = draw_shares(axis, shares)
        axis.set_title(f"attention from the {place}", fontsize=10, loc="left")
        figure.colorbar(image, ax=axis)
    axes[-1, 0].set_xlabel("vector")


def draw_shares(axis, shares):
    """{kind: [share of each vector]} as squares, a row for each kind."""
    grid = list(shares.values())  # (kinds, P)
    image = axis.imshow(grid, cmap="Blues", vmin=0, vmax=0.5, aspect="auto")
    names = ["other letters" if kind == "other" else f"begins with {kind}" for kind in shares]
    axis.set_yticks(range(len(grid)), names)
    axis.spines[["left", "bottom"]].set_visible(False)
    axis.tick_params(length=0)
    for y, values in enumerate(grid):
        for x, value in enumerate(values):
            if value >= 0.1:
                ink = "white" if value > 0.3 else "black"
                text = f"{value:.2f}".lstrip("0")
                axis.text(x, y, text, ha="center", va="center", color=ink, fontsize=8)
    return image


def draw_rise_and_loss(points, clear, needed, title):
    """A dot for each (letter, rise of the attention, how much more of it than of others is lost)
    of a vector; `clear` and `needed` are where a rise is clear and a vector needed."""
    _, [[axis]] = new_axes(title, 8, 4.3)
    for letter, colour in KIND_COLOURS.items():
        rises = [rise for name, rise, _ in points if name == letter]
        losses = [loss for name, _, loss in points if name == letter]
        axis.plot(rises, losses, "o", color=colour, ms=5, alpha=0.6, mec="none")
    axis.axvline(clear, color="0.7", lw=1)
    axis.axhline(needed, color="0.7", lw=1)
    style = {"transform": axis.transAxes, "fontsize": 9, "color": "0.4"}
    axis.set_ylim(-0.1, 1.2)
    axis.text(0.99, 0.02, "looked at, not needed", ha="right", **style)
    axis.text(0.99, 0.94, "looked at and needed", ha="right", **style)
    axis.text(0.01, 0.94, "needed, not looked at", **style)
    axis.set_xlabel("rise of the attention with this first letter")
    axis.set_ylabel("without the vector: how much more\nof this letter is lost than of any other")
    labels = [
        (1 - 0.1 * i, f"letter {name}", c) for i, (name, c) in enumerate(KIND_COLOURS.items())
    ]
    train.label_lines(axis, labels)


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
