"""Prompts and prefixes beside what changes the base itself, and how far a prompt reaches.

    python tutorials/methods.py     two experiments, two tables, two pictures

methods     no prompt, hard prompts, prompt tuning, prefix tuning, LoRA and fine-tuning all weights:
            on a task that the base practised, on one whose parts it practised, and on one outside
            of all that it practised. OUT/methods.csv and OUT/methods.png
window      a prompt that was trained right before the text, with other text between the two:
            pinned, and sliding out of the window as text does. OUT/window.csv and OUT/window.png

Letters (B, T, P, ...) as at the top of model.py.
"""

import sys
import time
from collections import defaultdict
from copy import copy, deepcopy
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import torch
import torch.nn as nn
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parents[1]))
from pretrain import TASKS  # those of train.py and of the base

from softprompt import prefill
from train import (
    FINAL,
    Arm,
    Experiment,
    arm_of_tokens,
    best_hard_prompt,
    clock,
    command_line,
    guard,
    mean_error,
    mean_of_arms,
    measure,
    new_arm,
    open_lab,
    panels,
    progress,
    say,
    score,
    seed_number,
    train_arms,
    untrained,
    write_picture,
    write_rows,
)

# ------------------------------------------------------------------ what changes the base itself


class InsideBase(nn.Module):
    """What is trained inside of the base: nothing comes before the text.

    To `train.fit` and `train.measure` it is a soft prompt with an empty past. It changes what its
    model computes, so each needs a copy of the base of its own, see `lab_on_a_copy`.
    """

    kind = "weights"

    def past(self, model, pinned=True):
        """The Past of one row without slots."""
        return model.empty_past()


class AllWeights(InsideBase):
    """Fine-tuning all weights of the model that is given."""

    def __init__(self, model):
        super().__init__()
        self.model = model.requires_grad_(True)


class LoRA(InsideBase):
    """LoRA (Hu et al. 2021, arXiv 2106.09685) inside of the model that is given: every attention
    projection W becomes W + 2 up down, with down (rank, in) and up (out, rank). The paper calls
    them A and B. `up` starts at zero, so that the model starts as it is."""

    def __init__(self, model, seed=0, rank=4):
        super().__init__()
        self.down, self.up = nn.ParameterList(), nn.ParameterList()
        generator = torch.Generator().manual_seed(seed)
        for linear in attention_projections(model):
            size = linear.in_features
            down = torch.randn(rank, size, generator=generator) / size**0.5  # (rank, in)
            up = torch.zeros(linear.out_features, rank)  # (out, rank)
            down, up = nn.Parameter(down.to(model.device)), nn.Parameter(up.to(model.device))
            linear.register_forward_hook(added_to_output(down, up))
            self.down.append(down)
            self.up.append(up)


def attention_projections(model):
    """The linear layers of attention: of each layer those of queries, keys, values and output."""
    projections = []
    for block in model.model.layers:
        projections += block.self_attn.children()
    return projections


def added_to_output(down, up):
    """The hook of a linear layer that adds 2 up down x to what it makes of x."""

    def hook(linear, inputs, output):
        [x] = inputs  # (B, T, in)
        return output + 2 * x @ down.T @ up.T  # (B, T, out)

    return hook


def lab_on_a_copy(lab):
    """The same lab with a copy of the base, which may be changed."""
    other = copy(lab)
    other.model = deepcopy(lab.model)
    return other


def numbers_in(soft):
    """How many numbers are trained."""
    return sum(p.numel() for p in soft.parameters())


# ------------------------------------------------------------------ the plan

# The learning rates that each method tries, in units of train.sizes. The best by validation counts:
# at one rate for each, the comparison would be one of rates.
RATES = {
    "prompt": (0.3, 1, 3),
    "prefix": (0.03, 0.1, 0.3),
    "lora": (3e-3, 1e-2, 3e-2),
    "full": (3e-4, 1e-3, 3e-3),
}
BEFORE = ("prompt", "prefix")  # what comes before the text
INSIDE = ("lora", "full")  # what changes the base


@dataclass(frozen=True)
class Plan:
    """How much is done."""

    seeds: int = 2

    # methods
    task_steps: tuple = (("library", 16), ("first-letter-last", 64), ("before-last", 64))
    lengths: tuple = (16, 100)

    # distance
    far_steps: tuple = (("library", 16), ("first-letter-last", 64))
    far_length: int = 16
    far_rate: float = 0.3
    between: tuple = (0, 16, 32, 48, 64, 96, 128, 192)  # tokens between prompt and text


# ------------------------------------------------------------------ experiment 1: methods


def compare_methods(lab, plan, first_seed):
    """Every method at every rate on every task, and what needs no training."""
    results = []
    seeds = range(first_seed, first_seed + plan.seeds)
    for task, steps in plan.task_steps:
        results += without_training(lab, task)
        for method in BEFORE:
            arms = []
            for length in plan.lengths:
                for rate in RATES[method]:
                    arms += [before_arm(lab, task, method, length, rate, seed) for seed in seeds]
            results += learn(lab, arms, steps, f"{task}, {method}")
        for method in INSIDE:
            for rate in RATES[method]:
                for seed in seeds:
                    copied = lab_on_a_copy(lab)
                    arm = inside_arm(copied, task, method, rate, seed)
                    results += learn(copied, [arm], steps, f"{task}, {method}, {rate:g}")
    return results


def without_training(lab, task):
    """Rows of results for what needs no training: those of `train.untrained`, and every hard prompt
    on the test sentences."""
    rows = [{**row, "words": ""} for row in untrained(lab, task)]
    for words in TASKS[task].hard_prompts:
        arm = words_arm(lab, task, "each wording", words)
        [row] = measure(lab, [arm], 0, "test", FINAL)
        rows.append({**row, "words": words})
    return [{**row, "numbers": 0, "rate": 0} for row in rows]


def before_arm(lab, task, method, length, rate, seed):
    """A prompt or a prefix, which comes before the text, at sampled tokens."""
    arm = new_arm(lab, task, method, "vocab", length, rate, seed)
    numbers = numbers_in(arm.soft)
    arm.columns = {"method": method, "length": length, "numbers": numbers, "rate": rate}
    return arm


def inside_arm(lab, task, method, rate, seed):
    """LoRA or all weights of the lab's base, which this changes: give a lab on a copy."""
    soft = LoRA(lab.model, seed) if method == "lora" else AllWeights(lab.model)
    columns = {"method": method, "length": 0, "numbers": numbers_in(soft), "rate": rate}
    return Arm(soft, task, rate, seed, columns)


def learn(lab, arms, steps, title):
    """Train the arms, all of one task; rows of results for how they do in the end."""
    train_arms(lab, arms, steps, title)
    return measure(lab, arms, steps, "valid", FINAL) + measure(lab, arms, steps, "test", FINAL)


def tasks_in(results):
    """The tasks of these rows, each once, in their order."""
    return list(dict.fromkeys(row["task"] for row in results))


class Way(NamedTuple):
    """A way to tell the base what to do."""

    method: str
    length: int  # in virtual tokens
    numbers: int  # that are trained


def ways_in(results):
    """The Ways of these rows, each once, in their order."""
    ways = [Way(row["method"], row["length"], row["numbers"]) for row in results]
    return list(dict.fromkeys(ways))


def accuracies_at_rates(results, task, way, split):
    """{rate: [accuracy of each seed]}"""
    at_rates = defaultdict(list)
    for row in results:
        if (row["task"], row["method"], row["length"]) == (task, way.method, way.length):
            if row["split"] == split:
                at_rates[row["rate"]].append(row["accuracy"])
    return dict(at_rates)


def best_rate(results, task, way):
    """The learning rate with the best mean validation accuracy."""
    at_rates = accuracies_at_rates(results, task, way, "valid")
    return max(at_rates, key=lambda rate: mean(at_rates[rate]))


def accuracy_of(results, task, way, split="test"):
    """(mean accuracy, standard error) at the rate that is best by validation."""
    at_rates = accuracies_at_rates(results, task, way, split)
    return mean_error(at_rates[best_rate(results, task, way)])


def best_of(results, task, methods):
    """The Way of these methods with the best validation accuracy."""
    ways = [way for way in ways_in(results) if way.method in methods]
    return max(ways, key=lambda way: accuracy_of(results, task, way, "valid")[0])


def clearly_above(a, b):
    """Whether one (mean, standard error) is above another by more than two standard errors of the
    difference."""
    error = (a[1] ** 2 + b[1] ** 2) ** 0.5
    return a[0] - b[0] > 2 * error


def weights_clearly_better(results, task):
    """Whether the best change of the weights is clearly better than the best prompt or prefix."""
    soft = best_of(results, task, BEFORE)
    inside = best_of(results, task, INSIDE)
    return clearly_above(accuracy_of(results, task, inside), accuracy_of(results, task, soft))


# ------------------------------------------------------------------ experiment 2: distance


def compare_distances(lab, plan, first_seed):
    """A prompt that was trained right before the text, the best hard prompt, and no prompt, with
    other text between. Pinned, they stay visible; sliding, they leave the window like text."""
    results = []
    for task, steps in plan.far_steps:
        arms = []
        for seed in range(first_seed, first_seed + plan.seeds):
            arm = new_arm(lab, task, "prompt", "related", plan.far_length, plan.far_rate, seed)
            arm.columns = {"method": "prompt", "length": plan.far_length}
            arms.append(arm)
        train_arms(lab, arms, steps, f"distance, {task}")
        arms.append(words_arm(lab, task, "wording", best_hard_prompt(lab, task)))
        arms.append(words_arm(lab, task, "none", ""))
        for pinned in (True, False):
            title = f"distance, {task}, {'pinned' if pinned else 'sliding'}"
            for between in progress(plan.between, len(plan.between), title):
                results += measure_behind(lab, arms, pinned, between, FINAL)
    return results


def words_arm(lab, task, method, words):
    """An instruction in words as a prompt that is not trained."""
    arm = arm_of_tokens(lab, task, lab.tok.encode(words))
    arm.columns = {"method": method, "length": arm.soft.length}
    return arm


@torch.inference_mode()
def measure_behind(lab, arms, pinned, between, n):
    """Rows of results: how each arm does on the first n test sentences, with `between` tokens of
    other sentences between its prompt and the text. `pinned` as in `prefill`."""
    past = prefill([arm.soft for arm in arms], lab.model, pinned)
    filler = other_text(lab, between)
    rows = []
    for arm in arms:
        rows += [(filler + question, answer) for question, answer in lab.rows(arm.task, "test", n)]
    losses, accuracies = mean_of_arms(score(lab.model, past, rows), len(arms))
    where = {"pinned": "yes" if pinned else "no", "between": between}
    where["window"] = lab.model.config.window
    results = []
    for arm, loss, accuracy in zip(arms, losses.tolist(), accuracies.tolist()):
        row = {**arm.columns, **where, "task": arm.task, "seed": arm.seed}
        results.append({**row, "loss": round(loss, 4), "accuracy": round(accuracy, 4)})
    return results


def other_text(lab, length):
    """So many ids of validation sentences: of the last ones, which nothing else is asked of."""
    texts = [sentence.text for sentence in lab.data["valid"][-40:]]
    return lab.tok.encode("\n" + "\n".join(texts))[:length]


def accuracies_by_distance(results, task, method, pinned):
    """{tokens between prompt and text: (mean accuracy, standard error)}"""
    accuracies = defaultdict(list)
    for row in results:
        if (row["task"], row["method"], row["pinned"]) == (task, method, pinned):
            accuracies[row["between"]].append(row["accuracy"])
    return {between: mean_error(values) for between, values in accuracies.items()}


def lost_where_it_slides(results, task):
    """Whether, as far away as was tried, a pinned prompt is not clearly worse than right before the
    text, and clearly better than a sliding one."""
    pinned = accuracies_by_distance(results, task, "prompt", "yes")
    sliding = accuracies_by_distance(results, task, "prompt", "no")
    near, far = min(pinned), max(pinned)
    falls = clearly_above(pinned[near], pinned[far])
    return clearly_above(pinned[far], sliding[far]) and not falls


# ------------------------------------------------------------------ pictures

COLOURS = {  # in all pictures and classes
    "none": "#595959",
    "always": "#A6A6A6",
    "wording": "#000000",
    "prompt": "#44AA99",
    "prefix": "#661100",
    "lora": "#AA4499",
    "full": "#CC6677",
}
LABELS = {
    "none": "no prompt",
    "wording": "best hard prompt",
    "prompt": "prompt of {} vectors",
    "prefix": "prefix of {} vectors",
    "lora": "LoRA",
    "full": "all weights",
}
NEARLY, OUTSIDE = "first-letter-last", "before-last"  # what the base nearly knows, and what not
PRACTISE = {
    NEARLY: "never practised, but its parts were",
    OUTSIDE: "outside of all that was practised",
}
ERRORS = f"bars: one standard error, of the seeds and of {FINAL} test sentences as a sample"
NEAR = {"textcoords": "offset points", "fontsize": 10}  # a text beside a point


def title_of(task):
    """A task in a newcomer's words, and what it is to the base."""
    practised = "practised by the base" if TASKS[task].practised else "never practised"
    return f"{TASKS[task].question}\n({PRACTISE.get(task, practised)})"


def draw_methods(results):
    """A panel for each task, a line for each Way: its accuracy on the test sentences."""
    tasks = tasks_in(results)
    ways = [way for way in ways_in(results) if way.method in LABELS]
    figure, axes = panels(len(tasks), 4, 1.8 + 0.52 * len(ways))
    for axis, task in zip(axes, tasks):
        draw_ways(axis, results, task, ways)
    axes[0].set_yticks(range(len(ways)), [label_of(way) for way in ways])
    for text, way in zip(axes[0].get_yticklabels(), ways):
        text.set_color(COLOURS[way.method])
    figure.suptitle(methods_title(results))
    said = "each at its best learning rate, by validation; " + ERRORS
    figure.supxlabel(said, fontsize=9, color="0.4")
    return figure


def label_of(way):
    """What the picture calls a Way."""
    trained = f"{way.numbers:,} numbers trained" if way.numbers else "nothing trained"
    return f"{LABELS[way.method].format(way.length)}\n{trained}"


def draw_ways(axis, results, task, ways):
    """One panel of `draw_methods`."""
    always, _ = accuracy_of(results, task, Way("always", 0, 0))
    axis.axvline(always, color=COLOURS["always"], ls="--", zorder=0)
    axis.annotate("commonest answer", (always, -0.6), (3, 0), **NEAR, color=COLOURS["always"])
    for y, way in enumerate(ways):
        center, error = accuracy_of(results, task, way)
        axis.axhline(y, color="0.93", zorder=0)
        axis.errorbar(center, y, xerr=error, fmt="o", color=COLOURS[way.method], capsize=3)
        axis.annotate(f"{center:.2f}", (center, y), (0, 5), **NEAR, ha="center")
    axis.set_title(title_of(task), fontsize=11)
    axis.set(xlim=(-0.06, 1.06), xlabel="accuracy on the test sentences")
    axis.set(ylim=(len(ways) - 0.5, -0.9))  # the first on top
    axis.spines["left"].set_visible(False)
    axis.tick_params("y", length=0)


def methods_title(results):
    """The finding and its numbers, where the rows show it clearly."""
    if {NEARLY, OUTSIDE} <= set(tasks_in(results)):
        nearly, beyond = compared(results, NEARLY), compared(results, OUTSIDE)
        as_good = not weights_clearly_better(results, NEARLY)
        if as_good and weights_clearly_better(results, OUTSIDE):
            return (
                "Where the base nearly knows how, a prompt is as good as new weights: "
                f"{nearly} right\nWhere it does not, new weights learn more: {beyond}"
            )
    return "How often each way is right, and how many numbers it trains"


def compared(results, task):
    """The test accuracies of the best prompt or prefix and of the best change of the weights."""
    soft = accuracy_of(results, task, best_of(results, task, BEFORE))
    inside = accuracy_of(results, task, best_of(results, task, INSIDE))
    return f"{soft[0]:.2f} and {inside[0]:.2f}"


def draw_distances(results):
    """A column of panels for each task, a row for prompts and one for hard prompts: the accuracy
    over the tokens between prompt and text."""
    tasks = tasks_in(results)
    figure = Figure(figsize=(1 + 4.6 * len(tasks), 7.2), layout="constrained")
    axes = figure.subplots(2, len(tasks), squeeze=False)
    for row, method in zip(axes, ("prompt", "wording")):
        for axis, task in zip(row, tasks):
            draw_distance(axis, results, task, method)
    for axis, task in zip(axes[0], tasks):
        axis.set_title(title_of(task), fontsize=11)
    axes[0, 0].set_ylabel("accuracy with a trained prompt", color=COLOURS["prompt"])
    axes[1, 0].set_ylabel("accuracy with the best hard prompt", color=COLOURS["wording"])
    for axis in axes[1]:
        axis.set_xlabel("tokens of other text between prompt and question")
    figure.suptitle(window_title(results))
    figure.supxlabel(ERRORS, fontsize=9, color="0.4")
    return figure


def draw_distance(axis, results, task, method):
    """One panel of `draw_distances`."""
    colour = COLOURS[method]
    window = results[0]["window"]
    axis.axvline(window, color="0.8", ls=":", zorder=0)
    said = f"window: {window} tokens,\nthe question's included"
    axis.annotate(said, (window, 1.16), (4, 0), **NEAR, va="top", color="0.5")
    none = draw_line(axis, results, task, "none", "no", color="0.8", lw=7)
    pinned = draw_line(axis, results, task, method, "yes", color=colour, lw=2.5, marker="o")
    look = {"color": colour, "ls": "--", "marker": "o", "mfc": "white"}
    sliding = draw_line(axis, results, task, method, "no", **look)

    first, last = min(none), max(none)
    axis.annotate("no prompt", (first, none[first]), (0, -16), **NEAR, color="0.45")
    axis.annotate("pinned", (last, pinned[last]), (0, 10), **NEAR, ha="right", color=colour)
    place = between_lines(pinned, sliding, none)
    axis.annotate("sliding", place, (6, -4), **NEAR, color=colour)
    axis.set(ylim=(-0.14, 1.18), xticks=list(none))
    axis.spines[["top", "right"]].set_visible(False)


SHOWN = {"yes": "pinned", "no": "sliding"}


def draw_line(axis, results, task, method, pinned, **look):
    """Draw accuracies over distances, with standard errors; return {distance: accuracy}."""
    points = accuracies_by_distance(results, task, method, pinned)
    accuracies = {x: accuracy for x, (accuracy, _) in points.items()}
    errors = [error for _, error in points.values()]
    look |= {"capsize": 3, "elinewidth": 1, "label": f"{method}, {SHOWN[pinned]}"}
    axis.errorbar(list(accuracies), list(accuracies.values()), errors, **look)
    return accuracies


def between_lines(pinned, sliding, none):
    """A place for a name beside the sliding line: half way between the lines of pinned and of no
    prompt, where it has first come nearer to the latter; else at its end."""
    for x, accuracy in sliding.items():
        middle = (pinned[x] + none[x]) / 2
        if accuracy < middle:
            return x, middle
    return max(sliding), sliding[max(sliding)]


def window_title(results):
    """The finding, where the rows show it clearly, and its numbers."""
    tasks = tasks_in(results)
    far = max(row["between"] for row in results)
    finding = "A prompt with other text between it and the question"
    if all(lost_where_it_slides(results, task) for task in tasks):
        finding = "A prompt that slides out of the window is lost; a pinned one works from afar"
    numbers = (
        f"pinned {far_accuracies(results, 'prompt', 'yes')} right; "
        f"sliding {far_accuracies(results, 'prompt', 'no')}; "
        f"no prompt {far_accuracies(results, 'none', 'no')}"
    )
    return f"{finding}\n{far} tokens away, {numbers}"


def far_accuracies(results, method, pinned):
    """The accuracies of all tasks as far away as was tried, as a text."""
    found = []
    for task in tasks_in(results):
        accuracies = accuracies_by_distance(results, task, method, pinned)
        accuracy, _ = accuracies[max(accuracies)]
        found.append(f"{accuracy:.2f}")
    return " and ".join(found)


# ------------------------------------------------------------------ the command line


EXPERIMENTS = {
    "methods": Experiment(compare_methods, draw_methods),
    "window": Experiment(compare_distances, draw_distances),
}


def main(arguments=None):
    """Both experiments; the second only where there is a window to slide out of."""
    parser = command_line("methods.py", __doc__)
    parser.add_argument("--seed", type=seed_number, default=0, help="the first of the seeds (0)")
    settings = parser.parse_args(arguments)
    started = time.time()
    lab, experiments = open_lab(settings), dict(EXPERIMENTS)
    if lab.model.config.window is None:
        say("this base has no window that a prompt could slide out of: no distances are tried")
        del experiments["window"]
    for name, experiment in experiments.items():
        rows = experiment.run(lab, Plan(), settings.seed)
        write_rows(Path(settings.out, f"{name}.csv"), rows)
        write_picture(Path(settings.out, f"{name}.png"), experiment.draw, rows)
    say(f"Done in {clock(time.time() - started)} minutes.")


if __name__ == "__main__":
    guard(main)
