"""softprompt.py as identities: prompt equals text, prompt equals its prefix, batch equals rows."""

import hashlib
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import as_mha, ids, make_model

import model as model_file
from model import InputError, attention
from softprompt import (
    INITIALIZATIONS,
    PrefixMLP,
    PrefixTuning,
    PromptTuning,
    batch,
    initial_embeddings,
    load,
    nearest_tokens,
    prefill,
    save,
    trainable_fraction,
)

P, T = 9, 11
KINDS = [PromptTuning, PrefixTuning, PrefixMLP]


def text_prompt(model, kind=PromptTuning, n=P, pinned=True):
    """A soft prompt that starts at the text `ids(n)`."""
    return kind.start(model, initial_embeddings(model, n, "text", ids(n)), pinned)


def logits_of(model, soft, idx, pinned=True):
    return model(idx, soft.past(model, pinned))[0]


# ------------------------------------------------------------------ a prompt, a prefix and a text


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_from_text_is_the_text(model, kind):
    """Also where the window (5) is shorter than prompt and text, since unpinned it slides."""
    text = ids(3, T, seed=2)
    hard = torch.cat((ids(P).expand(3, P), text), 1)  # (3, P + T)
    want = model(hard)[0][:, P:]
    soft = text_prompt(model, kind, pinned=False)
    assert torch.allclose(logits_of(model, soft, text, pinned=False), want, atol=1e-5)


@pytest.mark.parametrize("kind", [PrefixTuning, PrefixMLP])
@pytest.mark.parametrize("pinned", [True, False])
def test_a_prompt_is_its_own_prefix(model, kind, pinned):
    text = ids(2, T, seed=2)
    embeddings = torch.randn(P, 32)
    prompt = PromptTuning.start(model, embeddings, pinned)
    prefix = kind.start(model, embeddings, pinned)
    want = logits_of(model, prompt, text, pinned)
    assert torch.allclose(logits_of(model, prefix, text, pinned), want, atol=1e-5)


@pytest.mark.parametrize("kind", [PromptTuning, PrefixTuning])
def test_an_empty_prompt_is_no_prompt(model, kind, tmp_path):
    text = ids(2, T)
    save(kind.start(model, torch.empty(0, 32)), tmp_path / "empty.pt", model)
    kept = load(tmp_path / "empty.pt", model)
    assert torch.equal(logits_of(model, kept, text), model(text)[0])


def test_one_row_of_prefill_has_the_gradient_of_prepending_to_every_row(model):
    text, targets = ids(4, T, seed=2), ids(4, T, seed=3)
    shared, repeated = text_prompt(model), text_prompt(model)
    model.loss(text, targets, shared.past(model, pinned=False)).backward()
    rows = torch.cat((repeated.embeddings.expand(4, P, 32), model.model.embed_tokens(text)), 1)
    logits = model(embeds=rows)[0][:, P:]
    F.cross_entropy(logits.reshape(-1, 50), targets.reshape(-1)).backward()
    assert torch.allclose(shared.embeddings.grad, repeated.embeddings.grad, atol=1e-5)
    assert shared.embeddings.grad.abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_past_says_how_many_are_pinned(model, kind):
    soft = text_prompt(model, kind)
    assert soft.past(model).pinned.tolist() == [P]
    assert soft.past(model, pinned=False).pinned.tolist() == [0]
    assert soft.past(model).positions.tolist() == [list(range(P))]


@pytest.mark.parametrize("kind", KINDS)
def test_a_pinned_prompt_is_seen_from_afar_and_a_sliding_one_is_not(kind):
    model = make_model(window=4)  # 2 layers: 2 * (4 - 1) = 6 positions of reach
    for pinned in (True, False):
        soft = text_prompt(model, kind, n=3, pinned=pinned)
        logits_of(model, soft, ids(1, 20), pinned)[0, 10].sum().backward()
        moved = sum(p.grad.abs().sum() for p in soft.parameters() if p.grad is not None)
        assert (moved > 0) == pinned


def test_a_window_as_wide_as_prompt_and_text_makes_pinning_idle():
    model = make_model(window=P + T)
    for kind in KINDS:
        soft = text_prompt(model, kind)
        held, sliding = (logits_of(model, soft, ids(1, T), pinned) for pinned in (True, False))
        assert torch.equal(held, sliding)


def test_the_order_of_prefix_slots_matters_only_under_a_window():
    for window, same in ((None, True), (5, False)):
        model = make_model(window=window)
        prefix = text_prompt(model, PrefixTuning)
        order = torch.randperm(P)
        keys = [layer[:, order] for layer in prefix.keys]
        values = [layer[:, order] for layer in prefix.values]
        a = logits_of(model, prefix, ids(1, T), pinned=False)
        b = logits_of(model, PrefixTuning(keys, values), ids(1, T), pinned=False)
        assert torch.allclose(a, b, atol=1e-5) == same


def test_a_prefix_under_gqa_is_the_repeated_prefix_under_mha():
    gqa = make_model()
    mha = as_mha(gqa)
    keys, values = torch.randn(2, 2, P, 8), torch.randn(2, 2, P, 8)  # (L, Hkv, P, D)
    narrow = PrefixTuning(keys, values)
    wide = PrefixTuning(keys.repeat_interleave(2, 1), values.repeat_interleave(2, 1))
    text = ids(1, T)
    assert torch.allclose(logits_of(gqa, narrow, text), logits_of(mha, wide, text), atol=1e-5)


def test_a_prefix_of_zeros_is_not_nothing():
    """P zero keys take a share P / (P + sum exp(scores)) of the attention, and give nothing."""
    q, k, v = torch.randn(3, 1, 4, 1, 8).unbind(0)
    zero = torch.zeros(1, 4, P, 8)
    mask = torch.zeros(1, 1, 1, P + 1)
    out = attention(q, torch.cat((zero, k), 2), torch.cat((zero, v), 2), mask)
    weight = ((q * k).sum(-1, keepdim=True) / 8**0.5).exp()
    assert torch.allclose(out, v * weight / (weight + P), atol=1e-6)


# ------------------------------------------------------------------ through an MLP


def moved_mlp(model):
    """A PrefixMLP whose MLP says something."""
    embeddings = initial_embeddings(model, P, "text", ids(P))
    soft = PrefixMLP.start(model, embeddings, width=16)
    torch.nn.init.normal_(soft.down.weight, std=0.1)
    return soft


def test_the_mlp_is_tanh_between_two_matrices_added_to_the_start(model):
    soft = moved_mlp(model)
    hidden = torch.tanh(soft.inputs @ soft.up.weight.T + soft.up.bias)  # (P, width)
    moved = hidden @ soft.down.weight.T + soft.down.bias  # (P, 2 L Hkv D)
    plain = text_prompt(model, PrefixTuning)
    keys, values = soft.states()
    for p in range(P):
        by_hand = moved[p].view(2, 2, 2, 8)  # keys or values, L, Hkv, D
        for layer in range(2):
            want_k = plain.keys[layer][:, p] + by_hand[0, layer]  # (Hkv, D)
            want_v = plain.values[layer][:, p] + by_hand[1, layer]  # (Hkv, D)
            assert torch.allclose(keys[layer][:, p], want_k, atol=1e-5)
            assert torch.allclose(values[layer][:, p], want_v, atol=1e-5)


def test_the_prefix_without_its_mlp_is_the_prefix_with_it(model, tmp_path):
    soft = moved_mlp(model)
    soft.facts = {"task": "library"}
    want = logits_of(model, soft, ids(2, T))
    assert torch.equal(logits_of(model, soft.to_prefix(), ids(2, T)), want)
    save(soft, tmp_path / "prefix.pt", model)
    kept = load(tmp_path / "prefix.pt", model)
    assert isinstance(kept, PrefixTuning)
    assert kept.facts == {"task": "library"}
    assert torch.equal(logits_of(model, kept, ids(2, T)), want)


# ------------------------------------------------------------------ many at once


def mixture(model, n=32):
    """n soft prompts of all kinds and of 1 to 20 virtual tokens, and a text for each."""
    softs = []
    for i in range(n):
        softs.append(KINDS[i // 2 % 3].start(model, torch.randn(1 + 7 * i % 20, 32)))
    text = ids(n, T, seed=2)
    slots = torch.arange(T)
    lengths = 1 + 5 * torch.arange(n) % T  # 1 to T tokens
    text[slots >= lengths[:, None]] = -1
    return softs, text


@pytest.mark.parametrize("pinned", [True, False])
def test_a_mixed_batch_is_its_rows_one_by_one(model, pinned):
    softs, text = mixture(model)
    together, _ = model(text, prefill(softs, model, pinned))
    for i, soft in enumerate(softs):
        alone = logits_of(model, soft, text[i : i + 1], pinned)[0]
        real = text[i] >= 0
        assert torch.allclose(together[i][real], alone[real], atol=1e-4)


def test_a_batch_of_pasts_keeps_what_each_has_pinned(model):
    softs, text = mixture(model)
    pins = [i % 3 > 0 for i in range(len(softs))]
    pasts = [soft.past(model, pinned) for soft, pinned in zip(softs, pins)]
    together, _ = model(text, batch(pasts))
    for i, past in enumerate(pasts):
        alone = model(text[i : i + 1], past)[0][0]
        real = text[i] >= 0
        assert torch.allclose(together[i][real], alone[real], atol=1e-4)


@pytest.mark.parametrize("pinned", [True, False])
def test_generation_with_mixed_prompts_is_one_by_one(model, pinned):
    softs, text = mixture(model, 12)
    rows = [row[row >= 0].tolist() for row in text]
    together = model.generate(rows, 12, prefill(softs, model, pinned))
    for soft, row, answer in zip(softs, rows, together):
        assert answer == model.generate([row], 12, soft.past(model, pinned))[0]


def test_rows_permute_and_do_not_touch_each_other(model):
    softs, text = mixture(model)
    past = prefill(softs, model)
    logits, _ = model(text, past)
    real = text >= 0
    order = torch.randperm(len(softs))
    moved, _ = model(text[order], past.rows(order))
    assert torch.allclose(moved[real[order]], logits[order][real[order]], atol=1e-4)
    fewer, _ = model(text[:20], prefill(softs[:20], model))
    assert torch.allclose(fewer[real[:20]], logits[:20][real[:20]], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_prefill_has_the_gradient_of_each_alone(model, kind):
    text = ids(3, T, seed=2)
    starts = [torch.randn(n, 32) for n in (4, 1, 7)]

    def fresh():
        torch.manual_seed(1)  # the MLP's first matrix is random
        return [kind.start(model, start) for start in starts]

    together, alone = fresh(), fresh()
    model(text, prefill(together, model))[0].square().sum().backward()
    for i, soft in enumerate(alone):
        logits_of(model, soft, text[i : i + 1])[0].square().sum().backward()
    for a, b in zip(together, alone):
        for p, q in zip(a.parameters(), b.parameters()):
            assert torch.allclose(p.grad, q.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_training_leaves_the_base_bit_identical(model, kind):
    before = model.fingerprint()
    soft = text_prompt(model, kind)
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


# ------------------------------------------------------------------ where a prompt starts


def seeded(seed=3):
    return torch.Generator().manual_seed(seed)


def test_a_start_from_text_is_its_embeddings_repeated_or_cut():
    model = make_model()
    table = model.model.embed_tokens.weight
    assert torch.equal(
        initial_embeddings(model, 7, "text", [4, 5, 6]), table[[4, 5, 6, 4, 5, 6, 4]]
    )
    assert torch.equal(initial_embeddings(model, 2, "text", [4, 5, 6]), table[[4, 5]])
    assert initial_embeddings(model, 0, "text", [4]).shape == (0, 32)


def test_a_start_from_the_vocabulary_is_rows_of_the_table_without_repeats():
    model = make_model(vocab_size=500)
    table = model.model.embed_tokens.weight
    drawn = initial_embeddings(model, 100, "vocab", generator=seeded())
    rows = [int((table == row).all(1).nonzero()) for row in drawn]
    assert len(set(rows)) == 100
    assert rows != sorted(rows)
    few = make_model(vocab_size=50)
    assert len(initial_embeddings(few, 120, "vocab", generator=seeded())) == 120


def test_a_matched_start_has_the_spread_of_each_column_of_the_table():
    model = make_model(vocab_size=500)
    table = model.model.embed_tokens.weight
    with torch.no_grad():
        table *= torch.linspace(1, 5, 32)
        table += torch.linspace(-9, 9, 32)
    drawn = initial_embeddings(model, 250, "matched", generator=seeded())  # (P, C)
    assert torch.allclose(drawn.mean(0), table.mean(0), atol=0.3)
    assert torch.allclose(drawn.std(0) / table.std(0), torch.ones(32), atol=0.2)


def test_a_normal_start_is_noise_whatever_the_table_is():
    drawn = initial_embeddings(make_model(), 250, "normal", generator=seeded())
    assert abs(drawn.mean()) < 0.05
    assert abs(drawn.std() - 1) < 0.05


@pytest.mark.parametrize("method", INITIALIZATIONS)
def test_a_start_follows_its_generator(method):
    model = make_model()

    def start(seed):
        return initial_embeddings(model, P, method, ids(P), seeded(seed))

    assert torch.equal(start(3), start(3))
    assert torch.equal(start(3), start(4)) == (method == "text")
    assert start(3).shape == (P, 32)
    assert start(3).dtype == torch.float32


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((5, "zeros"), "unknown initialization 'zeros': choose text, vocab"),
        ((5, "text"), "at least one token"),
        ((5, "text", []), "at least one token"),
        ((256, "normal"), "256 virtual tokens.*block_size=256.*0 to 255"),
        ((-1, "normal"), "-1 virtual tokens"),
    ],
)
def test_starts_that_cannot_be(arguments, message):
    with pytest.raises(InputError, match=message):
        initial_embeddings(make_model(), *arguments)


def test_a_soft_prompt_does_not_share_its_start():
    """Else two prompts from one start would move together, or move the base's own embeddings."""
    vectors, keys, values = torch.randn(P, 32), torch.randn(2, 2, P, 8), torch.randn(2, 2, P, 8)
    starts = (vectors, keys, values)
    kept = [start.clone() for start in starts]
    for soft in (
        PromptTuning(vectors),
        PrefixTuning(keys, values),
        PrefixMLP(keys, values, vectors, width=16),
    ):
        with torch.no_grad():
            for state in (*soft.parameters(), *soft.buffers()):
                state += 1
        assert all(torch.equal(start, same) for start, same in zip(starts, kept))


# ------------------------------------------------------------------ what they are like


def test_the_nearest_token_of_a_text_is_the_text():
    model = make_model(vocab_size=500)
    near = nearest_tokens(text_prompt(model), model, 3, seeded())
    assert near.ids[:, 0].tolist() == ids(P).tolist()
    assert torch.allclose(near.cosines[:, 0], torch.ones(P))
    assert (near.cosines[:, 0] > near.cosines[:, 1]).all()
    table = model.model.embed_tokens.weight
    for p in range(P):
        cosines = F.cosine_similarity(text_prompt(model).embeddings[p], table, dim=1)  # (V,)
        assert near.ids[p].tolist() == cosines.topk(3).indices.tolist()


def test_nearest_tokens_have_a_control():
    model = make_model(vocab_size=500)
    near = nearest_tokens(text_prompt(model), model, 3, seeded())
    assert near.control.shape == (P, 3)
    assert 0.2 < near.control[:, 0].mean() < 0.9  # some token is always nearest
    matched = PromptTuning(initial_embeddings(model, P, "matched", generator=seeded()))
    assert torch.allclose(nearest_tokens(matched, model, 3).cosines, near.control, atol=1e-6)
    with pytest.raises(InputError, match="a prefix has no embeddings"):
        nearest_tokens(text_prompt(model, PrefixTuning), model, 3)


def test_the_trainable_fraction_counts_what_is_trained():
    model = make_model()
    total = sum(p.numel() for p in model.parameters())
    assert trainable_fraction(text_prompt(model), model) == P * 32 / total
    keys_and_values = 2 * 2 * 2 * P * 8  # both, L, Hkv, P, D
    assert trainable_fraction(text_prompt(model, PrefixTuning), model) == keys_and_values / total


# ------------------------------------------------------------------ files


@pytest.mark.parametrize("kind", [PromptTuning, PrefixTuning])
def test_saved_and_loaded_bit_for_bit(model, tmp_path, kind):
    soft = text_prompt(model, kind)
    soft.facts = {"task": "kind", "seed": 3}
    save(soft, tmp_path / "soft.pt", model, task="library", steps=60)
    kept = load(tmp_path / "soft.pt", model)
    assert type(kept) is kind
    assert kept.facts == {"task": "library", "seed": 3, "steps": 60}
    assert kept.length == P
    assert all(torch.equal(a, b) for a, b in zip(soft.parameters(), kept.parameters()))
    assert os.listdir(tmp_path) == ["soft.pt"]


@pytest.mark.parametrize("kind", [PromptTuning, PrefixTuning])
def test_a_prompt_belongs_to_one_base(tmp_path, kind):
    model = make_model()
    save(text_prompt(model, kind), tmp_path / "soft.pt", model)
    for other in (make_model(seed=1), make_model(window=9)):
        with pytest.raises(InputError, match="soft.pt was trained on the base") as refused:
            load(tmp_path / "soft.pt", other)
        assert model.fingerprint()[:16] in str(refused.value)
        assert other.fingerprint()[:16] in str(refused.value)


def test_damaged_files_are_refused(tmp_path):
    model, path = make_model(), tmp_path / "soft.pt"
    save(text_prompt(model), path, model)
    data = path.read_bytes()
    for at in range(0, len(data), 97):  # one flipped bit, anywhere
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        with pytest.raises(InputError, match="soft.pt is damaged"):
            load(path, model)
    for n in (0, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:n])
        with pytest.raises(InputError, match="soft.pt is damaged"):
            load(path, model)
    model.save(path)
    with pytest.raises(InputError, match="does not hold a soft prompt"):
        load(path, model)
    content = {"kind": "adapter", "base": model.fingerprint(), "facts": {}, "state": {}}
    model_file.write(path, content)
    with pytest.raises(InputError, match="soft.pt holds a soft prompt of a kind"):
        load(path, model)
    model_file.write(path, {**content, "kind": "prompt", "state": {"vectors": torch.zeros(2, 32)}})
    with pytest.raises(InputError, match="soft.pt is a soft prompt of another kind"):
        load(path, model)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("bomb-went-off",)


def test_nothing_in_a_file_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = model_file.packed({"kind": "prompt", "base": Bomb(), "facts": {}, "state": {}})
    Path("soft.pt").write_bytes(data + hashlib.sha256(data).digest())
    with pytest.raises(InputError, match="more than plain values"):
        load("soft.pt", make_model())
    torch.save(Bomb(), "plain.pt")
    with pytest.raises(InputError, match="damaged"):
        load("plain.pt", make_model())
    assert not os.path.exists("bomb-went-off")
