"""The classes: two forms of one text, their exercises, and (as a program) that they run.

python tests/test_tutorials.py [NUMBER...]     run both forms from top to bottom, minutes
"""

import ast
import functools
import inspect
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tutorials"
CLASSROOM = FOLDER / "classroom"
sys.path[:0] = [str(CLASSROOM), str(FOLDER), str(ROOT)]

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

EACH = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)

# What a notebook imports and does not write again.
OURS = [ROOT / f"{name}.py" for name in ("model", "softprompt", "train")]
OURS += [FOLDER / f"{name}.py" for name in ("methods", "own_data", "huggingface")]
OURS += [CLASSROOM / f"{name}.py" for name in ("shared", "drawings")]


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
        assert "pyplot" not in text and "axis." not in text, "drawing lives in drawings.py"


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
    assert class_minutes([prose, code, code, exercise]) == 14
    assert class_minutes([prose, code, homework, code, exercise, prose]) == 3


@EACH
def test_what_our_files_have_is_imported(lesson):
    written = names_defined("\n".join(code_of(read_lesson(lesson)))) - set(exercises())
    for file in OURS:
        assert not written & names_defined(file.read_text(encoding="utf-8")), file.name


# ------------------------------------------------------------------ exercises


def exercises():
    import checks

    return list(checks.CHECKS)


@functools.cache
def stubs():
    """{name: (function of the lesson, the lesson)} of all that is left to solve."""
    found = {}
    for lesson in LESSONS:
        for code in code_of(read_lesson(lesson)):
            for node, _, _ in statements(code):
                if is_exercise(node):
                    node.decorator_list = []
                    space = {"torch": torch}
                    exec(ast.unparse(node), space)
                    found[node.name] = space[node.name], lesson
    return found


def test_every_exercise_has_a_stub_a_check_and_a_solution():
    import solutions

    assert sorted(stubs()) == sorted(exercises())
    for name, (stub, _) in stubs().items():
        solution = getattr(solutions, name)
        assert inspect.signature(stub) == inspect.signature(solution)
        assert stub.__doc__ and inspect.getdoc(stub) == inspect.getdoc(solution), name
    for lesson in LESSONS:
        count = sum(where == lesson for _, where in stubs().values())
        hints = sum("<summary>Hint" in text for text in prose_of(read_lesson(lesson)))
        assert 2 <= count <= 4 and hints == count, lesson


@pytest.mark.parametrize("name", exercises())
def test_a_check_knows_right_from_wrong(name):
    import checks
    import solutions
    from wrong_answers import WRONG

    check, state = checks.CHECKS[name], torch.get_rng_state()
    assert check(getattr(solutions, name)) == "right"
    assert torch.equal(torch.get_rng_state(), state), "the notebook's next random numbers change"
    assert check(stubs()[name][0]).startswith("not yet: replace")
    assert re.match("not yet: (?!replace|your function stopped)", check(WRONG[name]))
    assert check(lambda *arguments: None).startswith("not yet: ")


def test_a_notebook_goes_on_with_the_students_function_once_it_is_right(capsys):
    import solutions
    from checks import exercise

    def longest_prompt(n_parameters, n_embd, share):
        return int(share * n_parameters / n_embd)

    assert exercise(longest_prompt) is longest_prompt
    assert capsys.readouterr().out == "right\n"

    def longest_prompt(n_parameters, n_embd, share):
        return 7

    assert exercise(longest_prompt) is solutions.longest_prompt
    said = capsys.readouterr().out
    assert said.startswith("not yet: ") and "goes on with longest_prompt of classroom/solu" in said


def test_the_first_cell_says_by_how_much_numbers_may_differ():
    import shared

    marks = shared.SOLVED_SENTENCES.read_text(encoding="utf-8").split()
    assert len(set(marks)) == shared.TEST
    assert "0.02" in shared.sentences_differ(marks)
    said = shared.sentences_differ(marks[:237] + ["x", "y", "z"])
    assert said.startswith("3 of the 240 test sentences")


# ------------------------------------------------------------------ what they import


@pytest.mark.parametrize("tile", [3, 16, 64])
def test_flash_is_full_attention(tile):
    import flash

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
    import flash

    with pytest.raises(ValueError, match="stride"):
        flash.strided_attention(*queries_keys_values, 7)
    back = torch.arange(64)[:, None] - torch.arange(64)  # (T, S): how far back the key is
    seen = (back >= 0) & ((back < 8) | (back % 8 == 0))  # (T, S)
    want = F.scaled_dot_product_attention(*queries_keys_values, attn_mask=seen, enable_gqa=True)
    assert torch.allclose(flash.strided_attention(*queries_keys_values, 8), want, atol=1e-5)


def test_ring_is_full_attention(queries_keys_values):
    import ring

    full = F.scaled_dot_product_attention(*queries_keys_values, is_causal=True, enable_gqa=True)
    out, sent = ring.spawned(*queries_keys_values, 3)  # 64 tokens in parts of 22, 21 and 21
    assert torch.allclose(out, full, atol=1e-5)
    _, k, v = queries_keys_values
    assert sum(sent) == 2 * (k.nbytes + v.nbytes)  # each part travels R - 1 times


def test_arms_are_watched_where_a_notebook_looks():
    import shared
    from small_world import TOKENS, sentences, tiny

    from train import Lab, Tokenizer, measure, new_arm

    tok = Tokenizer.from_tokens(TOKENS)
    data = {"train": sentences(20), "valid": sentences(5, 1), "test": sentences(5, 2)}
    lab = Lab(tiny(tok).requires_grad_(False), tok, data)
    arms = [new_arm(lab, "library", "prompt", "vocab", 2, 1.0, seed) for seed in (0, 1)]
    rows = shared.watch(lab, arms, 3, (0, 3), 4)
    assert [(row["step"], row["seed"]) for row in rows] == [(0, 0), (0, 1), (3, 0), (3, 1)]
    assert all(row["split"] == "valid" for row in rows)
    assert rows[0]["loss"] != rows[2]["loss"], "nothing was trained"
    want = [row["accuracy"] for row in measure(lab, arms, 3, "test", 5)]
    assert shared.right_on_test(lab, arms) == want
    assert shared.learn(lab, arms, 0) == want


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
