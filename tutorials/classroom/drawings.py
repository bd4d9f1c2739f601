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


# ------------------------------------------------------------------ 2: can you read it?


# ------------------------------------------------------------------ 3: attention and what it costs


# ------------------------------------------------------------------ 4: a prefix is a learned cache


# ------------------------------------------------------------------ 5: where to start


# ------------------------------------------------------------------ 6: how long, and how far


# ---------------------------------------------------------------- 7: hundreds of prompts, and scale


# ------------------------------------------------------------------ 8: a real model
