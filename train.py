"""Show the effect of where a soft prompt starts and how long it is.

    python train.py           the main job: two experiments, what each vector holds, three pictures
    python train.py --quick   the same in small, in less than a minute
    python train.py --plot    draw the pictures again from what is in the folder

An arm is one training of one soft prompt. All arms of an experiment train as one batch over one
frozen base. Losses are in nats for each token of an answer, lengths in virtual tokens, learning
rates in units of the size of what they move (see `sizes`). Letters (B, T, P, ...) as in model.py;
A is the number of arms.
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
import textwrap
import time
import warnings
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median, variance
from typing import NamedTuple

import tiktoken
import torch
import torch.nn as nn
import torch.nn.functional as F

from model import GPT, InputError, Past, require_writable, write_whole
from softprompt import METHODS, PrefixTuning, PromptTuning, initial_embeddings, prefill

try:
    from matplotlib.figure import Figure
except ValueError:  # MPLBACKEND names one that is not installed, as notebooks set it: we need none
    del os.environ["MPLBACKEND"]
    from matplotlib.figure import Figure

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
    """{split: [Sentence]}: each first line once, where it does not name its own library."""
    sentences, seen = {"train": [], "valid": [], "test": []}, set()
    for library, kind, text in docstrings:
        line = text.split("\n", 1)[0].strip()
        fits = 20 <= len(line) <= 100 and line.isascii() and len(line.split()) > 2
        if fits and library not in line.lower() and line not in seen:
            seen.add(line)
            sentences[split_of(line)].append(Sentence(line, library, kind))
    for part in sentences.values():  # mixed, so that the first n are a fair sample
        part.sort(key=lambda sentence: hashed(sentence.text))
    return sentences


def load_data(out):
    """The sentences of all splits; the folder `out` keeps what was read."""
    return sentences_of(read_docstrings(out))


# ------------------------------------------------------------------ tasks


class Task(NamedTuple):
    """What is asked of a sentence. To add a task, add an entry to TASKS."""

    question: str  # in a newcomer's words, for the pictures
    answer: Callable[[Sentence], str]
    practised: list[str]  # hard prompts that the base learned it from; none: it never practised it
    unseen: list[str]  # hard prompts that it never saw for this task
    lacks: str = "nothing new"  # what the base lacks, so that a prompt must bring it

    @property
    def hard_prompts(self):
        """Every instruction in words."""
        return self.practised + self.unseen

    def pairs(self, sentences):
        """[(text, answer)], which is what everything trains on."""
        return [(sentence.text, self.answer(sentence)) for sentence in sentences]


def bare(word):
    """A word without the signs around it."""
    return word.strip(string.punctuation) or word


TASKS = {
    "library": Task(
        "which library it is from",
        lambda s: s.library,
        [
            "Which library is this sentence from?",
            "Name the library that this comes from.",
            "What library does this belong to?",
            "Say which library documents this.",
        ],
        [
            "From which library was this sentence taken?",
            "Tell me the library of this text.",
        ],
    ),
    "kind": Task(
        "a class or a function",
        lambda s: s.kind,
        [
            "Is this a class or a function?",
            "Class or function?",
            "Does this describe a class or a function?",
            "Say whether this is a function or a class.",
        ],
        [
            "Decide: is it a function or is it a class?",
            "What is described, a class or a function?",
        ],
    ),
    "count": Task(
        "how many words there are",
        lambda s: str(len(s.text.split())),
        [
            "How many words are there?",
            "Count the words.",
            "What is the number of words?",
            "Say how many words this sentence has.",
        ],
        [
            "Give the number of words in this sentence.",
            "How many words do you count here?",
        ],
    ),
    "before-last": Task(
        "the word before the last",
        lambda s: bare(s.text.split()[-2]),
        [],
        [
            "Repeat the word before the last.",
            "What is the word before the last word?",
            "Copy the word before the last word.",
            "Say the last word but one again.",
        ],
        "a new rule",
    ),
}

# A grid: every operation on every word. The base practised each operation and each place, but not
# the three pairs in HELD_OUT. These are of three operations, at three places, none the first word.
OPERATIONS = {
    "repeat": (
        "the {} word",
        lambda word: word,
        [
            "Repeat the {} word.",
            "What is the {} word?",
            "Copy the {} word of this sentence.",
            "Say the {} word again.",
        ],
    ),
    "first-letter": (
        "first letter of the {} word",
        lambda word: word[0],
        [
            "What is the first letter of the {} word?",
            "Name the first letter of the {} word.",
            "Which letter does the {} word begin with?",
            "Say how the {} word begins.",
        ],
    ),
    "last-letter": (
        "last letter of the {} word",
        lambda word: word[-1],
        [
            "What is the last letter of the {} word?",
            "Name the last letter of the {} word.",
            "Which letter does the {} word end with?",
            "Say how the {} word ends.",
        ],
    ),
    "letters": (
        "how many letters the {} word has",
        lambda word: str(len(word)),
        [
            "How many letters has the {} word?",
            "Count the letters of the {} word.",
            "What is the length of the {} word?",
            "Say how long the {} word is.",
        ],
    ),
}
PLACES = {"first": 0, "second": 1, "third": 2, "last": -1}
HELD_OUT = ("repeat-second", "first-letter-last", "letters-third")


def grid_task(operation, place):
    """The task of the grid that does this operation on the word at this place."""
    question, operate, texts = OPERATIONS[operation]
    hard_prompts = [text.format(place) for text in texts]
    held_out = f"{operation}-{place}" in HELD_OUT

    def answer(sentence):
        return operate(bare(sentence.text.split()[PLACES[place]]))

    if held_out:
        return Task(question.format(place), answer, [], hard_prompts, "a rule")
    return Task(question.format(place), answer, hard_prompts, [])


for _operation in OPERATIONS:
    for _place in PLACES:
        TASKS[f"{_operation}-{_place}"] = grid_task(_operation, _place)

# The commonest first letters of the training sentences, in order.
COMMON_LETTERS = "RCASTGPD"


def swap_task(n):
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
        letter = TASKS["first-letter-first"].answer(sentence)
        return partner.get(letter, letter)

    facts = ", ".join(f"{b} for {a}" for a, b in partner.items())
    hard_prompt = f"What is the first letter of the first word? Say {facts}."
    return Task(
        f"first letter, {2 * n} letters swapped",
        answer,
        [],
        [*TASKS["first-letter-first"].practised, hard_prompt],  # right but for the swapped letters
        f"{2 * n} facts",
    )


TASKS["swap-1"] = swap_task(1)
TASKS["swap-4"] = swap_task(4)


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
        key = (task, split, hard_prompt)
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


class NotFinite(InputError):
    """A loss is not a number, or infinite."""


@contextmanager
def happens_at(place):
    """Inside of it, the message of NotFinite begins with the place."""
    try:
        yield
    except NotFinite as problem:
        raise NotFinite(f"{place}: {problem}") from problem


def score(model, past, rows):
    """The Scores of rows (question, answer), each behind its row of `past` (None: no prompt).

    `past` has A rows and `rows` as many for each, arm after arm: row a of `past` stands before the
    a-th part of `rows`. Raises NotFinite where a loss is not finite: not a number is never right.
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
    require_finite(nats)
    return Scores(nats, tokens, (wrong == 0).float())


def require_finite(nats):
    """Raise NotFinite where one of the losses (B,) is not finite."""
    bad = ~nats.isfinite()
    if bad.any():
        row = int(bad.int().argmax())
        raise NotFinite(f"the loss of row {row} of {len(nats)} is {nats[row].item()}")


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
    virtual = [length for length in past.length.tolist() for _ in range(rows_of_arm)]
    texts = [len(question) + len(answer) for question, answer in rows]
    # Rows whose prompts are about as long stand together, and among them like texts.
    order = sorted(range(len(rows)), key=lambda i: (virtual[i] // 32, texts[i]))

    def width(i):
        return virtual[i] + texts[i]

    limit = TOKENS_AT_ONCE.get(model.device.type, MANY_TOKENS)
    for part in parts_of(order, width, limit):
        idx, targets = collate([rows[i] for i in part], model.device)  # (B, T) each
        index = torch.tensor(part, device=model.device)  # (B,)
        logits = model.scored(idx, targets, past.rows(index // rows_of_arm)).float()  # (n, V)
        scored = targets >= 0  # (B, T)
        row = index[:, None].expand_as(targets)[scored]  # (n,)
        yield row, targets[scored], logits


def parts_of(order, width, limit):
    """Cut the rows in `order` into parts, each of at most `limit` slots once all its rows are as
    wide as the widest, or of one row where that alone has more."""
    part, widest = [], 0
    for i in order:
        widest = max(widest, width(i))
        if part and (len(part) + 1) * widest > limit:
            yield part
            part, widest = [], width(i)
        part.append(i)
    yield part


def mean_of_arms(scores, arms):
    """(loss in nats a token, accuracy) of each arm, (A,) each."""
    nats = scores.nats.view(arms, -1).sum(1)  # (A,), of all rows of the arm
    tokens = scores.tokens.view(arms, -1).sum(1)  # (A,)
    right = scores.right.view(arms, -1).mean(1)  # (A,)
    return nats / tokens, right


# ------------------------------------------------------------------ training


@dataclass
class Arm:
    """One training of one soft prompt: from which examples, and how fast."""

    soft: nn.Module  # anything that has a past
    task: str
    rate: float  # the learning rate, in units of the size of what it moves
    seed: int = 0  # of the examples that are drawn
    columns: dict = field(default_factory=dict)  # what the results say of it


def sizes(soft, model):
    """How big the numbers around each parameter are: the unit of its learning rate.

    AdamW moves each number by about the learning rate in every step, however small the gradient is.
    So a rate means something only beside the size of what it moves. That is the standard deviation
    of the embedding table for a prompt. For a prefix it is the root mean square of each layer's
    keys and values: values differ by a factor of fifty between the layers of a real model, and no
    absolute rate fits all. For anything else it is 1. Raises NotFinite where the base or the start
    holds something that is no number: a rate from it would make every number of the prompt NaN.
    """
    if isinstance(soft, PromptTuning):
        table = model.model.embed_tokens.weight.detach().float()  # (V, C)
        found = [table.std().item()]
    elif isinstance(soft, PrefixTuning):
        found = [p.detach().square().mean().sqrt().item() for p in soft.parameters()]
    else:
        found = [1.0 for _ in soft.parameters()]
    if not all(math.isfinite(size) for size in found):
        where = (
            "embeddings of the base" if soft.kind == "prompt" else "keys and values of the start"
        )
        raise NotFinite(f"the {where} hold numbers that are not finite, so nothing can be trained")
    return found


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


def answer_loss(model, past, rows):
    """The mean loss of each arm in nats a token, (A,)."""
    scores = score(model, past, rows)
    losses, _ = mean_of_arms(scores, len(past.positions))
    return losses


def fit(
    model, arms, rows, steps, size, loss=answer_loss, draw=draw_rows, schedule=warm_up_and_fall
):
    """Train all arms as one batch over one frozen base. Yields the number of steps done: before
    each step and after the last, so that the caller measures, saves or stops.

    Each arm has its own `size` examples of rows[task] a step, its own loss, gradient clipping and
    learning rate, so it learns exactly what it would learn alone. `loss` gives each arm's loss,
    (A,); `draw` the examples of a step; `schedule` the share of the learning rate in a step.
    """
    softs = [arm.soft for arm in arms]
    optimizer = make_optimizer(model, arms)
    for step in range(steps):
        yield step
        examples = []
        for arm in arms:
            examples += draw(rows[arm.task], arm.seed, step, size)
        with happens_at(f"training step {step}"):
            losses = loss(model, prefill(softs, model), examples)  # (A,)
        losses.sum().backward()
        for soft in softs:
            nn.utils.clip_grad_norm_(soft.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = group["full_lr"] * schedule(step, steps)
        optimizer.step()
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


def train_arms(lab, arms, steps, examples, title):
    """Train arms of one task to the end, with a line of progress."""
    task = arms[0].task
    training = fit(lab.model, arms, {task: lab.rows(task, "train")}, steps, examples)
    for _ in progress(training, steps + 1, title):
        pass


@torch.inference_mode()
def measure(lab, arms, step, split, n):
    """Rows of results: how each arm does now on the first n sentences of a split."""
    past = prefill([arm.soft for arm in arms], lab.model)
    rows = []
    for arm in arms:
        rows += lab.rows(arm.task, split, n)
    with happens_at(f"{split} sentences after step {step}"):
        scores = score(lab.model, past, rows)
    losses, accuracies = mean_of_arms(scores, len(arms))
    measured = []
    for arm, loss, accuracy in zip(arms, losses.tolist(), accuracies.tolist()):
        result = {"loss": round(loss, 4), "accuracy": round(accuracy, 4)}
        result["sentences"] = len(rows) // len(arms)
        where = {"task": arm.task, "seed": arm.seed, "step": step, "split": split}
        measured.append({**arm.columns, **where, **result})
    return measured


# ------------------------------------------------------------------ starts


class Start(NamedTuple):
    """Where a prompt starts. To add a start, add an entry to STARTS."""

    label: str
    colour: str  # of those that colour-blind readers tell apart (Okabe and Ito)
    embeddings: Callable  # (lab, task, length, generator) -> (P, C)


def related_text(task):
    """The first hard prompt of the task that the base never saw, else the first it practised."""
    return (TASKS[task].unseen or TASKS[task].practised)[0]


def text_of_another_task(task):
    """The related text of a task that is not this one."""
    return related_text("library" if task == "kind" else "kind")


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


STARTS = {
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


# ------------------------------------------------------------------ the plan


@dataclass(frozen=True)
class Plan:
    """How much the main job does."""

    examples: int = 16  # sentences a step, for each arm
    valid: int = 32  # sentences of the curves
    final: int = 240  # sentences of the final numbers, validation and test

    # experiment 1: initialization
    starts: tuple = tuple(STARTS)
    rates: tuple = (0.5, 1, 2, 4, 8)
    start_seeds: int = 4
    start_length: int = 16
    start_steps: tuple = (("first-letter-last", 40), ("library", 4))
    measure_every: int = 2  # steps

    # experiment 2: length
    lengths: tuple = (1, 2, 4, 8, 16, 64)
    length_seeds: int = 2
    length_rates: dict = field(default_factory=lambda: {"prompt": 3, "prefix": 0.1})
    length_steps: tuple = (  # in the order of how much a prompt must store
        ("library", {"prompt": 16, "prefix": 16}),
        ("first-letter-last", {"prompt": 64, "prefix": 64}),
        ("swap-1", {"prompt": 200, "prefix": 160}),
        ("swap-4", {"prompt": 200, "prefix": 160}),
    )

    # what each vector holds
    vector_seeds: int = 5
    vector_length: int = 16
    vector_steps: int = 200
    vector_rate: float = 3


QUICK = Plan(
    final=120,
    starts=("related", "vocab", "normal"),
    rates=(1, 4),
    start_seeds=2,
    start_steps=(("first-letter-last", 30),),
    lengths=(1, 4, 32),
    length_seeds=1,
    length_steps=(("first-letter-last", {"prompt": 48}), ("swap-1", {"prompt": 100})),
    vector_seeds=1,
    vector_steps=140,
)


# ------------------------------------------------------------------ one text, to begin with


def show_one_text(lab, plan, first_seed):
    """Train one prompt, and print what the base answers without it, with words, and with it."""
    text = "Compute the eigenvalues of a square matrix."
    task, steps = plan.start_steps[0]
    arm = new_arm(lab, task, "prompt", "related", plan.start_length, 2, first_seed)
    train_arms(lab, [arm], steps, plan.examples, "one prompt")
    hard_prompt = best_hard_prompt(lab, task)
    learned = f"{plan.start_length} learned vectors"
    say(f"{text}   (asked for: the {TASKS[task].question})")
    say(f"    no prompt: {answer_to(lab, text)}")
    say(f"    {hard_prompt} {answer_to(lab, text, hard_prompt=hard_prompt)}")
    with torch.inference_mode():
        say(f"    {learned}: {answer_to(lab, text, past=arm.soft.past(lab.model))}")


def answer_to(lab, text, past=None, hard_prompt=""):
    """What the base answers to a text, greedily, behind a past and a hard prompt."""
    question, _ = lab.tok.example(text, "", hard_prompt)
    [ids] = lab.model.generate([question], 8, past, stop=lab.tok.end)
    return " ".join(lab.tok.decode(ids).split()) or "(nothing)"


# ------------------------------------------------------------------ experiment 1: initialization

THRESHOLD = 0.5  # nats a token of validation loss: a task counts as learned. Fixed in advance


def compare_starts(lab, plan, first_seed):
    """Every start at every learning rate: nothing is tuned, and no rate is hidden."""
    results = []
    for task, steps in plan.start_steps:
        arms = []
        for start in plan.starts:
            for rate in plan.rates:
                for seed in range(first_seed, first_seed + plan.start_seeds):
                    arm = new_arm(lab, task, "prompt", start, plan.start_length, rate, seed)
                    arm.columns = {"start": start, "rate": rate}
                    arms.append(arm)
        rows = {task: lab.rows(task, "train")}
        training = fit(lab.model, arms, rows, steps, plan.examples)
        for step in progress(training, steps + 1, f"starts, {task}"):
            if step % plan.measure_every == 0:
                results += measure(lab, arms, step, "valid", plan.valid)
    return results


def steps_to_threshold(curve, threshold=THRESHOLD):
    """The first step of a curve [(step, loss)] where the loss is at most the threshold; infinity
    where it never is."""
    return min((step for step, loss in curve if loss <= threshold), default=math.inf)


def steps_needed(results, task):
    """{(start, rate): [steps to the threshold of each seed]}."""
    curves = defaultdict(list)
    for row in results:
        if row["task"] == task and row["split"] == "valid":
            curves[row["start"], row["rate"], row["seed"]].append((row["step"], row["loss"]))
    needed = defaultdict(list)
    for (start, rate, _), curve in curves.items():
        needed[start, rate].append(steps_to_threshold(curve))
    return dict(needed)


# ------------------------------------------------------------------ experiment 2: length


def compare_lengths(lab, plan, first_seed):
    """Prompts and prefixes of all lengths on each task, and what needs no training."""
    results = []
    for task, steps_of_method in plan.length_steps:
        results += untrained(lab, task, plan.final)
        for method, steps in steps_of_method.items():
            rate = plan.length_rates[method]
            arms = []
            for length in plan.lengths:
                for seed in range(first_seed, first_seed + plan.length_seeds):
                    arm = new_arm(lab, task, method, "vocab", length, rate, seed)
                    arm.columns = {"method": method, "length": length}
                    arms.append(arm)
            train_arms(lab, arms, steps, plan.examples, f"lengths, {task}, {method}")
            results += measure(lab, arms, steps, "valid", plan.final)
            results += measure(lab, arms, steps, "test", plan.final)
    return results


def untrained(lab, task, n):
    """Rows of results for what needs no training: no prompt, the best hard prompt, and always the
    commonest answer of the training sentences."""
    results = []
    choices = {"none": "", "wording": best_hard_prompt(lab, task, n)}
    answer = commonest_answer(TASKS[task].pairs(lab.data["train"]))
    for split in ("valid", "test"):
        asked = len(lab.rows(task, split, n))  # fewer than n where the split has fewer
        for method, words in choices.items():
            loss, accuracy = score_hard_prompt(lab, task, words, split, n)
            results.append(untrained_row(task, method, words, split, asked, loss, accuracy))
        share = share_of(answer, TASKS[task].pairs(lab.data[split][:n]))
        results.append(untrained_row(task, "always", answer, split, asked, math.nan, share))
    return results


def untrained_row(task, method, words, split, n, loss, accuracy):
    row = {"method": method, "length": 0, "task": task, "seed": 0, "step": 0, "split": split}
    row |= {"loss": round(loss, 4), "accuracy": round(accuracy, 4), "sentences": n}
    return {**row, "words": words}


@torch.inference_mode()
def score_hard_prompt(lab, task, hard_prompt, split, n):
    """(loss, accuracy) of the base with an instruction in words, on the first n sentences."""
    rows = lab.rows(task, split, n, hard_prompt)
    losses, accuracies = mean_of_arms(score(lab.model, None, rows), 1)
    return losses.item(), round(accuracies.item(), 4)  # as in the tables


def best_hard_prompt(lab, task, n=Plan.final):
    """The hard prompt with the best accuracy on the first n validation sentences."""

    def accuracy(hard_prompt):
        return score_hard_prompt(lab, task, hard_prompt, "valid", n)[1]

    return max(TASKS[task].hard_prompts, key=accuracy)


def mean_error(accuracies, n):
    """The mean accuracy, and its standard error over the seeds and over n sentences as a sample."""
    p = mean(accuracies)
    of_seeds = variance(accuracies) / len(accuracies) if len(accuracies) > 1 else 0.0
    of_sentences = p * (1 - p) / n
    return p, (of_seeds + of_sentences) ** 0.5


def accuracies_of(results, task, method, split):
    """{length: (mean accuracy, standard error)}, lengths in order."""
    values, n = defaultdict(list), {}
    for row in results:
        if (row["task"], row["method"], row["split"]) == (task, method, split):
            values[row["length"]].append(row["accuracy"])
            n[row["length"]] = row["sentences"]
    return {length: mean_error(values[length], n[length]) for length in sorted(values)}


def chosen_length(results, task, method):
    """The one-standard-error rule: the smallest length whose validation accuracy is at least that
    of the best length minus its standard error."""
    accuracies = accuracies_of(results, task, method, "valid")
    best, error = max(accuracies.values(), key=lambda pair: pair[0])
    return min(P for P, (accuracy, _) in accuracies.items() if accuracy >= best - error)


# ------------------------------------------------------------------ what each vector holds


NONE_HIDDEN = -1
FUTURE = 2**20  # a position behind every text


def ask_without_each_vector(lab, plan, first_seed):
    """Prompts that hold two facts (R is C, C is R): without each vector, which answers are lost?"""
    task, P, n = "swap-1", plan.vector_length, plan.final
    seeds = range(first_seed, first_seed + plan.vector_seeds)
    arms = [new_arm(lab, task, "prompt", "vocab", P, plan.vector_rate, seed) for seed in seeds]
    train_arms(lab, arms, plan.vector_steps, plan.examples, f"vectors, {task}")
    letters = [letter_of(sentence) for sentence in lab.data["test"][:n]]
    results = []
    for arm in arms:
        with torch.inference_mode():
            past = arm.soft.past(lab.model)
            for vector in (NONE_HIDDEN, *range(P)):
                right = score(lab.model, hide(past, vector), lab.rows(task, "test", n)).right
                for letter, accuracy in accuracy_by_letter(letters, right.tolist()).items():
                    row = {"task": task, "seed": arm.seed, "vector": vector}
                    results.append({**row, "letter": letter, "accuracy": round(accuracy, 4)})
    return results


def hide(past, vector):
    """The past with one virtual token hidden from every text behind it, or NONE_HIDDEN.

    Its position is moved into the future, where no text sees it. (As an empty slot it would let the
    text move up by a position, and that alone can cost answers.)
    """
    if vector == NONE_HIDDEN:
        return past
    positions = past.positions.clone()  # (1, P)
    positions[:, vector] = FUTURE
    return Past(past.keys, past.values, positions, past.pinned)


def letter_of(sentence):
    """The first letter if *swap-1* moves it, else "other"."""
    letter = TASKS["first-letter-first"].answer(sentence)
    return letter if letter in COMMON_LETTERS[:2] else "other"


def accuracy_by_letter(letters, right):
    """{letter: share right} over rows with these letters; right is 1.0 or 0.0 for each."""
    of_letter = defaultdict(list)
    for letter, value in zip(letters, right):
        of_letter[letter].append(value)
    return {letter: mean(values) for letter, values in of_letter.items()}


def accuracies_without(results, seed):
    """{(letter, hidden vector): accuracy} of one seed's prompt."""
    accuracies = {}
    for row in results:
        if row["seed"] == seed:
            accuracies[row["letter"], row["vector"]] = row["accuracy"]
    return accuracies


def answers_lost(results, seed):
    """{letter: [accuracy lost without each vector]} of one seed's prompt."""
    accuracies = accuracies_without(results, seed)
    lost = defaultdict(list)
    for (letter, vector), accuracy in sorted(accuracies.items()):
        if vector != NONE_HIDDEN:
            lost[letter].append(accuracies[letter, NONE_HIDDEN] - accuracy)
    return dict(lost)


# ------------------------------------------------------------------ results


def write_results(path, columns, rows):
    """Write a table of these columns, whole or not at all."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, file.getvalue())


def read_results(path, columns):
    """The rows of a table; `columns` is {name: type}. InputError names the line of what is none."""
    rows = []
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        try:
            for row in reader:
                rows.append(typed(row, columns))
        except (ValueError, csv.Error) as problem:
            line = reader.reader.line_num  # also right where the csv module itself gives up
            raise InputError(f"{path}:{line}: {problem}: remove the file") from problem
    if not rows:
        raise InputError(f"{path}: there are no results in it: remove the file")
    return rows


def typed(row, columns):
    """One row with a value of the right type in each column; ValueError for another row."""
    if list(row) != list(columns) or None in row.values():
        raise ValueError(f"a row of {', '.join(columns)} is cut or has other columns")
    return {name: kind(row[name]) for name, kind in columns.items()}


def write_text(path, text):
    """Write a text file: at any moment there is the old one or the new one."""
    write_whole(path, text.encode("utf-8"))


def write_picture(path, figure):
    """Write a matplotlib Figure as a .png: at any moment there is the old one or the new one."""
    file = io.BytesIO()
    figure.savefig(file, dpi=130)
    write_whole(path, file.getvalue())


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
        try:
            work()
        finally:
            sys.stdout.flush()  # here, where what goes wrong is still told
    except BrokenPipeError:
        end_output()
        sys.exit(141)  # what a shell gives for it
    except (InputError, OSError) as problem:
        message = " ".join(str(problem).split())  # one line, whatever a library says
        if isinstance(problem, OSError) and problem.filename is None:
            message += ": where the output goes"  # all else that is written has a name
        say(f"error: {message}", file=sys.stderr)
        end_output()
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


def end_output():
    """What was printed and could not be written goes nowhere: Python tries again when it ends, and
    would complain once more."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# ------------------------------------------------------------------ pictures

COLOURS = {  # a thing has one colour, in all pictures and classes
    "none": "#595959",
    "always": "#A6A6A6",
    "wording": "#0072B2",
    "prompt": "#009E73",
    "prefix": "#E69F00",
    "library": "#7F7F7F",
    "first-letter-last": "#009E73",
    "swap-1": "#0072B2",
    "swap-4": "#D55E00",
    **{name: start.colour for name, start in STARTS.items()},
}


def new_figure(width, height, rows=1, columns=1, **ratios):
    """A Figure and its axes, (rows, columns). Not by pyplot, which depends on the screen."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw=ratios)
    figure.get_layout_engine().set(wspace=0.04)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def label_lines(axis, labels, gap=0.06):
    """Texts at the right ends of lines, [(height, text, colour)], moved apart where they would
    overlap. `gap` is the least distance of two, as a share of the axis."""
    to_axis = axis.transData + axis.transAxes.inverted()
    labels = sorted(labels)
    heights = [to_axis.transform((1, height))[1] for height, _, _ in labels]
    for (_, text, colour), y in zip(labels, moved_apart(heights, gap)):
        style = {"color": colour, "weight": "bold", "va": "center", "fontsize": 9}
        axis.text(1.03, y, text, transform=axis.transAxes, **style)


def moved_apart(heights, gap):
    """Growing heights, moved so that each is at least `gap` above the one before, and the last no
    higher than the top of the axis, 1, or where it was."""
    ceiling = max(1, heights[-1])
    moved = []
    for height in heights:
        moved.append(max(height, moved[-1] + gap) if moved else height)
    for i in reversed(range(len(moved))):
        moved[i] = min(moved[i], ceiling)
        ceiling = moved[i] - gap
    return moved


def values_in_order(results, column):
    """The different values of a column, in the order in which they come."""
    return list(dict.fromkeys(row[column] for row in results))


def practised_or_not(task):
    return "a practised task" if TASKS[task].practised else "a task never practised"


def times_sooner(needed, slow, fast):
    """How many times as many steps the start `slow` needs as the start `fast`: at each learning
    rate, {rate: ratio}, and each start at its own best rate. Medians of the seeds; a task learned
    at once counts as one step. Where one of the two never gets there, there is no ratio (NaN)."""
    steps = {where: max(1, median(seeds)) for where, seeds in needed.items()}
    at_rate, best = {}, {slow: math.inf, fast: math.inf}
    for rate in sorted({rate for _, rate in steps}):
        slow_steps = steps.get((slow, rate), math.inf)
        fast_steps = steps.get((fast, rate), math.inf)
        if max(slow_steps, fast_steps) < math.inf:
            at_rate[rate] = slow_steps / fast_steps
        best[slow] = min(best[slow], slow_steps)
        best[fast] = min(best[fast], fast_steps)
    at_best = best[slow] / best[fast] if max(best.values()) < math.inf else math.nan
    return at_rate, at_best


def is_sooner(at_rate):
    """Whether related text is at least twice as fast as noise at some learning rate."""
    return max(at_rate.values(), default=0) >= 2


def initialization_finding(at_rate, at_best):
    """The title of initialization.png, from the ratios of `times_sooner`, noise to related text."""
    if not is_sooner(at_rate):
        return "How soon a prompt learns, from each start and at each learning rate"
    rate = max(at_rate, key=at_rate.get)
    most = f"{at_rate[rate]:.0f} times sooner than from noise at learning rate {rate:g}"
    if at_best >= 1.1:
        each = f"and {at_best:.1f} times when each has its own best learning rate"
    else:
        each = "but not when each has its own best learning rate"
    return f"From related text a prompt learns {most},\n{each}"


COMPARED = ("normal", "related")  # the two starts that people argue about


def draw_initialization(results):
    """Steps until a task is learned: over the learning rate, a line for each start; and beside it,
    all rates together, the same for a task where the start hardly matters."""
    new_task, *practised = values_in_order(results, "task")
    columns = 1 + len(practised)
    figure, axes = new_figure(
        7 + 3.2 * len(practised), 5.6, columns=columns, width_ratios=[2] + [1] * len(practised)
    )
    needed = steps_needed(results, new_task)
    last = max(row["step"] for row in results)
    draw_steps_over_rate(axes[0, 0], needed, last, new_task)
    for axis, task in zip(axes[0, 1:], practised):
        draw_steps_of_starts(axis, steps_needed(results, task), last, task)
    at_rate, at_best = times_sooner(needed, *COMPARED)
    if is_sooner(at_rate):
        draw_gap(axes[0, 0], needed, at_rate, last)
    figure.suptitle(initialization_finding(at_rate, at_best))
    return figure


def height_of(steps, last):
    """Where a number of steps stands on the axis: 0 at a half, "never" at twice the last step."""
    return min(max(steps, 0.5), 2 * last)


def draw_steps_over_rate(axis, needed, last, task):
    labels = []
    starts = list(dict.fromkeys(start for start, _ in needed))
    for place, start in enumerate(starts):
        rates = sorted(rate for name, rate in needed if name == start)
        medians = [height_of(median(needed[start, rate]), last) for rate in rates]
        colour = STARTS[start].colour
        width = 3.5 if start in COMPARED else 1.5
        axis.plot(rates, medians, "o-", color=colour, lw=width)
        for rate in rates:
            heights = [height_of(steps, last) for steps in needed[start, rate]]
            aside = 0.04 * (place - (len(starts) - 1) / 2)  # so that no dot hides another's
            beside = rate * 2**aside
            axis.plot([beside] * len(heights), heights, ".", color=colour, alpha=0.5, ms=5)
        labels.append((medians[-1], STARTS[start].label, colour))
    axis.set_xscale("log", base=2)
    axis.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axis.set_xlabel("learning rate (in units of the embeddings' spread)")
    axis.set_ylabel("steps until the task is learned\n(line: median; small dot: a seed)")
    finish_steps_axis(axis, last, task)
    label_lines(axis, labels)


def draw_steps_of_starts(axis, needed, last, task):
    starts = list(dict.fromkeys(start for start, _ in needed))
    for place, start in enumerate(starts):
        seeds = []
        for (name, _), steps in needed.items():
            if name == start:
                seeds += steps
        heights = [height_of(steps, last) for steps in seeds]
        colour = STARTS[start].colour
        axis.plot([place] * len(heights), heights, ".", color=colour, alpha=0.5, ms=5)
        axis.plot(place, height_of(median(seeds), last), "o", color=colour, ms=10)
    axis.set_xlim(-0.7, len(starts) - 0.3)
    names = [STARTS[start].label for start in starts]
    axis.set_xticks(range(len(starts)), names, rotation=60, ha="right", fontsize=9)
    finish_steps_axis(axis, last, task)


def finish_steps_axis(axis, last, task):
    ticks = [2**i for i in range(int(math.log2(last)) + 1)]
    axis.set_yscale("log", base=2)
    axis.set_yticks([0.5, *ticks, 2 * last], ["0", *map(str, ticks), "never"])
    axis.minorticks_off()
    axis.set_ylim(0.42, 2.4 * last)
    axis.set_title(f"{practised_or_not(task)}:\n{TASKS[task].question}")


def draw_gap(axis, needed, at_rate, last):
    """An arrow from related text to noise, at the rate at which they are farthest apart."""
    rate = max(at_rate, key=at_rate.get)
    slow, fast = COMPARED
    low = height_of(median(needed[fast, rate]), last)
    high = height_of(median(needed[slow, rate]), last)
    arrow = {"arrowstyle": "<->", "color": "black", "lw": 1.5, "shrinkA": 5, "shrinkB": 5}
    axis.annotate("", (rate, high), (rate, low), arrowprops=arrow)
    text = f"{at_rate[rate]:.0f} times as many steps\nat the same learning rate"
    axis.text(rate, low / 1.3, text, ha="center", va="top")


UNTRAINED = {"always": "commonest\nanswer", "none": "no\nprompt", "wording": "best hard\nprompt"}


def draw_length(results):
    """Accuracy over length, a line for each task; left of the prompts, what needs no training."""
    methods = [name for name in values_in_order(results, "method") if name in METHODS]
    widths = [1.4] + [1] * (len(methods) - 1)
    figure, axes = new_figure(2 + 5.5 * len(methods), 5, columns=len(methods), width_ratios=widths)
    for axis, method in zip(axes[0], methods):
        draw_accuracy_over_length(axis, results, method)
    draw_untrained(axes[0, 0], results)
    figure.suptitle(length_finding(results))
    return figure


def draw_accuracy_over_length(axis, results, method):
    labels = []
    lengths = sorted({row["length"] for row in results if row["method"] == method})
    x = [math.log2(length) for length in lengths]
    for task in values_in_order(results, "task"):
        colour = COLOURS.get(task, "black")
        tested = accuracies_of(results, task, method, "test")
        accuracies = [tested[length][0] for length in lengths]
        errors = [tested[length][1] for length in lengths]
        axis.errorbar(x, accuracies, errors, fmt="o-", color=colour, lw=2.5, elinewidth=1)
        enough = chosen_length(results, task, method)
        ring = {"ms": 15, "mfc": "none", "mew": 2, "color": colour}
        axis.plot(math.log2(enough), tested[enough][0], "o", **ring)
        text = f"{TASKS[task].lacks}: {enough_said(enough, lengths)}\n"
        text += textwrap.fill(TASKS[task].question, 25)
        labels.append((accuracies[-1], text, colour))
    axis.set_xticks(x, lengths, fontsize=9)
    axis.set_ylim(-0.03, 1.04)
    axis.set_xlabel("virtual tokens (ring: enough; bars: one standard error)")
    axis.set_ylabel("accuracy on the test sentences")
    axis.set_title(f"{method} tuning")
    label_lines(axis, labels, gap=0.17)


def draw_untrained(axis, results):
    """What needs no training, left of the lengths: a short bar for each task, side by side."""
    tasks = values_in_order(results, "task")
    middles = [-5.5, -3.7, -1.9]
    for middle, method in zip(middles, UNTRAINED):
        for place, task in enumerate(tasks):
            [(accuracy, error)] = accuracies_of(results, task, method, "test").values()
            x = middle + 0.35 * (place - (len(tasks) - 1) / 2)
            colour = COLOURS.get(task, "black")
            axis.errorbar(x, accuracy, error, fmt="_", color=colour, ms=9, mew=3, elinewidth=1)
    axis.axvline(-0.8, color="0.8", lw=1)
    ticks, texts = list(axis.get_xticks()), [text.get_text() for text in axis.get_xticklabels()]
    axis.set_xticks([*middles, *ticks], [*UNTRAINED.values(), *texts], fontsize=9)


def enough_said(length, lengths):
    """A chosen length in words. Where it is the longest that was tried, more may be better."""
    return f"{length} or more" if length == max(lengths) else f"{length} enough"


def length_finding(results):
    """The title of length.png. Tasks stand in the order of how much a prompt must store."""
    tasks = values_in_order(results, "task")
    enough = [chosen_length(results, task, "prompt") for task in tasks]
    if enough == sorted(enough) and enough[0] < enough[-1]:
        return "The more a prompt has to store, the longer it must be"
    return "Accuracy over the number of virtual tokens"


def shown_seed(results):
    """The seed that vectors.png shows first: the one in which some vector holds one letter alone
    most clearly. For each letter that changes places, the most that is lost of it and of nothing
    else; the seed with the largest sum."""

    def clearness(seed):
        lost = answers_lost(results, seed)
        return sum(max(lost_alone(lost, letter)) for letter in COMMON_LETTERS[:2])

    return max(values_in_order(results, "seed"), key=clearness)


def lost_alone(lost, letter):
    """Of each vector: how much more is lost of this letter than of any other, (P,)."""
    others = [values for name, values in lost.items() if name != letter]
    return [own - max(rest) for own, *rest in zip(lost[letter], *others)]


def draw_vectors(results):
    """What is lost without each vector: the shown seed large, the others below it."""
    first = shown_seed(results)
    seeds = [first] + [seed for seed in values_in_order(results, "seed") if seed != first]
    heights = [2.2] + [1] * (len(seeds) - 1)
    figure, axes = new_figure(9, 1.2 + 0.95 * sum(heights), rows=len(seeds), height_ratios=heights)
    for axis, seed in zip(axes[:, 0], seeds):
        image = draw_lost(axis, answers_lost(results, seed))
        shown = f" (the clearest of {len(seeds)})" if seed == first else ""
        axis.set_title(f"seed {seed}{shown}", fontsize=9, loc="left")
    axes[-1, 0].set_xlabel("the vector that is hidden (a number: at least 0.1 is lost)")
    figure.colorbar(image, ax=axes, label="accuracy that is lost")
    figure.suptitle(vectors_finding(results))
    return figure


def draw_lost(axis, lost):
    """One prompt: a row for each kind of letter, a column for each vector; dark where much is
    lost."""
    first, second = COMMON_LETTERS[:2]
    grid = [lost[first], lost[second], lost["other"]]  # (3, P)
    image = axis.imshow(grid, cmap="Reds", vmin=0, vmax=1, aspect="auto")
    axis.set_yticks(range(3), [f"begins with {first}", f"begins with {second}", "other letters"])
    vectors = range(len(lost[first]))
    axis.set_xticks(vectors, [vector + 1 for vector in vectors])
    write_into_squares(axis, grid, 0.6, lambda value: f"{value:.1f}")
    return image


def write_into_squares(axis, grid, dark, as_text):
    """Write each value of at least 0.1 into its square: in white where the square is dark, that is
    above `dark`."""
    axis.spines[["left", "bottom"]].set_visible(False)
    axis.tick_params(length=0)
    for y, values in enumerate(grid):
        for x, value in enumerate(values):
            if value >= 0.1:
                style = {"color": "white" if value > dark else "black", "fontsize": 8}
                axis.text(x, y, as_text(value), ha="center", va="center", **style)


CLEARLY = 0.3  # accuracy that must be lost of one letter alone, for a title to say so


def vectors_finding(results):
    """The title of vectors.png: for each letter, the vector that holds most of it and of nothing
    else, in the prompt that is shown."""
    seed = shown_seed(results)
    lost, accuracies = answers_lost(results, seed), accuracies_without(results, seed)
    found = []
    for letter in COMMON_LETTERS[:2]:
        alone = lost_alone(lost, letter)
        vector = alone.index(max(alone))
        if alone[vector] < CLEARLY:
            return "What is lost when one vector of a prompt is hidden"
        before, after = accuracies[letter, NONE_HIDDEN], accuracies[letter, vector]
        found.append(
            f"without vector {vector + 1}, {letter} falls from {before:.2f} to {after:.2f}"
        )
    first, second = COMMON_LETTERS[:2]
    return (
        f"Prompts learned to say {second} for {first} and {first} for {second}: some vectors hold "
        f"one fact, others a part of all\nseed {seed}: {'; '.join(found)}"
    )


# ------------------------------------------------------------------ the command line


MEASURED = {  # the columns that `measure` fills, beside the task and those of an arm
    "seed": int,
    "step": int,
    "split": str,
    "loss": float,
    "accuracy": float,
    "sentences": int,
}


class Experiment(NamedTuple):
    """An experiment is a table, OUT/NAME.csv, and a picture of it, OUT/NAME.png."""

    columns: dict  # {name: type} of the table
    run: Callable  # (lab, plan, first_seed) -> rows of results
    draw: Callable  # rows of results -> a matplotlib Figure


EXPERIMENTS = {
    "initialization": Experiment(
        {
            "task": str,
            "start": str,
            "rate": float,
            **MEASURED,
        },
        compare_starts,
        draw_initialization,
    ),
    "length": Experiment(
        {
            "task": str,
            "method": str,
            "length": int,
            **MEASURED,
            "words": str,
        },
        compare_lengths,
        draw_length,
    ),
    "vectors": Experiment(
        {"task": str, "seed": int, "vector": int, "letter": str, "accuracy": float},
        ask_without_each_vector,
        draw_vectors,
    ),
}


def run_experiments(experiments, lab, plan, out, first_seed):
    """One experiment after another; each leaves its table and its picture in the folder `out`."""
    for name in experiments:
        require_writable(Path(out) / f"{name}.csv")
        require_writable(Path(out) / f"{name}.png")
    for name, experiment in experiments.items():
        rows = experiment.run(lab, plan, first_seed)
        write_results(Path(out) / f"{name}.csv", experiment.columns, rows)
        draw_table(name, experiment, out)


def draw_again(experiments, out):
    """The pictures of the experiments whose tables are in the folder; InputError without any."""
    found = [name for name in experiments if (Path(out) / f"{name}.csv").exists()]
    if not found:
        raise InputError(f"no results in {out}: run this without --plot first")
    for name in found:
        draw_table(name, experiments[name], out)


def draw_table(name, experiment, out):
    """Draw OUT/NAME.png from OUT/NAME.csv, and say so."""
    figure = experiment.draw(read_results(Path(out) / f"{name}.csv", experiment.columns))
    picture = Path(out) / f"{name}.png"
    write_picture(picture, figure)
    say(str(picture))


def main_job(settings):
    """One text to begin with, then all experiments."""
    started = time.time()
    lab = open_lab(settings)
    plan = QUICK if settings.quick else Plan()
    show_one_text(lab, plan, settings.seed)
    run_experiments(EXPERIMENTS, lab, plan, settings.out, settings.seed)
    say(f"Done in {clock(time.time() - started)} minutes.")


def open_lab(settings):
    """The Lab of the base and the folder that the command line names; the folder is made."""
    require_writable(Path(settings.out) / "docstrings.json")
    model, tok = load_base(settings.base, settings.device)
    Path(settings.out).mkdir(parents=True, exist_ok=True)
    return Lab(model, tok, load_data(settings.out))


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
    add("--plot", action="store_true", help="train nothing, draw again what is in the folder")
    add("--out", default="out", help="folder for tables and pictures (out)")
    add("--base", default=BASE, help="file of the base (tutorials/base.pt)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, mps or auto (auto)")
    add("--seed", type=seed_number, default=0, help="the first of the seeds (0)")
    return parser


def seed_number(text):
    """A seed as torch takes it."""
    seed = int(text)
    if not 0 <= seed < 2**62:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number from 0 to {2**62 - 1}")
    return seed


def main(arguments=None):
    parser = command_line("train.py", __doc__)
    quick = "a first look: fewer arms, in less than a minute"
    parser.add_argument("--quick", action="store_true", help=quick)
    settings = parser.parse_args(arguments)
    if settings.plot:
        draw_again(EXPERIMENTS, settings.out)
    else:
        main_job(settings)


if __name__ == "__main__":
    guard(main)
