"""For each exercise of the tutorials an answer as a student might give it, with a mistake in it."""

from statistics import mean, stdev

import torch
import torch.nn.functional as F

from model import Past
from softprompt import PromptTuning, load, prefill

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
        2 * config.n_layer * config.n_head * config.head_dim * T * 4),
    # the first of each block in place of the last
    "fixed_pattern": lambda T, stride: (
        torch.ones(T, T, dtype=torch.bool).tril()
        & (
            (torch.arange(T)[:, None] // stride == torch.arange(T) // stride)
            | (torch.arange(T) % stride == 0))
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
        own + torch.sigmoid(own_lse - prefix_lse)[:, None] * (prefix - own)),
    # query heads in place of key heads
    "count_numbers": lambda config, P: (
        P * config.n_embd, 2 * config.n_layer * config.n_head * config.head_dim * P),
    # zeros that are seen
    "silent_prefix": lambda model, P: Past(
        *[[torch.zeros(1, model.config.n_kv_head, P, model.config.head_dim)] * model.config.n_layer]
        * 2, torch.arange(P)[None]),
}

# -------------------------------------------------- 4: initialization and length

WRONG |= {
    # the place in the list and not the step
    "steps_to": lambda steps, losses, threshold: next(
        (n for n, loss in enumerate(losses) if loss <= threshold), None),
    # the spread of the runs in place of the standard error of their mean
    "one_se": lambda lengths, accuracies: min(
        P for P, runs in zip(lengths, accuracies)
        if mean(runs) >= mean(max(accuracies, key=mean)) - stdev(max(accuracies, key=mean))),
    # a query sees W - 1 keys before itself, not W
    "reaches": lambda L, W, P, j, t: P + t - j <= L * W,
    # means in place of medians
    "bootstrap_ratio": lambda a, b, draws: (lambda r: (r[5], r[-6]))(
        sorted(mean(a[x] for x in i) / mean(b[x] for x in j) for i, j in draws)),
}

# -------------------------------------------------- 5: hundreds of prompts, one model

def last_column(model, vectors, rows):
    T = max(map(len, rows))
    idx = torch.tensor([row + [-1] * (T - len(row)) for row in rows])  # (B, T)
    return model(idx, prefill([PromptTuning(x) for x in vectors], model))[0][:, -1]  # (B, V)

def any_error(path, model):
    try:
        load(path, model)
    except ValueError:
        return True
    return False

def nearest(prompts):
    means = F.normalize(torch.stack([x.mean(0) for x in prompts]), dim=1)  # (N, C)
    return (means @ means.T).argmax(1).tolist()

WRONG |= {
    # padded on the right, but the last column read
    "mixed_logits": last_column,
    # a tie goes to the first of the alphabet
    "vote": lambda answers: [max(sorted(set(each)), key=each.count) for each in zip(*answers)],
    # takes every complaint of load for this one
    "refuse": any_error,
    # every prompt is nearest to itself
    "neighbours": nearest,
}

# -------------------------------------------------- 6: a real model

def mean_of_tokens(model, past, question, answers):
    found = []
    for answer in answers:
        logits, _ = model(torch.tensor([question + answer]), past)  # (1, T, V)
        chances = logits[0, len(question) - 1 : -1].log_softmax(1)  # (n, V)
        found.append(chances.gather(1, torch.tensor(answer)[:, None]).mean().item())
    return found.index(max(found))

WRONG |= {
    # the last line ends too, and an empty line follows
    "as_examples": lambda pairs: "".join(f"{text} -> {answer}\n" for text, answer in pairs),
    # the mean, which does not charge for length
    "likeliest": mean_of_tokens,
    # all keys, then all values
    "peft_prefix": lambda keys, values: torch.cat(
        [x.permute(2, 0, 1, 3).flatten(1) for x in (keys, values)], 1),
}
