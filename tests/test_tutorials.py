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

FOLDER = Path(__file__).parents[1] / "tutorials"
sys.path[:0] = [str(FOLDER), str(FOLDER.parent)]
NOTEBOOKS = sorted(FOLDER.glob("[0-9]_*.ipynb"))
EACH = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)

def cells(path, kind="code"):
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if cell["cell_type"] == kind]

def source(path):
    return "\n\n".join("".join(cell["source"]) for cell in cells(path))

@EACH
def test_stored_outputs_are_one_run_without_errors(path):
    code = cells(path)
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert all(output["output_type"] != "error" for output in outputs)
    assert all(output.get("name") != "stderr" for output in outputs), "progress and warnings"
    assert any("image/png" in output.get("data", {}) for output in outputs)
    text = json.dumps([{**o, "data": {**o.get("data", {}), "image/png": ""}} for o in outputs])
    assert not re.search(r"/(home|root|tmp|work|Users|mnt)/|site-packages|[A-Z]:\\\\", text)
    assert path.stat().st_size < 1_000_000

@EACH
def test_cells_are_few_short_and_plain(path):
    code, prose = cells(path), cells(path, "markdown")
    assert len(code) + len(prose) <= 24
    for text in ("".join(cell["source"]) for cell in prose):
        for notice in re.findall(r"\*\*What to notice\.\*\*.*?(?=\n#|\Z)", text, re.DOTALL):
            assert len(notice.split()) <= 90, notice
            assert len(re.findall(r"\d[\d,.]*", notice)) <= 6, notice
    for cell in code:
        lines = "".join(cell["source"]).split("\n")
        assert len(lines) <= 12 and max(map(len, lines)) <= 100, lines[0]
        assert not any(line.lstrip().startswith(("%", "!", "?")) for line in lines), "magic"
    tree = ast.parse(source(path))
    ours = {node.name for name in ("model", "softprompt", "train")
            for node in ast.parse((FOLDER.parent / f"{name}.py").read_text()).body
            if isinstance(node, (ast.FunctionDef, ast.ClassDef))}  # fmt: skip
    named = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    assert not named & ours, "what our files have is imported"

def exercises():
    import checks

    return [name for name, item in vars(checks).items() if hasattr(item, "__wrapped__")]

@functools.cache
def stubs():
    """{name: (function of the notebook, its notebook)} of all that is left to solve."""
    found = {}
    for path in NOTEBOOKS:
        for cell in cells(path):
            stub, _, check = "".join(cell["source"]).partition("\n\nprint(checks.")
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
        hints = sum("<summary>Hint" in "".join(cell["source"]) for cell in cells(path, "markdown"))
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

def test_flash_and_ring_are_full_attention():
    import flash
    import ring

    gen = torch.Generator().manual_seed(0)
    for B, H, Hkv, T, D, tile in ((1, 2, 2, 1, 4, 3), (2, 4, 2, 37, 8, 16), (1, 6, 2, 64, 4, 64)):
        whole = [
            torch.randn(B, heads, T, D, generator=gen, dtype=torch.double, requires_grad=True)
            for heads in (H, Hkv, Hkv)]
        weight = torch.randn(B, H, T, D, generator=gen, dtype=torch.double)
        full = F.scaled_dot_product_attention(*whole, is_causal=True, enable_gqa=True)
        ours = flash.flash_attention(*whole, tile=tile)
        assert torch.allclose(ours, full, atol=1e-9)
        grads = [torch.autograd.grad((out * weight).sum(), whole) for out in (full, ours)]
        assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(*grads))
    parts = [x.detach().float() for x in whole]
    out, sent = ring.spawned(*parts, 3)  # 64 tokens in parts of 22, 21 and 21
    assert torch.allclose(out, full.float(), atol=1e-5)
    assert sum(sent) == 2 * sum(x.nbytes for x in parts[1:])  # each part travels R - 1 times
    with pytest.raises(ValueError, match="stride"):
        flash.strided_attention(*parts, 7)
    back = torch.arange(64)[:, None] - torch.arange(64)
    mask = (back >= 0) & ((back < 8) | (back % 8 == 0))
    want = F.scaled_dot_product_attention(*parts, attn_mask=mask, enable_gqa=True)
    assert torch.allclose(flash.strided_attention(*parts, 8), want, atol=1e-5)

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
