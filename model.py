"""A small modern GPT: RMSNorm, rotary positions, SwiGLU, grouped-query attention, sliding window.

Letters, here and everywhere in this project:

    B rows · T tokens in this call · P virtual tokens · S keys, of the past and of this call
    C n_embd · H query heads · Hkv key/value heads · G = H / Hkv · D head_dim · L layers
    V vocabulary · A soft prompts that run or train together · n positions that are scored
    W window: how many of the nearest keys a query may see, itself included
    T', S' queries and keys of one block (`seen_in_blocks`)

`-1` means "nothing here": an input id of -1 is an empty slot, a target of -1 is not scored, a
position of -1 is never attended. Positions count the slots that are not empty. So padding on any
side, ragged prompts and a text behind a short prompt are one case. There is one rule for what is
seen. A key is seen where all three hold:

    a real key           k_pos >= 0
    not in the future    k_pos <= q_pos
    near enough          k_pos > q_pos - W    or    k_pos < pinned

What comes before the text is a `Past`: the cache while generating, a learned prompt after one pass
through the model, or a learned prefix as it is. Module names are those of LlamaForCausalLM.
"""

import errno
import hashlib
import io
import json
import math
import os
import secrets
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F


class InputError(ValueError):
    """Something from outside cannot be used. The message is one line: value, place and fix."""


# ------------------------------------------------------------------ the shape of the model


@dataclass
class GPTConfig:
    """The shape of the model. Raises InputError, with the value and the fix, for one that fails.

    A `window` saves time: that of a text is in proportion to T, not to T^2, and a new token is
    compared with W keys, however long the text before it is. It does not save memory of the cache:
    a Past keeps all keys and values, and each new token copies them.
    """

    vocab_size: int
    block_size: int  # the most positions a row may have, virtual tokens included
    n_layer: int
    n_head: int
    n_embd: int
    n_kv_head: int | None = None  # None: n_head
    head_dim: int | None = None  # None: n_embd / n_head
    n_hidden: int | None = None  # width of the MLP; None: 8/3 n_embd, up to a multiple of 32
    window: int | None = None  # keys that a query sees, itself included; None: all
    rope_base: float = 10000.0
    norm_eps: float = 1e-5
    tie_embeddings: bool = True

    def __post_init__(self):
        for part in fields(self):
            value = getattr(self, part.name)
            if value is not None and part.type is not bool:
                kind = float if part.type is float else int
                setattr(self, part.name, number_above_zero(part.name, value, kind))
        C, H = self.n_embd, self.n_head
        if self.n_kv_head is None:
            self.n_kv_head = H
        if self.n_hidden is None:
            self.n_hidden = math.ceil(8 * C / 3 / 32) * 32
        if self.head_dim is None:
            if C % H:
                raise InputError(f"n_embd={C} is not a multiple of n_head={H}: set head_dim too")
            self.head_dim = C // H
        if self.head_dim % 2:
            raise InputError(f"head_dim={self.head_dim}: rotary positions need an even number")
        if H % self.n_kv_head:
            raise InputError(f"n_head={H} is not a multiple of n_kv_head={self.n_kv_head}")


def number_above_zero(name, value, kind):
    """The value as `kind`, so that 5000 and 5000.0 are one; InputError where it is none above 0."""
    try:
        number = kind(value)
        right = number == value and 0 < number < math.inf
    except (TypeError, ValueError, OverflowError):
        right = False
    if not right:
        what = "a whole number" if kind is int else "a number"
        raise InputError(f"{name}={value!r}: give {what} above 0")
    return number


# ------------------------------------------------------------------ what a text sees


@dataclass
class Past:
    """What comes before the text: for each layer keys and values, and their positions.

    keys[l], values[l]  (B, Hkv, S, D), keys rotated to their positions
    positions           (B, S), -1 where a slot is empty; the others count up from 0 in each row
    pinned              (B,): so many leading positions stay visible whatever the window

    The count may be broken on purpose. The text goes on at `length`, the number of slots that are
    not empty, and the rule asks each slot by itself, in any order. So a slot moved to a position
    behind every text, say 2^20, is hidden from the text, and the text stays where it was. (An empty
    slot is hidden too, but with one slot less the text moves up.)
    """

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    positions: torch.Tensor
    pinned: torch.Tensor | int = 0  # a number is the same for all rows

    def __post_init__(self):
        pinned = torch.as_tensor(self.pinned, device=self.positions.device)
        self.pinned = pinned.expand(len(self.positions))  # (B,)

    @property
    def length(self) -> torch.Tensor:
        """How many slots are not empty, which is also the next position, (B,)."""
        return (self.positions >= 0).sum(1)  # (B,)

    def rows(self, index) -> "Past":
        """The rows that the int tensor `index` (B,) names, repeats allowed: a Past of B rows."""
        positions = self.positions[index]  # (B, S)
        used = (positions >= 0).any(0).nonzero()  # (slots in use, 1)
        end = int(used.max()) + 1 if len(used) else 0  # empty slots at the end fall away
        # index_select: its gradient is faster than that of layer[index].
        keys = [layer.index_select(0, index)[:, :, :end] for layer in self.keys]  # (B, Hkv, S, D)
        values = [layer.index_select(0, index)[:, :, :end] for layer in self.values]
        return Past(keys, values, positions[:, :end], self.pinned[index])

    def expand(self, B: int) -> "Past":
        """One row shown B times without a copy; B rows as they are; else InputError."""
        if len(self.positions) not in (1, B):
            raise InputError(f"a past of {len(self.positions)} rows before {B} rows of text")
        keys = [layer.expand(B, -1, -1, -1) for layer in self.keys]  # (B, Hkv, S, D) each
        values = [layer.expand(B, -1, -1, -1) for layer in self.values]  # (B, Hkv, S, D) each
        return Past(keys, values, self.positions.expand(B, -1), self.pinned.expand(B))


def visible(q_pos, k_pos, pinned, window=None):
    """The one rule: q_pos (B, T), k_pos (B, S), pinned (B,) -> (B, T, S), True where seen."""
    q = q_pos[:, :, None]  # (B, T, 1)
    k = k_pos[:, None, :]  # (B, 1, S)
    seen = (k >= 0) & (k <= q)  # (B, T, S)
    if window is not None:
        near = k > q - window  # (B, T, S)
        held = k < pinned[:, None, None]  # (B, 1, S)
        seen = seen & (near | held)  # (B, T, S)
    return seen


def attention_mask(q_pos, k_pos, pinned, window, dtype):
    """What is added to the scores, (B, 1, T, S): 0 where a key is seen, else minus infinity."""
    seen = visible(q_pos, k_pos, pinned, window)  # (B, T, S)
    # An empty slot has nothing to see, and a softmax over nothing is NaN. So it sees everything:
    # that is finite, and as nobody attends to it or scores it, it changes nothing.
    seen = seen | (q_pos < 0)[:, :, None]  # (B, T, S)
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)  # (B, T, S)
    return mask.masked_fill(~seen, -torch.inf)[:, None]  # (B, 1, T, S)


def attention(q, k, v, mask):
    """softmax(q k^T / sqrt(D) + mask) v: q (B, H, T, D), k and v (B, Hkv, S, D), mask (B, 1, T, S)
    -> (B, H, T, D).

    Grouped-query attention (GQA): query heads j G to j G + G - 1 read the keys and values of head
    j. Keys answer each query by itself, and never ask which head it is from. So the G heads of a
    group stand behind one another, as G T queries of one head: all of GQA is this change of shape.
    The mask is repeated G times; keys and values are there once.
    """
    B, H, T, D = q.shape
    Hkv = k.shape[1]
    G = H // Hkv
    q = q.reshape(B, Hkv, G * T, D)  # (B, Hkv, G T, D)
    mask = mask[:, :, None].expand(-1, -1, G, -1, -1).flatten(2, 3)  # (B, 1, G T, S)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # (B, Hkv, G T, D)
    return out.reshape(B, H, T, D)  # (B, H, T, D)


BLOCK = 128  # queries that look together at what a window lets them see


def seen_in_blocks(q_pos, k_pos, pinned, window, dtype):
    """Which slots the queries read, block after block of them, so that a window costs what it sees.

    q_pos (B, T), k_pos (B, S), pinned (B,) -> the slots that the first block reads, then those of
    the second and so on, and for each block its mask (B, 1, T', S').

    The queries are cut into blocks of 128. A block reads at least the slots that any of its queries
    sees in any row; the mask does the rest. Without a window, or where there are few slots, nothing
    is cut, and no key is copied.
    """
    if window is None or k_pos.shape[1] <= window + BLOCK:
        return slice(None), [attention_mask(q_pos, k_pos, pinned, window, dtype)]
    slots, masks = [], []
    for q in q_pos.split(BLOCK, 1):  # (B, T')
        # The last query sees all that the others see, if its window begins where the first's does.
        # As positions count up, that is at most T' - 1 further back.
        last = F.pad(q, (1, 0), value=-1).amax(1, keepdim=True)  # (B, 1): -1 if there is no query
        seen = visible(last, k_pos, pinned, window + q.shape[1] - 1)  # (B, 1, S)
        read = seen[:, 0].any(0).nonzero()[:, 0]  # (S',)
        slots.append(read)
        masks.append(attention_mask(q, k_pos[:, read], pinned, window, dtype))  # (B, 1, T', S')
    return torch.cat(slots), masks


def rotary_angles(positions, config):
    """How far each pair of numbers is turned at each position (B, T): angles (B, 1, T, D/2).

    In float32 and made anew in each call: in half precision, far positions would blur together.
    """
    pairs = torch.arange(config.head_dim // 2, device=positions.device)  # (D/2,)
    speeds = config.rope_base ** (-2 * pairs / config.head_dim)  # (D/2,)
    return positions[:, None, :, None] * speeds  # (B, 1, T, D/2)


def rotate(x, cos, sin):
    """Turn each pair (x_i, x_{i + D/2}) by its angle: x (B, H, T, D), cos, sin (B, 1, T, D/2)."""
    a, b = x.chunk(2, -1)  # (B, H, T, D/2) twice
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)  # (B, H, T, D)


# ------------------------------------------------------------------ the model


class Attention(nn.Module):
    """Grouped-query attention over the past and the text itself."""

    def __init__(self, config):
        super().__init__()
        C, H, Hkv, D = config.n_embd, config.n_head, config.n_kv_head, config.head_dim
        self.head_dim = D
        self.q_proj = Linear(C, H * D, bias=False)
        self.k_proj = Linear(C, Hkv * D, bias=False)
        self.v_proj = Linear(C, Hkv * D, bias=False)
        self.o_proj = Linear(H * D, C, bias=False)

    def heads(self, x):
        return x.unflatten(2, (-1, self.head_dim)).transpose(1, 2)  # (B, heads, T, D)

    def keys_values(self, x, cos, sin):
        """x (B, T, C) -> keys, rotated, and values, (B, Hkv, T, D) each."""
        k = rotate(self.heads(self.k_proj(x)), cos, sin)  # (B, Hkv, T, D)
        v = self.heads(self.v_proj(x))  # (B, Hkv, T, D)
        return k, v

    def forward(self, x, k, v, cos, sin, slots, masks):
        """What the queries of x (B, T, C) read from k and v (B, Hkv, S, D) -> (B, T, C). `slots`
        and `masks` are those of `seen_in_blocks`."""
        q = rotate(self.heads(self.q_proj(x)), cos, sin)  # (B, H, T, D)
        queries = [mask.shape[2] for mask in masks]  # T' of each block
        keys = [mask.shape[3] for mask in masks]  # S' of each block
        q = q.split(queries, 2)  # (B, H, T', D) each
        k = k[:, :, slots].split(keys, 2)  # (B, Hkv, S', D) each
        v = v[:, :, slots].split(keys, 2)  # (B, Hkv, S', D) each
        out = [attention(*block) for block in zip(q, k, v, masks)]  # (B, H, T', D) each
        out = torch.cat(out, 2)  # (B, H, T, D)
        return self.o_proj(out.transpose(1, 2).flatten(2))  # (B, T, C)


class MLP(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, config):
        super().__init__()
        self.gate_proj = Linear(config.n_embd, config.n_hidden, bias=False)
        self.up_proj = Linear(config.n_embd, config.n_hidden, bias=False)
        self.down_proj = Linear(config.n_hidden, config.n_embd, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))  # (B, T, C)


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.n_embd, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.n_embd, config.norm_eps)
        self.mlp = MLP(config)

    def forward(self, x, past_k, past_v, cos, sin, slots, masks, first):
        """x (B, T, C) -> its states from slot `first` on, (B, T - first, C), and all keys and
        values so far, (B, Hkv, S, D) each. `slots` and `masks` are those of these states."""
        h = self.input_layernorm(x)  # (B, T, C)
        k, v = self.self_attn.keys_values(h, cos, sin)  # (B, Hkv, T, D) each
        # Here a soft prompt enters the model: its keys and values stand before those of the text.
        k = torch.cat((past_k, k), 2)  # (B, Hkv, S, D)
        v = torch.cat((past_v, v), 2)  # (B, Hkv, S, D)
        x, h = x[:, first:], h[:, first:]  # (B, T - first, C) each
        cos, sin = cos[:, :, first:], sin[:, :, first:]  # (B, 1, T - first, D/2) each
        x = x + self.self_attn(h, k, v, cos, sin, slots, masks)  # (B, T - first, C)
        x = x + self.mlp(self.post_attention_layernorm(x))  # (B, T - first, C)
        return x, k, v


class GPT(nn.Module):
    """The whole model. `facts` are plain values that are saved with the weights."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config
        self.facts = {}
        self.model = nn.ModuleDict(
            {
                "embed_tokens": nn.Embedding(config.vocab_size, config.n_embd),
                "layers": nn.ModuleList(Block(config) for _ in range(config.n_layer)),
                "norm": nn.RMSNorm(config.n_embd, config.norm_eps),
            }
        )
        if not config.tie_embeddings:
            self.lm_head = Linear(config.n_embd, config.vocab_size, bias=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                std = 0.02
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    # These add to x in every layer, so they start smaller, as in GPT-2.
                    std = 0.02 / (2 * config.n_layer) ** 0.5
                nn.init.normal_(p, std=std)

    @property
    def device(self):
        return self.model.embed_tokens.weight.device

    @property
    def dtype(self):
        return self.model.embed_tokens.weight.dtype

    def empty_past(self, B=1, pinned=0) -> Past:
        """A Past of B rows without slots: what comes before the first token. `pinned`, a number or
        (B,), leading positions will stay visible."""
        shape = (B, self.config.n_kv_head, 0, self.config.head_dim)
        nothing = [torch.empty(shape, dtype=self.dtype, device=self.device)] * self.config.n_layer
        positions = torch.empty(B, 0, dtype=torch.long, device=self.device)  # (B, 0)
        return Past(nothing, nothing, positions, pinned)

    def hidden(self, idx=None, past=None, *, embeds=None, first=0):
        """As `forward`, but in place of the logits the last layer's states from slot `first` on,
        (B, T - first, C), and the past. Where only the last slots are read, that saves a tenth of
        the time."""
        if embeds is None:
            embeds = self.model.embed_tokens(idx.clamp(min=0))  # (B, T, C)
        B, T, _ = embeds.shape
        if idx is None:
            idx = torch.zeros(B, T, dtype=torch.long, device=embeds.device)  # (B, T), all real
        past = (past or self.empty_past()).expand(B)

        real = idx >= 0  # (B, T)
        q_pos = past.length[:, None] + real.cumsum(1) - 1  # (B, T)
        q_pos = q_pos.masked_fill(~real, -1)  # (B, T)
        k_pos = torch.cat((past.positions, q_pos), 1)  # (B, S)
        self.check_room(k_pos)
        angles = rotary_angles(q_pos, self.config)  # (B, 1, T, D/2)
        cos, sin = angles.cos().to(embeds.dtype), angles.sin().to(embeds.dtype)  # (B, 1, T, D/2)
        rule = (k_pos, past.pinned, self.config.window, embeds.dtype)
        slots, masks = seen_in_blocks(q_pos, *rule)  # the same in all layers

        x = embeds  # (B, T, C)
        keys, values = [], []
        for i, block in enumerate(self.model.layers):
            start = 0
            if i == self.config.n_layer - 1 and first > 0:
                start = first
                slots, masks = seen_in_blocks(q_pos[:, first:], *rule)
            x, k, v = block(x, past.keys[i], past.values[i], cos, sin, slots, masks, start)
            keys.append(k)  # (B, Hkv, S, D)
            values.append(v)  # (B, Hkv, S, D)
        return self.model.norm(x), Past(keys, values, k_pos, past.pinned)

    def check_room(self, k_pos):
        """InputError where a row has more slots in use than block_size; k_pos (B, S)."""
        limit = self.config.block_size
        if k_pos.shape[1] <= limit:
            return
        used = int((k_pos >= 0).sum(1).max())  # empty slots take no position
        if used > limit:
            raise InputError(
                f"{used} positions do not fit into block_size={limit}: "
                "shorten the text or the soft prompt"
            )

    def unembed(self, h):
        """Hidden states (..., C) -> logits (..., V)."""
        head = self.model.embed_tokens if self.config.tie_embeddings else self.lm_head
        return linear(h, head.weight)  # (..., V)

    def forward(self, idx=None, past=None, *, embeds=None):
        """idx (B, T), -1 in empty slots -> logits (B, T, V), and the past with these slots added.

        `embeds` (B, T, C) take the place of the ids' embeddings; `idx` then only says which slots
        are empty, and may be left out. `past` has B rows, or one that all rows share. Raises
        InputError where the positions do not fit into block_size.
        """
        h, past = self.hidden(idx, past, embeds=embeds)  # (B, T, C)
        return self.unembed(h), past

    def scored(self, idx, targets, past=None):
        """The logits where targets >= 0, (n, V), in the order of targets[targets >= 0].

        The vocabulary is the widest layer of a small model, and few positions are scored. Raises
        InputError where none is.
        """
        has_target = (targets >= 0).any(0).tolist()  # of each slot
        if True not in has_target:
            raise InputError("no target is 0 or more: nothing would be scored")
        first = has_target.index(True)
        h, _ = self.hidden(idx, past, first=first)  # (B, T - first, C)
        return self.unembed(h[targets[:, first:] >= 0])  # (n, V)

    def loss(self, idx, targets, past=None):
        """Mean cross-entropy in nats where targets >= 0; targets[b, t] follows idx[b, t]. Raises
        InputError where no target is."""
        logits = self.scored(idx, targets, past).float()  # (n, V)
        return F.cross_entropy(logits, targets[targets >= 0])

    @torch.inference_mode()
    def generate(
        self,
        rows,
        max_new_tokens,
        past=None,
        temperature=0.0,
        top_k=None,
        stop=None,
        generator=None,
    ) -> list[list[int]]:
        """Continue rows of ids of any lengths: the new ids of each, without the one that ends it.

        `stop` is the id that ends a row, or several. `temperature`, `top_k` and `generator` as in
        `choose_next`. Raises InputError for an empty row, or where block_size is too small.
        """
        if not rows or min(map(len, rows)) == 0:
            raise InputError("generate continues rows of at least one id each")
        past = (past or self.empty_past()).expand(len(rows))
        for P, row in zip(past.length.tolist(), rows):
            # The last new token is never read, so it needs no position.
            if P + len(row) + max_new_tokens - 1 > self.config.block_size:
                raise InputError(
                    f"{P} virtual tokens + {len(row)} of text + {max_new_tokens} new do not fit "
                    f"into block_size={self.config.block_size}"
                )
        if stop is None:
            stop = []
        stops = torch.as_tensor(stop, dtype=torch.long, device=self.device).reshape(-1)  # (n,)
        # Empty slots on the left, so that the last column holds every row's last token.
        T = max(map(len, rows))
        idx = torch.tensor([[-1] * (T - len(row)) + list(row) for row in rows], device=self.device)
        done = torch.zeros(len(rows), dtype=torch.bool, device=self.device)  # (B,)
        new = [[] for _ in rows]
        for _ in range(max_new_tokens):
            h, past = self.hidden(idx, past, first=idx.shape[1] - 1)  # (B, 1, C)
            idx = choose_next(self.unembed(h[:, -1]), temperature, top_k, generator)  # (B,)
            done = done | torch.isin(idx, stops)  # (B,)
            idx = idx.masked_fill(done, -1)[:, None]  # (B, 1): a finished row adds empty slots
            for row, i in zip(new, idx[:, 0].tolist()):
                if i >= 0:
                    row.append(i)
            if done.all():
                break
        return new

    def fingerprint(self) -> str:
        """SHA-256 of the configuration and every weight as float32: the same on every device."""
        digest = hashlib.sha256(json.dumps(asdict(self.config), sort_keys=True).encode())
        for name, p in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(p.detach().float().cpu().contiguous().numpy())
        return digest.hexdigest()

    def save(self, path, **facts):
        """Write weights, configuration and facts."""
        state = {name: p.detach().cpu() for name, p in self.state_dict().items()}
        facts = {**self.facts, **facts}
        write(path, {"config": asdict(self.config), "facts": facts, "state": state})

    @classmethod
    def load(cls, path) -> "GPT":
        """The saved model, in float32. Raises InputError for a file that holds none."""
        content = read(path, "a base model", ("config", "facts", "state"))
        try:
            model = cls(GPTConfig(**content["config"]))
            model.load_state_dict(content["state"])
        except (TypeError, RuntimeError) as problem:  # other fields, or weights of other shapes
            raise InputError(f"{path} is a base of another kind: {problem}") from problem
        model.facts = content["facts"]
        return model


def choose_next(logits, temperature, top_k, generator):
    """The next id of each row, logits (B, V) -> (B,).

    temperature 0 takes the likeliest id. Otherwise ids are drawn from softmax(logits / temperature)
    by `generator` (on the model's device), from the `top_k` likeliest; None or 0 is no limit.
    Raises InputError for logits that are not numbers, and for a setting that is out of range.
    """
    if not 0 <= temperature < math.inf:
        raise InputError(f"temperature={temperature}: give a finite number, 0 or more")
    if top_k is not None and top_k < 0:
        raise InputError(f"top_k={top_k}: give 0 or more; 0 is no limit")
    bad = ~logits.isfinite()  # (B, V)
    if bad.any():
        row = int(bad.any(1).int().argmax())
        raise InputError(f"row {row}: the model's logits are not numbers, or infinite")
    if temperature == 0:
        return logits.argmax(1)  # (B,)
    logits = logits.float()
    if top_k:
        least = logits.topk(min(top_k, logits.shape[1])).values[:, -1:]  # (B, 1)
        logits = logits.masked_fill(logits < least, -torch.inf)  # (B, V)
    # The largest logit becomes 0, so that a very small temperature cannot overflow.
    below = logits - logits.amax(1, keepdim=True)  # (B, V)
    chances = (below / max(temperature, 1e-30)).softmax(1)  # (B, V)
    return torch.multinomial(chances, 1, generator=generator)[:, 0]  # (B,)


# ------------------------------------------------------------------ files


def write(path, content):
    """Write what torch.save makes of the content, {name: value}, and its SHA-256 at the end.

    What is written is what can be read: raises InputError, with the name of the value, for one that
    `read` would refuse, as a number of NumPy or a path. The file that was there then stays.
    """
    try:
        data = packed(content)
        unpacked(data)
    except Exception as problem:  # each kind of value has an error of its own
        parts = {**content.get("facts", {}), **content}
        name = next(name for name, value in parts.items() if not is_plain(value))
        raise InputError(
            f"{path}: {name} = {parts[name]!r:.80} is no plain value, and could not be read again: "
            "give numbers of Python, texts, lists or tensors"
        ) from problem
    write_whole(path, data + hashlib.sha256(data).digest())


def packed(content):
    """What torch.save makes of the content."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def unpacked(data):
    """What was packed. This is torch's weights-only reader, which runs nothing."""
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def is_plain(value):
    """Is this read as it was written?"""
    try:
        unpacked(packed(value))
    except Exception:  # each kind of value has an error of its own
        return False
    return True


def read(path, what, names):
    """What `write` wrote. Raises InputError for a file that is cut short, changed or of another
    kind than `what`, which has these names. Nothing in it is run."""
    data = Path(path).read_bytes()
    if hashlib.sha256(data[:-32]).digest() != data[-32:]:
        raise InputError(f"{path} is damaged, or not a file of this project: copy or make it anew")
    try:
        content = unpacked(data[:-32])
    except Exception as problem:  # a right checksum over something that is not plain tensors
        raise InputError(f"{path} holds more than plain values, it is not read") from problem
    if not isinstance(content, dict) or not content.keys() >= set(names):
        raise InputError(f"{path} does not hold {what}")
    return content


def write_whole(path, data):
    """Write a file of these bytes; everything that this project writes, it writes here.

    At any moment there is the old file or the new one. Many may write to one name, as each has an
    unfinished file of its own. Links are followed, and the folder is made. What fails names `path`.
    """
    target = plain_file(path)
    unfinished = unfinished_in(target.parent, target.name)
    with naming(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            unfinished.write_bytes(data)
            os.replace(unfinished, target)
        finally:
            unfinished.unlink(missing_ok=True)


def require_writable(path):
    """Find out before the work whether `write_whole` can write here; nothing is left behind. Raises
    InputError for what is no plain file, OSError for a place that cannot be written."""
    target = plain_file(path)
    folder = target.parent
    while not os.path.lexists(folder):  # it will be made, in the first one that is there
        folder = folder.parent
    attempt = unfinished_in(folder, target.name)
    with naming(path):
        attempt.touch()
        attempt.unlink()


def plain_file(path):
    """The file that a path leads to, through links, whether it is there or not. Raises InputError
    for a folder, a device or a pipe, OSError for a file that is protected from writing."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise InputError(f"{path} is a folder: name a file")
    if target.exists() and not target.is_file():
        raise InputError(f"{path} is a device or a pipe: name a file")
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "this file is protected from writing", str(path))
    return target


def unfinished_in(folder, name):
    """A name for what is not finished. Process ids repeat in threads and in containers, this does
    not; and it is no longer than a name may be."""
    return folder / f"{name[:50]}.{secrets.token_hex(8)}.part"


@contextmanager
def naming(path):
    """Inside of it, an OSError names this path."""
    try:
        yield
    except OSError as problem:
        raise OSError(problem.errno, problem.strerror, str(path)) from problem


# ------------------------------------------------------------------ for speed alone


def linear(x, weight):
    """x W^T: x (..., in), W (out, in) -> (..., out). What F.linear does, for few rows on a CPU
    up to three times as fast.

    With few rows nearly all the time is W's way from memory, and one core does it alone. As a
    batch of N slabs of W, every core reads its own.
    """
    n, out, N = x.numel() // x.shape[-1], len(weight), torch.get_num_threads()
    few_rows = 0 < n <= 16
    big = weight.numel() > 2**18 and out % N == 0
    if x.device.type != "cpu" or not (few_rows and big):
        return F.linear(x, weight)  # (..., out)
    slabs = weight.view(N, out // N, -1)  # (N, out / N, in)
    columns = x.reshape(n, -1).T.expand(N, -1, -1)  # (N, in, n)
    product = torch.bmm(slabs, columns)  # (N, out / N, n)
    return product.view(out, n).T.reshape(*x.shape[:-1], out)  # (..., out)


class Linear(nn.Linear):
    """A linear layer without bias that multiplies with `linear`."""

    def forward(self, x):
        return linear(x, self.weight)  # (..., out)
