"""The exercises of class 7: our function, its inputs, and the mistakes that many make."""

from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory

import torch

from model import GPT, GPTConfig, read
from softprompt import PromptTuning, load, prefill, save


def small_model():
    """A small base, the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GPT(GPTConfig(11, 32, 2, 4, 32, 2)).requires_grad_(False)


def mixed_logits(model, vectors, rows):
    """vectors: B tensors (P_i, C); rows: B lists of ids -> logits (B, V) at the last tokens."""
    T = max(map(len, rows))
    idx = torch.tensor([[-1] * (T - len(row)) + row for row in rows])  # (B, T)
    past = prefill([PromptTuning(x) for x in vectors], model)
    logits, _ = model(idx, past)  # (B, T, V)
    return logits[:, -1]  # (B, V)


def mixed_logits_inputs():
    gen = torch.Generator().manual_seed(0)
    three = [torch.randn(P, 32, generator=gen) for P in (4, 1, 2)]
    two = [torch.randn(3, 32, generator=gen) for _ in range(2)]
    model = small_model()
    return [(model, three, [[1, 2], [3, 4, 5, 6], [7]]), (model, two, [[1, 2, 3], [8, 9, 10]])]


def padded_on_the_right(model, vectors, rows):
    T = max(map(len, rows))
    idx = torch.tensor([row + [-1] * (T - len(row)) for row in rows])  # (B, T)
    past = prefill([PromptTuning(x) for x in vectors], model)
    return model(idx, past)[0][:, -1]  # (B, V)


def padded_with_token_0(model, vectors, rows):
    T = max(map(len, rows))
    return mixed_logits(model, vectors, [[0] * (T - len(row)) + row for row in rows])


def first_prompt_for_all(model, vectors, rows):
    return mixed_logits(model, [vectors[0]] * len(rows), rows)


mixed_logits_mistakes = {
    "in the last column a short text has an empty slot: fill up on the left": padded_on_the_right,
    "you fill up with 0, which is a token: an empty slot is -1": padded_with_token_0,
    "every text has a prompt of its own": first_prompt_for_all,
}


def gap_closed(words, prompt, full):
    """The hard prompt's accuracy, two lists of accuracies (one a seed) -> the part of the gap
    closed, or None."""
    gap = median(full) - words
    if gap <= 0:
        return None
    return (median(prompt) - words) / gap


def gap_closed_inputs():
    return [
        (0.4, [0.9, 0.8, 0.1], [0.9, 0.9, 0.7]),
        (0.5, [0.4, 0.4, 0.3], [0.6, 0.8, 0.7]),
        (0.8, [0.8, 0.9, 0.9], [0.7, 0.8, 0.9]),
        (0.8, [0.9, 0.9, 0.9], [0.7, 0.7, 0.9]),
    ]


def share_of_all(words, prompt, full):
    return None if median(full) <= words else median(prompt) / median(full)


def of_means(words, prompt, full):
    gap = mean(full) - words
    return None if gap <= 0 else (mean(prompt) - words) / gap


def without_none(words, prompt, full):
    gap = median(full) - words
    return (median(prompt) - words) / gap if gap else None


gap_closed_mistakes = {
    "the way begins at the words: take their accuracy from both": share_of_all,
    "take medians over the seeds, not means": of_means,
    "where all weights are worse than words there is no gap: return None": without_none,
}


FILES = TemporaryDirectory()


def base_in_file(path, model):
    """One of "this base", "another base" and "damaged": the file cannot be read."""
    try:
        content = read(path, "a soft prompt", ("kind", "base"))
    except ValueError:
        return "damaged"
    return "this base" if content["base"] == model.fingerprint() else "another base"


def base_in_file_inputs():
    model, other = small_model(), small_model()
    other.model.norm.weight[0] += 1
    whole, cut = Path(FILES.name) / "whole.pt", Path(FILES.name) / "cut.pt"
    save(PromptTuning(torch.ones(2, 32)), whole, model)
    cut.write_bytes(whole.read_bytes()[:-9])
    return [(whole, model), (whole, other), (cut, model)]


def refused_by_load(path, model):
    try:
        load(path, model)
    except ValueError:
        return "another base"
    return "this base"


def compared_shapes(path, model):
    try:
        load(path, model)
    except ValueError as problem:
        return "damaged" if "damaged" in str(problem) else "this base"
    return "this base"


base_in_file_mistakes = {
    "`load` also refuses a damaged file: read the file yourself": refused_by_load,
    "a base of the same shape may have other weights: compare fingerprints": compared_shapes,
}
