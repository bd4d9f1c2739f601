"""For each exercise of the tutorials an answer as a student might give it, with a mistake in it."""

import torch

from model import Past
from softprompt import PromptTuning

WRONG = {}

# -------------------------------------------------- 1: what a soft prompt is


def _first(model, vectors, idx):
    text = model.model.embed_tokens(idx)
    logits, _ = model(embeds=torch.cat((vectors.expand(len(idx), -1, -1), text), 1))
    return logits[:, : idx.shape[1]]


def _up(model, vectors, idx, targets, rate):
    soft = PromptTuning(vectors)
    model.loss(idx, targets, soft.past(model)).backward()
    return vectors + rate * soft.embeddings.grad


WRONG |= {
    # the first T logits in place of the last
    "vectors_before_text": _first,
    # up the gradient in place of down
    "one_prompt_step": _up,
    # products without dividing by the lengths: long rows win
    "snap_to_tokens": lambda vectors, table: (vectors @ table.T).argmax(1),
    # forgets that each virtual token has C numbers
    "longest_prompt": lambda n_parameters, n_embd, share: int(share * n_parameters),
}

# -------------------------------------------------- 2: attention and what it costs

WRONG |= {
    # as many key heads as query heads
    "kv_cache_bytes": lambda config, T: (
        2 * config.n_layer * config.n_head * config.head_dim * T * 4
    ),
    # the first of each block in place of the last
    "fixed_pattern": lambda T, stride: (
        torch.ones(T, T, dtype=torch.bool).tril()
        & (
            (torch.arange(T)[:, None] // stride == torch.arange(T) // stride)
            | (torch.arange(T) % stride == 0)
        )
    ),
    # no maximum: exp overflows
    "running_lse": lambda parts: sum(part.exp().sum() for part in parts).log().item(),
    # the diagonal part counted in full
    "ring_work": lambda T, R: [(T // R) ** 2 * (r + 1) for r in range(R)],
}

# -------------------------------------------------- 3: prefix tuning is a learned cache

WRONG |= {
    # counts the keys, as if all scores were equal
    "zero_mass": lambda scores, P: torch.full(scores.shape[:-1], P / (P + scores.shape[-1])),
    # the gate the wrong way round
    "merge": lambda own, own_lse, prefix, prefix_lse: (
        own + torch.sigmoid(own_lse - prefix_lse)[:, None] * (prefix - own)
    ),
    # query heads in place of key heads
    "count_numbers": lambda config, P: (
        P * config.n_embd,
        2 * config.n_layer * config.n_head * config.head_dim * P,
    ),
    # zeros that are seen
    "silent_prefix": lambda model, P: Past(
        *[[torch.zeros(1, model.config.n_kv_head, P, model.config.head_dim)] * model.config.n_layer]
        * 2,
        torch.arange(P)[None],
    ),
}
