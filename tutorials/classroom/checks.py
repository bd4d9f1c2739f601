"""The exercises: `@exercise` above a student's function checks it on the spot. Below stand the
checks. Each takes a student's function and returns "right", or a sentence that begins with "not
yet" and says what differs."""

import copy
import functools
import math
import random
import sys
import tempfile
from pathlib import Path
from statistics import mean, median

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import solutions
from shared import hide, mean_error

from model import GPT, GPTConfig, Past, visible
from softprompt import PrefixTuning, PromptTuning, save


def exercise(student):
    """What stands above a function of the student's: say whether it is right, and what the notebook
    uses from here on. That is the student's own function, or, until it is right, ours."""
    name = student.__name__
    verdict = CHECKS[name](student)
    print(verdict)
    if verdict == RIGHT:
        return student
    print(f"Until it is right, the notebook goes on with {name} of classroom/solutions.py.")
    return getattr(solutions, name)


RIGHT = "right"
CHECKS = {}  # {name of the exercise: takes a student's function, returns RIGHT or what differs}


def check(judge):
    """Make a check of an exercise of that name: `judge` takes the student's function and returns
    None, or what differs. The check never stops the notebook."""

    @functools.wraps(judge)
    def run(student):
        try:
            with torch.random.fork_rng(devices=[]):  # the notebook's random numbers go on as before
                differs = judge(student)
        except NotImplementedError:
            differs = "replace `raise NotImplementedError` by your code"
        except Exception as problem:
            differs = f"your function stopped with {type(problem).__name__}: {problem}"
        return f"not yet: {differs}" if differs else RIGHT

    CHECKS[judge.__name__] = run
    return run


def tiny(seed=0, **shape):
    """A frozen model of random weights, small enough that a check takes no time."""
    torch.manual_seed(seed)
    usual = dict(vocab_size=11, block_size=16, n_layer=2, n_head=2, n_embd=8)
    model = GPT(GPTConfig(**{**usual, **shape}))
    for p in model.parameters():
        if p.dim() == 2:
            torch.nn.init.normal_(p, std=0.5)  # large enough that a mistake is seen
    return model.requires_grad_(False)


def short(got):
    """What a student returned, in few words."""
    shape = tuple(got.shape) if hasattr(got, "shape") else None
    return f"a {type(got).__name__} {shape}" if shape else repr(got)[:80]


def differs(got, want, about, close=1e-4):
    """What is wrong with a tensor, or None."""
    if not torch.is_tensor(got) or got.shape != want.shape:
        return f"{about} you return {short(got)}, not a tensor {tuple(want.shape)}"
    got, want = got.detach(), want.detach()
    if not torch.allclose(got.to(want.dtype), want, atol=close):
        where = int((got - want).abs().argmax())  # in the flattened tensor
        return (
            f"{about} number {where} of the flattened result is "
            f"{got.flatten()[where]:.4f}, it should be {want.flatten()[where]:.4f}"
        )


# -------------------------------------------------- 1: a prompt is a matrix


@check
def vectors_before_text(student):
    model, gen = tiny(), torch.Generator().manual_seed(1)
    for B, P, T in ((2, 3, 4), (1, 2, 5), (3, 4, 4)):
        vectors = torch.randn(P, 8, generator=gen)
        idx = torch.randint(11, (B, T), generator=gen)
        got, about = student(model, vectors.clone(), idx.clone()), f"for B={B}, P={P}, T={T}"
        embeds = torch.cat((vectors.expand(B, -1, -1), model.model.embed_tokens(idx)), 1)
        every, _ = model(embeds=embeds)  # (B, P + T, V)
        if torch.is_tensor(got) and got.shape == every.shape:
            return f"{about} you return logits at all P + T slots, only the text's are wanted"
        if torch.is_tensor(got) and got.shape == every[:, :T].shape:
            if torch.allclose(got, every[:, :T], atol=1e-4):
                return f"{about} these are the logits at the first T slots; the text is behind"
        wrong = differs(got, every[:, P:], about)
        if wrong:
            return wrong


@check
def one_prompt_step(student):
    gen = torch.Generator().manual_seed(2)
    for B, P, T, rate in ((2, 3, 5, 0.1), (1, 2, 4, 1.0)):
        model = tiny()
        before, vectors = model.fingerprint(), torch.randn(P, 8, generator=gen)
        idx = torch.randint(11, (B, T), generator=gen)
        targets = torch.randint(11, (B, T), generator=gen)
        soft, given = PromptTuning(vectors), vectors.clone()
        loss = model.loss(idx, targets, soft.past(model))
        move = rate * torch.autograd.grad(loss, soft.embeddings)[0]  # (P, C)
        got, about = student(model, given, idx, targets, rate), f"for P={P} and rate={rate}"
        if model.fingerprint() != before:
            return f"{about} the model's weights are changed, they are frozen"
        if any(p.requires_grad or p.grad is not None for p in model.parameters()):
            return f"{about} the model is no longer frozen, or has gradients"
        if not torch.equal(given, vectors):
            return f"{about} the given vectors are changed; return new ones"
        if torch.is_tensor(got) and got.shape == move.shape:
            if torch.allclose(got.detach(), vectors + move, atol=1e-5):
                return f"{about} you go up the gradient: the loss gets larger"
        wrong = differs(got, vectors - move, about)
        if wrong:
            return wrong
        if got.requires_grad:
            return f"{about} the result still has a gradient; use detach()"


@check
def longest_prompt(student):
    for N, C, share in (
        (1_557_611_200, 1600, 1e-5),
        (6_738_415_616, 4096, 1e-5),
        (1_000_576, 128, 1e-5),
        (1_000_576, 128, 0.01),
        (10_240, 128, 0.125),
    ):
        want, got = math.floor(share * N / C), student(N, C, share)
        about = f"for N={N:,}, C={C} and share={share}"
        if got is not None and int(got) == int(share * N) != want:
            return f"{about} you count numbers; each virtual token has C of them"
        if type(got) is not int or got != want:
            return f"{about} you return {got!r}, it is {want}"


# -------------------------------------------------- 2: can you read it?


@check
def random_steps(student):
    gen = torch.Generator().manual_seed(1)
    for P, C in ((3, 4), (1, 6), (5, 2)):
        start = torch.randn(P, C, generator=gen)
        moved = torch.linspace(0.5, 3, P)[:, None] * torch.randn(P, C, generator=gen)
        noise, given = 2 * torch.randn(P, C, generator=gen), start.clone()
        got, about = student(given, start + moved, noise), f"for P={P} and C={C}"
        if not torch.is_tensor(got) or got.shape != start.shape:
            return f"{about} you return {short(got)}, not a tensor {(P, C)}"
        if not torch.equal(given, start):
            return f"{about} the given start is changed; return new vectors"
        step, want = (got - start).norm(dim=1), moved.norm(dim=1)  # (P,) each
        if not torch.allclose(step, want, atol=1e-4):
            p = int((step - want).abs().argmax())
            return (
                f"{about} vector {p} moves {step[p]:.3f} from its start, the prompt's vector "
                f"{p} moved {want[p]:.3f}"
            )
        if not torch.allclose(F.cosine_similarity(got - start, noise), torch.ones(P), atol=1e-4):
            return f"{about} the steps are as long as they should be, but not along the noise"


@check
def snap_to_tokens(student):
    gen = torch.Generator().manual_seed(3)
    for P, V, C in ((4, 9, 5), (1, 20, 3), (6, 6, 4)):
        table = torch.randn(V, C, generator=gen) * torch.linspace(0.2, 3, V)[:, None]
        vectors = torch.randn(P, C, generator=gen)
        want = F.cosine_similarity(vectors[:, None], table[None], dim=2).argmax(1)
        got, about = student(vectors.clone(), table.clone()), f"for P={P}, V={V}, C={C}"
        if not torch.is_tensor(got) or got.shape != want.shape or got.is_floating_point():
            return f"{about} you return {short(got)}, not an integer tensor of {P} ids"
        if not torch.equal(got.long(), want):
            return f"{about} you return {got.tolist()}, it is {want.tolist()}"


@check
def without_vector(student):
    model, gen = tiny(window=5), torch.Generator().manual_seed(4)
    for B, P, vector in ((1, 3, 1), (2, 4, 3), (1, 2, 0)):
        vectors = torch.randn(P, 8, generator=gen)
        idx = torch.randint(11, (B, 6), generator=gen)
        with torch.no_grad():
            past = PromptTuning(vectors).past(model)
        given, about = past.positions.clone(), f"for P={P} and vector={vector}"
        got = student(past, vector)
        if not isinstance(got, Past):
            return f"{about} you return {short(got)}, not a Past"
        if not torch.equal(past.positions, given):
            return f"{about} the positions of the given past are changed; change a clone of them"
        if int(got.length[0]) != P:
            return (
                f"{about} {int(got.length[0])} of the {P} slots are not empty, and the text would "
                f"begin at position {int(got.length[0])} in place of {P}"
            )
        want, (logits, _) = model(idx, hide(past, vector))[0], model(idx, got)  # (B, T, V) each
        if torch.allclose(logits, model(idx, past)[0], atol=1e-5):
            return f"{about} the text still sees it: nothing has changed"
        wrong = differs(logits, want, f"{about} of the text's logits")
        if wrong:
            return wrong


@check
def same_mistakes(student):
    cases = (
        ("abcb", "abbb", "aaaa", (0.75, 2 / 3)),
        ("aab", "aba", "aaa", (1 / 3, 0.0)),
        ("bbaa", "abba", "aaaa", (0.5, 0.5)),
        ("ab", "ac", "ab", (0.5, None)),
    )
    for first, second, truth, want in cases:
        got = student(list(first), list(second), list(truth))
        about = f"for the answers {list(first)}, {list(second)} and the truth {list(truth)}"
        if not isinstance(got, tuple) or len(got) != 2:
            return f"{about} you return {short(got)}, not two numbers"
        for name, x, y in zip(("the same answers", "the same mistakes"), got, want):
            if (x is None) != (y is None) or y is not None and abs(x - y) > 1e-6:
                return f"{about} the share of {name} is {y}, you return {x}"


# -------------------------------------------------- 3: attention and what it costs


@check
def kv_cache_bytes(student):
    for L, H, Hkv, D, T in ((2, 4, 4, 8, 5), (2, 4, 2, 8, 7), (3, 6, 1, 4, 1)):
        config = GPTConfig(11, 16, L, H, 32, Hkv, D)
        with torch.inference_mode():
            _, past = GPT(config)(torch.zeros(1, T, dtype=torch.long))
        want, got = sum(x.nbytes for x in past.keys + past.values), student(config, T)
        if got != want:
            return (
                f"for L={L}, H={H}, Hkv={Hkv}, D={D} and T={T} you return {got}, the "
                f"past of such a model has {want} bytes"
            )


@check
def fixed_pattern(student):
    for T, stride in ((8, 4), (10, 3), (6, 1), (5, 8)):
        want = torch.zeros(T, T, dtype=torch.bool)
        for t in range(T):
            for s in range(t + 1):
                want[t, s] = s // stride == t // stride or s % stride == stride - 1
        got = student(T, stride)
        if not torch.is_tensor(got) or got.shape != want.shape or got.dtype != torch.bool:
            dtype = f" of {got.dtype}" if torch.is_tensor(got) else ""
            return (
                f"for T={T} and stride={stride} you return {short(got)}{dtype}, not a bool "
                f"tensor {(T, T)}"
            )
        if not torch.equal(got, want):
            t, s = (got != want).nonzero()[0].tolist()
            seen = "seen" if want[t, s] else "not seen"
            return (
                f"for T={T} and stride={stride}, query {t} and key {s}: you return "
                f"{bool(got[t, s])}, but this key is {seen}"
            )


@check
def running_lse(student):
    gen = torch.Generator().manual_seed(0)
    for scale, about in (
        (1, "small scores"),
        (1000, "scores around 1000"),
        (-1000, "scores around -1000"),
    ):
        parts = [scale + torch.randn(n, generator=gen) for n in (3, 1, 4)]
        for order in (parts, parts[::-1]):
            want = torch.cat(order).logsumexp(0).item()
            got = student(part.clone() for part in order)  # each part can be looked at once
            if got is None or not abs(float(got) - want) < 1e-3:
                return (
                    f"for {about} in parts of 3, 1 and 4 (or 4, 1 and 3) you return "
                    f"{got}, it is {want:.4f}"
                )


@check
def ring_work(student):
    for T, R in ((8, 2), (12, 4), (5, 1), (6, 6)):
        see, n = torch.ones(T, T, dtype=torch.bool).tril(), T // R
        want = [int(see[r * n : (r + 1) * n].sum()) for r in range(R)]
        got = student(T, R)
        if got is None or list(got) != want:
            return f"for T={T} and R={R} you return {got}, it is {want}"


# -------------------------------------------------- 4: a prefix is a learned cache


@check
def count_numbers(student):
    for L, H, Hkv, C, D, P in ((2, 4, 2, 32, 8, 5), (3, 4, 4, 16, 4, 1), (1, 6, 1, 24, 10, 7)):
        config = GPTConfig(11, 16, L, H, C, Hkv, D)
        with torch.inference_mode():
            _, past = GPT(config)(torch.zeros(1, P, dtype=torch.long))
        want, got = (P * C, sum(x.numel() for x in past.keys + past.values)), student(config, P)
        if got is None or tuple(got) != want:
            return (
                f"for L={L}, H={H}, Hkv={Hkv}, C={C}, D={D} and P={P} you return "
                f"{got}, expected {want}"
            )


@check
def merge(student):
    gen = torch.Generator().manual_seed(1)
    T, D, scale = 4, 8, 8**-0.5
    for P, S in ((3, 5), (1, 1), (6, 2)):
        q, k, v = (torch.randn(n, D, generator=gen) for n in (T, P + S, P + S))
        scores = q @ k.T * scale  # (T, P + S)
        own = scores[:, P:].softmax(1) @ v[P:]  # (T, D)
        prefix = scores[:, :P].softmax(1) @ v[:P]  # (T, D)
        want = scores.softmax(1) @ v  # (T, D)
        got = student(own, scores[:, P:].logsumexp(1), prefix, scores[:, :P].logsumexp(1))
        wrong = differs(got, want, f"with {P} keys in the prefix and {S} in the text", 1e-5)
        if wrong:
            return wrong


@check
def zero_mass(student):
    gen = torch.Generator().manual_seed(0)
    for shape, P in (((5,), 3), ((2, 4, 6), 1), ((3, 2), 0), ((4, 3), 50)):
        scores = torch.randn(shape, generator=gen)  # (..., S)
        with_zeros = torch.cat((torch.zeros(*shape[:-1], P), scores), -1)  # (..., P + S)
        want = with_zeros.softmax(-1)[..., :P].sum(-1)  # (...)
        wrong = differs(student(scores.clone(), P), want, f"for scores {shape} and P={P}", 1e-5)
        if wrong:
            return wrong


@check
def silent_prefix(student):
    for heads, P in ((4, 3), (2, 8)):
        model = tiny(n_head=4, n_embd=32, n_kv_head=heads)
        idx = torch.randint(11, (3, 6))  # (B, T)
        past, shape = student(model, P), (1, heads, P, 8)
        if not isinstance(past, Past):
            return f"you return {short(past)}, not a Past"
        if [x.shape for x in (*past.keys, *past.values)] != [shape] * 4:
            return (
                f"for L=2, Hkv={heads}, D=8 and P={P} your keys and values are "
                f"{[tuple(x.shape) for x in (*past.keys, *past.values)]}, not two of {shape} "
                "each"
            )
        if past.positions.shape != (1, P):
            return f"for P={P} your positions are {tuple(past.positions.shape)}, not {(1, P)}"
        wrong = differs(model(idx, past)[0], model(idx)[0], f"with your {P} slots before it,")
        if wrong:
            return wrong


# -------------------------------------------------- 5: where to start


@check
def steps_to(student):
    steps, losses = [0, 1, 2, 4, 8, 16], [3.0, 2.0, 1.0, 1.5, 0.5, 0.75]
    for threshold, want in ((1.5, 2), (2.0, 1), (4.0, 0), (0.75, 8), (0.25, math.inf)):
        got = student(list(steps), list(losses), threshold)
        if got != want or isinstance(got, bool):
            return (
                f"for steps {steps}, losses {losses} and threshold {threshold} you "
                f"return {got}, expected {want}"
            )


@check
def bootstrap_ratio(student):
    gen = random.Random(0)
    for n, m in ((5, 5), (7, 4), (1, 3)):
        a = [gen.randint(1, 9) for _ in range(n)]
        b = [gen.randint(1, 9) for _ in range(m)]
        draws = [(gen.choices(range(n), k=n), gen.choices(range(m), k=m)) for _ in range(201)]
        found = sorted(median(a[x] for x in i) / median(b[x] for x in j) for i, j in draws)
        want, got = (found[5], found[-6]), student(list(a), list(b), draws)
        if (
            got is None
            or len(got) != 2
            or not all(math.isclose(x, y, abs_tol=1e-6) for x, y in zip(got, want))
        ):
            return (
                f"for a={a} and b={b} you return {got}, expected "
                f"({want[0]:.3f}, {want[1]:.3f}): medians, and numbers 5 from both ends "
                "of the 201 sorted ratios"
            )


@check
def fair_medians(student):
    cases = [
        # the race alone would choose 4 for text; in tuning 2 and 4 are equal for noise
        (
            {
                "text": {1: [4, 6, 5], 2: [9, 2, 8], 4: [7, 7, 30]},
                "noise": {1: [math.inf, 50, math.inf], 2: [9, 12, 10], 4: [10, 8, 40]},
            },
            {
                "text": {1: [8, 6, 10, 6, 40], 2: [5, 9, 9, 7, 6], 4: [2, 3, 4, 2, 6]},
                "noise": {1: [9, 9, 9, 9, 9], 2: [14, 10, 12, 50, 11], 4: [8, 9, 10, 8, 9]},
            },
        ),
        # one arm never learns: a mean would be infinite
        (
            {"text": {0.5: [2, 3, math.inf], 8: [9, 9, 9]}},
            {"text": {0.5: [4, 5, 30], 8: [3, 3, 3]}},
        ),
    ]
    for tuning, race in cases:
        got = student(copy.deepcopy(tuning), copy.deepcopy(race))
        if not isinstance(got, dict) or set(got) != set(tuning):
            return f"you return {short(got)}, not a dict with the keys {list(tuning)}"
        for start, tried in tuning.items():
            rate = min(tried, key=lambda rate: median(tried[rate]))
            want = (rate, median(race[start][rate]))
            if not isinstance(got[start], tuple) or got[start] != want:
                return (
                    f"for {start!r} you return {got[start]!r}, expected {want}: in tuning its "
                    f"steps are {tried}, so the rate is {rate}; in the race it takes "
                    f"{race[start][rate]} steps there"
                )


# -------------------------------------------------- 6: how long, and how far


@check
def one_se(student):
    gen = random.Random(0)
    cases = [
        ([1, 2, 4], [[0.5, 0.6], [0.85, 0.87], [0.89, 0.89]], 60),
        ([8, 2, 4], [[0.9, 0.9, 0.9], [0.88, 0.9, 0.89], [0.5, 0.6, 0.7]], 100),
        ([1, 4, 16], [[0.7, 0.72], [0.2, 0.9], [0.9, 0.92]], 1000),
    ]
    for _ in range(40):
        lengths = gen.sample([1, 2, 4, 8, 16, 32], 6)
        runs = [[round(gen.gauss(0.8, 0.05), 3) for _ in range(4)] for _ in lengths]
        cases.append((lengths, runs, gen.choice((50, 500, 5000))))
    for lengths, accuracies, n in cases:
        means = [mean(runs) for runs in accuracies]
        p, error = mean_error(accuracies[means.index(max(means))], n)
        bar = p - error
        if any(0 < abs(x - bar) < 1e-9 for x in means) or means.count(p) > 1:
            continue  # a tie, or too near to the bar for rounding to be fair
        want = min(P for P, x in zip(lengths, means) if x >= bar)
        got = student(list(lengths), [list(runs) for runs in accuracies], n)
        if got != want or isinstance(got, bool):
            return (
                f"for lengths {lengths}, accuracies {accuracies} and n={n} you return {got}, "
                f"expected {want}: the best mean is {p:.4f}, the bar is {bar:.4f}"
            )


@check
def still_seen(student):
    gen = random.Random(1)
    cases = [(64, 16, 0, 20), (64, 16, 32, 20), (64, 16, 48, 20), (4, 3, 0, 1), (4, 8, 0, 2)]
    for _ in range(40):
        cases.append((gen.randint(2, 20), gen.randint(1, 9), gen.randint(0, 12), gen.randint(1, 6)))
    for W, P, n, q in cases:
        last, keys = torch.tensor([[P + n + q - 1]]), torch.arange(P + n + q)[None]
        mask = visible(last, keys, torch.tensor([0]), W)  # (1, 1, S)
        got, want = student(W, P, n, q), int(mask[..., :P].sum())
        if got is None or got != want:
            return (
                f"for W={W}, P={P}, n={n} and q={q} you return {got}, it is {want}: the last token "
                f"is at position {P + n + q - 1}, and its window has {W} keys, itself included"
            )


@check
def reaches(student):
    for L, W, P in ((1, 3, 2), (2, 3, 4), (3, 4, 1), (2, 1, 3)):
        model, T = tiny(n_layer=L, window=W), 12
        soft = PromptTuning(torch.randn(P, 8))
        logits, _ = model(torch.randint(11, (1, T)), soft.past(model, pinned=False))  # (1, T, V)
        weights = torch.randn(11)  # (V,)
        for t in range(T):
            out = logits[0, t] @ weights
            grad = torch.zeros(P, 8)  # (P, C): where nothing is seen, there may be no graph
            if out.requires_grad:
                found = torch.autograd.grad(
                    out, soft.embeddings, retain_graph=True, allow_unused=True
                )[0]
                grad = grad if found is None else found
            for j in range(P):
                got, want = student(L, W, P, j, t), bool((grad[j] != 0).any())
                if got is None or bool(got) != want:
                    return (
                        f"for L={L}, W={W}, P={P}, j={j} and t={t} you return {got}, "
                        f"the gradient says {want}; the positions are {j} and {P + t}"
                    )


@check
def keys_seen(student):
    for P, W, pinned in ((3, 4, 3), (3, 4, 0), (5, 2, 2), (1, 8, 1), (0, 3, 0), (6, 1, 6)):
        for t in range(12):
            q, k = torch.tensor([[P + t]]), torch.arange(P + t + 1)[None]  # (1, 1), (1, S)
            want = int(visible(q, k, torch.tensor([pinned]), W).sum())
            got = student(t, P, W, pinned)
            if got is None or got != want:
                return (
                    f"for t={t}, P={P}, W={W} and pinned={pinned} you return {got}, it is "
                    f"{want}: the query is at position {P + t}, and no key counts twice"
                )


# -------------------------------------------------- 7: hundreds of prompts, and scale


@check
def mixed_logits(student):
    model, gen, calls = tiny(), torch.Generator().manual_seed(1), []
    model.model.layers[0].register_forward_hook(lambda *_: calls.append(None))
    for lengths, texts in (((3, 5, 1), (4, 2, 6)), ((2, 2), (3, 3)), ((4, 0, 7, 1), (1, 5, 2, 6))):
        vectors = [torch.randn(P, 8, generator=gen) for P in lengths]
        rows = [torch.randint(11, (T,), generator=gen).tolist() for T in texts]
        alone = []
        for x, row in zip(vectors, rows):
            logits, _ = model(torch.tensor([row]), PromptTuning(x).past(model))  # (1, T, V)
            alone.append(logits[0, -1])  # (V,)
        want = torch.stack(alone)  # (B, V)
        calls.clear()
        got = student(model, vectors, rows)
        wrong = differs(got, want, f"for prompts of {lengths} and texts of {texts} tokens,")
        if wrong:
            return wrong
        if len(calls) > 2:
            return (
                f"for {len(rows)} rows the model ran {len(calls)} times, expected one "
                "pass over the prompts and one over the texts"
            )


@check
def is_of_another_base(student):
    model, other, nudged = tiny(), tiny(seed=1), tiny()
    weight = nudged.model.layers[1].mlp.up_proj.weight
    weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(torch.inf))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prompt.pt"
        save(PromptTuning(torch.ones(3, 8)), path, model, task="any")
        for name, base, want in (
            ("its own base", model, False),
            ("another base", other, True),
            ("its base with one weight changed", nudged, True),
        ):
            got = student(path, base)
            if got is not want:
                return f"for a prompt on {name} you return {short(got)}, expected {want}"
        path.write_bytes(path.read_bytes()[:-100])
        try:
            got = student(path, model)
        except ValueError:
            return
        return f"for a damaged file you return {short(got)}, expected a ValueError"


@check
def gap_closed(student):
    cases = (
        ("the hard prompt is behind", 0.3, [0.7, 0.8], [0.9, 0.9], 0.75),
        ("one of three runs got stuck", 0.3, [0.8, 0.1, 0.8], [0.9, 0.9, 0.2], 5 / 6),
        ("the prompt is behind the hard prompt", 0.2, [0.1, 0.1], [0.4, 0.4], -0.5),
        ("the prompt is ahead of all weights", 0.5, [0.7, 0.8, 0.8], [0.6, 0.8, 0.7], 1.5),
        ("there is one seed", 0.5, [0.75], [1.0], 0.5),
        ("the hard prompt is level with all weights", 0.75, [0.5, 1.0], [0.5, 1.0], None),
        ("the hard prompt is ahead of all weights", 0.75, [0.5, 0.5], [0.5, 0.75], None),
    )
    for name, english, prompt, full, want in cases:
        got, about = student(english, list(prompt), list(full)), f"where {name}"
        if want is None and got is not None:
            return f"{about}, there is no gap: you return {short(got)}, expected None"
        if want is not None and (not isinstance(got, float) or abs(got - want) > 1e-6):
            return (
                f"{about} ({english}, {prompt}, {full}), you return {short(got)}, "
                f"expected {want:.4f}"
            )


# -------------------------------------------------- 8: a real model


@check
def likeliest(student):
    model, gen = tiny(), torch.Generator().manual_seed(4)
    for lengths in ((1, 3), (2, 2, 2), (1, 2, 4), (3, 1), (1, 2), (1, 1, 5), (2, 1), (4, 1, 3)):
        states = torch.randn(2, 2, 2, 3, 4, generator=gen)  # keys and values (L, Hkv, P, D)
        past = PrefixTuning(*states).requires_grad_(False).past(model)
        question, *answers = (
            torch.randint(11, (n,), generator=gen).tolist() for n in (3, *lengths)
        )
        total = []
        for answer in answers:
            logits, _ = model(torch.tensor([question + answer]), past)  # (1, T, V)
            chances = logits[0, len(question) - 1 : -1].log_softmax(1)  # (n, V)
            total.append(sum(float(row[i]) for row, i in zip(chances, answer)))
        want = max(range(len(total)), key=total.__getitem__)
        got = student(model, past, list(question), [list(answer) for answer in answers])
        if got is None or got != want:
            a_token = [x / n for x, n in zip(total, lengths)]
            why = ""
            if got == a_token.index(max(a_token)):
                why = ". Yours has the best mean over its tokens: take the sum"
            return (
                f"for answers of {lengths} tokens you return {got}; the logarithms of their "
                f"probabilities are {[round(x, 2) for x in total]}, so it is {want}{why}"
            )


@check
def distil_loss(student):
    gen = torch.Generator().manual_seed(6)
    for n, V, scale in ((1, 4, 1), (5, 7, 2), (3, 11, 300)):
        teacher, pupil = scale * torch.randn(2, n, V, generator=gen)
        p, q = teacher.log_softmax(1), pupil.log_softmax(1)  # (n, V) each
        want = F.kl_div(q, p, reduction="batchmean", log_target=True)  # ()
        about = f"for n={n}, V={V} and logits of about {scale}"
        got = student(teacher.clone(), teacher.clone())
        if torch.is_tensor(got) and got.dim() == 0 and not abs(float(got)) < 1e-4:
            return f"{about} teacher and student are the same, and you return {float(got):.4f}"
        got = student(teacher.clone(), pupil.clone())
        if torch.is_tensor(got) and got.shape == want.shape:
            other = F.kl_div(p, q, reduction="batchmean", log_target=True)  # ()
            for value, why in (
                (other, "teacher and student changed places"),
                (want * n, "this is the sum over the n positions, not the mean"),
                (want / V, "the mean is over the n positions, not over V as well"),
            ):
                if not torch.isclose(value, want) and torch.isclose(got, value, rtol=1e-4):
                    return f"{about} you return {got:.4f}, it is {want:.4f}: {why}"
        wrong = differs(got, want, about, 1e-4 * max(1, float(want)))
        if wrong:
            return wrong


@check
def peft_prefix(student):
    gen = torch.Generator().manual_seed(5)
    for L, Hkv, P, D in ((2, 3, 4, 2), (1, 1, 1, 4), (3, 2, 5, 2)):
        keys, values = torch.randn(2, L, Hkv, P, D, generator=gen)
        rows = []
        for p in range(P):
            parts = []
            for k, v in zip(keys, values):  # (Hkv, P, D) each
                parts += [k[:, p].flatten(), v[:, p].flatten()]  # (Hkv D,) each
            rows.append(torch.cat(parts))  # (2 L Hkv D,)
        want = torch.stack(rows)  # (P, 2 L Hkv D)
        wrong = differs(student(keys, values), want, f"for L={L}, Hkv={Hkv}, P={P}, D={D}")
        if wrong:
            return wrong
