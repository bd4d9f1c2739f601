"""The exercises of class 2: our function, its inputs, and the mistakes that many make."""

import torch
import torch.nn.functional as F

from model import Past

# ------------------------------------------------------------------ nearest tokens


def snap_to_tokens(vectors, table):
    """vectors (P, C), table (V, C) -> ids (P,) of the rows of the table nearest by cosine."""
    cosines = F.normalize(vectors, dim=1) @ F.normalize(table, dim=1).T  # (P, V)
    return cosines.argmax(1)  # (P,)


def snap_to_tokens_inputs():
    generator = torch.Generator().manual_seed(3)
    inputs = []
    for P, V, C in ((4, 9, 5), (1, 20, 3), (6, 6, 4)):
        lengths = torch.linspace(0.2, 3, V)[:, None]  # some rows are much longer than others
        table = torch.randn(V, C, generator=generator) * lengths  # (V, C)
        inputs.append((torch.randn(P, C, generator=generator), table))
    return inputs


def least_cosine(vectors, table):
    """The token that lies opposite."""
    return snap_to_tokens(-vectors, table)


def over_the_vectors(vectors, table):
    """Of each token the nearest vector."""
    return snap_to_tokens(table, vectors)


snap_to_tokens_mistakes = {
    "these have the largest dot product, so long rows of the table win; normalize both": (
        lambda vectors, table: (vectors @ table.T).argmax(1)
    ),
    "the maximum goes over the wrong axis: each vector looks for a token, (P,)": over_the_vectors,
    "these are the tokens farthest away; the nearest has the largest cosine": least_cosine,
}

# ------------------------------------------------------------------ hiding a vector


def without_vector(past, vector):
    """A past like this one, but no text behind it sees virtual token `vector`, counted from 1. The
    text keeps its positions, and the given past stays as it is."""
    positions = past.positions.clone()  # (B, P)
    positions[:, vector - 1] = 2**20  # in the future of every text
    return Past(past.keys, past.values, positions, past.pinned)


def without_vector_inputs():
    return [(some_past(1, 3), 1), (some_past(2, 4), 3), (some_past(1, 5), 2)]


def some_past(B, P):
    """A past of two layers, pinned."""
    generator = torch.Generator().manual_seed(P)
    keys = list(torch.randn(2, B, 2, P, 4, generator=generator))  # L of (B, Hkv, P, D)
    values = list(torch.randn(2, B, 2, P, 4, generator=generator))
    return Past(keys, values, torch.arange(P).repeat(B, 1), P)


def emptied(past, vector):
    """An empty slot, which the text's positions do not count."""
    positions = past.positions.clone()  # (B, P)
    positions[:, vector - 1] = -1
    return Past(past.keys, past.values, positions, past.pinned)


def counted_from_zero(past, vector):
    """The vector behind the one that is meant; there is none behind the last."""
    return without_vector(past, vector + 1)


def in_place(past, vector):
    """The given past is changed."""
    past.positions[:, vector - 1] = 2**20
    return past


without_vector_mistakes = {
    "with -1 the slot is empty, and the text moves up by one position; take the other": emptied,
    "you hide the next vector; vector 1 stands in column 0": counted_from_zero,
    "you change the given past; change a clone() of its positions": in_place,
}

# ------------------------------------------------------------------ homework


def same_mistakes(first, second, truth):
    """Three lists of answers -> a float: of the sentences that `first` gets wrong, the share where
    `second` gives the same wrong answer."""
    mistakes = [a == b for a, b, right in zip(first, second, truth) if a != right]
    return sum(mistakes) / len(mistakes)


def same_mistakes_inputs():
    return [
        (["R", "g", "b", "s"], ["R", "g", "g", "s"], ["R", "m", "m", "g"]),
        (["a", "a", "b"], ["a", "b", "a"], ["a", "a", "a"]),
        (["b", "b", "a", "a"], ["a", "b", "b", "a"], ["a", "a", "a", "a"]),
    ]


def of_all(first, second, truth):
    """The mistakes that both make, as a share of all sentences."""
    both = [a == b != right for a, b, right in zip(first, second, truth)]
    return sum(both) / len(both)


def same_answers(first, second, truth):
    """The answers that both give, right ones too."""
    same = [a == b for a, b in zip(first, second)]
    return sum(same) / len(same)


same_mistakes_mistakes = {
    "you divide by all sentences; divide by those that the first gets wrong": of_all,
    "you count right answers too; only the first one's mistakes are asked for": same_answers,
}
