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
import ctypes
import hashlib
import heapq
import importlib.util
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

import tiktoken
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils import parametrize

import softprompt
from model import GPT, GPTConfig, read, write
from softprompt import INITIALIZATIONS, PrefixTuning, PromptTuning, initial_embeddings, prefill

# ------------------------------------------------------------------ data: docstrings on this disk

LIBRARIES = ("sympy", "torch", "python", "matplotlib", "networkx", "numpy")
SKIP = re.compile(r"_|\.|tests?$|testing$|test_|site-packages$|idlelib$|lib2to3$|turtledemo$")


def source_files():
    """[(library, path)] of every public module of the libraries that are installed."""
    found = []
    for library in LIBRARIES:
        spec = importlib.util.find_spec("os" if library == "python" else library)
        root = Path(spec.origin).parent if spec else Path(os.devnull)
        if library == "python":
            root = Path(sysconfig.get_paths()["stdlib"])
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
    answer: Callable[[Sentence], str]
    wordings: list[str]  # the base learned the job from these
    unseen: list[str]  # the base never saw these


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
        ["Decide: is it a function or is it a class?", "What is described, a class or a function?"]),
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
    """tiktoken's encoding over byte strings by rank, and the one special token behind them."""

    def __init__(self, tokens):
        ranks = {token: rank for rank, token in enumerate(tokens)}
        self.encoding = tiktoken.Encoding("docstrings", pat_str=PATTERN, mergeable_ranks=ranks,
                                          special_tokens={"<|end|>": len(tokens)})
        self.end = len(tokens)
        self.encode, self.decode = self.encoding.encode_ordinary, self.encoding.decode

    def example(self, job, sentence, wording=""):
        """(ids before the answer, ids of the answer and <|end|>). A soft prompt takes the place
        of `wording`, whose ids stand alone: cut there, nothing changes."""
        question = self.encode(wording) + self.encode(f"\n{sentence.text} ->")
        return question, self.encode(" " + JOBS[job].answer(sentence)) + [self.end]


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

    def step(self, note=""):
        self.done += 1
        now = time.time()
        if now - self.shown > (0.2 if self.tty else 10):
            self.shown = now
            left = (now - self.start) / (self.done - self.begun) * (self.total - self.done)
            self.line(f"{100 * self.done // self.total:3d} %, {clock(left)} left  {note}")

    def close(self, note=""):
        self.line(f"done in {clock(time.time() - self.start)}  {note}", "\n")

    def line(self, text, end=""):
        text = f"{self.what}: {text}"
        print("\r" + text.ljust(79) if self.tty else text, end=end if self.tty else "\n",
              file=sys.stderr, flush=True)


def clock(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def option(default, text, verbs, **more):
    return field(default=default, metadata={"help": text, "verbs": verbs.split(), **more})


@dataclass
class Settings:
    """Every option: its default, its help text, and the verbs that it belongs to."""

    quick: bool = option(False, "fewer arms, one seed, one job: a first look", "main")
    out: str = option("out", "folder for results, pictures, prompts", "main plot pretrain tune")
    device: str = option("auto", "cpu, cuda, mps; auto takes the fastest", "main pretrain tune generate")
    base: str = option("", "file of the base model (base.pt beside train.py)", "main pretrain tune generate")
    job: str = option("library", "what to learn", "tune", choices=list(JOBS))
    method: str = option("prompt", "what to train", "tune", choices=["prompt", "prefix"])
    length: int = option(16, "number of virtual tokens", "tune")
    init: str = option("vocab", "where they start", "tune", choices=list(INITIALIZATIONS))
    init_text: str = option("", "the text to start from, for --init text", "tune")
    steps: int = option(100, "training steps of 32 sentences", "tune")
    lr: float = option(0.0, "learning rate of AdamW (0: the method's own)", "tune")
    seed: int = option(0, "which random numbers and examples", "tune")
    save: str = option("", "file for the trained prompt (out/JOB-METHOD.pt)", "tune")
    prompt: str = option("", "file of a trained prompt", "generate")
    text: str = option("", "a sentence to answer", "generate")


def fast_memory():
    """Let glibc keep freed memory: else every large tensor of a step is zeroed anew by the kernel."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-1, 2**31 - 1), libc.mallopt(-3, 2**30)  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
    except OSError:
        pass  # another system, another allocator


def find_device(name):
    found = "cuda" if torch.cuda.is_available() else "cpu"
    found = "mps" if torch.backends.mps.is_available() else found
    kind = torch.device(found if name == "auto" else name).type
    if kind not in (found, "cpu"):
        raise ValueError(f"--device {name}: none here, this machine has {found}")
    return found if name == "auto" else name


def load_base(settings):
    """The frozen base and its tokenizer."""
    path = settings.base or Path(__file__).with_name("base.pt")
    if not os.path.exists(path):
        raise ValueError(f"no base model at {path}: restore it, or make it with `python train.py pretrain`")
    model = GPT.load(path).to(find_device(settings.device)).requires_grad_(False)
    tokens = model.facts["tokenizer"]
    return model, Tokenizer([token.encode("latin-1") for token in tokens])


def load_data(out):
    """The sentences, and the folder for all that is written; it is tried before the work begins."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / ".try").touch()
    (out / ".try").unlink()
    return sentences_of(read_docstrings(out)), out


# ------------------------------------------------------------------ training and scoring


def score(model, past, rows, arms=1):
    """How well each arm answers: (3, A) sums of nats, scored tokens and exactly right answers.

    `rows` are (question, answer), as many for each arm, arm after arm; row a of `past` (None: no
    prompt) goes before those of arm a. An answer is right where greedy decoding would give it.
    Rows of like length go through the model together, so that little is spent on padding.
    """
    each, device = len(rows) // arms, model.device
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]) + len(rows[i][1]))
    size = 96 if device.type == "cpu" else 8192  # what a CPU's cache holds
    sums = torch.zeros(3, arms, device=device)
    for i in range(0, len(order), size):
        part = order[i : i + size]
        idx, targets = collate([rows[j] for j in part], device)
        arm = torch.tensor(part, device=device) // each  # (B,)
        logits = model.scored(idx, targets, past and past.rows(arm)).float()  # (n, V)
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


def fit(model, arms, rows_of, steps, size, watch, past_of=None):
    """Train all arms as one mixed batch over one frozen base.

    Each arm has its own examples (`size` a step, drawn by its own seed from rows_of(job)), its own
    mean loss, gradient clipping and learning rate, so it learns what it would learn alone.
    watch(step) is called before every step and after the last.
    """
    past_of = past_of or (lambda: softprompt.prefill([a.soft for a in arms], model, [a.pinned for a in arms]))
    groups = [{"params": list(arm.soft.parameters()), "lr": arm.lr, "peak": arm.lr} for arm in arms]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    for step in range(steps + 1):
        watch(step, past_of)
        if step == steps:
            return
        rows = [row for arm in arms
                for row in random.Random(f"{arm.seed} {step}").sample(rows_of(arm.job), size)]
        nats, tokens, _ = score(model, past_of(), rows, len(arms))
        (nats / tokens).sum().backward()
        for group in optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], 1.0)
            group["lr"] = group["peak"] * min(1, (step + 1) / 5, 1.1 - step / steps)
        optimizer.step()
        optimizer.zero_grad()


# ------------------------------------------------------------------ the base model

SHAPE = dict(vocab_size=2048, block_size=256, n_layer=4, n_head=4, n_embd=128, n_kv_head=2, window=64)
LM_STEPS, JOB_STEPS = 3000, 12000


def pretrain_batch(step, stream, train, tok):
    """ids, targets and the weight of each target: first whole docstrings, then the jobs in English."""
    gen = random.Random(step)
    if step < LM_STEPS:
        at = torch.tensor([gen.randrange(len(stream) - 128) for _ in range(16)])  # (B,)
        block = stream[at[:, None] + torch.arange(129)]  # (B, T + 1)
        return block[:, :-1], block[:, 1:], torch.ones(16, 128) / (16 * 128)
    rows = []
    for sentence in gen.sample(train, 32):
        job = gen.choice(list(JOBS))
        rows.append(tok.example(job, sentence, gen.choice(JOBS[job].wordings)))
    idx, answers = collate(rows, "cpu")
    targets = F.pad(idx[:, 1:], (0, 1), value=-1)  # (B, T): the question is still worth reading
    scored, question = answers >= 0, (targets >= 0) & (answers < 0)
    weight = scored / scored.sum() + 0.2 * question / question.sum()  # (B, T)
    return idx, torch.where(scored, answers, targets), weight


def pretrain(settings):
    """Make base.pt: language modelling on whole docstrings, then the jobs. Goes on after a kill."""
    device = find_device(settings.device)
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
    if kept.exists():
        state = read(kept)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        begun, spent = state["step"], state["seconds"]
    start = saved = time.time()
    progress = Progress("pretrain", LM_STEPS + JOB_STEPS, begun)
    for step in range(begun, LM_STEPS + JOB_STEPS):
        done, total, peak = (step, LM_STEPS, 4e-3) if step < LM_STEPS else (step - LM_STEPS, JOB_STEPS, 2e-3)
        lr = peak * min(1, (done + 1) / 100) * (0.525 + 0.475 * math.cos(math.pi * done / total))
        for group in optimizer.param_groups:
            group["lr"] = lr
        idx, targets, weight = (x.to(device) for x in pretrain_batch(step, stream, data["train"], tok))
        nats = F.cross_entropy(model.scored(idx, targets), targets[targets >= 0], reduction="none")
        loss = (nats * weight[targets >= 0]).sum()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        progress.step(f"loss {loss.item():.2f}")
        if time.time() - saved > 60 or step + 1 == LM_STEPS + JOB_STEPS:
            saved = time.time()
            write(kept, {"model": model.state_dict(), "optimizer": optimizer.state_dict(),
                         "step": step + 1, "seconds": spent + saved - start})
    progress.close()
    model.bfloat16().float()  # half the bytes; from here on these rounded weights are the base
    base = settings.base or Path(__file__).with_name("base.pt")
    model.save(base, tokenizer=[token.decode("latin-1") for token in tokens],
               made=f"python train.py pretrain: {LM_STEPS} + {JOB_STEPS} steps, {clock(spent + time.time() - start)}")
    report_base(model, tok, data["test"])


def report_base(model, tok, sentences):
    """Held-out accuracy of each job by its wordings, beside the share of the commonest answer."""
    print("job       commonest  no wording  trained wordings            unseen wordings")
    for name, job in JOBS.items():
        common = Counter(job.answer(s) for s in sentences).most_common(1)[0][1] / len(sentences)
        with torch.inference_mode():
            shares = [float(score(model, None, [tok.example(name, s, wording) for s in sentences])[2])
                      / len(sentences) for wording in ["", *job.wordings, *job.unseen]]
        print(f"{name:8s} {common:10.3f}{shares[0]:12.3f}  " + "".join(f"{x:7.3f}" for x in shares[1:]))


# ------------------------------------------------------------------ the main job

FIELDS = "plan base experiment job method init length pinned lr seed step split loss accuracy parameters"
KEY = FIELDS.split()[:10]


class Results:
    """out/results.csv: a row is on disk the moment it is known. Every value is kept as its text."""

    def __init__(self, path, **about):
        self.path, self.about, self.rows = Path(path), about, []
        if self.path.exists():
            with open(self.path, newline="") as file:
                rows = [row for row in csv.DictReader(file) if row.get("parameters")]
            finished = {self.key(row) for row in rows if row["split"] == "test"}
            self.rows = [row for row in rows if self.key(row) in finished]

    @staticmethod
    def key(row):
        return tuple(str(row[name]) for name in KEY)

    def rewrite(self):
        """Drop what an interrupted run left half done; from now on only append."""
        part = self.path.with_suffix(".part")
        with open(part, "w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS.split())
            writer.writeheader()
            writer.writerows(self.rows)
        part.replace(self.path)

    def add(self, facts, **more):
        row = {name: str(value) for name, value in {**self.about, **facts, **more}.items()}
        with open(self.path, "a", newline="") as file:
            csv.DictWriter(file, FIELDS.split()).writerow(row)
        self.rows.append(row)

    def has(self, facts):
        return self.key({**self.about, **facts}) in {self.key(row) for row in self.rows if row["split"] == "test"}

    def jobs(self):
        return list(dict.fromkeys(row["job"] for row in self.find(experiment="initialization")))

    def find(self, **match):
        """Rows with these values, loss and accuracy and step as numbers."""
        match = {name: str(value) for name, value in {**self.about, **match}.items()}
        return [{**row, "step": int(row["step"]), "loss": float(row["loss"]), "accuracy": float(row["accuracy"])}
                for row in self.rows if match.items() <= row.items()]


class Plan(NamedTuple):
    """How much the main job does. Rates are learning rates; a prompt's are in embedding stds."""

    name: str
    jobs: tuple = ("library", "count")
    starts: tuple = ("related", "shuffled", "unrelated", "vocab", "matched", "normal")
    prompt_rates: tuple = (0.03, 0.1, 0.3, 1.0)
    prefix_rates: tuple = (0.01, 0.03)
    weight_rates: tuple = (3e-4, 1e-3)
    seeds: int = 5
    lengths: tuple = (1, 2, 4, 8, 16, 32, 64, 100)
    length_seeds: int = 3
    steps: int = 60
    size: int = 8  # sentences a step
    valid: int = 64
    test: int = 400


FULL = Plan("full")
QUICK = Plan("quick", ("library",), ("related", "vocab", "normal"), (0.1, 0.3), (0.03,), (1e-3,),
             1, (1, 8, 64), 1, 30, 8, 48, 200)
METHODS = {"prompt": PromptTuning, "prefix": PrefixTuning}
UNRELATED = "The night train to the coast was late again, and it had begun to rain."
WATCH = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100)


class Lab:
    """What every experiment of the main job needs at hand."""

    def __init__(self, model, tok, data, results, plan):
        self.model, self.tok, self.data, self.results, self.plan = model, tok, data, results, plan
        self.kept = {}

    def rows(self, job, split, n=None, wording=""):
        if (job, split, wording) not in self.kept:
            self.kept[job, split, wording] = [self.tok.example(job, s, wording) for s in self.data[split]]
        return self.kept[job, split, wording][:n]

    def start(self, job, start, length, seed):
        """Embeddings (P, C) to start from; the texts are the first wording that the base never saw."""
        ids = self.tok.encode(JOBS[job].unseen[0])
        gen = torch.Generator().manual_seed(seed)
        if start == "shuffled":
            ids = [ids[i] for i in torch.randperm(len(ids), generator=gen)]
        if start == "unrelated":
            ids = self.tok.encode(UNRELATED)
        method = start if start in INITIALIZATIONS else "text"
        return initial_embeddings(self.model, length, method, ids, gen)

    def arm(self, experiment, job, method, init, length, lr, seed, pinned=None):
        """One run, not yet trained."""
        soft = METHODS[method].start(self.model, self.start(job, init, length, seed))
        facts = dict(experiment=experiment, job=job, method=method, init=init, length=length,
                     pinned="no" if pinned == 0 else "yes", lr=lr, seed=seed,
                     parameters=sum(p.numel() for p in soft.parameters()))
        return Arm(soft, job, float(lr), seed, pinned, facts)

    def rates(self, method):
        """The learning rates to try, as text: a prompt's are multiples of the embeddings' spread."""
        scale = float(self.model.model.embed_tokens.weight.std()) if method == "prompt" else 1.0
        return [f"{rate * scale:.3g}" for rate in getattr(self.plan, f"{method}_rates")]

    def best_rate(self, experiment, **match):
        """The rate with the lowest validation loss, averaged over the steps watched and the seeds."""
        found = defaultdict(list)
        for row in self.results.find(experiment=experiment, split="valid", **match):
            found[row["lr"]].append(row["loss"])
        return min(found, key=lambda lr: mean(found[lr]))

    def run(self, what, arms, steps, watch=(), test=None, model=None, past_of=None):
        """Train the arms that are not finished as one batch; losses and accuracies to the results."""
        arms = [arm for arm in arms if not self.results.has(arm.facts)]
        if not arms:
            return
        model, progress, plan = model or self.model, Progress(what, steps), self.plan

        def record(step, past_of, split, n):
            rows = [row for arm in arms for row in self.rows(arm.job, split, n)]
            with torch.inference_mode():
                sums = score(model, past_of(), rows, len(arms))  # (3, A)
            for arm, (nats, tokens, right) in zip(arms, sums.T.tolist()):
                self.results.add(arm.facts, step=step, split=split, loss=f"{nats / tokens:.4f}",
                                 accuracy=f"{right * len(arms) / len(rows):.4f}")

        def each_step(step, past_of):
            progress.step() if step else None
            if step in watch or step == steps:
                record(step, past_of, "valid", plan.valid)
            if step == steps:
                record(step, past_of, "test", test or plan.test)

        fit(model, arms, lambda job: self.rows(job, "train"), steps, plan.size, each_step, past_of)
        progress.close(f"{len(arms)} runs in one batch" if len(arms) > 1 else "")


def baselines(lab, job):
    """The frozen base without a prompt and with every English wording."""
    wordings = [("none", ""), *(("wording", w) for w in JOBS[job].wordings),
                *(("unseen wording", w) for w in JOBS[job].unseen)]
    for method, wording in wordings:
        facts = dict(experiment="methods", job=job, method=method, init=wording, length=0, pinned="",
                     lr=0, seed=0, parameters=0)
        for split in ("valid", "test"):
            if not lab.results.find(**facts, split=split):
                rows = lab.rows(job, split, getattr(lab.plan, split), wording)
                with torch.inference_mode():
                    nats, tokens, right = score(lab.model, None, rows)[:, 0].tolist()
                lab.results.add(facts, step=0, split=split, loss=f"{nats / tokens:.4f}",
                                accuracy=f"{right / len(rows):.4f}")


def initialization(lab, job):
    """Six places to start from, each with its own learning rate, tuned on a seed of its own."""
    plan, length = lab.plan, len(lab.tok.encode(JOBS[job].unseen[0]))
    arms = [lab.arm("tuning", job, "prompt", start, length, lr, 1000)
            for start in plan.starts for lr in lab.rates("prompt")]
    arms += [lab.arm("tuning", job, "prefix", "vocab", 16, lr, 1000) for lr in lab.rates("prefix")]
    lab.run(f"{job}: learning rates", arms, plan.steps, WATCH[::3], test=32)
    arms = []
    for start in plan.starts:
        lr = lab.best_rate("tuning", job=job, method="prompt", init=start)
        arms += [lab.arm("initialization", job, "prompt", start, length, lr, seed)
                 for seed in range(plan.seeds)]
    lab.run(f"{job}: initialization", arms, plan.steps, WATCH)


def length(lab, job):
    """Prompt and prefix from 1 to 100 vectors, pinned; where the window cuts, plain as well."""
    plan, arms = lab.plan, []
    for method in METHODS:
        lr = lab.best_rate("tuning", job=job, method=method, init="vocab")
        for P in plan.lengths:
            for pinned in (None, 0) if P >= lab.model.config.window // 2 else (None,):
                arms += [lab.arm("length", job, method, "vocab", P, lr, seed, pinned)
                         for seed in range(plan.length_seeds)]
    lab.run(f"{job}: length", arms, plan.steps)


class LoRA(nn.Module):
    """W + 2 B A with A (r, in) and B (out, r) learned (Hu et al. 2021, arXiv 2106.09685)."""

    def __init__(self, weight, rank=4):
        super().__init__()
        self.A = nn.Parameter(torch.randn(rank, weight.shape[1]) / weight.shape[1] ** 0.5)
        self.B = nn.Parameter(torch.zeros(weight.shape[0], rank))

    def forward(self, weight):
        return weight + 2 * self.B @ self.A


def weights(lab, job):
    """The baselines that change the base: LoRA on the attention projections, and every weight."""
    for method, lr in (("lora", "0.003"), ("full", "0.001")):
        for seed in range(lab.plan.length_seeds):
            torch.manual_seed(seed)
            model, learned = deepcopy(lab.model), nn.ModuleList()
            if method == "full":
                learned = model.requires_grad_(True)
            else:
                for block in model.model.layers:
                    for linear in block.self_attn.children():
                        learned.append(LoRA(linear.weight).to(model.device))
                        parametrize.register_parametrization(linear, "weight", learned[-1])
            facts = dict(experiment="methods", job=job, method=method, init="", length=0, pinned="", lr=lr,
                         seed=seed, parameters=sum(p.numel() for p in learned.parameters()))
            arm = Arm(learned, job, float(lr), seed, None, facts)
            lab.run(f"{job}: {method} {seed + 1}", [arm], lab.plan.steps, model=model, past_of=lambda: None)


def prompts(lab, out):
    """One prompt for each job, of the length that the experiment chose; the best of three is kept."""
    P = chosen_length(lab.results, lab.plan.jobs[0], "prompt")
    jobs = [job for job in JOBS if not (out / f"{job}.pt").exists()]
    lr = lab.best_rate("tuning", job=lab.plan.jobs[0], method="prompt", init="related")
    arms = [lab.arm("prompts", job, "prompt", "related", P, lr, seed) for job in jobs for seed in range(3)]
    lab.run("one prompt for each job", arms, lab.plan.steps)
    for job in jobs:
        loss = {row["seed"]: row["loss"] for row in lab.results.find(experiment="prompts", job=job, split="valid")}
        best = next(arm for arm in arms if arm.job == job and str(arm.seed) == min(loss, key=loss.get))
        [row] = lab.results.find(**best.facts, split="test")
        softprompt.save(best.soft, out / f"{job}.pt", lab.model, job=job, init="related", steps=lab.plan.steps,
                        test_accuracy=row["accuracy"])


def main_job(settings):
    plan = QUICK if settings.quick else FULL
    begun = time.time()
    data, out = load_data(settings.out)
    model, tok = load_base(settings)
    results = Results(out / "results.csv", plan=plan.name, base=model.fingerprint()[:8])
    results.rewrite()
    lab = Lab(model, tok, data, results, plan)
    for job in plan.jobs:
        baselines(lab, job)
        initialization(lab, job)
        length(lab, job)
        weights(lab, job)
    prompts(lab, out)
    report(results, model)
    draw(results, out)
    print(f"{clock(time.time() - begun)} minutes. Look at {out / 'initialization.png'}, {out / 'length.png'} "
          f"and {out / 'methods.png'}; the prompts are {out}/*.pt")


# ------------------------------------------------------------------ what was found


def mean_se(values):
    """Mean and its standard error; one value has no spread."""
    return mean(values), stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def chosen_length(results, job, method):
    """The smallest length within one standard error of the best, by validation accuracy."""
    found = defaultdict(list)
    for row in results.find(experiment="length", job=job, method=method, pinned="yes", split="valid"):
        found[int(row["length"])].append(row["accuracy"])
    top, spread = max(mean_se(values) for values in found.values())
    return min(P for P, values in found.items() if mean(values) >= top - spread)


class Race(NamedTuple):
    """How fast each start learns a job."""

    unprompted: float  # validation loss without a prompt
    threshold: float  # 90 % of the way from there to the best loss that any start reaches
    curves: dict  # start -> {seed: [(step, loss)]}
    steps: dict  # start -> steps to the threshold of each seed, inf where it is never reached
    ratios: dict  # start -> median steps / related text's median steps, and its 95 % interval


def race(results, job):
    curves = defaultdict(lambda: defaultdict(list))
    for row in results.find(experiment="initialization", job=job, split="valid"):
        curves[row["init"]][row["seed"]].append((row["step"], row["loss"]))
    [none] = results.find(experiment="methods", job=job, method="none", split="valid")
    best = min(mean(loss for _, loss in at) for runs in curves.values() for at in zip(*runs.values()))
    threshold = none["loss"] - 0.9 * (none["loss"] - best)
    steps = {start: [next((step for step, loss in run if loss <= threshold), math.inf)
                     for run in runs.values()] for start, runs in curves.items()}
    gen, ratios = random.Random(0), {}
    for start, values in steps.items():
        def ratio(a, b):
            return median(a) / max(1, median(b))  # a start that is there at step 0 counts as one step
        draws = sorted(ratio(gen.choices(values, k=len(values)), gen.choices(steps["related"], k=len(values)))
                       for _ in range(2000))  # the bootstrap over seeds
        ratios[start] = ratio(values, steps["related"]), draws[49], draws[-50]
    return Race(none["loss"], threshold, curves, steps, ratios)


def methods(results, job):
    """[(method, wording or length, parameters, test accuracies)] of everything that was tried."""
    found = defaultdict(list)
    for row in results.find(job=job, split="test"):
        if row["experiment"] == "methods" or row["experiment"] == "length" and row["pinned"] == "yes":
            what = row["init"] if row["experiment"] == "methods" else f"{row['length']} vectors"
            found[row["method"], what, int(row["parameters"])].append(row["accuracy"])
    return [(*key, values) for key, values in found.items()]


def report(results, model):
    """The numbers behind the pictures, as tables."""
    total = sum(p.numel() for p in model.parameters())
    for job in results.jobs():
        found = race(results, job)
        print(f"\n{job}: {found.unprompted:.2f} nats without a prompt, the threshold is {found.threshold:.2f}")
        print("start        rate   nats at 0   at the end   accuracy   steps to threshold   x related [95 %]")
        for start, runs in found.curves.items():
            rows, steps = results.find(experiment="initialization", job=job, init=start, split="test"), found.steps[start]
            first, last = (mean(run[i][1] for run in runs.values()) for i in (0, -1))
            print(f"{start:10s}{rows[0]['lr']:>8s}{first:10.2f}{last:13.2f}{mean(r['accuracy'] for r in rows):12.3f}"
                  f"{median(steps):10.0f} ({min(steps)} to {max(steps)})"
                  "{:12.1f} [{:.1f}, {:.1f}]".format(*found.ratios[start]))
        print("method                                                    numbers   % of base   accuracy")
        for method, what, count, values in methods(results, job):
            center, spread = mean_se(values)
            print(f"{method:15s}{what:40s}{count:10d}{100 * count / total:11.3f}%{center:11.3f}"
                  + (f" +- {spread:.3f}" if len(values) > 1 else ""))
        for method in METHODS:
            print(f"{method}: {chosen_length(results, job, method)} vectors are within one standard error of the best")


# ------------------------------------------------------------------ pictures

# Okabe and Ito's colours, which colour-blind readers tell apart.
COLOURS = ("#0072B2", "#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#D55E00")
NAMES = {"related": "related text", "shuffled": "the same, shuffled", "unrelated": "unrelated text",
         "vocab": "sampled tokens", "matched": "matched Gaussian", "normal": "N(0, 1)"}


def draw(results, out):
    """The three pictures, from the results alone."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False,
                         "savefig.dpi": 130, "figure.constrained_layout.use": True})
    for name, painter in (("initialization", draw_initialization), ("length", draw_length), ("methods", draw_methods)):
        figure = painter(results, results.jobs(), plt)
        figure.savefig(out / f"{name}.part.png")
        (out / f"{name}.part.png").replace(out / f"{name}.png")
        plt.close(figure)


def draw_initialization(results, jobs, plt):
    figure, axes = plt.subplots(2, len(jobs), figsize=(4.3 * len(jobs), 7), squeeze=False, height_ratios=(3, 2))
    for (top, low), job in zip(axes.T, jobs):
        found = race(results, job)
        for i, (start, runs) in enumerate(found.curves.items()):
            steps, losses = [s for s, _ in next(iter(runs.values()))], list(zip(*([x for _, x in run] for run in runs.values())))
            top.fill_between(steps, [min(x) for x in losses], [max(x) for x in losses], color=COLOURS[i], alpha=0.2, lw=0)
            top.plot(steps, [mean(x) for x in losses], color=COLOURS[i], lw=2, label=NAMES[start])
            there = [x for x in found.steps[start] if x < math.inf]
            low.plot(there, [-i] * len(there), "o", color=COLOURS[i], alpha=0.5)
            if there:
                low.plot(median(there), -i, "|", color=COLOURS[i], ms=18, mew=3)
            missed = len(found.steps[start]) - len(there)
            if missed:
                low.text(steps[-1], -i, f"{missed} never", ha="right", va="center", color=COLOURS[i])
        for y, text in ((found.unprompted, "no prompt"), (found.threshold, "threshold")):
            top.axhline(y, color="0.4", ls="--", lw=1)
            top.text(steps[-1], y, text, ha="right", va="bottom", color="0.4")
        top.set(title=f"job: {job}", xlabel="training steps", xscale="symlog", ylabel="validation loss, nats a token")
        low.set(xlabel="steps to the threshold (a dot is a seed)", xlim=(-1, steps[-1] * 1.02))
        low.set_yticks([-i for i in range(len(found.curves))], [NAMES[start] for start in found.curves])
    axes[0, 0].legend(frameon=False, fontsize=9)
    slowest = race(results, jobs[0])
    figure.suptitle(f"Where a prompt starts decides how fast it learns")
    return figure


def draw_length(results, jobs, plt):
    figure, axes = plt.subplots(len(METHODS), len(jobs), figsize=(4.3 * len(jobs), 7), squeeze=False, sharey="col", sharex=True)
    for column, job in zip(axes.T, jobs):
        lines = {method: max(mean(values) for m, _, _, values in methods(results, job) if m == method)
                 for method in ("none", "wording")}
        for axis, method in zip(column, METHODS):
            for pinned, colour, style, name in (("yes", COLOURS[0], "o-", "pinned"), ("no", COLOURS[5], "s--", "sliding away")):
                found = defaultdict(list)
                for row in results.find(experiment="length", job=job, method=method, pinned=pinned, split="test"):
                    found[int(row["length"])].append(row["accuracy"])
                if found:
                    axis.errorbar(list(found), [mean(x) for x in found.values()], [mean_se(x)[1] for x in found.values()],
                                  fmt=style, color=colour, capsize=3, label=name)
            P = chosen_length(results, job, method)
            axis.axvline(P, color="0.8", lw=6, zorder=0)
            for y, text in ((lines["none"], "no prompt"), (lines["wording"], "best English wording")):
                axis.axhline(y, color="0.4", ls="--", lw=1)
                axis.text(1, y, text, va="bottom", color="0.4", fontsize=9)
            axis.set(title=f"{job}, {method}: {P} is enough", xscale="log", ylabel="test accuracy")
            ticks = sorted({int(row["length"]) for row in results.find(experiment="length")})
            axis.set_xticks(ticks, ticks)
            axis.minorticks_off()
        column[-1].set_xlabel("virtual tokens")
    axes[0, 0].legend(frameon=False, fontsize=9)
    figure.suptitle("A few vectors are enough")
    return figure


def draw_methods(results, jobs, plt):
    figure, axes = plt.subplots(1, len(jobs), figsize=(4.3 * len(jobs), 4.5), squeeze=False)
    styles = {"none": "X", "wording": "_", "unseen wording": "_", "prompt": "o-", "prefix": "s-", "lora": "D", "full": "*"}
    for axis, job in zip(axes[0], jobs):
        found = methods(results, job)
        for colour, (method, style) in zip(("0.5", *COLOURS), styles.items()):
            mine = sorted(x[2:] for x in found if x[0] == method)
            axis.errorbar([max(1, n) for n, _ in mine], [mean(v) for _, v in mine], [mean_se(v)[1] for _, v in mine],
                          fmt=style, color=colour, capsize=3, label=method, ms=9 if len(style) == 1 else 5)
        axis.set(title=f"job: {job}", xscale="log", xlabel="trained parameters (1: none)", ylabel="test accuracy")
    axes[0, 0].legend(frameon=False, fontsize=9)
    figure.suptitle("A few thousand numbers stand in for a fine-tuned copy")
    return figure


# ------------------------------------------------------------------ the other verbs


def tune(settings):
    """Train one soft prompt and save it."""
    data, out = load_data(settings.out)
    model, tok = load_base(settings)
    lab = Lab(model, tok, data, None, FULL)
    job, ids = settings.job, tok.encode(settings.init_text)
    if settings.init == "text" and not ids:
        raise ValueError("--init text needs the text to start from: give --init-text \"...\"")
    gen = torch.Generator().manual_seed(settings.seed)
    start = initial_embeddings(model, settings.length, settings.init, ids, gen)
    soft = METHODS[settings.method].start(model, start)
    lr = settings.lr or default_rate(model, settings.method)
    progress = Progress(f"{job}, {settings.method} of {settings.length}", settings.steps)
    valid, found = lab.rows(job, "valid", 400), {}

    def watch(step, past_of):
        progress.step() if step else None
        if step % 20 == 0 or step == settings.steps:
            with torch.inference_mode():
                nats, tokens, right = score(model, past_of(), valid)[:, 0].tolist()
            found.update(loss=nats / tokens, accuracy=right / len(valid))
            print(f"step {step:4d}  validation loss {nats / tokens:.3f}  accuracy {right / len(valid):.3f}")

    fit(model, [Arm(soft, job, lr, settings.seed)], lambda job: lab.rows(job, "train"), settings.steps, 32, watch)
    path = settings.save or out / f"{job}-{settings.method}.pt"
    softprompt.save(soft, path, model, job=job, init=settings.init, steps=settings.steps, lr=lr, **found)
    print(f"{path}: {settings.length} virtual tokens, {os.path.getsize(path) / 1000:.1f} kB, "
          f"{100 * softprompt.trainable_fraction(soft, model):.2f} % of the base's numbers")


def default_rate(model, method):
    """Learning rates that worked here: a prompt's grows with the spread of the embeddings."""
    return 0.3 * float(model.model.embed_tokens.weight.std()) if method == "prompt" else 0.03


def generate(settings):
    """Answer one sentence with and without a soft prompt."""
    if not settings.prompt or not settings.text.strip():
        raise ValueError("generate needs --prompt FILE and --text \"a sentence\"")
    model, tok = load_base(settings)
    soft = softprompt.load(settings.prompt, model)
    row = tok.encode(f"\n{settings.text.strip()} ->")
    for name, past in (("without a prompt", None), (settings.prompt, soft.past(model))):
        [ids] = model.generate([row], 16, past, stop=tok.end)
        print(f"{name:24s} {tok.decode(ids).strip()}")


def plot(settings):
    path = Path(settings.out) / "results.csv"
    if not path.exists():
        raise ValueError(f"no results at {path}: run `python train.py` first")
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    results = Results(path, plan=rows[-1]["plan"], base=rows[-1]["base"])
    draw(results, Path(settings.out))
    print(f"drew initialization.png, length.png and methods.png in {settings.out}")


VERBS = {"main": main_job, "pretrain": pretrain, "tune": tune, "generate": generate, "plot": plot}


def parse(arguments):
    parser = argparse.ArgumentParser("train.py", description=__doc__, argument_default=argparse.SUPPRESS,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = lambda message: (print(f"error: {message}", file=sys.stderr), sys.exit(2))
    parser.add_argument("verb", nargs="?", choices=VERBS, default="main", help="what to do (main)")
    for f in fields(Settings):
        flag, text = "--" + f.name.replace("_", "-"), f"{f.metadata['help']} [{', '.join(f.metadata['verbs'])}]"
        if f.type is bool:
            parser.add_argument(flag, action="store_true", help=text)
        else:
            parser.add_argument(flag, type=f.type, choices=f.metadata.get("choices"), help=f"{text} ({f.default})")
    given = vars(parser.parse_args(arguments))
    verb = given.pop("verb")
    for f in fields(Settings):
        if f.name in given and verb not in f.metadata["verbs"]:
            parser.error(f"--{f.name.replace('_', '-')} is an option of {', '.join(f.metadata['verbs'])}, not of {verb}")
    return verb, Settings(**given)


def main(arguments=None):
    verb, settings = parse(arguments)
    fast_memory()
    try:
        VERBS[verb](settings)
    except (ValueError, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\ninterrupted: the same command goes on where this one stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
