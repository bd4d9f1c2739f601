"""Soft prompts: learned vectors that steer a frozen language model.

    prompt tuning (Lester et al. 2021, arXiv 2104.08691)   P learned embeddings
    prefix tuning (Li & Liang 2021, arXiv 2101.00190)      P learned keys and values in every layer

Both are ways to make a `Past`, which is what the model has seen before the text. Attention is
causal: what the model computes at the virtual tokens never depends on the text behind them. So
they run through the model once, as one row, and every row of text shares the result. That is
exact, not a shortcut. The base is never wrapped or changed, and only the soft prompt's own
parameters are trained:

    soft = PromptTuning(initial_embeddings(model, 16, "text", ids))
    optimizer = torch.optim.AdamW(soft.parameters(), lr=0.03, weight_decay=0.0)
    model.loss(idx, targets, soft.past(model)).backward()

Letters and the rule for what is visible stand at the top of model.py.
"""

import math
from itertools import groupby
from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F

from model import InputError, Past, read, write

# ------------------------------------------------------------------ where a prompt starts

INITIALIZATIONS = ("text", "vocab", "matched", "normal")


def initial_embeddings(model, length, method, ids=None, generator=None) -> torch.Tensor:
    """P = length vectors (P, C) to start from, float32, on the model's device.

    "text"     the embeddings of `ids`, repeated or cut to P: what they say is where it starts
    "vocab"    rows of the embedding table, drawn without replacement where there are enough
    "matched"  Gaussian with the mean and standard deviation of each of the table's columns
    "normal"   Gaussian with mean 0 and standard deviation 1, whatever the table's scale is

    Random numbers come from `generator` (a CPU generator), so they are the same on every device.
    Raises InputError for an unknown method, a length with no room for text, and missing ids.
    """
    table = model.model.embed_tokens.weight.detach().float().cpu()  # (V, C)
    V, C = table.shape
    limit = model.config.block_size
    if not 0 <= length < limit:
        raise InputError(
            f"{length} virtual tokens leave no room for text in block_size={limit}: "
            f"choose a length from 0 to {limit - 1}"
        )
    if method == "text":
        if ids is None or len(ids) == 0:
            raise InputError("initialization 'text' needs the ids of at least one token")
        start = table[cut_or_repeated(ids, length)]  # (P, C)
    elif method == "vocab":
        drawn = torch.randperm(V, generator=generator)  # (V,)
        start = table[cut_or_repeated(drawn, length)]  # (P, C)
    elif method == "matched":
        noise = torch.randn(length, C, generator=generator)  # (P, C)
        start = table.mean(0) + table.std(0) * noise  # (P, C)
    elif method == "normal":
        start = torch.randn(length, C, generator=generator)  # (P, C)
    else:
        raise InputError(f"unknown initialization {method!r}: choose {', '.join(INITIALIZATIONS)}")
    return start.to(model.device)


def cut_or_repeated(ids, length):
    """The ids, from the start again and again until there are `length` of them, (length,)."""
    ids = torch.as_tensor(ids).cpu()  # (n,)
    rounds = math.ceil(length / len(ids))
    return ids.repeat(rounds)[:length]  # (length,)


# ------------------------------------------------------------------ the kinds of soft prompts


class PromptTuning(nn.Module):
    """P learned vectors in the place of P token embeddings: one parameter, (P, C)."""

    kind = "prompt"

    def __init__(self, embeddings):
        super().__init__()
        self.embeddings = nn.Parameter(embeddings.detach().clone())  # (P, C)
        self.length = len(embeddings)
        self.facts = {}  # plain values that are saved with it

    @classmethod
    def start(cls, model, embeddings, pinned=True):
        """These embeddings as they are; a prompt is the same whether it is pinned or not."""
        return cls(embeddings)

    def past(self, model, pinned=True) -> Past:
        """The Past (B = 1) to give to the model. pinned: all virtual tokens stay visible whatever
        the window; else they slide out of it like text."""
        embeds = self.embeddings.to(model.dtype)[None]  # (1, P, C)
        before = model.empty_past(pinned=self.length if pinned else 0)
        _, past = model.hidden(past=before, embeds=embeds, first=self.length)
        return past

    def saved_tensors(self):
        """What a file keeps, by the names of the constructor's arguments."""
        return {"embeddings": self.embeddings}


class PrefixTuning(nn.Module):
    """P learned keys (rotated) and values in every layer: for each, L parameters (Hkv, P, D)."""

    kind = "prefix"

    def __init__(self, keys, values):
        super().__init__()
        self.keys = nn.ParameterList(layer.detach().clone() for layer in keys)
        self.values = nn.ParameterList(layer.detach().clone() for layer in values)
        self.length = keys[0].shape[1]
        self.facts = {}

    @classmethod
    def start(cls, model, embeddings, pinned=True):
        """The prefix that these embeddings leave as a prompt: at step 0 the two are equal."""
        with torch.no_grad():
            past = PromptTuning(embeddings).past(model, pinned)
        keys = [layer[0].float() for layer in past.keys]  # (Hkv, P, D) each
        values = [layer[0].float() for layer in past.values]  # (Hkv, P, D) each
        return cls(keys, values)

    def past(self, model, pinned=True) -> Past:
        """As `PromptTuning.past`."""
        return past_of_states(self.keys, self.values, model, pinned)

    def saved_tensors(self):
        """As `PromptTuning.saved_tensors`; (L, Hkv, P, D) each."""
        return {"keys": torch.stack(list(self.keys)), "values": torch.stack(list(self.values))}


class PrefixMLP(nn.Module):
    """Prefix tuning through an MLP (Li & Liang 2021, section 4.3), which is thrown away at the end.

    P learned inputs (P, C) go through tanh(inputs W1) W2, with W1 (C, width), and are added to the
    starting prefix. W2 starts at zero: at step 0 this is the plain prefix. While it trains, all
    layers' keys and values share W1 and W2; saved, it is a PrefixTuning like any other.
    """

    kind = "prefix"

    def __init__(self, keys, values, inputs, width=512):
        super().__init__()
        start = torch.stack((torch.stack(list(keys)), torch.stack(list(values))))  # (2, L, ...)
        self.register_buffer("start_states", start.detach().clone())  # (2, L, Hkv, P, D)
        self.inputs = nn.Parameter(inputs.detach().clone())  # (P, C)
        self.length = len(inputs)
        self.facts = {}
        _, L, Hkv, P, D = start.shape
        self.up = nn.Linear(inputs.shape[1], width)
        self.down = nn.Linear(width, 2 * L * Hkv * D)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    @classmethod
    def start(cls, model, embeddings, pinned=True, width=512):
        """As `PrefixTuning.start`."""
        prefix = PrefixTuning.start(model, embeddings, pinned)
        return cls(prefix.keys, prefix.values, embeddings, width).to(model.device)

    def states(self):
        """The keys and values that the MLP makes now, (L, Hkv, P, D) each."""
        _, L, Hkv, P, D = self.start_states.shape
        moved = self.down(torch.tanh(self.up(self.inputs)))  # (P, 2 L Hkv D)
        moved = moved.view(P, 2, L, Hkv, D).permute(1, 2, 3, 0, 4)  # (2, L, Hkv, P, D)
        keys, values = self.start_states + moved  # (L, Hkv, P, D) each
        return keys, values

    def past(self, model, pinned=True) -> Past:
        """As `PromptTuning.past`."""
        return past_of_states(*self.states(), model, pinned)

    def to_prefix(self) -> PrefixTuning:
        """The same prefix without the MLP."""
        prefix = PrefixTuning(*self.states())
        prefix.facts = self.facts
        return prefix

    def saved_tensors(self):
        """As `PrefixTuning.saved_tensors`."""
        return self.to_prefix().saved_tensors()


METHODS = {"prompt": PromptTuning, "prefix": PrefixTuning}


def past_of_states(keys, values, model, pinned) -> Past:
    """Keys and values of each layer, (Hkv, P, D), as a Past of one row."""
    keys = [layer.to(model.dtype)[None] for layer in keys]  # (1, Hkv, P, D) each
    values = [layer.to(model.dtype)[None] for layer in values]  # (1, Hkv, P, D) each
    P = keys[0].shape[2]
    positions = torch.arange(P, device=keys[0].device)[None]  # (1, P)
    return Past(keys, values, positions, P if pinned else 0)


# ------------------------------------------------------------------ many at once


def prefill(softs, model, pinned=True) -> Past:
    """The pasts of many soft prompts as one, a row each; differentiable in all of them.

    Prompts that stand beside one another go through the model in one padded pass. `pinned` is as
    in `PromptTuning.past`, the same for all.
    """
    pasts = []
    for kind, neighbours in groupby(softs, key=lambda soft: soft.kind):
        if kind == "prompt":
            pasts.append(prefill_prompts(list(neighbours), model, pinned))
        else:
            pasts += [soft.past(model, pinned) for soft in neighbours]
    return batch(pasts)


def prefill_prompts(prompts, model, pinned) -> Past:
    """Run the prompts, A of them and of any lengths, as A rows; empty slots fill the short ones."""
    lengths = torch.tensor([soft.length for soft in prompts], device=model.device)  # (A,)
    embeddings = [soft.embeddings for soft in prompts]
    embeds = nn.utils.rnn.pad_sequence(embeddings, batch_first=True)  # (A, P, C)
    slots = torch.arange(embeds.shape[1], device=model.device).expand(len(prompts), -1)  # (A, P)
    idx = slots.masked_fill(slots >= lengths[:, None], -1)  # (A, P): says which are empty
    before = model.empty_past(len(prompts), lengths if pinned else 0)
    _, past = model.hidden(idx, before, embeds=embeds.to(model.dtype), first=embeds.shape[1])
    return past


def batch(pasts) -> Past:
    """Many pasts as one, row after row; shorter ones are filled up with empty slots.
    Each row goes on as if it were alone: its text's positions start where its own prompt ends."""
    S = max(past.positions.shape[1] for past in pasts)

    def filled_up(states):  # (B, Hkv, S', D) -> (B, Hkv, S, D)
        return F.pad(states, (0, 0, 0, S - states.shape[2]))

    keys, values = [], []
    for layer in range(len(pasts[0].keys)):
        keys.append(torch.cat([filled_up(past.keys[layer]) for past in pasts]))
        values.append(torch.cat([filled_up(past.values[layer]) for past in pasts]))
    positions = [F.pad(p.positions, (0, S - p.positions.shape[1]), value=-1) for p in pasts]
    pinned = torch.cat([past.pinned for past in pasts])  # (sum of B,)
    return Past(keys, values, torch.cat(positions), pinned)


# ------------------------------------------------------------------ what they are like


def trainable_fraction(soft, model) -> float:
    """Numbers in the soft prompt / numbers in the base."""
    ours = sum(p.numel() for p in soft.parameters())
    return ours / sum(p.numel() for p in model.parameters())


class Neighbours(NamedTuple):
    ids: torch.Tensor  # (P, k) nearest tokens by cosine, nearest first
    cosines: torch.Tensor  # (P, k)
    control: torch.Tensor  # (P, k) the same cosines for random vectors of the table's own spread


def nearest_tokens(soft, model, k, generator=None) -> Neighbours:
    """The k tokens whose embeddings are nearest to each virtual token, with a random control.

    Some token is always nearest: a cosine says something only beside what a random vector gets.
    Raises InputError for a prefix, whose keys and values live in no table of tokens.
    """
    if soft.kind != "prompt":
        raise InputError("a prefix has no embeddings to compare with tokens: only a prompt has")
    table = model.model.embed_tokens.weight.detach().float()  # (V, C)
    random = initial_embeddings(model, soft.length, "matched", generator=generator)  # (P, C)

    def nearest(vectors):  # (P, C) -> cosines and ids, (P, k) each
        cosines = F.normalize(vectors, dim=1) @ F.normalize(table, dim=1).T  # (P, V)
        return cosines.topk(k, 1)

    cosines, ids = nearest(soft.embeddings.detach().float())  # (P, k) twice
    control, _ = nearest(random)  # (P, k)
    return Neighbours(ids, cosines, control)


# ------------------------------------------------------------------ files


def check_base(path, stated, ours):
    """Refuse a foreign prompt: it belongs to one exact base, and to other weights the same vectors
    say something else. Raises InputError where the base that a file states is not ours."""
    if stated != ours:
        raise InputError(
            f"{path} was trained on the base {stated[:40]}, this base is {ours[:40]}: "
            "a soft prompt works on its own base only"
        )


def save(soft, path, model, **facts):
    """Write the soft prompt, the fingerprint of its base, and facts (plain values, read as .facts).
    Of a PrefixMLP the prefix is kept. Nothing half-written is ever found at `path`."""
    tensors = {name: p.detach().cpu() for name, p in soft.saved_tensors().items()}
    facts = {**soft.facts, **facts}
    base = model.fingerprint()
    write(path, {"kind": soft.kind, "base": base, "facts": facts, "state": tensors})


def load(path, model):
    """The soft prompt in a file, on the model's device; its facts are in `.facts`.

    Raises InputError for a damaged file, a file of another kind, and a prompt of another base.
    Nothing in the file is executed.
    """
    content = read(path, "a soft prompt", ("kind", "base", "facts", "state"))
    check_base(path, content["base"], model.fingerprint())
    if content["kind"] not in METHODS:
        raise InputError(f"{path} holds a soft prompt of a kind that is not known here")
    try:
        soft = METHODS[content["kind"]](**content["state"])
    except TypeError as problem:
        raise InputError(f"{path} is a soft prompt of another kind: {problem}") from problem
    soft.facts = content["facts"]
    return soft.to(model.device)
