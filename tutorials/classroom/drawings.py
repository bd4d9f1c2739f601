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
    axis.set_ylim(1e-5, 10)
    axis.set_yticks(
        [10, 1, 0.1, 0.01, 0.001, 0.0001], ["10", "1", "0.1", "0.01", "0.001", "0.0001"]
    )
    axis.set_xticks([1e6, 1e7, 1e8, 1e9, 1e10, 1e11])
    axis.set_xlabel("numbers in the model")
    axis.set_ylabel("% of them in the prompt")
    axis.axhspan(1e-5, 0.001, color=COLOURS["always"], alpha=0.2, lw=0)
    axis.text(sizes[0], 0.0008, "at most 0.001 %", va="top", fontsize=10)
    for name, size, percent in zip(names, sizes, percents[100]):
        axis.text(size, percent * 1.5, name, ha="center", va="bottom", fontsize=8)
    labels = []
    for length, values in percents.items():
        axis.plot(sizes, values, "o-", color=COLOURS["prompt"], lw=3 if length == 16 else 1)
        vectors = "vector" if length == 1 else "vectors"
        labels.append((values[-1], f"{length} {vectors}", COLOURS["prompt"]))
    train.label_lines(axis, labels)


# ------------------------------------------------------------------ 2: can you read it?


# ------------------------------------------------------------------ 3: attention and what it costs


# ------------------------------------------------------------------ 4: a prefix is a learned cache


# ------------------------------------------------------------------ 5: where to start


# ------------------------------------------------------------------ 6: how long, and how far


# ---------------------------------------------------------------- 7: hundreds of prompts, and scale


# ------------------------------------------------------------------ 8: a real model
