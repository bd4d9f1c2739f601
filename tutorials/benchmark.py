"""How fast is it? Ratios against PEFT, against the bare base, and of one batch against many.

    python tests/benchmark.py [--device cpu] [--out out] [--only NAME...]
    python tests/benchmark.py --only tasks --base FOLDER    `tune` as it comes on six tasks

A program, not a test. Every ratio is one of medians, taken in turns in one process, so that a
machine that slows down slows down both sides. Writes benchmark.csv and benchmark.png into --out.
Needs transformers and peft, for the tasks scikit-learn as well. Where only speed is measured,
weights are random.
"""

import argparse
import csv
import random
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median

import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tutorials")]
import softprompt
import train
from model import GPT, GPTConfig
from pretrain import SHAPE, SIZES
from softprompt import PromptTuning, from_peft, initial_embeddings, prefill
from tasks import TASKS, read_task, write_pairs
from train import KINDS, Arm, Settings, commonest_answer, draw_similar_rows, few_answers, fit
from train import judge, load_base, progress, read_data, rows_behind, share_of

SMOL = dict(
    vocab_size=49152, block_size=8192, n_layer=30, n_head=9, n_embd=576, n_kv_head=3, n_hidden=1536,
    rope_base=100000.0)  # the shapes of SmolLM2-135M
BASE = {**SHAPE, **SIZES["base"]}
BASE["n_hidden"] = GPTConfig(**BASE).n_hidden
B, T, SCORED = 8, 32, 3
TARGETS = {  # at least, or for those with a minus sign at most
    "smol prompt 20": 1.9,
    "smol prompt 100": 3.5,
    "smol prefix 20": 1.2,
    "smol prefix 100": 1.2,
    "smol floor 20": -1.15,
    "smol floor 100": -1.45,
    "smol generate 1": 1.5,
    "smol generate 16": 1.3,
    "base mixed 512": 0.9,
    "window 32k over 4k": -10,
    "window over full at 16k": 5,
}

def turns(n, *jobs):
    """Median seconds of each job; they take turns, after one round that does not count."""
    seconds = [[] for _ in jobs]
    for i in range(n + 1):
        for job, mine in zip(jobs, seconds):
            start = time.perf_counter()
            job()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if i:
                mine.append(time.perf_counter() - start)
    return [median(mine) for mine in seconds]

def ours(shape, device):
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    return GPT(GPTConfig(**shape)).to(device, dtype).requires_grad_(False)

def theirs(shape, device, kind=None, P=20):
    """The same shapes in transformers, with PEFT's prompt or prefix, or trained as a whole."""
    import peft
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=shape["vocab_size"], hidden_size=shape["n_embd"],
        intermediate_size=shape["n_hidden"], num_hidden_layers=shape["n_layer"],
        num_attention_heads=shape["n_head"], num_key_value_heads=shape["n_kv_head"],
        max_position_embeddings=8192, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=None, pad_token_id=0)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = transformers.LlamaForCausalLM(config).to(device, dtype)
    if kind is None:
        return model
    kinds = {"prompt": peft.PromptTuningConfig, "prefix": peft.PrefixTuningConfig}
    return peft.get_peft_model(model, kinds[kind](task_type="CAUSAL_LM", num_virtual_tokens=P))

def our_step(model, kind, P):
    """One training step of ours: prefill, loss on the scored positions, backward, AdamW."""
    V, device = model.config.vocab_size, model.device
    idx, targets = torch.randint(V, (2, B, T), device=device)
    targets[:, :-SCORED] = -1
    soft = KINDS[kind].start(model, initial_embeddings(model, P, "vocab"))
    optimizer = torch.optim.AdamW(soft.parameters(), lr=1e-3)

    def step():
        optimizer.zero_grad()
        model.loss(idx, targets, soft.past(model)).backward()
        optimizer.step()

    return step

def their_step(model):
    device = next(model.parameters()).device
    idx = torch.randint(model.config.vocab_size, (B, T), device=device)
    labels, mask = idx.clone(), torch.ones_like(idx)
    labels[:, :-SCORED] = -100
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)

    def step():
        optimizer.zero_grad()
        model(input_ids=idx, attention_mask=mask, labels=labels).loss.backward()
        optimizer.step()

    return step

def floor_step(model):
    """The bare base with gradients to its inputs: what no soft prompt can be faster than."""
    embeds = torch.randn(
        B, T, model.config.n_embd, device=model.device, dtype=next(model.parameters()).dtype)
    embeds.requires_grad_(True)
    targets = torch.randint(model.config.vocab_size, (B * SCORED,), device=model.device)

    def step():
        embeds.grad = None
        h, _ = model.hidden(embeds=embeds, first=T - SCORED)
        torch.nn.functional.cross_entropy(
            model.unembed(h).flatten(0, 1).float(), targets).backward()

    return step

def training(add, device):
    for name, shape, n in (("smol", SMOL, 5), ("base", BASE, 20)):
        model = ours(shape, device)
        floor = floor_step(model)
        for P in (20, 100):
            for kind in ("prompt", "prefix"):
                mine, peft, bare = turns(
                    n, our_step(model, kind, P), their_step(theirs(shape, device, kind, P)), floor)
                add(f"{name} {kind} {P}", peft / mine, "x faster than PEFT, a training step", mine)
                if kind == "prompt":
                    add(f"{name} floor {P}", mine / bare, "x the bare base's step", mine)

PEAKS = ("ours", "peft", "full", "4096", "32768")

def memory(add, device):
    """Peak memory of three steps, above what the process used once it had built the model."""
    peaks = {}
    for what in PEAKS:
        command = [sys.executable, __file__, "--device", device, "--peak", what]
        peaks[what] = float(
            subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    add("smol memory ours", peaks["ours"], "MB above the model, a training step, P=20")
    add("smol memory PEFT", peaks["peft"] / peaks["ours"], "x ours")
    add("smol memory full fine-tuning", peaks["full"] / peaks["ours"], "x ours")
    add(
        "window memory 32k over 4k", peaks["32768"] / peaks["4096"], "x the memory for 8 x the text"
    )

def peak(what, device):
    if what == "ours":
        step = our_step(ours(SMOL, device), "prompt", 20)
    elif what in ("peft", "full"):
        step = their_step(theirs(SMOL, device, {"peft": "prompt"}.get(what)))
    else:
        model = ours({**BASE, "block_size": 40000, "window": 256}, device)
        idx = torch.zeros(1, int(what), dtype=torch.long, device=device)
        step = torch.inference_mode()(lambda: model.hidden(idx))

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(), step(), step()
        return print((torch.cuda.max_memory_allocated() - before) / 1e6)

    def used():  # Linux keeps the resident pages of a process here
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6

    before, seen, done = used(), [0.0], threading.Event()

    def look():
        while not done.wait(0.002):
            seen.append(used())

    watcher = threading.Thread(target=look)
    watcher.start()
    step(), step(), step()
    done.set()
    watcher.join()
    print(max(seen) - before)

def generation(add, device):
    for name, shape, n in (("smol", SMOL, 5), ("base", BASE, 15)):
        model, other = ours(shape, device), theirs(shape, device, "prompt", 20).eval()
        soft = PromptTuning.start(model, initial_embeddings(model, 20, "vocab"))
        for rows in (1, 16):
            idx = torch.randint(shape["vocab_size"], (rows, 8), device=device)
            text, mask = idx.tolist(), torch.ones_like(idx)

            def mine(model=model, soft=soft, text=text):
                with torch.no_grad():
                    model.generate(text, 32, soft.past(model))

            def peft(other=other, idx=idx, mask=mask):
                other.generate(
                    input_ids=idx, attention_mask=mask, max_new_tokens=32, min_new_tokens=32,
                    do_sample=False)

            a, b = turns(n, mine, peft)
            add(
                f"{name} generate {rows}", b / a, f"x faster than PEFT, 32 tokens for {rows} rows",
                a)

def many(add, device):
    """N prompts in one mixed batch, against one shared prompt and against one row at a time."""
    for name, shape, counts in (
        ("base", BASE, (1, 4, 16, 64, 256, 512)), ("smol", SMOL, (1, 4, 16))):
        model, gen = ours(shape, device), random.Random(0)
        size = sum(p.numel() for p in model.parameters())
        for N in counts:
            softs = [
                PromptTuning.start(model, initial_embeddings(model, gen.randint(8, 20), "vocab"))
                for _ in range(N)]
            softs[0] = PromptTuning.start(model, initial_embeddings(model, 20, "vocab"))
            with torch.no_grad():  # a server keeps the pasts, not the prompts
                past, shared = prefill(softs, model), softs[0].past(model)
                pasts = [soft.past(model) for soft in softs[:16]]
            rows = torch.randint(shape["vocab_size"], (N, T)).tolist()
            new, few = 8, min(N, 16)
            mixed, same, single = turns(
                5 if N < 256 else 3, lambda: model.generate(rows, new, past),
                lambda: model.generate(rows, new, shared),
                lambda: [model.generate([row], new, p) for row, p in zip(rows[:few], pasts)])
            add(
                f"{name} mixed {N}", same / mixed,
                f"of the speed of one shared prompt, {N} prompts", mixed, N * (T + new) / mixed)
            add(
                f"{name} one by one {N}", single / few * N / mixed, "x faster than one at a time",
                mixed, few * (T + new) / single)
        add(
            f"{name} bytes", 4 * softs[0].embeddings.numel() / (4 * size),
            "of the base's bytes, a 20-vector variant")

def window(add, device):
    with torch.inference_mode():
        cut, full = (ours({**BASE, "block_size": 40000, "window": w}, device) for w in (256, None))
        took = {}
        for T in (1024, 2048, 4096, 8192, 16384, 32768):
            idx = torch.randint(BASE["vocab_size"], (1, T), device=device)
            jobs = [lambda: cut.hidden(idx)] + [lambda: full.hidden(idx)] * (T <= 16384)
            took[T], *other = turns(3, *jobs)
            add(f"window {T}", took[T] / T * 1e6, "microseconds a token, window 256", took[T])
            if T == 16384:
                add(
                    "window over full at 16k", other[0] / took[T], "x faster than full attention",
                    took[T])
        add("window 32k over 4k", took[32768] / took[4096], "x the time for 8 x the text")

def sweep(add, device):
    model, steps = ours(BASE, device), 4
    gen = random.Random(0)
    rows = {
        "job": [
            ([gen.randrange(2000) for _ in range(gen.randint(10, 30))], [1, 2]) for _ in range(200)]
    }
    arms = [
        Arm(PromptTuning.start(model, initial_embeddings(model, 16, "vocab")), "job", 1e-3, i)
        for i in range(48)]
    together, alone = turns(
        2, lambda: fit(model, arms, rows, steps, 8, lambda *state: None),
        lambda: [fit(model, [arm], rows, steps, 8, lambda *state: None) for arm in arms])
    add(
        "sweep of 48", alone / together, "x faster as one mixed batch than one after another",
        together)

def peft_prompt(base, model, kind, lr, rows, steps, size, P, out):
    """What PEFT's prompt or prefix tuning learns from the same batches after the same schedule, as
    a soft prompt of ours. Its start is its default, N(0, 1); its loss is over the vocabulary."""
    import peft
    import transformers

    configs = {"prompt": peft.PromptTuningConfig, "prefix": peft.PrefixTuningConfig}
    torch.manual_seed(0)
    other = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = configs[kind](task_type="CAUSAL_LM", num_virtual_tokens=P)
    other = peft.get_peft_model(other.to(model.device), config)
    learned = [p for p in other.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=lr, weight_decay=0.0)
    for step in progress(f"PEFT {kind}, {lr:g}", range(steps)):
        batch = draw_similar_rows(rows, 0, step, size)
        width = max(len(question) + len(answer) for question, answer in batch)
        idx, labels = torch.full((2, size, width), -1)  # (B, T) twice
        for b, (question, answer) in enumerate(batch):
            end = len(question) + len(answer)
            idx[b, :end] = torch.tensor(question + answer)
            labels[b, len(question) : end] = torch.tensor(answer)
        idx, labels = idx.to(model.device), labels.masked_fill(labels < 0, -100).to(model.device)
        loss = other(
            input_ids=idx.clamp(min=0), attention_mask=(idx >= 0).long(), labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.param_groups[0]["lr"] = lr * min((step + 1) / 5, 1, 1.1 - step / steps)
        optimizer.step()
        optimizer.zero_grad()
    other.save_pretrained(out / "adapter")
    return from_peft(out / "adapter", model)

PEFT_RATES = {"prompt": (0.1, 0.3, 1.0), "prefix": (0.003, 0.03, 0.3)}

def tasks(add, settings):
    """`tune` with its defaults on six tasks, beside always the commonest answer, bag of words, and
    PEFT: 200 steps of 16 texts at the rate that is best of three by validation after 20. All are
    judged on the same test texts, choosing among the answers that there are."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    model, tok = load_base(Settings(base=settings.base, device=settings.device))
    fingerprint, P = model.fingerprint(), Settings().length
    for name in settings.tasks:
        learn, test = read_task(name, settings.out)
        folder = Path(settings.out) / "tasks" / name
        write_pairs(learn, folder / "learn.tsv")
        texts, answers = zip(*learn)
        words = CountVectorizer()
        bag = LogisticRegression(max_iter=1000).fit(words.fit_transform(texts), answers)
        add(f"{name} always", share_of(commonest_answer(learn), test), "the commonest answer")
        add(f"{name} bag of words", bag.score(words.transform([t for t, _ in test]),
                                              [a for _, a in test]), "logistic regression")

        few = few_answers(learn)

        def tell(what, soft, seconds):
            with torch.no_grad():
                found = judge(model, tok, soft.past(model),
                              rows_behind(model, tok, test, soft.length, "", few), few)
            add(f"{name} {what}", found[2], f"among {len(few)}, exact {found[1]:.3f}", seconds)

        for kind in KINDS:
            start, path = time.time(), folder / f"{kind}.pt"
            train.main(["tune", "--base", settings.base, "--data", str(folder / "learn.tsv"),
                        "--method", kind, "--save", str(path), "--device", settings.device])
            soft = softprompt.load(path, model, fingerprint)
            tell(f"our {kind}, {soft.facts['step']} steps", soft, time.time() - start)
        known, valid = read_data(Settings(data=str(folder / "learn.tsv")))
        known, valid = (rows_behind(model, tok, pairs, P) for pairs in (known, valid[:128]))
        for kind in settings.peft:
            start, tried = time.time(), {}
            for lr in PEFT_RATES[kind]:
                soft = peft_prompt(settings.base, model, kind, lr, known, 20, 16, P, folder)
                with torch.no_grad():
                    tried[lr] = judge(model, tok, soft.past(model), valid)[0]
            lr = min(tried, key=tried.get)
            soft = peft_prompt(settings.base, model, kind, lr, known, 200, 16, P, folder)
            tell(f"PEFT {kind}, {lr:g}", soft, time.time() - start)

def draw(rows, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6, 4), constrained_layout=True)
    last = {}
    for kind, label, colour, below in (
        ("mixed", "one mixed batch", "#0072B2", -40),
        ("one by one", "one at a time", "#D55E00", 18),
    ):
        mine = [row for row in rows if row["name"].startswith(f"base {kind}")]
        counts = [int(row["name"].split()[-1]) for row in mine]
        speeds = [float(row["speed"]) for row in mine]
        axis.plot(counts, speeds, "o-", color=colour)
        end = (counts[-1], speeds[-1])
        axis.annotate(label, end, (0, below), textcoords="offset points", ha="right", color=colour)
        last[kind] = speeds[-1]
    axis.set_title(
        f"{counts[-1]} different prompts in one batch on one base:\n"
        f"{last['mixed'] / last['one by one']:.0f} times the tokens a second of one at a time")
    axis.set(xscale="log", yscale="log", xlabel="N, different prompts", ylabel="tokens a second")
    axis.set_xticks(counts, counts)
    low, high = axis.get_ylim()
    ticks = [t * 10**e for e in range(1, 8) for t in (1, 2, 5) if low < t * 10**e < high]
    axis.set_yticks(ticks, [f"{t:,}" for t in ticks])
    axis.minorticks_off()
    axis.set_ylim(low * 0.7, high)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)

PARTS = {
    "training": training, "memory": memory, "generation": generation, "many": many,
    "window": window, "sweep": sweep}

def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", default="out")
    parser.add_argument("--only", nargs="+", choices=[*PARTS, "tasks"], default=list(PARTS))
    parser.add_argument("--base", default="", help="folder of a real model, for --only tasks")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--peft", nargs="*", choices=KINDS, default=["prompt"])
    parser.add_argument("--peak", choices=PEAKS, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    try:
        import peft  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as missing:
        sys.exit(f"{missing}: pip install transformers peft")
    if settings.peak:
        return peak(settings.peak, settings.device)
    rows, out = [], Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)

    def add(name, value, what, seconds=0.0, speed=0.0):
        target = TARGETS.get(name)
        met = (
            "" if target is None
            else f"(target {'at least' if target > 0 else 'at most'} {abs(target)})")
        rows.append(dict(name=name, value=value, what=what, seconds=seconds, speed=speed))
        print(
            f"{name:30s}{value:10.4g} {what} {met}" + (f"  {seconds:.3f} s" if seconds else ""),
            flush=True)

    for part in settings.only:
        if part == "tasks":
            tasks(add, settings)
        else:
            PARTS[part](add, settings.device)
    with open(out / "benchmark.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    if "many" in settings.only:
        draw(rows, out / "benchmark.png")

if __name__ == "__main__":
    main()
