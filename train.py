"""Data, experiments, pictures and the command line of softprompt.

    python train.py                 the main job: three experiments, a table, three pictures
    python train.py tune ...        train one soft prompt and save it
    python train.py generate ...    answer a text with and without a prompt
    python train.py plot            draw the pictures anew from the results
    python train.py pretrain        make the base model anew

`python train.py --help` lists the options. Results go to out/results.csv as they come: an
interrupted run goes on where it was, a finished one only draws. Letters (B, T, P, ...) as in
model.py; losses are in nats per answer token, lengths in virtual tokens.
"""

import argparse
import ast
import csv
import hashlib
import heapq
import importlib.util
import io
import json
import math
import os
import random
import re
import sys
import sysconfig
import time
import warnings
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, field, fields
from pathlib import Path
from statistics import mean, median, stdev
from typing import Callable, NamedTuple

import regex  # comes with tiktoken
import tiktoken
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils import parametrize

import softprompt
from model import GPT, GPTConfig, hub_folder, read, read_json, write
from softprompt import INITIALIZATIONS, PrefixTuning, PromptTuning, initial_embeddings, prefill

# ------------------------------------------------------------------ data: docstrings on this disk

LIBRARIES = ("sympy", "torch", "python", "matplotlib", "networkx", "numpy")
SKIP = re.compile(r"_|\.|test_|(tests?|testing|(site|dist)-packages|idlelib|lib2to3|turtledemo)$")


def source_files():
    """[(library, path)] of every public module of the libraries that are installed."""
    found = []
    for library in LIBRARIES:
        root = sysconfig.get_paths()["stdlib"]
        if library != "python":
            spec = importlib.util.find_spec(library)
            root = os.path.dirname(spec.origin) if spec and spec.origin else os.devnull
        for folder, inner, files in os.walk(root):
            inner[:] = sorted(name for name in inner if not SKIP.match(name))
            for name in sorted(files):
                if name == "__init__.py" or name.endswith(".py") and not SKIP.match(name):
                    found.append((library, os.path.join(folder, name)))
    return found


def docstrings_in(file):
    """[(library, "class" or "function", docstring)] of one source file; nothing is imported."""
    library, path = file
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError):
        return []  # a template, or written for another version of Python
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if text := ast.get_docstring(node):
                kind = "class" if isinstance(node, ast.ClassDef) else "function"
                found.append((library, kind, text))
    return found


def read_docstrings(out):
    """All docstrings, read on all cores; kept in the folder `out` until a library changes."""
    files, cache = source_files(), out / "docstrings.json"
    stamp = "\n".join(f"{path} {os.path.getsize(path)}" for _, path in files)
    stamp = hashlib.sha256(stamp.encode()).hexdigest()
    if cache.exists():
        kept = json.loads(cache.read_text())
        if kept["stamp"] == stamp:
            return kept["docstrings"]
    found, progress = [], Progress("reading docstrings", len(files))
    with ProcessPoolExecutor() as pool:
        for docs in pool.map(docstrings_in, files, chunksize=32):
            found += docs
            progress.step()
    if not found:
        raise ValueError(f"no docstrings found in {len(files)} source files of {LIBRARIES}: "
                         "install the requirements with their .py files")
    progress.close(f"{len(found)} docstrings in {len(files)} files")
    part = cache.with_suffix(".part")
    part.write_text(json.dumps({"stamp": stamp, "docstrings": found}))
    part.replace(cache)
    return found


def split_of(line):
    """train, valid or test (8 : 1 : 1), by a hash: the same on any machine and for any version."""
    return ("valid", "test", *["train"] * 8)[hashlib.sha256(line.encode()).digest()[0] % 10]


class Sentence(NamedTuple):
    text: str
    library: str
    kind: str


def sentences_of(docstrings):
    """{split: [Sentence]}: each summary line once, where it does not name its own library."""
    found, seen = {"train": [], "valid": [], "test": []}, set()
    for library, kind, text in docstrings:
        line = text.split("\n", 1)[0].strip()
        fits = 20 <= len(line) <= 100 and line.isascii() and len(line.split()) > 2
        if fits and library not in line.lower() and line not in seen:
            seen.add(line)
            found[split_of(line)].append(Sentence(line, library, kind))
    for sentences in found.values():  # mixed, so that the first n are a fair sample
        sentences.sort(key=lambda s: hashlib.sha256(s.text.encode()).digest())
    return found


class Job(NamedTuple):
    """What is asked of a sentence. Everything that trains takes pairs: (text, answer)."""

    answer: Callable[[Sentence], str]
    wordings: list[str]  # the base learned the job from these
    unseen: list[str]  # the base never saw these

    def pairs(self, sentences):
        return [(s.text, self.answer(s)) for s in sentences]


def word(text):
    return text.strip(".,:;!?") or text


JOBS = {
    "library": Job(
        lambda s: s.library,
        ["Which library is this sentence from?", "Name the library that this comes from.",
         "What library does this belong to?", "Say which library documents this."],
        ["From which library was this sentence taken?", "Tell me the library of this text."]),
    "kind": Job(
        lambda s: s.kind,
        ["Is this a class or a function?", "Class or function?",
         "Does this describe a class or a function?", "Say whether this is a function or a class."],
        ["Decide: is it a function or is it a class?",
         "What is described, a class or a function?"]),
    "first": Job(
        lambda s: word(s.text.split()[0]),
        ["Repeat the first word.", "What is the first word?", "Which word comes first?",
         "Copy the first word of this sentence."],
        ["Say the first word of the sentence again.", "Give the word that comes first here."]),
    "last": Job(
        lambda s: word(s.text.split()[-1]),
        ["Repeat the last word.", "What is the last word?", "Which word comes last?",
         "Copy the last word of this sentence."],
        ["Say the last word of the sentence again.", "Give the word that comes last here."]),
    "count": Job(
        lambda s: str(len(s.text.split())),
        ["How many words are there?", "Count the words.", "What is the number of words?",
         "Say how many words this sentence has."],
        ["Give the number of words in this sentence.", "How many words do you count here?"]),
}

# ------------------------------------------------------------------ data: a file of one's own


def read_pairs(path):
    """[(text, answer)] of a .tsv, .csv or .jsonl file in UTF-8; empty lines are passed over.

    A first row that names the columns text and answer is a header, and other columns may stand
    beside them; without one there are just these two. ValueError names file and line of a bad row.
    """
    def bad(line, why):
        return ValueError(f"{path}:{line}: {why}")

    def plain(row, name):
        value = row.get(name)
        number = type(value) is int or type(value) is float and math.isfinite(value)
        if not number and not isinstance(value, str):
            raise bad(line, f"{name} is {json.dumps(value)}, give a string or a number")
        if not str(value).strip():
            raise bad(line, f"the {name} is empty")
        if any("\ud800" <= sign <= "\udfff" for sign in str(value)):
            raise bad(line, f"the {name} holds half a character: {ascii(value)[:60]}")
        return str(value).strip()

    data, kind, pairs = Path(path).read_bytes(), Path(path).suffix.lower(), []
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise bad(line, "this is not UTF-8: save the file as that") from problem
    if kind not in (".tsv", ".csv", ".jsonl"):
        raise ValueError(f"{path}: data comes as .tsv, .csv or .jsonl")
    rows = json_rows(text, bad) if kind == ".jsonl" else csv_rows(text, kind, bad)
    for line, row in rows:
        pairs.append((plain(row, "text"), plain(row, "answer")))
    if not pairs:
        raise ValueError(f"{path}: there are no rows in it")
    return pairs


def csv_rows(text, kind, bad):
    """(line, {column: value}) of each row, the line being the row's first."""
    sign, names, line = {".tsv": "\t", ".csv": ","}[kind], None, 1
    csv.field_size_limit(2**31 - 1)  # long texts are cut later, from the left
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=sign, strict=True)
    try:
        for fields in reader:
            first, line = line, reader.line_num + 1
            if not fields or len(fields) == 1 and not fields[0].strip():
                continue
            if kind == ".tsv" and any("\n" in value for value in fields):
                raise bad(first, 'a " opens a field here that ends lines later: write it twice, '
                          "within quotes")
            if names is None:
                names = [name.strip().lower() for name in fields]
                known = names.count("text"), names.count("answer")
                if known == (1, 1):
                    continue
                if max(known):
                    raise bad(first, f"a header names text and answer once each, not {names}")
                names = ["text", "answer"]
            if len(fields) != len(names):
                raise bad(first, f"{len(fields)} fields where {len(names)} are expected, "
                          f"{' and '.join(names)}: a field with a {json.dumps(sign)} needs quotes")
            yield first, dict(zip(names, fields))
    except csv.Error as problem:
        raise bad(line, f'{problem}: inside quotes, a " is written twice') from problem


def json_rows(text, bad):
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as problem:
                raise bad(number, f"this is not JSON: {problem}") from problem
            if not isinstance(row, dict):
                raise bad(number, 'each line is like {"text": "...", "answer": "..."}')
            yield number, row


MOST = 400  # validation texts: with a real model on a CPU, more would take longer than the training


def read_data(settings):
    """The pairs to learn from and to validate with: {"train": [(text, answer)], "valid": ...}."""
    if settings.job and settings.data or settings.valid and not settings.data:
        raise ValueError("give --job NAME, or --data FILE and perhaps --valid FILE")
    if not settings.data:
        job, (data, _) = JOBS[settings.job or "library"], load_data(settings.out)
        return {"train": job.pairs(data["train"]), "valid": job.pairs(data["valid"])[:MOST]}
    pairs = read_pairs(settings.data)
    if settings.valid:
        data = {"train": pairs, "valid": read_pairs(settings.valid)}
    else:  # by a hash of the text, so that equal texts are on one side
        data = {"train": [pair for pair in pairs if split_of(pair[0]) == "train"],
                "valid": [pair for pair in pairs if split_of(pair[0]) != "train"]}
        if not data["train"] or not data["valid"]:
            raise ValueError(f"{settings.data}: {len(pairs)} rows are too few to keep a fifth for "
                             "validation: add rows, or give --valid FILE")
    if len({answer for _, answer in data["train"]}) == 1:
        raise ValueError(f"{settings.data}: every answer to learn from is "
                         f"{data['train'][0][1]!r}, there is nothing to tell apart")
    data["valid"].sort(key=lambda pair: hashlib.sha256(repr(pair).encode()).digest())
    return {**data, "valid": data["valid"][:MOST]}  # mixed first, to be a fair sample


# ------------------------------------------------------------------ tokens

PATTERN = r" ?[^\W\d_]+| ?\d| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+"  # words, digits, signs, spaces


def bpe(texts, size):
    """Byte-level BPE (Sennrich et al. 2016, arXiv 1508.07909): `size` byte strings by rank.

    A heap of pair counts, and for each pair the words it occurs in: seconds instead of minutes.
    """
    pieces = Counter(piece for text in texts for piece in re.findall(PATTERN, text))
    words = [([bytes([b]) for b in piece.encode()], n) for piece, n in pieces.items()]
    counts, where = Counter(), defaultdict(set)

    def count(i, sign):
        parts, n = words[i]
        pairs = list(zip(parts, parts[1:]))
        for pair in pairs:
            counts[pair] += sign * n
            where[pair].add(i)
        return pairs

    for i in range(len(words)):
        count(i, 1)
    heap = [(-n, pair) for pair, n in counts.items()]
    heapq.heapify(heap)
    tokens = [bytes([b]) for b in range(256)]
    while len(tokens) < size and heap:
        n, best = heapq.heappop(heap)
        if counts[best] != -n:
            continue  # pushed before its count changed; the right entry is in the heap as well
        tokens.append(best[0] + best[1])
        changed = set()
        for i in list(where[best]):
            changed.update(count(i, -1))
            parts, j = words[i][0], 0
            while j < len(parts) - 1:
                if (parts[j], parts[j + 1]) == best:
                    parts[j : j + 2] = [tokens[-1]]
                j += 1
            changed.update(count(i, 1))
        del where[best], counts[best]
        for pair in changed:
            if counts[pair] > 0:
                heapq.heappush(heap, (-counts[pair], pair))
    return tokens


class Tokenizer:
    """tiktoken's encoding over byte strings by rank, and what is special about it: the `end` of a
    text, and the bytes that no token has."""

    def __init__(self, tokens, pattern=PATTERN, special=None, end=None):
        """`tokens` lists byte strings by rank, or maps them to their ranks."""
        ranks = tokens
        if not isinstance(tokens, dict):
            ranks = {token: rank for rank, token in enumerate(tokens)}
        special = special or {"<|end|>": len(ranks)}
        self.encoding = tiktoken.Encoding("softprompt", pat_str=pattern, mergeable_ranks=ranks,
                                          special_tokens=special)
        self.end = special["<|end|>"] if end is None else end
        self.known = {*ranks.values(), *special.values()}
        self.lost = bytes(b for b in range(256) if bytes([b]) not in ranks)

    def encode(self, text):
        """The ids of a text; what looks like a special token in it is text like any other.

        Bytes that the vocabulary lacks (a few control characters) fall away, and what stood on
        both sides may merge: that is how the tokenizers library has it.
        """
        if not self.lost or text.encode() == text.encode().translate(None, self.lost):
            return self.encoding.encode_ordinary(text)
        pieces = regex.finditer(self.encoding._pat_str, text)
        pieces = (piece.group().encode().translate(None, self.lost) for piece in pieces)
        return [i for piece in pieces if piece for i in self.encoding._encode_single_piece(piece)]

    def decode(self, ids):
        return self.encoding.decode([i for i in ids if i in self.known])

    def example(self, text, answer, wording=""):
        """(ids before the answer, ids of the answer and the end). A soft prompt takes the place
        of `wording`, whose ids stand alone: cut there, nothing changes."""
        question = self.encode(wording) + self.encode(f"\n{text} ->")
        return question, self.encode(f" {answer}") + [self.end]

    @classmethod
    def from_pretrained(cls, folder, end):
        """A byte-level BPE tokenizer.json: the ids of plain text, with no start token before it.
        Raises ValueError for whatever would give other ids than the tokenizers library."""
        path = Path(folder) / "tokenizer.json"
        if not path.exists():
            raise ValueError(f"{folder} has no tokenizer.json: a tokenizer.model of SentencePiece "
                             "is not read, only byte-level BPE is")
        given = read_json(path)
        model = given.get("model") or {}
        if model.get("type") != "BPE" or model.get("byte_fallback"):
            raise ValueError(f"{path} is of a SentencePiece kind ({model.get('type')}): only "
                             "byte-level BPE is read")
        for field, value in {**model, **given}.items():
            if value and field in ("normalizer", "truncation", "dropout",
                                   "continuing_subword_prefix", "end_of_word_suffix"):
                raise ValueError(f"{path}: {field} = {value} is not supported, only null is")
        if end is None:
            raise ValueError(f"{folder}: config.json names no eos_token_id, which ends an answer")
        pattern = pattern_of(given.get("pre_tokenizer"), path)
        try:
            special = {token["content"]: token["id"] for token in given["added_tokens"]}
            ranks = ranks_of(model, special, path)
        except (KeyError, TypeError) as problem:
            raise ValueError(f"{path} is not a byte-level BPE: {problem} is missing") from problem
        tok = cls(ranks, pattern, special, end)
        if tok.lost and model.get("unk_token"):
            raise ValueError(f"{path}: unk_token for the bytes {tok.lost} is not supported")
        return tok


def ranks_of(model, special, path):
    """{bytes: id} of the BPE `model` in a tokenizer.json, as tiktoken wants it: there the id is
    also the order of merging, and a piece that is a token is taken whole."""
    vocab, byte = model["vocab"], byte_of_sign()
    merges = [pair if isinstance(pair, list) else pair.split(" ") for pair in model["merges"]]
    order = {tuple(pair): n for n, pair in enumerate(merges)}
    found = {token: vocab[token] for token in byte if token in vocab}
    found |= {a + b: vocab[a + b] for a, b in merges}
    ids = [found[token] for token in found if len(token) > 1]

    def merged(token):
        parts = list(token)
        while len(parts) > 1:
            pairs = enumerate(zip(parts, parts[1:]))
            n, i = min((order.get(pair, math.inf), i) for i, pair in pairs)
            if n == math.inf:
                return parts
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        return parts

    whole = model.get("ignore_merges")
    if ids != sorted(ids) or not whole and any(merged(token) != [token] for token in found):
        raise ValueError(f"{path}: the order of the merges is not that of the ids, or a token is "
                         "not what its own merges make: tiktoken cannot run this")
    if whole and any(token not in found and token not in special for token in vocab):
        raise ValueError(f"{path}: ignore_merges with tokens that no merge makes is not supported")
    return {bytes(byte[sign] for sign in token): i for token, i in found.items()}


def byte_of_sign():
    """{character: byte}, as GPT-2 writes bytes: those that print stand for themselves."""
    prints = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in prints]
    return {chr(b): b for b in prints} | {chr(256 + n): b for n, b in enumerate(rest)}


GPT2 = (r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|%s| ?[^\s\p{L}\p{N}]+|\s+(?!%s)|\s+", r" ?\p{N}+", r"\S")


def pattern_of(step, path):
    """The regular expression that cuts a text as this pre_tokenizer does; ValueError for others."""
    def kind(x):
        flags = {"Digits": "individual_digits", "ByteLevel": "use_regex"}
        return x["type"], x.get(flags.get(x["type"]), True)

    step = step or {"type": "none"}
    steps = step["pretokenizers"] if step["type"] == "Sequence" else [step]
    kinds = [kind(x) for x in steps]
    prefixed = any(x.get("add_prefix_space") for x in steps)
    if kinds == [("ByteLevel", True)] and not prefixed:
        return GPT2[0] % GPT2[1:]
    if kinds[1:] == [("ByteLevel", True)] and kinds[0][0] == "Digits" and not prefixed:
        # Cut at the digits first: they take no space, and space before them ends its piece.
        return GPT2[0] % (r"\p{N}" if kinds[0][1] else r"\p{N}+", r"[^\s\p{N}]")
    if kinds == [("Split", True), ("ByteLevel", False)] and not prefixed:
        how = steps[0]["pattern"]
        pattern = how["Regex"] if "Regex" in how else regex.escape(how["String"])
        empty = regex.match(pattern, "")  # tiktoken would never get on
        if steps[0]["behavior"] == "Isolated" and not steps[0].get("invert") and not empty:
            return f"{pattern}|(?:(?!{pattern})[\\s\\S])+"  # what lies between is a piece as well
    raise ValueError(f"{path}: this pre_tokenizer is not supported, only ByteLevel, Digits before "
                     f"ByteLevel, and Split (isolated) before it are: {json.dumps(step)[:200]}")


def collate(rows, device):
    """Rows of (question, answer) -> ids (B, T), targets (B, T); only the answers are scored."""
    T = max(len(question) + len(answer) for question, answer in rows) - 1
    idx, targets = torch.full((2, len(rows), T), -1)  # (B, T) twice
    for b, (question, answer) in enumerate(rows):
        n = len(question)
        idx[b, : n + len(answer) - 1] = torch.tensor(question + answer[:-1])
        targets[b, n - 1 : n + len(answer) - 1] = torch.tensor(answer)
    return idx.to(device), targets.to(device)


# ------------------------------------------------------------------ progress, files, options


class Progress:
    """What is going on, the share done and the time left, on one line of the terminal.

    Written into a file, it is a line every ten seconds instead."""

    def __init__(self, what, total, done=0):
        self.what, self.total, self.done, self.begun = what, total, done, done
        self.start, self.shown, self.tty = time.time(), time.time() - 9, sys.stderr.isatty()

    def step(self, n=1, note=""):
        self.done += n
        now = time.time()
        if now - self.shown > (0.2 if self.tty else 10):
            self.shown = now
            left = (now - self.start) / (self.done - self.begun) * (self.total - self.done)
            self.line(f"{100 * self.done // self.total:3d} %, {clock(left)} left  {note}")

    def say(self, text):
        """A line of text for good, in the place of the progress line."""
        if self.tty:
            print("\r" + " " * 79 + "\r", end="", file=sys.stderr, flush=True)
        print(text, flush=True)

    def close(self, note=""):
        self.line(f"done in {clock(time.time() - self.start)}  {note}", "\n")

    def line(self, text, end=""):
        text = f"{self.what}: {text}"
        print("\r" + text.ljust(79) if self.tty else text, end=end if self.tty else "\n",
              file=sys.stderr, flush=True)


def clock(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def option(default, text, verbs, choices=None):
    return field(default=default, metadata={"help": text, "verbs": verbs, "choices": choices})


@dataclass
class Settings:
    """Every option: its default, its help text, and the verbs that it belongs to."""

    quick: bool = option(False, "fewer arms, one seed, one job: a first look", "main")
    out: str = option("out", "folder for results, pictures, prompts", "main plot pretrain tune")
    device: str = option("auto", "cpu, cuda, mps or auto", "main pretrain tune generate")
    base: str = option("", "file, Llama folder or hub name; base.pt", "main pretrain tune generate")
    job: str = option("", "what to learn: library unless --data", "tune", list(JOBS))
    data: str = option("", "texts and answers: .tsv, .csv or .jsonl", "tune generate")
    valid: str = option("", "more of them; without, a fifth of --data", "tune")
    method: str = option("prompt", "what to train", "tune", ["prompt", "prefix"])
    length: int = option(16, "number of virtual tokens", "tune")
    init: str = option("vocab", "where they start", "tune", INITIALIZATIONS)
    init_text: str = option("", "the text to start from, for --init text", "tune")
    steps: int = option(100, "training steps of 16 texts, at most", "tune")
    lr: float = option(0.0, "learning rate of AdamW; 0: the method's own", "tune")
    seed: int = option(0, "which random numbers and examples", "tune")
    save: str = option("", "file of the trained prompt; OUT/NAME-METHOD.pt", "tune")
    resume: bool = option(False, "go on where a tune was interrupted", "tune")
    prompt: tuple = option((), "files of trained prompts", "generate")
    text: str = option("", "a sentence to answer", "generate")


def find_device(name):
    found = "mps" if torch.backends.mps.is_available() else "cpu"
    found = "cuda" if torch.cuda.is_available() else found
    try:
        torch.empty(0, device=found if name == "auto" else name)
    except (RuntimeError, AssertionError) as problem:
        raise ValueError(f"--device {name} is not on this machine, {found} is") from problem
    return found if name == "auto" else name


def load_base(settings):
    """The frozen base and its tokenizer: a file of ours, or a Llama of Hugging Face's format."""
    path = settings.base or Path(__file__).with_name("base.pt")
    device = find_device(settings.device)
    if not os.path.exists(path) and str(path).endswith(".pt"):
        raise ValueError(f"no base model at {path}: `python train.py pretrain` makes one")
    if os.path.isfile(path):
        model = GPT.load(path)
        if "tokenizer" not in model.facts:
            raise ValueError(f"{path} has no tokenizer: give it to model.save(tokenizer=...)")
        tok = Tokenizer([token.encode("latin-1") for token in model.facts["tokenizer"]])
    else:
        # Half precision pays on a GPU; CPUs compute slowly in it.
        model = GPT.from_pretrained(path, None if device == "cuda" else torch.float32)
        tok = Tokenizer.from_pretrained(hub_folder(path), model.facts["end"])
    V, ids = model.config.vocab_size, (tok.end, min(tok.known), max(tok.known))
    if min(ids) < 0 or max(ids) >= V:
        raise ValueError(f"{path}: the tokenizer's ids go from {min(ids)} to {max(ids)}, but the "
                         f"model's vocab_size is {V}")
    return model.to(device).requires_grad_(False), tok


def usual_rate(model, method):
    """What was best or close to it for 8 to 100 virtual tokens of a grid tried once by hand: a
    prompt's rate grows with the spread of the embeddings, a prefix lives on its own scale."""
    return f"{0.3 * spread(model):.2g}" if method == "prompt" else "0.03"


def spread(model):
    return float(model.model.embed_tokens.weight.float().std())


def try_to_write(path):
    """Fail now and not after the work: an error where a file cannot be written."""
    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder: name a file")
    part = Path(f"{path}.part")
    part.touch()
    part.unlink()


def load_data(out):
    """The sentences, and the folder for all that is written; it is tried before the work begins."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    try_to_write(out / "results.csv")
    return sentences_of(read_docstrings(out)), out


# ------------------------------------------------------------------ training and scoring


def score(model, past, rows, arms=1):
    """How well each arm answers: (3, A) sums of nats, scored tokens and exactly right answers.

    `rows` are (question, answer), as many for each arm, arm after arm; row a of `past` (None: no
    prompt) goes before those of arm a. An answer is right where greedy decoding would give it.
    Rows of like length go through the model together, so that little is spent on padding; on a
    CPU few at a time, which its cache can hold (1.4 times as fast as all at once, or more).
    """
    each, device = len(rows) // arms, model.device
    lengths = [0] * arms if past is None else (past.length // 32).tolist()
    order = sorted(range(len(rows)), key=lambda i: (lengths[i // each], sum(map(len, rows[i]))))
    size = 64 if device.type == "cpu" else 8192
    sums = torch.zeros(3, arms, device=device)
    for i in range(0, len(order), size):
        part = order[i : i + size]
        idx, targets = collate([rows[j] for j in part], device)
        arm = torch.tensor(part, device=device) // each  # (B,)
        before = None if past is None else past.rows(arm)
        logits = model.scored(idx, targets, before).float()  # (n, V)
        want, row = targets[targets >= 0], (targets >= 0).nonzero()[:, 0]  # (n,) twice
        nats = F.cross_entropy(logits, want, reduction="none")  # (n,)
        token = torch.stack((nats, torch.ones_like(nats), (logits.argmax(1) != want).float()))
        found = torch.zeros(3, len(part), device=device).index_add(1, row, token)  # (3, B)
        found = torch.cat((found[:2], (found[2:] == 0).float()))  # (3, B)
        sums = sums.index_add(1, arm, found)  # (3, A)
    return sums


@dataclass
class Arm:
    """One run of an experiment: its soft prompt, what it trains on, and how."""

    soft: nn.Module
    job: str
    lr: float
    seed: int = 0
    pinned: int | None = None
    facts: dict = field(default_factory=dict)  # what the results say of it


def anyhow(rows, seed, step, size):
    """The rows of a step, at random; the same for the same seed and step."""
    return random.Random(f"{seed} {step}").sample(rows, size)


def alike(rows, seed, step, size):
    """As `anyhow`, but of like length, so that little is spent on padding: the rows of eight steps
    are drawn together, sorted, and cut into eight."""
    gen = random.Random(f"{seed} {step // 8}")
    drawn = gen.choices(rows, k=8 * size) if len(rows) < 8 * size else gen.sample(rows, 8 * size)
    drawn.sort(key=lambda row: len(row[0]) + len(row[1]))
    part = gen.sample(range(8), 8)[step % 8]
    return drawn[part * size : (part + 1) * size]


def fit(model, arms, train, steps, size, watch, past=None, draw=anyhow, begun=None):
    """Train all arms as one mixed batch over one frozen base.

    Each arm has its own examples (`size` a step of train[job], drawn by its seed), mean loss,
    gradient clipping and learning rate, so it learns exactly what it would learn alone.
    watch(step, past, optimizer) is called before each step and after the last, and ends the
    training where it returns True; past() is one row an arm. `begun` is (step, the optimizer's
    state) of an interrupted training, which goes on there.
    """
    def prefill_all():
        return prefill([arm.soft for arm in arms], model, [arm.pinned for arm in arms])

    past = past or prefill_all
    groups = [{"params": list(arm.soft.parameters()), "lr": arm.lr, "peak": arm.lr} for arm in arms]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    first = 0
    if begun:
        first = begun[0]
        optimizer.load_state_dict(begun[1])
    for step in range(first, steps + 1):
        if watch(step, past, optimizer) or step == steps:
            return
        rows = [row for arm in arms for row in draw(train[arm.job], arm.seed, step, size)]
        nats, tokens, _ = score(model, past(), rows, len(arms))
        (nats / tokens).sum().backward()
        for group in optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], 1.0)
            # Five steps of warm-up, then down to a tenth: no arm is judged while it jumps about.
            group["lr"] = group["peak"] * min((step + 1) / 5, 1, 1.1 - step / steps)
        optimizer.step()
        optimizer.zero_grad()


# ------------------------------------------------------------------ the base model

SHAPE = dict(vocab_size=2048, block_size=256, n_layer=4, n_head=4, n_embd=128, n_kv_head=2,
             window=64)
LM_STEPS, JOB_STEPS, SAVE_EVERY = 3000, 12000, 60  # seconds


def pretrain_batch(step, stream, train, tok):
    """ids, targets, the weight of each: first whole docstrings, then the jobs in English."""
    gen = random.Random(step)
    if step < LM_STEPS:
        at = torch.tensor([gen.randrange(len(stream) - 128) for _ in range(16)])  # (B,)
        block = stream[at[:, None] + torch.arange(129)]  # (B, T + 1)
        return block[:, :-1], block[:, 1:], torch.ones(16, 128) / (16 * 128)
    rows = []
    for sentence in gen.sample(train, 32):
        job = gen.choice(list(JOBS))
        answer, wordings = JOBS[job].answer(sentence), JOBS[job].wordings
        rows.append(tok.example(sentence.text, answer, gen.choice(wordings)))
    idx, answers = collate(rows, "cpu")
    targets = F.pad(idx[:, 1:], (0, 1), value=-1)  # (B, T): the question is still worth reading
    scored, question = answers >= 0, (targets >= 0) & (answers < 0)
    weight = scored / scored.sum() + 0.2 * question / question.sum()  # (B, T)
    return idx, torch.where(scored, answers, targets), weight


def pretrain(settings):
    """Make base.pt: language modelling on whole docstrings, then the jobs. Goes on after a kill."""
    device = find_device(settings.device)
    base = settings.base or Path(__file__).with_name("base.pt")
    try_to_write(base)
    data, out = load_data(settings.out)
    held_out = {s.text for split in ("valid", "test") for s in data[split]}
    texts = set()
    for _, _, text in read_docstrings(out):
        lines = [line.strip() for line in text.split("\n")]
        if split_of(lines[0]) == "train" and held_out.isdisjoint(lines):
            texts.add(text)
    texts = sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest())
    tokens = bpe(texts, SHAPE["vocab_size"] - 1)
    tok = Tokenizer(tokens)
    stream = torch.tensor([i for text in texts for i in tok.encode(text) + [tok.end]])

    torch.manual_seed(0)
    model, kept = GPT(GPTConfig(**SHAPE)).to(device), out / "pretrain.ckpt"
    matrices = [p for p in model.parameters() if p.dim() == 2]
    scales = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": scales, "weight_decay": 0.0}]
    optimizer, begun, spent = torch.optim.AdamW(groups, betas=(0.9, 0.98)), 0, 0.0
    stamp = hashlib.sha256(repr((tokens, texts, SHAPE, LM_STEPS, JOB_STEPS)).encode()).hexdigest()
    state = {"stamp": ""}
    if kept.exists():
        state = read(kept, "a pretraining", ("model", "optimizer", "step", "seconds", "stamp"))
    if state["stamp"] == stamp:  # of the same data and plan, and not yet finished
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        begun, spent = state["step"], state["seconds"]
    start = saved = time.time()
    progress = Progress("pretrain", LM_STEPS + JOB_STEPS, begun)
    for step in range(begun, LM_STEPS + JOB_STEPS):
        done, total, peak = step, LM_STEPS, 4e-3
        if step >= LM_STEPS:
            done, total, peak = step - LM_STEPS, JOB_STEPS, 2e-3
        lr = peak * min(1, (done + 1) / 100) * (0.525 + 0.475 * math.cos(math.pi * done / total))
        for group in optimizer.param_groups:
            group["lr"] = lr
        batch = pretrain_batch(step, stream, data["train"], tok)
        idx, targets, weight = (x.to(device) for x in batch)
        nats = F.cross_entropy(model.scored(idx, targets), targets[targets >= 0], reduction="none")
        loss = (nats * weight[targets >= 0]).sum()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        progress.step(note=f"loss {loss.item():.2f}")
        if time.time() - saved > SAVE_EVERY:
            saved = time.time()
            write(kept, {"model": model.state_dict(), "optimizer": optimizer.state_dict(),
                         "step": step + 1, "seconds": spent + saved - start, "stamp": stamp})
    progress.close()
    model.bfloat16().float()  # half the bytes; from here on these rounded weights are the base
    model.save(base, tokenizer=[token.decode("latin-1") for token in tokens],
               made=f"python train.py pretrain: {LM_STEPS} + {JOB_STEPS} steps, "
                    f"{clock(spent + time.time() - start)} minutes")
    kept.unlink(missing_ok=True)
    report_base(model, tok, data["test"])


def report_base(model, tok, sentences):
    """Held-out accuracy of each job by its wordings, beside the share of the commonest answer."""
    print("job       commonest    none | trained wordings              | unseen wordings")
    for name, job in JOBS.items():
        pairs = job.pairs(sentences)
        common = Counter(answer for _, answer in pairs).most_common(1)[0][1] / len(pairs)
        with torch.inference_mode():
            rights = [score(model, None, [tok.example(*pair, text) for pair in pairs])[2].item()
                      for text in ["", *job.wordings, *job.unseen]]
        print(f"{name:10s}{common:9.3f}", *(f"{right / len(sentences):7.3f}" for right in rights))


# ------------------------------------------------------------------ the main job

FIELDS = ("plan base experiment job method init length pinned lr seed step split loss accuracy "
          "parameters").split()


class Results:
    """out/results.csv: a row is on disk the moment it is known. Every value is kept as its text.

    A run is finished when it was tested; rows of a run that is not are not looked at.
    """

    def __init__(self, path, **about):
        self.path, self.about, rows = Path(path), about, []
        if self.path.exists():
            lines = self.path.read_text().split("\n")[:-1]  # a torn last line ends in no newline
            rows = list(csv.DictReader(lines))
            if rows and list(rows[0]) != FIELDS:
                raise ValueError(f"{path} is no results file of this program: move it away")
        tested = self.tested(rows)
        self.rows = [row for row in rows if self.key(row) in tested]

    def tested(self, rows):
        return {self.key(row) for row in rows if row["split"] == "test"}

    def prune(self):
        """Write the file anew, without what an interrupted run left."""
        part = self.path.with_suffix(".part")
        with open(part, "w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        part.replace(self.path)

    def key(self, facts):
        return tuple(str({**self.about, **facts}[name]) for name in FIELDS[:10])

    def add(self, facts, **more):
        row = {name: str(value) for name, value in {**self.about, **facts, **more}.items()}
        with open(self.path, "a", newline="") as file:
            csv.DictWriter(file, FIELDS, lineterminator="\n").writerow(row)
        self.rows.append(row)

    def unfinished(self, arms):
        tested = self.tested(self.rows)
        return [arm for arm in arms if self.key(arm.facts) not in tested]

    def find(self, **match):
        """The rows with these values; step, length, loss and accuracy as numbers."""
        match = {name: str(value) for name, value in {**self.about, **match}.items()}
        numbers = {"step": int, "length": int, "loss": float, "accuracy": float}
        return [{**row, **{name: kind(row[name]) for name, kind in numbers.items()}}
                for row in self.rows if match.items() <= row.items()]

    def group(self, name, value, **match):
        """{name's value: [the values of `value`]} over the rows found."""
        found = defaultdict(list)
        for row in self.find(**match):
            found[row[name]].append(row[value])
        return found

    def jobs(self):
        return list(self.group("job", "step", experiment="initialization"))


class Plan(NamedTuple):
    """How much the main job does. Its learning rates are multiples of the embeddings' std."""

    name: str = "full"
    jobs: tuple = ("library", "count")
    starts: tuple = ("related", "shuffled", "unrelated", "vocab", "matched", "normal")
    prompt_rates: tuple = (0.1, 0.3, 1.0, 3.0)
    seeds: int = 5  # of the initialization experiment
    lengths: tuple = (1, 2, 4, 8, 16, 32, 64, 100)
    length_seeds: int = 3  # of everything else
    steps: int = 30
    size: int = 8  # sentences a step
    valid: int = 48  # sentences of the validation curves
    test: int = 240  # sentences of the final numbers; half as many to choose a length by


QUICK = Plan("quick", ("library",), ("related", "vocab", "normal"), (0.3, 1.0), 1,
             (1, 8, 64), 1, steps=24, test=160)
METHODS = {"prompt": PromptTuning, "prefix": PrefixTuning}
UNRELATED = "The night train to the coast was late again, and it had begun to rain."
WATCH = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30)


class Lab:
    """What every experiment needs at hand, and how all of its runs are trained and recorded."""

    def __init__(self, model, tok, data, results=None, plan=None):
        self.model, self.tok, self.data, self.results, self.plan = model, tok, data, results, plan
        self.kept = {}
        self.spread = spread(model)

    def rows(self, job, split, n=None, wording=""):
        key = job, split, wording
        if key not in self.kept:
            pairs = JOBS[job].pairs(self.data[split])
            self.kept[key] = [self.tok.example(*pair, wording) for pair in pairs]
        return self.kept[key][:n]

    def start(self, job, start, length, seed):
        """Where a run starts, (P, C). The texts: a wording that the base was not trained on."""
        gen, ids = torch.Generator().manual_seed(seed), self.tok.encode(JOBS[job].unseen[0])
        if start == "shuffled":
            ids = [ids[i] for i in torch.randperm(len(ids), generator=gen)]
        if start == "unrelated":
            ids = self.tok.encode(UNRELATED)
        method = start if start in INITIALIZATIONS else "text"
        return initial_embeddings(self.model, length, method, ids, gen)

    def arm(self, experiment, job, method, init, length, lr, seed, pinned=None):
        soft = METHODS[method].start(self.model, self.start(job, init, length, seed), pinned)
        facts = dict(experiment=experiment, job=job, method=method, init=init, length=length,
                     pinned="no" if pinned == 0 else "yes", lr=lr, seed=seed,
                     parameters=sum(p.numel() for p in soft.parameters()))
        return Arm(soft, job, float(lr), seed, pinned, facts)

    def record(self, model, arms, past, step, split, n, wording=""):
        rows = [row for arm in arms for row in self.rows(arm.job, split, n, wording)]
        with torch.inference_mode():
            sums = score(model, past(), rows, len(arms))  # (3, A)
        for arm, (nats, tokens, right) in zip(arms, sums.T.tolist()):
            self.results.add(arm.facts, step=step, split=split, loss=f"{nats / tokens:.4f}",
                             accuracy=f"{right * len(arms) / len(rows):.4f}")

    def run(self, what, arms, steps=None, watch=(), model=None, past=None):
        """Train the unfinished arms as one batch; losses and accuracies go to the results."""
        arms, plan, model = self.results.unfinished(arms), self.plan, model or self.model
        if not arms:
            return
        steps = steps or plan.steps
        progress = Progress(f"{what}, {len(arms)} at once" if len(arms) > 1 else what, steps)

        def each_step(step, past, optimizer):
            if step:
                progress.step()
            if step in watch or step == steps:
                n = plan.valid if watch else plan.test // 2
                self.record(model, arms, past, step, "valid", n)
            if step == steps:  # nobody reads the test of a run that only tried a learning rate
                n = plan.test if steps == plan.steps else 1
                self.record(model, arms, past, step, "test", n)

        train = {arm.job: self.rows(arm.job, "train") for arm in arms}
        fit(model, arms, train, steps, plan.size, each_step, past)
        progress.close()

    def best_rate(self, **match):
        """The rate with the lowest validation loss, averaged over the steps that were watched."""
        found = self.results.group("lr", "loss", experiment="tuning", split="valid", **match)
        return min(found, key=lambda lr: mean(found[lr]))


def baselines(lab, job):
    """The frozen base without a prompt and with every English wording."""
    wordings = [("none", ""), *(("wording", text) for text in JOBS[job].wordings),
                *(("unseen", text) for text in JOBS[job].unseen)]
    for method, text in wordings:
        facts = dict(experiment="methods", job=job, method=method, init=text, length=0, pinned="",
                     lr=0, seed=0, parameters=0)
        for arm in lab.results.unfinished([Arm(None, job, 0, facts=facts)]):
            for split, n in (("valid", lab.plan.valid), ("test", lab.plan.test)):
                lab.record(lab.model, [arm], lambda: None, 0, split, n, text)


def initialization(lab, job):
    """Every start with its own learning rate, tuned on a seed of its own."""
    plan, P = lab.plan, len(lab.tok.encode(JOBS[job].unseen[0]))
    tries = [("prompt", start, P, f"{rate * lab.spread:.2g}")
             for start in plan.starts for rate in plan.prompt_rates]
    lab.run(f"{job}, learning rates", [lab.arm("tuning", job, *one, seed=1000) for one in tries],
            plan.steps // 2, WATCH[2::3])
    lab.run(f"{job}, initialization", [
        lab.arm("initialization", job, "prompt", start, P,
                lab.best_rate(job=job, init=start), seed)
        for start in plan.starts for seed in range(plan.seeds)], watch=WATCH)


def lengths(lab, job):
    """Prompt and prefix of 1 to 100 vectors, pinned; where the window cuts, sliding as well."""
    arms = []
    for method in METHODS:
        lr = usual_rate(lab.model, method)
        for P in lab.plan.lengths:
            for pinned in (None, 0) if P >= (lab.model.config.window or P + 1) else (None,):
                arms += [lab.arm("length", job, method, "vocab", P, lr, seed, pinned)
                         for seed in range(lab.plan.length_seeds)]
    lab.run(f"{job}, length", arms)


class LoRA(nn.Module):
    """W + 2 B A, with A (r, in) and B (out, r) learned (Hu et al. 2021, arXiv 2106.09685)."""

    def __init__(self, linear, rank=4):
        super().__init__()
        self.A = nn.Parameter(torch.randn(rank, linear.in_features) / linear.in_features**0.5)
        self.B = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, weight):
        return weight + 2 * self.B @ self.A  # (out, in)


def weights(lab, job):
    """The baselines that change the base: LoRA on the attention projections, and every weight."""
    for method, lr in (("lora", 3e-3), ("full", 3e-4)):  # by hand, of 3e-4 to 3e-3 and 3e-5 to 1e-3
        for seed in range(lab.plan.length_seeds):
            torch.manual_seed(seed)
            model = deepcopy(lab.model)
            learned = model.requires_grad_(True) if method == "full" else nn.ModuleList()
            for linear in [x for block in model.model.layers for x in block.self_attn.children()]:
                if method == "lora":
                    learned.append(LoRA(linear).to(model.device))
                    parametrize.register_parametrization(linear, "weight", learned[-1])
            facts = dict(experiment="methods", job=job, method=method, init="", length=0, pinned="",
                         lr=lr, seed=seed, parameters=sum(p.numel() for p in learned.parameters()))
            lab.run(f"{job}, {method} {seed + 1}", [Arm(learned, job, lr, seed, facts=facts)],
                    model=model, past=lambda: None)


def prompts(lab, out):
    """Keep one prompt for each job as out/JOB.pt: of the length chosen, the best of three seeds."""
    results, job = lab.results, lab.plan.jobs[0]
    P, lr = chosen_length(results, job, "prompt"), usual_rate(lab.model, "prompt")
    mark = lab.model.fingerprint()

    def missing(job):
        try:
            kept = softprompt.load(out / f"{job}.pt", lab.model, mark)
            return kept.facts.get("plan") != lab.plan.name
        except (OSError, ValueError):
            return True  # none yet, or of another base

    jobs = list(filter(missing, lab.plan.jobs if lab.plan.name == "quick" else JOBS))
    arms = [lab.arm("prompts", job, "prompt", "related", P, lr, seed)
            for job in jobs for seed in range(3)]
    again = {results.key(arm.facts) for arm in arms}
    results.rows = [row for row in results.rows if results.key(row) not in again]
    results.prune()
    lab.run("a prompt for each job", arms)
    for job in jobs:
        valid = results.group("seed", "loss", experiment="prompts", job=job, split="valid")
        seed = min(valid, key=valid.get)
        [row] = results.find(experiment="prompts", job=job, split="test", seed=seed)
        [arm] = [arm for arm in arms if arm.job == job and str(arm.seed) == seed]
        softprompt.save(arm.soft, out / f"{job}.pt", lab.model, job=job, init="related",
                        plan=lab.plan.name, steps=lab.plan.steps, test_accuracy=row["accuracy"])


def main_job(settings):
    """Three experiments on two jobs; table, pictures and prompts."""
    begun = time.time()
    model, tok = load_base(settings)
    data, out = load_data(settings.out)
    plan = QUICK if settings.quick else Plan()
    results = Results(out / "results.csv", plan=plan.name, base=model.fingerprint()[:8])
    results.prune()
    lab = Lab(model, tok, data, results, plan)
    for job in plan.jobs:
        for experiment in (baselines, initialization, lengths, weights):
            experiment(lab, job)
    prompts(lab, out)
    report(results, model)
    draw(results, out)
    print(f"\nDone in {clock(time.time() - begun)} minutes. Look at initialization.png, length.png "
          f"and methods.png in {out}/")


# ------------------------------------------------------------------ what was found


def mean_se(values):
    """The mean and its standard error; a single value shows no spread."""
    return mean(values), stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def chosen_length(results, job, method):
    """The smallest length within one standard error of the best, by validation accuracy."""
    found = results.group("length", "accuracy", experiment="length", job=job, method=method,
                          pinned="yes", split="valid")
    top, spread = max(mean_se(values) for values in found.values())
    return min(P for P, values in found.items() if mean(values) >= top - spread)


class Race(NamedTuple):
    """How fast each start learns a job."""

    unprompted: float  # validation loss without a prompt
    threshold: float  # 90 % of the way from there to the best mean loss that any start reaches
    curves: dict  # start -> {step: losses of the seeds}
    steps: dict  # start -> first step at the threshold for each seed, inf where it never gets there
    ratios: dict  # start -> median steps / those of related text, and the ends of its 95 % interval


def race(results, job):
    match = dict(experiment="initialization", job=job, split="valid")
    curves = {start: results.group("step", "loss", init=start, **match)
              for start in results.group("init", "loss", **match)}
    [none] = results.find(experiment="methods", job=job, method="none", split="valid")
    best = min(mean(losses) for curve in curves.values() for losses in curve.values())
    threshold = none["loss"] - 0.9 * (none["loss"] - best)
    steps = {start: [next((step for step, loss in zip(curve, run) if loss <= threshold), math.inf)
                     for run in zip(*curve.values())] for start, curve in curves.items()}
    gen, ratios = random.Random(0), {}
    for start, values in steps.items():
        def ratio(a, b):  # there at once counts as one step, for a ratio to exist
            return max(1, median(a)) / max(1, median(b))
        both, n = (values, steps["related"]), len(values)
        draws = sorted(ratio(*(gen.choices(x, k=n) for x in both)) for _ in range(2000))
        ratios[start] = ratio(*both), draws[50], draws[-51]  # the bootstrap over seeds
    return Race(none["loss"], threshold, curves, steps, ratios)


def methods(results, job):
    """[(method, its wording or length, parameters, test accuracies)] of all that was tried."""
    found = defaultdict(list)
    for row in results.find(job=job, split="test"):
        if row["experiment"] == "methods":
            found[row["method"], row["init"], int(row["parameters"])].append(row["accuracy"])
        elif row["experiment"] == "length" and row["pinned"] == "yes":
            what = row["method"], f"{row['length']} virtual tokens", int(row["parameters"])
            found[what].append(row["accuracy"])
    return [(*what, values) for what, values in found.items()]


def report(results, model):
    """The numbers behind the pictures, as tables."""
    total = sum(p.numel() for p in model.parameters())
    for job in results.jobs():
        found = race(results, job)
        print(f"\n{job}: {found.unprompted:.2f} nats without a prompt, the threshold is "
              f"{found.threshold:.2f}\n{'start':20s}rate   nats at 0   at the end   accuracy   "
              "steps to threshold   x related text [95 %]")
        for start, curve in found.curves.items():
            rows = results.find(experiment="initialization", job=job, init=start, split="test")
            losses, steps = [mean(values) for values in curve.values()], found.steps[start]
            print(f"{NAMES[start]:18s}{rows[0]['lr']:>6s}{losses[0]:12.2f}{losses[-1]:13.2f}"
                  f"{mean(row['accuracy'] for row in rows):11.3f}{median(steps):11.0f} "
                  f"({min(steps)} to {max(steps)})"
                  "{:14.1f} [{:.1f}, {:.1f}]".format(*found.ratios[start]))
        print(f"{'method':60s}numbers   % of base   accuracy")
        for method, what, count, values in methods(results, job):
            print(f"{method:10s}{what:46s}{count:11d}{100 * count / total:12.3f}"
                  "{:11.3f} +- {:.3f}".format(*mean_se(values)))
        for method in METHODS:
            print(f"{method} tuning: {chosen_length(results, job, method)} virtual tokens are "
                  "within one standard error of the best length")


# ------------------------------------------------------------------ pictures

# Colours that colour-blind readers tell apart (Okabe and Ito).
COLOURS = ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#CC79A7", "#D55E00")
NAMES = {"related": "related text", "shuffled": "shuffled", "unrelated": "unrelated text",
         "vocab": "sampled tokens", "matched": "matched Gaussian", "normal": "N(0, 1)"}


def draw(results, out):
    """The three pictures, from the results alone."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"font.size": 11, "axes.titlesize": 11, "axes.spines.top": False,
                            "axes.spines.right": False, "figure.constrained_layout.use": True})
    jobs = results.jobs()
    for name, rows, paint, title in (
            ("initialization", (3, 2), draw_race,
             "Six places for a prompt to start from, and how soon it learns from there"),
            ("length", (1, 1), draw_lengths, "How many virtual tokens a job wants"),
            ("methods", (1,), draw_methods,
             "A thousand trained numbers against a fine-tuned copy, on the same examples")):
        size = 4.4 * len(jobs), 7 if len(rows) > 1 else 4.6
        figure, axes = pyplot.subplots(len(rows), len(jobs), figsize=size, squeeze=False,
                                       height_ratios=rows)
        for column, job in zip(axes.T, jobs):
            paint(results, job, *column)
        figure.suptitle(title)
        figure.savefig(out / f"{name}.part.png", dpi=130)
        (out / f"{name}.part.png").replace(out / f"{name}.png")
        pyplot.close(figure)


def level(axis, y, text):
    """A dashed line across, with its name on the left."""
    axis.axhline(y, color="0.45", ls="--", lw=1)
    axis.annotate(text, (0.02, y), (0, 2), xycoords=("axes fraction", "data"),
                  textcoords="offset points", color="0.35", fontsize=9)


def draw_race(results, job, top, low):
    found = race(results, job)
    end = max(max(curve) for curve in found.curves.values())
    for i, (start, curve) in enumerate(found.curves.items()):
        lows, highs = zip(*((min(losses), max(losses)) for losses in curve.values()))
        top.fill_between(list(curve), lows, highs, color=COLOURS[i], alpha=0.15, lw=0)
        top.plot(list(curve), [mean(x) for x in curve.values()], color=COLOURS[i], lw=2)
        there = [step for step in found.steps[start] if step < math.inf]
        low.plot(there, [-i] * len(there), "o", color=COLOURS[i], alpha=0.5)
        if there:
            low.plot(median(there), -i, "|", color=COLOURS[i], ms=20, mew=3)
        if missed := len(found.steps[start]) - len(there):
            low.text(end, -i, f"{missed} never", ha="right", va="center", color=COLOURS[i])
    level(top, found.unprompted, "no prompt")
    level(top, found.threshold, "threshold")
    first, last = (median(found.steps[start]) for start in ("related", "normal"))
    top.set(title=f"{job}: threshold after {first:g} steps from\nrelated text, {last:g} from "
                  "N(0, 1)", xscale="symlog", xlim=(0, end), xlabel="training steps")
    ticks = [0, 1, 2, 5, 10, end]
    top.set_xticks(ticks, ticks)
    top.minorticks_off()
    low.set(xlabel="steps to the threshold (a dot is a seed)", xlim=(-0.5, None))
    low.set_yticks([-i for i in range(len(found.curves))], [NAMES[start] for start in found.curves])
    low.set_ylim(0.6 - len(found.curves), 0.6)
    for text, colour in zip(low.get_yticklabels(), COLOURS):
        text.set(color=colour, weight="bold", visible=low.get_subplotspec().is_first_col())
    if top.get_subplotspec().is_first_col():
        top.set_ylabel("validation loss, nats a token")


def draw_lengths(results, job, *axes):
    tried = methods(results, job)
    for axis, method in zip(axes, METHODS):
        for pinned, colour, style, name in (("yes", COLOURS[0], "o-", "pinned"),
                                            ("no", COLOURS[5], "s--", "sliding out of the window")):
            found = results.group("length", "accuracy", experiment="length", job=job, method=method,
                                  pinned=pinned, split="test")
            centers, spreads = zip(*map(mean_se, found.values())) if found else ((), ())
            axis.errorbar(list(found), centers, spreads, fmt=style, color=colour, capsize=3,
                          label=name)
        best = max(mean(values) for name, _, _, values in tried if name == "wording")
        level(axis, best, "best English wording")
        level(axis, *(mean(values) for name, _, _, values in tried if name == "none"), "no prompt")
        P = chosen_length(results, job, method)
        ticks = list(results.group("length", "step", experiment="length"))
        axis.axvspan(P / 1.12, P * 1.12, color="0.85", zorder=0)
        axis.set(title=f"{job}, {method} tuning: {P} is within 1 SE of the best", xscale="log",
                 ylim=(0, 1.05), xlabel="virtual tokens", ylabel="test accuracy")
        axis.set_xticks(ticks, ticks)
        axis.minorticks_off()
        axis.legend(frameon=False, fontsize=9, loc=(0.02, 0.25))


def draw_methods(results, job, axis):
    looks = {"none": ("X", "no prompt"), "wording": ("_", "English wordings"),
             "unseen": ("_", "untrained wordings"), "prompt": ("o-", "prompt tuning"),
             "prefix": ("s-", "prefix tuning"), "lora": ("D", "LoRA"), "full": ("*", "all weights")}
    for colour, (method, (style, name)) in zip(("0.4", *COLOURS), looks.items()):
        tried = sorted(one[2:] for one in methods(results, job) if one[0] == method)
        centers, spreads = zip(*(mean_se(values) for _, values in tried))
        axis.errorbar([count for count, _ in tried], centers, spreads, fmt=style, color=colour,
                      capsize=3, label=name, ms=5 if style.endswith("-") else 10, mew=2)
    axis.set(title=f"job: {job}", ylim=(0, 1.05), xlabel="trained numbers", ylabel="test accuracy")
    axis.set_xscale("symlog", linthresh=100)
    axis.set_xlim(-20, 3e6)
    if axis.get_subplotspec().is_first_col():
        axis.legend(frameon=False, fontsize=9, loc="lower right")


# ------------------------------------------------------------------ the other verbs


PATIENCE = 4  # evaluations without a better validation loss, of at most ten, end the training


def rows_of(model, tok, pairs, wording="", length=0, answers=(), say=False):
    """Pairs as rows of ids behind `length` virtual tokens; a text that does not fit, with its own
    answer or with any of `answers`, loses its beginning (`say` how many do).
    Raises ValueError where even that is not enough, and for an answer of no tokens."""
    rows, cut, keep = [], 0, len(tok.encode(wording))
    longest = max((len(tok.encode(f" {answer}")) + 1 for answer in answers), default=0)
    for text, answer in pairs:
        question, ids = tok.example(text, answer, wording)
        if answer and not tok.encode(answer):
            raise ValueError(f"the answer {answer!r} has no token in this model's vocabulary")
        over = length + len(question) + max(len(ids), longest) - 1 - model.config.block_size
        if over > 0:
            cut += 1
            question = question[:keep] + question[keep + over :]
        if len(question) <= keep:
            raise ValueError(f"{length} virtual tokens, {keep} of wording and "
                             f"{max(len(ids), longest)} of an answer leave no room for a text in "
                             f"block_size={model.config.block_size}")
        rows.append((question, ids))
    if cut and say:
        print(f"{cut} of {len(rows)} texts are longer than the context of "
              f"{model.config.block_size} tokens: their beginnings are cut off", file=sys.stderr)
    return rows


def few_answers(pairs):
    """The different answers, where they are few enough to choose among; else none."""
    found = sorted({answer for _, answer in pairs})
    return found if len(found) <= 20 else []


@torch.inference_mode()
def judge(model, tok, past, rows, answers=(), progress=None):
    """(loss in nats a token, share answered exactly, share right when choosing among `answers`).

    The chosen answer is the one that the model finds likeliest as a whole. Each question goes
    through the model once; its answers go behind the past that it leaves.
    """
    choices = [tok.encode(f" {answer}") + [tok.end] for answer in answers]
    rows, sums, among = sorted(rows, key=lambda row: len(row[0])), torch.zeros(3), 0
    size = max(1, 64 // max(4, len(choices)))  # so that 64 rows of answers are in memory at most
    for i in range(0, len(rows), size):
        part = rows[i : i + size]
        sums += score(model, past, part)[:, 0].cpu()
        if choices:
            idx, _ = collate([(question[:-1], [0]) for question, _ in part], model.device)
            _, seen = model.hidden(idx, past, first=idx.shape[1])  # S slots of every question
            behind = [(question[-1:], choice) for question, _ in part for choice in choices]
            repeat = torch.arange(len(part), device=model.device)
            seen = seen.rows(repeat.repeat_interleave(len(choices)))
            idx, targets = collate(behind, model.device)  # (B A, T)
            nats = F.cross_entropy(model.scored(idx, targets, seen).float(), targets[targets >= 0],
                                   reduction="none")  # (n,)
            which = (targets >= 0).nonzero()[:, 0]  # (n,)
            total = torch.zeros(len(behind), device=model.device).index_add(0, which, nats)
            best = total.view(len(part), len(choices)).argmin(1).tolist()
            among += sum(choices[b] == answer for b, (_, answer) in zip(best, part))
        if progress:
            progress.step(len(part))
    return float(sums[0] / sums[1]), float(sums[2]) / len(rows), among / len(rows)


def compare(model, tok, pairs, commonest, answers, candidates):
    """Print how each candidate (name, past or None, wording) does on these pairs, below always
    giving the `commonest` answer; return {name: what judge found}."""
    progress, found = Progress("testing", len(candidates) * len(pairs)), {}
    for name, past, wording in candidates:
        length = 0 if past is None else int(past.length.max())
        rows = rows_of(model, tok, pairs, wording, length, answers)
        found[name] = judge(model, tok, past, rows, answers, progress)
    progress.close()
    always = f"always {commonest!r}"
    width, title = max(map(len, [*found, always])), f"{len(pairs)} texts"
    share = sum(answer == commonest for _, answer in pairs) / len(pairs)
    print(f"{title:{width}s}  nats a token   exact" + f"   among {len(answers)}" * bool(answers))
    for name, values in {always: (math.nan, share, share), **found}.items():
        loss, exact, among = ("-" if value != value else f"{value:.3f}" for value in values)
        print(f"{name:{width}s}{loss:>14s}{exact:>8s}" + f"{among:>10s}" * bool(answers))
    return found


def train_best(model, soft, lr, seed, rows, steps, kept, stamp, resume):
    """Train until the validation loss gets no better; leave the best vectors in `soft`.

    Returns {"step", "loss", "accuracy"} of these. `kept` is the file of an interrupted run, and
    `stamp` says what it was of: going on gives what the uninterrupted run would have given.
    """
    state = {"stamp": stamp, "step": 0, "bad": 0, "found": {"loss": math.inf}}
    if kept.exists() != resume:
        print(f"{kept} is not there: from the beginning" if resume else
              f"{kept} is of an interrupted run, which is given up without --resume",
              file=sys.stderr)
    elif resume:
        state = read(kept, "an interrupted run", ("soft", "optimizer", "best", *state))
        if state["stamp"] != stamp:
            raise ValueError(f"{kept} is of another run (other data, base or options): repeat its "
                             "command with --resume, or leave --resume out")
        soft.load_state_dict(state["soft"])
    begun = (state["step"], state["optimizer"]) if state["step"] else None
    every, saved = -(-steps // 10), time.time()
    progress = Progress("training", steps, state["step"])

    def watch(step, past, optimizer):
        nonlocal saved
        if step > (begun[0] if begun else 0):
            progress.step()
        if step and time.time() - saved > 5:
            state.update(step=step, soft=soft.state_dict(), optimizer=optimizer.state_dict())
            write(kept, state)
            saved = time.time()
        if step % every and step < steps:
            return False
        with torch.inference_mode():
            nats, tokens, right = score(model, past(), rows["valid"][:128])[:, 0].tolist()
        found = {"step": step, "loss": nats / tokens,
                 "accuracy": right / len(rows["valid"][:128])}
        state["bad"] += 1
        if found["loss"] < state["found"]["loss"]:
            state.update(bad=0, found=found, best=deepcopy(soft.state_dict()))
        progress.say(f"step {step:4d}   validation: {found['loss']:.3f} nats a token, "
                     f"{found['accuracy']:.3f} right")
        return state["bad"] == PATIENCE

    fit(model, [Arm(soft, "", lr, seed)], {"": rows["train"]}, steps, 16, watch, None, alike, begun)
    progress.close(f"best at step {state['found']['step']}")
    soft.load_state_dict(state["best"])
    return state["found"]


def tune(settings):
    """Train one soft prompt on a job or on own data, and save it; what needs no training stands
    beside it."""
    model, tok = load_base(settings)
    ids, seed = tok.encode(settings.init_text), settings.seed % 2**63
    if settings.steps < 1:
        raise ValueError(f"--steps {settings.steps}: give at least 1")
    if not 0 <= settings.lr < math.inf:
        raise ValueError(f"--lr {settings.lr}: give a positive number")
    if settings.init == "text" and not settings.init_text.strip():
        raise ValueError('--init text starts from a text: give it with --init-text "..."')
    gen = torch.Generator().manual_seed(seed)
    start = initial_embeddings(model, settings.length, settings.init, ids, gen)
    name = Path(settings.data).stem if settings.data else settings.job or "library"
    path = Path(settings.save or Path(settings.out) / f"{name}-{settings.method}.pt")
    if not settings.save:
        path.parent.mkdir(parents=True, exist_ok=True)
    try_to_write(path)
    data = read_data(settings)
    kept, answers = Path(f"{path}.ckpt"), few_answers(data["train"])
    commonest = Counter(answer for _, answer in data["train"]).most_common(1)[0][0]
    print(f"{name}: {len(data['train'])} texts to learn from, {len(data['valid'])} to validate; "
          "the first: {!r} -> {!r}".format(*data["train"][0]))

    soft = METHODS[settings.method].start(model, start)
    lr = settings.lr or float(usual_rate(model, settings.method))
    rows = rows_of(model, tok, data["train"] + data["valid"], "", settings.length, answers, True)
    wordings = [settings.init_text] if settings.init_text.strip() else []
    for text in wordings:  # as plain English; whether it fits is said before the training
        rows_of(model, tok, data["valid"], text, 0, answers)
    rows = {"train": rows[: len(data["train"])], "valid": rows[len(data["train"]) :]}
    options = [getattr(settings, x) for x in "method length init init_text steps seed".split()]
    stamp = repr((options, lr, rows, model.fingerprint()))
    found = train_best(model, soft, lr, seed, rows, settings.steps, kept,
                       hashlib.sha256(stamp.encode()).hexdigest(), settings.resume)
    softprompt.save(soft, path, model, job=name, init=settings.init, init_text=settings.init_text,
                    commonest=commonest, answers=answers, lr=lr, **found)
    with torch.no_grad():
        mine = (f"{soft.kind} of {soft.length}", soft.past(model), "")
    compare(model, tok, data["valid"], commonest, answers, [
        ("no prompt", None, ""), *((repr(text), None, text) for text in wordings), mine])
    kept.unlink(missing_ok=True)
    print(f"{path}: {settings.length} virtual tokens, {os.path.getsize(path) / 1000:.1f} kB, "
          f"{100 * softprompt.trainable_fraction(soft, model):.3f} % of the base's numbers")


def generate(settings):
    """Answer a text without and with each soft prompt, in one batch over one base; or say how well
    each does on a file of texts and answers."""
    if not settings.prompt or bool(settings.text.strip()) == bool(settings.data):
        raise ValueError('generate needs --prompt FILE..., and --text "..." or --data FILE')
    pairs = read_pairs(settings.data) if settings.data else []
    model, tok = load_base(settings)
    mark = model.fingerprint()
    softs = [PromptTuning(torch.empty(0, model.config.n_embd, device=model.device))]
    softs += [softprompt.load(path, model, mark) for path in settings.prompt]
    names = ["without a prompt", *settings.prompt]
    if pairs:
        # What the prompts were trained on, if they know (those of the main job do not).
        answers = sorted({a for soft in softs for a in soft.facts.get("answers", ())})
        answers = answers or few_answers(pairs)
        common = [soft.facts["commonest"] for soft in softs if "commonest" in soft.facts]
        commonest = common[0] if common else Counter(a for _, a in pairs).most_common(1)[0][0]
        with torch.inference_mode():
            pasts = [soft.past(model) for soft in softs]
        rows_of(model, tok, pairs, "", max(soft.length for soft in softs), answers, say=True)
        return compare(model, tok, pairs, commonest, answers, [
            (name, past, "") for name, past in zip(names, pasts)])
    longest = max(soft.length for soft in softs) + 15  # virtual tokens, and new ones
    [(row, _)] = rows_of(model, tok, [(settings.text.strip(), "")], "", longest, say=True)
    with torch.inference_mode():
        answers = model.generate([row] * len(softs), 16, prefill(softs, model), stop=tok.end)
    width = max(map(len, names))
    for name, soft, answer in zip(names, softs, answers):
        print(f"{name:{width}s}  {soft.kind} of {soft.length:3d}  "
              f"{' '.join(tok.decode(answer).split())}")


def plot(settings):
    """Draw the pictures of the last main job anew."""
    path = Path(settings.out) / "results.csv"
    done = [row for row in Results(path, plan="", base="").rows if row["experiment"] == "prompts"]
    if not done:
        raise ValueError(f"no finished main job in {path}: run `python train.py` first")
    draw(Results(path, plan=done[-1]["plan"], base=done[-1]["base"]), path.parent)
    print(f"drew initialization.png, length.png and methods.png in {settings.out}/")


VERBS = {"main": main_job, "pretrain": pretrain, "tune": tune, "generate": generate, "plot": plot}


def parse(arguments):
    """The verb and its settings; the options are the fields of Settings."""
    def error(message):
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)

    parser = argparse.ArgumentParser("train.py", description=__doc__, allow_abbrev=False,
                                     argument_default=argparse.SUPPRESS,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = error
    parser.add_argument("verb", nargs="?", choices=VERBS, default="main", help="what to do (main)")
    names = {f.name: "--" + f.name.replace("_", "-") for f in fields(Settings)}
    for f in fields(Settings):
        kind = {bool: {"action": "store_true"}, tuple: {"nargs": "+"}}.get(
            f.type, {"type": f.type, "choices": f.metadata["choices"]})
        text = f"{f.metadata['help']} ({f.metadata['verbs']}; {f.default})"
        parser.add_argument(names[f.name], help=text, **kind)
    given = vars(parser.parse_args(arguments))
    verb = given.pop("verb")
    for f in fields(Settings):
        if f.name in given and verb not in f.metadata["verbs"].split():
            error(f"{names[f.name]} belongs to {f.metadata['verbs']}, not to {verb}")
    return verb, Settings(**given)


def main(arguments=None):
    verb, settings = parse(arguments)
    try:
        VERBS[verb](settings)
    except (ValueError, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\ninterrupted: main and pretrain go on when started again, tune with --resume",
              file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
