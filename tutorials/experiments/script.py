"""What the experiments share: the lab that they open, and where they leave their rows.

An experiment is a file with `run(lab) -> rows`. As a program it writes these rows to a table of its
own name beside it, and a picture into tutorials/figures where README or RESULTS shows one. The
classes read the tables.
"""

import sys
from pathlib import Path

TUTORIALS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TUTORIALS), str(TUTORIALS.parent)]

import pretrain  # noqa: E402, F401  adds the tasks that only the base practised

import train  # noqa: E402

FIGURES = TUTORIALS / "figures"
SEEDS = range(5)


def table_of(name):
    """The table that the experiment of this name leaves."""
    return Path(__file__).with_name(f"{name}.csv")


def run_script(name, run, draw=None):
    """The program of an experiment."""

    def work():
        about = sys.modules["__main__"].__doc__
        settings = train.command_line(f"{name}.py", about).parse_args()
        rows = run(train.open_lab(settings))
        train.write_rows(table_of(name), rows)
        if draw:
            train.write_picture(FIGURES / f"{name}.png", draw, rows)

    train.guard(work)
