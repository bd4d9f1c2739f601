"""Models, tokenizers and adapters of others: equal to transformers, tokenizers and PEFT where these
are installed, and refused where this project would compute something else."""

import fnmatch
import json
import shutil
import sys
import types
from pathlib import Path

import huggingface
import pytest
import torch
from conftest import ROOT, ids, make_model
from huggingface import from_peft, from_pretrained, hub_folder, load_folder, read_tokenizer, to_peft

from model import GPT, InputError
from softprompt import PrefixMLP, PrefixTuning, PromptTuning, initial_embeddings, save

safetensors = pytest.importorskip("safetensors.torch")

LLAMA = {
    "model_type": "llama",
    "vocab_size": 330,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5000.0,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
    "eos_token_id": 329,
}
MISTRAL = {**LLAMA, "model_type": "mistral", "sliding_window": 5, "head_dim": 12}
SHAPE = dict(vocab_size=330, block_size=128, n_hidden=48, rope_base=5000.0)
TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def checkpoint(folder, dtype=torch.float32, **change):
    """A tiny random model of these fields in Hugging Face's format, and the tensors in it."""
    config = {**LLAMA, **change}
    folder.mkdir(parents=True, exist_ok=True)
    tied = config["tie_word_embeddings"]
    model = make_model(**SHAPE, tie_embeddings=tied, head_dim=config.get("head_dim"))
    tensors = {name: p.to(dtype).contiguous() for name, p in model.state_dict().items()}
    (folder / "config.json").write_text(json.dumps(config))
    write_weights(folder / "model.safetensors", tensors)
    return tensors


def write_weights(path, tensors):
    safetensors.save_file(tensors, path, metadata={"format": "pt"})


def shards(folder, tensors, *parts):
    """The tensors in as many files as there are parts (lists of names), and the index of them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(LLAMA))
    where = {}
    for number, part in enumerate(parts, 1):
        file = f"model-0000{number}-of-0000{len(parts)}.safetensors"
        write_weights(folder / file, {name: tensors[name] for name in part})
        where |= dict.fromkeys(part, file)
    write_index(folder, where)
    return where


def write_index(folder, where):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


def hugging_face(folder):
    transformers = pytest.importorskip("transformers")
    transformers.logging.disable_progress_bar()
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


# ------------------------------------------------------------------ the model


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"tie_word_embeddings": False},
        {"head_dim": 10},
        MISTRAL,
        {**MISTRAL, "sliding_window": None, "tie_word_embeddings": False},
        {"rope_parameters": {"rope_theta": 300.0, "rope_type": "default"}},
    ],
    ids=["tied", "untied", "head_dim", "window", "mistral", "rope_parameters"],
)
def test_the_model_is_that_of_transformers(tmp_path, change):
    checkpoint(tmp_path, **change)
    ours, theirs = from_pretrained(tmp_path), hugging_face(tmp_path)
    idx = ids(2, 40, vocab=330)
    assert torch.allclose(ours(idx)[0], theirs(idx).logits, atol=1e-4)
    assert ours.config.block_size == theirs.config.max_position_embeddings
    assert ours.config.window == getattr(theirs.config, "sliding_window", None)
    greedy = theirs.generate(idx[:1, :9], max_new_tokens=20, do_sample=False, eos_token_id=None)
    assert ours.generate([idx[0, :9].tolist()], 20) == [greedy[0, 9:].tolist()]


REFUSED = [
    ({"model_type": "gpt2"}, "model_type = 'gpt2'.*llama"),
    ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_type = 'llama3'"),
    ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_type = 'yarn'"),
    ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type = 'linear'"),
    ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "for rotary positions is not"),
    ({"rope_scaling": "linear"}, "'linear' for rotary positions is not supported"),
    ({"attention_bias": True}, "attention_bias = True"),
    ({"mlp_bias": True}, "mlp_bias"),
    ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
    ({"quantization_config": {"bits": 4}}, "quantization_config = {'bits': 4}"),
    ({"tie_word_embeddings": "yes"}, "tie_word_embeddings = 'yes'"),
    ({"num_key_value_heads": 3}, "config.json: n_head=4 is not a multiple of n_kv_head=3"),
    ({"vocab_size": "330"}, "config.json: vocab_size='330'"),
    ({"hidden_size": [32]}, r"config.json: n_embd=\[32\]"),
    ({"rms_norm_eps": float("nan")}, "config.json: norm_eps=nan"),
    ({"num_hidden_layers": -1}, "config.json: n_layer=-1"),
    ({"model_type": "mistral"}, "config.json lacks sliding_window"),
    ({"intermediate_size": 64}, r"size mismatch for model.layers.0.mlp.*48.*64"),
    ({"num_hidden_layers": 1}, "Unexpected key.*model.layers.1"),
    ({"num_hidden_layers": 3}, "Missing key.*model.layers.2"),
    ({"tie_word_embeddings": False}, "Missing key.*lm_head.weight"),
    ({"eos_token_id": 330}, "eos_token_id = 330 is no row of a table of 330"),
    ({"eos_token_id": [0, -1]}, "eos_token_id = -1 is no row"),
    ({"eos_token_id": "</s>"}, "eos_token_id = '</s>' is no row"),
    ({"eos_token_id": True}, "eos_token_id = True is no row"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    checkpoint(folder)
    return folder


@pytest.mark.parametrize("change, message", REFUSED)
def test_what_would_compute_something_else_is_refused(whole, tmp_path, change, message):
    shutil.copy(whole / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, **change}))
    with pytest.raises(InputError, match=message):
        from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "config.json is no JSON"),
        ("[1]", "config.json holds no object"),
        ('{"a": ' + "[" * 99999 + "]" * 99999 + "}", "config.json is no JSON"),
        (b"\xff\xfe", "config.json is no JSON"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS pointer"),
    ],
    ids=["cut", "array", "deep", "UTF-16", "LFS"],
)
def test_a_config_that_is_none_is_one_line(tmp_path, content, message):
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "config.json").write_bytes(data)
    with pytest.raises(InputError, match=message):
        from_pretrained(tmp_path)


def test_several_ids_end_a_text(tmp_path):
    tensors = checkpoint(tmp_path, eos_token_id=[329, 7])
    assert from_pretrained(tmp_path).facts["end"] == [329, 7]
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 5]}')
    model = from_pretrained(tmp_path)
    assert model.facts["end"] == [329, 7, 5]  # transformers' generate reads this file too
    row = ids(9, vocab=330).tolist()
    [said] = model.generate([row], 20)
    [until] = model.generate([row], 20, stop=[329, said[4], 5])
    assert until == said[: said.index(said[4])]
    checkpoint(tmp_path, eos_token_id=None)
    (tmp_path / "generation_config.json").unlink()
    assert from_pretrained(tmp_path).facts["end"] == [] and len(tensors) > 0


# ------------------------------------------------------------------ which file holds a weight


def test_what_lies_beside_the_weights_is_not_read(tmp_path):
    tensors = checkpoint(tmp_path)
    want = from_pretrained(tmp_path).fingerprint()
    zeros = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    write_weights(tmp_path / "model_ema.safetensors", zeros)
    write_weights(tmp_path / "model-00001-of-00001.safetensors", zeros)
    where = dict.fromkeys(tensors, "model-00001-of-00001.safetensors")
    write_index(tmp_path, where)  # transformers takes model.safetensors first
    assert from_pretrained(tmp_path).fingerprint() == want
    (tmp_path / "model.safetensors").unlink()
    assert from_pretrained(tmp_path).fingerprint() != want


def test_the_index_says_which_file_holds_a_weight(tmp_path):
    tensors = checkpoint(tmp_path / "whole")
    want = from_pretrained(tmp_path / "whole").fingerprint()
    names, cut = sorted(tensors), tmp_path / "cut"
    where = shards(cut, tensors, names[:8], names[8:])
    assert from_pretrained(cut).fingerprint() == want
    for file in sorted(set(where.values())):  # each also has the weights of the other, as zeros
        both = {n: tensors[n] * (where[n] == file) for n in names}
        both["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
        both["not.mapped"] = torch.ones(4)
        write_weights(cut / file, both)
    write_weights(cut / "model-00003-of-00003.safetensors", {n: tensors[n] * 0 for n in names})
    assert from_pretrained(cut).fingerprint() == want
    where["model.layers.0.self_attn.rotary_emb.inv_freq"] = file  # as old checkpoints store them
    write_index(cut, where)
    assert from_pretrained(cut).fingerprint() == want


def test_a_tied_table_is_taken_under_either_name(tmp_path):
    tensors = checkpoint(tmp_path)
    want = from_pretrained(tmp_path).fingerprint()
    path, table = tmp_path / "model.safetensors", tensors.pop(TABLE)
    write_weights(path, {**tensors, HEAD: table})
    assert from_pretrained(tmp_path).fingerprint() == want
    assert torch.allclose(
        from_pretrained(tmp_path)(ids(1, 9))[0], hugging_face(tmp_path)(ids(1, 9)).logits, atol=1e-4
    )
    write_weights(path, {**tensors, HEAD: table.clone(), TABLE: table})
    assert from_pretrained(tmp_path).fingerprint() == want
    write_weights(path, {**tensors, HEAD: table * 0, TABLE: table})
    with pytest.raises(InputError, match="lm_head.weight differs from .*tie_word_embeddings"):
        from_pretrained(tmp_path)  # which of them the model was trained with, nobody can say


def test_missing_and_damaged_files_are_named(tmp_path):
    tensors = checkpoint(tmp_path)
    names, weights = sorted(tensors), tmp_path / "model.safetensors"

    def refused(message):
        with pytest.raises(InputError, match=message):
            from_pretrained(tmp_path)

    weights.write_bytes(weights.read_bytes()[:1000])
    refused("model.safetensors cannot be read")
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    refused("model.safetensors is a Git LFS pointer .* `git lfs pull`")
    weights.unlink()
    refused("has no model.safetensors and no model.safetensors.index.json, no weights")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    refused("no model.safetensors.index.json, only pytorch_model.bin: save it in this format")
    where = shards(tmp_path, tensors, names[:8], names[8:])
    second = tmp_path / where[names[-1]]
    write_weights(second, {name: tensors[name] for name in names[8:-1]})
    refused(f"model-00002-of-00002.safetensors lacks {names[-1]}, which .*index.json says")
    second.unlink()
    refused("model-00002-of-00002.safetensors is missing: .*index.json says")
    for strange in ("../model.safetensors", "/model.safetensors", "..\\m.safetensors", 3, None):
        write_index(tmp_path, {**where, names[0]: strange})
        refused("is no name of a file in its folder")
    write_index(tmp_path, None)
    refused("index.json has no weight_map")
    write_weights(weights, {name: tensor.to(torch.int8) for name, tensor in tensors.items()})
    refused("is of torch.int8, which is not supported")


def test_folders_that_hold_no_model(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no folder, and no OWNER/NAME"):
        from_pretrained("nowhere")
    with pytest.raises(OSError, match="config.json"):
        from_pretrained(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is a file: name the folder"):
        from_pretrained(tmp_path / "file")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match="pip install huggingface_hub"):
        from_pretrained("owner/name")


def test_only_what_is_read_is_fetched_from_the_hub(tmp_path, monkeypatch):
    """A hub that hands out what it is asked for, by the patterns of huggingface_hub."""
    remote, here = tmp_path / "remote", tmp_path / "models--owner--name" / "snapshots" / "0"
    here.mkdir(parents=True)

    def snapshot_download(name, allow_patterns):
        assert name == "owner/name"
        for path in remote.iterdir():
            if any(fnmatch.fnmatch(path.name, pattern) for pattern in allow_patterns):
                shutil.copy(path, here)
        return str(here)

    hub = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    tensors = checkpoint(remote)
    for name in ("model_ema.safetensors", "consolidated.safetensors", "vocab.json", "x.bin"):
        (remote / name).write_bytes(b"not to be read")
    want = from_pretrained(remote).fingerprint()
    assert from_pretrained("owner/name").fingerprint() == want
    assert {path.name for path in here.iterdir()} == {"config.json", "model.safetensors"}

    (remote / "model.safetensors").unlink()
    (here / "model.safetensors").unlink()
    names = sorted(tensors)
    where = shards(remote, tensors, names[:8], names[8:])
    write_weights(remote / "model-00001-of-00009.safetensors", tensors)
    model = from_pretrained("owner/name")
    assert model.fingerprint() == want and model.facts["name"] == "owner/name"
    fetched = {path.name for path in here.iterdir()}
    assert fetched == {"config.json", "model.safetensors.index.json", *where.values()}
    (remote / where[names[0]]).unlink()
    (here / where[names[0]]).unlink()
    with pytest.raises(InputError, match="model-00001-of-00002.safetensors is missing"):
        from_pretrained("owner/name")

    def offline(name, allow_patterns):
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    with pytest.raises(InputError, match="owner/name is no folder, and not from the hub: no"):
        hub_folder("owner/name")


# ------------------------------------------------------------------ precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_base_in_half_precision(tmp_path, dtype):
    tensors = checkpoint(tmp_path, dtype)
    mixed = {n: t.float() if "norm" in n else t for n, t in tensors.items()}
    write_weights(tmp_path / "model.safetensors", mixed)  # as some keep their norms
    half, full = from_pretrained(tmp_path), from_pretrained(tmp_path, torch.float32)
    assert {p.dtype for p in half.parameters()} == {dtype}
    assert {p.dtype for p in full.parameters()} == {torch.float32}
    assert half.fingerprint() == full.fingerprint()
    idx, soft = ids(2, 9, vocab=330), soft_prompt(PrefixTuning, full)
    near = half(idx, soft.past(half))[0].float(), full(idx, soft.past(full))[0]
    assert torch.allclose(*near, atol=0.5) and not torch.equal(*near)
    half.loss(idx, idx, soft.past(half)).backward()
    assert all(p.dtype == torch.float32 and p.grad.isfinite().all() for p in soft.parameters())
    half.save(tmp_path / "ours.pt")
    assert GPT.load(tmp_path / "ours.pt").fingerprint() == half.fingerprint()


# ------------------------------------------------------------------ tokenizers

TEXTS = ["Return the matrix of a graph.", "It's 1 of 12 axes;  don't plot 345!", "über\n\n  naïf"]


def tokenizer_json(folder, kind="bytes", added=(), special=()):
    """A small BPE in Hugging Face's format: over bytes, or as SentencePiece made them for Llama.
    `added` and `special` are further tokens."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer, alphabet = Tokenizer(models.BPE()), pre_tokenizers.ByteLevel.alphabet()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if kind == "pieces":
        steps, alphabet = [normalizers.Prepend("_"), normalizers.Replace(" ", "_")], []
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.Sequence(steps)
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|end|>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    tokenizer.add_tokens(list(added))
    tokenizer.add_special_tokens(list(special))
    tokenizer.enable_truncation(4)  # as some are shipped
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def ended_by(*end):
    """A model for the tokenizer, whose texts end with these ids."""
    model = make_model(vocab_size=330)
    model.facts["end"] = list(end)
    return model


def test_a_tokenizer_json_is_read_and_special_tokens_stay_text(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    folder = tokenizer_json(tmp_path)
    tok = read_tokenizer(folder, ended_by(0, 5))
    plain = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    plain.no_truncation()
    for text in TEXTS:
        assert tok.encode(text) == plain.encode(text).ids and tok.decode(tok.encode(text)) == text
    assert plain.encode("a<|end|>").ids[-1] == 0  # the library's own way
    assert 0 not in tok.encode("a<|end|>") and tok.decode(tok.encode("a<|end|>")) == "a<|end|>"
    question, answer = tok.example("Return it.", "yes", "Say.")
    assert tok.decode(question) == "Say.\nReturn it. ->" and answer[-1] == tok.end == 0


def test_tokenizers_that_would_give_other_ids_are_refused(tmp_path, monkeypatch):
    pytest.importorskip("tokenizers")
    folder, model = tokenizer_json(tmp_path, "pieces"), ended_by(0)

    def refused(message, model=model):
        with pytest.raises(InputError, match=message):
            read_tokenizer(folder, model)

    refused("other ids apart than together")
    refused("lacks eos_token_id", ended_by())
    (folder / "tokenizer.json").write_text("{'damaged'")
    refused("tokenizer.json cannot be read")
    (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\n")
    refused("tokenizer.json is a Git LFS pointer")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    refused("pip install tokenizers")
    (folder / "tokenizer.json").unlink()
    refused("lacks tokenizer.json")


def test_a_token_without_a_row_in_the_table_is_refused(tmp_path):
    """A table of 330 has rows up to 329. A special token beyond them never comes from a text."""
    tokenizers = pytest.importorskip("tokenizers")
    path = tokenizer_json(tmp_path) / "tokenizer.json"
    size = tokenizers.Tokenizer.from_file(str(path)).get_vocab_size()
    more = [f"more{i}" for i in range(size, 331)]
    folder = tokenizer_json(tmp_path, added=more[:-1], special=["<pad>"])
    assert max(read_tokenizer(folder, ended_by(0)).encode("more329 <pad>")) == 329
    with pytest.raises(
        InputError, match="'more330' has id 330, and the model's table has 330 rows"
    ):
        read_tokenizer(tokenizer_json(tmp_path, added=more), ended_by(0))


def test_a_folder_is_a_base(tmp_path):
    pytest.importorskip("tokenizers")
    checkpoint(tokenizer_json(tmp_path), torch.bfloat16, eos_token_id=[0, 7])
    model, tok = load_folder(tmp_path, "cpu")
    assert model.dtype == torch.float32 and not any(p.requires_grad for p in model.parameters())
    assert tok.end == 0 and model.facts["end"] == [0, 7]


# ------------------------------------------------------------------ PEFT

KINDS = pytest.mark.parametrize("kind", [PromptTuning, PrefixTuning])


def soft_prompt(kind, model, P=6):
    gen = torch.Generator().manual_seed(3)
    return kind.start(model, initial_embeddings(model, P, "matched", generator=gen))


def saved(soft):
    return soft.saved_tensors().values()


def equal(soft, other):
    return all(torch.equal(p, q) for p, q in zip(saved(soft), saved(other)))


def logits_of_peft(adapter, idx):
    logits = adapter(input_ids=idx, attention_mask=torch.ones_like(idx)).logits
    return logits[:, -idx.shape[1] :]


@KINDS
@pytest.mark.parametrize("change", [{}, {"head_dim": 12}], ids=["llama", "head_dim"])
def test_peft_computes_the_same_both_ways(tmp_path, kind, change):
    peft = pytest.importorskip("peft")
    checkpoint(tmp_path / "base", **change)
    model, idx = from_pretrained(tmp_path / "base"), ids(3, 9, vocab=330)
    soft = soft_prompt(kind, model)
    to_peft(soft, model, tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(hugging_face(tmp_path / "base"), tmp_path / "adapter")
    assert torch.allclose(logits_of_peft(theirs, idx), model(idx, soft.past(model))[0], atol=1e-4)
    theirs.save_pretrained(tmp_path / "again")  # as PEFT writes it
    for folder in ("adapter", "again"):
        assert equal(soft, from_peft(tmp_path / folder, model))


@pytest.mark.parametrize("kind", ["PromptTuning", "PrefixTuning", "projection", "PromptEncoder"])
def test_what_peft_made_is_read_as_what_it_is(tmp_path, kind):
    """Of P-tuning (PromptEncoder) and of a projected prefix, PEFT saves what the MLP made."""
    peft = pytest.importorskip("peft")
    checkpoint(tmp_path / "base")
    model, idx = from_pretrained(tmp_path / "base"), ids(3, 9, vocab=330)
    options = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 4}
    if kind == "projection":
        kind = "PrefixTuning"
        options |= {"prefix_projection": True, "encoder_hidden_size": 16}
    torch.manual_seed(0)
    born = peft.get_peft_model(
        hugging_face(tmp_path / "base"), getattr(peft, f"{kind}Config")(**options)
    ).eval()
    born.save_pretrained(tmp_path / "born")
    past = from_peft(tmp_path / "born", model).past(model)
    assert torch.allclose(logits_of_peft(born, idx), model(idx, past)[0], atol=1e-4)


@KINDS
def test_under_a_window_peft_slides(tmp_path, kind):
    peft = pytest.importorskip("peft")
    checkpoint(tmp_path / "base", **MISTRAL)
    model, idx = from_pretrained(tmp_path / "base"), ids(2, 12, vocab=330)
    embeddings = initial_embeddings(model, 6, "vocab", generator=torch.Generator().manual_seed(0))
    soft = kind.start(model, embeddings, pinned=False)
    to_peft(soft, model, tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(hugging_face(tmp_path / "base"), tmp_path / "adapter")
    got = logits_of_peft(theirs, idx)
    assert torch.allclose(got, model(idx, soft.past(model, pinned=False))[0], atol=1e-4)
    assert not torch.allclose(got, model(idx, soft.past(model))[0], atol=0.1)


@pytest.fixture
def adapter(whole, tmp_path):
    """(model, prompt, its adapter as PEFT writes it): weights without our fingerprint."""
    model = from_pretrained(whole)
    soft, folder = soft_prompt(PromptTuning, model), tmp_path / "adapter"
    to_peft(soft, model, folder)
    weights = folder / "adapter_model.safetensors"
    write_weights(weights, safetensors.load_file(weights))
    return model, soft, folder


def change_config(folder, **change):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"peft_type": "LORA"}, "peft_type = 'LORA' is not supported, only PROMPT_TUNING"),
        ({"peft_type": None}, "peft_type = None"),
        ({"peft_type": ["PROMPT_TUNING"]}, "peft_type = "),
        ({"num_virtual_tokens": 7}, r"prompt_embeddings \(6, 32\).*needs \(7, 32\)"),
        ({"num_virtual_tokens": "6"}, "num_virtual_tokens = '6'"),
        ({"num_virtual_tokens": None}, "num_virtual_tokens = None"),
        ({"num_virtual_tokens": True}, "num_virtual_tokens = True"),
        ({"num_virtual_tokens": 0}, "num_virtual_tokens = 0"),
        ({"num_transformer_submodules": 2}, "num_transformer_submodules = 2, this model needs 1"),
        ({"token_dim": 64}, "token_dim = 64, this model needs 32"),
        ({"base_model_name_or_path": ["base"]}, r"base_model_name_or_path = \['base'\] is no name"),
        ({"peft_type": "PREFIX_TUNING"}, "num_attention_heads = 4, this model needs 2"),
    ],
)
def test_adapters_whose_fields_do_not_fit_are_refused(adapter, change, message):
    model, _, folder = adapter
    change_config(folder, **change)
    with pytest.raises(InputError, match=message):
        from_peft(folder, model)


def test_a_prefix_of_another_shape_but_as_many_numbers_is_refused(whole, tmp_path):
    model = from_pretrained(whole)
    to_peft(soft_prompt(PrefixTuning, model), model, tmp_path)
    for change in ({"num_layers": 4}, {"num_attention_heads": 4}, {"token_dim": 32}):
        change_config(tmp_path, num_layers=2, num_attention_heads=2, token_dim=16)
        from_peft(tmp_path, model)
        change_config(tmp_path, **change)
        with pytest.raises(InputError, match=f"{[*change][0]} = "):
            from_peft(tmp_path, model)


def test_adapters_whose_weights_do_not_fit_are_refused(adapter):
    model, soft, folder = adapter
    weights, E = folder / "adapter_model.safetensors", "prompt_embeddings"
    vectors = soft.embeddings.detach()

    def refused(message):
        with pytest.raises(InputError, match=message):
            from_peft(folder, model)

    write_weights(weights, {E: vectors, HEAD: torch.zeros(2, 2)})
    refused("'lm_head.weight'.* nothing else")
    write_weights(weights, {"other": vectors})
    refused(r"prompt_embeddings \(0,\)")
    write_weights(weights, {E: vectors.double()})
    assert torch.equal(from_peft(folder, model).embeddings, vectors)
    write_weights(weights, {E: vectors.to(torch.int8)})
    refused("not a finite number")
    write_weights(weights, {E: vectors / 0})
    refused("not a finite number")
    weights.write_bytes(weights.read_bytes()[:30])
    refused("adapter_model.safetensors cannot be read")
    weights.write_text("version https://git-lfs.github.com/spec/v1\n")
    refused("adapter_model.safetensors is a Git LFS pointer")
    weights.unlink()
    refused("has no adapter_model.safetensors")
    (folder / "adapter_config.json").write_text("[1]")
    refused("adapter_config.json holds no object")
    with pytest.raises(InputError, match="0 virtual tokens"):
        to_peft(soft_prompt(PromptTuning, model, 0), model, folder)


SAME = [
    "base",
    "owner/Base",
    "C:\\models\\base",
    "..\\base\\",
    "/home/anna/.cache/huggingface/hub/models--owner--Base/snapshots/0123456789abcdef",
    "D:\\hub\\models--Base\\snapshots\\01\\",
    "./base/",
    None,
    "",
]


def test_a_base_is_known_by_its_name_on_any_path(adapter):
    model, soft, folder = adapter
    for ours in SAME[:-2]:
        model.facts["name"] = ours
        for theirs in SAME:
            change_config(folder, base_model_name_or_path=theirs)
            assert equal(soft, from_peft(folder, model)), (ours, theirs)
        for theirs in ("owner/base-instruct", "models--base--other", "base/other", "snapshots"):
            change_config(folder, base_model_name_or_path=theirs)
            with pytest.raises(InputError, match="was trained on the base .*same_base=True"):
                from_peft(folder, model)
            assert equal(soft, from_peft(folder, model, same_base=True))


def test_a_fingerprint_counts_more_than_a_name(whole, tmp_path):
    model = from_pretrained(whole)
    soft = soft_prompt(PromptTuning, model)
    to_peft(soft, model, tmp_path)
    change_config(tmp_path, base_model_name_or_path="elsewhere")
    assert equal(soft, from_peft(tmp_path, model))
    with torch.no_grad():
        model.model.norm.weight[0] += 1
    for yes in (False, True):  # nobody can say that other weights are the same
        with pytest.raises(InputError, match="was trained on the base"):
            from_peft(tmp_path, model, same_base=yes)


def test_a_base_in_this_folder_has_a_name(whole, monkeypatch):
    monkeypatch.chdir(whole)
    assert Path(from_pretrained(".").facts["name"]).name == whole.name
    assert from_pretrained(whole).facts["name"] == str(whole)


def test_an_adapter_is_whole_or_not_there(adapter, monkeypatch):
    model, soft, folder = adapter
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(huggingface.os, "replace", lambda *names: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        to_peft(soft_prompt(PrefixTuning, model), model, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_who_exports_is_told_the_form_of_the_texts(adapter, capsys):
    model, soft, folder = adapter
    to_peft(soft, model, folder)
    assert "form" not in capsys.readouterr().out  # it does not know
    soft.facts["reading"] = {"form": "\nTEXT -> ANSWER"}
    to_peft(soft, model, folder)
    assert r"in exactly this form, without a token before it: '\nTEXT -> ANSWER'" in (
        capsys.readouterr().out
    )


def test_a_folder_that_is_not_there_is_not_a_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match="models/smol is no folder, .*this needs huggingface_hub"):
        hub_folder("models/smol")


def test_a_prefix_of_an_mlp_goes_to_peft_as_the_prefix_that_it_makes(whole, tmp_path):
    model = from_pretrained(whole)
    soft = soft_prompt(PrefixMLP, model)
    torch.nn.init.normal_(soft.down.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    to_peft(soft, model, tmp_path)
    assert equal(soft, from_peft(tmp_path, model))


def test_the_readme_s_way_to_peft_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint(Path("HuggingFaceTB/SmolLM2-135M-Instruct"))
    model = from_pretrained("HuggingFaceTB/SmolLM2-135M-Instruct")
    save(soft_prompt(PrefixTuning, model), "urgent.pt", model)
    blocks = (ROOT / "README.md").read_text(encoding="utf-8").split("```python\n")
    names = {}
    exec(blocks[2].split("```")[0], names)
    assert (tmp_path / "adapter" / "adapter_config.json").exists()
    assert names["soft"].kind == "prefix"
