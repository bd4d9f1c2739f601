"""For each exercise of the tutorials an answer as a student might give it, with a mistake in it."""

import math
from statistics import mean, median, variance

import torch
import torch.nn.functional as F

from model import Past
from softprompt import PromptTuning, load, prefill

WRONG = {}

# -------------------------------------------------- 1: a prompt is a matrix


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
    # forgets that each virtual token has C numbers
    "longest_prompt": lambda n_parameters, n_embd, share: int(share * n_parameters),
}

# -------------------------------------------------- 2: can you read it?


def _emptied(past, vector):
    positions = past.positions.clone()
    positions[:, vector] = -1
    return Past(past.keys, past.values, positions, past.pinned)


WRONG |= {
    # one distance for the whole prompt in place of one for each vector
    "random_steps": lambda start, tuned, noise: (
        start + (tuned - start).norm() * noise / noise.norm()
    ),
    # a dot product, in which long vectors of the table win
    "snap_to_tokens": lambda vectors, table: (vectors @ table.T).argmax(1),
    # an empty slot: the text moves up by one position
    "without_vector": _emptied,
    # the mistakes that both make, over all sentences in place of the first one's mistakes
    "same_mistakes": lambda first, second, truth: (
        sum(a == b for a, b in zip(first, second)) / len(first),
        sum(a == b != c for a, b, c in zip(first, second, truth)) / len(first),
    ),
}

# -------------------------------------------------- 3: attention and what it costs


def first_of_block(T, stride):
    t, s = torch.arange(T)[:, None], torch.arange(T)  # (T, 1), (T,)
    return (s <= t) & ((s // stride == t // stride) | (s % stride == 0))  # (T, T)


WRONG |= {
    # as many key heads as query heads
    "kv_cache_bytes": lambda config, T: (
        2 * config.n_layer * config.n_head * config.head_dim * T * 4
    ),
    # the first of each block in place of the last
    "fixed_pattern": first_of_block,
    # no maximum: exp overflows
    "running_lse": lambda parts: sum(part.exp().sum() for part in parts).log().item(),
    # the diagonal part counted in full
    "ring_work": lambda T, R: [(T // R) ** 2 * (r + 1) for r in range(R)],
}

# -------------------------------------------------- 4: a prefix is a learned cache


def seen_zeros(model, P):
    config = model.config
    zeros = [torch.zeros(1, config.n_kv_head, P, config.head_dim)] * config.n_layer
    return Past(zeros, zeros, torch.arange(P)[None])


WRONG |= {
    # query heads in place of key heads
    "count_numbers": lambda config, P: (
        P * config.n_embd,
        2 * config.n_layer * config.n_head * config.head_dim * P,
    ),
    # the gate the wrong way round
    "merge": lambda own, own_lse, prefix, prefix_lse: (
        own + torch.sigmoid(own_lse - prefix_lse)[:, None] * (prefix - own)
    ),
    # counts the keys, as if all scores were equal
    "zero_mass": lambda scores, P: torch.full(scores.shape[:-1], P / (P + scores.shape[-1])),
    # zeros that are seen
    "silent_prefix": seen_zeros,
}

# -------------------------------------------------- 5: where to start


def ratio_of_means(a, b, draws):
    ratios = sorted(mean(a[x] for x in i) / mean(b[x] for x in j) for i, j in draws)
    return ratios[5], ratios[-6]


WRONG |= {
    # the place in the list and not the step
    "steps_to": lambda steps, losses, threshold: next(
        (n for n, loss in enumerate(losses) if loss <= threshold), math.inf
    ),
    # means in place of medians
    "bootstrap_ratio": ratio_of_means,
    # the rate is chosen by the race itself: each start shows the best of many tries
    "fair_medians": lambda tuning, race: {
        start: min(((rate, median(steps)) for rate, steps in runs.items()), key=lambda p: p[1])
        for start, runs in race.items()
    },
}

# -------------------------------------------------- 6: how long, and how far


def seeds_only(lengths, accuracies, n):
    best = max(accuracies, key=mean)
    bar = mean(best) - (variance(best) / len(best)) ** 0.5
    return min(P for P, runs in zip(lengths, accuracies) if mean(runs) >= bar)


WRONG |= {
    # the spread of the seeds only: as if the sentences were all sentences there are
    "one_se": seeds_only,
    # a query sees W - 1 keys before itself, not W
    "reaches": lambda L, W, P, j, t: P + t - j <= L * W,
    # pinned keys that are near are counted twice
    "keys_seen": lambda t, P, W, pinned: min(W, P + t + 1) + pinned,
}

# -------------------------------------------------- 7: hundreds of prompts, and scale


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


WRONG |= {
    # padded on the right, but the last column read
    "mixed_logits": last_column,
    # takes every complaint of load for this one
    "is_of_another_base": any_error,
    # how much of all weights' accuracy, and not of what they have more than the hard prompt
    "gap_closed": lambda english, prompt, full: median(prompt) / median(full),
}

# -------------------------------------------------- 8: a real model


def mean_of_tokens(model, past, question, answers):
    found = []
    for answer in answers:
        logits, _ = model(torch.tensor([question + answer]), past)  # (1, T, V)
        chances = logits[0, len(question) - 1 : -1].log_softmax(1)  # (n, V)
        found.append(chances.gather(1, torch.tensor(answer)[:, None]).mean().item())
    return found.index(max(found))


WRONG |= {
    # the mean, which does not charge for length
    "likeliest": mean_of_tokens,
    # the student's probabilities as weights: the other direction
    "distil_loss": lambda teacher, student: F.kl_div(
        teacher.log_softmax(1), student.log_softmax(1), reduction="batchmean", log_target=True
    ),
    # all keys, then all values
    "peft_prefix": lambda keys, values: torch.cat(
        [x.permute(2, 0, 1, 3).flatten(1) for x in (keys, values)], 1
    ),
}
