"""Solutions of the exercises, by the names that checks.py knows."""

import math

import torch
import torch.nn.functional as F

from model import Past
from softprompt import PromptTuning


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
