"""Make a base model anew: tutorials/base.pt, the weights and the tokenizer that go with them.

    python tutorials/pretrain.py                    some 75 minutes, two cores
    python tutorials/pretrain.py --size small       or tiny: half the steps of jobs; small-lm: none

First comes the vocabulary: byte-level BPE of the docstrings. Then the model learns the language of
whole docstrings, and then the jobs in English. No sentence kept for validation or test is seen, nor
its docstring. A run that was stopped goes on when started again. At the end every wording is tried.

The jobs in HELD_OUT of jobs.py are never practised. They were chosen before any training: one of
each of three operations, at three places, and none at the first word, where even a bad guess is
often right. Instructions are also long and far away, so that a prompt may be: of the batches, 60 %
are wording and text, 20 % have up to 200 tokens of other sentences between the two, and 20 % an
instruction of up to 100 tokens, of several wordings. In the last two the instruction is pinned.
"""

import argparse
import heapq
import math
import random
import re
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))
from model import GPT, GPTConfig, read, write
from train import PATTERN, Tokenizer, collate, find_device, guard, progress, score
from tutorials.jobs import JOBS, hashed, read_docstrings, sentences_of, split_of

SHAPE = dict(vocab_size=2048, block_size=256, window=64)
SIZES = {"base": dict(n_layer=4, n_head=4, n_embd=128, n_kv_head=2),
         "small": dict(n_layer=3, n_head=2, n_embd=64, n_kv_head=1),
         "tiny": dict(n_layer=2, n_head=2, n_embd=24, n_kv_head=1)}
SIZES["small-lm"] = SIZES["small"]
LM_STEPS, JOB_STEPS = 2500, {"base": 24000, "small": 12000, "tiny": 12000, "small-lm": 0}
FAR, LONG = 200, 100  # tokens between instruction and text, tokens of an instruction
SAVE_EVERY = 60  # seconds

def bpe(texts, size):
    """Byte-level BPE (Sennrich et al. 2016, arXiv 1508.07909): `size` byte strings by rank.
    Merge the commonest pair of neighbours, again and again. A heap of pair counts, and for each
    pair the words it occurs in, make that seconds instead of minutes."""
    pieces = Counter(piece for text in texts for piece in re.findall(PATTERN, text))
    words = [([bytes([b]) for b in piece.encode()], n) for piece, n in pieces.items()]
    counts, words_with = Counter(), defaultdict(set)

    def count(i, sign):
        """Add or take away the pairs of word i; return them."""
        parts, n = words[i]
        pairs = list(zip(parts, parts[1:]))
        for pair in pairs:
            counts[pair] += sign * n
            words_with[pair].add(i)
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
        for i in list(words_with[best]):
            changed.update(count(i, -1))
            parts, j = words[i][0], 0
            while j < len(parts) - 1:
                if (parts[j], parts[j + 1]) == best:
                    parts[j : j + 2] = [tokens[-1]]
                j += 1
            changed.update(count(i, 1))
        del words_with[best], counts[best]
        for pair in changed:
            if counts[pair] > 0:
                heapq.heappush(heap, (-counts[pair], pair))
    return tokens

def texts_to_learn(docstrings, sentences):
    """The docstrings that hold no held-out sentence, each once, in hashed order."""
    held_out = {s.text for split in ("valid", "test") for s in sentences[split]}
    texts = set()
    for _, _, text in docstrings:
        lines = [line.strip() for line in text.split("\n")]
        if split_of(lines[0]) == "train" and held_out.isdisjoint(lines):
            texts.add(text)
    return sorted(texts, key=hashed)

TIMES = {"library": 4, "count": 2}  # how often a job is drawn: the widest and the hardest, else 1
PRACTISED = [job for name, job in JOBS.items() if job.wordings for _ in range(TIMES.get(name, 1))]

def batch_of(step, stream, sentences, tok):
    """ids, targets and the weight of each target, (B, T) each, and how much is pinned, (B,): whole
    docstrings in the first LM_STEPS, then jobs asked for in English. The same for the same step."""
    gen, rows, pinned = random.Random(step), [], []
    if step < LM_STEPS:
        starts = torch.tensor([gen.randrange(len(stream) - 128) for _ in range(16)])  # (B,)
        block = stream[starts[:, None] + torch.arange(129)]  # (B, T + 1)
        return block[:, :-1], block[:, 1:], torch.ones(16, 128) / (16 * 128), torch.zeros(16).long()
    kind = gen.choices(("near", "far", "long"), (6, 2, 2))[0]
    for sentence in gen.sample(sentences, 32):
        job, filler = gen.choice(PRACTISED), []
        instruction = tok.encode(gen.choice(job.wordings))
        question, answer = tok.example(sentence.text, job.answer(sentence))
        if kind == "long":
            length = gen.randint(1, LONG)
            while len(instruction) < length:
                instruction = instruction + tok.encode(" " + gen.choice(job.wordings))
            instruction = instruction[: max(length, 8)]
        if kind == "far":
            room = SHAPE["block_size"] - len(instruction) - len(question) - len(answer)
            length = gen.randint(0, min(FAR, room))
            while len(filler) < length:
                filler = filler + tok.encode("\n" + gen.choice(sentences).text)
            filler = filler[:length]
        rows.append((instruction + filler + question, answer))
        pinned.append(0 if kind == "near" else len(instruction))
    idx, answers = collate(rows, "cpu")  # (B, T) each
    scored = answers >= 0  # (B, T)
    if kind != "near":
        return idx, answers, scored / scored.sum(), torch.tensor(pinned)
    targets = F.pad(idx[:, 1:], (0, 1), value=-1)  # (B, T): the question is still worth reading
    question = (targets >= 0) & ~scored  # (B, T)
    weight = scored / scored.sum() + 0.2 * question / question.sum()  # (B, T)
    return idx, torch.where(scored, answers, targets), weight, torch.tensor(pinned)

def rate_at(step, steps):
    """Each of the two parts: 100 steps of warm-up, then a cosine down to a twentieth."""
    peak, done, total = 4e-3, step, LM_STEPS
    if step >= LM_STEPS:
        peak, done, total = 2e-3, step - LM_STEPS, steps - LM_STEPS
    return peak * min(1, (done + 1) / 100) * (0.525 + 0.475 * math.cos(math.pi * done / total))

def pretrain(settings):
    """Train the base, save it, and print how it does."""
    name = "base.pt" if settings.size == "base" else f"base-{settings.size}.pt"
    path = Path(settings.base or Path(__file__).with_name(name))
    device, checkpoint = find_device(settings.device), Path(f"{path}.ckpt")
    shape, docstrings = {**SHAPE, **SIZES[settings.size]}, read_docstrings(settings.out)
    sentences = sentences_of(docstrings)
    texts = texts_to_learn(docstrings, sentences)
    tokens = bpe(texts, SHAPE["vocab_size"] - 1)
    tok = Tokenizer.from_tokens(tokens)
    stream = torch.tensor([i for text in texts for i in tok.encode(text) + [tok.end]])

    torch.manual_seed(0)
    model, first, seconds = GPT(GPTConfig(**shape)).to(device), 0, 0.0
    matrices = [p for p in model.parameters() if p.dim() == 2]
    scales = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1},
                                   {"params": scales, "weight_decay": 0.0}], betas=(0.9, 0.98),
                                  fused=True)
    steps = LM_STEPS + JOB_STEPS[settings.size]
    plan = repr((shape, LM_STEPS, steps, hashed(repr(texts)).hex()))
    if checkpoint.exists():
        state = read(checkpoint, "a pretraining", ("plan", "step", "model", "optimizer"))
        if state["plan"] != plan:
            raise ValueError(f"{checkpoint} is of other data or another plan: remove it")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first, seconds = state["step"], state["seconds"]
    start_time = saved_time = time.time()
    for step in progress("pretraining", range(first, steps)):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, steps)
        batch = [x.to(device) for x in batch_of(step, stream, sentences["train"], tok)]
        lengths = (batch[0] >= 0).sum(1)  # (B,)
        for half in lengths.argsort().chunk(2):  # the shorter and the longer rows: less padding
            idx, targets, weight = (x[half, : lengths[half[-1]]] for x in batch[:3])
            logits = model.scored(idx, targets, model.empty_past(len(idx), batch[3][half]))
            nats = F.cross_entropy(logits, targets[targets >= 0], reduction="none")  # (n,)
            (nats * weight[targets >= 0]).sum().backward()  # the sum of both is the batch's loss
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        now = time.time()
        if now - saved_time > SAVE_EVERY:
            saved_time = now
            write(checkpoint, {"model": model.state_dict(), "optimizer": optimizer.state_dict(),
                               "step": step + 1, "seconds": seconds + now - start_time,
                               "plan": plan})
    model.bfloat16()  # half the bytes; from here on these rounded weights are the base
    model.save(path, tokenizer=[token.decode("latin-1") for token in tokens],
               minutes=round((seconds + time.time() - start_time) / 60), size=settings.size)
    checkpoint.unlink(missing_ok=True)
    report(model.float(), tok, sentences["test"])

def report(model, tok, sentences):
    """Held-out accuracy of each job by its wordings, beside the share of the commonest answer."""
    print(f"{'job':20s}commonest   none | its wordings, * if the base never practised the job")
    for name, job in JOBS.items():
        pairs = job.pairs(sentences)
        counts = Counter(answer for _, answer in pairs)
        shares = [counts.most_common(1)[0][1] / len(pairs)]
        for wording in ["", *job.wordings, *job.unseen]:
            rows = [tok.example(*pair, wording) for pair in pairs]
            with torch.inference_mode():
                shares.append(score(model, None, rows)[2].item() / len(pairs))
        name = name if job.wordings else f"{name} *"
        print(f"{name:20s}{shares[0]:9.3f}", *(f"{share:7.3f}" for share in shares[1:]))

def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="base", choices=SIZES, help="how big (base)")
    parser.add_argument("--base", help="file to make (tutorials/base.pt, base-small.pt, ...)")
    parser.add_argument("--out", default="out", help="folder that keeps the docstrings")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto")
    return parser.parse_args(arguments)

if __name__ == "__main__":
    guard(pretrain, parse())
