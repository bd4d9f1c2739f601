"""Solutions of the exercises, by the names that checks.py knows."""

import math
from statistics import mean, median, variance

import torch
import torch.nn.functional as F

from model import Past, read
from softprompt import PromptTuning, prefill

# -------------------------------------------------- 1: a prompt is a matrix


def vectors_before_text(model, vectors, idx):
    """vectors (P, C), idx (B, T) ids -> logits (B, T, V) of the text behind the vectors."""
    text = model.model.embed_tokens(idx)  # (B, T, C)
    shared = vectors.expand(len(idx), -1, -1)  # (B, P, C)
    logits, _ = model(embeds=torch.cat((shared, text), 1))  # (B, P + T, V)
    return logits[:, len(vectors) :]  # (B, T, V)


def one_prompt_step(model, vectors, idx, targets, rate):
    """vectors (P, C), idx and targets (B, T) -> the vectors after one step (P, C), no gradient."""
    moving = vectors.clone().requires_grad_()  # (P, C), a copy
    _, past = model(embeds=moving[None])
    model.loss(idx, targets, past).backward()
    return vectors - rate * moving.grad  # (P, C)


def longest_prompt(n_parameters, n_embd, share):
    """The largest P, an int, whose P C numbers are at most `share` times the parameters."""
    return int(share * n_parameters / n_embd)


# -------------------------------------------------- 2: can you read it?


def random_steps(start, tuned, noise):
    """start, tuned, noise (P, C) -> (P, C): from start, as far as tuned, but along the noise."""
    distances = (tuned - start).norm(dim=1, keepdim=True)  # (P, 1)
    return start + distances * F.normalize(noise, dim=1)  # (P, C)


def snap_to_tokens(vectors, table):
    """vectors (P, C), table (V, C) -> ids (P,) of the nearest rows by cosine."""
    cosines = F.normalize(vectors, dim=1) @ F.normalize(table, dim=1).T  # (P, V)
    return cosines.argmax(1)  # (P,)


def without_vector(past, vector):
    """A past like this one, but no text behind it sees virtual token `vector`, counted from 0.
    The text keeps its positions, and the given past is not changed."""
    positions = past.positions.clone()  # (B, P)
    positions[:, vector] = 2**20  # in the future of every text
    return Past(past.keys, past.values, positions, past.pinned)


def same_mistakes(first, second, truth):
    """Three lists of answers -> two shares: how often first and second are equal, of all sentences
    and of those that first gets wrong (None where it gets none wrong)."""
    same = [a == b for a, b in zip(first, second)]
    mistakes = [a == b for a, b, right in zip(first, second, truth) if a != right]
    return sum(same) / len(same), sum(mistakes) / len(mistakes) if mistakes else None


# -------------------------------------------------- 3: attention and what it costs


def kv_cache_bytes(config, T):
    """The bytes of keys and values of T tokens in all layers, one row, float32: an int."""
    numbers = 2 * config.n_layer * config.n_kv_head * config.head_dim * T  # keys and values
    return 4 * numbers


def fixed_pattern(T, stride):
    """True where a query (row) sees a key (column): a bool tensor (T, T)."""
    t, s = torch.arange(T)[:, None], torch.arange(T)  # (T, 1), (T,)
    same_block = s // stride == t // stride  # (T, T)
    last_of_block = s % stride == stride - 1  # (T,)
    return (s <= t) & (same_block | last_of_block)  # (T, T)


def running_lse(parts):
    """The log-sum-exp of all scores in all parts: a float."""
    top, total = -math.inf, 0.0
    for part in parts:
        new = max(top, part.max().item())
        total = total * math.exp(top - new)  # what was summed so far, with the new maximum
        total += (part - new).exp().sum().item()
        top = new
    return top + math.log(total)


def ring_work(T, R):
    """The pairs of workers 0 to R - 1: a list of R ints. T is a multiple of R."""
    n = T // R  # tokens of a worker
    own = n * (n + 1) // 2  # pairs with its own keys
    return [own + r * n * n for r in range(R)]  # and with all keys of the r workers before it


# -------------------------------------------------- 4: a prefix is a learned cache


def count_numbers(config, P):
    """How many numbers are learned: (in a prompt, in a prefix) of P virtual tokens."""
    return P * config.n_embd, 2 * config.n_layer * config.n_kv_head * config.head_dim * P


def merge(own, own_lse, prefix, prefix_lse):
    """Attention over both, (T, D), from the text's output (T, D) and lse (T,) and the prefix's."""
    m = torch.sigmoid(prefix_lse - own_lse)[:, None]  # (T, 1)
    return (1 - m) * own + m * prefix  # (T, D)


def zero_mass(scores, P):
    """The share of P zero keys beside keys with these scores: (..., S) -> (...)."""
    return P / (P + scores.exp().sum(-1))  # (...)


def silent_prefix(model, P):
    """A Past of one row with P slots that nobody ever sees."""
    config = model.config
    none = [torch.zeros(1, config.n_kv_head, P, config.head_dim)] * config.n_layer
    return Past(none, none, torch.full((1, P), -1))


# -------------------------------------------------- 5: where to start


def steps_to(steps, losses, threshold):
    """The first of `steps` with a loss at or below the threshold, math.inf where there is none.
    steps: a list of ints, going up. losses: a list of floats, as many."""
    for step, loss in zip(steps, losses):
        if loss <= threshold:
            return step
    return math.inf


def bootstrap_ratio(a, b, draws):
    """The 95 % interval (low, high) of median(a) / median(b).
    a, b: lists of numbers. draws: pairs (indices into a, indices into b), lists of ints."""
    ratios = sorted(median(a[x] for x in i) / median(b[x] for x in j) for i, j in draws)
    n = round(0.025 * (len(draws) - 1))
    return ratios[n], ratios[-1 - n]


def fair_medians(tuning, race):
    """tuning and race are {start: {rate: [steps]}}, with the same starts and the same rates
    -> {start: (rate, steps)}: the rate with the lowest median in tuning (the first of equals), and
    the median of the start's steps in the race at that rate."""
    fair = {}
    for start, tried in tuning.items():
        rate = min(tried, key=lambda rate: median(tried[rate]))  # the race has no say in this
        fair[start] = (rate, median(race[start][rate]))
    return fair


# -------------------------------------------------- 6: how long, and how far


def one_se(lengths, accuracies, n):
    """lengths in any order, for each of them a list of runs, all on the same n sentences
    -> one of the lengths. The standard error is that of seeds and sentences, as above."""
    found = []  # (mean, standard error) of each length
    for runs in accuracies:
        p = mean(runs)
        found.append((p, (variance(runs) / len(runs) + p * (1 - p) / n) ** 0.5))
    best, error = max(found)
    return min(P for P, (p, _) in zip(lengths, found) if p >= best - error)


def reaches(L, W, P, j, t):
    """L layers, window W, nothing pinned: True where virtual token j (from 0) of P can change the
    logits at text position t (from 0), else False."""
    distance = P + t - j  # text position t stands behind all P virtual tokens
    return distance <= L * (W - 1)


def keys_seen(t, P, W, pinned):
    """How many keys the query at text position t (from 0) sees in one layer, itself included,
    behind P virtual tokens, of which the first `pinned` are pinned (0 <= pinned <= P)."""
    before = P + t + 1  # all keys up to the query itself
    near = min(W, before)
    return near + min(pinned, before - near)


# -------------------------------------------------- 7: hundreds of prompts, and scale


def mixed_logits(model, vectors, rows):
    """vectors: B tensors (P_i, C); rows: B lists of ids -> logits (B, V) at the last tokens."""
    T = max(map(len, rows))
    idx = torch.tensor([[-1] * (T - len(row)) + row for row in rows])  # (B, T)
    past = prefill([PromptTuning(x) for x in vectors], model)
    logits, _ = model(idx, past)  # (B, T, V)
    return logits[:, -1]  # (B, V)


def is_of_another_base(path, model):
    """True where the prompt in the file is of another base, False where it is of this one."""
    content = read(path, "a soft prompt", ("kind", "base"))
    return content["base"] != model.fingerprint()


def gap_closed(english, prompt, full):
    """The hard prompt's accuracy, two lists of accuracies (one a seed) -> the part of the gap
    closed, or None."""
    gap = median(full) - english
    if gap <= 0:
        return None
    return (median(prompt) - english) / gap


# -------------------------------------------------- 8: a real model


def likeliest(model, past, question, answers):
    """The index of the likeliest of `answers` (lists of ids) behind `question` (a list of ids).
    `past` (one row, or None) comes before both."""
    total = []
    for answer in answers:
        logits, _ = model(torch.tensor([question + answer]), past)  # (1, T, V)
        chances = logits[0, len(question) - 1 : -1].log_softmax(1)  # (n, V)
        total.append(chances.gather(1, torch.tensor(answer)[:, None]).sum())  # ()
    return int(torch.stack(total).argmax())


def distil_loss(teacher, student):
    """Logits (n, V) of the teacher and the student -> mean divergence over n in nats, a scalar."""
    p, q = teacher.log_softmax(-1), student.log_softmax(-1)  # (n, V) each
    return (p.exp() * (p - q)).sum(-1).mean()  # ()


def peft_prefix(keys, values):
    """Keys and values (L, Hkv, P, D) -> (P, 2 L Hkv D)."""
    both = torch.stack((keys, values))  # (2, L, Hkv, P, D)
    return both.permute(3, 1, 0, 2, 4).flatten(1)  # (P, 2 L Hkv D)
