"""The figures of the classes. A function is named after what it shows; it draws, and computes
nothing. `title` is a question in the class copies and the finding in the solved ones."""

from matplotlib import pyplot
from matplotlib.colors import ListedColormap

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

SEEN, HEARD, UNSEEN = "#08519C", "#9ECAE1", "#F4F4F4"
MASK, BLOCKS = "#D55E00", "#009E73"


def patterns_seen(seen, heard, title):
    """Which keys each query sees, and of which it hears through a second layer: {name: (T, S)}
    twice, of the same names."""
    figure, axes = new_axes(title, 3.4 * len(seen), 4, columns=len(seen))
    for axis, (name, sees) in zip(axes[0], seen.items()):
        shades = ListedColormap([UNSEEN, HEARD, SEEN])
        axis.imshow(sees.int() + (sees | heard[name]).int(), cmap=shades, vmin=0, vmax=2)
        axis.set_title(f"{name}\n{int(sees.sum()):,} pairs", fontsize=10)
        axis.set(xlabel="key (token)", xticks=[0, 20, 40, 60], yticks=[0, 20, 40, 60])
    axes[0, 0].set_ylabel("query (token)")
    axes[0, 0].text(63, 2, "seen", color=SEEN, ha="right", va="top", weight="bold")
    through = "heard of through\na second layer"
    axes[0, 0].text(63, 9, through, color="#4292C6", ha="right", va="top", weight="bold")


def reach_through_layers(shares, window, title):
    """What part of what the last token hears comes from how far back: {layers: (S,)}."""
    _, axes = new_axes(title, 9, 4)
    axis = axes[0, 0]
    shades = ["#9ECAE1", "#6BAED6", "#3182BD", "#08519C"]
    for (layers, share), colour in zip(shares.items(), shades):
        reach = layers * (window - 1)
        axis.plot(100 * share[: reach + 1], color=colour, lw=2.5)
        axis.plot([reach, reach], [0, 0.1], color=colour, lw=2.5)
        name = "1 layer" if layers == 1 else f"{layers} layers"
        place = int(share.argmax()) if layers > 1 else 0
        axis.text(place + 2, 100 * share[place] + 0.05, name, color=colour, weight="bold")
        axis.annotate(
            f"{reach}", (reach, 0.1), color=colour, ha="center", va="bottom", weight="bold"
        )
    axis.set(xlim=(0, 275), ylim=(0, None))
    axis.set_xlabel(f"how far back, in tokens (number: the farthest word, layers x {window - 1})")
    axis.set_ylabel("part of what is heard (%)")


def mask_and_blocks(sizes, times, title):
    """The time of a window as a mask and in blocks over the length of the text, both on
    logarithmic axes: {"mask" and "blocks": [ms of each size]}."""
    _, axes = new_axes(title, 8, 4.2)
    axis = axes[0, 0]
    names = {"mask": "window as a mask:\nall pairs", "blocks": "window in blocks:\nnear pairs"}
    colours = {"mask": MASK, "blocks": BLOCKS}
    for way, milliseconds in times.items():
        axis.loglog(sizes, milliseconds, "o-", color=colours[way], lw=2.5, base=2)
    axis.set_xticks(sizes, [f"{T:,}" for T in sizes])
    ticks = [2.0**n for n in range(-1, 10, 2)]
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.set(xlabel="T (tokens)", ylabel="CPU time (ms)")
    labels = [(values[-1], names[way], colours[way]) for way, values in times.items()]
    train.label_lines(axis, labels, 0.12)


def ring_visits(visits, title):
    """Whose keys and values are at which worker: a list for each worker, of one source a step."""
    R = len(visits)
    _, axes = new_axes(title, 8, 3.8)
    axis = axes[0, 0]
    words = {"own": "its own keys", "past": "taken in", "future": "in vain: the future"}
    colours = {"own": "#08519C", "past": "#6BAED6", "future": "#E8E8E8"}
    inks = {"own": "white", "past": "white", "future": "0.35"}
    for worker, sources in enumerate(visits):
        for step, source in enumerate(sources):
            kind = "own" if source == worker else "past" if source < worker else "future"
            place = (step - 0.47, worker - 0.45)
            axis.add_patch(pyplot.Rectangle(place, 0.94, 0.9, color=colours[kind]))
            said = f"part {source}\n{words[kind]}"
            axis.text(step, worker, said, ha="center", va="center", color=inks[kind], fontsize=9)
    axis.set(xlim=(-0.5, R - 0.5), ylim=(R - 0.5, -0.5), xlabel="step")
    axis.set_xticks(range(R), [step or "0 (nothing has moved)" for step in range(R)])
    axis.set_yticks(range(R), [f"worker {n}\n(queries of part {n})" for n in range(R)])
    axis.spines[["left", "bottom"]].set_visible(False)
    axis.tick_params(length=0)


def work_of_workers(pairs, title):
    """The pairs that each worker of a ring computes."""
    _, axes = new_axes(title, 7, 3)
    axis = axes[0, 0]
    places = [f"worker {n}" for n in range(len(pairs))]
    bars = axis.barh(places, pairs, color="#08519C", height=0.6)
    axis.bar_label(bars, [f"{n:,}" for n in pairs], padding=4)
    axis.invert_yaxis()
    axis.set(xlabel="pairs (query and key)", xlim=(0, 1.12 * max(pairs)))


# ------------------------------------------------------------------ 4: a prefix is a learned cache


# ------------------------------------------------------------------ 5: where to start


# ------------------------------------------------------------------ 6: how long, and how far


# ---------------------------------------------------------------- 7: hundreds of prompts, and scale


# ------------------------------------------------------------------ 8: a real model
