"""A small modern GPT: RMSNorm, rotary positions, SwiGLU, grouped-query attention, sliding window.

Letters, here and everywhere in this project:

    B rows · T tokens in this call · P virtual tokens · S keys seen · C n_embd · H query heads
    Hkv key/value heads · G = H / Hkv · D head_dim · L layers · V vocabulary
    W window: how many keys a query may see, itself included

`-1` means "nothing here": an input id of -1 is an empty slot, a target of -1 is not scored, a
position of -1 is never attended. Positions count the slots that are not empty. So padding on any
side, ragged prompts and a text behind a short prompt are one case, with one rule for what is seen:

    a real key           k_pos >= 0
    not in the future    k_pos <= q_pos
    near enough          k_pos > q_pos - W    or    k_pos < pinned

What comes before the text is a `Past`: the cache while generating, a learned prompt after one pass
through the model, or a learned prefix as it is. Module names are those of LlamaForCausalLM.
"""

import hashlib
import importlib
import io
import json
import math
import os
from dataclasses import asdict, dataclass
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
        for name, value in vars(self).items():
            if value is not None and name != "tie_embeddings" and value <= 0:
                raise ValueError(f"{name}={value}: give a number above 0")
        C, H = self.n_embd, self.n_head
        self.n_kv_head = self.n_kv_head or H
        self.n_hidden = self.n_hidden or math.ceil(8 * C / 96) * 32
        if self.head_dim is None and C % H:
            raise ValueError(f"n_embd={C} is not a multiple of n_head={H}: set head_dim as well")
        self.head_dim = self.head_dim or C // H
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim}: rotary positions need an even number")
        if H % self.n_kv_head:
            raise ValueError(f"n_head={H} is not a multiple of n_kv_head={self.n_kv_head}")

@dataclass
class Past:
    """What comes before the text: for each layer keys and values, and their positions.

    keys[l], values[l]  (B, Hkv, S, D), keys rotated to their positions
    positions           (B, S), -1 where a slot is empty; the others count up from 0 in each row
    pinned              (B,) or an int: so many leading positions stay visible whatever the window
    room                so many slots at the end are empty, to be written in place (see `reserve`)
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
        used = (positions >= 0).any(0).nonzero()[:, 0]  # (S,): what is empty in all rows falls away
        keys, values = ([x[index][:, :, used] for x in s] for s in (self.keys, self.values))
        return Past(keys, values, positions[:, used], self.pinned[index])

    def expand(self, B: int) -> "Past":
        """One row shown B times without a copy; B rows as they are; else ValueError."""
        if len(self.positions) not in (1, B):
            raise ValueError(f"a past of {len(self.positions)} rows before {B} rows of text")
        keys, values = ([x.expand(B, -1, -1, -1) for x in s] for s in (self.keys, self.values))
        return Past(keys, values, self.positions.expand(B, -1), self.pinned.expand(B), self.room)

    def reserve(self, room: int) -> "Past":
        """A copy with empty slots at the end, where calls that add a token at a time write."""
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
    """The one rule: q_pos (B, T), k_pos (B, S), pinned (B,) -> (B, T, S), True where seen."""
    q, k = q_pos[:, :, None], k_pos[:, None, :]  # (B, T, 1), (B, 1, S)
    seen = (k >= 0) & (k <= q)  # (B, T, S)
    if window is not None:
        seen &= (k > q - window) | (k < pinned[:, None, None])
    return seen

def attention_mask(q_pos, k_pos, pinned, config, dtype):
    """The rule as `attention` takes it: None for plain causal attention, or (B, 1, G T, S) to be
    added to the scores, or under a window the (queries, keys, mask) of each of `blocks`."""
    (_, T), S, W = q_pos.shape, k_pos.shape[1], config.window
    if T == 0 or S == T and (W is None or T <= W) and bool((k_pos >= 0).all()):
        return None

    def mask(q_pos, k_pos):
        # An empty slot has nothing to see, and a softmax over nothing is NaN. So it sees
        # everything: that is finite, and as nobody attends to it or scores it, it changes nothing.
        seen = visible(q_pos, k_pos, pinned, W) | (q_pos < 0)[:, :, None]  # (B, T, S)
        zeros = torch.zeros(seen.shape, dtype=dtype, device=seen.device)  # (B, T, S)
        group = config.n_head // config.n_kv_head
        return zeros.masked_fill(~seen, -torch.inf).repeat(1, group, 1)[:, None]  # (B, 1, G T, S)

    if W is None or T <= W // 2 or S <= 2 * (int(pinned.max()) + W + min(W, T)):
        return mask(q_pos, k_pos)
    return [(queries, keys, mask(q_pos[:, queries], k_pos[:, keys]))
            for queries, keys in blocks(q_pos, k_pos, pinned, W)]

def attention(q, k, v, mask=None):
    """softmax(q k^T / sqrt(D) + mask) v: q (B, H, T, D), k and v (B, Hkv, S, D) -> (B, H, T, D).

    Query heads j G to j G + G - 1 share key/value head j. With these G heads laid one after
    another along T it is an ordinary attention with Hkv heads: no key or value is copied."""
    (B, H, T, D), Hkv = q.shape, k.shape[1]
    if T == 0:
        return q
    if mask is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=H != Hkv)
    if isinstance(mask, list):
        parts = [attention(q[:, :, queries], k[:, :, keys], v[:, :, keys], part)
                 for queries, keys, part in mask]
        return torch.cat(parts, 2)  # (B, H, T, D)
    q = q.reshape(B, Hkv, H // Hkv * T, D)  # (B, Hkv, G T, D)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # (B, Hkv, G T, D)
    return out.reshape(B, H, T, D)

def rotate(x, cos, sin):
    """Turn each pair (x_i, x_{i + D/2}) by its angle: x (B, H, T, D), cos, sin (B, 1, T, D/2)."""
    a, b = x.chunk(2, -1)  # (B, H, T, D/2) twice
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)  # (B, H, T, D)

# ------------------------------------------------------------------ speed: a first reader skips it

def blocks(q_pos, k_pos, pinned, window):
    """Cut T queries into blocks: [(the queries' slots, the key slots that one of them may see)].

    A window as a mask over all keys saves nothing: T * S scores are computed and most thrown away.
    But W queries need no more than the pinned keys and the 2 W - 1 up to their own end. So a long
    text is done block by block, and the cost grows linearly in T."""
    order = k_pos.cummax(1).values  # (B, S): no longer -1 where a slot is empty, so it is sorted

    def slot_of(position):  # of each row, (B,) -> (B,)
        return torch.searchsorted(order, position[:, None])[:, 0]

    n_pinned = int((slot_of(pinned - 1) + (pinned > 0)).max())
    parts = []
    for queries in torch.arange(q_pos.shape[1], device=q_pos.device).split(window):
        asked = q_pos[:, queries]  # (B, up to W)
        first = asked.masked_fill(asked < 0, k_pos.shape[1]).amin(1)  # (B,)
        end = int(slot_of(asked.amax(1)).max()) + 1
        start = min(int(slot_of(first - window + 1).min()), end - 1)
        keys = torch.arange(end, device=q_pos.device)  # (end,)
        parts.append((queries, keys[(keys < n_pinned) | (keys >= start)]))
    return parts

def linear(x, weight):
    """x W^T: x (..., in), W (out, in) -> (..., out). With few rows nearly all the time is W's way
    from memory, and on a CPU one core does it alone. As a batch of N slabs of W, every core reads
    its own: up to three times as fast."""
    n, out, N = x.numel() // x.shape[-1], len(weight), torch.get_num_threads()
    if x.device.type != "cpu" or not 0 < n <= 16 or out % N or weight.numel() <= 2**18:
        return F.linear(x, weight)  # (..., out)
    slabs = weight.view(N, out // N, -1)  # (N, out / N, in)
    columns = x.reshape(n, -1).T.expand(N, -1, -1)  # (N, in, n)
    return torch.bmm(slabs, columns).view(out, n).T.reshape(*x.shape[:-1], out)  # (..., out)

class Linear(nn.Linear):
    def forward(self, x):
        return linear(x, self.weight)  # (..., out)

class Attention(nn.Module):
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

    def keys_values(self, x, rotary):
        """x (B, T, C) -> keys, rotated, and values, (B, Hkv, T, D) each."""
        return rotate(self.heads(self.k_proj(x)), *rotary), self.heads(self.v_proj(x))

    def forward(self, x, k, v, rotary, mask):
        """What the queries of x (B, T, C) read from k and v (B, Hkv, S, D) -> (B, T, C)."""
        q = rotate(self.heads(self.q_proj(x)), *rotary)  # (B, H, T, D)
        out = attention(q, k, v, mask)  # (B, H, T, D)
        return self.o_proj(out.transpose(1, 2).flatten(2))  # (B, T, C)

class MLP(nn.Module):
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

    def forward(self, x, rotary, mask, past_keys, past_values, room, first):
        """x (B, T, C) -> (B, T - first, C), and this layer's keys and values (B, Hkv, S, D)."""
        h = self.input_layernorm(x)  # (B, T, C)
        k, v = self.self_attn.keys_values(h, rotary)  # (B, Hkv, T, D) each
        k, v = join(past_keys, k, 2, room), join(past_values, v, 2, room)  # (B, Hkv, S, D) each
        x, h = x[:, first:], h[:, first:]  # (B, T - first, C) each
        x = x + self.self_attn(h, k, v, [angles[:, :, first:] for angles in rotary], mask)
        return x + self.mlp(self.post_attention_layernorm(x)), k, v

class GPT(nn.Module):
    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config
        self.facts = {}  # plain values saved with the weights: the tokenizer, how it was trained
        self.model = nn.ModuleDict({
            "embed_tokens": nn.Embedding(config.vocab_size, config.n_embd),
            "layers": nn.ModuleList(Block(config) for _ in range(config.n_layer)),
            "norm": nn.RMSNorm(config.n_embd, config.norm_eps)})
        if not config.tie_embeddings:
            self.lm_head = Linear(config.n_embd, config.vocab_size, bias=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:  # what is added to the residual stream starts smaller, as in GPT-2
                added = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(p, std=0.02 / (2 * config.n_layer) ** 0.5 if added else 0.02)

    @property
    def device(self):
        return self.model.embed_tokens.weight.device

    def empty_past(self, B=1, pinned=0) -> Past:
        """A Past of B rows without slots: what comes before the first token."""
        config, table = self.config, self.model.embed_tokens.weight
        none = [table.new_empty(B, config.n_kv_head, 0, config.head_dim)] * config.n_layer
        return Past(none, none, torch.empty(B, 0, dtype=torch.long, device=table.device), pinned)

    def hidden(self, idx=None, past=None, *, embeds=None, first=0):
        """The last layer's states from slot `first` on, (B, T - first, C), and the past with all T
        slots added. Before `first` the last layer computes keys and values only."""
        if embeds is None:
            embeds = self.model.embed_tokens(idx.clamp(min=0))  # (B, T, C)
        (B, T, _), config, device = embeds.shape, self.config, embeds.device
        real = torch.ones(B, T, device=device) if idx is None else idx >= 0  # (B, T)
        past = self.empty_past(B) if past is None else past.expand(B)
        q_pos = real.cumsum(1).long() - 1 + past.length[:, None]  # (B, T)
        q_pos = q_pos.masked_fill(real == 0, -1)
        k_pos, limit = join(past.positions, q_pos, 1, past.room), config.block_size  # (B, S)
        if k_pos.shape[1] > limit and int(k_pos.max()) >= limit:  # look only where it can happen
            raise ValueError(f"{int(k_pos.max()) + 1} positions do not fit into block_size={limit}:"
                             " shorten the text or the soft prompt")
        # Angles in float32 and made anew: in half precision, far positions would blur together.
        pairs = torch.arange(config.head_dim // 2, device=device)  # (D/2,)
        angles = config.rope_base ** (-2 * pairs / config.head_dim)  # (D/2,)
        angles = q_pos[:, None, :, None] * angles  # (B, 1, T, D/2)
        rotary = angles.cos().to(embeds.dtype), angles.sin().to(embeds.dtype)
        mask = attention_mask(q_pos, k_pos, past.pinned, config, embeds.dtype)
        h, states, skip = embeds, [], 0
        for i, block in enumerate(self.model.layers):
            if first and i + 1 == config.n_layer:
                skip = first
                mask = attention_mask(q_pos[:, first:], k_pos, past.pinned, config, embeds.dtype)
            h, *state = block(h, rotary, mask, past.keys[i], past.values[i], past.room, skip)
            states.append(state)
        keys, values = map(list, zip(*states))
        return self.model.norm(h), Past(keys, values, k_pos, past.pinned, max(past.room - T, 0))

    def unembed(self, h):
        """Hidden states (..., C) -> logits (..., V)."""
        head = self.model.embed_tokens if self.config.tie_embeddings else self.lm_head
        return linear(h, head.weight)  # (..., V)

    def forward(self, idx=None, past=None, *, embeds=None):
        """idx (B, T), -1 in empty slots -> logits (B, T, V), and the past with these slots added.
        `embeds` (B, T, C) take the place of the ids' embeddings; `idx` then only says which slots
        are empty, and may be left out. `past` has B rows, or one that all rows share. Raises
        ValueError where the positions do not fit into block_size."""
        h, past = self.hidden(idx, past, embeds=embeds)
        return self.unembed(h), past

    def scored(self, idx, targets, past=None):
        """The logits where targets >= 0, (n, V), in the order of targets[targets >= 0].
        The vocabulary is the widest layer of a small model, and few positions are scored."""
        first = int((targets >= 0).any(0).int().argmax())
        h, _ = self.hidden(idx, past, first=first)  # (B, T - first, C)
        return self.unembed(h[targets[:, first:] >= 0])  # (n, V)

    def loss(self, idx, targets, past=None):
        """Mean cross-entropy in nats where targets >= 0; targets[b, t] follows idx[b, t]."""
        return F.cross_entropy(self.scored(idx, targets, past).float(), targets[targets >= 0])

    @torch.inference_mode()
    def generate(self, rows, max_new_tokens, past=None, temperature=0.0, top_k=None, stop=None,
                 generator=None) -> list[list[int]]:
        """Continue rows of ids of any lengths: the new ids of each, up to `stop` and without it.
        temperature 0 is greedy; otherwise ids are drawn from softmax(logits / temperature), from
        the `top_k` likeliest where that is given, by `generator` (on the model's device).
        Raises ValueError for an empty row, or where block_size is too small for one."""
        if min(map(len, rows)) == 0:
            raise ValueError("generate continues rows of at least one id each")
        T, past = max(map(len, rows)), (past or self.empty_past()).expand(len(rows))
        for P, row in zip(past.length.tolist(), rows):
            if P + len(row) + max_new_tokens > self.config.block_size:
                raise ValueError(f"{P} virtual tokens + {len(row)} of text + {max_new_tokens} new "
                                 f"do not fit into block_size={self.config.block_size}")
        # Empty slots on the left, so that the last column holds every row's last token.
        idx = torch.tensor([[-1] * (T - len(row)) + list(row) for row in rows], device=self.device)
        done, new = torch.zeros_like(idx[:, 0], dtype=torch.bool), []  # (B,)
        while len(new) < max_new_tokens and not done.all():
            h, past = self.hidden(idx, past, first=idx.shape[1] - 1)  # (B, 1, C)
            if past.room == 0 and len(new) + 1 < max_new_tokens:
                past = past.reserve(min(64, max_new_tokens - len(new)))
            logits = self.unembed(h[:, -1]).float()  # (B, V)
            if top_k is not None:
                least = logits.topk(min(top_k, logits.shape[1])).values[:, -1:]  # (B, 1)
                logits = logits.masked_fill(logits < least, -torch.inf)
            if temperature == 0:
                idx = logits.argmax(1)  # (B,)
            else:
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
        """Write weights, configuration and facts."""
        state = {name: p.detach().cpu() for name, p in self.state_dict().items()}
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
        """A Llama or Mistral in Hugging Face's format: the folder, or a name on their hub. dtype
        None leaves every weight in its own. ValueError names what would be computed differently."""
        folder = hub_folder(name)
        config, end = read_config(folder)
        with torch.device("meta"):  # no memory for weights that are replaced at once
            model = cls(config)
        try:
            model.load_state_dict(read_weights(folder, config, dtype), assign=True)
        except RuntimeError as problem:  # it names what is missing, left over or of another shape
            raise ValueError(f"{folder}: {' '.join(str(problem).split())[:500]}") from problem
        model.facts = {"name": str(name), "end": end}
        return model

def write(path, content):
    """torch.save with a SHA-256 behind it, to a temporary file that then takes the name."""
    buffer, part = io.BytesIO(), f"{path}.part"
    torch.save(content, buffer)
    Path(part).write_bytes(buffer.getvalue() + hashlib.sha256(buffer.getvalue()).digest())
    os.replace(part, path)

def read(path, what, names):
    """What `write` wrote; ValueError for a file that is cut short, changed or of another kind than
    `what`, which has these names. torch's weights-only reader runs nothing that it contains."""
    data = Path(path).read_bytes()
    if hashlib.sha256(data[:-32]).digest() != data[-32:]:
        raise ValueError(f"{path} is damaged, or not a file of this project: copy or make it anew")
    try:
        content = torch.load(io.BytesIO(data[:-32]), map_location="cpu", weights_only=True)
    except Exception as problem:  # a right checksum over something that is not plain tensors
        raise ValueError(f"{path} holds more than plain values, it is not read") from problem
    if not content.keys() >= set(names):
        raise ValueError(f"{path} does not hold {what}")
    return content

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
    if str(name).count("/") != 1:
        raise ValueError(f"{name} is no folder, and no OWNER/NAME on the Hugging Face hub")
    hub = needs("huggingface_hub")
    try:
        return Path(hub.snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as problem:  # no network, no such model, no permission: the hub says which
        raise ValueError(f"{name} is no folder, and not from the hub: {problem}") from problem

# GPTConfig's fields in config.json, and what transformers takes for one that is left out.
NAMES = dict(vocab_size="vocab_size", block_size="max_position_embeddings", n_embd="hidden_size",
             n_layer="num_hidden_layers", n_head="num_attention_heads", head_dim="head_dim",
             n_kv_head="num_key_value_heads", n_hidden="intermediate_size", rope_base="rope_theta",
             window="sliding_window", norm_eps="rms_norm_eps", tie_embeddings="tie_word_embeddings")
USUAL = dict(num_key_value_heads=None, head_dim=None, rope_theta=1e4, tie_word_embeddings=False,
             rope_type="default", attention_bias=False, mlp_bias=False, hidden_act="silu")
ONLY = dict(model_type=("llama", "mistral"), rope_type=("default",), hidden_act=("silu",),
            attention_bias=(False, None), mlp_bias=(False, None))

def read_config(folder):
    """config.json as (GPTConfig, the id that ends a text); ValueError names what differs."""
    given = {**USUAL, **json.loads((folder / "config.json").read_text(encoding="utf-8"))}
    for rope in (given.get("rope_parameters") or {}, given.get("rope_scaling") or {}):
        given.update({"rope_type": rope.get("type", given["rope_type"]), **rope})
    if given.get("model_type") == "llama":
        given["sliding_window"] = None  # transformers' Llama has none, whatever the file says
    for name, only in ONLY.items():
        if given.get(name) not in only:
            raise ValueError(f"{folder}: {name} = {given.get(name)!r}, supported is only {only}")
    if missing := NAMES.values() - given.keys():
        raise ValueError(f"{folder}: config.json lacks {', '.join(sorted(missing))}")
    end = given.get("eos_token_id")
    config = GPTConfig(**{ours: given[theirs] for ours, theirs in NAMES.items()})
    return config, end[0] if isinstance(end, list) else end

def read_tensors(path):
    """({name: tensor}, metadata) of a safetensors file; ValueError names one that is damaged."""
    library = needs("safetensors")
    try:
        with library.safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except (OSError, library.SafetensorError) as problem:
        raise ValueError(f"{path} cannot be read: {problem}") from problem

def read_weights(folder, config, dtype=None):
    """{name: tensor} of model.safetensors or its shards."""
    weights = {}
    for file in sorted(folder.glob("model*.safetensors")):
        for name, tensor in read_tensors(file)[0].items():
            # Old checkpoints store the rotary angles, and tied ones may store the embedding twice.
            twice = name == "lm_head.weight" and config.tie_embeddings
            if not twice and not name.endswith("rotary_emb.inv_freq"):
                weights[name] = tensor.to(dtype or tensor.dtype)
    return weights
