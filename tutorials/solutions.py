"""Solutions of the exercises, by the names that checks.py knows."""

import math
from collections import Counter
from statistics import mean, median, stdev

import torch
import torch.nn.functional as F

from model import Past, read
from softprompt import PromptTuning, prefill


# -------------------------------------------------- 1: what a soft prompt is


def vectors_before_text(model, vectors, idx):
    text = model.model.embed_tokens(idx)  # (B, T, C)
    shared = vectors.expand(len(idx), -1, -1)  # (B, P, C)
    logits, _ = model(embeds=torch.cat((shared, text), 1))  # (B, P + T, V)
    return logits[:, len(vectors) :]  # (B, T, V)


def one_prompt_step(model, vectors, idx, targets, rate):
    soft = PromptTuning(vectors)  # keeps a copy
    model.loss(idx, targets, soft.past(model)).backward()
    return vectors - rate * soft.embeddings.grad  # (P, C)


def snap_to_tokens(vectors, table):
    return (F.normalize(vectors, dim=1) @ F.normalize(table, dim=1).T).argmax(1)  # (P,)


def longest_prompt(n_parameters, n_embd, share):
    return int(share * n_parameters / n_embd)


# -------------------------------------------------- 2: attention and what it costs


def kv_cache_bytes(config, T):
    return 2 * config.n_layer * config.n_kv_head * config.head_dim * T * 4


def fixed_pattern(T, stride):
    t, s = torch.arange(T)[:, None], torch.arange(T)  # (T, 1), (T,)
    return (s <= t) & ((s // stride == t // stride) | (s % stride == stride - 1))  # (T, T)


def running_lse(parts):
    top, total = -math.inf, 0.0
    for part in parts:
        new = max(top, part.max().item())
        total = total * math.exp(top - new) + (part - new).exp().sum().item()
        top = new
    return top + math.log(total)


def ring_work(T, R):
    n = T // R
    return [n * (n + 1) // 2 + r * n * n for r in range(R)]


# -------------------------------------------------- 3: prefix tuning is a learned cache


def zero_mass(scores, P):
    return P / (P + scores.exp().sum(-1))  # (...)


def merge(own, own_lse, prefix, prefix_lse):
    m = torch.sigmoid(prefix_lse - own_lse)[:, None]  # (T, 1)
    return (1 - m) * own + m * prefix  # (T, D)


def count_numbers(config, P):
    return P * config.n_embd, 2 * config.n_layer * config.n_kv_head * config.head_dim * P


def silent_prefix(model, P):
    config = model.config
    none = [torch.zeros(1, config.n_kv_head, P, config.head_dim)] * config.n_layer
    return Past(none, none, torch.full((1, P), -1))


# -------------------------------------------------- 4: initialization and length


def steps_to(steps, losses, threshold):
    return next((step for step, loss in zip(steps, losses) if loss <= threshold), None)


def one_se(lengths, accuracies):
    best = max(accuracies, key=mean)
    bar = mean(best) - stdev(best) / len(best) ** 0.5
    return min(P for P, runs in zip(lengths, accuracies) if mean(runs) >= bar)


def reaches(L, W, P, j, t):
    return P + t - j <= L * (W - 1)


def bootstrap_ratio(a, b, draws):
    ratios = sorted(median(a[x] for x in i) / median(b[x] for x in j) for i, j in draws)
    n = round(0.025 * (len(draws) - 1))
    return ratios[n], ratios[-1 - n]


# -------------------------------------------------- 5: hundreds of prompts, one model


def mixed_logits(model, vectors, rows):
    T = max(map(len, rows))
    idx = torch.tensor([[-1] * (T - len(row)) + row for row in rows])  # (B, T)
    logits, _ = model(idx, prefill([PromptTuning(x) for x in vectors], model))  # (B, T, V)
    return logits[:, -1]  # (B, V)


def vote(answers):
    return [Counter(each).most_common(1)[0][0] for each in zip(*answers)]


def refuse(path, model):
    return read(path, "a soft prompt", ("kind", "base"))["base"] != model.fingerprint()


def neighbours(prompts):
    means = F.normalize(torch.stack([x.mean(0) for x in prompts]), dim=1)  # (N, C)
    return (means @ means.T).fill_diagonal_(-2).argmax(1).tolist()  # (N, N) -> N


# -------------------------------------------------- 6: a real model


def as_examples(pairs):
    return "\n".join(f"{text} -> {answer}" for text, answer in pairs)


def likeliest(model, past, question, answers):
    total = []
    for answer in answers:
        logits, _ = model(torch.tensor([question + answer]), past)  # (1, T, V)
        chances = logits[0, len(question) - 1 : -1].log_softmax(1)  # (n, V)
        total.append(chances.gather(1, torch.tensor(answer)[:, None]).sum())  # ()
    return int(torch.stack(total).argmax())


def peft_prefix(keys, values):
    both = torch.stack((keys, values))  # (2, L, Hkv, P, D)
    return both.permute(3, 1, 0, 2, 4).flatten(1)  # (P, 2 L Hkv D)
