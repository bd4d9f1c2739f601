"""The figures of the classes. A function is named after what it shows; it draws, and computes
nothing. `title` is a question in the class copies and the finding in the solved ones."""

from statistics import median

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

TASK_COLOURS = {"library": "#595959", "repeat-third": "#D55E00"}
TASK_NAMES = {"library": "which library?", "repeat-third": "which is the third word?"}


def zeros_take(lengths, gates, accuracies, common, title):
    """P zeros before a question: their share of the attention, and the accuracy of each task beside
    that of its commonest answer. {task: [accuracy of each length]}, {task: accuracy}."""
    _, axes = new_axes(title, 10, 4, columns=2, sharex=True)
    share, right = axes[0]
    places = range(len(lengths))
    share.plot(places, gates, "o-", color=COLOURS["prefix"], lw=2.5)
    share.set(ylim=(0, 1), ylabel="share of the attention that the zeros take (m)")
    for task, values in accuracies.items():
        right.plot(places, values, "o-", color=TASK_COLOURS[task], lw=2.5)
        right.axhline(common[task], color=TASK_COLOURS[task], ls="--", lw=1)
        above = (0, common[task] + 0.01)
        look = {"color": TASK_COLOURS[task], "fontsize": 8, "va": "bottom"}
        right.text(*above, "its commonest answer", **look)
    right.text(4.1, 0.87, TASK_NAMES["library"], color=TASK_COLOURS["library"], weight="bold")
    third = {"color": TASK_COLOURS["repeat-third"], "weight": "bold", "ha": "right"}
    right.text(3.3, 0.55, TASK_NAMES["repeat-third"], **third)
    right.set(ylim=(0, 1.03), ylabel="accuracy")
    for axis in axes[0]:
        axis.set_xticks(places, lengths)
        axis.set_xlabel("zeros before the question (P)")


WAYS_TO_MOVE = {
    "each layer's own rate": COLOURS["prefix"],
    "one rate for all layers": "#56B4E9",
    "through an MLP": "#CC79A7",
}


def ways_to_move(losses, accuracies, title):
    """Three ways to move a prefix. {way: {step: [loss of each seed]}} on the easier task, {way:
    [accuracy of each seed]} on the harder one."""
    _, axes = new_axes(title, 11, 4.2, columns=2, width_ratios=[1.5, 1])
    left, right = axes[0]
    for way, curve in losses.items():
        steps = list(curve)
        left.fill_between(
            steps,
            *zip(*[(min(c), max(c)) for c in curve.values()]),
            color=WAYS_TO_MOVE[way],
            alpha=0.2,
            lw=0,
        )
        left.plot(
            steps, [median(seeds) for seeds in curve.values()], color=WAYS_TO_MOVE[way], lw=2.5
        )
    left.set_yscale("log")
    left.set_yticks([0.1, 0.3, 1, 3], ["0.1", "0.3", "1", "3"])
    left.minorticks_off()
    left.set(xlim=(0, 64), xlabel="training steps", ylabel="loss (nats a token)")
    left.set_title("first letter of the last word (line: median, band: all seeds)", fontsize=10)
    for place, (way, seeds) in enumerate(accuracies.items()):
        dots(right, place, seeds, WAYS_TO_MOVE[way])
    names = list(accuracies)
    right.set_yticks(range(len(names)), names)
    for text, way in zip(right.get_yticklabels(), names):
        text.set(color=WAYS_TO_MOVE[way], weight="bold")
    right.set(xlim=(0, 1), ylim=(len(names) - 0.5, -0.5), xlabel="accuracy after 64 steps")
    right.set_title("word before the last (dot: a seed; bar: mean)", fontsize=10)


def dots(axis, place, accuracies, colour):
    """The accuracies of seeds on one line, and their mean as a bar with its number."""
    mean = sum(accuracies) / len(accuracies)
    axis.plot(accuracies, [place] * len(accuracies), "o", color=colour, alpha=0.6, ms=6)
    axis.plot(mean, place, "|", color=colour, ms=18, mew=3)
    axis.annotate(f"{mean:.2f}", (mean, place), (0, 10), textcoords="offset points", ha="center")


def four_methods(race, baselines, numbers, title):
    """A panel for each task, a line for each method: {task: {way: [accuracy of each seed]}}, {task:
    {"none", "wording" and "always": accuracy}}, {way: how many numbers it learns}."""
    _, axes = new_axes(title, 12, 5, columns=len(race), sharey=True)
    words = {
        "library": "practised by the base:\nwhich library it is from",
        "first-letter-last": "its parts practised:\nfirst letter of the last word",
        "before-last": "nothing like it practised:\nthe word before the last",
    }
    names = {
        "prompt": "prompt of {}",
        "prefix": "prefix of {}",
        "lora": "LoRA",
        "full": "all weights",
    }
    for axis, (task, ways) in zip(axes[0], race.items()):
        for place, name in enumerate(("none", "wording")):
            height = baselines[task][name]
            axis.plot(height, place, "|", color=COLOURS[name], ms=18, mew=3)
            near = {"textcoords": "offset points", "ha": "center"}
            axis.annotate(f"{height:.2f}", (height, place), (0, 10), **near)
        for place, (way, seeds) in enumerate(ways.items(), 2):
            axis.axhline(place, color="0.93", zorder=0)
            dots(axis, place, seeds, COLOURS[way.split()[0]])
        axis.axvline(baselines[task]["always"], color=COLOURS["always"], ls="--", zorder=0)
        axis.text(
            baselines[task]["always"] + 0.01, -0.75, LABELS["always"], color="0.5", fontsize=8
        )
        axis.set_title(words[task], fontsize=10)
        axis.set(xlim=(-0.05, 1.05), ylim=(len(ways) + 1.5, -0.95), xlabel="accuracy")
    labels = [LABELS["none"], LABELS["wording"]]
    for way in next(iter(race.values())):
        method, _, length = way.partition(" ")
        labels.append(f"{names[method].format(length)}\n{numbers[way]:,} numbers")
    axes[0, 0].set_yticks(range(len(labels)), labels)


def attention_moved(errors, moved, title):
    """Left, the toy of one layer: {"prefix" and "lora": [error of each step]}. Right, the base:
    {way: {layer: [share of the attention that is elsewhere, of each seed]}}."""
    _, axes = new_axes(title, 11, 4.2, columns=2)
    left, right = axes[0]
    for method, values in errors.items():
        left.plot(values, color=COLOURS[method], lw=2.5)
        left.text(50, values[50] + 0.05, LABELS[method], color=COLOURS[method], weight="bold")
    left.set(ylim=(0, None), xlabel="training steps", ylabel="squared error")
    left.set_title("a toy with one layer (1: the text is not read)", fontsize=10)
    labels = []
    for way, layers in moved.items():
        colour = COLOURS[way.split()[0]]
        middle = [sum(seeds) / len(seeds) for seeds in layers.values()]
        for layer, seeds in layers.items():
            right.plot([layer] * len(seeds), seeds, "o", color=colour, alpha=0.4, ms=5)
        right.plot(list(layers), middle, color=colour, lw=2.5)
        labels.append((middle[-1], LABELS[way.split()[0]], colour))
    right.set(ylim=(-0.02, None), xlabel="layer", ylabel="share of the attention that is moved")
    right.set_xticks(list(layers))
    right.set_title("the base, trained on the word before the last", fontsize=10)
    train.label_lines(right, labels, 0.08)


# ------------------------------------------------------------------ 5: where to start


# ------------------------------------------------------------------ 6: how long, and how far


# ---------------------------------------------------------------- 7: hundreds of prompts, and scale


# ------------------------------------------------------------------ 8: a real model
