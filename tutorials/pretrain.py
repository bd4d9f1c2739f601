"""Make a base model anew: tutorials/base.pt, the weights and the tokenizer that go with them.

    python tutorials/pretrain.py                    some 75 minutes on two cores
    python tutorials/pretrain.py --size small       or tiny: half the steps of tasks; small-lm: none

First comes the vocabulary: byte-level BPE of the docstrings. Then the model learns the language of
whole docstrings, and then the tasks, asked for in English. No sentence kept for validation or test
is seen, nor its docstring. A run that was stopped goes on when it is started again. At the end
every hard prompt is tried.

The base practises the tasks of this file that have practised hard prompts, and *library* of
train.py. The tasks in HELD_OUT are never practised. They were chosen before any training: one of
each of three operations, at three places, and none at the first word, where even a bad guess is
often right. Importing this file adds its tasks to TASKS.

Instructions are also long and far away, so that a prompt may be: of the batches, 60 % are hard
prompt and text ("near"), 20 % have up to 200 tokens of other sentences between the two ("far"), and
20 % an instruction of up to 100 tokens made of several hard prompts ("long"). In the last two the
instruction is pinned.
"""

import heapq
import math
import random
import re
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))
from model import GPT, GPTConfig, InputError, read, require_writable, write
from train import (
    PATTERN,
    TASKS,
    Task,
    Tokenizer,
    bare,
    collate,
    commonest_answer,
    find_device,
    first_letter_prompts,
    guard,
    hashed,
    progress,
    read_docstrings,
    score,
    script_parser,
    sentences_of,
    share_of,
    split_of,
)

SHAPE = {"vocab_size": 2048, "block_size": 256, "window": 64}
SIZES = {
    "base": {"n_layer": 4, "n_head": 4, "n_embd": 128, "n_kv_head": 2},
    "small": {"n_layer": 3, "n_head": 2, "n_embd": 64, "n_kv_head": 1},
    "tiny": {"n_layer": 2, "n_head": 2, "n_embd": 24, "n_kv_head": 1},
    "small-lm": {"n_layer": 3, "n_head": 2, "n_embd": 64, "n_kv_head": 1},
}
LANGUAGE_STEPS = 2500
TASK_STEPS = {"base": 24000, "small": 12000, "tiny": 12000, "small-lm": 0}
FAR = 200  # tokens between instruction and text, at most
LONG = 100  # tokens of an instruction, at most
SAVE_EVERY = 60  # seconds

# ------------------------------------------------------------------ the tasks of the base


def task_of_words(question, answer, practised, unseen, label="nothing new"):
    """A task that the main job does not train."""
    return Task(label, question, answer, unseen, practised, sweep=None, steps={})


TASKS["kind"] = task_of_words(
    "a class or a function",
    lambda sentence: sentence.kind,
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
)
TASKS["count"] = task_of_words(
    "how many words there are",
    lambda sentence: str(len(sentence.text.split())),
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
)
TASKS["before-last"] = task_of_words(
    "the word before the last",
    lambda sentence: bare(sentence.text.split()[-2]),
    [],
    [
        "Repeat the word before the last.",
        "What is the word before the last word?",
        "Copy the word before the last word.",
        "Say the last word but one again.",
    ],
    "a new rule",
)

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
        first_letter_prompts("{}"),
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

    def answer(sentence):
        return operate(bare(sentence.text.split()[PLACES[place]]))

    if f"{operation}-{place}" in HELD_OUT:
        return task_of_words(question.format(place), answer, [], hard_prompts, "a rule")
    return task_of_words(question.format(place), answer, hard_prompts, [])


for operation in OPERATIONS:
    for place in PLACES:
        TASKS.setdefault(f"{operation}-{place}", grid_task(operation, place))

# ------------------------------------------------------------------ the vocabulary


def bpe(texts, size):
    """Byte-level BPE (Sennrich et al. 2016, arXiv 1508.07909): `size` byte strings by rank.

    Merge the commonest pair of neighbours, again and again. Of equal counts, the first in order.
    """
    tokens = [bytes([b]) for b in range(256)]
    pairs = PairCounts(texts)
    while len(tokens) < size:
        best = pairs.commonest()
        if best is None:
            break
        pairs.merge(best)
        tokens.append(best[0] + best[1])
    return tokens


class PairCounts:
    """How often each pair of neighbours occurs in the words of the texts.

    A heap of the counts, and for each pair the words that it occurs in, make that seconds where
    counting everything again after each merge would take minutes.
    """

    def __init__(self, texts):
        occurs = Counter()
        for text in texts:
            occurs.update(re.findall(PATTERN, text))
        self.words = [[bytes([b]) for b in word.encode()] for word in occurs]
        self.occurs = list(occurs.values())  # how often each word does
        self.counts = Counter()
        self.words_with = defaultdict(set)
        for i in range(len(self.words)):
            self.count(i, 1)
        self.heap = [(-n, pair) for pair, n in self.counts.items()]
        heapq.heapify(self.heap)

    def count(self, i, sign):
        """Add the pairs of word i, or with sign -1 take them away; return them."""
        pairs = list(zip(self.words[i], self.words[i][1:]))
        for pair in pairs:
            self.counts[pair] += sign * self.occurs[i]
            self.words_with[pair].add(i)
        return pairs

    def commonest(self):
        """The pair that occurs most often; None where no word has two parts left."""
        while self.heap:
            n, pair = heapq.heappop(self.heap)
            if self.counts[pair] == -n:  # else its count has changed, and a newer entry is there
                return pair
        return None

    def merge(self, pair):
        """Make one part of the two wherever they stand together."""
        changed = set()
        for i in list(self.words_with[pair]):
            changed.update(self.count(i, -1))
            join(self.words[i], pair)
            changed.update(self.count(i, 1))
        del self.words_with[pair], self.counts[pair]
        for other in changed:
            if self.counts[other] > 0:
                heapq.heappush(self.heap, (-self.counts[other], other))


def join(parts, pair):
    """Join this pair of neighbours in the list `parts`, from left to right."""
    j = 0
    while j < len(parts) - 1:
        if (parts[j], parts[j + 1]) == pair:
            parts[j : j + 2] = [pair[0] + pair[1]]
        j += 1


# ------------------------------------------------------------------ what is learned


def texts_to_learn(docstrings, sentences):
    """The docstrings that hold no held-out sentence, each once, in hashed order."""
    held_out = {sentence.text for sentence in sentences["valid"] + sentences["test"]}
    texts = set()
    for _, _, text in docstrings:
        lines = [line.strip() for line in text.split("\n")]
        if split_of(lines[0]) == "train" and held_out.isdisjoint(lines):
            texts.add(text)
    return sorted(texts, key=hashed)


TIMES = {"library": 4, "count": 2}  # how often a task is drawn: the widest and the hardest; else 1


def practised_tasks():
    """Every task that has practised hard prompts, as often as it is drawn."""
    tasks = []
    for name, task in TASKS.items():
        if task.practised:
            tasks += [task] * TIMES.get(name, 1)
    return tasks


PRACTISED = practised_tasks()


class Batch(NamedTuple):
    """A step's examples."""

    idx: torch.Tensor  # (B, T)
    targets: torch.Tensor  # (B, T)
    weight: torch.Tensor  # (B, T): what each target counts in the loss
    pinned: torch.Tensor  # (B,): how many leading tokens stay visible whatever the window


def batch_of(step, stream, sentences, tok):
    """The Batch of a step, the same for the same step: whole docstrings in the first
    LANGUAGE_STEPS, then tasks asked for in English."""
    gen = random.Random(step)
    if step < LANGUAGE_STEPS:
        return batch_of_language(gen, stream)
    return batch_of_tasks(gen, sentences, tok)


def batch_of_language(gen, stream):
    """16 cuts of 128 tokens from the stream of all docstrings."""
    starts = torch.tensor([gen.randrange(len(stream) - 128) for _ in range(16)])  # (B,)
    block = stream[starts[:, None] + torch.arange(129)]  # (B, T + 1)
    weight = torch.ones(16, 128) / (16 * 128)  # (B, T)
    return Batch(block[:, :-1], block[:, 1:], weight, torch.zeros(16, dtype=torch.long))


def batch_of_tasks(gen, sentences, tok):
    """32 sentences, each with a task of its own; all near, all far or all long."""
    [kind] = gen.choices(("near", "far", "long"), (6, 2, 2))
    rows, pinned = [], []
    for sentence in gen.sample(sentences, 32):
        task = gen.choice(PRACTISED)
        instruction = tok.encode(gen.choice(task.practised))
        question, answer = tok.example(sentence.text, task.answer(sentence))
        filler = []
        if kind == "long":
            instruction = longer_instruction(gen, instruction, task, tok)
        if kind == "far":
            room = SHAPE["block_size"] - len(instruction) - len(question) - len(answer)
            filler = other_sentences(gen, sentences, min(FAR, room), tok)
        rows.append((instruction + filler + question, answer))
        pinned.append(0 if kind == "near" else len(instruction))
    idx, answers = collate(rows, "cpu")  # (B, T) each
    scored = answers >= 0  # (B, T)
    if kind == "near":
        targets, weight = question_as_well(idx, answers, scored)  # (B, T) each
    else:
        targets, weight = answers, scored / scored.sum()  # (B, T) each
    return Batch(idx, targets, weight, torch.tensor(pinned))


def longer_instruction(gen, instruction, task, tok):
    """The ids of an instruction of up to LONG tokens: more hard prompts of the task behind it."""
    length = gen.randint(1, LONG)
    while len(instruction) < length:
        instruction = instruction + tok.encode(" " + gen.choice(task.practised))
    return instruction[: max(length, 8)]


def other_sentences(gen, sentences, most, tok):
    """The ids of 0 to `most` tokens of other sentences."""
    length = gen.randint(0, most)
    ids = []
    while len(ids) < length:
        ids = ids + tok.encode("\n" + gen.choice(sentences).text)
    return ids[:length]


def question_as_well(idx, answers, scored):
    """Targets and weights (B, T) where the question counts a fifth of the answers: it is still
    worth reading."""
    following = F.pad(idx[:, 1:], (0, 1), value=-1)  # (B, T)
    question = (following >= 0) & ~scored  # (B, T)
    weight = scored / scored.sum() + 0.2 * question / question.sum()  # (B, T)
    return torch.where(scored, answers, following), weight


# ------------------------------------------------------------------ training


def learning_rate(step, steps):
    """Each of the two parts: 100 steps of warm-up, then a cosine down to a twentieth."""
    if step < LANGUAGE_STEPS:
        peak, done, total = 4e-3, step, LANGUAGE_STEPS
    else:
        peak, done, total = 2e-3, step - LANGUAGE_STEPS, steps - LANGUAGE_STEPS
    warm_up = min(1, (done + 1) / 100)
    cosine = 0.525 + 0.475 * math.cos(math.pi * done / total)
    return peak * warm_up * cosine


def make_optimizer(model):
    """AdamW, with weight decay for the matrices alone."""
    matrices = [p for p in model.parameters() if p.dim() == 2]
    scales = [p for p in model.parameters() if p.dim() == 1]
    groups = [
        {"params": matrices, "weight_decay": 0.1},
        {"params": scales, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)


def add_gradients(model, batch):
    """Add the gradients of the batch's loss: the shorter half of its rows, then the longer half,
    which saves padding."""
    lengths = (batch.idx >= 0).sum(1)  # (B,)
    for half in lengths.argsort().chunk(2):  # (B / 2,)
        T = lengths[half[-1]]
        idx = batch.idx[half, :T]  # (B / 2, T)
        targets = batch.targets[half, :T]  # (B / 2, T)
        weight = batch.weight[half, :T]  # (B / 2, T)
        before = model.empty_past(len(idx), batch.pinned[half])
        logits = model.scored(idx, targets, before)  # (n, V)
        nats = F.cross_entropy(logits, targets[targets >= 0], reduction="none")  # (n,)
        (nats * weight[targets >= 0]).sum().backward()


class Checkpoint:
    """What a stopped run goes on from: a file that also says which plan it is of."""

    def __init__(self, path, plan):
        self.path, self.plan = Path(path), plan

    def load(self):
        """What was kept, {name: value}, or {}. Raises InputError for that of another plan."""
        if not self.path.exists():
            return {}
        content = read(self.path, "what a run goes on from", ("plan", "state"))
        if content["plan"] != self.plan:
            raise InputError(
                f"{self.path} is of other data or another plan: remove it, or name another file"
            )
        return content["state"]

    def save(self, **state):
        write(self.path, {"plan": self.plan, "state": state})

    def remove(self):
        self.path.unlink(missing_ok=True)


def train_base(model, batch_at, steps, checkpoint):
    """Train the model on `batch_at(step)`, from the checkpoint on where there is one. Returns the
    seconds that it took, with those before the stop."""
    optimizer = make_optimizer(model)
    kept = checkpoint.load()
    if kept:
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
    first, seconds = kept.get("step", 0), kept.get("seconds", 0.0)
    started = saved = time.time()
    for step in progress(range(first, steps), steps - first, "pretraining"):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        batch = Batch(*[part.to(model.device) for part in batch_at(step)])
        add_gradients(model, batch)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        now = time.time()
        if now - saved > SAVE_EVERY:
            saved = now
            checkpoint.save(
                step=step + 1,
                seconds=seconds + now - started,
                model=model.state_dict(),
                optimizer=optimizer.state_dict(),
            )
    return seconds + time.time() - started


def pretrain(settings):
    """Train the base, save it, and print how it does."""
    path = Path(settings.base or default_path(settings.size))
    require_writable(path)
    device = find_device(settings.device)
    docstrings = read_docstrings(settings.out)
    sentences = sentences_of(docstrings)
    texts = texts_to_learn(docstrings, sentences)
    tokens = bpe(texts, SHAPE["vocab_size"] - 1)
    tok = Tokenizer.from_tokens(tokens)
    stream = stream_of(texts, tok)  # (N,)

    shape = {**SHAPE, **SIZES[settings.size]}
    steps = LANGUAGE_STEPS + TASK_STEPS[settings.size]
    plan = repr((shape, LANGUAGE_STEPS, steps, hashed(repr(texts)).hex()))
    checkpoint = Checkpoint(f"{path}.ckpt", plan)
    torch.manual_seed(0)
    model = GPT(GPTConfig(**shape)).to(device)

    def batch_at(step):
        return batch_of(step, stream, sentences["train"], tok)

    seconds = train_base(model, batch_at, steps, checkpoint)
    model.bfloat16()  # half the bytes; from here on these rounded weights are the base
    names = [token.decode("latin-1") for token in tokens]
    model.save(path, tokenizer=names, minutes=round(seconds / 60), size=settings.size)
    checkpoint.remove()
    report(model.float(), tok, sentences["test"])


def default_path(size):
    """tutorials/base.pt, or base-small.pt and so on."""
    name = "base.pt" if size == "base" else f"base-{size}.pt"
    return Path(__file__).with_name(name)


def stream_of(texts, tok):
    """The ids of all texts, one after another, with the end token behind each: (N,)."""
    ids = []
    for text in texts:
        ids += tok.encode(text) + [tok.end]
    return torch.tensor(ids)  # (N,)


# ------------------------------------------------------------------ how the base does


def report(model, tok, sentences):
    """Print the accuracy on these sentences of each task by its hard prompts, beside always the
    commonest answer."""
    print(f"{'task':20s}commonest   none | hard prompts, * if the base never practised the task")
    for name, task in TASKS.items():
        pairs = task.pairs(sentences)
        accuracies = [share_of(commonest_answer(pairs), pairs)]
        for hard_prompt in ["", *task.hard_prompts]:
            accuracies.append(accuracy(model, tok, pairs, hard_prompt))
        label = name if task.practised else f"{name} *"
        numbers = " ".join(f"{value:7.3f}" for value in accuracies)
        print(f"{label:20s}  {numbers}")


@torch.inference_mode()
def accuracy(model, tok, pairs, hard_prompt):
    """The share of pairs (text, answer) that greedy decoding has right behind the hard prompt."""
    rows = [tok.example(text, answer, hard_prompt) for text, answer in pairs]
    return score(model, None, rows).right.mean().item()


# ------------------------------------------------------------------ the command line


def parse(arguments=None):
    parser = script_parser("pretrain.py", __doc__)
    add = parser.add_argument
    add("--size", default="base", choices=SIZES, help="how big (base)")
    add("--base", help="file to make (tutorials/base.pt, base-small.pt, ...)")
    add("--out", default="out", help="folder that keeps the docstrings (out)")
    add("--device", default="auto", help="cpu, cuda, mps or auto (auto)")
    return parser.parse_args(arguments)


def main(arguments=None):
    pretrain(parse(arguments))


if __name__ == "__main__":
    guard(main)
