"""The exercises of class 4: our function, its inputs, and the mistakes that many make."""

import torch

from model import GPT, GPTConfig, Past


def count_numbers(config, P):
    """How many numbers are learned: (in a prompt, in a prefix) of P virtual tokens."""
    return P * config.n_embd, 2 * config.n_layer * config.n_kv_head * config.head_dim * P


def count_numbers_inputs():
    return [
        (GPTConfig(11, 16, n_layer=2, n_head=4, n_embd=32, n_kv_head=2), 5),
        (GPTConfig(11, 16, n_layer=3, n_head=6, n_embd=24, n_kv_head=1, head_dim=10), 7),
    ]


def count_all_heads(config, P):
    return P * config.n_embd, 2 * config.n_layer * config.n_head * config.head_dim * P


def count_one_layer(config, P):
    return P * config.n_embd, 2 * config.n_kv_head * config.head_dim * P


def count_keys_alone(config, P):
    return P * config.n_embd, config.n_layer * config.n_kv_head * config.head_dim * P


count_numbers_mistakes = {
    "you count query heads; only key heads have keys and values": count_all_heads,
    "a prefix has keys and values in every layer": count_one_layer,
    "a prefix has keys and values, not keys alone": count_keys_alone,
}


def zero_share(scores, P):
    """The share of P keys of zeros beside keys with these scores: (..., S) -> (...)."""
    return P / (P + scores.exp().sum(-1))  # (...)


def zero_share_inputs():
    gen = torch.Generator().manual_seed(0)
    cases = [((5,), 3), ((2, 4, 6), 1), ((3, 2), 0), ((4, 3), 50)]
    return [(torch.randn(shape, generator=gen), P) for shape, P in cases]


def share_by_number(scores, P):
    return torch.full(scores.shape[:-1], P / (P + scores.shape[-1]))


def share_of_nothing(scores, P):
    return torch.zeros(scores.shape[:-1])


def share_of_the_text(scores, P):
    return 1 - zero_share(scores, P)


zero_share_mistakes = {
    "you count keys, as if all scores were equal": share_by_number,
    "a score of 0 is not a weight of 0: exp(0) = 1": share_of_nothing,
    "this is what is left for the text": share_of_the_text,
}


def merge(own, own_lse, prefix, prefix_lse):
    """Attention over both, (T, D), from the text's output (T, D) and lse (T,) and the prefix's."""
    share = torch.sigmoid(prefix_lse - own_lse)[:, None]  # (T, 1)
    return (1 - share) * own + share * prefix  # (T, D)


def merge_inputs():
    gen = torch.Generator().manual_seed(1)
    return [merge_input(4, 3, 5, gen), merge_input(4, 1, 1, gen), merge_input(6, 6, 2, gen)]


def merge_input(T, P, S, gen, D=8):
    """Outputs and lse of T queries over S keys of a text, and over P keys of a prefix."""
    q, k, v = (torch.randn(n, D, generator=gen) for n in (T, P + S, P + S))
    scores = q @ k.T / D**0.5  # (T, P + S)
    of_prefix, of_text = scores[:, :P], scores[:, P:]  # (T, P), (T, S)
    own = of_text.softmax(1) @ v[P:], of_text.logsumexp(1)
    return *own, of_prefix.softmax(1) @ v[:P], of_prefix.logsumexp(1)


def merge_the_wrong_way(own, own_lse, prefix, prefix_lse):
    return merge(own, prefix_lse, prefix, own_lse)


def merge_by_half(own, own_lse, prefix, prefix_lse):
    return (own + prefix) / 2


merge_mistakes = {
    "text and prefix have changed places in the share": merge_the_wrong_way,
    "the two do not weigh the same: use their lse": merge_by_half,
}


def silent_prefix(model, P):
    """A Past of one row with P slots that nobody ever sees; its keys and values are zeros."""
    config = model.config
    none = [torch.zeros(1, config.n_kv_head, P, config.head_dim)] * config.n_layer
    return Past(none, none, torch.full((1, P), -1))


def silent_prefix_inputs():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shapes = [GPTConfig(11, 16, 2, 4, 32, n_kv_head) for n_kv_head in (4, 2)]
        return [(GPT(shapes[0]), 3), (GPT(shapes[1]), 8)]


def zeros_that_are_seen(model, P):
    past = silent_prefix(model, P)
    return Past(past.keys, past.values, torch.arange(P)[None])


def hidden_in_the_future(model, P):
    past = silent_prefix(model, P)
    return Past(past.keys, past.values, torch.full((1, P), 2**20))


silent_prefix_mistakes = {
    "these zeros are seen: they take a share of the attention": zeros_that_are_seen,
    "nobody sees these slots, but the text starts P positions later": hidden_in_the_future,
}
