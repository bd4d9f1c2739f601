"""model.py as identities: attention equals a loop, cached equals uncached, padded equals plain."""

import errno
import hashlib
import math
import os
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import as_mha, ids, make_model

import model as model_file
from model import (
    GPT,
    GPTConfig,
    InputError,
    Past,
    attention,
    attention_mask,
    choose_next,
    linear,
    read,
    require_writable,
    rotary_angles,
    rotate,
    visible,
    write_whole,
)

# ------------------------------------------------------------------ what a text sees


def seen_keys(q_pos, k_pos, pinned, window):
    """The definition: the places of the keys that one query sees, k_pos (S,)."""
    seen = []
    for s, k in enumerate(k_pos.tolist()):
        near = window is None or k > q_pos - window or k < pinned
        if 0 <= k <= q_pos and near:
            seen.append(s)
    return seen


def loop_attention(q, k, v, q_pos, k_pos, pinned, window):
    """The definition: one query after another. A query that sees no key reads 0."""
    B, H, T, D = q.shape
    G = H // k.shape[1]
    out = torch.zeros_like(q)
    for b in range(B):
        for t in range(T):
            seen = seen_keys(int(q_pos[b, t]), k_pos[b], int(pinned[b]), window)
            for h in range(H):
                if seen:
                    weights = (k[b, h // G, seen] @ q[b, h, t] / D**0.5).softmax(0)  # (seen,)
                    out[b, h, t] = weights @ v[b, h // G, seen]  # (D,)
    return out


def random_positions(gen, B, before, T):
    """Positions (B, before + T) of slots of which some are empty, and `pinned` (B,)."""
    real = torch.rand(B, before + T) < gen.choice([0.6, 1.0])
    positions = (real.cumsum(1) - 1).masked_fill(~real, -1)
    lengths = real[:, :before].sum(1)  # (B,)
    pinned = torch.tensor([gen.randint(0, int(length)) for length in lengths])
    return positions, pinned


@pytest.mark.parametrize("seed", range(40))
def test_attention_is_the_loop_over_positions(seed):
    gen = random.Random(seed)
    torch.manual_seed(seed)
    B, H, Hkv, D, T = gen.randint(1, 3), 4, gen.choice([1, 2, 4]), 8, gen.randint(1, 24)
    before = gen.randint(0, 12)
    window = gen.choice([None, 1, 2, 3, 5, 64])
    k_pos, pinned = random_positions(gen, B, before, T)
    q_pos = k_pos[:, before:]
    q = torch.randn(B, H, T, D, requires_grad=True)
    k = torch.randn(B, Hkv, before + T, D)
    v = torch.randn(B, Hkv, before + T, D)
    mask = attention_mask(q_pos, k_pos, pinned, window, q.dtype)
    # Kernels disagree about a query that sees nothing (0 or NaN), so there must be none.
    assert mask.isfinite().any(-1).all()
    out = attention(q, k, v, mask)
    want = loop_attention(q, k, v, q_pos, k_pos, pinned, window)
    real = (q_pos >= 0)[:, None, :, None]
    assert torch.allclose(out * real, want * real, atol=1e-5)
    assert out.isfinite().all()
    (out * real).sum().backward()
    assert q.grad.isfinite().all()


def test_the_rule_of_what_is_visible_by_hand():
    q_pos = torch.tensor([[6]])
    k_pos = torch.tensor([[0, 1, 2, 3, -1, 4, 5, 6, 7]])
    pinned = torch.tensor([2])
    yes, no = True, False
    all_keys = visible(q_pos, k_pos, pinned)
    assert all_keys.tolist() == [[[yes, yes, yes, yes, no, yes, yes, yes, no]]]
    near = visible(q_pos, k_pos, pinned, window=3)
    assert near.tolist() == [[[yes, yes, no, no, no, yes, yes, yes, no]]]


@pytest.fixture
def calls(monkeypatch):
    """The shapes of q, k, v and the mask in each call of torch's attention."""
    shapes = []
    plain = F.scaled_dot_product_attention

    def spy(q, k, v, attn_mask):
        shapes.append(tuple(tuple(x.shape) for x in (q, k, v, attn_mask)))
        return plain(q, k, v, attn_mask=attn_mask)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    return shapes


def test_query_heads_of_a_group_share_one_head_of_keys(calls):
    """No key is repeated, and the mask G times at most: not H times, not for each key head."""
    model = make_model()  # H = 4, Hkv = 2, D = 8
    _, past = model(ids(1, 3))
    model(ids(5, 7), past)
    G, T, S = 2, 7, 10
    assert calls[-1] == ((5, 2, G * T, 8), (5, 2, S, 8), (5, 2, S, 8), (5, 1, G * T, S))


def test_rotation_turns_pairs_half_a_head_apart():
    """As complex numbers x_i + i x_{i + D/2}, times e^{i angle}: Hugging Face's layout."""
    x = torch.randn(2, 4, 5, 8)
    angles = torch.randn(2, 1, 5, 4)
    turned = torch.complex(x[..., :4], x[..., 4:]) * torch.polar(torch.ones_like(angles), angles)
    want = torch.cat((turned.real, turned.imag), -1)
    assert torch.allclose(rotate(x, angles.cos(), angles.sin()), want, atol=1e-6)


def test_angles_are_position_times_a_speed_that_falls_with_the_pair():
    config = GPTConfig(8, 99, 1, 2, 16, rope_base=100.0)  # D = 8: four pairs
    angles = rotary_angles(torch.tensor([[0, 1, 50]]), config)
    speeds = torch.tensor([1.0, 100**-0.25, 100**-0.5, 100**-0.75])
    assert angles.shape == (1, 1, 3, 4)
    assert torch.allclose(angles[0, 0], torch.tensor([[0.0], [1.0], [50.0]]) * speeds)


@pytest.mark.parametrize("n_layer", [1, 2, 3])
def test_the_window_reaches_as_far_as_its_layers_carry(n_layer):
    window = 4
    model = make_model(n_layer=n_layer, window=window)
    embeds = torch.randn(1, 30, 32, requires_grad=True)
    logits, _ = model(embeds=embeds)
    logits[0, -1].sum().backward()
    reached = embeds.grad[0].abs().sum(1) > 0  # (T,)
    assert reached.tolist() == [29 - t <= n_layer * (window - 1) for t in range(30)]


def test_a_window_as_wide_as_the_text_is_full_attention():
    idx = ids(2, 12)
    full, wide = make_model(), make_model(window=12)
    narrow = make_model(window=11)
    assert torch.allclose(full(idx)[0], wide(idx)[0], atol=1e-5)
    assert not torch.allclose(full(idx)[0][:, -1], narrow(idx)[0][:, -1], atol=1e-3)


def random_past(rows, slots, heads=2):
    """A past of rows that share nothing, for `make_model()`."""
    keys = [torch.randn(rows, heads, slots, 8) for _ in range(2)]
    values = [torch.randn(rows, heads, slots, 8) for _ in range(2)]
    return Past(keys, values, torch.arange(slots).repeat(rows, 1))


# ------------------------------------------------------------------ a window in blocks

FUTURE = 2**20  # a position that no text reaches


def random_window_case(seed):
    """A model with a window, a past with holes and hidden slots, and texts with empty slots."""
    gen = random.Random(seed)
    torch.manual_seed(seed)
    B, before, T = gen.randint(1, 3), gen.randint(0, 9), gen.randint(1, 30)
    model = make_model(window=gen.randint(1, 6))
    past = random_past(B, before)
    past.positions, past.pinned = random_positions(gen, B, before, 0)
    if before > 0 and gen.random() < 0.5:
        past.positions[:, gen.randrange(before)] = FUTURE
    if gen.random() < 0.3:  # the rule does not ask in which order slots stand
        past.positions = past.positions[:, torch.randperm(before)]
    idx = ids(B, T, seed=seed)
    idx[torch.rand(B, T) < gen.choice([0.0, 0.3, 0.8])] = -1
    if gen.random() < 0.5:
        idx[:, T // 3 : T // 3 * 2] = -1  # blocks in which no row has a query
    return model, past, idx, gen.choice([0, T // 2, T])


def states_and_gradients(model, past, idx, first):
    """What the model gives at real slots, and the gradients to the text and to the past."""
    embeds = torch.randn(*idx.shape, 32, generator=seeded(0), requires_grad=True)
    leaves = [layer.clone().requires_grad_() for layer in past.keys + past.values]
    before = Past(leaves[:2], leaves[2:], past.positions, past.pinned)
    h, after = model.hidden(idx, before, embeds=embeds, first=first)
    assert h.isfinite().all()
    seen = [h[idx[:, first:] >= 0], *after.keys, *after.values]
    real = (after.positions >= 0)[:, None, :, None]
    total = seen[0].square().sum() + (after.values[-1] * real).square().sum()
    return seen + list(torch.autograd.grad(total, [embeds, *leaves]))


@pytest.mark.parametrize("seed", range(60))
def test_blocks_give_what_the_mask_gives(seed, monkeypatch):
    """With gradients, for empty slots anywhere, ragged pasts, hidden slots and pinned ones."""
    case = random_window_case(seed)
    monkeypatch.setattr(model_file, "BLOCK", 10**9)  # one block and all keys
    want = states_and_gradients(*case)
    monkeypatch.setattr(model_file, "BLOCK", seed % 5 + 1)
    got = states_and_gradients(*case)
    real = case[2] >= 0  # what stands in an empty slot is nobody's
    for n, (a, b) in enumerate(zip(got, want)):
        if 1 <= n <= 4:
            T = real.shape[1]
            a, b = a[:, :, -T:], b[:, :, -T:]
            a, b = a.transpose(1, 2)[real], b.transpose(1, 2)[real]
        assert torch.allclose(a, b, atol=1e-4, rtol=1e-4)


def test_long_texts_of_different_lengths_behind_ragged_prompts_under_a_window(monkeypatch):
    """As above, with the blocks as they are."""
    model = make_model(window=20, block_size=999)
    past = random_past(3, 12)
    past.positions[1, 5:] = -1
    past.pinned = torch.tensor([12, 3, 0])
    idx = ids(3, 400)
    idx[1, :150] = -1
    idx[2, 333:] = -1
    blocks, _ = model(idx, past)
    monkeypatch.setattr(model_file, "BLOCK", 10**9)
    mask, _ = model(idx, past)
    assert torch.allclose(blocks[idx >= 0], mask[idx >= 0], atol=1e-4)


def test_a_block_reads_what_its_queries_see_and_no_other_key(calls):
    """W = 20, the first 6 of 10 slots pinned, one of them hidden: 5 pinned, and the near ones."""
    model = make_model(window=20, block_size=999, n_layer=1)
    past = random_past(2, 10)
    past.keys, past.values = past.keys[:1], past.values[:1]
    past.pinned = torch.tensor([6, 6])
    past.positions[:, 2] = FUTURE
    model(ids(2, 300), past)
    queries = [q[2] // 2 for q, *_ in calls]
    keys = [k[2] for _, k, *_ in calls]
    assert queries == [128, 128, 44]
    assert keys == [9 + 128, 5 + 19 + 128, 5 + 19 + 44]
    calls.clear()
    past = random_past(2, 300)
    past.keys, past.values = past.keys[:1], past.values[:1]
    past.pinned = torch.tensor([0, 6])
    model(ids(2, 1), past)
    assert [k[2] for _, k, *_ in calls] == [6 + 20]


def test_without_a_window_or_for_short_texts_all_keys_are_one_block(calls):
    for model in (make_model(block_size=999), make_model(window=172)):
        T = 300 if model.config.window else 500
        model(F.pad(ids(1, 200), (0, T - 200), value=-1))
        assert {(k[2], mask[3]) for _, k, _, mask in calls} == {(T, T)}
        assert len(calls) == 2  # layers
        calls.clear()
    make_model(window=171, block_size=999)(ids(1, 300))
    assert len(calls) == 2 * 3  # layers and blocks: 300 slots are one too many


def test_a_slot_in_the_future_is_hidden_and_the_text_stays_where_it_was():
    """The other slots of the past, with the text's positions given by one more slot, unseen."""
    model = make_model(window=8)
    text = ids(2, 200)
    past = random_past(2, 5)
    past.pinned = torch.tensor([5, 5])
    hidden = Past(past.keys, past.values, past.positions.clone(), past.pinned)
    hidden.positions[:, 2] = FUTURE
    other = [layer.clone() for layer in past.keys]
    for layer in other:
        layer[:, :, 2] = 9.0  # nobody sees this key
    same = Past(other, past.values, hidden.positions, past.pinned)
    logits, longer = model(text, hidden)
    assert longer.positions[0, 5:].tolist() == list(range(5, 205))
    assert torch.equal(logits, model(text, same)[0])
    assert not torch.allclose(logits, model(text, past)[0], atol=1e-3)


def test_blocks_that_are_empty_in_every_row_are_finite(model):
    idx = F.pad(ids(1, 9), (400, 300), value=-1)
    logits, _ = model(idx)
    assert logits.isfinite().all()
    assert torch.allclose(logits[:, 400:409], model(ids(1, 9))[0], atol=1e-5)
    assert model(torch.full((2, 400), -1))[0].isfinite().all()


# ------------------------------------------------------------------ grouped queries


def test_gqa_is_mha_with_each_key_value_head_repeated():
    gqa = make_model()
    mha = as_mha(gqa)
    idx = ids(2, 15)
    assert torch.allclose(gqa(idx)[0], mha(idx)[0], atol=1e-5)
    past = random_past(2, 4)
    keys = [layer.repeat_interleave(2, 1) for layer in past.keys]
    values = [layer.repeat_interleave(2, 1) for layer in past.values]
    wide = Past(keys, values, past.positions)
    assert torch.allclose(gqa(idx, past)[0], mha(idx, wide)[0], atol=1e-5)


# ------------------------------------------------------------------ the whole model


def normed(x, weight, eps):
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def turned(x, position, base):
    """One head's query or key (D,) at its position, pair after pair."""
    D = len(x)
    out = torch.zeros(D)
    for i in range(D // 2):
        angle = torch.tensor(position * base ** (-2 * i / D))
        a, b = x[i], x[i + D // 2]
        out[i] = a * angle.cos() - b * angle.sin()
        out[i + D // 2] = b * angle.cos() + a * angle.sin()
    return out


def block_by_hand(block, x, config):
    """One block on one text (T, C), one position and one head at a time."""
    H, D, eps = config.n_head, config.head_dim, config.norm_eps
    G = H // config.n_kv_head
    a, m = block.self_attn, block.mlp
    h = normed(x, block.input_layernorm.weight, eps)  # (T, C)
    q, k, v = (h @ w.weight.T for w in (a.q_proj, a.k_proj, a.v_proj))
    heads = []
    for j in range(H):
        own, shared = slice(j * D, j * D + D), slice(j // G * D, j // G * D + D)
        queries = [turned(row[own], t, config.rope_base) for t, row in enumerate(q)]
        keys = [turned(row[shared], t, config.rope_base) for t, row in enumerate(k)]
        read = []
        for t, query in enumerate(queries):
            weights = (torch.stack(keys[: t + 1]) @ query / D**0.5).softmax(0)  # (t + 1,)
            read.append(weights @ v[: t + 1, shared])  # (D,)
        heads.append(torch.stack(read))  # (T, D)
    x = x + torch.cat(heads, 1) @ a.o_proj.weight.T  # (T, C)
    h = normed(x, block.post_attention_layernorm.weight, eps)  # (T, C)
    gate = h @ m.gate_proj.weight.T  # (T, n_hidden)
    return x + (gate * gate.sigmoid() * (h @ m.up_proj.weight.T)) @ m.down_proj.weight.T  # (T, C)


def test_the_model_is_the_llama_model_as_written_out():
    model = make_model(rope_base=50.0, norm_eps=0.3)
    for name, p in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(p, 0.5, 2)
    idx = ids(1, 6)
    x = model.model.embed_tokens.weight[idx[0]]  # (T, C)
    for block in model.model.layers:
        x = block_by_hand(block, x, model.config)
    x = normed(x, model.model.norm.weight, model.config.norm_eps)
    want = x @ model.model.embed_tokens.weight.T  # (T, V)
    assert torch.allclose(model(idx)[0][0], want, atol=1e-4)


def test_a_new_model_starts_small_and_what_is_added_up_starts_smaller():
    model = GPT(GPTConfig(50, 99, 8, 4, 64))
    for name, p in model.named_parameters():
        added_up = name.endswith(("o_proj.weight", "down_proj.weight"))
        if p.dim() == 2:
            assert p.std().item() == pytest.approx(0.02 / 4 if added_up else 0.02, rel=0.1)
        else:
            assert torch.equal(p, torch.ones_like(p))


# ------------------------------------------------------------------ empty slots and the past


def test_positions_are_relative_and_padding_changes_nothing(model):
    idx = ids(1, 9)
    plain, _ = model(idx)
    for left, right in ((3, 0), (0, 3), (2, 5)):
        padded = F.pad(idx, (left, right), value=-1)
        assert torch.allclose(model(padded)[0][:, left : left + 9], plain, atol=1e-5)


def test_empty_slots_between_the_words_change_nothing(model):
    idx = ids(1, 9)
    plain, _ = model(idx)
    spread = torch.full((1, 18), -1)
    spread[:, ::2] = idx
    assert torch.allclose(model(spread)[0][:, ::2], plain, atol=1e-5)


def test_a_row_of_empty_slots_is_finite_and_has_no_gradient(model):
    idx = ids(2, 6)
    idx[1] = -1
    embeds = torch.randn(2, 6, 32, requires_grad=True)
    logits, _ = model(idx, embeds=embeds)
    assert logits.isfinite().all()
    F.cross_entropy(logits[0], ids(6)).backward()
    assert embeds.grad.isfinite().all()
    assert embeds.grad[1].abs().max() == 0


def test_embeddings_in_place_of_ids_are_the_ids(model):
    idx = ids(2, 6)
    embeds = model.model.embed_tokens(idx)
    assert torch.equal(model(embeds=embeds)[0], model(idx)[0])


def test_pieces_with_a_cache_are_the_whole(model):
    idx = ids(2, 40)
    whole, _ = model(idx)
    for cut in (1, 4, 17, 39):
        first, past = model(idx[:, :cut])
        second, past = model(idx[:, cut:], past)
        assert torch.allclose(torch.cat((first, second), 1), whole, atol=1e-5)
        assert past.length.tolist() == [40, 40]


def test_two_continuations_of_one_past_do_not_write_over_one_another(model):
    """Token by token and by turns: each goes on as if the other were not there."""
    start, first, second = ids(1, 5), ids(1, 8, seed=2), ids(1, 8, seed=3)
    _, past = model(start)
    kept = [layer.clone() for layer in past.keys + past.values]
    past_1, past_2 = past, past
    logits_1, logits_2 = [], []
    for t in range(8):
        logits, past_1 = model(first[:, t : t + 1], past_1)
        logits_1.append(logits)
        logits, past_2 = model(second[:, t : t + 1], past_2)
        logits_2.append(logits)
    for text, parts in ((first, logits_1), (second, logits_2)):
        want, _ = model(torch.cat((start, text), 1))
        assert torch.allclose(torch.cat(parts, 1), want[:, 5:], atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(kept, past.keys + past.values))


def test_a_past_of_one_row_stands_before_every_text(model):
    start, texts = ids(1, 5), ids(2, 6, seed=2)
    _, past = model(start)
    for _ in range(2):  # the first call does not use it up
        logits, longer = model(texts, past)
        want, _ = model(torch.cat((start.expand(2, -1), texts), 1))
        assert torch.allclose(logits, want[:, 5:], atol=1e-5)
        assert longer.length.tolist() == [11, 11]
    rows = [row.tolist() for row in texts]
    together = model.generate(rows, 9, past)
    assert together == [model.generate([row], 9, past)[0] for row in rows]


def test_a_past_of_other_rows_than_the_text_is_refused():
    with pytest.raises(InputError, match="a past of 3 rows before 2 rows"):
        make_model()(ids(2, 4), random_past(3, 5))


def test_named_rows_of_a_past_are_these_rows():
    past = random_past(3, 4)
    past.pinned = torch.tensor([0, 1, 2])
    past.positions = torch.tensor([[0, 1, 2, 3], [0, -1, 1, -1], [0, 1, -1, -1]])
    assert past.length.tolist() == [4, 2, 2]
    some = past.rows(torch.tensor([2, 1, 2]))
    assert some.pinned.tolist() == [2, 1, 2]
    assert some.positions.tolist() == [[0, 1, -1], [0, -1, 1], [0, 1, -1]]
    for layer in range(2):
        assert torch.equal(some.keys[layer], past.keys[layer][[2, 1, 2], :, :3])
        assert torch.equal(some.values[layer], past.values[layer][[2, 1, 2], :, :3])


def test_a_past_without_slots_is_no_past(model):
    idx = ids(2, 6)
    assert torch.equal(model(idx, model.empty_past(2))[0], model(idx)[0])
    assert model.empty_past(2).length.tolist() == [0, 0]


# ------------------------------------------------------------------ loss and logits


def test_states_from_a_slot_on_are_the_end_of_all_states(model):
    idx = ids(2, 9)
    all_states, past = model.hidden(idx)
    last_states, last_past = model.hidden(idx, first=6)
    assert torch.allclose(last_states, all_states[:, 6:], atol=1e-5)
    for a, b in zip(past.keys + past.values, last_past.keys + last_past.values):
        assert torch.equal(a, b)


def test_loss_is_the_cross_entropy_of_what_is_scored(model):
    idx, targets = ids(3, 8), ids(3, 8, seed=2)
    targets[:, :2] = -1
    targets[0, ::2] = -1
    logits, _ = model(idx)
    want = F.cross_entropy(logits.reshape(-1, 50), targets.reshape(-1), ignore_index=-1)
    assert torch.allclose(model.loss(idx, targets), want, atol=1e-6)
    assert torch.allclose(model.scored(idx, targets), logits[targets >= 0], atol=1e-5)


def test_an_untied_head_has_its_own_weight():
    model = make_model(tie_embeddings=False)
    h, _ = model.hidden(ids(1, 4))
    assert torch.allclose(model(ids(1, 4))[0], h @ model.lm_head.weight.T, atol=1e-5)
    tied = make_model()
    assert "lm_head.weight" not in tied.state_dict()
    h, _ = tied.hidden(ids(1, 4))
    assert torch.allclose(tied(ids(1, 4))[0], h @ tied.model.embed_tokens.weight.T, atol=1e-5)


@pytest.mark.parametrize("rows", [(1,), (16,), (17,), (2, 3), (0, 4)])
def test_a_product_in_slabs_is_the_product(rows):
    weight = torch.randn(1030, 514)  # big enough for slabs
    x = torch.randn(*rows, 514, requires_grad=True)
    ours, plain = linear(x, weight), F.linear(x, weight)
    assert ours.shape == plain.shape
    assert torch.allclose(ours, plain, atol=1e-3)
    [our_grad] = torch.autograd.grad(ours.square().sum(), x)
    [plain_grad] = torch.autograd.grad(plain.square().sum(), x)
    assert torch.allclose(our_grad, plain_grad, rtol=1e-4, atol=0.1)


# ------------------------------------------------------------------ generation

ROWS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11]]


def greedy(model, row, n):
    """The definition: the likeliest id, again and again, without a cache."""
    text = list(row)
    for _ in range(n):
        logits, _ = model(torch.tensor([text]))
        text.append(int(logits[0, -1].argmax()))
    return text[len(row) :]


def test_generation_is_greedy_decoding_without_a_cache(model):
    assert model.generate(ROWS, 20) == [greedy(model, row, 20) for row in ROWS]
    assert model.generate(ROWS, 0) == [[], [], []]


def before_the_first(row, stops):
    """What of a row stands before the first of the stops."""
    kept = []
    for i in row:
        if i in stops:
            break
        kept.append(i)
    return kept


def test_a_stop_ends_its_row_and_is_not_part_of_it(model):
    whole = model.generate(ROWS, 20)
    one = whole[0][5]
    two = [whole[1][7], whole[2][3]]
    assert model.generate(ROWS, 20, stop=one) == [before_the_first(row, [one]) for row in whole]
    assert model.generate(ROWS, 20, stop=two) == [before_the_first(row, two) for row in whole]
    assert model.generate(ROWS, 20, stop=[]) == whole
    at_once = [row[0] for row in whole]
    assert model.generate(ROWS, 20, stop=at_once) == [[], [], []]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_sampling_follows_its_generator():
    model = make_model()
    drawn = []
    for seed in (0, 0, 1):
        drawn.append(model.generate([[1, 2]], 30, temperature=2.0, generator=seeded(seed)))
    assert drawn[0] == drawn[1]
    assert drawn[1] != drawn[2]


def test_draws_have_the_chances_of_the_softmax():
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    n = 40_000
    for temperature, top_k in ((1.0, None), (2.0, None), (0.5, 0), (1.0, 2), (1.0, 9)):
        drawn = choose_next(logits.expand(n, -1), temperature, top_k, seeded(0))  # (n,)
        chances = (logits[0] / temperature).softmax(0)  # (V,)
        if top_k:
            chances[: max(0, 4 - top_k)] = 0
            chances = chances / chances.sum()
        assert torch.allclose(drawn.bincount(minlength=4) / n, chances, atol=0.01)


@pytest.mark.parametrize("temperature, top_k", [(0.0, None), (1e-45, None), (5e-324, 0), (9.0, 1)])
def test_no_temperature_and_one_candidate_are_greedy(temperature, top_k):
    logits = torch.randn(200, 50)
    chosen = choose_next(logits, temperature, top_k, seeded(0))
    assert chosen.tolist() == logits.argmax(1).tolist()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_nothing_is_chosen_from_logits_that_are_not_numbers(temperature, bad):
    logits = torch.zeros(3, 5)
    logits[1, 4] = bad
    with pytest.raises(InputError, match="^row 1: the model's logits are not numbers"):
        choose_next(logits, temperature, None, None)
    model = make_model()
    with torch.no_grad():
        model.model.norm.weight[0] = torch.nan
    with pytest.raises(InputError, match="not numbers"):
        model.generate([[1, 2]], 3)


@pytest.mark.parametrize(
    "temperature, top_k",
    [(-1.0, None), (float("nan"), None), (float("inf"), None), (1.0, -1), (0.0, -1)],
)
def test_settings_out_of_range_are_refused(temperature, top_k):
    with pytest.raises(InputError, match="0 or more"):
        choose_next(torch.zeros(1, 5), temperature, top_k, None)


# ------------------------------------------------------------------ what does not fit


def test_no_room_is_said_with_both_numbers():
    model = make_model(block_size=10)
    with pytest.raises(InputError, match="11 positions.*block_size=10"):
        model(ids(1, 11))
    _, past = model(ids(1, 6))
    with pytest.raises(InputError, match="12 positions.*block_size=10"):
        model(ids(2, 6), past)
    with pytest.raises(InputError, match="0 virtual tokens.*8 of text.*4 new.*block_size=10"):
        model.generate([[1] * 8], 4)
    with pytest.raises(InputError, match="6 virtual tokens.*2 of text.*4 new.*block_size=10"):
        model.generate([[1], [1] * 2], 4, past)
    model(F.pad(ids(1, 10), (5, 5), value=-1))  # empty slots take no position


def test_generation_fills_the_last_position():
    """The last new id is not read again: 6 + 2 + 3 - 1 = 10 positions."""
    model, large = make_model(block_size=10), make_model(block_size=99)
    _, past = model(ids(1, 6))
    assert model.generate([[1, 2]], 3, past) == large.generate([[1, 2]], 3, past)
    assert model.generate([[1] * 10], 1) == large.generate([[1] * 10], 1)


def test_a_hidden_slot_takes_one_position():
    model = make_model(block_size=10)
    past = random_past(1, 6)
    past.positions[0, 3] = FUTURE
    model(F.pad(ids(1, 4), (3, 3), value=-1), past)
    with pytest.raises(InputError, match="11 positions.*block_size=10"):
        model(ids(1, 5), past)


def test_a_loss_of_nothing_is_refused():
    model = make_model()
    for targets in (torch.full((2, 4), -1), ids(2, 0)):
        with pytest.raises(InputError, match="no target is 0 or more"):
            model.loss(ids(*targets.shape), targets)
        with pytest.raises(InputError, match="no target is 0 or more"):
            model.scored(ids(*targets.shape), targets)


@pytest.mark.parametrize("rows", [[], [[1], []]])
def test_generation_needs_an_id_in_every_row(rows):
    with pytest.raises(InputError, match="at least one id"):
        make_model().generate(rows, 3)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(n_head=3), "n_embd=32 is not a multiple of n_head=3"),
        (dict(n_kv_head=3), "n_head=4 is not a multiple of n_kv_head=3"),
        (dict(head_dim=7), "head_dim=7: rotary positions"),
        (dict(window=0), "window=0: give a whole number above 0"),
        (dict(window=2.5), "window=2.5: give a whole number above 0"),
        (dict(n_layer=-1), "n_layer=-1: give a whole number above 0"),
        (dict(block_size="many"), "block_size='many': give a whole number above 0"),
        (dict(norm_eps=0), "norm_eps=0: give a number above 0"),
        (dict(rope_base=float("inf")), "rope_base=inf: give a number above 0"),
        (dict(rope_base=float("nan")), "rope_base=nan: give a number above 0"),
    ],
)
def test_shapes_that_cannot_work(change, message):
    with pytest.raises(InputError, match=message):
        make_model(**change)


def test_what_a_shape_leaves_out_follows_from_the_rest():
    config = GPTConfig(50, 99, 1, 4, 40)
    assert (config.n_kv_head, config.head_dim, config.n_hidden) == (4, 10, 128)
    assert GPTConfig(50, 99, 1, 3, 40, head_dim=8).n_kv_head == 3


# ------------------------------------------------------------------ fingerprint and files


def test_saved_and_loaded_is_the_same_model(tmp_path, model):
    model.save(tmp_path / "m.pt", note="made here")
    again = GPT.load(tmp_path / "m.pt")
    assert again.facts == {"note": "made here"}
    assert again.config == model.config
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters()))
    assert again.fingerprint() == model.fingerprint()
    again.save(tmp_path / "again.pt", more=1)
    assert GPT.load(tmp_path / "again.pt").facts == {"note": "made here", "more": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.pt", "m.pt"]


def test_a_fingerprint_is_that_of_every_number():
    model = make_model()
    assert len(model.fingerprint()) == 64
    assert model.fingerprint() == make_model().fingerprint()
    for name, p in model.state_dict().items():
        other = make_model()
        with torch.no_grad():
            other.state_dict()[name].view(-1)[-1] += 1e-4
        assert other.fingerprint() != model.fingerprint(), (name, p.shape)


@pytest.mark.parametrize(
    "change", [dict(window=9), dict(block_size=99), dict(rope_base=9e9), dict(norm_eps=0.1)]
)
def test_a_fingerprint_is_that_of_the_configuration_too(change):
    assert make_model(**change).fingerprint() != make_model().fingerprint()


def test_a_fingerprint_is_of_values_and_not_of_their_spelling(tmp_path):
    whole, broken = make_model(rope_base=5000), make_model(rope_base=5000.0)
    assert whole.fingerprint() == broken.fingerprint()
    assert make_model(window=9.0).fingerprint() == make_model(window=9).fingerprint()
    half = make_model().bfloat16()
    assert half.fingerprint() == make_model().bfloat16().float().fingerprint()
    half.save(tmp_path / "half.pt")
    make_model().save(tmp_path / "whole.pt")
    assert GPT.load(tmp_path / "half.pt").fingerprint() == half.fingerprint()
    sizes = [(tmp_path / f"{name}.pt").stat().st_size for name in ("half", "whole")]
    assert sizes[0] < 0.7 * sizes[1]


def test_files_that_are_no_model(tmp_path):
    path = tmp_path / "m.pt"
    make_model().save(path)
    data = path.read_bytes()
    flipped = data[:500] + bytes([data[500] ^ 1]) + data[501:]
    for bad in (data[:-1], data[:100], b"", flipped):
        path.write_bytes(bad)
        with pytest.raises(InputError, match="m.pt is damaged"):
            GPT.load(path)
    model_file.write(path, {"something": 1})
    with pytest.raises(InputError, match="does not hold a base model"):
        GPT.load(path)
    config = dict(vocab_size=50, block_size=9, n_layer=1, n_head=2, n_embd=8)
    for changed in (config, {**config, "of a later version": 1}):
        model_file.write(path, {"config": changed, "facts": {}, "state": {}})
        with pytest.raises(InputError, match="m.pt is a base of another kind"):
            GPT.load(path)
    data = model_file.packed([1, 2])
    path.write_bytes(data + hashlib.sha256(data).digest())
    with pytest.raises(InputError, match="does not hold numbers"):
        read(path, "numbers", ("config",))


def test_all_who_write_to_one_name_at_once_succeed(tmp_path, monkeypatch):
    """Threads have one process id, and so have the first processes of all containers."""
    monkeypatch.setattr(model_file.os, "getpid", lambda: 1)
    path, contents = tmp_path / "m.pt", [bytes([i]) * 5000 for i in range(60)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda data: write_whole(path, data), contents))
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_leads_to_the_file_that_is_written(tmp_path):
    """A link stays one, also where what it names is not there yet, or is a folder on the way."""
    elsewhere = tmp_path / "elsewhere"
    for link, target in (("old", elsewhere / "old.pt"), ("new", elsewhere / "deep" / "new.pt")):
        (tmp_path / link).symlink_to(target)
    (tmp_path / "folder").symlink_to(elsewhere, target_is_directory=True)
    elsewhere.mkdir()
    (elsewhere / "old.pt").write_bytes(b"before")
    for name in ("old", "new", "folder/third.pt", "not/yet/there.pt"):
        require_writable(tmp_path / name)
        write_whole(tmp_path / name, name.encode())
        assert (tmp_path / name).read_bytes() == name.encode()
    assert (tmp_path / "old").is_symlink() and (tmp_path / "new").is_symlink()
    assert (elsewhere / "old.pt").read_bytes() == b"old"
    assert {path.name for path in elsewhere.rglob("*")} == {"old.pt", "deep", "new.pt", "third.pt"}


@pytest.mark.skipif(os.name != "posix", reason="its pipes and devices")
def test_a_place_that_cannot_be_written_is_found_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    before = sorted(tmp_path.rglob("*"))
    refused = {
        tmp_path / "folder": (InputError, "is a folder: name a file"),
        tmp_path / "pipe": (InputError, "is a device or a pipe"),
        Path(os.devnull): (InputError, "is a device or a pipe"),
        tmp_path / "file" / "m.pt": (OSError, "file.m.pt"),
        tmp_path / ("x" * 300): (OSError, "xxxx"),
        tmp_path / "round" / "m.pt": (OSError, "round"),
    }
    for path, (kind, message) in refused.items():
        for work in (require_writable, lambda path: write_whole(path, b"new")):
            with pytest.raises(kind, match=message):
                work(path)
    require_writable(tmp_path / "new" / "m.pt")
    monkeypatch.setattr(model_file.os, "access", lambda *given: False)
    with pytest.raises(PermissionError, match="protected.*file"):
        require_writable(tmp_path / "file")
    assert sorted(tmp_path.rglob("*")) == before


def test_what_cannot_be_written_names_the_file(tmp_path, monkeypatch):
    """As a disk that is full, which has no name in the error of the system."""
    path = tmp_path / "m.pt"
    write_whole(path, b"old")

    def full(self, data):
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left on device: .*m.pt'") as stop:
        write_whole(path, b"new")
    assert stop.value.errno == errno.ENOSPC and ".part" not in str(stop.value)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@dataclass
class Settings:
    rate: float = 0.1


def test_what_would_not_be_read_is_not_written(tmp_path):
    path = tmp_path / "m.pt"
    strange = {
        "accuracy": np.mean([0.5, 1.0]),
        "steps": np.int64(3),
        "data": Path("tickets.tsv"),
        "settings": Settings(),
        "rule": lambda text: text,
        "inside": {"a list": [1, {"of": np.float32(2)}]},
    }
    make_model().save(path, task="before")
    for name, value in strange.items():
        with pytest.raises(InputError, match=f"m.pt: {name} = .* is no plain value") as stop:
            make_model().save(path, seed=1, **{name: value})
        assert "\n" not in str(stop.value)
        assert GPT.load(path).facts == {"task": "before"}
    plain = {"yes": True, "none": None, "list": [1, (2.5, "x")], "inside": {"a": {"b": math.inf}}}
    make_model().save(path, **plain)
    assert GPT.load(path).facts == plain


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "m.pt"
    model_file.write(path, {"old": 1})

    def killed(*paths):
        raise KeyboardInterrupt

    monkeypatch.setattr(model_file.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        model_file.write(path, {"new": 2})
    assert read(path, "numbers", ()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]
