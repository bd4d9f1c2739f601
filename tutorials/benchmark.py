"""How fast is it? Ratios against PEFT, against the bare base, and of one batch against many.

    python tutorials/benchmark.py [--device cpu] [--out out] [--only PART...]

Every ratio is one of medians, taken in turns in one process, so that a machine that slows down
slows down both sides. Peaks of memory are those of a process of their own. Weights are random.
Writes benchmark.csv and benchmark.png into --out. Needs transformers and peft. Letters (B, T, P,
...) as at the top of model.py.
"""

import argparse
import csv
import io
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))
from pretrain import SHAPE, SIZES

from model import GPT, GPTConfig, InputError, require_writable
from softprompt import initial_embeddings, prefill
from train import (
    METHODS,
    Arm,
    find_device,
    fit,
    guard,
    panels,
    say,
    score,
    script_parser,
    write_picture,
    write_text,
)

# ------------------------------------------------------------------ what is compared

SMOL = {  # the shapes of SmolLM2-135M
    "vocab_size": 49152,
    "block_size": 8192,
    "n_layer": 30,
    "n_head": 9,
    "n_embd": 576,
    "n_kv_head": 3,
    "n_hidden": 1536,
    "rope_base": 100000.0,
}
BASE = {**SHAPE, **SIZES["base"], "n_hidden": GPTConfig(**SHAPE, **SIZES["base"]).n_hidden}
B, T, SCORED = 8, 32, 3  # of a training step: rows, tokens, scored tokens

AT_LEAST = {
    "smol prompt 20": 1.9,
    "smol prompt 100": 3.5,
    "smol prefix 20": 1.2,
    "smol prefix 100": 1.2,
    "smol generate 1": 1.5,
    "smol generate 16": 1.3,
    "base mixed 512": 0.9,
    "window against full": 10,
}
AT_MOST = {
    "smol floor 20": 1.15,
    "smol floor 100": 1.45,
    "smol memory ours": 379,
    "texts memory": 1.2,
    "window 8 times the text": 10,
}


class Result(NamedTuple):
    """One number, and what it took."""

    name: str
    value: float
    what: str  # the unit of the value, in words
    seconds: float = 0.0  # of our side
    speed: float = 0.0  # tokens a second


def turns(rounds, *works):
    """Median seconds of each work; they take turns, after one round that does not count."""
    seconds = [[] for _ in works]
    for i in range(rounds + 1):
        for work, taken in zip(works, seconds):
            started = time.perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if i > 0:
                taken.append(time.perf_counter() - started)
    return [median(taken) for taken in seconds]


def number_type(device):
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def our_model(shape, device):
    """A frozen base of ours with random weights."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(**shape)).to(device, number_type(device))
    return model.requires_grad_(False)


def their_model(shape, device, method=None, P=20):
    """The same shape in transformers, with PEFT's prompt or prefix, or trained as a whole."""
    import peft
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=shape["vocab_size"],
        hidden_size=shape["n_embd"],
        intermediate_size=shape["n_hidden"],
        num_hidden_layers=shape["n_layer"],
        num_attention_heads=shape["n_head"],
        num_key_value_heads=shape["n_kv_head"],
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    model = transformers.LlamaForCausalLM(config).to(device, number_type(device))
    if method is None:
        return model
    configs = {"prompt": peft.PromptTuningConfig, "prefix": peft.PrefixTuningConfig}
    config = configs[method](task_type="CAUSAL_LM", num_virtual_tokens=P)
    return peft.get_peft_model(model, config)


def our_soft(model, method, P):
    return METHODS[method].start(model, initial_embeddings(model, P, "vocab"))


# ------------------------------------------------------------------ one training step


def our_step(model, method, P):
    """One training step of ours: prefill, loss on the scored positions, backward, AdamW."""
    V, device = model.config.vocab_size, model.device
    idx, targets = torch.randint(V, (2, B, T), device=device)  # (B, T) each
    targets[:, :-SCORED] = -1
    soft = our_soft(model, method, P)
    optimizer = torch.optim.AdamW(soft.parameters(), lr=1e-3)

    def step():
        optimizer.zero_grad()
        model.loss(idx, targets, soft.past(model)).backward()
        optimizer.step()

    return step


def their_step(model):
    """The same step of PEFT, or of fine-tuning all weights."""
    device = next(model.parameters()).device
    idx = torch.randint(model.config.vocab_size, (B, T), device=device)  # (B, T)
    labels, mask = idx.clone(), torch.ones_like(idx)  # (B, T) each
    labels[:, :-SCORED] = -100
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=1e-3)

    def step():
        optimizer.zero_grad()
        model(input_ids=idx, attention_mask=mask, labels=labels).loss.backward()
        optimizer.step()

    return step


def bare_step(model):
    """The bare base with gradients to its inputs: what no soft prompt can be faster than."""
    C, V, device = model.config.n_embd, model.config.vocab_size, model.device
    embeds = torch.randn(B, T, C, device=device, dtype=model.dtype, requires_grad=True)
    targets = torch.randint(V, (B * SCORED,), device=device)

    def step():
        embeds.grad = None
        h, _ = model.hidden(embeds=embeds, first=T - SCORED)  # (B, SCORED, C)
        logits = model.unembed(h).flatten(0, 1).float()  # (B SCORED, V)
        F.cross_entropy(logits, targets).backward()

    return step


def training(device):
    """A training step of ours against PEFT's, and against the bare base's."""
    for name, shape, rounds in (("smol", SMOL, 5), ("base", BASE, 20)):
        model = our_model(shape, device)
        bare = bare_step(model)
        for P in (20, 100):
            for method in METHODS:
                mine = our_step(model, method, P)
                theirs = their_step(their_model(shape, device, method, P))
                our_time, their_time, bare_time = turns(rounds, mine, theirs, bare)
                what = "x faster than PEFT, a training step"
                yield Result(f"{name} {method} {P}", their_time / our_time, what, our_time)
                if method == "prompt":
                    what = "x the bare base's step"
                    yield Result(f"{name} floor {P}", our_time / bare_time, what, our_time)


# ------------------------------------------------------------------ memory


def score_texts(device, P):
    """Score 64 texts of 1,500 tokens behind P virtual tokens."""
    model = our_model({**BASE, "block_size": 2048}, device)
    gen = random.Random(0)
    rows = [(gen.choices(range(2000), k=1500), [1, 2]) for _ in range(64)]

    @torch.inference_mode()
    def step():
        score(model, our_soft(model, "prompt", P).past(model), rows)

    return step


PEAKS = {  # what takes memory: (device) -> a step
    "ours": lambda device: our_step(our_model(SMOL, device), "prompt", 20),
    "PEFT": lambda device: their_step(their_model(SMOL, device, "prompt")),
    "full": lambda device: their_step(their_model(SMOL, device)),
    "texts": lambda device: score_texts(device, 0),
    "texts-prompt": lambda device: score_texts(device, 1),
}


def memory(device):
    """Peaks of three steps, above what the process used once it had built the model."""
    peaks = {}
    for name in PEAKS:
        command = [sys.executable, __file__, "--device", str(device), "--peak", name]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        peaks[name] = float(done.stdout)
    ours, texts = peaks["ours"], peaks["texts-prompt"]
    yield Result("smol memory ours", ours, "MB above the model, a training step, P=20")
    yield Result("smol memory PEFT", peaks["PEFT"] / ours, "x ours")
    yield Result("smol memory full fine-tuning", peaks["full"] / ours, "x ours")
    what = f"x the memory of no prompt, one virtual token before 64 long texts ({texts:.0f} MB)"
    yield Result("texts memory", texts / peaks["texts"], what)


def print_peak(name, device):
    """Print the peak in MB of three steps, in this process."""
    step = PEAKS[name](device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        for _ in range(3):
            step()
        print((torch.cuda.max_memory_allocated() - before) / 1e6)
        return
    watcher = Watcher()
    for _ in range(3):
        step()
    print(watcher.peak())


class Watcher:
    """Looks every two milliseconds how much memory this process holds."""

    def __init__(self):
        self.before = self.most = resident()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.look)
        self.thread.start()

    def look(self):
        while not self.done.wait(0.002):
            self.most = max(self.most, resident())

    def peak(self):
        """Stop looking: the most MB since the start, above those at the start."""
        self.done.set()
        self.thread.join()
        return self.most - self.before


def resident():
    """The resident memory of this process in MB; Linux keeps it here."""
    import resource  # Windows has none, and needs none for the other parts

    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


# ------------------------------------------------------------------ generation


def generation(device):
    """32 new tokens behind a prompt of 20, for one row and for 16."""
    for name, shape, rounds in (("smol", SMOL, 5), ("base", BASE, 15)):
        model, other = our_model(shape, device), their_model(shape, device, "prompt").eval()
        soft = our_soft(model, "prompt", 20)
        for rows in (1, 16):
            idx = torch.randint(shape["vocab_size"], (rows, 8), device=device)  # (B, T)
            mine, theirs = our_generation(model, soft, idx), their_generation(other, idx)
            our_time, their_time = turns(rounds, mine, theirs)
            what = f"x faster than PEFT, 32 tokens for {rows} rows"
            yield Result(f"{name} generate {rows}", their_time / our_time, what, our_time)


def our_generation(model, soft, idx):
    rows = idx.tolist()

    @torch.no_grad()
    def work():
        model.generate(rows, 32, soft.past(model))

    return work


def their_generation(model, idx):
    mask = torch.ones_like(idx)  # (B, T)
    settings = {"max_new_tokens": 32, "min_new_tokens": 32, "do_sample": False}

    def work():
        model.generate(input_ids=idx, attention_mask=mask, **settings)

    return work


def questions(device):
    """32 questions of 8 tokens behind 205 slots that they share, each a row of its own."""
    model = our_model(SMOL, device)
    idx, targets = torch.randint(model.config.vocab_size, (2, 32, 8), device=device)  # (B, T) each
    targets[:, :-1] = -1
    with torch.no_grad():
        past = our_soft(model, "prompt", 205).past(model)

    @torch.inference_mode()
    def answer():
        model.scored(idx, targets, past)

    [seconds] = turns(9, answer)
    what = "ms a question, 32 of them behind 205 slots"
    yield Result("smol questions", 1000 * seconds / 32, what, seconds)


# ------------------------------------------------------------------ a window

LONG = 16384  # tokens


def window(device):
    """What a window of 256 saves: on a long text, and for each new token behind it."""
    shape = {**BASE, "block_size": 2 * LONG}
    near = our_model({**shape, "window": 256}, device)
    full = our_model({**shape, "window": None}, device)
    idx = torch.randint(shape["vocab_size"], (1, LONG), device=device)  # (B, T)

    def read(model, T):
        with torch.inference_mode():
            model.hidden(idx[:, :T])

    short, long, whole = turns(
        3,
        lambda: read(near, LONG // 8),
        lambda: read(near, LONG),
        lambda: read(full, LONG),
    )
    what = f"x the time, {LONG:,} tokens over an eighth of them, window 256"
    yield Result("window 8 times the text", long / short, what, long, LONG / long)
    what = f"x the time of window 256 without one, {LONG:,} tokens"
    yield Result("window against full", whole / long, what, long, LONG / long)

    with torch.inference_mode():
        _, past = near.hidden(idx)
    row = idx[:, :8].tolist()
    ours, theirs = turns(
        5, lambda: near.generate(row, 32, past), lambda: full.generate(row, 32, past)
    )
    what = f"x the time of window 256 without one, 32 tokens behind {LONG:,}"
    yield Result("window generate", theirs / ours, what, ours, 32 / ours)


# ------------------------------------------------------------------ many prompts at once

NEW = 8  # tokens that are generated for each row


def many(device):
    """N prompts in one mixed batch, against one shared prompt and against one row at a time."""
    for name, shape, counts in (
        ("base", BASE, (1, 4, 16, 64, 256, 512)),
        ("smol", SMOL, (1, 4, 16)),
    ):
        model = our_model(shape, device)
        for N in counts:
            yield from mixed_batch(name, model, N)
        bytes_of_prompt = 4 * 20 * model.config.n_embd
        bytes_of_base = 4 * sum(p.numel() for p in model.parameters())
        what = "of the base's bytes, a 20-vector variant"
        yield Result(f"{name} bytes", bytes_of_prompt / bytes_of_base, what)


def mixed_batch(name, model, N):
    """N different prompts of 8 to 20 vectors, a row of text for each."""
    gen = random.Random(N)
    softs = [our_soft(model, "prompt", 20)]
    for _ in range(N - 1):
        softs.append(our_soft(model, "prompt", gen.randint(8, 20)))
    few = min(N, 16)
    with torch.no_grad():  # a server keeps the pasts, not the prompts
        past, shared = prefill(softs, model), softs[0].past(model)
        pasts = [soft.past(model) for soft in softs[:few]]
    rows = torch.randint(model.config.vocab_size, (N, T)).tolist()

    def one_at_a_time():
        for row, its_past in zip(rows, pasts):
            model.generate([row], NEW, its_past)

    mixed, same, single = turns(
        5 if N < 256 else 3,
        lambda: model.generate(rows, NEW, past),
        lambda: model.generate(rows, NEW, shared),
        one_at_a_time,
    )
    what = f"of the speed of one shared prompt, {N} prompts"
    yield Result(f"{name} mixed {N}", same / mixed, what, mixed, N * (T + NEW) / mixed)
    what = "x faster than one at a time"
    times, speed = single / few * N / mixed, few * (T + NEW) / single
    yield Result(f"{name} one by one {N}", times, what, mixed, speed)


def sweep(device):
    """48 arms trained as one batch, against one after another."""
    model, steps, size = our_model(BASE, device), 4, 8
    gen = random.Random(0)
    rows = []
    for _ in range(200):
        rows.append((gen.choices(range(2000), k=gen.randint(10, 30)), [1, 2]))
    arms = [Arm(our_soft(model, "prompt", 16), "task", 0.01, seed) for seed in range(48)]

    def train_together():
        for _ in fit(model, arms, {"task": rows}, steps, size):
            pass

    def train_alone():
        for arm in arms:
            for _ in fit(model, [arm], {"task": rows}, steps, size):
                pass

    together, alone = turns(2, train_together, train_alone)
    what = "x faster as one mixed batch than one after another"
    yield Result("sweep of 48", alone / together, what, together)


# ------------------------------------------------------------------ table and picture


def show(result):
    """Print a result, and its target where it has one."""
    target = ""
    if result.name in AT_LEAST:
        target = f"(target: at least {AT_LEAST[result.name]})"
    if result.name in AT_MOST:
        target = f"(target: at most {AT_MOST[result.name]})"
    seconds = f"{result.seconds:.3f} s" if result.seconds else ""
    say(f"{result.name:30s}{result.value:10.4g} {result.what} {target} {seconds}")


def write_table(results, path):
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(Result._fields)
    writer.writerows(results)
    write_text(path, file.getvalue())


def speeds_of(results, kind):
    """{N: tokens a second} of the default base's results of this kind."""
    speeds = {}
    for result in results:
        name, _, count = result.name.rpartition(" ")
        if name == f"base {kind}":
            speeds[int(count)] = result.speed
    return speeds


def draw(results):
    """Tokens a second over the number of prompts, in one batch and one at a time."""
    mixed, single = speeds_of(results, "mixed"), speeds_of(results, "one by one")
    figure, [axis] = panels(1, 6, 4)
    counts = list(mixed)
    for speeds, label, colour in (
        (mixed, "one mixed batch", "#0072B2"),
        (single, "one at a time", "#D55E00"),
    ):
        axis.plot(counts, list(speeds.values()), "o-", color=colour)
        end, look = (counts[-1], speeds[counts[-1]]), {"ha": "right", "color": colour}
        axis.annotate(label, end, (0, 10), textcoords="offset points", **look)
    axis.set_title("Tokens a second with N different prompts on one base")
    axis.set(xscale="log", yscale="log", xlabel="N, different prompts", ylabel="tokens a second")
    axis.set_xticks(counts, counts)
    low, high = min(single.values()) / 2, max(mixed.values()) * 2
    ticks = round_numbers(low, high)
    axis.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
    axis.minorticks_off()
    axis.set_ylim(low, high)
    return figure


def round_numbers(low, high):
    """1, 2, 5, 10, 20, 50 and so on between two limits."""
    ticks = []
    for exponent in range(8):
        for digit in (1, 2, 5):
            ticks.append(digit * 10**exponent)
    return [tick for tick in ticks if low < tick < high]


# ------------------------------------------------------------------ the command line

PARTS = {
    "training": training,
    "memory": memory,
    "generation": generation,
    "questions": questions,
    "window": window,
    "many": many,
    "sweep": sweep,
}


def parse(arguments):
    parser = script_parser("benchmark.py", __doc__)
    add = parser.add_argument
    add("--device", default="auto", help="cpu, cuda, cuda:1 or auto (auto)")
    add("--out", default="out", help="folder for table and picture (out)")
    add("--only", nargs="+", choices=PARTS, default=list(PARTS), help="these parts alone")
    add("--peak", choices=PEAKS, help=argparse.SUPPRESS)  # a process that is measured
    return parser.parse_args(arguments)


def require_packages():
    """Raise InputError where transformers or PEFT is missing."""
    try:
        import peft  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as missing:
        raise InputError(f"{missing}: pip install transformers peft") from missing


def main(arguments=None):
    settings = parse(arguments)
    require_packages()
    device = find_device(settings.device)
    if settings.peak:
        print_peak(settings.peak, device)
        return
    out, results = Path(settings.out), []
    require_writable(out / "benchmark.csv")
    require_writable(out / "benchmark.png")
    for part in settings.only:
        for result in PARTS[part](device):
            show(result)
            results.append(result)
        write_table(results, out / "benchmark.csv")
    if "many" in settings.only:
        write_picture(out / "benchmark.png", draw, results)


if __name__ == "__main__":
    guard(main)
