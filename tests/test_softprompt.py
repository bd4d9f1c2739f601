"""softprompt.py as identities: prompt equals text, prompt equals its prefix, batch equals rows."""

import os

import pytest
import torch
from conftest import as_mha, ids, make_model

import softprompt
from softprompt import (
    PrefixMLP, PrefixTuning, PromptTuning, batch, initial_embeddings, load, nearest_tokens, prefill,
    save, trainable_fraction)

P, T = 9, 11

def text_prompt(model, kind=PromptTuning, n=P, **more):
    return kind.start(model, initial_embeddings(model, n, "text", ids(n)), **more)

def test_prompt_from_text_is_the_text(model):
    """Also where the window (5) is shorter than prompt and text, since pinned=0 lets it slide."""
    text = ids(3, T, seed=2)
    hard = torch.cat((ids(P).expand(3, P), text), 1)
    want = model(hard)[0][:, P:]
    assert torch.allclose(model(text, text_prompt(model).past(model, pinned=0))[0], want, atol=1e-5)
    prefix = text_prompt(model, PrefixTuning, pinned=0)
    assert torch.allclose(model(text, prefix.past(model, pinned=0))[0], want, atol=1e-5)

@pytest.mark.parametrize("kind", [PrefixTuning, PrefixMLP])
@pytest.mark.parametrize("pinned", [None, 0, 4])
def test_prompt_is_its_own_prefix(model, kind, pinned):
    text = ids(2, T, seed=2)
    embeddings = torch.randn(P, 32)
    prompt, prefix = PromptTuning.start(model, embeddings), kind.start(model, embeddings, pinned)
    want = model(text, prompt.past(model, pinned))[0]
    assert torch.allclose(model(text, prefix.past(model, pinned))[0], want, atol=1e-5)

def test_empty_prompt_is_no_prompt(model, tmp_path):
    text = ids(2, T)
    for kind in (PromptTuning, PrefixTuning):
        soft = kind.start(model, torch.empty(0, 32))
        save(soft, tmp_path / "empty.pt", model)
        assert torch.equal(
            model(text, load(tmp_path / "empty.pt", model).past(model))[0], model(text)[0])

def test_shared_prefill_has_the_gradient_of_prepending_to_every_row(model):
    text, targets = ids(4, T, seed=2), ids(4, T, seed=3)
    shared, repeated = text_prompt(model), text_prompt(model)
    model.loss(text, targets, shared.past(model, pinned=0)).backward()
    rows = torch.cat((repeated.embeddings.expand(4, P, 32), model.model.embed_tokens(text)), 1)
    logits = model(embeds=rows)[0][:, P:]
    torch.nn.functional.cross_entropy(logits.reshape(-1, 50), targets.reshape(-1)).backward()
    assert torch.allclose(shared.embeddings.grad, repeated.embeddings.grad, atol=1e-5)
    assert shared.embeddings.grad.abs().max() > 1e-3

def mixture(model, n=64):
    """n soft prompts of all kinds and of 1 to 20 virtual tokens, a pinning for each, and a text."""
    kinds, pins = (PromptTuning, PrefixTuning, PrefixMLP), (None, 0, 2, None)
    softs = [kinds[i % 3].start(model, torch.randn(1 + 7 * i % 20, 32)) for i in range(n)]
    text = ids(n, T, seed=2)
    text[torch.arange(T) >= 1 + 5 * torch.arange(n)[:, None] % T] = -1  # 1 to T tokens
    return softs, [pins[i % 4] for i in range(n)], text

def test_mixed_batch_is_its_rows_one_by_one(model):
    softs, pins, text = mixture(model)
    together = model(text, prefill(softs, model, pins))[0]
    by_hand = model(text, batch([s.past(model, p) for s, p in zip(softs, pins)]))[0]
    for i, (soft, pin) in enumerate(zip(softs, pins)):
        alone = model(text[i : i + 1], soft.past(model, pin))[0][0]
        real = text[i] >= 0
        assert torch.allclose(together[i][real], alone[real], atol=1e-4)
        assert torch.allclose(by_hand[i][real], alone[real], atol=1e-4)

def test_generation_with_mixed_prompts_is_one_by_one(model):
    softs, pins, text = mixture(model)
    rows = [[i for i in row if i >= 0] for row in text.tolist()]
    together = model.generate(rows, 12, prefill(softs, model, pins))
    for soft, pin, row, answer in zip(softs, pins, rows, together):
        assert answer == model.generate([row], 12, soft.past(model, pin))[0]

def test_rows_permute_and_do_not_touch_each_other(model):
    softs, pins, text = mixture(model)
    past = prefill(softs, model, pins)
    logits, real, order = model(text, past)[0], text >= 0, torch.randperm(64)
    moved = model(text[order], past.rows(order))[0]
    assert torch.allclose(moved[real[order]], logits[order][real[order]], atol=1e-4)
    fewer = model(text[:40], prefill(softs[:40], model, pins[:40]))[0]
    assert torch.allclose(fewer[real[:40]], logits[:40][real[:40]], atol=1e-4)

def test_pinned_prompt_is_seen_from_afar_and_a_sliding_one_is_not():
    model = make_model(window=4)  # 2 layers: 2 * (4 - 1) = 6 positions of reach
    for pinned, reach in ((0, False), (None, True), (3, True)):
        soft = text_prompt(model, n=3)
        model(ids(1, 20), soft.past(model, pinned))[0][0, 10].sum().backward()
        assert (soft.embeddings.grad.abs().max() > 0) == reach

def test_order_of_prefix_slots_does_not_matter_without_a_window():
    for window, same in ((None, True), (5, False)):
        model = make_model(window=window)
        prefix, order = text_prompt(model, PrefixTuning), torch.randperm(P)
        other = PrefixTuning(prefix.keys[:, :, order], prefix.values[:, :, order])
        a, b = (model(ids(1, T), soft.past(model, 0))[0] for soft in (prefix, other))
        assert torch.allclose(a, b, atol=1e-5) == same

def test_prefix_under_gqa_is_the_repeated_prefix_under_mha():
    gqa = make_model()
    mha = as_mha(gqa)
    narrow = PrefixTuning(*torch.randn(2, 2, 2, P, 8))
    wide = PrefixTuning(*(x.detach().repeat_interleave(2, 1) for x in narrow.states()))
    assert torch.allclose(
        gqa(ids(1, T), narrow.past(gqa))[0], mha(ids(1, T), wide.past(mha))[0], atol=1e-5)

def test_zero_prefix_is_not_nothing():
    """P zero keys take a share P / (P + sum exp(scores)) of the attention, and give nothing."""
    from model import attention

    q, k, v = torch.randn(3, 1, 4, 1, 8).unbind(0)
    zero = torch.zeros(1, 4, P, 8)
    mask = torch.zeros(1, 1, 1, P + 1)
    out = attention(q, torch.cat((zero, k), 2), torch.cat((zero, v), 2), mask)
    weight = ((q * k).sum(-1, keepdim=True) / 8**0.5).exp()
    assert torch.allclose(out, v * weight / (weight + P), atol=1e-6)

def test_folded_mlp_is_the_live_mlp(model, tmp_path):
    soft = text_prompt(model, PrefixMLP, width=16)
    torch.nn.init.normal_(soft.down.weight)
    want = model(ids(2, T), soft.past(model))[0]
    assert torch.equal(model(ids(2, T), soft.fold().past(model))[0], want)
    save(soft, tmp_path / "folded.pt", model)
    kept = load(tmp_path / "folded.pt", model)
    assert isinstance(kept, PrefixTuning) and torch.equal(
        model(ids(2, T), kept.past(model))[0], want)

@pytest.mark.parametrize("kind", [PromptTuning, PrefixTuning, PrefixMLP])
def test_training_leaves_the_base_bit_identical(model, kind):
    before, soft = model.fingerprint(), text_prompt(model, kind)
    optimizer = torch.optim.AdamW(soft.parameters(), lr=0.05)
    losses = []
    for _ in range(8):
        loss = model.loss(ids(4, T, seed=2), ids(4, T, seed=3), soft.past(model))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05
    assert model.fingerprint() == before
    assert all(p.grad is None for p in model.parameters())

def test_initializations():
    model = make_model(vocab_size=500)
    table, gen = model.model.embed_tokens.weight, lambda: torch.Generator().manual_seed(3)
    text = initial_embeddings(model, 7, "text", [4, 5, 6])
    assert torch.equal(text, table[[4, 5, 6, 4, 5, 6, 4]])
    assert torch.equal(initial_embeddings(model, 2, "text", [4, 5, 6]), table[[4, 5]])
    vocab = initial_embeddings(model, 100, "vocab", generator=gen())
    rows = [int((table == row).all(1).nonzero()) for row in vocab]
    assert len(set(rows)) == 100
    assert len(initial_embeddings(make_model(), 120, "vocab")) == 120  # more than there are tokens
    with torch.no_grad():
        table += 3.0
    matched = initial_embeddings(model, 200, "matched", generator=gen())
    assert abs(matched.mean() - table.mean()) < 0.02 and abs(matched.std() - table.std()) < 0.02
    normal = initial_embeddings(model, 200, "normal", generator=gen())
    assert abs(normal.mean()) < 0.05 and abs(normal.std() - 1) < 0.05
    assert torch.equal(normal, initial_embeddings(model, 200, "normal", generator=gen()))

@pytest.mark.parametrize("arguments, message", [
    ((5, "zeros"), "unknown initialization 'zeros'"), ((5, "text"), "at least one token"),
    ((5, "text", []), "at least one token"),
    ((256, "normal"), "256 virtual tokens.*block_size=256"), ((-1, "normal"), "-1 virtual tokens")])
def test_initializations_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        initial_embeddings(make_model(), *arguments)

@pytest.mark.parametrize("kind", [PromptTuning, PrefixTuning])
def test_saved_and_loaded_bit_for_bit(model, tmp_path, kind):
    soft, path = text_prompt(model, kind), tmp_path / "soft.pt"
    save(soft, path, model, job="library", steps=60)
    kept = load(path, model)
    assert type(kept) is kind and kept.facts == {"job": "library", "steps": 60}
    assert all(torch.equal(a, b) for a, b in zip(soft.parameters(), kept.parameters()))
    assert os.listdir(tmp_path) == ["soft.pt"]

def test_a_prompt_belongs_to_one_base(tmp_path):
    model, other = make_model(), make_model(seed=1)
    save(text_prompt(model), tmp_path / "soft.pt", model)
    with pytest.raises(ValueError) as refused:
        load(tmp_path / "soft.pt", other)
    assert model.fingerprint()[:16] in str(refused.value) and other.fingerprint()[:16] in str(
        refused.value)

def test_damaged_files_are_refused(tmp_path):
    model, path = make_model(), tmp_path / "soft.pt"
    save(text_prompt(model), path, model)
    data = path.read_bytes()
    for at in range(0, len(data), 97):  # one flipped bit, anywhere
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        with pytest.raises(ValueError, match="damaged"):
            load(path, model)
    for n in (0, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:n])
        with pytest.raises(ValueError, match="damaged"):
            load(path, model)
    model.save(path)
    with pytest.raises(ValueError, match="does not hold a soft prompt"):
        load(path, model)

class Bomb:
    def __reduce__(self):
        return os.mkdir, ("bomb-went-off",)

def test_nothing_in_a_file_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    softprompt.write("soft.pt", {"kind": "prompt", "base": Bomb(), "facts": {}, "state": {}})
    with pytest.raises(ValueError, match="more than plain values"):
        load("soft.pt", make_model())
    torch.save(Bomb(), "plain.pt")
    with pytest.raises(ValueError, match="damaged"):
        load("plain.pt", make_model())
    assert not os.path.exists("bomb-went-off")

def test_nearest_tokens_has_a_control():
    model = make_model(vocab_size=500)
    near = nearest_tokens(text_prompt(model), model, 3)
    assert near.ids[:, 0].tolist() == ids(P).tolist() and torch.allclose(
        near.cosines[:, 0], torch.ones(P))
    assert near.control.shape == (P, 3) and 0.2 < near.control[:, 0].mean() < 0.9
    with pytest.raises(ValueError, match="prefix"):
        nearest_tokens(text_prompt(model, PrefixTuning), model, 3)

def test_trainable_fraction():
    model = make_model()
    total = sum(p.numel() for p in model.parameters())
    assert trainable_fraction(text_prompt(model), model) == P * 32 / total
    assert trainable_fraction(text_prompt(model, PrefixTuning), model) == 2 * 2 * 2 * P * 8 / total

def test_a_past_of_other_rows_than_the_text_is_refused(model):
    past = prefill(mixture(model, 3)[0], model)
    with pytest.raises(ValueError, match="3 rows before 2 rows"):
        model(ids(2, T), past)
