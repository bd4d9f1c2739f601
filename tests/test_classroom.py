"""What the classes share: pictures of rows, the judge of exercises, flash and ring attention."""

import math
import sys
from collections import Counter
from statistics import median

import checks
import flash
import matplotlib
import plots
import pytest
import ring
import shared
import torch
import torch.nn.functional as F
from conftest import CLASSROOM, EXPERIMENTS, ROOT, TUTORIALS
from matplotlib import pyplot
from matplotlib.colors import same_color

from model import Past
from softprompt import PromptTuning
from train import STARTS, TASKS, read_rows

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def no_figure_is_left():
    yield
    pyplot.close("all")


def test_no_file_stands_in_the_way_of_another():
    """Scripts and classes put several folders into Python's path."""
    names = Counter()
    for folder in (ROOT, TUTORIALS, EXPERIMENTS, CLASSROOM, ROOT / "tests"):
        names.update(path.stem for path in folder.glob("*.py"))
    assert set(names.values()) == {1}
    assert not set(names) & sys.stdlib_module_names


def test_a_table_is_named_as_its_experiment():
    assert {path.stem for path in EXPERIMENTS.glob("*.csv")} >= {"starts", "vectors"}
    assert shared.table("starts") == EXPERIMENTS / "starts.csv"


def test_vectors_are_counted_from_one():
    """In the table 0 means that none is hidden, and hiding costs answers."""
    rows = read_rows(shared.table("vectors"))
    assert {row["vector"] for row in rows} == set(range(17))
    assert {row["layer"] for row in read_rows(shared.table("attention"))} == {1, 2, 3, 4}


# ------------------------------------------------------------------ plots: lines

# Of two starts, at two rates, two seeds; in two tasks.
HEIGHTS = {
    ("swap-1", "related"): {1: (2, 4), 4: (1, 2)},
    ("swap-1", "my own"): {1: (8, 6), 4: (4, 8)},
    ("library", "related"): {1: (1, 1), 4: (3, 1)},
}
ROWS = []
for (task, start), rates in HEIGHTS.items():
    for rate, steps in rates.items():
        for seed, height in enumerate(steps):
            row = {"task": task, "start": start, "rate": rate, "seed": seed, "steps": height}
            ROWS.append(row)


def drawn(axis):
    """{colour: (the points of the line, the points of the small dots)} of the lines in an axis."""
    found = {}
    for line in axis.get_lines():
        points = found.setdefault(line.get_color(), ([], []))
        points[line.get_marker() == "."].extend(map(tuple, line.get_xydata()))
    return found


def texts_of(axis):
    """{text: its colour}"""
    return {text.get_text(): text.get_color() for text in axis.texts}


def test_lines_go_through_the_averages_of_the_seeds():
    rows = [row for row in ROWS if row["task"] == "swap-1"]
    plots.lines(rows, "rate", "steps", "start", "Two starts", log=True)
    [axis] = pyplot.gcf().axes
    known = STARTS["related"].colour
    assert drawn(axis) == {
        known: ([(1, 3), (4, 1.5)], [(1, 2), (1, 4), (4, 1), (4, 2)]),
        "C1": ([(1, 7), (4, 6)], [(1, 8), (1, 6), (4, 4), (4, 8)]),
    }
    assert texts_of(axis) == {STARTS["related"].label: known, "my own": "C1"}
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("rate", "steps")
    assert axis.get_xscale() == "log"
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["1", "4"]
    assert pyplot.gcf().get_suptitle() == "Two starts"


def test_lines_have_a_panel_for_each_value_and_one_height_for_all():
    rows = [{**row, "steps": row["steps"] ** 2} for row in ROWS]  # mean and median differ
    rows += [{**row, "seed": 2, "steps": 100} for row in rows[:2]]
    plots.lines(rows, "rate", "steps", "start", "By task", panel="task", average=median)
    left, right = pyplot.gcf().axes
    names = [axis.get_title() for axis in (left, right)]
    assert names == [TASKS["swap-1"].label, TASKS["library"].label]
    line, _ = drawn(left)[STARTS["related"].colour]
    assert line == [(1, 58), (4, 2.5)]  # of 4, 16, 100 and 100; of 1 and 4
    assert left.get_ylim() == right.get_ylim() and left.get_ylim()[1] >= 100
    assert left.get_ylabel() == "steps" and right.get_ylabel() == ""
    assert set(texts_of(right)) == {STARTS["related"].label}


def test_levels_are_dashed_lines_with_their_names():
    levels = {"wording": 0.4, "a guess": 0.5}
    rows = [{"x": x, "y": x / 4, "by": "prompt"} for x in (1, 2)]
    plots.lines(rows, "x", "y", "by", "With words", levels=levels)
    [axis] = pyplot.gcf().axes
    dashed = {}
    for line in axis.get_lines():
        if line.get_linestyle() == "--":
            dashed[line.get_ydata()[0]] = line.get_color()
    assert dashed == {0.4: plots.LOOKS["wording"].colour, 0.5: "0.4"}
    assert texts_of(axis) == {
        "prompt tuning": plots.LOOKS["prompt"].colour,
        "best hard prompt": plots.LOOKS["wording"].colour,
        "a guess": "0.4",
    }


def test_looks_of_ones_own_take_the_place_of_ours():
    looks = {"related": plots.Look("mine", "#123456")}
    plots.lines(ROWS[:4], "rate", "steps", "start", "Mine", looks=looks)
    [axis] = pyplot.gcf().axes
    assert texts_of(axis) == {"mine": "#123456"} and list(drawn(axis)) == ["#123456"]


def test_a_thing_has_one_colour_and_no_two_things_have_the_same():
    names = [*STARTS, "first-letter-last", "swap-1", "swap-4", "library"]
    names += ["none", "always", "wording", "prompt", "prefix", "lora", "full"]
    colours = [plots.LOOKS[name].colour for name in names]
    assert len(set(colours)) == len(names)
    for name, entry in {**STARTS, **TASKS}.items():
        assert plots.LOOKS[name] is entry


# ------------------------------------------------------------------ plots: dots


def test_dots_are_seeds_and_the_large_one_is_their_mean():
    rows = [row for row in ROWS if row["task"] == "swap-1" and row["rate"] == 1]
    plots.dots(rows, "start", "steps", "Steps")
    [axis] = pyplot.gcf().axes
    points = {".": [], "o": []}
    for line in axis.get_lines():
        if line.get_marker() in points:
            points[line.get_marker()].append((line.get_color(), line.get_xydata().tolist()))
    known = STARTS["related"].colour
    assert points["."] == [(known, [[2, 0], [4, 0]]), ("C1", [[8, 1], [6, 1]])]
    assert points["o"] == [(known, [[3, 0]]), ("C1", [[7, 1]])]
    assert list(texts_of(axis)) == ["3.00", "7.00"]
    names = [tick.get_text() for tick in axis.get_yticklabels()]
    assert names == [STARTS["related"].label, "my own"]
    assert axis.get_xlabel() == "steps"
    low, high = axis.get_ylim()
    assert low > 1 > 0 > high, "the first one is not on top"


def test_panels_of_dots_share_their_axis():
    plots.dots(ROWS, "rate", "steps", "Steps", panel="task")
    left, right = pyplot.gcf().axes
    assert left.get_xlim() == right.get_xlim()
    assert left.get_xlim()[0] < 1 and left.get_xlim()[1] > 8
    names = [axis.get_title() for axis in (left, right)]
    assert names == [TASKS["swap-1"].label, TASKS["library"].label]


# ------------------------------------------------------------------ plots: squares and masks


def test_squares_are_as_dark_as_their_numbers_and_large_ones_are_written():
    grid = [[0.0, 0.09, 0.1], [0.5, 0.75, 1.0]]
    plots.squares(grid, ["a", "b"], [1, 2, 3], "Squares")
    [axis] = pyplot.gcf().axes
    [image] = axis.images
    assert image.get_array().tolist() == grid and image.get_clim() == (0, 1)
    written = {text.get_position(): (text.get_text(), text.get_color()) for text in axis.texts}
    assert written == {
        (2, 0): ("0.1", "black"),
        (0, 1): ("0.5", "black"),
        (1, 1): ("0.75", "white"),
        (2, 1): ("1", "white"),
    }
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["1", "2", "3"]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["a", "b"]


def test_squares_of_another_size_have_another_scale():
    plots.squares([[9, 10, 61]], ["a"], "xyz", "To a hundred", most=100)
    [axis] = pyplot.gcf().axes
    assert axis.images[0].get_clim() == (0, 100)
    assert texts_of(axis) == {"10": "black", "61": "white"}


def test_a_mask_shows_which_key_each_query_sees():
    seen = [[True, False, False], [True, True, False]]
    plots.mask(seen, "Who sees whom?")
    [axis] = pyplot.gcf().axes
    [squares] = axis.collections
    pyplot.gcf().canvas.draw()
    colours = squares.get_facecolors()  # row by row
    white = [same_color(colour, "white") for colour in colours]
    assert white == [not square for line in seen for square in line]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["1", "2", "3"]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["1", "2"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("key", "query")
    low, high = axis.get_ylim()
    assert low > high, "the first query is not on top"


def test_the_names_in_a_mask_are_those_that_are_given():
    plots.mask(torch.eye(2).bool(), "Names", queries=["a", "b"], keys=["c", "d"])
    [axis] = pyplot.gcf().axes
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["c", "d"]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["a", "b"]


# ------------------------------------------------------------------ the judge


def past(position):
    return Past([torch.ones(1, 1, 1, 2)], [torch.ones(1, 1, 1, 2)], torch.tensor([[position]]),
                torch.tensor([1]))  # fmt: skip


@pytest.mark.parametrize(
    "ours, alike, different",
    [
        (1.0, [1, 1.0 + 1e-6], [2, None, "1.0", [1.0], True + 1]),
        (math.inf, [math.inf], [1e9, math.nan]),
        (3, [3], [4, 3.5, None]),
        (None, [None], [0, False, []]),
        (True, [True], [False, 1, None]),
        ([1.0, "a"], [[1.0, "a"], (1.0, "a")], [[1.0], ["a", 1.0], None]),
        ({"a": 1}, [{"a": 1}], [{"a": 2}, {"b": 1}, None]),
        (torch.ones(2), [torch.ones(2)], [torch.ones(3), torch.zeros(2), [1.0, 1.0], None]),
        (torch.ones(2), [torch.ones(2, requires_grad=True)], [torch.ones(2, 1)]),
        (torch.tensor(math.nan), [torch.tensor(math.nan)], [torch.tensor(0.0)]),
        (past(3), [past(3)], [past(4), None]),
        (PromptTuning(torch.ones(2, 3)), [PromptTuning(torch.ones(2, 3))],
         [PromptTuning(torch.zeros(2, 3)), None]),
    ],
)  # fmt: skip
def test_results_are_compared_by_their_values(ours, alike, different):
    assert all(checks.same(got, ours) for got in alike)
    assert not any(checks.same(got, ours) for got in different)


@pytest.fixture
def adding(monkeypatch):
    """An exercise with an input that can be changed: to add 1 to each number of a list."""

    def plus_one(numbers):
        return [number + 1 for number in numbers]

    class Exercises:
        add = staticmethod(plus_one)
        add_inputs = staticmethod(lambda: [([1, 2],), ([3],)])
        add_mistakes = {"you take 1 away": lambda numbers: [number - 1 for number in numbers]}

    monkeypatch.setattr(checks, "CLASSES", [Exercises])


def in_place(numbers):
    for i, number in enumerate(numbers):
        numbers[i] = number + 1
    return list(numbers)


def only_the_first(numbers):
    return [numbers[0] + 1]


@pytest.mark.parametrize(
    "student, said",
    [
        (lambda numbers: [1 + number for number in numbers], "right"),
        (lambda numbers: [number - 1 for number in numbers], "not yet: you take 1 away"),
        (only_the_first, "not yet: for ([1, 2]) you return [2], it should be [2, 3]"),
        (in_place, "not yet: your function changes what it is given; return something new"),
        (lambda numbers: numbers.nothing, "not yet: your function stopped with AttributeError"),
        (lambda numbers, more: numbers, "not yet: your function stopped with TypeError"),
        (lambda numbers: None, "not yet: for ([1, 2]) you return None, it should be [2, 3]"),
    ],
)
def test_the_judge_says_what_is_wrong(adding, student, said):
    student.__name__ = "add"
    assert checks.check(student).startswith(said)


# ------------------------------------------------------------------ flash and ring


@pytest.mark.parametrize("tile", [3, 16, 64])
def test_flash_is_full_attention(tile):
    gen = torch.Generator().manual_seed(0)
    for B, H, Hkv, T, D in ((1, 2, 2, 1, 4), (2, 4, 2, 37, 8), (1, 6, 2, 64, 4)):
        parts = []
        for heads in (H, Hkv, Hkv):
            x = torch.randn(B, heads, T, D, generator=gen, dtype=torch.double)
            parts.append(x.requires_grad_())
        weight = torch.randn(B, H, T, D, generator=gen, dtype=torch.double)
        full = F.scaled_dot_product_attention(*parts, is_causal=True, enable_gqa=True)
        ours = flash.flash_attention(*parts, tile=tile)
        assert torch.allclose(ours, full, atol=1e-9)
        want = torch.autograd.grad((full * weight).sum(), parts)
        got = torch.autograd.grad((ours * weight).sum(), parts)
        assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(want, got))


@pytest.fixture
def queries_keys_values():
    gen = torch.Generator().manual_seed(0)
    return [torch.randn(1, heads, 64, 4, generator=gen) for heads in (6, 2, 2)]


def test_strided_attention_is_attention_with_a_mask(queries_keys_values):
    with pytest.raises(ValueError, match="stride"):
        flash.strided_attention(*queries_keys_values, 7)
    back = torch.arange(64)[:, None] - torch.arange(64)  # (T, S): how far back the key is
    seen = (back >= 0) & ((back < 8) | (back % 8 == 0))  # (T, S)
    want = F.scaled_dot_product_attention(*queries_keys_values, attn_mask=seen, enable_gqa=True)
    assert torch.allclose(flash.strided_attention(*queries_keys_values, 8), want, atol=1e-5)


def test_ring_is_full_attention(queries_keys_values):
    full = F.scaled_dot_product_attention(*queries_keys_values, is_causal=True, enable_gqa=True)
    out, sent = ring.spawned(*queries_keys_values, 3)  # 64 tokens in parts of 22, 21 and 21
    assert torch.allclose(out, full, atol=1e-5)
    _, k, v = queries_keys_values
    assert sum(sent) == 2 * (k.nbytes + v.nbytes)  # each part travels R - 1 times
