"""Models and tokenizers of Hugging Face, adapters of PEFT: read exactly, or refused.

    model = from_pretrained("HuggingFaceTB/SmolLM2-135M")     a folder, or a name on the hub
    to_peft(soft, model, "adapter")                           a soft prompt that PEFT loads
    soft = from_peft("adapter", model)                        and back

Needs safetensors, for a tokenizer also tokenizers, and huggingface_hub for names on the hub.
Where this project would compute something else than transformers or PEFT, it says so and stops.
Letters (P, C, L, ...) as at the top of model.py.
"""

import importlib
import json
import os
import re
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from model import GPT, GPTConfig, InputError, require_writable, write_whole
from softprompt import PrefixTuning, PromptTuning, check_base
from train import Tokenizer, find_device, say, write_text

# ------------------------------------------------------------------ packages, folders, files


def needs(package):
    """An optional package, imported where it is used; InputError says what to install."""
    try:
        return importlib.import_module(package)
    except ImportError as missing:
        name = package.split(".")[0]
        raise InputError(f"this needs {name}: pip install {name} ({missing})") from missing


WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"  # which shard holds which weight
MODEL_FILES = ("config.json", "generation_config.json", "tokenizer.json", WEIGHTS, INDEX)
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def hub_folder(name, files=MODEL_FILES) -> Path:
    """The folder of this name, or what the Hugging Face hub has of it: those of `files` that there
    are, fetched where they are not on this machine. Raises InputError where it is neither."""
    if Path(name).is_dir():
        return Path(name)
    if Path(name).is_file():
        raise InputError(f"{name} is a file: name the folder that it lies in")
    if str(name).count("/") != 1:
        raise InputError(f"{name} is no folder, and no OWNER/NAME on the Hugging Face hub")
    try:
        hub = needs("huggingface_hub")
        return Path(hub.snapshot_download(str(name), allow_patterns=sorted(files)))
    except Exception as problem:  # no network, no such model, no permission: the hub says which
        raise InputError(f"{name} is no folder, and not from the hub: {problem}") from problem


def require_content(path):
    """Raise InputError for a Git LFS pointer: what stands in a file's place until it is fetched."""
    with open(path, "rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            raise InputError(
                f"{path} is a Git LFS pointer and not the file itself: run `git lfs pull` there"
            )


def read_json(path):
    """The object in a JSON file; InputError for anything else."""
    require_content(path)
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as problem:
        raise InputError(f"{path} is no JSON: {problem}") from problem
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no object of names and values")
    return content


def read_tensors(path, names=None):
    """({name: tensor}, metadata) of a safetensors file: these names, or all. InputError for a
    file that is damaged or lacks one."""
    library = needs("safetensors")
    require_content(path)
    try:
        with library.safe_open(path, "pt") as file:
            stored = list(file.keys())
            wanted = stored if names is None else names
            tensors = {name: file.get_tensor(name) for name in wanted if name in stored}
            metadata = file.metadata() or {}
    except (OSError, library.SafetensorError) as problem:
        raise InputError(f"{path} cannot be read: {problem}") from problem
    lacks = sorted(set(wanted) - set(stored))
    if lacks:
        raise InputError(f"{path} lacks {lacks[0]}, which {INDEX} says is in it")
    return tensors, metadata


# ------------------------------------------------------------------ the model

# GPTConfig's fields in config.json.
NAMES = {
    "vocab_size": "vocab_size",
    "block_size": "max_position_embeddings",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_embd": "hidden_size",
    "n_kv_head": "num_key_value_heads",
    "head_dim": "head_dim",
    "n_hidden": "intermediate_size",
    "window": "sliding_window",
    "rope_base": "rope_theta",
    "norm_eps": "rms_norm_eps",
    "tie_embeddings": "tie_word_embeddings",
}
# What transformers takes for a field that is left out.
USUAL = {
    "num_key_value_heads": None,
    "head_dim": None,
    "rope_theta": 1e4,
    "tie_word_embeddings": False,
    "rope_type": "default",
    "hidden_act": "silu",
}
# The only values that this model computes.
SUPPORTED = {
    "model_type": ("llama", "mistral"),
    "rope_type": ("default",),
    "hidden_act": ("silu",),
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "tie_word_embeddings": (True, False),
    "quantization_config": (None,),
}


def from_pretrained(name, dtype=None) -> GPT:
    """A Llama or Mistral in Hugging Face's format: a folder, or a name on their hub.

    `dtype` None keeps the precision that the embedding table has in the file. The model's facts
    have its name, and in "end" the ids that end a text. Raises InputError for what is missing, for
    what is damaged, and for what this project would compute differently.
    """
    folder = hub_folder(name)
    config, end = read_config(folder)
    weights = read_weights(name, folder, config)
    if dtype is None and TABLE in weights:
        dtype = weights[TABLE].dtype
    for weight in weights:  # one after another: the whole model is never in memory twice
        weights[weight] = weights[weight].to(dtype or torch.float32)
    with torch.device("meta"):  # no memory for weights that are replaced at once
        model = GPT(config)
    try:
        model.load_state_dict(weights, assign=True)
    except RuntimeError as problem:  # it names what is missing, left over or of another shape
        raise InputError(f"{folder}: {' '.join(str(problem).split())[:500]}") from problem
    known = str(name) if base_name(str(name)) else os.path.abspath(name)  # for "." or ".."
    model.facts = {"name": known, "end": end}
    return model


def read_config(folder):
    """(GPTConfig, the ids that end a text) of a folder; InputError names what is not supported."""
    path = folder / "config.json"
    given = {**USUAL, **read_json(path)}
    for place in ("rope_scaling", "rope_parameters"):  # the old place and the new one
        given |= read_rope(path, given.get(place))
    if given.get("model_type") == "llama":
        given["sliding_window"] = None  # transformers' Llama has none, whatever the file says
    for field, supported in SUPPORTED.items():
        value = given.get(field)
        if value not in supported:
            raise InputError(f"{path}: {field} = {value!r}, supported is only {supported}")
    missing = sorted(NAMES.values() - given.keys())
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}")
    try:
        config = GPTConfig(**{ours: given[theirs] for ours, theirs in NAMES.items()})
    except InputError as problem:
        raise InputError(f"{path}: {problem}") from problem
    return config, read_end(folder, given, config.vocab_size)


def read_rope(path, given):
    """The fields of rotary positions in an object of config.json, under their names of today."""
    if given is None:
        return {}
    if not isinstance(given, dict) or any(isinstance(value, dict) for value in given.values()):
        raise InputError(f"{path}: {given!r} for rotary positions is not supported")
    fields = dict(given)
    if "type" in fields:
        fields.setdefault("rope_type", fields["type"])
    return fields


def read_end(folder, config, vocab_size):
    """The ids that end a text, those of config.json first; transformers takes those of
    generation_config.json as well. InputError for an id that is no row of the table."""
    given = [config.get("eos_token_id")]
    generation = folder / "generation_config.json"
    if generation.exists():
        given.append(read_json(generation).get("eos_token_id"))
    ids = []
    for value in given:
        for i in value if isinstance(value, list) else [value]:
            if i is None or i in ids:
                continue
            if type(i) is not int or not 0 <= i < vocab_size:
                raise InputError(
                    f"{folder}: eos_token_id = {i!r} is no row of a table of {vocab_size}: give "
                    "the id that ends a text"
                )
            ids.append(i)
    return ids


TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def read_weights(name, folder, config):
    """{weight: tensor} of the folder of the base `name`, under the names of our model."""
    weights, files = {}, weight_files(folder)
    folder = hub_folder(name, files)
    for file, stored in files.items():
        if not (folder / file).exists():
            raise InputError(f"{folder / file} is missing: {INDEX} says that it holds weights")
        weights |= read_tensors(folder / file, stored)[0]
    # Old checkpoints store the rotary angles too.
    weights = {n: w for n, w in weights.items() if not n.endswith("rotary_emb.inv_freq")}
    for weight, tensor in weights.items():
        if tensor.dtype not in FLOATS:
            raise InputError(f"{folder}: {weight} is of {tensor.dtype}, which is not supported")
    if config.tie_embeddings and HEAD in weights:  # a tied table may be stored twice, or as a head
        head = weights.pop(HEAD)
        table = weights.setdefault(TABLE, head)
        if not torch.equal(table, head):
            raise InputError(
                f"{folder}: {HEAD} differs from {TABLE}, but config.json says that they are one "
                'table: set "tie_word_embeddings" to false, or remove the one that is not meant'
            )
    return weights


def weight_files(folder):
    """{file: names of the weights to read from it}; None stands for all that it holds.

    That is model.safetensors, or else exactly what the index says. Whatever else lies beside them,
    left over from another save, is not read.
    """
    if (folder / WEIGHTS).exists():
        return {WEIGHTS: None}
    index = folder / INDEX
    if not index.exists():
        others = sorted(path.name for path in folder.glob("*.bin"))
        said = f"only {', '.join(others)}: save it in this format first" if others else "no weights"
        raise InputError(f"{folder} has no {WEIGHTS} and no {INDEX}, {said}")
    files = {}
    mapped = read_json(index).get("weight_map")
    if not isinstance(mapped, dict):
        raise InputError(f"{index} has no weight_map")
    for name, file in mapped.items():
        if not isinstance(file, str) or Path(file).name != file or "\\" in file:
            raise InputError(f"{index}: {file!r} is no name of a file in its folder")
        files.setdefault(file, []).append(name)
    return files


# ------------------------------------------------------------------ the tokenizer


def read_tokenizer(folder, model) -> Tokenizer:
    """The tokenizer.json in a folder, for the model that belongs to it; no start token comes
    before a text. Raises InputError where there is none, where the model has no id that ends a
    text or no row for a token, and where text and answer have other ids apart than together."""
    path = Path(folder) / "tokenizer.json"
    if not path.exists():
        raise InputError(f"{folder} lacks tokenizer.json")
    if not model.facts["end"]:
        raise InputError(f"{folder}: config.json lacks eos_token_id, the id that ends a text")
    library = needs("tokenizers")
    require_content(path)
    try:
        encoding = library.Tokenizer.from_file(str(path))
    except Exception as problem:  # the library has no kind of its own for a damaged file
        raise InputError(f"{path} cannot be read: {problem}") from problem
    encoding.encode_special_tokens = True  # as text
    encoding.no_truncation()
    encoding.no_padding()
    require_rows(path, encoding, model.config.vocab_size)

    def encode(text):
        return encoding.encode(text, add_special_tokens=False).ids

    question, answer = "\nThis is a text. ->", " answer"
    if encode(question) + encode(answer) != encode(question + answer):
        raise InputError(
            f"{path}: text and answer have other ids apart than together, as in SentencePiece: "
            "this is not supported"
        )
    return Tokenizer(encode, encoding.decode, model.facts["end"][0])


def require_rows(path, encoding, vocab_size):
    """Raise InputError where a text can have an id that is no row of the embedding table. Special
    tokens beyond it do no harm: in a text they are text."""
    special = {i for i, token in encoding.get_added_tokens_decoder().items() if token.special}
    for token, i in encoding.get_vocab(with_added_tokens=True).items():
        if i >= vocab_size and i not in special:
            raise InputError(
                f"{path}: the token {token!r} has id {i}, and the model's table has {vocab_size} "
                "rows: they do not belong together"
            )


def load_folder(name, device="auto"):
    """(model, tokenizer) of a base in Hugging Face's format, frozen, on this device. On a GPU in
    the precision of its file, else in float32, since CPUs compute slowly in half of it."""
    device = find_device(device)
    model = from_pretrained(name, None if device.type == "cuda" else torch.float32)
    tok = read_tokenizer(hub_folder(name), model)
    return model.to(device).requires_grad_(False), tok


# ------------------------------------------------------------------ PEFT


def to_peft(soft, model, folder):
    """Write the soft prompt as an adapter that PEFT loads.

    Says the exact form of the texts that it was trained on, where the soft prompt knows it: behind
    another form it works less well. Under a sliding window PEFT lets the virtual tokens slide out
    like text: there it computes what `soft.past(model, pinned=False)` does. Raises InputError for
    an empty soft prompt, which PEFT does not know.
    """
    if soft.length == 0:
        raise InputError("a soft prompt of 0 virtual tokens is nothing that PEFT could load")
    config = model.config
    about = {
        "task_type": "CAUSAL_LM",
        "num_virtual_tokens": soft.length,
        "num_layers": config.n_layer,
        "num_transformer_submodules": 1,
        "inference_mode": True,
        "base_model_name_or_path": model.facts.get("name"),
    }
    saved = soft.saved_tensors()
    if soft.kind == "prompt":
        tensor = saved["embeddings"]  # (P, C)
        about |= {
            "peft_type": "PROMPT_TUNING",
            "prompt_tuning_init": "RANDOM",
            "token_dim": config.n_embd,
            "num_attention_heads": config.n_head,
        }
    else:
        tensor = torch.stack((saved["keys"], saved["values"]))  # (2, L, Hkv, P, D)
        tensor = tensor.permute(3, 1, 0, 2, 4).flatten(1)  # (P, L 2 Hkv D)
        width = config.n_kv_head * config.head_dim
        about |= {
            "peft_type": "PREFIX_TUNING",
            "prefix_projection": False,
            "token_dim": width,
            "encoder_hidden_size": width,
            "num_attention_heads": config.n_kv_head,
        }
    tensors = {"prompt_embeddings": tensor.detach().cpu().contiguous()}
    data = needs("safetensors.torch").save(tensors, {"base": model.fingerprint()})
    weights, config_file = Path(folder) / ADAPTER_WEIGHTS, Path(folder) / ADAPTER_CONFIG
    require_writable(config_file)  # before one of the two is new
    write_whole(weights, data)
    write_text(config_file, json.dumps(about, indent=2))
    if "reading" in soft.facts:
        say(
            f"{folder}: trained on texts in exactly this form, without a token before it: "
            f"{soft.facts['reading']['form']!r}"
        )


PROMPTS = ("PROMPT_TUNING", "P_TUNING")  # of P-tuning, PEFT saves the vectors that its MLP made


def from_peft(folder, model, same_base=False):
    """The soft prompt in a PEFT adapter of prompt tuning, P-tuning or prefix tuning: a folder, or
    a name on the hub. Under a sliding window, `soft.past(model, pinned=False)` is what PEFT
    computes.

    An adapter belongs to one base: by the fingerprint that `to_peft` leaves, else by the base's
    name. `same_base=True` says that the base is this one although its name is another. Raises
    InputError for another base, another kind of adapter, and for fields and shapes that do not fit.
    """
    folder = hub_folder(folder, (ADAPTER_CONFIG, ADAPTER_WEIGHTS))
    about = read_json(folder / ADAPTER_CONFIG)
    if not (folder / ADAPTER_WEIGHTS).exists():
        raise InputError(f"{folder} has no {ADAPTER_WEIGHTS}: save the adapter in this format")
    tensors, metadata = read_tensors(folder / ADAPTER_WEIGHTS)
    P, width = adapter_shape(folder / ADAPTER_CONFIG, about, model.config)
    require_same_base(folder, about, metadata, model, same_base)
    tensor = tensors.pop("prompt_embeddings", torch.empty(0))  # (P, width)
    if tensors or tensor.shape != (P, width):
        raise InputError(
            f"{folder}: prompt_embeddings {tuple(tensor.shape)} and {list(tensors)}, this model "
            f"needs {(P, width)} and nothing else"
        )
    if tensor.dtype not in FLOATS or not tensor.isfinite().all():
        raise InputError(f"{folder}: prompt_embeddings holds what is not a finite number")
    tensor = tensor.float()
    if about["peft_type"] in PROMPTS:
        return PromptTuning(tensor).to(model.device)
    L, Hkv, D = model.config.n_layer, model.config.n_kv_head, model.config.head_dim
    states = tensor.view(P, L, 2, Hkv, D).permute(2, 1, 3, 0, 4)  # (2, L, Hkv, P, D)
    keys, values = states  # (L, Hkv, P, D) each
    return PrefixTuning(keys, values).to(model.device)


def adapter_shape(path, about, config):
    """(P, numbers for each virtual token) of an adapter; InputError for fields that do not fit."""
    L, Hkv, D = config.n_layer, config.n_kv_head, config.head_dim
    kind, P = about.get("peft_type"), about.get("num_virtual_tokens")
    if kind in PROMPTS:
        needed, width = {"token_dim": config.n_embd}, config.n_embd
    elif kind == "PREFIX_TUNING":
        needed = {"num_layers": L, "num_attention_heads": Hkv, "token_dim": Hkv * D}
        width = L * 2 * Hkv * D
    else:
        supported = ", ".join((*PROMPTS, "PREFIX_TUNING"))
        raise InputError(f"{path}: peft_type = {kind!r} is not supported, only {supported}")
    if type(P) is not int or P < 1:
        raise InputError(f"{path}: num_virtual_tokens = {P!r} is no whole number above 0")
    needed["num_transformer_submodules"] = 1
    for field, value in needed.items():
        if about.get(field, value) not in (value, None):
            raise InputError(f"{path}: {field} = {about[field]!r}, this model needs {value}")
    return P, width


def require_same_base(folder, about, metadata, model, same_base):
    """Raise InputError for an adapter of another base."""
    theirs, ours = about.get("base_model_name_or_path"), model.facts.get("name")
    if not isinstance(theirs, (str, type(None))):
        raise InputError(f"{folder}: base_model_name_or_path = {theirs!r} is no name")
    if "base" in metadata:  # then names, which change when a folder moves, need not match
        check_base(folder, metadata["base"], model.fingerprint())
    elif theirs and ours and not same_base and base_name(theirs) != base_name(ours):
        raise InputError(
            f"{folder} was trained on the base {base_name(theirs)}, this base is "
            f"{base_name(ours)}: if they are one, give same_base=True"
        )


def base_name(path):
    """A model's own name, in small letters, in a path of any system or a name on the hub. In the
    hub's cache, models--OWNER--NAME/snapshots/VERSION, it is NAME."""
    parts = [part for part in re.split(r"[\\/]", path.lower()) if part not in ("", ".", "..")]
    for part in parts:
        if part.startswith("models--"):
            return part.split("--", 2)[-1]
    return parts[-1] if parts else ""
