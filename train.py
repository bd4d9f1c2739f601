"""Show the effect of where a soft prompt starts, and of how long it is.

    python train.py           one text, two experiments, two pictures: some five minutes
    python train.py --quick   the same in small, in OUT/quick: less than a minute
    python train.py --plot    draw the pictures again from their tables

Rows in, lines out. An experiment gives rows: dicts with the columns task, start, rate, seed, step,
split, loss, accuracy and the like. A table keeps rows, and a picture draws rows: a line for each
value of one column. An arm is one training of one soft prompt; many arms train as one batch over
one frozen base. Losses are in nats for each token of an answer, lengths in virtual tokens, learning
rates in units of the size of what they move (see `sizes`). Letters (B, T, P, ...) as in model.py;
A is the number of arms. Read first: TASKS, score, fit, STARTS, compare_starts, compare_lengths.
"""

import argparse
import ast
import csv
import hashlib
import importlib.util
import io
import json
import math
import os
import random
import re
import string
import sys
import sysconfig
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median, variance
from typing import NamedTuple

import tiktoken
import torch
import torch.nn as nn
import torch.nn.functional as F

from model import GPT, InputError, require_writable, write_whole
from softprompt import (
    METHODS,
    PrefixTuning,
    PromptTuning,
    initial_embeddings,
    nearest_tokens,
    prefill,
)

# Jupyter names its backend in MPLBACKEND, also to what it starts. Where that is not installed,
# matplotlib could not even be imported; and no backend is needed here.
kind, _, backend = os.environ.get("MPLBACKEND", "").partition("://")
if kind == "module" and not importlib.util.find_spec(backend.split(".")[0]):
    del os.environ["MPLBACKEND"]

import matplotlib.style  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.transforms import ScaledTranslation  # noqa: E402

# ------------------------------------------------------------------ sentences
#
# The first lines of the docstrings in the packages that the requirements install.

LIBRARIES = ("sympy", "torch", "python", "matplotlib", "networkx", "numpy")
SKIPPED = re.compile(
    r"_|\.|test_|(tests?|testing|(site|dist)-packages|idlelib|lib2to3|turtledemo)$"
)


class Sentence(NamedTuple):
    text: str
    library: str
    kind: str  # "class" or "function"


def source_files():
    """[(library, path)] of every public module of the libraries that are installed."""
    files = []
    for library in LIBRARIES:
        for folder, inner, names in os.walk(library_folder(library)):
            inner[:] = sorted(name for name in inner if not SKIPPED.match(name))
            for name in sorted(names):
                public = name == "__init__.py" or not SKIPPED.match(name)
                if public and name.endswith(".py"):
                    files.append((library, os.path.join(folder, name)))
    return files


def library_folder(library):
    """Where a library's source lies; a path that is no folder where it is not installed."""
    if library == "python":
        return sysconfig.get_paths()["stdlib"]
    spec = importlib.util.find_spec(library)
    return os.path.dirname(spec.origin) if spec else os.devnull


def docstrings_in(path):
    """[("class" or "function", docstring)] of one source file; nothing is imported or run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    except (SyntaxError, ValueError):
        return []  # a template, or written for another version of Python
    docstrings, waiting = [], deque([tree])
    while waiting:
        node = waiting.popleft()
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            docstrings.append((kind, ast.get_docstring(node) or ""))
        # Only statements hold definitions. To pass over expressions makes it three times as fast.
        for part in ("body", "handlers", "orelse", "finalbody", "cases"):
            waiting.extend(getattr(node, part, []))
    return docstrings


def read_docstrings(out):
    """[(library, kind, docstring)] of all libraries. The folder `out` keeps what was read, until a
    library changes. Raises InputError where there is nothing to read."""
    files, kept = source_files(), Path(out) / "docstrings.json"
    stamp = [f"{path} {os.path.getsize(path)}" for _, path in files]
    if kept.exists():
        try:
            content = json.loads(kept.read_text(encoding="utf-8"))
            if content["stamp"] == stamp:
                return content["docstrings"]
        except (ValueError, KeyError, TypeError):
            say(f"{kept} is damaged: it is made anew", file=sys.stderr)
    docstrings = []
    for library, path in progress(files, len(files), "reading docstrings, once"):
        docstrings += [(library, kind, text) for kind, text in docstrings_in(path)]
    if not docstrings:
        raise InputError(f"no docstrings in {LIBRARIES}: install the requirements with .py files")
    write_text(kept, json.dumps({"stamp": stamp, "docstrings": docstrings}))
    return docstrings


def hashed(text):
    """The SHA-256 of a text, to sort and split by: the same on every machine."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def split_of(text):
    """train, valid (to choose with) or test (for the final numbers), 8 : 1 : 1."""
    number = hashed(text)[0] % 10
    return {0: "valid", 1: "test"}.get(number, "train")


def sentences_of(docstrings):
    """{split: [Sentence]}: each first line of 20 to 100 plain characters and three words or more,
    once, where it does not name its own library."""
    sentences, seen = {"train": [], "valid": [], "test": []}, set()
    for library, kind, text in docstrings:
        line = text.split("\n", 1)[0].strip()
        fits = 20 <= len(line) <= 100 and line.isascii() and len(line.split()) > 2
        if fits and library not in line.lower() and line not in seen:
            seen.add(line)
            sentences[split_of(line)].append(Sentence(line, library, kind))
    for part in sentences.values():  # the hash mixes: the first n are a fair sample
        part.sort(key=lambda sentence: hashed(sentence.text))
    return sentences


def load_data(out):
    """The sentences of all splits; the folder `out` keeps what was read."""
    return sentences_of(read_docstrings(out))


# ------------------------------------------------------------------ tasks


class Sweep(NamedTuple):
    """How experiment 1 compares the starts on a task."""

    steps: int = 48  # at most: a prompt that has learned the task leaves the batch
    every: int = 1  # steps between two looks
    rates: tuple = (1 / 16, 1 / 4, 1, 4, 16)
    seeds: int = 4
    without: tuple = ()  # starts that are left out, to save time


class Task(NamedTuple):
    """What is asked of a sentence. To add a task, add an entry to TASKS."""

    label: str  # what a prompt has to bring, as the pictures call it
    question: str  # in a newcomer's words
    answer: Callable[[Sentence], str]
    unseen: list[str]  # hard prompts that the base never saw; "related text" starts at the first
    practised: tuple = ()  # hard prompts that it learned the task from
    colour: str = "#E7298A"
    sweep: Sweep | None = Sweep(steps=96)  # of experiment 1; None: it takes no part in it
    steps: dict = {"prompt": 200, "prefix": 100}  # experiment 2 trains each method so long

    @property
    def hard_prompts(self):
        """Every instruction in words."""
        return [*self.unseen, *self.practised]

    def pairs(self, sentences):
        """[(text, answer)], which is what everything trains on."""
        return [(sentence.text, self.answer(sentence)) for sentence in sentences]


def bare(word):
    """A word without the signs around it."""
    return word.strip(string.punctuation) or word


def first_letter(sentence, place=0):
    """The first letter of the word at this place; -1 is the last word."""
    return bare(sentence.text.split()[place])[0]


def first_letter_prompts(place):
    """Hard prompts for the first letter of "the first", "the second", ... word."""
    return [
        f"What is the first letter of the {place} word?",
        f"Name the first letter of the {place} word.",
        f"Which letter does the {place} word begin with?",
        f"Say how the {place} word begins.",
    ]


COMMON_LETTERS = "RCASTGPD"  # the commonest first letters of the training sentences, in order


def swap_task(n, question, **more):
    """The first letter of the first word, but n pairs of letters have changed places.

    The base practised the first letter. It knows all but 2 n facts, and only the prompt can hold
    these.
    """
    letters = COMMON_LETTERS[: 2 * n]
    partner = {}
    for a, b in zip(letters[::2], letters[1::2]):
        partner[a] = b
        partner[b] = a

    def answer(sentence):
        letter = first_letter(sentence)
        return partner.get(letter, letter)

    facts = ", ".join(f"{b} for {a}" for a, b in partner.items())
    plain = first_letter_prompts("first")  # right but for the letters that have changed places
    return Task(
        question=question,
        answer=answer,
        unseen=[*plain, f"{plain[0]} Say {facts}."],
        **more,
    )


TASKS = {
    "first-letter-last": Task(
        label="a rule",
        question="first letter of the last word",
        answer=lambda sentence: first_letter(sentence, -1),
        unseen=first_letter_prompts("last"),
        colour="#999933",
        sweep=Sweep(),
        steps={"prompt": 64, "prefix": 100},
    ),
    "swap-1": swap_task(
        1,
        "first letter, R and C swapped",
        label="two facts",
        colour="#332288",
        sweep=Sweep(160, 4, (1, 4, 16), 3, without=("other", "unrelated", "matched")),
    ),
    "swap-4": swap_task(
        4,
        "first letter, eight letters swapped",
        label="eight facts",
        colour="#882255",
        sweep=None,
    ),
    "library": Task(
        label="nothing new",
        question="which library it is from",
        colour="#0F4C5C",
        answer=lambda sentence: sentence.library,
        unseen=[
            "From which library was this sentence taken?",
            "Tell me the library of this text.",
        ],
        practised=(
            "Which library is this sentence from?",
            "Name the library that this comes from.",
            "What library does this belong to?",
            "Say which library documents this.",
        ),
        sweep=None,
        steps={},
    ),
}


def commonest_answer(pairs):
    return Counter(answer for _, answer in pairs).most_common(1)[0][0]


def share_of(answer, pairs):
    """How often always giving this answer is right."""
    return mean(given == answer for _, given in pairs)


# ------------------------------------------------------------------ tokens

PATTERN = r" ?[^\W\d_]+| ?\d| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+"  # words, digits, signs, spaces


class Tokenizer(NamedTuple):
    """Text to ids and back. What looks like a special token in a text is text like any other."""

    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]
    end: int  # the id that ends an answer

    @classmethod
    def from_tokens(cls, tokens):
        """Our own: tiktoken over these byte strings, in the order of their ids; then the end."""
        ranks = {token: rank for rank, token in enumerate(tokens)}
        encoding = tiktoken.Encoding(
            "softprompt",
            pat_str=PATTERN,
            mergeable_ranks=ranks,
            special_tokens={"<|end|>": len(ranks)},
        )
        return cls(encoding.encode_ordinary, encoding.decode, len(ranks))

    def example(self, text, answer, hard_prompt=""):
        """The ids of hard prompt and text, and those of the answer and the end. The hard prompt is
        encoded alone: without it the other ids stay the same, so a soft prompt can take its place.
        """
        question = self.encode(hard_prompt) + self.encode(f"\n{text} ->")
        return question, self.encode(f" {answer}") + [self.end]


def collate(rows, device):
    """Rows of (question, answer) -> ids (B, T), targets (B, T); only the answers are scored."""
    T = max(len(question) + len(answer) for question, answer in rows) - 1
    idx = torch.full((len(rows), T), -1)  # (B, T)
    targets = torch.full((len(rows), T), -1)  # (B, T)
    for b, (question, answer) in enumerate(rows):
        # The last token of the question predicts the first of the answer.
        first, end = len(question) - 1, len(question) + len(answer) - 1
        idx[b, :end] = torch.tensor(question + answer[:-1])
        targets[b, first:end] = torch.tensor(answer)
    return idx.to(device), targets.to(device)


# ------------------------------------------------------------------ the base

BASE = Path(__file__).with_name("tutorials") / "base.pt"


def find_device(name):
    """torch's device of this name, or with "auto" the best; InputError if this machine lacks it."""
    best = "mps" if torch.backends.mps.is_available() else "cpu"
    best = "cuda" if torch.cuda.is_available() else best
    try:
        device = torch.device(best if name == "auto" else name)
        torch.ones(1, device=device).sum().item()
    except Exception as problem:  # each kind of device has an error of its own
        raise InputError(f"--device {name} cannot be used on this machine, {best} can") from problem
    return device


def load_base(path=BASE, device="auto"):
    """The frozen base in a file of ours and its tokenizer; InputError for a file without one."""
    device = find_device(device)
    model = GPT.load(path)
    if "tokenizer" not in model.facts:
        raise InputError(f"{path} has no tokenizer: give it to model.save(tokenizer=...)")
    tok = Tokenizer.from_tokens([token.encode("latin-1") for token in model.facts["tokenizer"]])
    return model.to(device).requires_grad_(False), tok


class Lab:
    """The base, its tokenizer and the sentences: what every experiment needs."""

    def __init__(self, model, tok, data):
        self.model, self.tok, self.data = model, tok, data
        self.known_rows = {}

    def rows(self, task, split, n=None, hard_prompt=""):
        """The first n sentences of a split (None: all) as rows of ids, behind a hard prompt."""
        key = (TASKS[task].answer, split, hard_prompt)
        if key not in self.known_rows:
            pairs = TASKS[task].pairs(self.data[split])
            self.known_rows[key] = [self.tok.example(*pair, hard_prompt) for pair in pairs]
        return self.known_rows[key][:n]


# ------------------------------------------------------------------ scoring


class Scores(NamedTuple):
    """How well answers are given: one entry for each row of text, (B,)."""

    nats: torch.Tensor  # of the whole answer
    tokens: torch.Tensor  # of the answer, its end included
    right: torch.Tensor  # 1.0 where greedy decoding gives exactly this answer, else 0.0


def score(model, past, rows):
    """The Scores of rows (question, answer), each behind its row of `past` (None: no prompt).

    `past` has A rows and `rows` as many for each, arm after arm: row a of `past` stands before the
    a-th part of `rows`. A row whose loss is not a number is never right.
    """
    B = len(rows)
    nats = torch.zeros(B, device=model.device)  # (B,)
    tokens = torch.zeros(B, device=model.device)  # (B,)
    wrong = torch.zeros(B, device=model.device)  # (B,) tokens that greedy decoding would not give
    for row, want, logits in answer_logits(model, past, rows):
        of_token = F.cross_entropy(logits, want, reduction="none")  # (n,)
        nats = nats.index_add(0, row, of_token)  # (B,)
        tokens = tokens.index_add(0, row, torch.ones_like(of_token))  # (B,)
        wrong = wrong.index_add(0, row, (logits.argmax(1) != want).float())  # (B,)
    right = (wrong == 0) & nats.isfinite()  # (B,)
    return Scores(nats, tokens, right.float())


TOKENS_AT_ONCE = {"cpu": 2048}  # what a CPU's cache can hold
MANY_TOKENS = 65536  # other devices: what their memory can hold


def answer_logits(model, past, rows):
    """Yield, part by part, of every token of the answers: the index of its row (n,), its id (n,),
    and the logits at its place (n, V). `past` and `rows` as in `score`.

    Rows of like length go through the model together, so that little is spent on padding, and so
    many at once as the device can hold.
    """
    past = past or model.empty_past()
    arms = len(past.positions)
    if not rows or len(rows) % arms:
        raise InputError(f"{len(rows)} rows behind {arms} soft prompts: give as many for each")
    rows_of_arm = len(rows) // arms
    virtual = past.length.repeat_interleave(rows_of_arm).tolist()  # (B,)
    texts = [len(question) + len(answer) for question, answer in rows]
    widths = [before + text for before, text in zip(virtual, texts)]
    # Rows whose prompts are about as long stand together, and among them like texts.
    order = sorted(range(len(rows)), key=lambda i: (virtual[i] // 32, texts[i]))
    limit = TOKENS_AT_ONCE.get(model.device.type, MANY_TOKENS)
    for part in parts_of(order, widths, limit):
        idx, targets = collate([rows[i] for i in part], model.device)  # (B, T) each
        index = torch.tensor(part, device=model.device)  # (B,)
        logits = model.scored(idx, targets, past.rows(index // rows_of_arm)).float()  # (n, V)
        scored = targets >= 0  # (B, T)
        row = index[:, None].expand_as(targets)[scored]  # (n,)
        yield row, targets[scored], logits


def parts_of(order, widths, limit):
    """Cut the rows in `order` into parts. A part, its rows filled up to the widest, has at most
    `limit` slots; a row that is wider is a part of its own."""
    part, widest = [], 0
    for i in order:
        widest = max(widest, widths[i])
        if part and (len(part) + 1) * widest > limit:
            yield part
            part, widest = [], widths[i]
        part.append(i)
    yield part


def mean_of_arms(scores, arms):
    """(loss in nats a token, accuracy) of each arm, (A,) each."""
    nats = scores.nats.view(arms, -1).sum(1)  # (A,), of all rows of the arm
    tokens = scores.tokens.view(arms, -1).sum(1)  # (A,)
    right = scores.right.view(arms, -1).mean(1)  # (A,)
    return nats / tokens, right


# ------------------------------------------------------------------ training

EXAMPLES = 16  # sentences that each arm learns from in a step
CURVE = 16  # validation sentences of a look while training
FINAL = 240  # sentences of every final number: so many to choose by, and so many to test


class NotFinite(InputError):
    """A loss is not a number, or infinite."""


@dataclass
class Arm:
    """One training of one soft prompt: from which examples, and how fast."""

    soft: nn.Module  # anything that has a past
    task: str
    rate: float  # the learning rate, in units of the size of what it moves
    seed: int = 0  # of the examples that are drawn
    columns: dict = field(default_factory=dict)  # what the rows of results say of it


def sizes(soft, model):
    """The unit of each parameter's learning rate: how big the numbers usually are that it moves.

    AdamW moves each number by about the learning rate in every step, however small the gradient is.
    So a rate means something only beside the size of what it moves. That is the standard deviation
    of the embedding table for a prompt. For a prefix it is the root mean square of each layer's
    keys and values: values differ by a factor of fifty between the layers of a real model, and no
    absolute rate fits all. For anything else it is 1.
    """
    if isinstance(soft, PromptTuning):
        return [model.model.embed_tokens.weight.detach().float().std().item()]
    if isinstance(soft, PrefixTuning):
        return [p.detach().square().mean().sqrt().item() for p in soft.parameters()]
    return [1.0 for _ in soft.parameters()]


def draw_rows(rows, seed, step, size):
    """The rows of a step, at random; the same for the same seed and step. Raises InputError where
    there are fewer than `size`."""
    if len(rows) < size:
        raise InputError(f"{len(rows)} examples are too few for steps of {size}: give more")
    return random.Random(f"{seed} {step}").sample(rows, size)


def warm_up_and_fall(step, steps):
    """The share of the learning rate in a step. It rises over the first five steps, and falls in a
    line to about a tenth at the end, so that the final numbers are calm."""
    return min((step + 1) / 5, 1, 1.1 - step / steps)


def constant(step, steps):
    """The whole learning rate in every step, so that a rate is what it says."""
    return 1.0


def answer_loss(model, past, rows):
    """The mean loss of each arm in nats a token, (A,)."""
    scores = score(model, past, rows)
    losses, _ = mean_of_arms(scores, len(past.positions))
    return losses


def fit(
    model, arms, rows, steps, size, loss=answer_loss, draw=draw_rows, schedule=warm_up_and_fall
):
    """Train all arms as one batch over one frozen base. Yields the number of steps done, before
    each step and after the last. There the caller measures, saves, stops, or takes arms that have
    learned enough out of the list.

    Each arm has its own `size` examples of rows[task] a step, its own loss, gradient clipping and
    learning rate, so it learns exactly what it would learn alone. `loss` gives each arm's loss,
    (A,); `draw` the examples of a step; `schedule` the share of the learning rate in a step.
    """
    optimizer = make_optimizer(model, arms)
    for step in range(steps):
        yield step
        if not arms:
            return
        softs = [arm.soft for arm in arms]
        examples = []
        for arm in arms:
            examples += draw(rows[arm.task], arm.seed, step, size)
        losses = loss(model, prefill(softs, model), examples)  # (A,)
        require_finite(losses, arms, step)
        losses.sum().backward()
        for soft in softs:
            nn.utils.clip_grad_norm_(soft.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = group["full_lr"] * schedule(step, steps)
        optimizer.step()  # an arm that has left has no gradient, and stays as it is
        optimizer.zero_grad()
    yield steps


def make_optimizer(model, arms):
    """AdamW with a group for each parameter: its learning rate is that of its arm times its size.

    Short memories (usual are 0.9 and 0.999): the first gradients are the biggest by far, and as
    long as AdamW remembers them, all later steps are too small.
    """
    groups = []
    for arm in arms:
        for parameter, size in zip(arm.soft.parameters(), sizes(arm.soft, model)):
            lr = arm.rate * size
            groups.append({"params": [parameter], "lr": lr, "full_lr": lr})
    return torch.optim.AdamW(groups, betas=(0.6, 0.9), weight_decay=0.0)


def require_finite(losses, arms, step):
    """Raise NotFinite where the loss of an arm, (A,), is not finite."""
    for loss, arm in zip(losses.tolist(), arms):
        if not math.isfinite(loss):
            raise NotFinite(
                f"training step {step}: the loss of {arm.task}, seed {arm.seed}, rate "
                f"{arm.rate:g} is {loss}: give a lower rate, or a base without such numbers"
            )


def train_arms(lab, arms, steps, title, schedule=warm_up_and_fall):
    """Train arms of one task to the end, with a line of progress."""
    rows = {arms[0].task: lab.rows(arms[0].task, "train")}
    training = fit(lab.model, arms, rows, steps, EXAMPLES, schedule=schedule)
    for _ in progress(training, steps + 1, title):
        pass


@torch.inference_mode()
def measure(lab, arms, step, split, n):
    """Rows of results: how each arm does now on the first n sentences of a split."""
    past = prefill([arm.soft for arm in arms], lab.model)
    rows = []
    for arm in arms:
        rows += lab.rows(arm.task, split, n)
    losses, accuracies = mean_of_arms(score(lab.model, past, rows), len(arms))
    results = []
    for arm, loss, accuracy in zip(arms, losses.tolist(), accuracies.tolist()):
        results.append(
            {
                "task": arm.task,
                **arm.columns,
                "seed": arm.seed,
                "step": step,
                "split": split,
                "loss": round(loss, 4),
                "accuracy": round(accuracy, 4),
            }
        )
    return results


# ------------------------------------------------------------------ starts


class Start(NamedTuple):
    """Where a prompt starts. To add a start, add an entry to STARTS."""

    label: str
    colour: str
    embeddings: Callable  # (lab, task, length, generator) -> (P, C)


def related_text(task):
    """The first hard prompt of the task that the base never saw, else the first it practised."""
    return TASKS[task].hard_prompts[0]


def text_of_another_task(task):
    return "Decide: is it a function or is it a class?"


def unrelated_text(task):
    return "The night train to the coast was late again, and it had begun to rain."


def from_text(text_for):
    """A start at the embeddings of the text that `text_for(task)` gives."""

    def embeddings(lab, task, length, generator):
        ids = lab.tok.encode(text_for(task))
        return initial_embeddings(lab.model, length, "text", ids)  # (P, C)

    return embeddings


def from_noise(method):
    """A start at random vectors; `method` as in `initial_embeddings`."""

    def embeddings(lab, task, length, generator):
        return initial_embeddings(lab.model, length, method, generator=generator)  # (P, C)

    return embeddings


STARTS = {  # colours that colour-blind readers tell apart (Okabe and Ito)
    "related": Start("related text", "#0072B2", from_text(related_text)),
    "other": Start("text of another task", "#009E73", from_text(text_of_another_task)),
    "unrelated": Start("unrelated text", "#7F7F7F", from_text(unrelated_text)),
    "vocab": Start("sampled tokens", "#E69F00", from_noise("vocab")),
    "matched": Start("matched Gaussian", "#CC79A7", from_noise("matched")),
    "normal": Start("noise, N(0, 1)", "#D55E00", from_noise("normal")),
}


def new_arm(lab, task, method, start, length, rate, seed):
    """A prompt or a prefix at its start. The seed is that of its start and of its examples."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = STARTS[start].embeddings(lab, task, length, generator)  # (P, C)
    soft = METHODS[method].start(lab.model, embeddings)
    return Arm(soft, task, rate, seed)


# ------------------------------------------------------------------ words as vectors


def arm_of_tokens(lab, task, ids, rate=0.0, seed=0):
    """An arm whose prompt starts at the embeddings of these tokens. Before a text it acts as they
    do, as long as the window reaches the words; the vectors are pinned. So a hard prompt is an arm
    like any other, one that is not trained."""
    ids = torch.tensor(ids, dtype=torch.long, device=lab.model.device)  # (P,)
    return Arm(PromptTuning(lab.model.model.embed_tokens(ids)), task, rate, seed)  # (P, C)


def best_hard_prompt(lab, task):
    """The hard prompt with the best accuracy on the validation sentences."""
    texts = TASKS[task].hard_prompts
    arms = [arm_of_tokens(lab, task, lab.tok.encode(text)) for text in texts]
    accuracies = [row["accuracy"] for row in measure(lab, arms, 0, "valid", FINAL)]
    return texts[accuracies.index(max(accuracies))]


def nearest_text(lab, soft):
    """The ids of the tokens nearest to a prompt's vectors: what it seems to say."""
    return nearest_tokens(soft, lab.model, 1).ids[:, 0].tolist()


# ------------------------------------------------------------------ one text, to begin with


def show_one_text(lab, seed):
    """Print what the base answers to one text: without a prompt, with words, and with vectors."""
    text, task = "Compute the eigenvalues of a square matrix.", "first-letter-last"
    hard_prompt = best_hard_prompt(lab, task)
    no_prompt = arm_of_tokens(lab, task, [])
    words = arm_of_tokens(lab, task, lab.tok.encode(hard_prompt))
    vectors = new_arm(lab, task, "prompt", "related", 16, 1, seed)
    train_arms(lab, [vectors], 40, "one prompt")
    say(f"{text}   (asked for: {TASKS[task].question})")
    say(f"    no prompt: {answer_to(lab, text, no_prompt.soft)}")
    say(f"    {hard_prompt} {answer_to(lab, text, words.soft)}")
    say(f"    16 learned vectors: {answer_to(lab, text, vectors.soft)}")


@torch.inference_mode()
def answer_to(lab, text, soft):
    """What the base answers to a text, greedily, behind a soft prompt."""
    question, _ = lab.tok.example(text, "")
    [ids] = lab.model.generate([question], 8, soft.past(lab.model), stop=lab.tok.end)
    return " ".join(lab.tok.decode(ids).split()) or "(nothing)"


def show_what_words_hide(lab, seed):
    """Print a prompt that says one thing and does another: its nearest tokens are still the words
    at which it started, and a small step away it does another task."""
    task, words = "first-letter-last", "What is the last letter of the second word?"
    vectors = arm_of_tokens(lab, task, lab.tok.encode(words), 1 / 64, seed)
    train_arms(lab, [vectors], 200, "a prompt that says one thing", constant)
    ids = nearest_text(lab, vectors.soft)
    ours, theirs = measure(lab, [vectors, arm_of_tokens(lab, task, ids)], 200, "test", FINAL)
    say(f"Vectors whose nearest tokens read {lab.tok.decode(ids)!r}:")
    say(f"    {ours['accuracy']:.2f} right of {FINAL} sentences ({TASKS[task].question})")
    say(f"    {theirs['accuracy']:.2f} right with these tokens in their place")


# ------------------------------------------------------------------ rows and lines


def where(rows, **columns):
    """The rows that have these values in these columns."""
    return [row for row in rows if all(row[name] == value for name, value in columns.items())]


def write_rows(path, rows):
    """Write rows as a table, whole or not at all."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, file.getvalue())


def read_rows(path):
    """The rows of a table. Raises InputError for one that is empty or cut."""
    rows = []
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if None in row or None in row.values():
                raise InputError(f"{path}: row {len(rows) + 1} is cut: remove the file")
            rows.append({name: number_or_text(cell) for name, cell in row.items()})
    if not rows:
        raise InputError(f"{path}: there are no rows in it: remove the file")
    return rows


def number_or_text(cell):
    """A cell of a table as a whole number, a number, or else the text that it is."""
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            pass
    return cell


def write_text(path, text):
    """Write a text file: at any moment there is the old one or the new one."""
    write_whole(path, text.encode("utf-8"))


def write_picture(path, draw, *given):
    """Write the Figure that draw(*given) makes, whole or not at all, whatever a user's matplotlibrc
    says."""
    file = io.BytesIO()
    with matplotlib.style.context("default"):
        draw(*given).savefig(file, format="png", dpi=130)
    write_whole(path, file.getvalue())
    say(str(path))


def panels(n, width=6.5, height=5.2):
    """A Figure with n axes beside one another. Not by pyplot, which depends on the screen. Raises
    InputError where there is nothing to draw."""
    if n == 0:
        raise InputError("the rows are of no task in TASKS: there is nothing to draw")
    figure = Figure(figsize=(width * n, height), layout="constrained")
    axes = figure.subplots(1, n, sharex=True, sharey=True, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def averages_of(rows, x, y, average):
    """{each value of the column x, in order: the average of the column y there}"""
    averages = {}
    for place in sorted({row[x] for row in rows}):
        averages[place] = average([row[y] for row in where(rows, **{x: place})])
    return averages


def draw_lines(axis, rows, x, y, by, looks, average=mean, top=math.inf, rings=None):
    """Draw a line for each value of the column `by`: the average over the seeds at each x, and
    each seed as a small dot. Returns the ends of the lines, for `label_lines`.

    looks   {value: an entry of TASKS or STARTS}; a value without a look is not drawn
    top     what is higher is an empty mark at this height
    rings   {value: the x where a ring is drawn}
    """
    ends, names = [], [name for name in looks if where(rows, **{by: name})]
    for i, name in enumerate(names):
        seeds, colour = where(rows, **{by: name}), looks[name].colour
        averages = averages_of(seeds, x, y, average)
        heights = [min(height, top) for height in averages.values()]
        faces = ["white" if height > top else colour for height in averages.values()]
        axis.plot(list(averages), heights, color=colour, lw=2)
        axis.scatter(list(averages), heights, 40, faces, edgecolors=colour, zorder=3)
        if rings and name in rings:
            height = min(averages[rings[name]], top)
            axis.plot(rings[name], height, "o", ms=15, mfc="none", mew=2, color=colour)
        # The dots of each line a little aside, so that none hides another's.
        inches = 0.035 * (i - (len(names) - 1) / 2)
        aside = axis.transData + ScaledTranslation(inches, 0, axis.figure.dpi_scale_trans)
        dots = [(row[x], min(row[y], top)) for row in seeds]
        axis.update_datalim(dots)
        axis.plot(*zip(*dots), ".", color=colour, alpha=0.5, ms=4, transform=aside)
        ends.append((heights[-1], looks[name].label, colour))
    return ends


def label_lines(axis, ends, gap=0.06):
    """Write labels at the right ends of lines, [(height, label, colour)], moved apart where they
    would overlap. `gap` is the least distance of two, as a share of the axis."""
    to_axis = axis.transData + axis.transAxes.inverted()
    heights = [to_axis.transform((1, height))[1] for height, _, _ in sorted(ends)]
    for (_, label, colour), y in zip(sorted(ends), moved_apart(heights, gap)):
        style = {"color": colour, "weight": "bold", "va": "center", "fontsize": 9}
        axis.text(1.03, y, label, transform=axis.transAxes, **style)


def moved_apart(heights, gap):
    """Growing heights, moved so that each is at least `gap` above the one before; their mean stays
    where it was."""
    moved = []
    for height in heights:
        moved.append(max(height, moved[-1] + gap) if moved else height)
    up = mean(moved) - mean(heights)
    return [height - up for height in moved]


# ------------------------------------------------------------------ the plan


class Plan(NamedTuple):
    """How much the main job does of what the tasks ask for."""

    without_rates: tuple = ()  # that experiment 1 leaves out
    start_seeds: int = 4
    start_length: int = 16
    lengths: tuple = (1, 2, 4, 8, 16, 64)
    length_seeds: int = 2
    methods: tuple = ("prompt", "prefix")
    part: float = 1.0  # of the steps that the lengths get


QUICK = Plan(
    without_rates=(1 / 16, 1 / 4, 16),
    start_seeds=1,
    lengths=(1, 16),
    length_seeds=1,
    methods=("prompt",),
    part=0.5,
)

# ------------------------------------------------------------------ experiment 1: initialization

THRESHOLD = 0.5  # nats a token of validation loss: a task counts as learned. Fixed in advance


def compare_starts(lab, plan, first_seed):
    """Every start at every learning rate: nothing is tuned, and no rate is hidden. The rates are
    constant: with a warm-up, a fast start would be measured at a part of its rate."""
    results = []
    for task, entry in TASKS.items():
        if entry.sweep is None:
            continue
        sweep, arms = entry.sweep, []
        for start in STARTS:
            if start not in sweep.without:
                arms += arms_of_start(lab, plan, task, start, first_seed)
        rows = {task: lab.rows(task, "train")}
        training = fit(lab.model, arms, rows, sweep.steps, EXAMPLES, schedule=constant)
        for step in progress(training, sweep.steps + 1, f"starts, {task}"):
            if step % sweep.every == 0:
                measured = measure(lab, arms, step, "valid", CURVE)
                learned = [row["loss"] <= THRESHOLD for row in measured]  # not where it is nan
                # `fit` looks at this same list: an arm that has learned the task leaves the batch.
                arms[:] = [arm for arm, done in zip(arms, learned) if not done]
                results += measured
    return results


def arms_of_start(lab, plan, task, start, first_seed):
    """The arms of a start: each learning rate with each seed."""
    sweep, arms = TASKS[task].sweep, []
    seeds = range(first_seed, first_seed + min(sweep.seeds, plan.start_seeds))
    for rate in sweep.rates:
        if rate not in plan.without_rates:
            for seed in seeds:
                arm = new_arm(lab, task, "prompt", start, plan.start_length, rate, seed)
                arm.columns = {"start": start, "rate": rate}
                arms.append(arm)
    return arms


def steps_needed(rows):
    """A row for each arm of experiment 1: in `steps` the first look at which its loss was at most
    the threshold; infinity where it never was."""
    names = ("task", "start", "rate", "seed")
    steps = {}
    for row in rows:
        arm = tuple(row[name] for name in names)
        steps.setdefault(arm, math.inf)
        if row["loss"] <= THRESHOLD:
            steps[arm] = min(steps[arm], row["step"])
    return [{**dict(zip(names, arm)), "steps": first} for arm, first in steps.items()]


def best_rate(needed, start):
    """The learning rate at which the median of this start's seeds is smallest; of equals the
    lowest."""
    own = where(needed, start=start)

    def steps(rate):
        return median(row["steps"] for row in where(own, rate=rate))

    return min(sorted({row["rate"] for row in own}), key=steps)


def draw_initialization(rows):
    """Steps until a task is learned, over the learning rate: a panel for each task, a line for
    each start."""
    needed = steps_needed(rows)
    tasks = [task for task in TASKS if where(needed, task=task)]
    rates = sorted({row["rate"] for row in needed})
    figure, axes = panels(len(tasks))
    axes[0].set_yscale("symlog", base=2, linthresh=1)  # as log, but with a place for 0
    axes[0].yaxis.set_major_formatter("{x:g}")
    axes[0].set_ylabel(f"steps until the loss is {THRESHOLD} nats")
    ends = []
    for axis, task in zip(axes, tasks):
        own = where(needed, task=task)
        last = max(row["step"] for row in where(rows, task=task))
        learned = {row["start"] for row in own if row["steps"] < math.inf}
        rings = {start: best_rate(own, start) for start in learned}
        ends.append(draw_lines(axis, own, "rate", "steps", "start", STARTS, median, last, rings))
        if max(row["steps"] for row in own) > last:
            axis.axhline(last, color="0.8", ls=":", zorder=0)
            axis.text(rates[0], 1.08 * last, f"empty: not learned in {last} steps", color="0.4")
        axis.set_xscale("log", base=2)
        axis.set_xticks(rates, [f"1/{1 / rate:g}" if rate < 1 else f"{rate:g}" for rate in rates])
        axis.set_xlabel("learning rate, constant (in spreads of the embedding table)")
        axis.set_title(f"{TASKS[task].label}: {TASKS[task].question}")
    for axis, ends_of_panel in zip(axes, ends):  # now that the heights of all panels are known
        label_lines(axis, ends_of_panel)
    figure.suptitle("Steps until a prompt has learned a task, from each start")
    figure.supxlabel("line: median of the seeds · small dot: a seed · ring: best rate", fontsize=9)
    return figure


# ------------------------------------------------------------------ experiment 2: length

# Near the best of each method, by validation sentences: tutorials/experiments/methods.py.
LENGTH_RATES = {"prompt": 3, "prefix": 0.1}


def compare_lengths(lab, plan, first_seed):
    """Prompts and prefixes of all lengths on each task, and what needs no training."""
    results = []
    for task, entry in TASKS.items():
        if entry.steps:
            results += untrained(lab, task)
        for method in plan.methods:
            if method in entry.steps:
                steps = round(plan.part * entry.steps[method])
                arms = arms_of_lengths(lab, plan, task, method, first_seed)
                train_arms(lab, arms, steps, f"lengths, {task}, {method}")
                results += measure(lab, arms, steps, "valid", FINAL)
                results += measure(lab, arms, steps, "test", FINAL)
    return results


def arms_of_lengths(lab, plan, task, method, first_seed):
    """Each length with each seed, all from sampled tokens."""
    arms = []
    for length in plan.lengths:
        for seed in range(first_seed, first_seed + plan.length_seeds):
            arm = new_arm(lab, task, method, "vocab", length, LENGTH_RATES[method], seed)
            arm.columns = {"method": method, "length": length}
            arms.append(arm)
    return arms


def untrained(lab, task):
    """Rows of results for what needs no training: no prompt, the best hard prompt, and always the
    commonest answer of the training sentences."""
    none = arm_of_tokens(lab, task, [])
    wording = arm_of_tokens(lab, task, lab.tok.encode(best_hard_prompt(lab, task)))
    none.columns = {"method": "none", "length": 0}
    wording.columns = {"method": "wording", "length": 0}
    answer = commonest_answer(TASKS[task].pairs(lab.data["train"]))
    results = []
    for split in ("valid", "test"):
        measured = measure(lab, [none, wording], 0, split, FINAL)
        share = share_of(answer, TASKS[task].pairs(lab.data[split][:FINAL]))
        always = {"method": "always", "loss": math.nan, "accuracy": round(share, 4)}
        results += [*measured, {**measured[0], **always}]
    return results


def mean_error(accuracies):
    """The mean accuracy, and its standard error, of the seeds and of the sentences as samples."""
    p = mean(accuracies)
    of_seeds = variance(accuracies) / len(accuracies) if len(accuracies) > 1 else 0.0
    of_sentences = p * (1 - p) / FINAL
    return p, (of_seeds + of_sentences) ** 0.5


def chosen_length(rows, task, method):
    """The one-standard-error rule: the smallest length whose validation accuracy is at least that
    of the best length minus its standard error."""
    own = where(rows, task=task, method=method, split="valid")
    accuracies = {}
    for length in sorted({row["length"] for row in own}):
        accuracies[length] = mean_error([row["accuracy"] for row in where(own, length=length)])
    best = max(accuracies, key=lambda length: accuracies[length][0])  # of equals the shortest
    accuracy, error = accuracies[best]
    return min(length for length in accuracies if accuracies[length][0] >= accuracy - error)


# What needs no training: where it stands left of the lengths, and how it is called.
UNTRAINED = {
    "always": (1 / 32, "commonest\nanswer"),
    "none": (1 / 11, "no\nprompt"),
    "wording": (1 / 4, "best hard\nprompt"),
}


def draw_length(rows):
    """Accuracy over length: a panel for each method, a line for each task; left of the lengths
    what needs no training."""
    methods = [method for method in METHODS if where(rows, method=method)]
    lengths = sorted({row["length"] for row in rows} - {0})
    places, names = zip(*UNTRAINED.values())
    figure, axes = panels(len(methods))
    axes[0].set_ylim(-0.03, 1.04)
    axes[0].set_ylabel(f"accuracy on {FINAL} test sentences")
    for axis, method in zip(axes, methods):
        tested = where(rows, method=method, split="test")
        tasks = [task for task in TASKS if where(tested, task=task)]
        looks, rings = {}, {}
        for task in tasks:
            steps = where(tested, task=task)[0]["step"]
            looks[task] = TASKS[task]._replace(label=f"{TASKS[task].label}\n{steps} steps")
            rings[task] = chosen_length(rows, task, method)
        ends = draw_lines(axis, tested, "length", "accuracy", "task", looks, rings=rings)
        for name, (place, _) in UNTRAINED.items():
            baseline = [{**row, "x": place} for row in where(rows, method=name, split="test")]
            draw_lines(axis, baseline, "x", "accuracy", "task", looks)
        axis.axvline(0.55, color="0.8", lw=1)
        axis.set_xscale("log", base=2)
        axis.set_xticks([*places, *lengths], [*names, *lengths], fontsize=8)
        axis.set_xlabel("virtual tokens")
        axis.set_title(f"{method} tuning")
        label_lines(axis, ends, gap=0.11)
    figure.suptitle("Accuracy over the number of virtual tokens, after a budget of steps")
    said = "line: mean of the seeds · small dot: a seed · ring: the chosen length"
    figure.supxlabel(said, fontsize=9)
    return figure


# ------------------------------------------------------------------ progress and messages


def say(text, end="\n", file=None):
    """Print over what is left of a line of progress."""
    file = file or sys.stdout
    width = 79 if file.isatty() else 0
    print(text.ljust(width), end=end, file=file, flush=True)


def progress(steps, total, title):
    """Yield the `total` steps, and say on stderr what is going on, how much is done and the time
    left. That is one line of a terminal, or in a file a line every ten seconds."""
    pause, end = (0.2, "\r") if sys.stderr.isatty() else (10, "\n")
    started = said = time.time()
    for done, step in enumerate(steps):
        now = time.time()
        if done and now - said > pause:
            said = now
            left = (now - started) / done * (total - done)
            say(f"{title}: {100 * done // total:3d} %, {clock(left)} left", end, sys.stderr)
        yield step
    say(f"{title}: {clock(time.time() - started)} minutes", file=sys.stderr)


def clock(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def guard(work):
    """Do the work. What a user can mend is one line on stderr and exit code 2; a mistake in the
    code keeps its traceback. Who reads no more, as `| head`, ends it without a word."""
    prepare_streams()
    try:
        work()
        sys.stdout.flush()  # here, where what goes wrong is still told
    except BrokenPipeError:
        forget_output()
        sys.exit(141)  # what a shell gives for it
    except (InputError, OSError) as problem:
        message = " ".join(str(problem).split())  # one line, whatever a library says
        if isinstance(problem, OSError) and problem.filename is None:
            message += ": where the output goes"  # all else that is written has a name
        say(f"error: {message}", file=sys.stderr)
        forget_output()
        sys.exit(2)
    except KeyboardInterrupt:
        say("\ninterrupted", file=sys.stderr)
        sys.exit(130)


def prepare_streams():
    """Make all that is printed possible: a stream that is closed (`>&-`) takes it and shows
    nothing, and a console that cannot show a character shows its code."""
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def forget_output():
    """What was printed and could not be written goes nowhere: Python tries again when it ends, and
    would complain once more."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# ------------------------------------------------------------------ the command line


class Experiment(NamedTuple):
    """An experiment leaves a table, NAME.csv, and a picture of it, NAME.png."""

    run: Callable  # (lab, plan, first_seed) -> rows of results
    draw: Callable  # rows of results -> a matplotlib Figure


EXPERIMENTS = {
    "initialization": Experiment(compare_starts, draw_initialization),
    "length": Experiment(compare_lengths, draw_length),
}


class Parser(argparse.ArgumentParser):
    """argparse whose complaints are InputErrors."""

    def error(self, message):
        if "expected" in message and "argument" in message:
            message += "; a value that begins with a minus stands behind =, as in --text=-5"
        raise InputError(message)


def script_parser(name, description):
    """The parser of a script: its help is laid out as the description is, no option may be cut."""
    layout = argparse.RawDescriptionHelpFormatter
    return Parser(name, description=description, formatter_class=layout, allow_abbrev=False)


def command_line(name, description):
    """A parser with the options that every script of experiments has."""
    parser = script_parser(name, description)
    add = parser.add_argument
    add("--base", default=BASE, help="file of the base (tutorials/base.pt)")
    add("--out", default="out", help="folder for what is made, and for what was read (out)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, mps or auto (auto)")
    return parser


def seed_number(text):
    """A seed as torch takes it."""
    seed = int(text)
    if not 0 <= seed < 2**62:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number from 0 to {2**62 - 1}")
    return seed


def open_lab(settings):
    """The Lab of the base and of the folder that the command line names."""
    require_writable(Path(settings.out, "docstrings.json"))
    model, tok = load_base(settings.base, settings.device)
    return Lab(model, tok, load_data(settings.out))


def main(arguments=None):
    parser = command_line("train.py", __doc__)
    quick = "a first look: fewer arms, in less than a minute, to OUT/quick"
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--plot", action="store_true", help="only draw again what is in the folder")
    parser.add_argument("--seed", type=seed_number, default=0, help="the first of the seeds (0)")
    settings = parser.parse_args(arguments)
    started = time.time()
    folder = Path(settings.out, "quick") if settings.quick else Path(settings.out)
    plan = QUICK if settings.quick else Plan()
    for name in EXPERIMENTS:
        require_writable(folder / f"{name}.csv")
        require_writable(folder / f"{name}.png")
    if settings.plot:
        for name, experiment in EXPERIMENTS.items():
            rows = read_rows(folder / f"{name}.csv")
            write_picture(folder / f"{name}.png", experiment.draw, rows)
        return
    lab = open_lab(settings)
    show_one_text(lab, settings.seed)
    show_what_words_hide(lab, settings.seed)
    for name, experiment in EXPERIMENTS.items():
        rows = experiment.run(lab, plan, settings.seed)
        write_rows(folder / f"{name}.csv", rows)
        write_picture(folder / f"{name}.png", experiment.draw, rows)
    say(f"Done in {clock(time.time() - started)} minutes.")


if __name__ == "__main__":
    guard(main)
