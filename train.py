"""Training, experiments and the command line of softprompt.

    python train.py                 the main job: experiments on two jobs, tables, four pictures
    python train.py tune ...        train one soft prompt and save it
    python train.py generate ...    answer a text with saved prompts, or count what they have right
    python train.py plot            draw the pictures again

An arm is one run of an experiment. Losses are in nats for each token of an answer, lengths in
virtual tokens. Letters (B, T, P, ...) as in model.py.
"""

import argparse
import csv
import io
import json
import math
import os
import random
import sys
import time
from collections import Counter, defaultdict
from copy import deepcopy
from dataclasses import dataclass, field, fields
from pathlib import Path
from statistics import mean
from typing import Callable, NamedTuple

import tiktoken
import torch
import torch.nn as nn
import torch.nn.functional as F

import softprompt
from model import GPT, hub_folder, needs
from softprompt import INITIALIZATIONS, PrefixTuning, PromptTuning, initial_embeddings, prefill
from tutorials.findings import METHODS, Results, chosen_length, draw, report
from tutorials.jobs import JOBS, hashed, load_data, split_of

# ------------------------------------------------------------------ the table of starts

class Start(NamedTuple):
    """Where a prompt starts. To add a start, add an entry to STARTS."""

    label: str
    colour: str  # of those that colour-blind readers tell apart (Okabe and Ito)
    make: Callable  # (lab, job) -> ids of a text, or the name of a method of `initial_embeddings`
    rate_of: str | None = None  # takes the learning rate of this start; None: tunes its own

def answers_of(lab, job):
    """The ids of the 16 commonest answers as one text: the class labels of Lester et al. 2021."""
    counts = Counter(answer for _, answer in JOBS[job].pairs(lab.data["train"]))
    return lab.tok.encode("".join(f" {answer}" for answer, _ in counts.most_common(16)))

def wording_of(lab, job):
    """The ids of English for the job, of a wording that the base never saw where there is one."""
    return lab.tok.encode((JOBS[job].unseen or JOBS[job].wordings)[0])

UNRELATED = "The night train to the coast was late again, and it had begun to rain."
STARTS = {
    "related": Start("related text", "#0072B2", wording_of),
    "labels": Start("the answers", "#56B4E9", answers_of),
    "other": Start("text of another job", "#009E73", lambda lab, job: wording_of(lab, "kind")),
    "unrelated": Start("unrelated text", "0.5", lambda lab, job: lab.tok.encode(UNRELATED)),
    "vocab": Start("sampled tokens", "#E69F00", lambda lab, job: "vocab"),
    "matched": Start("matched Gaussian", "#CC79A7", lambda lab, job: "matched"),
    "normal": Start("N(0, 1)", "#D55E00", lambda lab, job: "normal"),
    "normal-same-rate": Start("N(0, 1) at text's rate", "#000000", lambda lab, job: "normal",
                              "related"),
}
KINDS = {"prompt": PromptTuning, "prefix": PrefixTuning}
COLOURS = {"always": "0.45", **{name: start.colour for name, start in STARTS.items()},
           **{name: colour for name, (_, colour, _) in METHODS.items()}}  # pictures and classes

# ------------------------------------------------------------------ a file of one's own

def read_pairs(path):
    """[(text, answer)] of a .tsv, .csv or .jsonl file in UTF-8; empty lines are passed over. A
    first row that names the columns text and answer is a header; without one there are just these
    two. A .tsv has no quotes. Raises ValueError with the file and the line of what is wrong."""
    path, pairs, line, names = Path(path), [], 0, None
    tab = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if path.suffix == ".tsv" else {}
    try:
        file = io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")
        rows = file if path.suffix == ".jsonl" else csv.reader(file, strict=True, **tab)
        for line, row in enumerate(rows, 1):
            line = getattr(rows, "line_num", line)  # a row of a .csv may be several lines
            if not "".join(row).strip():
                continue
            if path.suffix == ".jsonl":
                row = {name: value for name, value in json.loads(row).items() if value is not None}
            else:
                header = [name.strip().lower() for name in row]
                if names is None and {"text", "answer"} <= set(header):
                    names = header
                    continue
                names = names or ["text", "answer"]
                if len(row) != len(names):
                    raise ValueError(f"{len(row)} fields, not {len(names)}: {', '.join(names)}")
                row = dict(zip(names, row))
            pairs.append((str(row.get("text", "")).strip(), str(row.get("answer", "")).strip()))
            if not all(pairs[-1]):
                raise ValueError("the text or the answer is empty or missing")
    except UnicodeDecodeError as problem:
        line = problem.object.count(b"\n", 0, problem.start) + 1
        raise ValueError(f"{path}:{line}: this is not UTF-8: save the file as that") from problem
    except csv.Error as problem:  # the row behind the last that was read
        raise ValueError(f"{path}:{line + 1}: {problem}") from problem
    except (ValueError, AttributeError) as problem:
        raise ValueError(f"{path}:{line}: {problem}") from problem
    if not pairs:
        raise ValueError(f"{path}: there are no rows in it")
    return pairs

def commonest_answer(pairs):
    return Counter(answer for _, answer in pairs).most_common(1)[0][0]

def share_of(answer, pairs):
    """How often always giving this answer is right."""
    return mean(given == answer for _, given in pairs)

MAX_VALID = 400  # texts: with a real model on a CPU, more would take longer than the training

def read_data(settings):
    """What `tune` learns from, and what it validates with: [(text, answer)] twice."""
    if settings.job and settings.data or settings.valid and not settings.data:
        raise ValueError("give --job NAME, or --data FILE and perhaps --valid FILE")
    if not settings.data:
        job, data = JOBS[settings.job or "library"], load_data(settings.out)
        return job.pairs(data["train"]), job.pairs(data["valid"])[:MAX_VALID]
    train = read_pairs(settings.data)
    if settings.valid:
        valid = read_pairs(settings.valid)
    else:  # by a hash of the text, so that equal texts are on one side
        valid = [pair for pair in train if split_of(pair[0]) != "train"]
        train = [pair for pair in train if split_of(pair[0]) == "train"]
    if len({answer for _, answer in train}) < 2 or not valid:
        raise ValueError(f"{settings.data}: {len(train)} rows to learn from and {len(valid)} to "
                         "validate with: both must be there, and more than one answer")
    valid.sort(key=lambda pair: hashed(repr(pair)))  # mixed, so that the first are a fair sample
    return train, valid[:MAX_VALID]

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
        encoding = tiktoken.Encoding("softprompt", pat_str=PATTERN, mergeable_ranks=ranks,
                                     special_tokens={"<|end|>": len(ranks)})
        return cls(encoding.encode_ordinary, encoding.decode, len(ranks))

    @classmethod
    def from_pretrained(cls, folder, end):
        """A tokenizer.json, read by the tokenizers library; no start token comes before a text.
        Raises ValueError where there is none, or where `end` is None, or where a text and its
        answer have other ids apart than together."""
        path = Path(folder) / "tokenizer.json"
        if not path.exists() or end is None:
            raise ValueError(f"{folder} lacks tokenizer.json, or eos_token_id in its config.json")
        library = needs("tokenizers")
        try:
            encoding = library.Tokenizer.from_file(str(path))
        except Exception as problem:  # the library has no kind of its own for a damaged file
            raise ValueError(f"{path} cannot be read: {problem}") from problem
        encoding.encode_special_tokens = True  # as text
        encoding.no_truncation()
        encoding.no_padding()
        tok = cls(lambda text: encoding.encode(text, add_special_tokens=False).ids,
                  encoding.decode, end)
        question, answer = "\nThis is a text. ->", " answer"
        if tok.encode(question) + tok.encode(answer) != tok.encode(question + answer):
            raise ValueError(f"{path}: text and answer have other ids apart than together, as in "
                             "SentencePiece: this is not supported")
        return tok

    def example(self, text, answer, wording=""):
        """The ids of wording and text, and those of the answer and the end. The wording is encoded
        alone: without it the other ids stay the same, so a soft prompt can take its place."""
        question = self.encode(wording) + self.encode(f"\n{text} ->")
        return question, self.encode(f" {answer}") + [self.end]

def collate(rows, device):
    """Rows of (question, answer) -> ids (B, T), targets (B, T); only the answers are scored."""
    T = max(len(question) + len(answer) for question, answer in rows) - 1
    idx, targets = torch.full((2, len(rows), T), -1)  # (B, T) twice
    for b, (question, answer) in enumerate(rows):
        n = len(question)
        idx[b, : n + len(answer) - 1] = torch.tensor(question + answer[:-1])
        targets[b, n - 1 : n + len(answer) - 1] = torch.tensor(answer)
    return idx.to(device), targets.to(device)

# ------------------------------------------------------------------ options, progress, the base

def option(default, text, verbs, choices=None):
    return field(default=default, metadata={"help": text, "verbs": verbs, "choices": choices})

@dataclass
class Settings:
    """Every option: its default, its help text, and the verbs that it belongs to."""

    quick: bool = option(False, "fewer arms, one seed: a first look", "main")
    out: str = option("out", "folder for results, pictures, prompts", "main plot tune")
    device: str = option("auto", "cpu, cuda, mps or auto", "main tune generate")
    base: str = option("", "file, Llama folder or hub name", "main tune generate")
    job: str = option("", "what to learn: library unless --data", "tune", list(JOBS))
    data: str = option("", "texts and answers: .tsv, .csv or .jsonl", "tune generate")
    valid: str = option("", "more of them; without, a fifth of --data", "tune")
    answers: str = option("", "allowed answers, with commas between; else all in --data", "tune")
    method: str = option("prompt", "what to train", "tune", list(KINDS))
    length: int = option(16, "number of virtual tokens", "tune")
    init: str = option("vocab", "start: text, vocab, matched, normal or a saved prompt", "tune")
    init_text: str = option("", "the text to start from, for --init text", "tune")
    steps: int = option(300, "training steps of 16 texts, at most", "tune")
    lr: float = option(0.0, "learning rate, a share of the size of what it moves; 0: usual", "tune")
    seed: int = option(0, "which random numbers and examples", "tune")
    save: str = option("", "file of the trained prompt; OUT/NAME-METHOD.pt", "tune")
    prompt: tuple = option((), "files of trained prompts", "generate")
    text: str = option("", "a sentence to answer", "generate")

def say(text, end="\n", file=None):
    """Print over what is left of a line of progress."""
    print(text.ljust(79), end=end, file=file, flush=True)

def progress(title, steps):
    """Yield the steps; say on stderr what is going on, the share done and the time left. That is
    one line of a terminal, or in a file a line every ten seconds."""
    total, start_time = len(steps), time.time()
    said_time, (pause, end) = start_time, (0.2, "\r") if sys.stderr.isatty() else (10, "\n")
    try:
        for done, step in enumerate(steps):
            now = time.time()
            if done and now - said_time > pause:
                left, said_time = clock((now - start_time) / done * (total - done)), now
                say(f"{title}: {100 * done // total:3d} %, {left} left", end, sys.stderr)
            yield step
    finally:
        say(f"{title}: {clock(time.time() - start_time)} minutes", file=sys.stderr)

def clock(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"

def find_device(name):
    """The type of a device, or of the best with "auto"; ValueError if this machine has none."""
    best = "mps" if torch.backends.mps.is_available() else "cpu"
    best = "cuda" if torch.cuda.is_available() else best
    try:
        return torch.empty(0, device=best if name == "auto" else name).device.type
    except (RuntimeError, AssertionError) as problem:
        raise ValueError(f"--device {name} is not on this machine, {best} is") from problem

def load_base(settings):
    """The frozen base and its tokenizer: a file of ours, or a Llama in Hugging Face's format.
    Raises ValueError for a file without a tokenizer, and for what could not be computed exactly."""
    path = settings.base or Path(__file__).with_name("tutorials") / "base.pt"
    device = find_device(settings.device)
    if str(path).endswith(".pt"):
        model = GPT.load(path)
        if "tokenizer" not in model.facts:
            raise ValueError(f"{path} has no tokenizer: give it to model.save(tokenizer=...)")
        tok = Tokenizer.from_tokens([t.encode("latin-1") for t in model.facts["tokenizer"]])
    else:
        # Half precision pays on a GPU; CPUs compute slowly in it.
        model = GPT.from_pretrained(path, None if device == "cuda" else torch.float32)
        tok = Tokenizer.from_pretrained(hub_folder(path), model.facts["end"])
    return model.to(device).requires_grad_(False), tok

# ------------------------------------------------------------------ scoring and training

def learning_rate(method, share=0.1):
    """The rate that AdamW has for each method, unless told otherwise.

    AdamW moves each number by about the rate in every step, however small the gradient is. So the
    rate of a prompt or a prefix is a share of the size of what it moves, which `sizes` measures: a
    prompt gets `share`, a prefix, which acts in every layer at once, a tenth of it. LoRA and the
    weights get what is usual. The main job tries several shares, and takes the best by validation.
    """
    return {"prompt": share, "prefix": share / 10, "lora": 3e-3, "full": 3e-4}[method]

def sizes(soft, model):
    """How big the numbers around each parameter are: the standard deviation of the embeddings for
    a prompt, the root mean square of each layer's keys and values for a prefix (values differ by a
    factor of fifty between the layers of a real model: no absolute rate fits all); else 1."""
    if isinstance(soft, PromptTuning):
        return [model.model.embed_tokens.weight.detach().float().std()]
    if isinstance(soft, PrefixTuning):  # (L, 1, 1, 1) each
        return [p.detach().square().mean((1, 2, 3), True).sqrt() for p in (soft.keys, soft.values)]
    return [1.0 for _ in soft.parameters()]

def rivals(answer, choices):
    """What each token of an answer competes with where only `choices` may be answered: a list of
    ids for each, the token itself first, then what stands there in the choices that begin alike."""
    return [[token, *{choice[i] for choice in choices if choice[:i] == answer[:i]} - {token}]
            for i, token in enumerate(answer)]

def score(model, past, rows, arms=1, choices=()):
    """How well each arm answers: (5, A) sums over its rows. Nats of the answers; their tokens; how
    many answers are exactly right, and how many are where only `choices` (ids) may be answered,
    both by greedy decoding; nats of that choice. Without choices these two are all and 0.

    `rows` are (question, answer), as many for each arm, arm after arm; row a of `past` (None: no
    prompt) goes before those of arm a. Rows of like length go through the model together, so that
    little is spent on padding; on a CPU few at a time, which its cache can hold."""
    each, device = len(rows) // arms, model.device
    past = (past or model.empty_past()).expand(arms)
    lengths, sums = (past.length // 32).tolist(), torch.zeros(5, arms, device=device)
    order = sorted(range(len(rows)), key=lambda i: (lengths[i // each], sum(map(len, rows[i]))))
    size = 64 if device.type == "cpu" else 8192
    for i in range(0, len(order), size):
        part = order[i : i + size]
        idx, targets = collate([rows[j] for j in part], device)  # (B, T) each
        arm = torch.tensor(part, device=device) // each  # (B,)
        logits = model.scored(idx, targets, past.rows(arm)).float()  # (n, V)
        want, row = targets[targets >= 0], (targets >= 0).nonzero()[:, 0]  # (n,) twice
        ways = [ids for j in part for ids in rivals(rows[j][1], choices)]  # the wanted id first
        K = max(map(len, ways))
        ways = torch.tensor([ids + [-1] * (K - len(ids)) for ids in ways], device=device)  # (n, K)
        few = logits.gather(1, ways.clamp(min=0)).masked_fill(ways < 0, -torch.inf)  # (n, K)
        of_tokens = torch.stack((
            F.cross_entropy(logits, want, reduction="none"), torch.ones_like(logits[:, 0]),
            (logits.argmax(1) != want).float(), (few.argmax(1) != 0).float(),
            -few.log_softmax(1)[:, 0]))  # (5, n)
        of_rows = torch.zeros(5, len(part), device=device).index_add(1, row, of_tokens)  # (5, B)
        right = of_rows[2:4] == 0  # (2, B)
        if choices:  # an answer that is none of them cannot be chosen
            right[1] &= torch.tensor([rows[j][1] in choices for j in part], device=device)
        of_rows = torch.cat((of_rows[:2], right.float(), of_rows[4:]))  # (5, B)
        sums = sums.index_add(1, arm, of_rows)  # (5, A)
    return sums

GREEDY = 0.1  # how much of the vocabulary's loss stays beside the choice's, for greedy decoding

def objective(sums, each, choices=()):
    """What training makes smaller, (A,), from the sums of `score` over `each` rows an arm: nats a
    token. Where there are choices, nats of the choice between them: most of the vocabulary's loss
    only says which words are answers at all, and drowns what tells one answer from another.
    GREEDY of it stays, so that greedy decoding gives the answer as well."""
    nats, tokens, _, _, choice = sums
    return choice / each + (GREEDY if choices else 1) * nats / tokens

@dataclass
class Arm:
    """One run of an experiment: its soft prompt, what it trains on, and how."""

    soft: nn.Module | None  # what is trained: a soft prompt, the matrices of LoRA, or a model
    job: str
    lr: float = 0.0
    seed: int = 0
    pinned: int | None = None
    facts: dict = field(default_factory=dict)  # what else the results say of it

def draw_rows(rows, seed, step, size):
    """The rows of a step, at random; the same for the same seed and step."""
    return random.Random(f"{seed} {step}").sample(rows, size)

def draw_similar_rows(rows, seed, step, size):
    """As `draw_rows`, but of similar length, so that little is spent on padding: the rows of eight
    steps are drawn together, sorted, and cut into eight."""
    gen = random.Random(f"{seed} {step // 8}")
    drawn = gen.choices(rows, k=8 * size) if len(rows) < 8 * size else gen.sample(rows, 8 * size)
    drawn.sort(key=lambda row: len(row[0]) + len(row[1]))
    part = gen.sample(range(8), 8)[step % 8]
    return drawn[part * size : (part + 1) * size]

def fit(model, arms, train, steps, size, watch, past=None, draw=draw_rows, title=None,
        choices=()):
    """Train all arms as one mixed batch over one frozen base.

    Each arm has its own examples (`size` a step of train[job], drawn by its seed), mean loss,
    gradient clipping and learning rate, so it learns exactly what it would learn alone.
    watch(step, past) is called before each step and after the last, and ends the training where
    it returns True; past() is one row an arm. `title` names it on a line of progress; `choices`
    as in `score`."""
    def prefill_all():
        return prefill([arm.soft for arm in arms], model, [arm.pinned for arm in arms])

    past = past or prefill_all
    groups = [{"params": list(arm.soft.parameters()), "lr": arm.lr} for arm in arms]
    # Short memories (usual are 0.9 and 0.999): the first gradients are the biggest by far, and as
    # long as AdamW remembers them, all later steps are too small.
    optimizer = torch.optim.AdamW(groups, betas=(0.6, 0.9), weight_decay=0.0)
    learned = [p for group in groups for p in group["params"]]
    units = [unit for arm in arms for unit in sizes(arm.soft, model)]
    for step in progress(title, range(steps + 1)) if title else range(steps + 1):
        if watch(step, past) or step == steps:
            return
        rows = [row for arm in arms for row in draw(train[arm.job], arm.seed, step, size)]
        sums = score(model, past(), rows, len(arms), choices)  # (5, A)
        objective(sums, size, choices).sum().backward()
        for arm, group in zip(arms, optimizer.param_groups):
            nn.utils.clip_grad_norm_(group["params"], 1.0)
            # Five steps of warm-up, then down to a tenth: no arm is judged while it jumps about.
            group["lr"] = arm.lr * min((step + 1) / 5, 1, 1.1 - step / steps)
        before = [p.detach().clone() for p in learned]
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():  # AdamW's step is in units; see `sizes`
            for p, old, unit in zip(learned, before, units):
                p.copy_(old + unit * (p - old))

# ------------------------------------------------------------------ the main job: experiments

class Plan(NamedTuple):
    """How much the main job does. The first job is one that the base practised, the second is new
    to it, and the last one, which only the methods try, lies outside of all that it practised."""

    name: str = "full"
    jobs: tuple = ("library", "first-letter-last")
    outside: tuple = ("before-last",)
    starts: tuple = tuple(STARTS)
    shares: tuple = (0.5, 1.5, 4.5)  # the rates that each start tries, see learning_rate
    share: float = 0.3  # the rate of what tries none
    start_seeds: int = 5  # of the initialization experiment
    start_length: int = 16
    lengths: tuple = (1, 2, 4, 8, 16, 32, 64, 100)
    rated: tuple = (1, 16, 100)  # lengths that try the rates; others take that of the nearest
    outside_lengths: tuple = (100,)
    seeds: int = 2  # of methods, lengths and distances
    fillers: tuple = (0, 32, 48, 64, 128, 192)  # tokens between prompt and text
    steps: int = 15
    new_steps: int = 64  # for a job that the base never practised
    size: int = 16  # sentences a step
    valid: int = 32  # sentences of the validation curves
    test: int = 240  # sentences of the final numbers; half as many to choose a length by

QUICK = Plan("quick", outside=(), starts=("related", "vocab", "normal"), shares=(1.0,),
             start_seeds=1, lengths=(1, 8, 64), rated=(), seeds=1, fillers=(0, 64, 128), steps=15,
             new_steps=40, size=8, test=120)
WATCH = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50)  # validated steps

class Lab:
    """The base and the data, and how every experiment trains and measures with them."""

    def __init__(self, model, tok, data, plan=Plan()):
        self.model, self.tok, self.data, self.plan, self.cache = model, tok, data, plan, {}

    def steps(self, job):
        """How long a job is trained: a new one needs more."""
        return self.plan.steps if JOBS[job].wordings else self.plan.new_steps

    def rows(self, job, split, n=None, wording=""):
        """The first n sentences of a split as rows of ids, behind a wording."""
        key = job, split, wording
        if key not in self.cache:
            pairs = JOBS[job].pairs(self.data[split])
            self.cache[key] = [self.tok.example(*pair, wording) for pair in pairs]
        return self.cache[key][:n]

    def start(self, job, name, length, seed):
        """The embeddings of a start in STARTS, (P, C)."""
        made = STARTS[name].make(self, job)
        method, ids = (made, None) if isinstance(made, str) else ("text", made)
        generator = torch.Generator().manual_seed(seed)
        return initial_embeddings(self.model, length, method, ids, generator)

    def arm(self, experiment, job, method, init, length, seed, lr=None, pinned=None):
        """A prompt or a prefix at its start."""
        soft = KINDS[method].start(self.model, self.start(job, init, length, seed), pinned)
        facts = dict(experiment=experiment, method=method, init=init, length=length,
                     pinned="no" if pinned == 0 else "yes")
        return Arm(soft, job, lr or learning_rate(method, self.plan.share), seed, pinned, facts)

    def measure(self, arms, past, step, split, n, wording="", model=None, filler=0):
        """Rows of results: how each arm does on the first n sentences of a split, with so many
        tokens of other sentences before each."""
        rows = [row for arm in arms for row in self.rows(arm.job, split, n, wording)]
        if filler:
            other = "\n" + "\n".join(sentence.text for sentence in self.data["valid"][-40:])
            other = self.tok.encode(other)[:filler]
            rows = [(other + question, answer) for question, answer in rows]
        with torch.inference_mode():
            sums = score(model or self.model, past, rows, len(arms)).T.tolist()
        measured = []
        for arm, (nats, tokens, right, *_) in zip(arms, sums):
            numbers = sum(p.numel() for p in arm.soft.parameters()) if arm.lr else 0
            measured.append({"init": "", "length": 0, "pinned": "", **arm.facts, "job": arm.job,
                             "lr": arm.lr, "seed": arm.seed, "step": step, "split": split,
                             "loss": round(nats / tokens, 4), "parameters": numbers,
                             "accuracy": round(right * len(arms) / len(rows), 4),
                             "sentences": n, "filler": filler,
                             "window": self.model.config.window or 0})
        return measured

    def run(self, title, arms, watch=(), model=None, past=None, tuning=False):
        """Train the arms, all of one job, as one batch; return the rows of results. With `tuning`,
        train half as long and measure nothing on the test sentences."""
        plan, model, measured, job = self.plan, model or self.model, [], arms[0].job
        steps, n = self.steps(job) // (2 if tuning else 1), plan.valid if watch else plan.test // 2

        def each_step(step, past):
            if step in watch or step == steps:
                measured.extend(self.measure(arms, past(), step, "valid", n, model=model))
            if step == steps and not tuning:
                measured.extend(self.measure(arms, past(), step, "test", plan.test, model=model))

        train = {job: self.rows(job, "train")}
        fit(model, arms, train, steps, plan.size, each_step, past, title=f"{job}, {title}")
        return measured

    def best_rates(self, job, method, starts, watch=()):
        """{(start, length) in `starts`: the rate with the lowest validation loss}, on two seeds of
        their own: at the end of half a training, or averaged over the steps in `watch` and it."""
        rates = [learning_rate(method, share) for share in self.plan.shares]
        if len(rates) == 1:
            return dict.fromkeys(starts, rates[0])
        arms = [self.arm("tuning", job, method, start, P, seed, lr)
                for start, P in starts for lr in rates for seed in (1000, 1001)]
        losses = defaultdict(list)
        for row in self.run(f"{method}: rates", arms, watch, tuning=True):
            losses[row["init"], row["length"], row["lr"]].append(row["loss"])
        return {(start, P): min(rates, key=lambda lr: mean(losses[start, P, lr]))
                for start, P in starts}

def add_lora(model, rank=4):
    """LoRA (Hu et al. 2021, arXiv 2106.09685): every attention projection W of the model becomes
    W + 2 B A, with A (rank, in) and B (out, rank). Returns these, to be trained."""
    learned = nn.ParameterList()
    for linear in [x for block in model.model.layers for x in block.self_attn.children()]:
        A = nn.Parameter(torch.randn(rank, linear.in_features) / linear.in_features**0.5)
        B = nn.Parameter(torch.zeros(linear.out_features, rank))
        linear.register_forward_hook(lambda _, x, y, A=A, B=B: y + 2 * x[0] @ A.T @ B.T)
        learned.extend((A, B))
    return learned.to(model.device)

def compare_methods(lab, job):
    """Without training: always the commonest answer, no prompt, every wording. Trained: LoRA and
    all weights, and on a job outside of the others prompt and prefix as well."""
    plan, rows, texts = lab.plan, [], [("none", "")]
    texts += [("wording", text) for text in JOBS[job].wordings + JOBS[job].unseen]
    for method, text in texts:
        arm = Arm(None, job, facts=dict(experiment="methods", method=method, init=text))
        rows += lab.measure([arm], None, 0, "valid", plan.test // 2, text)
        rows += lab.measure([arm], None, 0, "test", plan.test, text)
    common = commonest_answer(JOBS[job].pairs(lab.data["train"]))
    right = share_of(common, JOBS[job].pairs(lab.data["test"][: plan.test]))
    rows.append({**rows[1], "method": "always", "init": common, "loss": math.nan,
                 "accuracy": round(right, 4)})
    for method in ("lora", "full"):
        for seed in range(plan.seeds):
            torch.manual_seed(seed)
            model, facts = deepcopy(lab.model), dict(experiment="methods", method=method)
            weights = add_lora(model) if method == "lora" else model.requires_grad_(True)
            arm = Arm(weights, job, learning_rate(method), seed, facts=facts)
            rows += lab.run(f"{method} {seed + 1}", [arm], model=model, past=lambda: None)
    if job in plan.outside:
        for method in KINDS:
            arms = [lab.arm("methods", job, method, "vocab", P, seed)
                    for P in plan.outside_lengths for seed in range(plan.seeds)]
            rows += lab.run(method, arms)
    return rows

def compare_starts(lab, job):
    """Every start with its own learning rate; see `best_rates`."""
    plan, P = lab.plan, lab.plan.start_length
    own = [(start, P) for start in plan.starts if not STARTS[start].rate_of]
    rates = lab.best_rates(job, "prompt", own, WATCH[2::3])
    arms = [lab.arm("initialization", job, "prompt", start, P, seed,
                    rates[STARTS[start].rate_of or start, P])
            for start in plan.starts for seed in range(plan.start_seeds)]
    return lab.run("initialization", arms, WATCH)

def compare_lengths(lab, job):
    """Prompt and prefix of 1 to 100 vectors, pinned; where the window cuts, sliding as well. The
    rate is tuned at three lengths, and the others take that of the nearest."""
    plan, rows, window = lab.plan, [], lab.model.config.window or math.inf
    for method in KINDS:
        rated = plan.rated or plan.lengths[:1]
        rates, arms = lab.best_rates(job, method, [("vocab", P) for P in rated]), []
        for P in plan.lengths:
            nearest = min(rated, key=lambda other: abs(math.log(other / P)))
            for pinned in (None, 0) if P >= window else (None,):
                arms += [lab.arm("length", job, method, "vocab", P, seed,
                                 rates["vocab", nearest], pinned)
                         for seed in range(plan.seeds)]
        rows += lab.run(f"{method}: length", arms)
    return rows

def compare_distances(lab, job):
    """A prompt trained right before the text, and English, with other text between: pinned, and
    sliding out of the window."""
    plan, rows = lab.plan, []
    arms = [lab.arm("distance", job, "prompt", "related", plan.start_length, seed)
            for seed in range(plan.seeds)]
    lab.run("distance", arms)

    def right(text):
        return lab.measure([Arm(None, job)], None, 0, "valid", plan.test // 2, text)[0]["accuracy"]

    ids = lab.tok.encode(max(JOBS[job].wordings + JOBS[job].unseen, key=right))
    english = PromptTuning(initial_embeddings(lab.model, len(ids), "text", ids))
    arms.append(Arm(english, job, facts=dict(experiment="distance", method="wording",
                                             init="text", length=len(ids))))
    for pinned, shown in ((None, "yes"), (0, "no")):
        with torch.inference_mode():
            past = prefill([arm.soft for arm in arms], lab.model, pinned)
        for filler in plan.fillers:
            measured = lab.measure(arms, past, 0, "test", plan.test // 2, filler=filler)
            rows += [{**row, "pinned": shown} for row in measured]
    return rows

def keep_prompts(lab, job, results, out):
    """Save a prompt of the length chosen as out/JOB.pt: the best of three seeds by validation. Say
    what stands nearest to the vectors of all three, and to random ones."""
    P = chosen_length(results, job, "prompt")
    arms = [lab.arm("prompts", job, "prompt", "related", P, seed) for seed in range(3)]
    rows = lab.run("a prompt to keep", arms)
    losses = [row["loss"] for row in rows if row["split"] == "valid"]
    best = arms[losses.index(min(losses))]
    softprompt.save(best.soft, out / f"{job}.pt", lab.model, job=job, init="related",
                    steps=lab.steps(job))
    every = PromptTuning(torch.cat([arm.soft.embeddings for arm in arms]))  # (3 P, C)
    near = softprompt.nearest_tokens(every, lab.model, 1, torch.Generator().manual_seed(0))
    both = (f"{x.mean():.2f} ± {x.std() / len(x) ** 0.5:.2f}" for x in (near.cosines, near.control))
    print(f"{job}: cosine to the nearest token", *both, "(learned, random), tokens",
          [lab.tok.decode([i]) for i in near.ids[:, 0].tolist()])
    return rows

PICTURES = "initialization.png, length.png, methods.png and window.png"
EXPERIMENTS = {"methods": compare_methods, "initialization": compare_starts,
               "length": compare_lengths, "distance": compare_distances}

def main_job(settings):
    """All experiments on all jobs of the plan, and prompts to keep; then tables and pictures."""
    start_time, (model, tok), out = time.time(), load_base(settings), Path(settings.out)
    plan = QUICK if settings.quick else Plan()
    out.mkdir(parents=True, exist_ok=True)
    results = Results(out / "results.csv", plan.name, model.fingerprint()[:8])
    results.add([])  # fails now, and not after the work, where nothing can be written
    lab = Lab(model, tok, load_data(out), plan)
    for job in plan.jobs:
        for name, experiment in EXPERIMENTS.items():
            if not results.find(experiment=name, job=job):
                results.add(experiment(lab, job))
    for job in plan.outside:
        if not results.find(experiment="methods", job=job):
            results.add(compare_methods(lab, job))
    for job in plan.jobs:
        if not results.find(experiment="prompts", job=job):
            results.add(keep_prompts(lab, job, results, out))
    report(results, STARTS, sum(p.numel() for p in model.parameters()))
    draw(results, out, STARTS)
    print(f"\nDone in {clock(time.time() - start_time)} minutes. Look at {PICTURES} in {out}/")

def plot(settings):
    """Draw the pictures of the last main job again."""
    path = Path(settings.out) / "results.csv"
    finished = [row for row in Results(path, "", "").rows if row["experiment"] == "prompts"]
    if not finished:
        raise ValueError(f"no finished main job in {path}: run `python train.py` first")
    draw(Results(path, finished[-1]["plan"], finished[-1]["base"]), path.parent, STARTS)
    print(f"drew {PICTURES} in {settings.out}/")

# ------------------------------------------------------------------ one prompt: tune and generate

def rows_behind(model, tok, pairs, length=0, wording="", answers=()):
    """Pairs as rows of ids that fit behind `length` virtual tokens and a wording, whichever of
    `answers` follows: a text that is too long loses its beginning. Raises ValueError where no room
    is left for a text."""
    first, limit = len(tok.encode(wording)), model.config.block_size
    longest = max(len(tok.encode(f" {a}")) for a in {*answers, *(a for _, a in pairs)})
    room = limit - length - longest  # for wording and text
    if room <= first:
        raise ValueError(f"soft prompt and answer of {length + longest} tokens and {first} of "
                         f"wording leave no room for a text in block_size={limit}")
    rows = [tok.example(text, answer, wording) for text, answer in pairs]
    if cut := sum(len(question) > room for question, _ in rows):
        print(f"{cut} of {len(rows)} texts are longer than the {room - first} tokens that are left "
              "for them: their beginnings are cut off", file=sys.stderr)
    return [(question[:first] + question[first:][first - room :], ids) for question, ids in rows]

def few_answers(pairs, given=""):
    """The different answers, sorted, where they are at most 20, else none; or those that are
    `given`, with commas between. Raises ValueError where these lack one that occurs."""
    occur = {answer for _, answer in pairs}
    answers = {answer.strip() for answer in given.split(",")} - {""} or occur
    if missing := sorted(occur - answers):
        raise ValueError(f"--answers {given} lacks {missing[0]!r}, an answer in the data")
    return sorted(answers) if given or len(answers) <= 20 else []

def ids_of(tok, answers):
    """The answers as the ids that `Tokenizer.example` gives them."""
    return [tok.example("", answer)[1] for answer in answers]

@torch.inference_mode()
def judge(model, tok, past, rows, answers=()):
    """(loss in nats a token, share answered exactly, share right when choosing among `answers`),
    by greedy decoding; to choose, the next token is taken from those that lead to an answer.
    Without `answers` the third is 1."""
    sums = score(model, past, rows, 1, ids_of(tok, answers))[:, 0].tolist()
    nats, tokens, right, chosen, _ = sums
    return nats / tokens, right / len(rows), chosen / len(rows)

@torch.inference_mode()
def choose(model, tok, past, question, answers):
    """The one of `answers` that `judge` takes as chosen, behind a past of one row."""
    choices = ids_of(tok, answers)
    sums = score(model, past, [(question, ids) for ids in choices], len(choices), choices)  # (5, A)
    return answers[int(sums[3].argmax())]

def compare(model, tok, pairs, commonest, answers, candidates):
    """Print how each candidate (name, past or None, wording) does on these pairs, below always
    giving the `commonest` answer; return the share that the last has right."""
    share = f"{share_of(commonest, pairs):.3f}"
    table = [(f"{len(pairs)} texts", "nats a token", "exact", f"among {len(answers)}"),
             (f"always {commonest!r}", "-", share, share)]
    for name, past, wording in progress("testing", candidates):
        length = 0 if past is None else int(past.length.max())
        rows = rows_behind(model, tok, pairs, length, wording, answers)
        loss, exact, among = judge(model, tok, past, rows, answers)
        table.append((name, f"{loss:.3f}", f"{exact:.3f}", f"{among:.3f}"))
        right = among if answers else exact
    width = max(len(line[0]) for line in table)
    for name, loss, exact, among in table:
        print(f"{name:{width}s}{loss:>14s}{exact:>8s}" + f"{among:>11s}" * bool(answers))
    return right

def starting_prompt(model, tok, settings):
    """The soft prompt that `tune` begins with: at one of the INITIALIZATIONS, or a saved one."""
    if settings.init not in INITIALIZATIONS:
        if not Path(settings.init).is_file():
            raise ValueError(f"--init {settings.init}: no such file, and none of {INITIALIZATIONS}")
        soft = softprompt.load(settings.init, model)
        if soft.kind != settings.method:
            raise ValueError(f"{settings.init} is a {soft.kind}: give --method {soft.kind}")
        return soft
    if settings.init == "text" and not settings.init_text.strip():
        raise ValueError('--init text starts from a text: give it with --init-text "..."')
    ids, generator = tok.encode(settings.init_text), torch.Generator().manual_seed(settings.seed)
    embeddings = initial_embeddings(model, settings.length, settings.init, ids, generator)
    return KINDS[settings.method].start(model, embeddings)

EVERY, PATIENCE = 20, 2  # steps between validations; after so many without gain the rate falls

def tune(settings):
    """Train one soft prompt on a job or on own data; what needs no training stands beside it.

    The best vectors so far are saved each time the validation loss gets better: stopped at any
    moment, it leaves a valid prompt, and `--init FILE` goes on from there. Where nothing gets
    better any more, the learning rate falls to a third, and at the second time training ends."""
    steps = settings.steps
    if steps < 1 or settings.length < 1 or not 0 <= settings.lr < math.inf:
        raise ValueError(f"--steps {steps} --length {settings.length} --lr {settings.lr}: give at "
                         "least 1 step and 1 virtual token, and a rate")
    model, tok = load_base(settings)
    soft = starting_prompt(model, tok, settings)
    name = Path(settings.data).stem if settings.data else settings.job or "library"
    path = Path(settings.save or Path(settings.out) / f"{name}-{settings.method}.pt")
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file")
    train, valid = read_data(settings)
    print(f"{name}: {len(train)} texts to learn from, {len(valid)} to validate; the first: "
          f"{train[0][0]!r} -> {train[0][1]!r}")
    answers, commonest = few_answers(train, settings.answers), commonest_answer(train)
    rows = rows_behind(model, tok, train + valid, soft.length, "", answers)
    few_valid, choices = rows[len(train) :][:128], ids_of(tok, answers)
    arm = Arm(soft, "", settings.lr or learning_rate(soft.kind), settings.seed)
    facts = dict(job=name, init=settings.init, init_text=settings.init_text, answers=answers,
                 commonest=commonest, lr=arm.lr, fingerprint=model.fingerprint())
    always = share_of(commonest, valid[:128])
    best, since_best, falls = math.inf, 0, 0

    def watch(step, past):
        """Save what is better; after too much that is not, a smaller rate, and then the end."""
        nonlocal best, since_best, falls
        if step % EVERY and step < steps:
            return False
        with torch.inference_mode():
            sums = score(model, past(), few_valid, 1, choices)  # (5, 1)
        loss = float(objective(sums, len(few_valid), choices))
        accuracy = float(sums[3 if choices else 2]) / len(few_valid)
        say(f"step {step:4d}   validation: loss {loss:.3f}, {accuracy:.3f} right "
            f"(always {commonest!r}: {always:.3f})")
        since_best += 1
        if loss < best:
            best, since_best = loss, 0
            softprompt.save(soft, path, model, **facts, step=step, loss=loss, accuracy=accuracy)
        if since_best == PATIENCE:
            arm.lr, since_best, falls = arm.lr / 3, 0, falls + 1
        return falls == 2

    path.parent.mkdir(parents=True, exist_ok=True)
    fit(model, [arm], {"": rows[: len(train)]}, steps, 16, watch, draw=draw_similar_rows,
        title="training", choices=choices)
    soft = softprompt.load(path, model, facts["fingerprint"])
    with torch.no_grad():
        candidates = [("no prompt", None, ""),
                      (f"{soft.kind} of {soft.length}", soft.past(model), "")]
    if settings.init_text.strip():
        candidates.insert(1, (repr(settings.init_text), None, settings.init_text))
    right = compare(model, tok, valid, commonest, answers, candidates)
    print(f"{path}: {soft.length} virtual tokens, {os.path.getsize(path) / 1000:.1f} kB, "
          f"{100 * softprompt.trainable_fraction(soft, model):.3f} % of the base's numbers")
    if right <= share_of(commonest, valid):
        print(f"It is no better than always {commonest!r}: nothing was learned")

def generate(settings):
    """Answer a text without and with each soft prompt (one that knows its answers chooses), or say
    how well each does on a file of texts and answers."""
    if not settings.prompt or bool(settings.text.strip()) == bool(settings.data):
        raise ValueError('generate needs --prompt FILE..., and --text "..." or --data FILE')
    pairs = read_pairs(settings.data) if settings.data else [(settings.text.strip(), "")]
    model, tok = load_base(settings)
    fingerprint = model.fingerprint()
    softs = [PromptTuning(torch.empty(0, model.config.n_embd, device=model.device))]
    softs += [softprompt.load(path, model, fingerprint) for path in settings.prompt]
    names = ["without a prompt", *settings.prompt]
    # The answers that the prompts were trained on, where they know; none where these were many.
    known = [soft.facts["answers"] for soft in softs if "answers" in soft.facts]
    answers = sorted({answer for each in known for answer in each})
    if settings.data:
        answers = answers if known else few_answers(pairs)
        commonest = [soft.facts["commonest"] for soft in softs if "commonest" in soft.facts]
        commonest += [commonest_answer(pairs)]
        with torch.inference_mode():
            candidates = [(name, soft.past(model), "") for name, soft in zip(names, softs)]
        compare(model, tok, pairs, commonest[0], answers, candidates)
        return
    longest, width = max(soft.length for soft in softs), max(map(len, names))
    [(row, _)] = rows_behind(model, tok, pairs, longest + 16, "", answers)
    with torch.inference_mode():
        past = prefill(softs, model)  # a row for each prompt
        generated = model.generate([row] * len(softs), 16, past, stop=tok.end)
        for i, (name, soft) in enumerate(zip(names, softs)):
            text = " ".join(tok.decode(generated[i]).split())
            if few := soft.facts.get("answers"):
                text = choose(model, tok, past.rows(torch.tensor([i])), row, few)
            print(f"{name:{width}s}  {soft.kind} of {soft.length:3d}  {text}")

# ------------------------------------------------------------------ the command line

VERBS = {"main": main_job, "tune": tune, "generate": generate, "plot": plot}

def parse(arguments):
    """The verb and its settings; the options are the fields of Settings."""
    parser = argparse.ArgumentParser("train.py", description=__doc__, allow_abbrev=False,
                                     argument_default=argparse.SUPPRESS,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = fail
    parser.add_argument("verb", nargs="?", choices=VERBS, default="main", help="what to do (main)")
    for f in fields(Settings):
        kind = {"type": f.type, "choices": f.metadata["choices"]}
        kind = {bool: {"action": "store_true"}, tuple: {"nargs": "+"}}.get(f.type, kind)
        text = f"{f.metadata['help']} ({f.metadata['verbs']}; {f.default})"
        parser.add_argument("--" + f.name.replace("_", "-"), help=text, **kind)
    given = vars(parser.parse_args(arguments))
    verb = given.pop("verb")
    for f in fields(Settings):
        if f.name in given and verb not in f.metadata["verbs"].split():
            fail(f"--{f.name.replace('_', '-')} belongs to {f.metadata['verbs']}, not to {verb}")
    return verb, Settings(**given)

def fail(message):
    print("error:", *str(message).split(), file=sys.stderr)  # one line, whatever a library says
    sys.exit(2)

def guard(work, settings):
    """Do the work; what a user can mend is one line on stderr, and exit code 2."""
    try:
        work(settings)
    except (ValueError, OSError) as problem:
        fail(problem)
    except KeyboardInterrupt:
        print("\ninterrupted. The main job and pretrain.py go on when you start them again; tune "
              "has saved its best prompt: go on with --init FILE", file=sys.stderr)
        sys.exit(130)

def main(arguments=None):
    verb, settings = parse(arguments)
    guard(VERBS[verb], settings)

if __name__ == "__main__":
    main()
