"""What the classes measured once: the tables, and the functions that make and read them."""

import importlib
import math
import sys

import pytest
import torch
from conftest import ROOT
from small_world import TOKENS, sentences, tiny

CLASSROOM = ROOT / "tutorials" / "classroom"
sys.path.insert(0, str(CLASSROOM))

import shared  # noqa: E402

from model import visible  # noqa: E402
from train import Lab, Sentence, Tokenizer, arm_of_tokens, measure, new_arm  # noqa: E402

TABLES = sorted(path.stem for path in (CLASSROOM / "measured").glob("*.csv"))


@pytest.fixture
def lab():
    tok = Tokenizer.from_tokens(TOKENS)
    data = {"train": sentences(20), "valid": sentences(5, 1), "test": sentences(5, 2)}
    return Lab(tiny(tok).requires_grad_(False), tok, data)


# ------------------------------------------------------------------ the tables


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_a_script_that_makes_it_again(name):
    script = importlib.import_module(name)
    assert f"python tutorials/classroom/{name}.py" in script.__doc__
    rows = shared.measured(name)
    shares = [row[column] for row in rows for column in ("accuracy", "share") if column in row]
    assert all(0 <= share <= 1 or math.isnan(share) for share in shares)


@pytest.mark.parametrize("name", TABLES)
def test_a_claim_has_five_seeds(name):
    rows = shared.measured(name)
    assert len({row["seed"] for row in rows}) >= 5


# ------------------------------------------------------------------ how rows are read


def test_steps_to_the_threshold_by_hand():
    curve = [(0, 3.0), (2, 0.6), (4, 0.5), (6, 0.7), (8, 0.1)]
    assert shared.steps_to_threshold(curve) == 4  # 0.5 itself counts
    assert shared.steps_to_threshold(curve, 0.4) == 8
    assert shared.steps_to_threshold(curve[::-1], 0.65) == 2
    assert shared.steps_to_threshold(curve, 0.05) == math.inf


def test_steps_needed_are_those_of_each_seed_on_the_validation_sentences():
    rows = []
    for seed, losses in enumerate(([3.0, 0.4, 0.6], [3.0, 2.0, 0.5], [3.0, 2.0, 1.0])):
        arm = {"task": "library", "start": "vocab", "rate": 1, "seed": seed}
        for i, loss in enumerate(losses):
            rows.append({**arm, "step": 2 * i, "split": "valid", "loss": loss})
        rows.append({**arm, "step": 0, "split": "test", "loss": 0.0})
    rows += [{**row, "task": "count"} for row in rows[:4]]
    assert shared.steps_needed(rows, "library") == {("vocab", 1): [2, 4, math.inf]}


def test_times_sooner_are_ratios_of_medians():
    """Never learned has no ratio, and learned at once counts as one step."""
    needed = {("related", 1): [4, 4, 30], ("related", 4): [2, 2, 2], ("related", 8): [0, 0, 6]}
    needed |= {("normal", 1): [20, 18, 22], ("normal", 4): [math.inf, math.inf, 2]}
    needed |= {("normal", 8): [8, 8, 8]}
    assert shared.times_sooner(needed, "normal", "related") == ({1: 5, 8: 8}, 8)
    assert shared.times_sooner(needed, "related", "normal") == ({1: 1 / 5, 8: 1 / 8}, 1 / 8)


def test_the_error_of_a_mean_is_of_the_seeds_and_of_the_sentences():
    p, error = shared.mean_error([0.6, 0.8], 100)
    of_seeds = 0.02 / 2  # the variance of 0.6 and 0.8 is 0.02
    of_sentences = 0.7 * 0.3 / 100
    assert p == pytest.approx(0.7)
    assert error == pytest.approx((of_seeds + of_sentences) ** 0.5)
    assert shared.mean_error([0.7], 100) == pytest.approx((0.7, of_sentences**0.5))


def test_a_hard_prompt_is_scored_as_its_words_as_vectors(lab):
    lab.model.config.window = None  # a prompt is pinned, words are not
    words = "Return every file."
    arm = arm_of_tokens(lab, "library", lab.tok.encode(words))
    [row] = measure(lab, [arm], 0, "test", 5)
    loss, accuracy = shared.score_hard_prompt(lab, "library", words, "test", 5)
    assert row["loss"] == pytest.approx(loss, abs=1e-3) and row["accuracy"] == accuracy


# ------------------------------------------------------------------ 2: what a vector holds


def test_hiding_a_virtual_token_is_attention_without_its_key(lab, monkeypatch):
    """At the same positions. By hand: the rule of what is visible, with one column struck out."""
    text = torch.arange(10, 16).expand(2, -1)  # (B, T)
    soft = new_arm(lab, "library", "prompt", "normal", 5, 1.0, 0).soft.requires_grad_(False)
    past = soft.past(lab.model)
    for hidden in range(5):
        logits, _ = lab.model(text, shared.hide(past, hidden))

        def struck_out(q_pos, k_pos, pinned, window=None, column=hidden):
            seen = visible(q_pos, k_pos, pinned, window)
            seen[:, :, column] = False
            return seen

        with monkeypatch.context() as changed:
            changed.setattr("model.visible", struck_out)
            want, _ = lab.model(text, past)
        assert torch.allclose(logits, want, atol=1e-5)
        assert not torch.allclose(logits, lab.model(text, past)[0], atol=1e-3)
    assert past.positions.tolist() == [[0, 1, 2, 3, 4]]
    assert shared.hide(past, shared.NONE_HIDDEN) is past


def test_answers_lost_are_those_of_one_seed_against_nothing_hidden():
    rows = []
    for letter, accuracies in {"R": [1.0, 1.0, 0.1], "C": [0.75, 0.0, 0.75]}.items():
        for vector, accuracy in enumerate(accuracies, -1):
            rows.append({"seed": 1, "vector": vector, "letter": letter, "accuracy": accuracy})
    rows += [{**row, "seed": 0, "accuracy": 0.5} for row in rows]
    lost = shared.answers_lost(rows[::-1], 1)
    assert lost["R"] == pytest.approx([0.0, 0.9])
    assert lost["C"] == pytest.approx([0.75, 0.0])
    assert shared.lost_alone(lost, "R") == pytest.approx([-0.75, 0.9])


def test_attention_is_what_the_layers_compute(lab):
    import knock_out

    past = new_arm(lab, "library", "prompt", "vocab", 4, 1.0, 0).soft.past(lab.model)
    past.positions[0, 2] = 2**20  # the third virtual token is hidden in the future
    question, _ = lab.rows("library", "test", 1)[0]
    values, mixed = [], []
    for block in lab.model.model.layers:
        layer = block.self_attn
        layer.register_forward_hook(lambda layer, given, out: values.append(given[2]))
        layer.o_proj.register_forward_hook(lambda layer, given, out: mixed.append(given[0]))
    with torch.no_grad():
        weights = knock_out.attention_weights(lab.model, past, question)
    assert len(weights) == len(values) == len(mixed) == lab.model.config.n_layer
    for found, v, out in zip(weights, values, mixed):
        H, T, S = found.shape
        assert (T, S) == (len(question), 4 + len(question))
        assert torch.allclose(found.sum(2), torch.ones(H, T), atol=1e-5)
        assert (found[:, :, 2] == 0).all(), "a hidden vector is looked at"
        assert (found[:, :, 1] > 0).all()
        v = v.repeat_interleave(H // v.shape[1], 1)  # (1, H, S, D)
        assert torch.allclose((found @ v).transpose(1, 2).flatten(2), out, atol=1e-5)  # (1, T, H D)


# ------------------------------------------------------------------ 5: where to start


def test_a_row_counts_the_steps_to_the_threshold(lab):
    import starts

    arm = new_arm(lab, "library", "prompt", "vocab", 2, 1.0, 3)
    arm.columns = {"start": "vocab", "rate": 1.0}
    row = starts.row_of(arm, [(0, 3.0), (2, 0.6), (4, 0.5), (6, 0.7)])
    assert (row["first_loss"], row["steps"], row["seed"]) == (3.0, 4, 3)
    assert starts.row_of(arm, [(0, 3.0), (2, 0.6)])["steps"] == math.inf


# ------------------------------------------------------------------ 7: an update, and scale


def test_a_rate_is_the_one_with_the_lowest_mean_loss():
    import scale

    losses = ((1, 0.9), (1, 0.2), (3, 0.5), (3, 0.5), (9, 0.1), (9, 2.0))
    assert scale.best_rate([{"rate": rate, "loss": loss} for rate, loss in losses]) == 3


@pytest.mark.parametrize(
    "said, kind",
    [
        ("g", "right"),
        ("graph", "something else of the last word"),
        ("h", "something else of the last word"),
        ("5", "something else of the last word"),
        ("R", "first letter of another word"),
        ("x", "neither"),
        ("", "neither"),
    ],
)
def test_a_mistake_says_which_part_of_the_question_it_missed(said, kind):
    import update

    sentence = Sentence("Return the matrix of a graph.", "networkx", "function")
    assert update.kind_of_answer(sentence, said) == kind


def test_the_hard_prompt_is_chosen_by_validation_before_the_update():
    import update

    def row(words, split, share, name="none"):
        where = {"update": name, "task": update.NEW, "method": "wording", "answers": "right"}
        return {**where, "words": words, "split": split, "share": share, "seed": 0}

    rows = [row("a", "valid", 0.4), row("b", "valid", 0.3), row("b", "test", 0.9)]
    rows += [row("a", "test", 0.5), row("b", "valid", 0.9, "strong")]
    rows += [row("a", "test", 0.7, "strong"), row("b", "test", 0.8, "strong")]
    assert update.best_words(rows) == "a"
    after = update.accuracies_after(rows)
    assert after[update.NEW, "none", "wording"] == [0.5]
    assert after[update.NEW, "strong", "wording"] == [0.7]
