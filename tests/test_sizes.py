"""The house stays small: lines a file, columns a line, one statement a line."""

import ast

import pytest
from conftest import ROOT

LINES = {"model.py": 495, "softprompt.py": 300, "train.py": 880, "tutorials/pretrain.py": 220,
         "README.md": 140}

@pytest.mark.parametrize("name", LINES)
def test_files_are_short(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LINES[name]
    if name == "README.md":
        assert len(text.encode()) <= 9000
        return
    assert max(map(len, text.splitlines())) <= 100
    starts = [node.lineno for node in ast.walk(ast.parse(text)) if isinstance(node, ast.stmt)]
    assert len(set(starts)) == len(starts), "two statements on one line"
