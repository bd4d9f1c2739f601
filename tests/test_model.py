"""model.py as identities: fused equals written out, cached equals uncached, blocks equal mask."""

import random

import pytest
import torch
import torch.nn.functional as F
from conftest import as_mha, ids, make_model

import model as model_file
from model import GPT, GPTConfig, Past, attention, attention_mask, blocks, linear, read, rotate
from model import visible

def loop_attention(q, k, v, q_pos, k_pos, pinned, window):
    """The definition: one query, one head, one key after another. A query with no key gets 0."""
    (B, H, T, D), G = q.shape, q.shape[1] // k.shape[1]
    out = torch.zeros_like(q)
    for b in range(B):
        for h in range(H):
            for t in range(T):
                seen = [
                    s
                    for s in range(k.shape[2])
                    if 0 <= k_pos[b, s] <= q_pos[b, t]
                    and (
                        window is None or k_pos[b, s] > q_pos[b, t] - window
                        or k_pos[b, s] < pinned[b])
                ]
                if seen:
                    weights = (k[b, h // G, seen] @ q[b, h, t] / D**0.5).softmax(0)
                    out[b, h, t] = weights @ v[b, h // G, seen]
    return out

@pytest.mark.parametrize("seed", range(60))
def test_attention_is_the_loop_over_positions(seed):
    gen = random.Random(seed)
    torch.manual_seed(seed)
    B, H, Hkv, D, T = gen.randint(1, 3), 4, gen.choice([1, 2, 4]), 8, gen.randint(1, 24)
    before, window = gen.randint(0, 12), gen.choice([None, 1, 2, 3, 5, 64])
    real = torch.rand(B, before + T) < gen.choice([0.6, 1.0])
    k_pos = (real.cumsum(1) - 1).masked_fill(~real, -1)
    q_pos = k_pos[:, before:]
    pinned = torch.tensor([gen.randint(0, int((k_pos[b, :before] >= 0).sum())) for b in range(B)])
    q = torch.randn(B, H, T, D, requires_grad=True)
    k, v = torch.randn(2, B, Hkv, before + T, D).unbind(0)
    config = GPTConfig(8, 99, 1, H, H * D, n_kv_head=Hkv, window=window)
    mask = attention_mask(q_pos, k_pos, pinned, config, q.dtype)
    # Kernels disagree about a query that sees nothing (0 or NaN), so there must be none.
    parts = [part[2] for part in mask] if isinstance(mask, list) else [mask]
    assert all(part is None or part.isfinite().any(-1).all() for part in parts)
    out = attention(q, k, v, mask)
    want = loop_attention(q, k, v, q_pos, k_pos, pinned, window)
    real = (q_pos >= 0)[:, None, :, None]
    assert torch.allclose(out * real, want * real, atol=1e-5)
    assert out.isfinite().all()
    (out * real).sum().backward()
    assert q.grad.isfinite().all()

def test_rotation_turns_pairs_half_a_head_apart():
    """As complex numbers x_i + i x_{i + D/2}, times e^{i angle}: Hugging Face's layout."""
    x, angles = torch.randn(2, 4, 5, 8), torch.randn(2, 1, 5, 4)
    turned = torch.complex(x[..., :4], x[..., 4:]) * torch.polar(torch.ones_like(angles), angles)
    want = torch.cat((turned.real, turned.imag), -1)
    assert torch.allclose(rotate(x, angles.cos(), angles.sin()), want, atol=1e-6)

@pytest.mark.parametrize("pinned", [0, 3, 40])
@pytest.mark.parametrize("side", ["none", "left", "right", "between"])
def test_window_in_blocks_is_the_window_as_a_mask(pinned, side, monkeypatch):
    model = make_model(window=7)
    idx = ids(3, 150)
    if side == "left":
        idx[0, :9] = -1
    if side == "right":
        idx[1, -30:] = -1
    if side == "between":
        idx[2, 20:60] = -1
    empty = [torch.zeros(1, 2, 0, 8)] * 2
    past = Past(empty, empty, torch.zeros(1, 0, dtype=torch.long), pinned)
    used = []
    monkeypatch.setattr(model_file, "blocks", lambda *a: used.append(1) or blocks(*a))
    fast, _ = model(idx, past)

    def one_block(q_pos, k_pos, pinned, window):  # all keys for all queries: the plain mask
        return [(torch.arange(q_pos.shape[1]), torch.arange(k_pos.shape[1]))]

    monkeypatch.setattr(model_file, "blocks", one_block)
    slow, _ = model(idx, past)
    assert used or pinned == 40
    assert torch.allclose(fast[idx >= 0], slow[idx >= 0], atol=1e-5)

def test_blocks_look_at_few_keys_and_miss_none():
    position, pinned = torch.arange(4096)[None], torch.tensor([4])
    parts = blocks(position, position, pinned, 32)
    assert len(parts) == 128 and max(len(keys) for _, keys in parts) == 4 + 32 + 32 - 1
    see = [visible(position[:, queries], keys[None], pinned, 32).sum() for queries, keys in parts]
    assert sum(see) == visible(position, position, pinned, 32).sum()

@pytest.mark.parametrize("n_layer", [1, 2, 3])
def test_receptive_field_of_the_window(n_layer):
    window, model = 4, make_model(n_layer=n_layer, window=4)
    embeds = torch.randn(1, 30, 32, requires_grad=True)
    logits, _ = model(embeds=embeds)
    logits[0, -1].sum().backward()
    reached = embeds.grad[0].abs().sum(1) > 0
    assert reached.tolist() == [29 - t <= n_layer * (window - 1) for t in range(30)]

def test_window_as_wide_as_the_text_is_full_attention():
    idx = ids(2, 12)
    full, wide = make_model(), make_model(window=12)
    assert torch.allclose(full(idx)[0], wide(idx)[0], atol=1e-5)

def test_gqa_is_mha_with_each_key_value_head_repeated():
    gqa = make_model()
    mha = as_mha(gqa)
    idx = ids(2, 15)
    assert torch.allclose(gqa(idx)[0], mha(idx)[0], atol=1e-5)
    past = Past(
        *([torch.randn(2, 2, 4, 8) for _ in range(2)] for _ in range(2)),
        torch.arange(4).expand(2, -1))
    wide = Past(
        *([x.repeat_interleave(2, 1) for x in s] for s in (past.keys, past.values)), past.positions)
    assert torch.allclose(gqa(idx, past)[0], mha(idx, wide)[0], atol=1e-5)

def test_positions_are_relative_and_padding_changes_nothing(model):
    idx = ids(1, 9)
    plain, _ = model(idx)
    for left, right in ((3, 0), (0, 3), (2, 5)):
        padded = F.pad(idx, (left, right), value=-1)
        assert torch.allclose(model(padded)[0][:, left : left + 9], plain, atol=1e-5)

def test_a_row_of_empty_slots_is_finite_and_has_no_gradient(model):
    idx = ids(2, 6)
    idx[1] = -1
    embeds = torch.randn(2, 6, 32, requires_grad=True)
    logits, _ = model(idx, embeds=embeds)
    assert logits.isfinite().all()
    F.cross_entropy(logits[0], ids(6)).backward()
    assert embeds.grad.isfinite().all() and embeds.grad[1].abs().max() == 0

def test_pieces_with_a_cache_are_the_whole(model):
    idx = ids(2, 40)
    whole, _ = model(idx)
    for cut in (1, 4, 17, 39):
        first, past = model(idx[:, :cut])
        second, past = model(idx[:, cut:], past)
        assert torch.allclose(torch.cat((first, second), 1), whole, atol=1e-5)
        assert past.length.tolist() == [40, 40]

def test_loss_is_the_cross_entropy_of_what_is_scored(model):
    idx, targets = ids(3, 8), ids(3, 8, seed=2)
    targets[:, ::2] = -1
    logits, _ = model(idx)
    want = F.cross_entropy(logits.reshape(-1, 50), targets.reshape(-1), ignore_index=-1)
    assert torch.allclose(model.loss(idx, targets), want, atol=1e-6)

def test_generation_is_greedy_decoding_without_a_cache(model):
    rows = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11]]
    want = []
    for row in rows:
        row, n = list(row), len(row)
        for _ in range(20):
            row.append(int(model(torch.tensor([row]))[0][0, -1].argmax()))
        want.append(row[n:])
    assert model.generate(rows, 20) == want
    stop = want[0][5]
    cut = [row[: row.index(stop)] if stop in row else row for row in want]
    assert model.generate(rows, 20, stop=stop) == cut
    assert model.generate(rows, 0) == [[], [], []]

def test_room_for_tokens_to_come_changes_nothing(model):
    idx, outside = ids(2, 150), model(ids(2, 5, seed=3))[1]
    first, past = model(idx[:, :9], outside)
    spare, parts = past.reserve(64), [first]
    for t in range(9, 150):  # 64 tokens go into the room, the others behind it
        logits, spare = model(idx[:, t : t + 1], spare)
        parts.append(logits)
    assert torch.allclose(torch.cat(parts, 1), model(idx, outside)[0], atol=1e-5)
    assert past.positions.shape[1] == 14 and spare.length.tolist() == [155, 155]
    rows = [[1, 2, 3], [4]]
    long = model.generate(rows, 140)  # beyond one and two rooms
    for row, new in zip(rows, long):
        text = row + new
        want = model(torch.tensor([text[:-1]]))[0][0, len(row) - 1 :].argmax(1)  # (140,)
        assert new == want.tolist()

@pytest.mark.parametrize("rows", [(1,), (16,), (17,), (2, 3), (0, 4)])
def test_a_product_in_slabs_is_the_product(rows):
    gen = torch.Generator().manual_seed(0)
    weight = torch.randn(1030, 514, generator=gen)  # big enough for slabs
    x = torch.randn(*rows, 514, generator=gen, requires_grad=True)
    ours, plain = linear(x, weight), F.linear(x, weight)
    assert ours.shape == plain.shape and torch.allclose(ours, plain, atol=1e-3)
    grads = [torch.autograd.grad(y.square().sum(), x)[0] for y in (ours, plain)]
    assert torch.allclose(*grads, rtol=1e-4, atol=0.1)

def test_sampling_follows_its_generator_and_top_k():
    model = make_model()
    draw = [
        model.generate([[1, 2]], 30, temperature=2.0, generator=torch.Generator().manual_seed(s))
        for s in (0, 0, 1)]
    assert draw[0] == draw[1] != draw[2]
    assert model.generate([[1, 2]], 30, temperature=2.0, top_k=1) == model.generate([[1, 2]], 30)

def test_save_load_and_fingerprint(tmp_path, model):
    model.save(tmp_path / "m.pt", note="made here")
    again = GPT.load(tmp_path / "m.pt")
    assert again.facts == {"note": "made here"} and again.config == model.config
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters()))
    assert again.fingerprint() == model.fingerprint() and len(model.fingerprint()) == 64
    half = make_model().bfloat16()
    assert half.fingerprint() == make_model().bfloat16().float().fingerprint()
    half.save(tmp_path / "half.pt")
    assert (tmp_path / "half.pt").stat().st_size < 0.7 * (tmp_path / "m.pt").stat().st_size
    with torch.no_grad():
        again.model.norm.weight[3] += 1e-4
    assert again.fingerprint() != model.fingerprint()

def test_files_that_are_no_model(tmp_path):
    path = tmp_path / "m.pt"
    make_model().save(path)
    data = path.read_bytes()
    for bad in (data[:-1], data[:100], b"", data[:500] + bytes([data[500] ^ 1]) + data[501:]):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match="damaged"):
            GPT.load(path)
    model_file.write(path, {"something": 1})
    with pytest.raises(ValueError, match="does not hold a base model"):
        read(path, "a base model", ("config",))

@pytest.mark.parametrize("change, message", [
    (dict(n_head=3), "n_embd=32 is not a multiple of n_head=3"), (dict(n_kv_head=3), "n_kv_head=3"),
    (dict(window=0), "window=0"), (dict(head_dim=7), "head_dim=7"), (dict(n_layer=0), "n_layer=0")])
def test_shapes_that_cannot_work(change, message):
    with pytest.raises(ValueError, match=message):
        make_model(**change)

def test_no_room_is_said_with_both_numbers():
    model = make_model(block_size=10)
    with pytest.raises(ValueError, match="11 positions.*block_size=10"):
        model(ids(1, 11))
    with pytest.raises(ValueError, match="8 of text.*block_size=10"):
        model.generate([[1] * 8], 3)
    with pytest.raises(ValueError, match="at least one id"):
        model.generate([[1], []], 3)
    model(F.pad(ids(1, 10), (5, 5), value=-1))  # empty slots take no position

def test_untied_head():
    model = make_model(tie_embeddings=False)
    assert "lm_head.weight" in model.state_dict()
    assert model(ids(1, 4))[0].shape == (1, 4, 50)
