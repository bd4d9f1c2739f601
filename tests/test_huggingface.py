"""Models, tokenizers and adapters of others: equal to transformers, tokenizers and PEFT where these
are installed, and refused where this project would compute something else."""

import json
from pathlib import Path

import pytest
import torch
from conftest import ids, make_model

import train
from model import GPT
from softprompt import PrefixTuning, PromptTuning, from_peft, initial_embeddings, save, to_peft
from train import Tokenizer

safetensors = pytest.importorskip("safetensors.torch")

LLAMA = {
    "model_type": "llama", "vocab_size": 330, "hidden_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48,
    "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 5000.0,
    "tie_word_embeddings": True, "hidden_act": "silu", "eos_token_id": 329}
MISTRAL = {**LLAMA, "model_type": "mistral", "sliding_window": 5, "head_dim": 12}
SHAPE = dict(vocab_size=330, block_size=128, n_hidden=48, rope_base=5000.0)

def checkpoint(folder, dtype=torch.float32, **change):
    """A tiny random model of these fields in Hugging Face's format, and the tensors in it."""
    config = {**LLAMA, **change}
    folder.mkdir(parents=True, exist_ok=True)
    tied = config["tie_word_embeddings"]
    model = make_model(**SHAPE, tie_embeddings=tied, head_dim=config.get("head_dim"))
    tensors = {name: p.to(dtype).contiguous() for name, p in model.state_dict().items()}
    (folder / "config.json").write_text(json.dumps(config))
    safetensors.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return tensors

def hugging_face(folder):
    transformers = pytest.importorskip("transformers")
    transformers.logging.disable_progress_bar()
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

@pytest.mark.parametrize(
    "change",
    [
        {}, {"tie_word_embeddings": False}, {"head_dim": 10}, MISTRAL,
        {**MISTRAL, "sliding_window": None, "tie_word_embeddings": False},
        {"rope_parameters": {"rope_theta": 300.0, "rope_type": "default"}}],
    ids=["tied", "untied", "head_dim", "window", "mistral", "rope_parameters"],
)
def test_the_model_is_that_of_transformers(tmp_path, change):
    checkpoint(tmp_path, **change)
    ours, theirs = GPT.from_pretrained(tmp_path), hugging_face(tmp_path)
    idx = ids(2, 40, vocab=330)
    assert torch.allclose(ours(idx)[0], theirs(idx).logits, atol=1e-4)
    assert ours.config.block_size == theirs.config.max_position_embeddings
    assert ours.config.window == getattr(theirs.config, "sliding_window", None)
    greedy = theirs.generate(idx[:1, :9], max_new_tokens=20, do_sample=False, eos_token_id=None)
    assert ours.generate([idx[0, :9].tolist()], 20) == [greedy[0, 9:].tolist()]

def test_shards_dtypes_and_leftovers(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    tensors = checkpoint(whole, torch.bfloat16)
    cut.mkdir()
    (cut / "config.json").write_text((whole / "config.json").read_text())
    names, where = sorted(tensors), {}
    for shard, part in enumerate((names[:5], names[5:])):
        file = f"model-{shard}.safetensors"
        content = {name: tensors[name] for name in part}
        # What old and tied checkpoints store, and what changes nothing.
        content["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
        content["lm_head.weight"] = torch.zeros(330, 32)
        safetensors.save_file(content, cut / file)
        where |= dict.fromkeys(content, file)
    (cut / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    one, other = GPT.from_pretrained(whole), GPT.from_pretrained(cut, torch.float32)
    assert (
        one.model.norm.weight.dtype == torch.bfloat16 and one.fingerprint() == other.fingerprint())
    assert other.model.norm.weight.dtype == torch.float32 and other.facts["end"] == 329
    assert torch.equal(other(ids(1, 9))[0], one.float()(ids(1, 9))[0])
    one.save(tmp_path / "ours.pt")
    assert GPT.load(tmp_path / "ours.pt").fingerprint() == one.fingerprint()

@pytest.mark.parametrize("change, message", [
    ({"model_type": "gpt2"}, "model_type = 'gpt2'.*llama"),
    ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_type = 'llama3'"),
    ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_type = 'yarn'"),
    ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type = 'linear'"),
    ({"attention_bias": True}, "attention_bias = True"), ({"mlp_bias": True}, "mlp_bias"),
    ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"), ({"num_key_value_heads": 3}, "n_kv_head=3"),
    ({"model_type": "mistral"}, "config.json lacks sliding_window"),
    ({"intermediate_size": 64}, r"size mismatch for model.layers.0.mlp.*48.*64"),
    ({"num_hidden_layers": 1}, "Unexpected key.*model.layers.1"),
    ({"num_hidden_layers": 3}, "Missing key.*model.layers.2"),
    ({"tie_word_embeddings": False}, "Missing key.*lm_head.weight")])
def test_what_would_compute_something_else_is_refused(tmp_path, change, message):
    checkpoint(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, **change}))
    with pytest.raises(ValueError, match=message):
        GPT.from_pretrained(tmp_path)

def test_folders_that_hold_no_model(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no folder, and no OWNER/NAME"):
        GPT.from_pretrained("nowhere")
    with pytest.raises(OSError, match="config.json"):
        GPT.from_pretrained(tmp_path)
    checkpoint(tmp_path)
    data = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[:1000])
    with pytest.raises(ValueError, match="model.safetensors cannot be read"):
        GPT.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="Missing key"):
        GPT.from_pretrained(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match="pip install huggingface_hub"):
        GPT.from_pretrained("owner/name")

# ------------------------------------------------------------------ tokenizers

TEXTS = ["Return the matrix of a graph.", "It's 1 of 12 axes;  don't plot 345!", "über\n\n  naïf"]

def tokenizer_json(folder, kind="bytes"):
    """A small BPE in Hugging Face's format: over bytes, or as SentencePiece made them for Llama."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer, alphabet = Tokenizer(models.BPE()), pre_tokenizers.ByteLevel.alphabet()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if kind == "pieces":
        steps, alphabet = [normalizers.Prepend("_"), normalizers.Replace(" ", "_")], []
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.Sequence(steps)
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=["<|end|>"],
                                  initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    tokenizer.enable_truncation(4)  # as some are shipped
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder

def test_a_tokenizer_json_is_read_and_special_tokens_stay_text(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    folder = tokenizer_json(tmp_path)
    tok = Tokenizer.from_pretrained(folder, end=0)
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
    folder = tokenizer_json(tmp_path, "pieces")
    with pytest.raises(ValueError, match="other ids apart than together"):
        Tokenizer.from_pretrained(folder, end=0)
    with pytest.raises(ValueError, match="eos_token_id"):
        Tokenizer.from_pretrained(folder, end=None)
    (folder / "tokenizer.json").write_text("{'damaged'")
    with pytest.raises(ValueError, match="tokenizer.json cannot be read"):
        Tokenizer.from_pretrained(folder, end=0)
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(ValueError, match="pip install tokenizers"):
        Tokenizer.from_pretrained(folder, end=0)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="lacks tokenizer.json"):
        Tokenizer.from_pretrained(folder, end=0)

# ------------------------------------------------------------------ PEFT

KINDS = pytest.mark.parametrize("kind", [PromptTuning, PrefixTuning])

def soft_prompt(kind, model, P=6):
    gen = torch.Generator().manual_seed(3)
    return kind.start(model, initial_embeddings(model, P, "matched", generator=gen))

@KINDS
@pytest.mark.parametrize("change", [{}, {"head_dim": 12}], ids=["llama", "head_dim"])
def test_peft_computes_the_same_both_ways(tmp_path, kind, change):
    peft = pytest.importorskip("peft")
    checkpoint(tmp_path / "base", **change)
    model, idx = GPT.from_pretrained(tmp_path / "base"), ids(3, 9, vocab=330)
    soft = soft_prompt(kind, model)
    to_peft(soft, model, tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(hugging_face(tmp_path / "base"), tmp_path / "adapter")
    want = model(idx, soft.past(model))[0]
    got = theirs(input_ids=idx, attention_mask=torch.ones_like(idx)).logits[:, -9:]
    assert torch.allclose(got, want, atol=1e-4)
    theirs.save_pretrained(tmp_path / "again")  # as PEFT writes it
    for folder in ("adapter", "again"):
        back = from_peft(tmp_path / folder, model)
        assert all(torch.equal(p, q) for p, q in zip(soft.parameters(), back.parameters()))
    kinds = {PromptTuning: peft.PromptTuningConfig, PrefixTuning: peft.PrefixTuningConfig}
    config = kinds[kind](task_type="CAUSAL_LM", num_virtual_tokens=4)
    born = peft.get_peft_model(hugging_face(tmp_path / "base"), config).eval()
    born.save_pretrained(tmp_path / "born")  # never seen by us
    got = born(input_ids=idx, attention_mask=torch.ones_like(idx)).logits[:, -9:]
    past = from_peft(tmp_path / "born", model).past(model)
    assert torch.allclose(got, model(idx, past)[0], atol=1e-4)

@KINDS
def test_adapters_that_do_not_fit_are_refused(tmp_path, kind):
    checkpoint(tmp_path / "base")
    model = GPT.from_pretrained(tmp_path / "base")
    adapter = tmp_path / "adapter"
    to_peft(soft_prompt(kind, model), model, adapter)
    about = json.loads((adapter / "adapter_config.json").read_text())

    def refused(message, model=model, **change):
        (adapter / "adapter_config.json").write_text(json.dumps({**about, **change}))
        with pytest.raises(ValueError, match=message):
            from_peft(adapter, model)

    refused("peft_type = 'LORA'", peft_type="LORA")
    refused(r"prompt_embeddings \(6, .*needs \(7, ", num_virtual_tokens=7)
    moved = GPT.from_pretrained(tmp_path / "base")
    with torch.no_grad():
        moved.model.norm.weight[0] += 1
    refused("was trained on the base", moved)
    with pytest.raises(ValueError, match="0 virtual tokens"):
        to_peft(soft_prompt(kind, model, 0), model, adapter)

    weights = adapter / "adapter_model.safetensors"  # from here on as PEFT writes it
    tensors = safetensors.load_file(weights)
    safetensors.save_file(tensors, weights)
    refused("on the base other-base, this base is base", base_model_name_or_path="owner/Other-Base")
    (adapter / "adapter_config.json").write_text(
        json.dumps({**about, "base_model_name_or_path": "owner/Base"}))
    assert from_peft(adapter, model).length == 6
    safetensors.save_file({**tensors, "lm_head.weight": torch.zeros(2, 2)}, weights)
    refused("'lm_head.weight'.* nothing else")
    weights.write_bytes(weights.read_bytes()[:30])
    refused("adapter_model.safetensors cannot be read")
    weights.unlink()
    refused("adapter_model.safetensors")

@KINDS
def test_under_a_window_peft_slides(tmp_path, kind):
    peft = pytest.importorskip("peft")
    checkpoint(tmp_path / "base", **MISTRAL)
    model, idx = GPT.from_pretrained(tmp_path / "base"), ids(2, 12, vocab=330)
    soft = kind.start(model, initial_embeddings(model, 6, "vocab"), pinned=0)
    to_peft(soft, model, tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(hugging_face(tmp_path / "base"), tmp_path / "adapter")
    got = theirs(input_ids=idx, attention_mask=torch.ones_like(idx)).logits[:, -12:]
    assert torch.allclose(got, model(idx, soft.past(model, pinned=0))[0], atol=1e-4)
    assert not torch.allclose(got, model(idx, soft.past(model))[0], atol=0.1)

def test_the_readme_s_way_to_peft_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint(Path("HuggingFaceTB/SmolLM2-135M"))
    model = GPT.from_pretrained("HuggingFaceTB/SmolLM2-135M")
    save(soft_prompt(PrefixTuning, model), "urgent.pt", model)
    text = (Path(train.__file__).with_name("README.md")).read_text(encoding="utf-8")
    exec(text.split("```python\n")[2].split("```")[0], {})
    assert (tmp_path / "adapter" / "adapter_config.json").exists()
