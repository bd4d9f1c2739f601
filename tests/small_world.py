"""What many tests need: sentences, a tokenizer and a model, all so small that they cost nothing."""

import random

import pytest
from conftest import EXPERIMENTS, make_model

from train import LIBRARIES, Sentence, Tokenizer, read_rows

WORDS = "Return the matrix of a graph, plot one axis, solve an equation and open every file".split()


def sentences(n, seed=0):
    """n sentences of three to eight WORDS."""
    gen = random.Random(seed)
    made = []
    for _ in range(n):
        text = " ".join(gen.choices(WORDS, k=gen.randint(3, 8))).strip(",") + "."
        made.append(Sentence(text, gen.choice(LIBRARIES), gen.choice(["class", "function"])))
    return made


def tokens():
    """A vocabulary of every byte, then of whole words with a space before them."""
    bare = [word.strip(",") for word in WORDS]
    bare += ["class", "function", "numpy", "torch", "sympy", "->"]
    words = [f" {word}".encode() for word in bare]
    return [bytes([byte]) for byte in range(256)] + sorted(set(words))


TOKENS = tokens()


@pytest.fixture(scope="module")
def tok():
    return Tokenizer.from_tokens(TOKENS)


def tiny(tok, **shape):
    """A model of one layer for this tokenizer; `shape` as in `conftest.make_model`."""
    return make_model(vocab_size=tok.end + 1, n_layer=1, n_embd=16, window=24, **shape)


def save_tiny(path, tok, **shape):
    """Write `tiny` with its tokenizer, as a base that `train.load_base` reads."""
    model = tiny(tok, **shape)
    model.save(path, tokenizer=[token.decode("latin-1") for token in TOKENS])
    return model


def same_columns(name, rows):
    """Whether these rows of a run have the columns of the stored table, in its order."""
    [stored, *_] = read_rows(EXPERIMENTS / f"{name}.csv")
    return all(list(row) == list(stored) for row in rows)
