"""Six tasks made from what the requirements install: texts and answers.

The first three had a say in the defaults of `tune`, *module* and *language* had none. A first run
of *character* showed that the rate before was too high (RESULTS.md). A hash of the text splits
each task into what is learned from and what is tested.
"""

import random
import sysconfig
import unicodedata
import zoneinfo
from collections import Counter
from pathlib import Path

from tutorials.jobs import JOBS, docstrings_in, hashed, load_data, source_files, split_of

TRAIN, TEST = 2400, 400  # texts at most

def sentences(job):
    return lambda out: [pair for part in load_data(out).values() for pair in JOBS[job].pairs(part)]

def zones(out):
    """The name of a place -> the continent that its time zone is filed under."""
    names = [name.split("/") for name in zoneinfo.available_timezones() if "/" in name]
    pairs = [(name[-1].replace("_", " "), name[0]) for name in names]
    return [pair for pair in pairs if pair[1] in ("Africa", "America", "Asia", "Europe", "Pacific")]

def modules(out):
    """The first line of a docstring of SymPy -> which of its eight biggest packages has it."""
    pairs = []
    for library, path in source_files():
        parts = Path(path).parts
        if library == "sympy" and parts[parts.index("sympy") + 1 :][1:]:
            package = parts[parts.index("sympy") + 1]
            lines = [text.split("\n")[0].strip() for _, _, text in docstrings_in((library, path))]
            pairs += [(line, package) for line in lines if 20 <= len(line) <= 100]
    biggest = [name for name, _ in Counter(package for _, package in pairs).most_common(8)]
    return [pair for pair in pairs if pair[1] in biggest]

def languages(out):
    """A line of code -> the language that it is written in."""
    packages, pairs = Path(sysconfig.get_paths()["purelib"]), []
    for language, folder, ending in (
            ("Python", "torch/nn", ".py"), ("C++", "torch/include/ATen", ".h"),
            ("Fortran", "numpy/f2py/tests/src", ".f90"), ("CMake", "torch/share/cmake", ".cmake")):
        lines = set()
        for path in sorted((packages / folder).rglob(f"*{ending}")):
            lines.update(line.strip() for line in path.read_text(errors="ignore").split("\n"))
        lines = sorted(line for line in lines if 12 <= len(line) <= 80 and line.isascii())
        lines = random.Random(0).sample(lines, min(800, len(lines)))
        pairs += [(line, language) for line in lines]
    return pairs

def characters(out):
    """The name of a Unicode character -> what kind of character it is."""
    kinds = {"L": "letter", "M": "mark", "N": "number", "P": "punctuation", "S": "symbol"}
    pairs = [(unicodedata.name(chr(i), "").lower(), kinds.get(unicodedata.category(chr(i))[0]))
             for i in range(0x3000)]
    return [pair for pair in pairs if all(pair)]

TASKS = {"library": sentences("library"), "kind": sentences("kind"), "zone": zones,
         "module": modules, "language": languages, "character": characters}

def read_task(name, out):
    """(pairs to learn from, pairs to test with), mixed; a text that has two answers is left out."""
    pairs = TASKS[name](out)
    answers = Counter(text for text, _ in set(pairs))
    pairs = [pair for pair in set(pairs) if answers[pair[0]] == 1]
    pairs.sort(key=lambda pair: hashed(pair[0]))
    test = [pair for pair in pairs if split_of(pair[0]) == "test"]
    train = [pair for pair in pairs if split_of(pair[0]) != "test"]
    return train[:TRAIN], test[:TEST]

def write_pairs(pairs, path):
    """As .tsv, which has no quotes: a tab within a text becomes a space."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{text.replace(chr(9), ' ')}\t{answer}" for text, answer in pairs]
    path.write_text("\n".join(lines), encoding="utf-8")
