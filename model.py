"""A small modern GPT: RMSNorm, rotary positions, SwiGLU, grouped-query attention, sliding window.

Letters, here and everywhere in this project:

    B rows · T tokens in this call · P virtual tokens · S keys seen · C n_embd · H query heads
    Hkv key/value heads · G = H / Hkv · D head_dim · L layers · V vocabulary
    W window: how many keys a query may see, itself included

`-1` means "nothing here": an input id of -1 is an empty slot, a target of -1 is not scored, a
position of -1 is never attended. Positions count the slots that are not empty, so right padding,
left padding, ragged prompts and a text behind a short prompt are one case, and one rule says what
a query sees:

    a real key           k_pos >= 0
    not in the future    k_pos <= q_pos
    near enough          k_pos > q_pos - W    or    k_pos < pinned

What comes before the text is a `Past`: the cache while generating, a learned prompt after one pass
through the model, a learned prefix as it is. Module names and the rotary layout are those of
Hugging Face's LlamaForCausalLM.
"""

import hashlib
import importlib
import io
import json
import math
import os
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclass
class GPTConfig:
    """The shape of the model. Raises ValueError, with the value and the fix, for one that fails."""

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
        for f in fields(self):
            value, kinds = getattr(self, f.name), (int, float) if f.type is float else f.type
            if not isinstance(value, kinds) or isinstance(value, bool) != (f.type is bool):
                raise ValueError(f"{f.name}={value!r} is of the wrong type: give {f.type}")
            if value is not None and f.type is not bool and not value > 0:
                raise ValueError(f"{f.name}={value}: give at least 1, or more than 0 of a fraction")
        if self.head_dim is None and self.n_embd % self.n_head:
            raise ValueError(f"n_embd={self.n_embd} is not a multiple of n_head={self.n_head}: "
                             "change one of them, or set head_dim")
        self.head_dim = self.head_dim or self.n_embd // self.n_head
        self.n_kv_head = self.n_kv_head or self.n_head
        self.n_hidden = self.n_hidden or -(-8 * self.n_embd // 96) * 32
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim}: rotary positions need an even number")
        if self.n_head % self.n_kv_head:
            raise ValueError(f"n_head={self.n_head} is not a multiple of n_kv_head="
                             f"{self.n_kv_head}: each key/value head serves equally many queries")


@dataclass
class Past:
    """What comes before the text: for each layer keys and values, and their positions.

    keys[l], values[l]  (B, Hkv, S, D), keys already rotated to their positions
    positions           (B, S), -1 where a slot is empty; the others count up from 0 in each row
    pinned              (B,), so many leading positions stay visible whatever the window; an int
                        stands for the same number in every row
    room                so many slots at the end are empty and wait to be written, in place
    """

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    positions: torch.Tensor
    pinned: torch.Tensor | int = 0
    room: int = 0

    def __post_init__(self):
        if not torch.is_tensor(self.pinned):
            self.pinned = self.positions.new_full((len(self.positions),), self.pinned)  # (B,)

    @property
    def length(self) -> torch.Tensor:
        """How many slots are not empty, which is also the next position, (B,)."""
        return (self.positions >= 0).sum(1)  # (B,)

    def rows(self, index) -> "Past":
        """The rows that the int tensor `index` (B,) names, repeats allowed: a Past of B rows."""
        positions = self.positions[index]  # (B, S)
        used = (positions >= 0).any(0)  # (S,): slots that now are empty in every row fall away
        used = slice(None) if used.all() else used.nonzero()[:, 0]
        keys, values = ([x[index][:, :, used] for x in s] for s in (self.keys, self.values))
        return Past(keys, values, positions[:, used], self.pinned[index])

    def expand(self, B: int) -> "Past":
        """One row shown B times without a copy; a Past of B rows is returned as it is."""
        if len(self.positions) == B:
            return self
        if len(self.positions) != 1:
            raise ValueError(f"a past of {len(self.positions)} rows before {B} rows of text: give "
                             "one row, or as many as there are texts")
        keys, values = ([x.expand(B, -1, -1, -1) for x in s] for s in (self.keys, self.values))
        return Past(keys, values, self.positions.expand(B, -1), self.pinned.expand(B))

    def reserve(self, room: int) -> "Past":
        """A copy with empty slots at the end, for calls that add a token at a time: they write
        there instead of copying the whole past. The copy is then theirs alone."""
        keys, values = ([F.pad(x, (0, 0, 0, room)) for x in s] for s in (self.keys, self.values))
        positions = F.pad(self.positions, (0, room), value=-1)  # (B, S + room)
        return Past(keys, values, positions, self.pinned, room)


def join(old, new, dim, room):
    """`new` behind `old` along dim: a copy, or written into the last `room` slots where it fits."""
    if room < new.shape[dim]:
        return torch.cat((old, new), dim)
    old.narrow(dim, old.shape[dim] - room, new.shape[dim]).copy_(new)
    return old


def visible(q_pos, k_pos, pinned, window=None):
    """The one rule. q_pos (B, T), k_pos (B, S), pinned (B,) -> True where a key is seen."""
    q, k = q_pos[:, :, None], k_pos[:, None, :]  # (B, T, 1), (B, 1, S)
    see = (k >= 0) & (k <= q)  # (B, T, S)
    if window is not None:
        see &= (k > q - window) | (k < pinned[:, None, None])
    return see  # (B, T, S)


def blocks(q_pos, k_pos, pinned, window):
    """Cut T queries into N blocks of R = W / 2, and find the few keys that each block can need.

    A window as a mask over all keys saves nothing: T * S scores are computed and most thrown away.
    But R queries need no more than the pinned keys and the W + R - 1 up to their own end. So
    blocks become rows of a bigger batch, and the cost grows linearly in T.

    Returns slots (B, N, K), the keys that a block takes; their positions (B N, K); the queries'
    own (B N, R). A key is in a block once at most, so the one rule holds there as it stands.
    """
    (B, T), S, device = q_pos.shape, k_pos.shape[1], q_pos.device
    R, M = min(max(window // 2, 1), T), int(pinned.max())
    N = -(-T // R)
    q_pos = F.pad(q_pos, (0, N * R - T), value=-1).view(B, N, R)  # (B, N, R)
    # Empty slots may lie between a row's tokens, so look keys up by position, not by slot.
    slot = k_pos.masked_fill(k_pos < 0, S).argsort(1)  # (B, S): the slot of each position
    first = q_pos.masked_fill(q_pos < 0, S).amin(2, keepdim=True)  # (B, N, 1)
    near = first + torch.arange(1 - window, R, device=device)  # (B, N, W + R - 1)
    near = near.masked_fill(near < M, -1)  # the first M keys come along anyway
    want = torch.cat((torch.arange(M, device=device).expand(B, N, M), near), 2)  # (B, N, K)
    want = want.masked_fill(want >= (k_pos >= 0).sum(1)[:, None, None], -1)
    slots = slot.gather(1, want.clamp(min=0).flatten(1)).view(want.shape)  # (B, N, K)
    return slots, want.flatten(0, 1), q_pos.flatten(0, 1)


def sight(q_pos, k_pos, pinned, config, dtype):
    """What attention needs to know in every layer, worked out once per call: (mask, slots).

    mask (B, 1, G T, S) is added to the scores, the G heads of a group one after another; slots is
    None, or which keys each block of queries takes. (None, None) is plain causal attention.
    """
    (_, T), S, W = q_pos.shape, k_pos.shape[1], config.window
    if T == 0 or S == T and (W is None or T <= W) and bool((k_pos >= 0).all()):
        return None, None
    slots = None
    if W is not None and T > W // 2 and S > 2 * (int(pinned.max()) + W + min(W, T)):
        slots, k_pos, q_pos = blocks(q_pos, k_pos, pinned, W)
        pinned = pinned.repeat_interleave(slots.shape[1])  # (B N,)
    # An empty slot has nothing to see, and a softmax over nothing is NaN. So it sees everything:
    # that is finite, and since nobody attends to it or scores it, it changes nothing.
    see = visible(q_pos, k_pos, pinned, W) | (q_pos < 0)[:, :, None]
    mask = torch.zeros(see.shape, dtype=dtype, device=see.device).masked_fill(~see, -torch.inf)
    return mask.repeat(1, config.n_head // config.n_kv_head, 1)[:, None], slots  # (B, 1, G T, S)


def attention(q, k, v, mask=None, slots=None):
    """softmax(q k^T / sqrt(D) + mask) v: q (B, H, T, D), k and v (B, Hkv, S, D) -> (B, H, T, D).

    Query heads j G to j G + G - 1 share key/value head j. With these G heads laid one after
    another along T it is an ordinary attention with Hkv heads: no key or value is copied.
    """
    (B, H, T, D), Hkv = q.shape, k.shape[1]
    if T == 0:
        return q
    if mask is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=H != Hkv)
    if slots is not None:
        N, R = slots.shape[1], mask.shape[2] * Hkv // H
        q = F.pad(q, (0, 0, 0, N * R - T)).view(B, H, N, R, D)  # (B, H, N, R, D)
        q = q.transpose(1, 2).flatten(0, 1)  # (B N, H, R, D)
        k, v = take(k, slots), take(v, slots)  # (B N, Hkv, K, D)
    folded = q.reshape(len(q), Hkv, q.shape[2] * H // Hkv, D)  # (B, Hkv, G T, D)
    out = F.scaled_dot_product_attention(folded, k, v, attn_mask=mask).reshape(q.shape)  # like q
    if slots is not None:
        out = out.view(B, N, H, R, D).transpose(1, 2)  # (B, H, N, R, D)
        out = out.reshape(B, H, N * R, D)[:, :, :T]  # (B, H, T, D)
    return out


def take(x, slots):
    """The states x (B, Hkv, S, D) of the slots (B, N, K) -> (B N, Hkv, K, D)."""
    B, Hkv, S, D = x.shape
    flat = slots + torch.arange(B, device=x.device)[:, None, None] * S  # (B, N, K)
    x = x.transpose(1, 2).reshape(B * S, Hkv * D)[flat.flatten()]  # (B N K, Hkv D)
    return x.view(-1, slots.shape[2], Hkv, D).transpose(1, 2)  # (B N, Hkv, K, D)


def rotate(x, cos, sin):
    """Turn each pair (x_i, x_{i + D/2}) by its angle: x (B, H, T, D), cos, sin (B, 1, T, D/2)."""
    a, b = x.chunk(2, -1)  # (B, H, T, D/2) twice
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)  # (B, H, T, D)


def linear(x, weight):
    """x W^T: x (..., in), W (out, in) -> (..., out).

    With few rows nearly all the time is W's way from memory, and BLAS on a CPU leaves much of the
    way to one core. As a batch of slabs of W, every core reads its own: up to twice as fast.
    """
    n, out = x.numel() // x.shape[-1], len(weight)
    if weight.numel() <= 2**18 or not 0 < n <= 16 or x.device.type != "cpu":
        return F.linear(x, weight)  # (..., out)
    slabs = weight.view(math.gcd(out, torch.get_num_threads()), -1, x.shape[-1])  # (N, out/N, in)
    columns = x.reshape(n, -1).T.expand(len(slabs), -1, -1)  # (N, in, n)
    return torch.bmm(slabs, columns).view(out, n).T.reshape(*x.shape[:-1], out)  # (..., out)


class Linear(nn.Linear):
    def __init__(self, n_in, n_out):
        super().__init__(n_in, n_out, bias=False)

    def forward(self, x):
        return linear(x, self.weight)  # (..., out)


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        C, H, Hkv, D = config.n_embd, config.n_head, config.n_kv_head, config.head_dim
        self.head_dim = D
        self.q_proj = Linear(C, H * D)
        self.k_proj = Linear(C, Hkv * D)
        self.v_proj = Linear(C, Hkv * D)
        self.o_proj = Linear(H * D, C)

    def forward(self, x, rotary, see, past, first):
        """x (B, T, C), this layer's (keys, values, room) of the past or None
        -> out (B, T - first, C), keys and values (B, Hkv, S, D)."""
        heads = -1, self.head_dim
        q = self.q_proj(x[:, first:]).unflatten(2, heads).transpose(1, 2)  # (B, H, T - first, D)
        k = self.k_proj(x).unflatten(2, heads).transpose(1, 2)  # (B, Hkv, T, D)
        v = self.v_proj(x).unflatten(2, heads).transpose(1, 2)  # (B, Hkv, T, D)
        q, k = rotate(q, *(angle[:, :, first:] for angle in rotary)), rotate(k, *rotary)
        if past is not None:
            k, v = join(past[0], k, 2, past[2]), join(past[1], v, 2, past[2])  # (B, Hkv, S, D)
        out = attention(q, k, v, *see)  # (B, H, T - first, D)
        return self.o_proj(out.transpose(1, 2).flatten(2)), k, v  # (B, T - first, C)


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate_proj = Linear(config.n_embd, config.n_hidden)
        self.up_proj = Linear(config.n_embd, config.n_hidden)
        self.down_proj = Linear(config.n_hidden, config.n_embd)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))  # (B, T, C)


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.n_embd, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.n_embd, config.norm_eps)
        self.mlp = MLP(config)

    def forward(self, x, rotary, see, past, first=0):
        out, k, v = self.self_attn(self.input_layernorm(x), rotary, see, past, first)
        x = x[:, first:] + out  # (B, T - first, C)
        return x + self.mlp(self.post_attention_layernorm(x)), k, v


class GPT(nn.Module):
    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config
        self.facts = {}  # plain values saved with the weights: the tokenizer, how it was trained
        self.model = nn.ModuleDict({
            "embed_tokens": nn.Embedding(config.vocab_size, config.n_embd),
            "layers": nn.ModuleList(Block(config) for _ in range(config.n_layer)),
            "norm": nn.RMSNorm(config.n_embd, config.norm_eps),
        })
        if not config.tie_embeddings:
            self.lm_head = Linear(config.n_embd, config.vocab_size)
        for name, p in self.named_parameters():
            if p.dim() == 2:  # what is added to the residual stream starts smaller, as in GPT-2
                added = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(p, std=0.02 / (2 * config.n_layer) ** 0.5 if added else 0.02)

    @property
    def device(self):
        return self.model.embed_tokens.weight.device

    def hidden(self, idx=None, past=None, *, embeds=None, first=0):
        """The last layer's normed states from slot `first` on, (B, T - first, C), and the past with
        this call's slots added. Keys and values need all slots, but what the last layer does
        beyond them is worth computing only where it is read."""
        if embeds is None:
            embeds = self.model.embed_tokens(idx.clamp(min=0))  # (B, T, C)
        (B, T, _), device, limit = embeds.shape, embeds.device, self.config.block_size
        real = torch.ones(B, T, device=device) if idx is None else idx >= 0
        if past is None:
            past = Past([None] * self.config.n_layer, [], real.new_zeros(B, 0, dtype=torch.long))
        past = past.expand(B)
        q_pos = real.cumsum(1).long() - 1 + past.length[:, None]  # (B, T)
        q_pos = q_pos.masked_fill(real == 0, -1)
        k_pos = join(past.positions, q_pos, 1, past.room)  # (B, S)
        if k_pos.shape[1] > limit and int(k_pos.max()) >= limit:  # look only where it can happen
            raise ValueError(f"{int(k_pos.max()) + 1} positions do not fit into block_size={limit}:"
                             " shorten the text or the soft prompt")
        see = sight(q_pos, k_pos, past.pinned, self.config, embeds.dtype)
        # Angles in float32 and made anew: in half precision, far positions would blur together.
        pairs = torch.arange(self.config.head_dim // 2, device=device)  # (D/2,)
        angles = self.config.rope_base ** (-2 * pairs / self.config.head_dim)  # (D/2,)
        angles = q_pos[:, None, :, None] * angles  # (B, 1, T, D/2)
        rotary = angles.cos().to(embeds.dtype), angles.sin().to(embeds.dtype)

        h, keys, values = embeds, [], []
        for i, block in enumerate(self.model.layers):
            before = (past.keys[i], past.values[i], past.room) if past.values else None
            if i + 1 < len(self.model.layers) or first == 0:
                h, k, v = block(h, rotary, see, before)
            else:
                see = sight(q_pos[:, first:], k_pos, past.pinned, self.config, h.dtype)
                h, k, v = block(h, rotary, see, before, first)
            keys.append(k)
            values.append(v)
        past = Past(keys, values, k_pos, past.pinned, max(past.room - T, 0))
        return self.model.norm(h), past  # (B, T - first, C)

    def unembed(self, h):
        """Hidden states (..., C) -> logits (..., V)."""
        head = self.model.embed_tokens if self.config.tie_embeddings else self.lm_head
        return linear(h, head.weight)  # (..., V)

    def forward(self, idx=None, past=None, *, embeds=None):
        """idx (B, T), -1 in empty slots -> logits (B, T, V), and the past with these slots added.

        `embeds` (B, T, C) take the place of the ids' embeddings; `idx` then only says which slots
        are empty, and may be left out. `past` has B rows, or one that all rows share.
        Raises ValueError where the positions do not fit into block_size.
        """
        h, past = self.hidden(idx, past, embeds=embeds)
        return self.unembed(h), past

    def scored(self, idx, targets, past=None):
        """The logits where targets >= 0, (n, V), in the order of targets[targets >= 0].

        The vocabulary is the widest layer of a small model, and few positions are scored.
        """
        first = int((targets >= 0).any(0).int().argmax())
        h, _ = self.hidden(idx, past, first=first)  # (B, T - first, C)
        return self.unembed(h[targets[:, first:] >= 0])  # (n, V)

    def loss(self, idx, targets, past=None):
        """Mean cross-entropy in nats where targets >= 0; targets[b, t] follows idx[b, t].
        NaN where nothing is scored."""
        return F.cross_entropy(self.scored(idx, targets, past).float(), targets[targets >= 0])

    @torch.inference_mode()
    def generate(self, rows, max_new_tokens, past=None, temperature=0.0, top_k=None, stop=None,
                 generator=None) -> list[list[int]]:
        """Continue rows of ids of any lengths: the new ids of each, up to `stop` and without it.

        One prefill, then one cached step per token. temperature 0 is greedy; otherwise ids are
        drawn from softmax(logits / temperature), from the `top_k` likeliest where that is given,
        by `generator` (on the model's device).
        Raises ValueError for an empty row, or where block_size is too small for one.
        """
        if not rows or min(map(len, rows)) == 0:
            raise ValueError("generate continues rows of at least one id each")
        if temperature < 0 or top_k is not None and top_k < 1:
            raise ValueError(f"temperature={temperature}, top_k={top_k}: give at least 0 and 1")
        T, before = max(map(len, rows)), [0] * len(rows)
        if past is not None:
            before = past.expand(len(rows)).length.tolist()
        P, n = max(zip(before, map(len, rows)), key=sum)
        if P + n + max_new_tokens > self.config.block_size:
            raise ValueError(f"{P} virtual tokens + {n} of text + {max_new_tokens} new do not fit "
                             f"into block_size={self.config.block_size}")
        # Empty slots on the left, so that the last column holds every row's last token.
        idx = torch.tensor([[-1] * (T - len(r)) + list(r) for r in rows], device=self.device)
        done, new = torch.zeros_like(idx[:, 0], dtype=torch.bool), []
        while len(new) < max_new_tokens and not done.all():
            h, past = self.hidden(idx, past, first=idx.shape[1] - 1)
            if past.room == 0 and len(new) + 1 < max_new_tokens:
                past = past.reserve(min(64, max_new_tokens - len(new)))
            logits = self.unembed(h[:, -1]).float()  # (B, V)
            if temperature == 0:
                idx = logits.argmax(1)  # (B,)
            else:
                if top_k is not None:
                    least = logits.topk(min(top_k, logits.shape[1])).values[:, -1:]  # (B, 1)
                    logits = logits.masked_fill(logits < least, -torch.inf)
                chances = (logits / temperature).softmax(1)  # (B, V)
                idx = torch.multinomial(chances, 1, generator=generator)[:, 0]  # (B,)
            done |= idx == (-1 if stop is None else stop)
            idx = idx.masked_fill(done, -1)[:, None]  # (B, 1): a finished row adds empty slots
            new.append(idx)
        return [[i for i in row if i >= 0] for row in torch.cat(new or [idx[:, :0]], 1).tolist()]

    def fingerprint(self) -> str:
        """SHA-256 of the configuration and every weight as float32: the same on every device."""
        digest = hashlib.sha256(json.dumps(asdict(self.config), sort_keys=True).encode())
        for name, p in sorted(self.state_dict().items()):
            digest.update(name.encode() + p.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()

    def save(self, path, **facts):
        """Write weights, configuration and facts; in bfloat16 where that changes no value."""
        state = {name: p.detach().cpu() for name, p in self.state_dict().items()}
        for name, p in state.items():
            state[name] = p.bfloat16() if torch.equal(p.bfloat16().to(p.dtype), p) else p
        facts = {**self.facts, **facts}
        write(path, {"config": asdict(self.config), "facts": facts, "state": state})

    @classmethod
    def load(cls, path) -> "GPT":
        """The saved model, in float32. Raises ValueError for a file that holds none."""
        content = read(path, "a base model", ("config", "facts", "state"))
        model = cls(GPTConfig(**content["config"]))
        model.load_state_dict(content["state"])
        model.facts = content["facts"]
        return model

    @classmethod
    def from_pretrained(cls, name, dtype=None) -> "GPT":
        """A Llama or Mistral checkpoint in Hugging Face's format, on the CPU: the folder with
        config.json and model.safetensors (or its shards), or a name on their hub.

        dtype None leaves every weight in its own. Raises ValueError, with the name of the field or
        tensor, for whatever this model would compute differently; nothing is left out in silence.
        """
        folder = hub_folder(name)
        config, facts = config_from(folder)
        with torch.device("meta"):  # no memory for weights that are replaced at once
            model = cls(config)
        wanted, found = model.state_dict(), {}
        for key, tensor in weights_in(folder):
            if key.endswith("rotary_emb.inv_freq"):
                continue  # old checkpoints store these angles, config.json says the same
            if key == "lm_head.weight" and config.tie_embeddings:
                continue  # the embedding takes its place, whatever is stored
            if key not in wanted:
                raise ValueError(f"{folder}: tensor {key} has no place in this model")
            if tensor.shape != wanted[key].shape:
                raise ValueError(f"{folder}: {key} is {tuple(tensor.shape)}, config.json asks for "
                                 f"{tuple(wanted[key].shape)}")
            found[key] = tensor.to(dtype or tensor.dtype)
        if missing := sorted(wanted.keys() - found.keys()):
            raise ValueError(f"{folder}: {len(missing)} tensors are missing, first {missing[0]}")
        model.load_state_dict(found, assign=True)
        model.facts = {"name": str(name), **facts}
        if folder.parent.name == "snapshots":  # the hub's cache names a folder by its commit
            model.facts["revision"] = folder.name
        return model


def needs(package):
    """An optional package, imported where it is used; ValueError says what to install."""
    try:
        return importlib.import_module(package)
    except ImportError as missing:
        name = package.split(".")[0]
        raise ValueError(f"this needs {name}: pip install {name}") from missing


def hub_folder(name) -> Path:
    """The folder itself, or what huggingface_hub has of that name (fetched if need be)."""
    if Path(name).is_dir():
        return Path(name)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)):
        raise ValueError(f"{name} is no folder, and no OWNER/NAME on the Hugging Face hub")
    hub = needs("huggingface_hub")
    try:  # the top folder only, and not the same weights a second time
        return Path(hub.snapshot_download(str(name), allow_patterns=["*.json", "*.safetensors"],
                                          ignore_patterns=["*/*", "consolidated*"]))
    except Exception as problem:  # no network, no such model, no permission: the hub says which
        why = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        raise ValueError(f"{name} is no folder, and the hub did not give it: {why}") from problem


def read_json(path) -> dict:
    """The object in a JSON file; ValueError names a file that holds none."""
    try:
        given = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as problem:
        raise ValueError(f"{path} is not JSON: {problem}") from problem
    if not isinstance(given, dict):
        raise ValueError(f"{path} does not hold a JSON object")
    return given


def read_tensors(path):
    """({name: tensor}, metadata) of a safetensors file; ValueError names one that is damaged."""
    library = needs("safetensors")
    try:
        with library.safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except (OSError, library.SafetensorError) as problem:
        raise ValueError(f"{path} cannot be read: {problem}") from problem


MISTRAL = {"sliding_window": 4096, "num_key_value_heads": 8, "max_position_embeddings": 131072}


def config_from(folder):
    """config.json as (GPTConfig, {"end": its end-of-text id}); ValueError names what differs.

    A field that is left out means what transformers takes for it."""
    path = folder / "config.json"
    if not path.exists():
        raise ValueError(f"{folder} has no config.json: give a folder in Hugging Face's format")
    given = read_json(path)

    def refuse(field, value, only):
        raise ValueError(f"{path}: {field} = {value!r} is not supported, only {only} is")

    if given.get("model_type") not in ("llama", "mistral"):
        refuse("model_type", given.get("model_type"), "llama or mistral")
    if given["model_type"] == "mistral":
        given = {**MISTRAL, **given}
    elif given.get("sliding_window"):
        refuse("sliding_window", given["sliding_window"], "null in a llama")
    theta = given.get("rope_theta", 10000.0)
    for field in ("rope_parameters", "rope_scaling"):
        rope = given.get(field) or {}
        kind = isinstance(rope, dict) and rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            refuse(field, rope, "plain rotary positions (rope_type default)")
        theta = rope.get("rope_theta", theta)
    for field, value in {"attention_bias": False, "mlp_bias": False, "hidden_act": "silu",
                         "rope_interleaved": False, "quantization_config": None}.items():
        if given.get(field) not in (None, value):
            refuse(field, given[field], json.dumps(value))
    try:
        config = GPTConfig(
            vocab_size=given["vocab_size"], block_size=given.get("max_position_embeddings", 2048),
            n_layer=given["num_hidden_layers"], n_head=given["num_attention_heads"],
            n_embd=given["hidden_size"], n_kv_head=given.get("num_key_value_heads"),
            head_dim=given.get("head_dim"), n_hidden=given["intermediate_size"],
            window=given.get("sliding_window"), rope_base=theta,
            norm_eps=given.get("rms_norm_eps", 1e-6),
            tie_embeddings=given.get("tie_word_embeddings", False))
    except KeyError as missing:
        raise ValueError(f"{path} lacks {missing.args[0]}") from missing
    except ValueError as problem:
        raise ValueError(f"{path}: {problem}") from problem
    end = given.get("eos_token_id")
    return config, {"end": next(iter(end), None) if isinstance(end, list) else end}


def weights_in(folder):
    """(name, tensor) of model.safetensors, or of the shards that its index names."""
    index, one = folder / "model.safetensors.index.json", folder / "model.safetensors"
    shards = {"": one.name}
    if not one.exists():
        if not index.exists():
            raise ValueError(f"{folder} has neither {one.name} nor {index.name}: other formats "
                             "are not read")
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict):
            raise ValueError(f"{index} has no weight_map")
    for shard in sorted(set(shards.values())):
        yield from read_tensors(folder / shard)[0].items()


def write(path, content):
    """torch.save with a SHA-256 behind it, to a temporary file that then takes the name."""
    buffer, part = io.BytesIO(), f"{path}.part"
    torch.save(content, buffer)
    with open(part, "wb") as file:
        file.write(buffer.getvalue() + hashlib.sha256(buffer.getvalue()).digest())
    os.replace(part, path)


def read(path, what, names):
    """What `write` wrote, with these names in it; `what` it should be is for the message.

    Raises ValueError for a file that is cut short, changed or of another kind. The checksum is
    looked at first, and torch's weights-only reader runs nothing that a file contains.
    """
    with open(path, "rb") as file:
        data = file.read()
    if hashlib.sha256(data[:-32]).digest() != data[-32:]:
        raise ValueError(f"{path} is damaged, or not a file of this project: copy or make it anew")
    try:
        content = torch.load(io.BytesIO(data[:-32]), map_location="cpu", weights_only=True)
    except Exception as problem:  # a right checksum over something that is not plain tensors
        raise ValueError(f"{path} holds more than plain values, it is not read") from problem
    if not isinstance(content, dict) or not content.keys() >= set(names):
        raise ValueError(f"{path} does not hold {what}")
    return content
