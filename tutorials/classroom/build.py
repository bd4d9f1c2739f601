"""Both forms of each class, from the one text in lessons/.

    python tutorials/classroom/build.py [NUMBER...]             the class copies
    python tutorials/classroom/build.py --solved [NUMBER...]    the solved copies, run (minutes)

A class copy, tutorials/N_NAME.ipynb, has no outputs. Its exercises are empty, the titles of its
figures ask, and what there is to notice is folded away until somebody opens it. A solved copy,
tutorials/solved/N_NAME.ipynb, is for reading on the web: solutions in place, titles that say what
was found, all outputs. --solved needs jupyter.

A lesson is a Python file. `# %%` begins a cell of code, `# %% [markdown]` a cell of text, which is
one string. Three things differ between the forms:

- a function under `@exercise` has no body in the lesson; the solved copy takes the one of its name
  from exercises/.
- `title = "a question"` is followed by `found = "what was found"`: the class copy leaves `found`
  out, the solved copy gives it to `title`.
- a paragraph that begins with `**What to notice.**` is folded in the class copy.
"""

import ast
import inspect
import json
import math
import re
from pathlib import Path
from typing import NamedTuple

import checks
import shared

from model import InputError, require_writable
from train import guard, say, script_parser, write_text

CLASSROOM = Path(__file__).parent
TUTORIALS = CLASSROOM.parent
LESSONS = sorted((CLASSROOM / "lessons").glob("[0-9]_*.py"))
NOTICE = "**What to notice.**"


class Cell(NamedTuple):
    kind: str  # code or markdown
    text: str


# ------------------------------------------------------------------ a lesson


def read_lesson(path):
    """The cells of a lesson: [Cell]. What stands before the first one is for Python alone."""
    cells = []
    for part in re.split(r"^# %%", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        mark, _, text = part.partition("\n")
        kind = "markdown" if "[markdown]" in mark else "code"
        if kind == "markdown":
            text = ast.literal_eval(text.strip())
        cells.append(Cell(kind, text.strip("\n")))
    return cells


def statements(code):
    """[(the statement, its lines from, its lines up to)], lines counted from 0."""
    found = []
    for node in ast.parse(code).body:
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno] + [decorator.lineno for decorator in decorators])
        found.append((node, first - 1, node.end_lineno))
    return found


def assigned(node):
    """The name to which a statement gives a value, or None."""
    plain = isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    return node.targets[0].id if plain else None


def is_exercise(node):
    if not isinstance(node, ast.FunctionDef):
        return False
    return "exercise" in [getattr(decorator, "id", None) for decorator in node.decorator_list]


# ------------------------------------------------------------------ the two forms


def class_copy(cells):
    """The cells of the class copy."""
    return [Cell(kind, CLASS_COPY[kind](text)) for kind, text in cells]


def without_findings(code):
    lines = code.split("\n")
    for node, first, last in reversed(statements(code)):
        if assigned(node) == "found":
            del lines[first:last]
    return "\n".join(lines)


def folded(text):
    """Text whose first paragraph, "What to notice", has to be opened."""
    if not text.startswith(NOTICE):
        return text
    notice, _, rest = text.partition("\n\n")
    notice = notice.removeprefix(NOTICE).strip()
    summary = "<details><summary>What to notice (open it after your run)</summary>"
    return f"{summary}\n\n{notice}\n\n</details>\n\n{rest}".strip()


CLASS_COPY = {"code": without_findings, "markdown": folded}


def solved_copy(cells):
    """The cells of the solved copy."""
    return [Cell(kind, SOLVED_COPY[kind](text)) for kind, text in cells]


def with_solutions_and_findings(code):
    lines = code.split("\n")
    for node, first, last in reversed(statements(code)):
        if is_exercise(node):
            solution = inspect.getsource(checks.ours(node.name))
            lines[first:last] = ["@exercise", *solution.rstrip().split("\n")]
        elif assigned(node) == "title":
            del lines[first:last]
        elif assigned(node) == "found":
            lines[first] = lines[first].replace("found = ", "title = ", 1)
    return one_folder_down("\n".join(lines))


def one_folder_down(code):
    return code.replace('"classroom")', '"../classroom")')


def links_one_folder_down(text):
    """Markdown whose links to files lead from solved/ to where they led from its parent."""
    return re.sub(r"\]\((?!http|#)", "](../", text)


SOLVED_COPY = {"code": with_solutions_and_findings, "markdown": links_one_folder_down}


# ------------------------------------------------------------------ how long a class takes

WORDS_A_MINUTE, LINES_A_MINUTE, MINUTES_AN_EXERCISE, MINUTES_A_FIGURE = 110, 10, 8, 1.5
HOMEWORK = "## Homework"


def class_minutes(cells):
    """Minutes in class, homework not counted: reading text and code, exercises and figures."""
    minutes = 0
    for kind, text in cells:
        if text.startswith(HOMEWORK):
            break
        if kind == "markdown":
            minutes += len(text.split()) / WORDS_A_MINUTE
            continue
        lines = [line for line in text.split("\n") if line.strip()]
        minutes += len(lines) / LINES_A_MINUTE
        for node, _, _ in statements(text):
            minutes += MINUTES_AN_EXERCISE * is_exercise(node)
            minutes += MINUTES_A_FIGURE * (assigned(node) == "title")
    return math.ceil(minutes)


# ------------------------------------------------------------------ notebooks


def notebook(cells):
    """Cells as the text of a notebook without outputs."""
    written = []
    for number, (kind, text) in enumerate(cells):
        cell = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}}
        if kind == "code":
            cell |= {"execution_count": None, "outputs": []}
        written.append({**cell, "source": text.splitlines(keepends=True)})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {"cells": written, "metadata": {"kernelspec": kernel}}
    content |= {"nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def run(text, folder):
    """The text of a notebook, with what its cells print and draw. Raises InputError without
    jupyter."""
    try:
        import nbclient
        import nbformat
    except ImportError as missing:
        raise InputError(f"{missing}: pip install jupyter") from missing
    content = nbformat.reads(text, 4)
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(content, timeout=None, resources=resources).execute()
    for cell in content.cells:
        cell.metadata = {}  # when it ran, and for how long
        if "outputs" in cell:  # progress, in seconds of this machine, is not kept
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return nbformat.writes(content) + "\n"


def class_copy_of(lesson):
    return TUTORIALS / f"{lesson.stem}.ipynb"


def solved_copy_of(lesson):
    return TUTORIALS / "solved" / f"{lesson.stem}.ipynb"


def build(lesson, solved):
    cells = read_lesson(lesson)
    write_text(class_copy_of(lesson), notebook(class_copy(cells)))
    if solved:
        path = solved_copy_of(lesson)
        require_writable(path)
        write_text(path, run(notebook(solved_copy(cells)), path.parent))


def main(arguments=None):
    parser = script_parser("build.py", __doc__)
    every = [lesson.name[0] for lesson in LESSONS]
    parser.add_argument("numbers", nargs="*", metavar="NUMBER", help="these classes alone")
    parser.add_argument("--solved", action="store_true", help="run the solved copies as well")
    settings = parser.parse_args(arguments)
    for number in settings.numbers:
        if number not in every:
            raise InputError(f"class {number!r}: there are {', '.join(every)}")
    if settings.solved:
        shared.write_test_marks(shared.open_lab())
    for lesson in LESSONS:
        if lesson.name[0] in (settings.numbers or every):
            say(f"{lesson.stem}: {class_minutes(read_lesson(lesson))} minutes in class")
            build(lesson, settings.solved)


if __name__ == "__main__":
    guard(main)
