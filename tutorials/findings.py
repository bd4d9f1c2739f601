"""out/results.csv and what it says: the threshold, the one-standard-error rule, tables, pictures.

train.py writes the rows, and calls `report` and `draw`. Tables and pictures are worked out from the
rows alone; only the pictures' titles are fixed, and tell what the full main job found. `starts` is
the table STARTS of train.py, which holds the starts' labels and colours.
"""

import csv
import io
import math
import random
from collections import defaultdict
from functools import partial
from pathlib import Path
from statistics import mean, median, variance
from typing import NamedTuple

from tutorials.jobs import JOBS, write_text

NUMBERS = {"length": int, "lr": float, "seed": int, "step": int, "loss": float, "accuracy": float,
           "parameters": int, "sentences": int, "filler": int, "window": int}
COLUMNS = ("plan base experiment job method init length pinned lr seed step split loss accuracy "
           "parameters sentences filler window").split()

class Results:
    """out/results.csv: a row for every measurement, written when its experiment is done.
    Rows of another plan or base stay in the file and are not looked at."""

    def __init__(self, path, plan, base):
        self.path, self.about, self.rows = Path(path), {"plan": plan, "base": base}, []
        if self.path.exists():
            with open(path, newline="") as file:
                self.rows = list(csv.DictReader(file))
        for row in self.rows:
            if list(row) != COLUMNS:
                raise ValueError(f"{path} is no results file of this program: move it away")
            row.update({name: number(row[name]) for name, number in NUMBERS.items()})

    def add(self, rows):
        """All rows of an experiment, or in a crash none."""
        self.rows += [{**self.about, **row} for row in rows]
        file = io.StringIO(newline="")
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, file.getvalue())

    def find(self, **match):
        match = {**self.about, **match}
        return [row for row in self.rows if match.items() <= row.items()]

    def group(self, name, value, **match):
        """{name's value: [the values of `value`]} over the rows that match."""
        groups = defaultdict(list)
        for row in self.find(**match):
            groups[row[name]].append(row[value])
        return groups

    def accuracies(self, name, **match):
        """{name's value: (mean accuracy, standard error)} over the rows that match."""
        values = self.group(name, "accuracy", **match)
        sentences = self.group(name, "sentences", **match)
        return {key: mean_error(values[key], sentences[key][0]) for key in values}

ERROR = "± one standard error: the spread of the seeds, and of the test sentences as a sample"

def mean_error(values, n):
    """The mean accuracy, and its standard error over seeds and over n test sentences."""
    p = mean(values)
    seeds = variance(values) / len(values) if len(values) > 1 else 0.0
    return p, (seeds + p * (1 - p) / n) ** 0.5

def chosen_length(results, job, method):
    """The one-standard-error rule: the smallest length whose validation accuracy is within one
    standard error of the best length's."""
    accuracies = results.accuracies("length", experiment="length", job=job, method=method,
                                    pinned="yes", split="valid")
    best, error = max(accuracies.values())
    return min(P for P, (accuracy, _) in accuracies.items() if accuracy >= best - error)

def best_wording(results, job):
    """The English with the best validation accuracy, and its test accuracy."""
    valid = results.find(experiment="methods", job=job, method="wording", split="valid")
    text = max(valid, key=lambda row: row["accuracy"])["init"]
    [test] = results.find(experiment="methods", job=job, method="wording", split="test", init=text)
    return text, test["accuracy"]

def always_accuracy(results, job):
    """The test accuracy of always giving the commonest answer."""
    [row] = results.find(experiment="methods", job=job, method="always", split="test")
    return row["accuracy"]

class Race(NamedTuple):
    """How fast each start learns a job."""

    unprompted: float  # validation loss without a prompt
    threshold: float  # 90 % of the way from there to the best mean loss that any start reaches
    curves: dict  # start -> {step: losses of the seeds}
    steps: dict  # start -> first step at the threshold for each seed, inf where it never gets there
    ratios: dict  # start -> median steps / those of related text, and the ends of its 95 % interval

def race(results, job):
    """The Race of a job. A step counts where its loss was measured: at those in WATCH of train.py."""
    match = dict(experiment="initialization", job=job, split="valid")
    curves = {start: results.group("step", "loss", init=start, **match)
              for start in results.group("init", "loss", **match)}
    [none] = results.find(experiment="methods", job=job, method="none", split="valid")
    best = min(mean(losses) for curve in curves.values() for losses in curve.values())
    threshold = none["loss"] - 0.9 * (none["loss"] - best)
    steps = {start: [next((step for step, loss in zip(curve, run) if loss <= threshold), math.inf)
                     for run in zip(*curve.values())] for start, curve in curves.items()}

    def ratio(a, b):  # there at once counts as one step, for a ratio to exist
        return max(1, median(a)) / max(1, median(b)) if median(b) < math.inf else math.nan

    gen, ratios = random.Random(0), {}
    for start, values in steps.items():  # the bootstrap over seeds
        draws = sorted(ratio(*(gen.choices(x, k=len(values)) for x in (values, steps["related"])))
                       for _ in range(2000))
        ratios[start] = ratio(values, steps["related"]), draws[50], draws[-51]
    return Race(none["loss"], threshold, curves, steps, ratios)

def tried(results, job):
    """[(method, its wording or length, numbers trained, accuracy, error)] of all that was tried."""
    groups = defaultdict(list)
    for row in results.find(job=job, split="test"):
        methods, length = row["experiment"] == "methods", row["experiment"] == "length"
        if methods or length and row["pinned"] == "yes":
            what = f"{row['length']} virtual tokens" if row["length"] else row["init"]
            groups[row["method"], what, row["parameters"], row["sentences"]].append(row["accuracy"])
    return [(method, what, numbers, *mean_error(values, n))
            for (method, what, numbers, n), values in groups.items()]

def report(results, starts, total):
    """The numbers behind the pictures, as tables; `total` is how many numbers the base has."""
    for job in results.group("job", "step", experiment="initialization"):
        found = race(results, job)
        print(f"\n{job}: {found.unprompted:.2f} nats without a prompt, the threshold is "
              f"{found.threshold:.2f}\nstart{'rate':>24s}  nats at 0  at the end  accuracy  "
              "steps to threshold  x related text [95 %]")
        for start, curve in found.curves.items():
            rows = results.find(experiment="initialization", job=job, init=start, split="test")
            losses, steps = [mean(values) for values in curve.values()], found.steps[start]
            ratio, low, high = found.ratios[start]
            print(f"{starts[start].label:22s}{rows[0]['lr']:7g}{losses[0]:11.2f}{losses[-1]:12.2f}"
                  f"{mean(row['accuracy'] for row in rows):10.3f}{median(steps):8.0f} "
                  f"({min(steps)} to {max(steps)}){ratio:15.1f} [{low:.1f}, {high:.1f}]")
        for method in ("prompt", "prefix"):
            print(f"{method} tuning: {chosen_length(results, job, method)} virtual tokens are "
                  "within one standard error of the best length")
    for job in results.group("job", "step", experiment="methods"):
        print(f"\n{job:60s}numbers   % of base   accuracy")
        for method, what, numbers, center, error in tried(results, job):
            print(f"{method:10s}{what:46s}{numbers:11d}{100 * numbers / total:12.3f}"
                  f"{center:11.3f} ± {error:.3f}")
    print(ERROR)
    for job in results.group("job", "step", experiment="distance"):
        fillers = results.group("filler", "accuracy", experiment="distance", job=job)
        print(f"\n{job:36s}", *(f"{filler:6d}" for filler in fillers), " tokens between")
        for method in ("prompt", "wording"):
            for pinned, shown in (("yes", "pinned"), ("no", "sliding")):
                values = results.accuracies("filler", experiment="distance", job=job,
                                            method=method, pinned=pinned)
                print(f"{METHODS[method][0] + ', ' + shown:36s}",
                      *(f"{accuracy:6.3f}" for accuracy, _ in values.values()))

# ------------------------------------------------------------------ pictures

METHODS = {  # label, colour and marker
    "none": ("no prompt", "0.3", "X"),
    "wording": ("English wordings", "#0072B2", "_"),
    "prompt": ("prompt tuning", "#009E73", "o-"),
    "prefix": ("prefix tuning", "#E69F00", "s-"),
    "lora": ("LoRA", "#CC79A7", "D"),
    "full": ("all weights", "#D55E00", "*"),
}

def title_of(job):
    """A job in a newcomer's words."""
    practised = "practised" if JOBS[job].wordings else "never practised"
    return f"{JOBS[job].about or job} ({practised})"

def draw(results, out, starts):
    """The four pictures, from the results alone."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"font.size": 11, "axes.titlesize": 10, "axes.spines.top": False,
                            "axes.spines.right": False, "figure.constrained_layout.use": True})
    raced = list(results.group("job", "step", experiment="initialization"))
    every = list(results.group("job", "step", experiment="methods"))
    for name, jobs, heights, draw_job, title in (
            ("initialization", raced, (3, 2), partial(draw_race, starts),
             "Where a prompt starts decides how soon it learns a job that the base never practised"),
            ("length", raced, (1, 1), draw_lengths,
             "A few virtual tokens are enough here, a hundred do no harm (bars: ± one standard error)"),
            ("methods", every, (1.3,), draw_methods,
             "On a job that is new to the base, a prompt does what no English wording does"),
            ("window", raced, (1.3,), draw_distances,
             "With other text between, a sliding prompt is lost and a pinned one is not")):
        figure, axes = pyplot.subplots(len(heights), len(jobs), squeeze=False,
                                       height_ratios=heights,
                                       figsize=(4.4 * len(jobs), 3.5 * len(heights)))
        for column, job in zip(axes.T, jobs):
            draw_job(results, job, *column)
        figure.suptitle(title)
        figure.savefig(out / f"{name}.part.png", dpi=130)
        (out / f"{name}.part.png").replace(out / f"{name}.png")
        pyplot.close(figure)

def draw_level(axis, y, text, colour="0.45"):
    """A dashed line across, with its name on the left."""
    axis.axhline(y, color=colour, ls="--", lw=1, zorder=0)
    axis.annotate(text, (0.02, y), (0, 2), xycoords=("axes fraction", "data"),
                  textcoords="offset points", color=colour, fontsize=9)

def draw_baselines(results, job, axis):
    """What needs no training, in every picture of accuracies."""
    draw_level(axis, best_wording(results, job)[1], "best English (by validation)",
               METHODS["wording"][1])
    draw_level(axis, always_accuracy(results, job), "commonest answer")

def draw_accuracies(axis, accuracies, **look):
    """Points with their error bars, where there are any."""
    if accuracies:
        points = [(x, *point) for x, point in accuracies.items()]
        axis.errorbar(*zip(*points), capsize=3, **look)

def draw_window(results, axis):
    """Where the window of the base ends, if it has one."""
    [window] = results.group("window", "step", experiment="length")
    if window:
        axis.axvline(window, color="0.7", ls=":", zorder=0)
        axis.annotate("W", (window, 1.0), ha="right", color="0.5")

def draw_race(starts, results, job, top, low):
    found = race(results, job)
    end = max(max(curve) for curve in found.curves.values())
    for i, (start, curve) in enumerate(found.curves.items()):
        colour, arrived = starts[start].colour, [x for x in found.steps[start] if x < math.inf]
        top.fill_between(list(curve), [min(losses) for losses in curve.values()],
                         [max(losses) for losses in curve.values()], color=colour, alpha=0.12, lw=0)
        top.plot(list(curve), [mean(losses) for losses in curve.values()], color=colour, lw=2)
        low.plot(arrived, [-i] * len(arrived), "o", color=colour, alpha=0.5)
        if median(found.steps[start]) < math.inf:
            low.plot(median(found.steps[start]), -i, "|", color=colour, ms=18, mew=3)
        if missed := len(found.steps[start]) - len(arrived):
            low.text(end, -i, f"{missed} never", ha="right", va="center", color=colour)
    draw_level(top, found.unprompted, "no prompt")
    draw_level(top, found.threshold, "threshold")
    steps = [f"{starts[start].label} {median(found.steps[start]):g}".replace("inf", "never")
             for start in ("related", "normal", "normal-same-rate") if start in found.steps]
    title = f"{title_of(job)}\nsteps: {', '.join(steps[:2])}\n{''.join(steps[2:])}"
    top.set(title=title.strip(), xlim=(0, end),
            xlabel="training steps", ylim=(0, None), ylabel="validation loss, nats a token")
    low.set(xlabel="steps to the threshold (a dot is a seed)", xlim=(-0.02 * end, end),
            yticks=[-i for i in range(len(found.curves))], ylim=(0.6 - len(found.curves), 0.6),
            yticklabels=[starts[start].label for start in found.curves])
    for text, start in zip(low.get_yticklabels(), found.curves):
        text.set(color=starts[start].colour, weight="bold")
    if not top.get_subplotspec().is_first_col():
        low.set(yticklabels=[])
        top.set(ylabel="")

def draw_lengths(results, job, *axes):
    ticks = list(results.group("length", "step", experiment="length"))
    for axis, method in zip(axes, ("prompt", "prefix")):
        colour = METHODS[method][1]
        for pinned, style, name in (("yes", "o-", "pinned"), ("no", "s:", "sliding")):
            match = dict(experiment="length", job=job, method=method, pinned=pinned, split="test")
            draw_accuracies(axis, results.accuracies("length", **match), fmt=style, color=colour,
                            label=name)
        draw_baselines(results, job, axis)
        P = chosen_length(results, job, method)
        axis.axvline(P, color="0.85", lw=9, zorder=-1)
        draw_window(results, axis)
        axis.set(title=f"{title_of(job)}\n{method}: {P} as good as the best, by validation",
                 xscale="log", ylim=(0, 1.05), xlabel="virtual tokens", ylabel="test accuracy",
                 xticks=ticks, xticklabels=ticks)
        axis.minorticks_off()
        axis.legend(frameon=False, fontsize=9, loc="lower center", ncol=2)

def draw_methods(results, job, axis):
    draw_baselines(results, job, axis)
    for method, (label, colour, marker) in METHODS.items():
        points = sorted(point for name, _, *point in tried(results, job) if name == method)
        if points:
            axis.errorbar(*zip(*points), fmt=marker, color=colour, capsize=3, label=label, mew=2,
                          ms=5 if marker.endswith("-") else 9)
    axis.set(title=title_of(job), ylim=(0, 1.05), xlabel="numbers trained", ylabel="test accuracy")
    axis.set_xscale("symlog", linthresh=100)
    axis.set_xlim(-20, 3e6)
    if axis.get_subplotspec().is_first_col():
        axis.legend(frameon=False, fontsize=9, loc="lower right")

def draw_distances(results, job, axis):
    for method in ("prompt", "wording"):
        for pinned, style, name in (("yes", "o-", "pinned"), ("no", "s:", "sliding")):
            match = dict(experiment="distance", job=job, method=method, pinned=pinned)
            draw_accuracies(axis, results.accuracies("filler", **match), fmt=style,
                            color=METHODS[method][1], label=f"{METHODS[method][0]}, {name}")
    draw_level(axis, always_accuracy(results, job), "commonest answer")
    draw_window(results, axis)
    axis.set(title=title_of(job), ylim=(0, 1.05), ylabel="test accuracy",
             xlabel="tokens of other text between prompt and question")
    if axis.get_subplotspec().is_first_col():
        axis.legend(frameon=False, fontsize=9, loc="lower right")
