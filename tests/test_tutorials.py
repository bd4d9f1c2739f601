"""The notebooks: what is stored in them, their exercises, and (as a program) that they run.

python tests/test_tutorials.py [NUMBER...]     run the notebooks from top to bottom, minutes
"""

import ast
import functools
import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tutorials"
CLASSROOM = FOLDER / "classroom"
sys.path[:0] = [str(CLASSROOM), str(FOLDER), str(ROOT)]
NOTEBOOKS = sorted(FOLDER.glob("[0-9]_*.ipynb"))
EACH = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)

# What a notebook imports and does not write again.
OURS = [ROOT / f"{name}.py" for name in ("model", "softprompt", "train")]
OURS += [FOLDER / f"{name}.py" for name in ("methods", "own_data", "huggingface")]
OURS += [CLASSROOM / "shared.py"]


def cells(path, kind="code"):
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if cell["cell_type"] == kind]


def texts(path, kind="code"):
    return ["".join(cell["source"]) for cell in cells(path, kind)]


def source(path):
    return "\n\n".join(texts(path))


def names_defined(code):
    """The names of the functions and classes at the top level."""
    body = ast.parse(code).body
    return {node.name for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


# ------------------------------------------------------------------ what is stored


@EACH
def test_stored_outputs_are_one_run_without_errors(path):
    code = cells(path)
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = []
    for cell in code:
        outputs += cell["outputs"]
    assert all(output["output_type"] != "error" for output in outputs)
    assert all(output.get("name") != "stderr" for output in outputs), "progress and warnings"
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert path.stat().st_size < 1_000_000


@EACH
def test_stored_outputs_hold_no_path_of_a_machine(path):
    said = []
    for cell in cells(path):
        for output in cell["outputs"]:
            data = {**output.get("data", {}), "image/png": ""}
            said.append({**output, "data": data})
    text = json.dumps(said)
    assert not re.search(r"/(home|root|tmp|work|Users|mnt)/|site-packages|[A-Z]:\\\\", text)


@EACH
def test_cells_are_few_short_and_plain(path):
    code, prose = texts(path), texts(path, "markdown")
    assert len(code) + len(prose) <= 24
    for text in prose:
        for notice in re.findall(r"\*\*What to notice\.\*\*.*?(?=\n#|\Z)", text, re.DOTALL):
            assert len(notice.split()) <= 90, notice
            assert len(re.findall(r"\d[\d,.]*", notice)) <= 6, notice
    for text in code:
        lines = text.split("\n")
        assert len(lines) <= 12 and max(map(len, lines)) <= 100, lines[0]
        assert not any(line.lstrip().startswith(("%", "!", "?")) for line in lines), "magic"


@EACH
def test_what_our_files_have_is_imported(path):
    written = names_defined(source(path)) - set(exercises())
    for file in OURS:
        assert not written & names_defined(file.read_text(encoding="utf-8")), file.name


# ------------------------------------------------------------------ exercises


def exercises():
    import checks

    return [name for name, item in vars(checks).items() if hasattr(item, "__wrapped__")]


@functools.cache
def stubs():
    """{name: (function of the notebook, its notebook)} of all that is left to solve."""
    found = {}
    for path in NOTEBOOKS:
        for text in texts(path):
            stub, _, check = text.partition("\n\nprint(checks.")
            if check:
                space = {}
                exec("import torch\n" + stub, space)
                [name] = re.findall(r"^def (\w+)", stub, re.MULTILINE)
                found[name] = space[name], path
    return found


def test_every_exercise_has_a_stub_a_check_and_a_solution():
    import solutions

    assert sorted(stubs()) == sorted(exercises())
    for name, (stub, path) in stubs().items():
        assert inspect.signature(stub) == inspect.signature(getattr(solutions, name))
        assert f"print(checks.{name}({name}))" in source(path) and stub.__doc__
    for path in NOTEBOOKS:
        count = sum(where == path for _, where in stubs().values())
        hints = sum("<summary>Hint" in text for text in texts(path, "markdown"))
        assert 3 <= count <= 4 and hints == count, path


@pytest.mark.parametrize("name", exercises())
def test_a_check_knows_right_from_wrong(name):
    import checks
    import solutions
    from wrong_answers import WRONG

    check, state = getattr(checks, name), torch.get_rng_state()
    assert check(getattr(solutions, name)) == "right"
    assert torch.equal(torch.get_rng_state(), state), "the notebook's next random numbers change"
    assert check(stubs()[name][0]).startswith("not yet: replace")
    assert re.match("not yet: (?!replace|your function stopped)", check(WRONG[name]))
    assert check(lambda *arguments: None).startswith("not yet: ")


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
    """Each notebook's code in a fresh process, with figures drawn into nothing."""
    for path in NOTEBOOKS:
        if len(sys.argv) == 1 or path.name[0] in sys.argv[1:]:
            start = time.time()
            with tempfile.NamedTemporaryFile("w", suffix=".py", delete=False) as file:
                file.write(source(path))
            environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": str(FOLDER)}
            subprocess.run([sys.executable, file.name], cwd=FOLDER, env=environment, check=True)
            os.unlink(file.name)
            print(f"{path.name}: {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
