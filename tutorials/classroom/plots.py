"""Four pictures of rows, for the classes and for a project of one's own.

    lines(rows, x=, y=, by=, title=)      a line for each value of one column
    dots(rows, x=, y=, title=)            one value under another: a large dot is the mean
    squares(grid, rows, columns, title)   numbers as shades
    mask(seen, title)                     which key each query sees

A row is a dict, as `train.measure` gives it and `train.read_rows` reads it. A small dot is a seed.
A notebook shows a picture at the end of its cell; until then `pyplot` can add to it. What a thing
is called, and its one colour, stand in LOOKS. A column of your own gets colours by itself.
"""

from statistics import mean

import shared  # noqa: F401  where script.py and train.py are
import torch
from matplotlib import pyplot
from script import LOOKS as OTHERS
from script import Look

from train import STARTS, TASKS, draw_lines, label_lines, where

LOOKS = {**STARTS, **TASKS, **OTHERS}  # of everything that has a name


def looks_of(rows, column):
    """{value: its look} of a column, in the order in which the values come. What LOOKS does not
    know is called by its own name, and gets the next colour of matplotlib."""
    values = dict.fromkeys(row[column] for row in rows)
    return {value: LOOKS.get(value) or Look(str(value), f"C{i}") for i, value in enumerate(values)}


def panels(rows, column, title, height):
    """[(axis, the rows of this panel)]: a panel for each value of a column, or one for all rows."""
    parts = [rows]
    if column:
        parts = [where(rows, **{column: value}) for value in looks_of(rows, column)]
    width = 1.5 + 4.5 * len(parts)
    figure, axes = pyplot.subplots(
        1, len(parts), figsize=(width, height), sharey=True, squeeze=False, layout="constrained"
    )
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    for axis, part in zip(axes[0], parts):
        axis.spines[["top", "right"]].set_visible(False)
        if column:
            axis.set_title(looks_of(part, column)[part[0][column]].label, fontsize=10)
    return list(zip(axes[0], parts))


def lines(rows, x, y, by, title, panel=None, average=mean, log=False, levels=None, looks=None):
    """A line for each value of the column `by`: the average over the seeds of the column `y` at
    each value of the column `x`; each row is a small dot.

    panel    a column: a panel for each of its values
    average  of the seeds: mean, or median
    log      whether x doubles at each tick, as lengths and rates do
    levels   {name: height} of baselines, drawn as dashed lines
    looks    {value: Look} in place of LOOKS
    """
    drawn = []
    for axis, part in panels(rows, panel, title, height=4):
        ends = draw_lines(axis, part, x, y, by, looks or looks_of(part, by), average)
        if log:
            axis.set_xscale("log", base=2)
        places = sorted({row[x] for row in part})
        axis.set_xticks(places, [f"{place:g}" for place in places])
        axis.minorticks_off()
        axis.set_xlabel(x)
        for name, height in (levels or {}).items():
            look = LOOKS.get(name) or Look(name, "0.4")
            axis.axhline(height, color=look.colour, ls="--", lw=1)
            style = {"color": look.colour, "fontsize": 8, "va": "bottom"}
            style["bbox"] = {"fc": "white", "ec": "none", "pad": 0.5}  # readable where a line is
            axis.text(places[0], height, look.label, **style)
        drawn.append((axis, ends))
    drawn[0][0].set_ylabel(y)
    for axis, ends in drawn:  # when all heights are known
        axis.autoscale_view()  # now: matplotlib would wait until it draws
        label_lines(axis, ends)


def dots(rows, x, y, title, panel=None):
    """A line of dots for each value of the column `x`, one under another: each row is a small dot
    at the height of its column `y`, their mean a large one with its number."""
    parts = panels(rows, panel, title, height=1.2 + 0.4 * len(looks_of(rows, x)))
    for axis, _ in parts[1:]:
        axis.sharex(parts[0][0])  # the same heights at the same places
    for axis, part in parts:
        looks = looks_of(part, x)
        for place, (value, look) in enumerate(looks.items()):
            heights = [row[y] for row in where(part, **{x: value})]
            axis.axhline(place, color="0.93", zorder=0)
            axis.plot(heights, [place] * len(heights), ".", color=look.colour, alpha=0.5)
            axis.plot(mean(heights), place, "o", color=look.colour)
            axis.annotate(f"{mean(heights):.2f}", (mean(heights), place), (0, 6), fontsize=8,
                          textcoords="offset points", ha="center")  # fmt: skip
        axis.set_ylim(len(looks) - 0.5, -0.8)
        axis.set_yticks(range(len(looks)), [look.label for look in looks.values()])
        axis.tick_params("y", length=0)
        axis.set_xlabel(y)


def squares(grid, rows, columns, title, most=1.0):
    """A grid of numbers (a list of lines) as squares: the darker, the more. Numbers of at least a
    tenth of `most` are written into their squares. `rows` and `columns` are the names beside it."""
    width, height = 2.5 + 0.5 * len(columns), 1.3 + 0.35 * len(rows)
    _, axis = pyplot.subplots(figsize=(max(width, 6), height), layout="constrained")
    axis.imshow(grid, cmap="Reds", vmin=0, vmax=most, aspect="auto")
    for y, line in enumerate(grid):
        for x, value in enumerate(line):
            if value >= most / 10:
                colour = "white" if value > 0.6 * most else "black"
                axis.text(x, y, f"{value:.2g}", ha="center", va="center", color=colour, fontsize=8)
    axis.set_xticks(range(len(columns)), columns)
    axis.set_yticks(range(len(rows)), rows)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    axis.figure.suptitle(title, x=0.01, ha="left", weight="bold")


def mask(seen, title, queries=None, keys=None):
    """Which key each query sees: `seen` (T, S) of booleans, True is a filled square. `queries` and
    `keys` are the names beside it, by default their numbers, counted from one."""
    T, S = torch.as_tensor(seen).shape
    size = (max(6, 1.5 + 0.3 * S), 1.2 + 0.3 * T)
    _, axis = pyplot.subplots(figsize=size, layout="constrained")
    axis.pcolormesh(torch.as_tensor(seen).float(), cmap="Greys", vmax=2, edgecolors="0.8")
    axis.invert_yaxis()
    axis.set_xticks([s + 0.5 for s in range(S)], keys or range(1, S + 1), fontsize=8)
    axis.set_yticks([t + 0.5 for t in range(T)], queries or range(1, T + 1), fontsize=8)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    axis.set_xlabel("key")
    axis.set_ylabel("query")
    axis.figure.suptitle(title, x=0.01, ha="left", weight="bold")
