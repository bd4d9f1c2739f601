"""Draw figures/idea.png, the picture at the top of the README: a prompt beside a prefix.

python tutorials/classroom/idea.py
"""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from plots import LOOKS

from train import guard, write_picture

FROZEN, INK = "#E6E6E6", "#333333"
FOOTER = (
    "task: the first letter of the last word.   coloured: learned.   grey: the frozen model.   "
    "arrows: every word looks back at what was learned"
)
VIRTUAL = 3  # virtual tokens drawn
WORDS = ("Return", "the", "graph", "->")
LAYERS = 3


def box(axis, x, y, colour, text="", ink=INK):
    """A box one cell wide, with its text in the middle."""
    style = "round,pad=0,rounding_size=0.12"
    axis.add_patch(
        FancyBboxPatch((x - 0.42, y - 0.3), 0.84, 0.6, boxstyle=style, fc=colour, ec="w")
    )
    axis.text(x, y, text, ha="center", va="center", fontsize=9, color=ink)


def draw_base(axis):
    """The text's tokens, the frozen layers above them, and the answer on top."""
    for i, word in enumerate(WORDS):
        x = VIRTUAL + 0.5 + i
        box(axis, x, 0, "white", word)
        for layer in range(1, LAYERS + 1):
            box(axis, x, layer, FROZEN)
    last = VIRTUAL + 0.5 + len(WORDS) - 1
    axis.annotate("g", (last, LAYERS + 1.15), ha="center", fontsize=13, weight="bold")
    sees = {"arrowstyle": "->", "color": "0.5", "connectionstyle": "arc3,rad=-0.08"}
    for layer in range(1, LAYERS + 1):
        axis.annotate("", (last, layer + 0.3), (1, layer + 0.3), arrowprops=sees)
    arrow = {"arrowstyle": "->", "color": INK}
    axis.annotate("", (last, LAYERS + 1), (last, LAYERS + 0.35), arrowprops=arrow)
    for layer in range(1, LAYERS + 1):
        axis.text(VIRTUAL + len(WORDS) + 0.15, layer, f"layer {layer}", va="center", fontsize=9)
    axis.text(VIRTUAL + len(WORDS) + 0.15, 0, "text", va="center", fontsize=9)


def draw_prompt(axis):
    colour = LOOKS["prompt"].colour
    for p in range(VIRTUAL):
        box(axis, p, 0, colour, "vector", "white")
        for layer in range(1, LAYERS + 1):
            box(axis, p, layer, FROZEN)
    axis.set_title("prompt tuning: learn vectors in the place of words", color=colour)


def draw_prefix(axis):
    colour = LOOKS["prefix"].colour
    for p in range(VIRTUAL):
        for layer in range(1, LAYERS + 1):
            box(axis, p, layer, colour, "key,\nvalue", "white")
    axis.set_title("prefix tuning: learn keys and values in every layer", color=colour)


def draw_idea():
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for axis, draw in zip(figure.subplots(1, 2), (draw_prompt, draw_prefix)):
        draw_base(axis)
        draw(axis)
        axis.set(xlim=(-0.6, VIRTUAL + len(WORDS) + 1.2), ylim=(-0.5, LAYERS + 1.6))
        axis.axis("off")
    figure.supxlabel(FOOTER, fontsize=10)
    return figure


if __name__ == "__main__":
    path = Path(__file__).parents[1] / "figures" / "idea.png"
    guard(lambda: write_picture(path, draw_idea))
