"""Soft prompts: learned vectors that steer a frozen language model.

    prompt tuning (Lester et al. 2021, arXiv 2104.08691)   P learned embeddings
    prefix tuning (Li & Liang 2021, arXiv 2101.00190)      P learned keys and values in every layer

Both are ways to make a `Past`, which is what the model has seen before the text. Attention is
causal: what the model computes at the virtual tokens never depends on the text behind them. So
they run through the model once, as one row, and every row of text shares the result. That is
exact, not a shortcut. The base is never wrapped or changed, and only the soft prompt's own
parameters are trained:

    soft = PromptTuning.start(model, initial_embeddings(model, 16, "text", ids))
    optimizer = torch.optim.AdamW(soft.parameters(), lr=0.03)
    model.loss(idx, targets, soft.past(model)).backward()

Letters and the rule for what is visible stand at the top of model.py.
"""

import json
import math
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F

from model import Past, hub_folder, needs, read, read_tensors, write

INITIALIZATIONS = ("text", "vocab", "matched", "normal")

def initial_embeddings(model, length, method, ids=None, generator=None) -> torch.Tensor:
    """P = length vectors (P, C) to start from, float32, on the model's device.

    "text"     the embeddings of `ids`, repeated or cut to P: what they say is where it starts
    "vocab"    rows of the embedding table, drawn without replacement where there are enough
    "matched"  Gaussian with the mean and standard deviation of each of the table's columns
    "normal"   Gaussian with mean 0 and standard deviation 1, whatever the table's scale is

    Random numbers come from `generator` (a CPU generator), so they are the same on every device.
    Raises ValueError for an unknown method, a length with no room for text, and missing ids.
    """
    table, limit = model.model.embed_tokens.weight.detach().float().cpu(), model.config.block_size
    V, C = table.shape
    if not 0 <= length < limit:
        raise ValueError(f"{length} virtual tokens leave no room for text in block_size={limit}: "
                         f"choose a length from 0 to {limit - 1}")
    if method not in INITIALIZATIONS:
        raise ValueError(f"unknown initialization {method!r}: choose {', '.join(INITIALIZATIONS)}")
    if method == "text" and (ids is None or len(ids) == 0):
        raise ValueError("initialization 'text' needs the ids of at least one token")
    if method in ("text", "vocab"):
        if method == "vocab":
            ids = torch.randperm(V, generator=generator)  # (V,)
        ids = torch.as_tensor(ids).cpu().repeat(math.ceil(length / len(ids)))[:length]  # (P,)
        start = table[ids]  # (P, C)
    else:
        start = torch.randn(length, C, generator=generator)  # (P, C)
    if method == "matched":
        start = table.mean(0) + table.std(0) * start  # (P, C)
    return start.to(model.device)

class SoftPrompt(nn.Module):
    """What all kinds share: facts that are saved with it, and one row of past."""

    def __init__(self):
        super().__init__()
        self.facts = {}

    def past(self, model, pinned=None) -> Past:
        """The Past (B = 1) to give to the model; `pinned` as in `prefill`."""
        return prefill([self], model, pinned)

    def fold(self):
        """What is saved: this, or for an MLP the prefix that it makes."""
        return self

class PromptTuning(SoftPrompt):
    """P learned vectors in the place of P token embeddings: one parameter, (P, C)."""

    kind = "prompt"

    def __init__(self, embeddings):
        super().__init__()
        self.embeddings = nn.Parameter(embeddings.detach().clone())  # (P, C)
        self.length = len(embeddings)

    @classmethod
    def start(cls, model, embeddings, pinned=None):
        """These embeddings as they are; a prompt is the same however it is pinned."""
        return cls(embeddings)

class PrefixTuning(SoftPrompt):
    """P learned keys (rotated) and values in every layer: two parameters, (L, Hkv, P, D)."""

    kind = "prefix"

    def __init__(self, keys, values):
        super().__init__()
        self.keys = nn.Parameter(keys.detach().clone())  # (L, Hkv, P, D)
        self.values = nn.Parameter(values.detach().clone())  # (L, Hkv, P, D)
        self.length = keys.shape[2]

    @classmethod
    def start(cls, model, embeddings, pinned=None):
        """The prefix that these embeddings leave as a prompt: at step 0 the two are equal."""
        with torch.no_grad():
            past = PromptTuning(embeddings).past(model, pinned)
        return cls(torch.cat(past.keys).float(), torch.cat(past.values).float())

    def states(self):
        return self.keys, self.values

class PrefixMLP(SoftPrompt):
    """Prefix tuning through an MLP (Li & Liang 2021, section 4.3), which `fold` throws away.

    P learned inputs (P, C) go through tanh(inputs W1) W2, with W1 (C, width), and are added to the
    starting prefix. W2 starts at zero: at step 0 this is the plain prefix. While it trains, all
    layers' keys and values share W1 and W2; saved, it is a PrefixTuning like any other.
    """

    kind = "prefix"

    def __init__(self, keys, values, inputs, width=512):
        super().__init__()
        # (2, L, Hkv, P, D)
        self.register_buffer("start_states", torch.stack((keys, values)).detach().clone())
        self.inputs = nn.Parameter(inputs.detach().clone())  # (P, C)
        self.length = len(inputs)
        self.up = nn.Linear(inputs.shape[1], width)
        self.down = nn.Linear(width, 2 * keys.shape[0] * keys.shape[1] * keys.shape[3])
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    @classmethod
    def start(cls, model, embeddings, pinned=None, width=512):
        prefix = PrefixTuning.start(model, embeddings, pinned)
        return cls(prefix.keys, prefix.values, embeddings, width).to(model.device)

    def states(self):
        _, L, Hkv, P, D = self.start_states.shape
        moved = self.down(torch.tanh(self.up(self.inputs)))  # (P, 2 L Hkv D)
        moved = moved.view(P, 2, L, Hkv, D).permute(1, 2, 3, 0, 4)  # (2, L, Hkv, P, D)
        return (self.start_states + moved).unbind(0)  # (L, Hkv, P, D) twice

    def fold(self):
        folded = PrefixTuning(*self.states())
        folded.facts = self.facts
        return folded

def prefill(softs, model, pinned=None) -> Past:
    """The pasts of many soft prompts as one, a row each; differentiable in all of them.

    All prompts go through the model in one padded pass. A row's own virtual tokens stay visible
    whatever the window, or as many of them as `pinned` says (an int, or one for each row in a
    list; None is all): 0 lets them slide out like text.
    """
    dtype, device = model.model.embed_tokens.weight.dtype, model.device
    if not isinstance(pinned, (list, tuple)):
        pinned = [pinned] * len(softs)
    pins = [soft.length if p is None else min(p, soft.length) for soft, p in zip(softs, pinned)]
    pins = torch.tensor(pins, device=device)  # (A,) for A soft prompts
    prompts = [i for i, soft in enumerate(softs) if soft.kind == "prompt"]
    prefixes = [i for i, soft in enumerate(softs) if soft.kind == "prefix"]
    pasts = []
    if prompts:
        lengths = torch.tensor([softs[i].length for i in prompts], device=device)  # (A,)
        embeds = nn.utils.rnn.pad_sequence([softs[i].embeddings for i in prompts], True)
        slots = torch.arange(embeds.shape[1], device=device)  # (P,)
        idx = slots.where(slots < lengths[:, None], -1)  # (A, P): only says which are empty
        nothing = model.empty_past(len(prompts), pins[prompts])
        pasts.append(model.hidden(idx, nothing, embeds=embeds.to(dtype), first=len(slots))[1])
    for i in prefixes:
        keys, values = (x.to(dtype).unsqueeze(1).unbind(0) for x in softs[i].states())
        positions = torch.arange(softs[i].length, device=device)[None]  # (1, P)
        pasts.append(Past(list(keys), list(values), positions, pins[i : i + 1]))
    past, order = batch(pasts), prompts + prefixes
    if order == sorted(order):
        return past
    return past.rows(torch.tensor(order, device=device).argsort())

def batch(pasts) -> Past:
    """Many pasts as one, row after row; shorter ones are filled up with empty slots.
    Each row goes on as if it were alone: its text's positions start where its own prompt ends."""
    if len(pasts) == 1:
        return pasts[0]
    S = max(past.positions.shape[1] for past in pasts)

    def stack(states):  # (B, Hkv, S', D) each -> (sum of B, Hkv, S, D)
        return torch.cat([F.pad(x, (0, 0, 0, S - x.shape[2])) for x in states])

    positions = [F.pad(p.positions, (0, S - p.positions.shape[1]), value=-1) for p in pasts]
    return Past([stack(layer) for layer in zip(*(past.keys for past in pasts))],
                [stack(layer) for layer in zip(*(past.values for past in pasts))],
                torch.cat(positions), torch.cat([past.pinned for past in pasts]))

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
    Raises ValueError for a prefix, whose keys and values live in no table of tokens."""
    if soft.kind != "prompt":
        raise ValueError("a prefix has no embeddings to compare with tokens: only a prompt has")
    table = F.normalize(model.model.embed_tokens.weight.detach().float(), dim=1)  # (V, C)
    random = initial_embeddings(model, soft.length, "matched", generator=generator)  # (P, C)
    near = (F.normalize(soft.embeddings.detach().float(), dim=1) @ table.T).topk(k, 1)  # (P, k)
    control = (F.normalize(random, dim=1) @ table.T).topk(k, 1)  # (P, k)
    return Neighbours(near.indices, near.values, control.values)

# ------------------------------------------------------------------ files

def check_base(path, stated, ours):
    """A prompt belongs to one exact base: to other weights, the same vectors say something else."""
    if stated != ours:
        raise ValueError(f"{path} was trained on the base {stated[:40]}, this base is {ours[:40]}: "
                         "a soft prompt works on its own base only")

def save(soft, path, model, *, fingerprint=None, **facts):
    """Write the soft prompt, the fingerprint of its base, and facts (plain values, read as .facts).
    An MLP is folded away first. Nothing half-written is ever found at `path`. `fingerprint` is
    the model's, where it is known already: it takes a while on a big model."""
    soft = soft.fold()
    state = {name: p.detach().cpu() for name, p in soft.state_dict().items()}
    write(path, {"kind": soft.kind, "base": fingerprint or model.fingerprint(),
                 "facts": {**soft.facts, **facts}, "state": state})

def load(path, model, fingerprint=None):
    """The soft prompt in a file, on the model's device; its facts are in `.facts`.
    Raises ValueError for a damaged file, a file of another kind, and a prompt of another base.
    Nothing in the file is executed. `fingerprint` as in `save`."""
    content = read(path, "a soft prompt", ("kind", "base", "facts", "state"))
    check_base(path, content["base"], fingerprint or model.fingerprint())
    kind = PromptTuning if content["kind"] == "prompt" else PrefixTuning
    soft = kind(**content["state"])  # the parameters have the names of the arguments
    soft.facts = content["facts"]
    return soft.to(model.device)

def to_peft(soft, model, folder):
    """Write the soft prompt as an adapter that PEFT loads. Needs safetensors.
    Under a sliding window PEFT lets the virtual tokens slide out like text: there it computes what
    `pinned=0` does. Raises ValueError for an empty soft prompt, which PEFT does not know."""
    config, save_file, soft = model.config, needs("safetensors.torch").save_file, soft.fold()
    if soft.length == 0:
        raise ValueError("a soft prompt of 0 virtual tokens is nothing that PEFT could load")
    about = dict(task_type="CAUSAL_LM", num_virtual_tokens=soft.length, num_layers=config.n_layer,
                 num_transformer_submodules=1, inference_mode=True,
                 base_model_name_or_path=model.facts.get("name"))
    if soft.kind == "prompt":
        tensor = soft.embeddings  # (P, C)
        about.update(peft_type="PROMPT_TUNING", prompt_tuning_init="RANDOM",
                     token_dim=config.n_embd, num_attention_heads=config.n_head)
    else:
        tensor = torch.stack((soft.keys, soft.values))  # (2, L, Hkv, P, D)
        tensor = tensor.permute(3, 1, 0, 2, 4).flatten(1)  # (P, L 2 Hkv D)
        width = config.n_kv_head * config.head_dim
        about.update(peft_type="PREFIX_TUNING", prefix_projection=False, token_dim=width,
                     encoder_hidden_size=width, num_attention_heads=config.n_kv_head)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(about, indent=2))
    save_file({"prompt_embeddings": tensor.detach().cpu().contiguous()},
              folder / "adapter_model.safetensors", metadata={"base": model.fingerprint()})

def from_peft(folder, model):
    """The soft prompt in a PEFT adapter of prompt or prefix tuning (a folder, or a name on the
    hub). Needs safetensors. Under a sliding window, `soft.past(model, pinned=0)` is what PEFT
    computes. Raises ValueError for another kind of adapter, for shapes that do not fit, and for
    another base: by the fingerprint that `to_peft` leaves, else by the last part of its name."""
    config, folder = model.config, hub_folder(folder)
    about = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    tensors, facts = read_tensors(folder / "adapter_model.safetensors")
    L, Hkv, D = config.n_layer, config.n_kv_head, config.head_dim
    widths = {"PROMPT_TUNING": config.n_embd, "PREFIX_TUNING": 2 * L * Hkv * D}
    kind, P = about["peft_type"], about.get("num_virtual_tokens")
    if kind not in widths:
        raise ValueError(f"{folder}: peft_type = {kind!r} is not supported, only {list(widths)}")
    names = [Path(x.get("base_model_name_or_path") or x.get("name") or "").name.lower()
             for x in (about, model.facts)]
    if "base" in facts:  # then names, which change when a folder moves, need not match
        check_base(folder, facts["base"], model.fingerprint())
    elif all(names):
        check_base(folder, *names)
    tensor = tensors.pop("prompt_embeddings", torch.empty(0)).float()  # (P, ...)
    if tensors or tensor.shape != (P, widths[kind]):
        raise ValueError(f"{folder}: prompt_embeddings {tuple(tensor.shape)} and {list(tensors)}, "
                         f"this model needs {(P, widths[kind])} and nothing else")
    if kind == "PROMPT_TUNING":
        return PromptTuning(tensor).to(model.device)
    states = tensor.view(P, L, 2, Hkv, D).permute(2, 1, 3, 0, 4)  # (2, L, Hkv, P, D)
    return PrefixTuning(*states).to(model.device)
