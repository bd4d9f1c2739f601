"""The exercises of class 1: our function, its inputs, and the mistakes that many make."""

import torch

from model import GPT, GPTConfig
from softprompt import PromptTuning


def frozen_model():
    """A model of random weights, small enough that a check takes no time."""
    torch.manual_seed(1)
    model = GPT(GPTConfig(vocab_size=11, block_size=16, n_layer=2, n_head=2, n_embd=8))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5)  # large enough that a mistake is seen
    return model.requires_grad_(False)


def some_vectors(P):
    return torch.randn(P, 8, generator=torch.Generator().manual_seed(P))  # (P, C)


def some_ids(B, T):
    return torch.randint(11, (B, T), generator=torch.Generator().manual_seed(B + T))  # (B, T)


# ------------------------------------------------------------------ vectors before the text


def vectors_before_text(model, vectors, idx):
    """vectors (P, C), idx (B, T) ids -> logits (B, T, V) of the text behind the vectors."""
    P, B = len(vectors), len(idx)
    text = model.model.embed_tokens(idx)  # (B, T, C)
    embeds = torch.cat((vectors.expand(B, -1, -1), text), 1)  # (B, P + T, C)
    logits, _ = model(embeds=embeds)  # (B, P + T, V)
    return logits[:, P:]  # (B, T, V)


def vectors_before_text_inputs():
    model = frozen_model()
    return [
        (model, some_vectors(3), some_ids(2, 4)),
        (model, some_vectors(2), some_ids(1, 5)),
        (model, some_vectors(4), some_ids(3, 4)),
    ]


def text_first(model, vectors, idx):
    """Behind the text, whose logits then know nothing of the vectors."""
    text = model.model.embed_tokens(idx)  # (B, T, C)
    logits, _ = model(embeds=torch.cat((text, vectors.expand(len(idx), -1, -1)), 1))
    return logits[:, : idx.shape[1]]  # (B, T, V)


def first_slots(model, vectors, idx):
    """The logits of the first T slots."""
    text = model.model.embed_tokens(idx)  # (B, T, C)
    logits, _ = model(embeds=torch.cat((vectors.expand(len(idx), -1, -1), text), 1))
    return logits[:, : idx.shape[1]]  # (B, T, V)


def all_slots(model, vectors, idx):
    """The logits of all P + T slots."""
    text = model.model.embed_tokens(idx)  # (B, T, C)
    logits, _ = model(embeds=torch.cat((vectors.expand(len(idx), -1, -1), text), 1))
    return logits  # (B, P + T, V)


vectors_before_text_mistakes = {
    "these are the logits of the first T slots; the text stands behind P vectors": first_slots,
    "these are the logits of all P + T slots; cut those of the vectors away": all_slots,
    "the text stands first; the vectors come before it": text_first,
}

# ------------------------------------------------------------------ a step


def one_prompt_step(model, vectors, idx, targets, rate):
    """vectors (P, C), idx and targets (B, T) -> the vectors after one step (P, C)."""
    soft = PromptTuning(vectors)
    loss = model.loss(idx, targets, soft.past(model))
    loss.backward()
    return vectors - rate * soft.embeddings.grad  # (P, C)


def one_prompt_step_inputs():
    model = frozen_model()
    return [
        (model, some_vectors(3), some_ids(2, 5), some_ids(3, 5)[:2], 0.1),
        (model, some_vectors(2), some_ids(1, 4), some_ids(2, 4)[:1], 1.0),
    ]


def uphill(model, vectors, idx, targets, rate):
    """Up the gradient."""
    return 2 * vectors - one_prompt_step(model, vectors, idx, targets, rate)


def gradient_alone(model, vectors, idx, targets, rate):
    """The gradient in place of the vectors after the step."""
    return (vectors - one_prompt_step(model, vectors, idx, targets, rate)) / rate


def no_rate(model, vectors, idx, targets, rate):
    """The rate is forgotten."""
    return one_prompt_step(model, vectors, idx, targets, 1.0)


one_prompt_step_mistakes = {
    "you go up the gradient, and the loss grows; take rate times gradient away": uphill,
    "this is the gradient; return the vectors minus rate times gradient": gradient_alone,
    "the step does not depend on the rate; multiply the gradient by it": no_rate,
}

# ------------------------------------------------------------------ homework


def longest_prompt(n_parameters, n_embd, share):
    """The largest P, an int, whose P C numbers are at most `share` times the parameters."""
    return int(share * n_parameters / n_embd)


def longest_prompt_inputs():
    return [
        (1_557_611_200, 1600, 1e-5),
        (6_738_415_616, 4096, 1e-5),
        (1_000_576, 128, 1e-5),
        (1_000_576, 128, 0.01),
        (10_240, 128, 0.125),
    ]


longest_prompt_mistakes = {
    "you count numbers; each virtual token has C of them": lambda N, C, share: int(share * N),
    "you round up; a part of a virtual token does not help": (
        lambda N, C, share: -int(-share * N // C)
    ),
}
