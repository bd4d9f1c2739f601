"""What all tests share: where the code is, a small model, ids, and the same random numbers."""

import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
TUTORIALS = ROOT / "tutorials"
EXPERIMENTS, CLASSROOM = TUTORIALS / "experiments", TUTORIALS / "classroom"
sys.path[:0] = [str(folder) for folder in (ROOT, TUTORIALS, EXPERIMENTS, CLASSROOM)]
torch.set_num_threads(min(2, torch.get_num_threads()))  # OMP_NUM_THREADS=1 is heard

from model import GPT, GPTConfig  # noqa: E402


@pytest.fixture(autouse=True)
def seeded():
    """Every test draws the same random numbers, alone or among others."""
    torch.manual_seed(0)


def make_model(seed=0, **shape):
    """A small model with weights so large that every mistake shows in the logits."""
    defaults = dict(vocab_size=50, block_size=256, n_layer=2, n_head=4, n_embd=32, n_kv_head=2)
    torch.manual_seed(seed)
    model = GPT(GPTConfig(**{**defaults, **shape}))
    for p in model.parameters():
        if p.dim() == 2:
            torch.nn.init.normal_(p, std=0.2)
    return model.requires_grad_(False)


@pytest.fixture(params=[None, 5], ids=["full attention", "window 5"])
def model(request):
    return make_model(window=request.param)


def ids(*shape, seed=1, vocab=50):
    """Random ids of a shape."""
    return torch.randint(vocab, shape, generator=torch.Generator().manual_seed(seed))


def as_mha(gqa):
    """The same model with each of its 2 key/value heads (D = 8) written out for its 2 queries."""
    mha = make_model(n_kv_head=4)
    state = gqa.state_dict()
    for name, p in state.items():
        if "k_proj" in name or "v_proj" in name:
            heads = p.view(2, 8, 32)  # (Hkv, D, C)
            state[name] = heads.repeat_interleave(2, 0).reshape(32, 32)  # (H D, C)
    mha.load_state_dict(state)
    return mha


from small_world import tok  # noqa: E402, F401  a fixture for every test file
