"""The figures of the classes. A function is named after what it shows; it draws, and computes
nothing. `title` is a question in the class copies and the finding in the solved ones."""

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


# ------------------------------------------------------------------ 6: how long, and how far


# ---------------------------------------------------------------- 7: hundreds of prompts, and scale


# ------------------------------------------------------------------ 8: a real model
