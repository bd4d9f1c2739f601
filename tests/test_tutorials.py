"""The classes: two forms of one text, their exercises, and (as a program) that they run.

python tests/test_tutorials.py [NUMBER...]     run both forms from top to bottom, minutes
"""

import ast
import functools
import importlib
import inspect
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tutorials"
CLASSROOM = FOLDER / "classroom"
sys.path[:0] = [str(CLASSROOM), str(FOLDER), str(ROOT)]

import shared  # noqa: E402
from build import (  # noqa: E402
    HOMEWORK,
    LESSONS,
    assigned,
    class_copy,
    class_copy_of,
    class_minutes,
    folded,
    is_exercise,
    notebook,
    read_lesson,
    solved_copy,
    solved_copy_of,
    statements,
    with_solutions_and_findings,
    without_findings,
)
from checks import check, exercise, ours  # noqa: E402

from train import FINAL  # noqa: E402

EACH = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)

# What a notebook imports and does not write again. (flash and ring it builds, and then imports.)
OURS = [ROOT / f"{name}.py" for name in ("model", "softprompt", "train")]
OURS += [FOLDER / f"{name}.py" for name in ("own_data", "huggingface")]
OURS += [CLASSROOM / f"{name}.py" for name in ("shared", "plots")]
OURS += sorted((FOLDER / "experiments").glob("*.py"))


def stored(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def code_of(cells):
    return [text for kind, text in cells if kind == "code"]


def prose_of(cells):
    return [text for kind, text in cells if kind == "markdown"]


def names_defined(code):
    """The names of the functions and classes at the top level."""
    body = ast.parse(code).body
    return {node.name for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


# ------------------------------------------------------------------ two forms of one lesson


@EACH
def test_the_class_copy_is_the_lesson_without_outputs(lesson):
    written = class_copy_of(lesson).read_text(encoding="utf-8")
    assert written == notebook(class_copy(read_lesson(lesson))), "run classroom/build.py"
    assert all(not cell.get("outputs") for cell in stored(class_copy_of(lesson)))


@EACH
def test_the_solved_copy_is_the_lesson_with_solutions(lesson):
    want = solved_copy(read_lesson(lesson))
    cells = stored(solved_copy_of(lesson))
    got = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    assert got == want, "run classroom/build.py --solved"


def test_a_lesson_becomes_a_question_or_an_answer():
    code = 'title = "Which?"\nfound = (\n    f"{1} is"\n)\nx = 1'
    assert without_findings(code) == 'title = "Which?"\nx = 1'
    assert with_solutions_and_findings(code) == 'title = (\n    f"{1} is"\n)\nx = 1'
    stub = "x = 1\n@exercise\ndef longest_prompt(n_parameters, n_embd, share):\n    pass\ny = 2"
    solved = with_solutions_and_findings(stub)
    assert "return int(share * n_parameters / n_embd)" in solved
    assert solved.startswith("x = 1\n@exercise\ndef longest") and solved.endswith("\ny = 2")
    text = folded("**What to notice.** It is red.\n\n## 2. Next\n\n**What to notice.** No.")
    assert text.startswith("<details>") and text.index("red") < text.index("</details>")
    assert text.endswith("</details>\n\n## 2. Next\n\n**What to notice.** No.")


@EACH
def test_titles_ask_in_class_and_tell_in_the_solved_copy(lesson):
    for code in code_of(read_lesson(lesson)):
        named = [assigned(node) for node, _, _ in statements(code)]
        assert named.count("title") == named.count("found"), code
    for code in code_of(class_copy(read_lesson(lesson))):
        for node, _, _ in statements(code):
            if assigned(node) == "title":
                assert ast.literal_eval(node.value).endswith("?"), "a title asks"


# ------------------------------------------------------------------ what is stored


@EACH
def test_stored_outputs_are_one_run_without_errors(lesson):
    code = [cell for cell in stored(solved_copy_of(lesson)) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = []
    for cell in code:
        outputs += cell["outputs"]
    assert all(output["output_type"] != "error" for output in outputs)
    assert all(output.get("name") != "stderr" for output in outputs), "progress and warnings"
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert solved_copy_of(lesson).stat().st_size < 1_000_000


@EACH
def test_stored_outputs_hold_no_path_of_a_machine(lesson):
    said = []
    for cell in stored(solved_copy_of(lesson)):
        for output in cell.get("outputs", []):
            data = {**output.get("data", {}), "image/png": ""}
            said.append({**output, "data": data})
    text = json.dumps(said)
    assert not re.search(r"/(home|root|tmp|work|Users|mnt)/|site-packages|[A-Z]:\\\\", text)


@EACH
def test_every_exercise_is_right_in_the_solved_copy(lesson):
    for cell in stored(solved_copy_of(lesson)):
        if "@exercise" in "".join(cell["source"]):
            said = "".join("".join(output.get("text", "")) for output in cell["outputs"])
            assert said == "right\n"


@EACH
def test_cells_are_few_short_and_plain(lesson):
    cells = read_lesson(lesson)
    code, prose = code_of(cells), prose_of(cells)
    for text in prose:
        for notice in re.findall(r"\*\*What to notice\.\*\*.*?(?=\n\n|\Z)", text, re.DOTALL):
            assert len(notice.split()) <= 110, notice
            assert text.startswith("**What to notice.**"), "only at the beginning is it folded"
    for text in code:
        lines = text.split("\n")
        assert len(lines) <= 20 and max(map(len, lines)) <= 100, lines[0]
        assert not any(line.lstrip().startswith(("%", "!", "?")) for line in lines), "magic"


@EACH
def test_a_class_fits_into_45_minutes(lesson):
    assert class_minutes(read_lesson(lesson)) <= 45
    said = (FOLDER / "README.md").read_text(encoding="utf-8")
    [row] = re.findall(rf"^.*\({lesson.stem}\.ipynb\).*$", said, re.MULTILINE)
    assert f"| {class_minutes(read_lesson(lesson))} min |" in row, "the table of classes"


def test_homework_and_what_follows_it_takes_no_minutes():
    prose, code = ("markdown", "word " * 220), ("code", "x = 1")
    exercise = ("code", "@exercise\ndef f():\n    pass")
    homework = ("markdown", HOMEWORK)
    assert class_minutes([prose, code, code, exercise]) == 11
    assert class_minutes([prose, code, homework, code, exercise, prose]) == 3


@EACH
def test_what_our_files_have_is_imported(lesson):
    written = names_defined("\n".join(code_of(read_lesson(lesson)))) - set(stubs())
    for file in OURS:
        assert not written & names_defined(file.read_text(encoding="utf-8")), file.name


# ------------------------------------------------------------------ exercises


@functools.cache
def stubs():
    """{name: (function of the lesson, number of the class, whether it is homework)} of all that is
    left to solve."""
    found = {}
    for lesson in LESSONS:
        homework = False
        for kind, text in read_lesson(lesson):
            homework |= text.startswith(HOMEWORK)
            for node, _, _ in statements(text) if kind == "code" else []:
                if is_exercise(node):
                    node.decorator_list = []
                    space = {"torch": torch}
                    exec(ast.unparse(node), space)
                    found[node.name] = space[node.name], lesson.name[0], homework
    return found


EACH_EXERCISE = pytest.mark.parametrize("name", stubs())


@EACH
def test_a_class_has_two_exercises_and_a_hint_for_each(lesson):
    homework = [home for _, number, home in stubs().values() if number == lesson.name[0]]
    assert homework.count(False) == 2
    text = "\n".join(prose_of(read_lesson(lesson)))
    assert text.count("<summary>Hint") == len(homework)


@EACH_EXERCISE
def test_an_exercise_stands_in_the_file_of_its_class_under_its_name(name):
    stub, number, _ = stubs()[name]
    module = importlib.import_module(f"exercises.class_{number}")
    assert ours(name) is getattr(module, name)
    assert ours(f"{name}_inputs") is getattr(module, f"{name}_inputs")
    assert ours(f"{name}_mistakes") is getattr(module, f"{name}_mistakes")
    assert inspect.signature(stub) == inspect.signature(ours(name))
    assert stub.__doc__ and inspect.getdoc(stub) == inspect.getdoc(ours(name))


def test_no_exercise_is_left_over():
    known = []
    for path in sorted((CLASSROOM / "exercises").glob("class_*.py")):
        names = vars(importlib.import_module(f"exercises.{path.stem}"))
        known += [name.removesuffix("_inputs") for name in names if name.endswith("_inputs")]
    assert sorted(known) == sorted(stubs())


@EACH_EXERCISE
def test_a_check_knows_right_from_wrong(name):
    state = torch.get_rng_state(), random.getstate()
    assert check(ours(name)) == "right"
    assert check(stubs()[name][0]).startswith("not yet: replace")
    assert check(renamed(lambda *arguments: None, name)).startswith("not yet: ")
    mistakes = ours(f"{name}_mistakes")
    assert mistakes
    for sentence, mistaken in mistakes.items():
        assert not sentence[0].isupper()
        assert check(renamed(mistaken, name)) == f"not yet: {sentence}"
    assert torch.equal(torch.get_rng_state(), state[0]), "the notebook's next numbers change"
    assert random.getstate() == state[1]


def renamed(function, name):
    """The function under the name of an exercise, as a student would give it."""

    def given(*arguments):
        return function(*arguments)

    given.__name__ = name
    return given


def test_a_notebook_goes_on_with_the_students_function_once_it_is_right(capsys):
    def longest_prompt(n_parameters, n_embd, share):
        return int(share * n_parameters / n_embd)

    assert exercise(longest_prompt) is longest_prompt
    assert capsys.readouterr().out == "right\n"

    def longest_prompt(n_parameters, n_embd, share):
        return 7

    assert exercise(longest_prompt) is ours("longest_prompt")
    said = capsys.readouterr().out
    assert said.startswith("not yet: ") and "goes on with longest_prompt of classroom/exer" in said


def test_the_first_cell_says_by_how_much_numbers_may_differ():
    marks = shared.SOLVED_SENTENCES.read_text(encoding="utf-8").split()
    assert len(set(marks)) == FINAL
    assert "0.02" in shared.sentences_differ(marks)
    said = shared.sentences_differ(marks[:237] + ["x", "y", "z"])
    assert said.startswith("3 of the 240 test sentences")


# ------------------------------------------------------------------ as a program


def main():
    """The code of both forms of each class in fresh processes, figures drawn into nothing: one
    process for the class copy and one for the solved copy, side by side."""
    for lesson in LESSONS:
        if len(sys.argv) == 1 or lesson.name[0] in sys.argv[1:]:
            start = time.time()
            cells = read_lesson(lesson)
            in_class = started(code_of(class_copy(cells)), FOLDER)
            solved = started(code_of(solved_copy(cells)), FOLDER / "solved")
            finish(in_class, lesson)
            said = finish(solved, lesson)
            if "not yet" in said:
                sys.exit(f"{lesson.name}: an exercise of the solved copy is not right:\n{said}")
            print(f"{lesson.stem}: {time.time() - start:.0f} s, both forms", flush=True)


def started(code, folder):
    """The process that runs these cells, on one core."""
    environment = {**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", "\n\n".join(code)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, text=True)


def finish(process, lesson):
    """What it printed; the end of the tests where it failed."""
    said, _ = process.communicate()
    if process.returncode:
        sys.exit(f"{lesson.name}: exit code {process.returncode}\n{said}")
    return said


if __name__ == "__main__":
    main()
