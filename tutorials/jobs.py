"""The sentences, and the jobs: what is asked of a sentence. To add a job, add an entry to JOBS.

The sentences are the first lines of the docstrings in the packages that the requirements install.
Everything that trains takes pairs of a text and its answer. The base practised the jobs that have
`wordings`; the others it never saw.
"""

import ast
import hashlib
import importlib.util
import json
import os
import re
import string
import sys
import sysconfig
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Callable, NamedTuple

# ------------------------------------------------------------------ the sentences

LIBRARIES = ("sympy", "torch", "python", "matplotlib", "networkx", "numpy")
SKIP = re.compile(r"_|\.|test_|(tests?|testing|(site|dist)-packages|idlelib|lib2to3|turtledemo)$")

class Sentence(NamedTuple):
    text: str
    library: str
    kind: str

def source_files():
    """[(library, path)] of every public module of the libraries that are installed."""
    files = []
    for library in LIBRARIES:
        root = sysconfig.get_paths()["stdlib"]
        if library != "python":
            spec = importlib.util.find_spec(library)
            root = os.path.dirname(spec.origin) if spec else os.devnull
        for folder, inner, names in os.walk(root):
            inner[:] = sorted(name for name in inner if not SKIP.match(name))
            for name in sorted(names):
                if name == "__init__.py" or name.endswith(".py") and not SKIP.match(name):
                    files.append((library, os.path.join(folder, name)))
    return files

def docstrings_in(file):
    """[(library, "class" or "function", docstring)] of one source file; nothing is imported."""
    (library, path), docstrings = file, []
    warnings.simplefilter("ignore", SyntaxWarning)
    try:
        tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    except (SyntaxError, ValueError):
        return []  # a template, or written for another version of Python
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            docstrings.append((library, kind, ast.get_docstring(node) or ""))
    return docstrings

def read_docstrings(out):
    """All docstrings, read on all cores; cached in the folder `out` until a library changes."""
    files, cache = source_files(), Path(out) / "docstrings.json"
    stamp = [f"{path} {os.path.getsize(path)}" for _, path in files]
    if cache.exists():
        content = json.loads(cache.read_text())
        if content["stamp"] == stamp:
            return content["docstrings"]
    print(f"reading the docstrings of {len(files)} files, once: some ten seconds", file=sys.stderr)
    with ProcessPoolExecutor() as pool:
        parts = pool.map(docstrings_in, files, chunksize=32)
        docstrings = [docstring for part in parts for docstring in part]
    if not docstrings:
        raise ValueError(f"no docstrings in {LIBRARIES}: install the requirements with .py files")
    cache.parent.mkdir(parents=True, exist_ok=True)
    write_text(cache, json.dumps({"stamp": stamp, "docstrings": docstrings}))
    return docstrings

def write_text(path, text):
    """Write a text file as a whole: at any moment there is the old one or the new one."""
    path.with_suffix(".part").write_text(text)
    path.with_suffix(".part").replace(path)

def hashed(text):
    """The SHA-256 of a text, to sort and split by: the same on every machine."""
    return hashlib.sha256(text.encode()).digest()

def split_of(text):
    """train, valid or test (8 : 1 : 1)."""
    return ("valid", "test", *["train"] * 8)[hashed(text)[0] % 10]

def sentences_of(docstrings):
    """{split: [Sentence]}: each summary line once, where it does not name its own library."""
    sentences, lines = {"train": [], "valid": [], "test": []}, set()
    for library, kind, text in docstrings:
        line = text.split("\n", 1)[0].strip()
        fits = 20 <= len(line) <= 100 and line.isascii() and len(line.split()) > 2
        if fits and library not in line.lower() and line not in lines:
            lines.add(line)
            sentences[split_of(line)].append(Sentence(line, library, kind))
    for part in sentences.values():  # mixed, so that the first n are a fair sample
        part.sort(key=lambda sentence: hashed(sentence.text))
    return sentences

def load_data(out):
    """The sentences of all splits; the folder `out` keeps what was read."""
    return sentences_of(read_docstrings(out))

# ------------------------------------------------------------------ the jobs

class Job(NamedTuple):
    """What is asked of a sentence. To add a job, add an entry to JOBS."""

    answer: Callable[[Sentence], str]
    wordings: list[str]  # the base learned the job from these; none: it never practised the job
    unseen: list[str]  # the base never saw these; the first is where "related text" starts
    about: str = ""  # in a newcomer's words, for the pictures

    def pairs(self, sentences):
        """[(text, answer)], which is what everything trains on."""
        return [(sentence.text, self.answer(sentence)) for sentence in sentences]

def word(text):
    """A word without the signs around it."""
    return text.strip(string.punctuation) or text

JOBS = {
    "library": Job(lambda s: s.library, [
        "Which library is this sentence from?", "Name the library that this comes from.",
        "What library does this belong to?", "Say which library documents this."], [
        "From which library was this sentence taken?", "Tell me the library of this text."],
        "which library it is from"),
    "kind": Job(lambda s: s.kind, [
        "Is this a class or a function?", "Class or function?",
        "Does this describe a class or a function?", "Say whether this is a function or a class."
    ], ["Decide: is it a function or is it a class?", "What is described, a class or a function?"],
        "a class or a function"),
    "count": Job(lambda s: str(len(s.text.split())), [
        "How many words are there?", "Count the words.", "What is the number of words?",
        "Say how many words this sentence has."], [
        "Give the number of words in this sentence.", "How many words do you count here?"],
        "how many words there are"),
    "before-last": Job(lambda s: word(s.text.split()[-2]), [], [
        "Repeat the word before the last.", "What is the word before the last word?",
        "Copy the word before the last word.", "Say the last word but one again."],
        "the word before the last"),
}
# A grid: every operation on every word. The base practised each operation and each place, but never
# the pairs in HELD_OUT: of three operations one each, at three places, and none at the first word.
OPERATIONS = {
    "repeat": (lambda w: w, "the {} word", [
        "Repeat the {} word.", "What is the {} word?",
        "Copy the {} word of this sentence.", "Say the {} word again."]),
    "first-letter": (lambda w: w[0], "first letter of the {} word", [
        "What is the first letter of the {} word?", "Name the first letter of the {} word.",
        "Which letter does the {} word begin with?", "Say how the {} word begins."]),
    "last-letter": (lambda w: w[-1], "last letter of the {} word", [
        "What is the last letter of the {} word?", "Name the last letter of the {} word.",
        "Which letter does the {} word end with?", "Say how the {} word ends."]),
    "letters": (lambda w: str(len(w)), "how many letters the {} word has", [
        "How many letters has the {} word?", "Count the letters of the {} word.",
        "What is the length of the {} word?", "Say how long the {} word is."]),
}
PLACES = {"first": 0, "second": 1, "third": 2, "last": -1}
HELD_OUT = ("repeat-second", "first-letter-last", "letters-third")
for operation, (apply, about, wordings) in OPERATIONS.items():
    for place in PLACES:
        job, texts = f"{operation}-{place}", [wording.format(place) for wording in wordings]
        answer = partial(lambda apply, n, s: apply(word(s.text.split()[n])), apply, PLACES[place])
        known, unseen = ([], texts) if job in HELD_OUT else (texts, [])
        JOBS[job] = Job(answer, known, unseen, about.format(place))
