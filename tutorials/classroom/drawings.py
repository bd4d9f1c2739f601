"""The figures of the classes. A function is named after what it shows; it draws, and computes
nothing. `title` is a question in the class copies and the finding in the solved ones."""

import math
from statistics import mean, median

import methods
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
COLOURS = {  # a thing has one colour, in all pictures and classes
    **methods.COLOURS,
    **{name: task.colour for name, task in train.TASKS.items()},
    **{name: start.colour for name, start in train.STARTS.items()},
}


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


def practised_or_not(task):
    return "a practised task" if train.TASKS[task].practised else "a task never practised"


def write_into_squares(axis, grid, dark, as_text):
    """Write each value of at least 0.1 into its square: in white where the square is dark, that is
    above `dark`."""
    axis.spines[["left", "bottom"]].set_visible(False)
    axis.tick_params(length=0)
    for y, values in enumerate(grid):
        for x, value in enumerate(values):
            if value >= 0.1:
                style = {"color": "white" if value > dark else "black", "fontsize": 8}
                axis.text(x, y, as_text(value), ha="center", va="center", **style)


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
    for seed in dict.fromkeys(row["seed"] for row in curves):
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
        axis.set_title(f"{task} ({practised_or_not(task)})", fontsize=10)
        axis.set_xticks(range(3), states)
        axis.set_xlim(-0.2, 3.3)
        axis.set_ylim(-0.03, 1.03)
    axes[0, 0].set_ylabel("accuracy on 240 test sentences\n(a line for each seed)")


def draw_lost(axis, lost):
    """One prompt: a row for each kind of letter, a column for each vector; dark where much is
    lost."""
    first, second = train.COMMON_LETTERS[:2]
    grid = [lost[first], lost[second], lost["other"]]  # (3, P)
    image = axis.imshow(grid, cmap="Reds", vmin=0, vmax=1, aspect="auto")
    axis.set_yticks(range(3), [f"begins with {first}", f"begins with {second}", "other letters"])
    vectors = range(len(lost[first]))
    axis.set_xticks(vectors, [vector + 1 for vector in vectors])
    write_into_squares(axis, grid, 0.6, lambda value: f"{value:.1f}")
    return image


def draw_lost_answers(lost, title):
    """{"R", "C" or "other": [accuracy lost without each vector]} as squares."""
    figure, [[axis]] = new_axes(title, 9, 2.4)
    image = draw_lost(axis, lost)
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
    image = draw_lost(axes[0, 0], lost)
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
    write_into_squares(axis, grid, 0.3, lambda value: f"{value:.2f}".lstrip("0"))
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


COMPARED = ("normal", "related")  # the two starts that people argue about


def height_of(steps, last):
    """Where a number of steps stands on the axis: 0 at a half, "never" at twice the last step."""
    return min(max(steps, 0.5), 2 * last)


def draw_steps_over_rate(axis, needed, last, task):
    labels = []
    starts = list(dict.fromkeys(start for start, _ in needed))
    for place, start in enumerate(starts):
        rates = sorted(rate for name, rate in needed if name == start)
        medians = [height_of(median(needed[start, rate]), last) for rate in rates]
        colour = train.STARTS[start].colour
        width = 3.5 if start in COMPARED else 1.5
        axis.plot(rates, medians, "o-", color=colour, lw=width)
        for rate in rates:
            heights = [height_of(steps, last) for steps in needed[start, rate]]
            aside = 0.04 * (place - (len(starts) - 1) / 2)  # so that no dot hides another's
            beside = rate * 2**aside
            axis.plot([beside] * len(heights), heights, ".", color=colour, alpha=0.5, ms=5)
        labels.append((medians[-1], train.STARTS[start].label, colour))
    axis.set_xscale("log", base=2)
    axis.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axis.set_xlabel("learning rate (in units of the embeddings' spread)")
    axis.set_ylabel("steps until the task is learned\n(line: median; small dot: a seed)")
    finish_steps_axis(axis, last, task)
    train.label_lines(axis, labels)


def finish_steps_axis(axis, last, task):
    ticks = [2**i for i in range(int(math.log2(last)) + 1)]
    axis.set_yscale("log", base=2)
    axis.set_yticks([0.5, *ticks, 2 * last], ["0", *map(str, ticks), "never"])
    axis.minorticks_off()
    axis.set_ylim(0.42, 2.4 * last)
    axis.set_title(f"{practised_or_not(task)}:\n{train.TASKS[task].question}")


def steps_over_rate(needed, live, last, task, title):
    """needed: {(start, rate): [steps of each seed]}; live: the same of the arms that were trained
    in the notebook, as rings."""
    figure, axes = new_axes(title, 9, 5.4)
    axis = axes[0, 0]
    draw_steps_over_rate(axis, needed, last, task)
    starts = list(dict.fromkeys(start for start, _ in needed))
    for (start, rate), seeds in live.items():
        heights = [height_of(steps, last) for steps in seeds]
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
        finish_steps_axis(axis, last, task)
        axis.set_xlabel("loss before training (nats a token)")
        axis.margins(x=0.2)
    axes[0, 0].set_ylabel("steps until the task is learned\n(large dot: medians; small: a seed)")


def draw_start_at(axis, seeds, start, last):
    losses = [loss for loss, _ in seeds]
    heights = [height_of(steps, last) for _, steps in seeds]
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
            heights = [height_of(steps, last) for steps in steps_from[start, rate]]
            rule.plot([rate] * len(heights), heights, ".", color=colour, alpha=0.5, ms=6)
            medians.append(median(heights))
        rule.plot(rates, medians, "o-", color=colour, lw=2)
        labels.append((medians[-1], name, colour))
    rule.set_xscale("log", base=2)
    rule.set_xticks(rates, [f"{rate:g}" for rate in rates])
    rule.set_xlabel("learning rate (in units of the spread)")
    rule.set_ylabel("steps until the task is learned")
    finish_steps_axis(rule, last, "first-letter-last")
    rule.set_title("first-letter-last: a rule")
    train.label_lines(rule, labels)


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
        seeds_and_mean(axes[0, 0], runs, colour)
        last = max(runs)
        style = {"xytext": (-7, -9), "textcoords": "offset points", "ha": "right", "fontsize": 9}
        axes[0, 0].annotate(label, (last, mean(runs[last])), color=colour, weight="bold", **style)
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


def who_must_see(by_seen, by_reader, common, title):
    """by_seen: {tokens between: {vectors that the arrow still sees: accuracy}}; by_reader: {who
    sees the prompt: [accuracy of each seed]}; `common`: the commonest answer's share."""
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
    level(left, "always", common)
    right.axhline(common, color=COLOURS["always"], ls="--", lw=1)
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


WAYS = {  # (how, examples) in measured/tickets.csv: the name below its dots
    ("none", 0): "no prompt",
    ("question", 0): "a question",
    ("named", 0): "answers\nnamed",
    ("shown", 8): "8 solved\nexamples",
    ("shown", 32): "32 solved\nexamples",
    ("prompt", 128): "prompt of 16,\n128 tickets",
    ("prefix", 128): "prefix of 16,\n128 tickets",
}
WORDS = ("question", "named", "shown")  # these have the colour of hard prompts


def dots_and_mean(axis, x, values, colour):
    """The runs as dots, and their mean as a short line with its number."""
    axis.plot([x] * len(values), values, "o", ms=4, alpha=0.5, color=colour)
    axis.hlines(mean(values), x - 0.3, x + 0.3, color=colour, lw=3)
    axis.text(x + 0.33, mean(values), f"{mean(values):.2f}", fontsize=8, va="center", color=colour)


def accuracy_of_words_and_of_learning(runs, always, title):
    """Every way to ask, a dot for each split; beside it the number of solved tickets that a hard
    prompt shows and that a prefix learns from. runs: {(how, examples): [accuracies]}."""
    figure, axes = new_axes(title, 11, 4.2, columns=2, width_ratios=(5, 3), sharey=True)
    left, right = axes[0]
    for x, (how, examples) in enumerate(WAYS):
        colour = COLOURS["wording" if how in WORDS else how]
        dots_and_mean(left, x, runs[how, examples], colour)
    left.set_xticks(range(len(WAYS)), WAYS.values(), fontsize=8)
    level(left, "always", always)
    left.set(xlim=(-0.5, len(WAYS)), ylim=(0.2, 1.02), ylabel="accuracy on 32 test tickets")
    labels = []
    for how, name, kind in (
        ("shown", "shown in\nwords", "wording"),
        ("prefix", "prefix", "prefix"),
    ):
        numbers = sorted(examples for way, examples in runs if way == how)
        for n in numbers:
            values = runs[how, n]
            right.plot([n] * len(values), values, "o", ms=4, alpha=0.5, color=COLOURS[kind])
        means = [mean(runs[how, n]) for n in numbers]
        right.plot(numbers, means, lw=2, color=COLOURS[kind])
        labels.append((means[-1], name, COLOURS[kind]))
    right.set_xscale("log", base=2)
    right.set_xticks((8, 32, 128), ("8", "32", "128"))
    right.set(xlabel="solved tickets", xlim=(6, 170))
    train.label_lines(right, labels)


def list_stored_over_steps(runs, title):
    """How much of a list prompts of several lengths store, over training steps: each seed, and the
    mean. runs: {(length, step): [accuracies]}."""
    figure, axes = new_axes(title, 8, 4)
    axis, labels = axes[0, 0], []
    lengths = sorted({length for length, _ in runs})
    steps = sorted({step for _, step in runs})
    for length, colour in zip(lengths, ("#E69F00", "#009E73", "#0072B2")):
        at = [runs[length, step] for step in steps]
        axis.plot(steps, at, color=colour, lw=0.8, alpha=0.5)  # a line a seed
        axis.plot(steps, [mean(seeds) for seeds in at], color=colour, lw=2.5)
        labels.append((mean(at[-1]), f"{length} vector{'s' * (length > 1)}", colour))
    axis.axhline(0.5, color=COLOURS["always"], ls="--", lw=1)
    style = {"color": COLOURS["always"], "fontsize": 8, "va": "bottom", "ha": "right"}
    axis.text(0.99, 0.5, "guessing", transform=axis.get_yaxis_transform(), **style)
    axis.set(xlabel="training steps", ylabel="accuracy on the 26 coins", ylim=(0.3, 1.03))
    train.label_lines(axis, labels)


DISTILLED = {"related": "#009E73", "vocab": "#E69F00"}  # by the start of the student


def divergence_over_steps(curves, title):
    """How far students are from their teacher: {start: [[nats, step after step] of each seed]}."""
    figure, axes = new_axes(title, 8, 4)
    axis, labels = axes[0, 0], []
    names = {"related": "the text's\nown start", "vocab": "random\ntokens"}
    for start, name in names.items():
        steps = range(len(curves[start][0]))
        for curve in curves[start]:
            axis.plot(steps, curve, color=DISTILLED[start], lw=0.8, alpha=0.5)
        means = [mean(at) for at in zip(*curves[start])]
        axis.plot(steps, means, color=DISTILLED[start], lw=2.5)
        labels.append((means[-1], name, DISTILLED[start]))
    axis.set_yscale("log")
    axis.set_yticks((0.03, 0.1, 0.3, 1, 3), ("0.03", "0.1", "0.3", "1", "3"))
    axis.minorticks_off()
    axis.set(xlabel="training steps, each with 8 new places", ylabel="nats from the teacher")
    train.label_lines(axis, labels, gap=0.14)


PASTS = {  # what stands before a question: its colour
    "nothing": COLOURS["none"],
    "long text": COLOURS["wording"],
    "its first 16 slots": COLOURS["none"],
    "distilled": DISTILLED["related"],
    "from random tokens": DISTILLED["vocab"],
}


def what_a_distilled_prefix_saves(right, always, costs, title):
    """Accuracy behind each past, a dot a seed: {name: [accuracies]}, and what some of them cost:
    {name: (megabytes, milliseconds)}."""
    figure, axes = new_axes(title, 11, 4, columns=3, width_ratios=(2, 1, 1))
    left, *others = axes[0]
    for x, (name, values) in enumerate(right.items()):
        dots_and_mean(left, x, values, PASTS[name])
    left.set_xticks(range(len(right)), [in_two_lines(name) for name in right], fontsize=8)
    left.set(xlim=(-0.5, len(right)), ylim=(0, 1), ylabel="accuracy on 80 test places")
    level(left, "always", always)
    for axis, column, unit in zip(others, (0, 1), ("MB of cache", "CPU milliseconds a question")):
        for x, (name, cost) in enumerate(costs.items()):
            axis.bar(x, cost[column], color=PASTS[name], alpha=0.6)
            axis.text(x, cost[column], f"{cost[column]:.1f}", ha="center", va="bottom", fontsize=9)
        axis.set_xticks(range(len(costs)), [in_two_lines(name) for name in costs], fontsize=8)
        axis.set(ylabel=unit)


def in_two_lines(name):
    """A name whose second word begins a new line."""
    return name.replace(" ", "\n", 1)
