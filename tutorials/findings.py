"""out/results.csv and what it says: the threshold, the one-standard-error rule, tables, pictures.

train.py writes the rows, and calls `report` and `draw`. Tables and pictures are worked out from the
rows alone. `starts` is the table STARTS of train.py, which holds the starts' labels and colours.
"""

import csv
import io
import math
import random
from collections import defaultdict
from functools import partial
from pathlib import Path
from statistics import mean, median, stdev
from typing import NamedTuple

def write_text(path, text):
    """Write a text file as a whole: at any moment there is the old one or the new one."""
    path.with_suffix(".part").write_text(text)
    path.with_suffix(".part").replace(path)

NUMBERS = {"length": int, "lr": float, "seed": int, "step": int, "loss": float, "accuracy": float,
           "parameters": int}
COLUMNS = ("plan base experiment job method init length pinned lr seed step split loss accuracy "
           "parameters").split()

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

def mean_se(values):
    """The mean and its standard error; a single value shows no spread."""
    return mean(values), stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0

def chosen_length(results, job, method):
    """The one-standard-error rule: the smallest length whose validation accuracy is within one
    standard error of the best length's."""
    accuracies = results.group("length", "accuracy", experiment="length", job=job, method=method,
                               pinned="yes", split="valid")
    best, error = max(mean_se(values) for values in accuracies.values())
    return min(P for P, values in accuracies.items() if mean(values) >= best - error)

class Race(NamedTuple):
    """How fast each start learns a job."""

    unprompted: float  # validation loss without a prompt
    threshold: float  # 90 % of the way from there to the best mean loss that any start reaches
    curves: dict  # start -> {step: losses of the seeds}
    steps: dict  # start -> first step at the threshold for each seed, inf where it never gets there
    ratios: dict  # start -> median steps / those of related text, and the ends of its 95 % interval

def race(results, job):
    match = dict(experiment="initialization", job=job, split="valid")
    curves = {start: results.group("step", "loss", init=start, **match)
              for start in results.group("init", "loss", **match)}
    [none] = results.find(experiment="methods", job=job, method="none", split="valid")
    best = min(mean(losses) for curve in curves.values() for losses in curve.values())
    threshold = none["loss"] - 0.9 * (none["loss"] - best)
    steps = {start: [next((step for step, loss in zip(curve, run) if loss <= threshold), math.inf)
                     for run in zip(*curve.values())] for start, curve in curves.items()}

    def ratio(a, b):  # there at once counts as one step, for a ratio to exist
        return max(1, median(a)) / max(1, median(b))

    gen, ratios = random.Random(0), {}
    for start, values in steps.items():  # the bootstrap over seeds
        draws = sorted(ratio(*(gen.choices(x, k=len(values)) for x in (values, steps["related"])))
                       for _ in range(2000))
        ratios[start] = ratio(values, steps["related"]), draws[50], draws[-51]
    return Race(none["loss"], threshold, curves, steps, ratios)

def tried(results, job):
    """[(method, its wording or length, parameters, test accuracies)] of all that was tried."""
    accuracies = defaultdict(list)
    for row in results.find(job=job, split="test", experiment="methods"):
        accuracies[row["method"], row["init"], row["parameters"]].append(row["accuracy"])
    for row in results.find(job=job, split="test", experiment="length", pinned="yes"):
        what = row["method"], f"{row['length']} virtual tokens", row["parameters"]
        accuracies[what].append(row["accuracy"])
    return [(*what, values) for what, values in accuracies.items()]

def report(results, starts, total):
    """The numbers behind the pictures, as tables; `total` is how many numbers the base has."""
    for job in results.group("job", "step", experiment="initialization"):
        found = race(results, job)
        print(f"\n{job}: {found.unprompted:.2f} nats without a prompt, the threshold is "
              f"{found.threshold:.2f}\nstart{'rate':>21s}  nats at 0  at the end  accuracy  "
              "steps to threshold  x related text [95 %]")
        for start, curve in found.curves.items():
            rows = results.find(experiment="initialization", job=job, init=start, split="test")
            losses, steps = [mean(values) for values in curve.values()], found.steps[start]
            ratio, low, high = found.ratios[start]
            print(f"{starts[start].label:18s}{rows[0]['lr']:8g}{losses[0]:11.2f}{losses[-1]:12.2f}"
                  f"{mean(row['accuracy'] for row in rows):10.3f}{median(steps):8.0f} "
                  f"({min(steps)} to {max(steps)}){ratio:15.1f} [{low:.1f}, {high:.1f}]")
        print(f"{'method':60s}numbers   % of base   accuracy")
        for method, what, numbers, values in tried(results, job):
            center, error = mean_se(values)
            print(f"{method:10s}{what:46s}{numbers:11d}{100 * numbers / total:12.3f}"
                  f"{center:11.3f} +- {error:.3f}")
        for method in ("prompt", "prefix"):
            print(f"{method} tuning: {chosen_length(results, job, method)} virtual tokens are "
                  "within one standard error of the best length")

# ------------------------------------------------------------------ pictures

METHODS = {  # label, colour and marker
    "none": ("no prompt", "0.4", "X"),
    "wording": ("English wordings", "#0072B2", "_"),
    "unseen": ("untrained wordings", "#56B4E9", "_"),
    "prompt": ("prompt tuning", "#009E73", "o-"),
    "prefix": ("prefix tuning", "#E69F00", "s-"),
    "lora": ("LoRA", "#CC79A7", "D"),
    "full": ("all weights", "#D55E00", "*"),
}

def draw(results, out, starts):
    """The three pictures, from the results alone."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"font.size": 11, "axes.titlesize": 11, "axes.spines.top": False,
                            "axes.spines.right": False, "figure.constrained_layout.use": True})
    raced = results.group("init", "step", experiment="initialization")
    jobs = results.group("job", "step", experiment="initialization")
    for name, rows, draw_job, title in (
            ("initialization", (3, 2), partial(draw_race, starts),
             f"{len(raced)} places for a prompt to start from, and how soon it learns from there"),
            ("length", (1, 1), draw_lengths, "How many virtual tokens a job wants"),
            ("methods", (1.3,), draw_methods,
             "A thousand trained numbers against a fine-tuned copy, on the same examples")):
        figure, axes = pyplot.subplots(len(rows), len(jobs), squeeze=False, height_ratios=rows,
                                       figsize=(4.4 * len(jobs), 3.5 * len(rows)))
        for column, job in zip(axes.T, jobs):
            draw_job(results, job, *column)
        figure.suptitle(title)
        figure.savefig(out / f"{name}.part.png", dpi=130)
        (out / f"{name}.part.png").replace(out / f"{name}.png")
        pyplot.close(figure)

def draw_level(axis, y, text):
    """A dashed line across, with its name on the left."""
    axis.axhline(y, color="0.45", ls="--", lw=1)
    axis.annotate(text, (0.02, y), (0, 2), xycoords=("axes fraction", "data"),
                  textcoords="offset points", color="0.35", fontsize=9)

def draw_race(starts, results, job, top, low):
    found = race(results, job)
    end = max(max(curve) for curve in found.curves.values())
    for i, (start, curve) in enumerate(found.curves.items()):
        colour, arrived = starts[start].colour, [x for x in found.steps[start] if x < math.inf]
        top.fill_between(list(curve), [min(losses) for losses in curve.values()],
                         [max(losses) for losses in curve.values()], color=colour, alpha=0.15, lw=0)
        top.plot(list(curve), [mean(losses) for losses in curve.values()], color=colour, lw=2)
        low.plot(arrived, [-i] * len(arrived), "o", color=colour, alpha=0.5)
        if arrived:
            low.plot(median(arrived), -i, "|", color=colour, ms=20, mew=3)
        if missed := len(found.steps[start]) - len(arrived):
            low.text(end, -i, f"{missed} never", ha="right", va="center", color=colour)
    draw_level(top, found.unprompted, "no prompt")
    draw_level(top, found.threshold, "threshold")
    first, last = median(found.steps["related"]), median(found.steps["normal"])
    top.set(title=f"{job}: threshold after {first:g} steps from\nrelated text, {last:g} from "
                  "N(0, 1)", xscale="symlog", xlim=(0, end), xlabel="training steps",
            xticks=(ticks := [0, 1, 2, 5, 10, end]), xticklabels=ticks,
            ylabel="validation loss, nats a token")
    top.minorticks_off()
    low.set(xlabel="steps to the threshold (a dot is a seed)", xlim=(-0.5, None),
            yticks=[-i for i in range(len(found.curves))], ylim=(0.6 - len(found.curves), 0.6),
            yticklabels=[starts[start].label for start in found.curves])
    for text, start in zip(low.get_yticklabels(), found.curves):
        text.set(color=starts[start].colour, weight="bold")
    if not top.get_subplotspec().is_first_col():
        low.set(yticklabels=[])
        top.set(ylabel="")

def draw_lengths(results, job, *axes):
    levels = {method: max(values) for method, _, _, values in tried(results, job)}
    wordings = [values[0] for method, _, _, values in tried(results, job) if method == "wording"]
    ticks = list(results.group("length", "step", experiment="length"))
    for axis, method in zip(axes, ("prompt", "prefix")):
        for pinned, colour, style, name in (("yes", "#0072B2", "o-", "pinned"),
                                            ("no", "#D55E00", "s--", "sliding out of the window")):
            lengths = results.group("length", "accuracy", experiment="length", job=job,
                                    method=method, pinned=pinned, split="test")
            for P, values in lengths.items():
                axis.errorbar(P, *mean_se(values), fmt=style[0], color=colour, capsize=3)
            axis.plot(list(lengths), [mean(x) for x in lengths.values()], style, color=colour,
                      label=name)
        draw_level(axis, max(wordings), "best English wording")
        draw_level(axis, levels["none"], "no prompt")
        P = chosen_length(results, job, method)
        axis.axvspan(P / 1.12, P * 1.12, color="0.85", zorder=0)
        axis.set(title=f"{job}, {method} tuning: {P} is within 1 SE of the best", xscale="log",
                 ylim=(0, 1.05), xlabel="virtual tokens", ylabel="test accuracy", xticks=ticks,
                 xticklabels=ticks)
        axis.minorticks_off()
        axis.legend(frameon=False, fontsize=9, loc=(0.02, 0.25))

def draw_methods(results, job, axis):
    for method, (label, colour, marker) in METHODS.items():
        points = sorted((numbers, *mean_se(values))
                        for name, _, numbers, values in tried(results, job) if name == method)
        axis.errorbar(*zip(*points), fmt=marker, color=colour, capsize=3, label=label, mew=2,
                      ms=5 if marker.endswith("-") else 10)
    axis.set(title=f"job: {job}", ylim=(0, 1.05), xlabel="trained numbers", ylabel="test accuracy")
    axis.set_xscale("symlog", linthresh=100)
    axis.set_xlim(-20, 3e6)
    if axis.get_subplotspec().is_first_col():
        axis.legend(frameon=False, fontsize=9, loc="lower right")
