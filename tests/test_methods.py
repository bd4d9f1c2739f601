"""tutorials/methods.py: LoRA, all weights, other text between prompt and question, the pictures."""

from copy import deepcopy

import methods
import pytest
import torch
from methods import AllWeights, LoRA, Way
from small_world import save_tiny, sentences, tiny

import train
from model import InputError
from train import Lab


def hand_made_lab(tok, **shape):
    """A random base without any skill, and sentences."""
    data = {"train": sentences(60), "valid": sentences(20, 1), "test": sentences(6, 2)}
    return Lab(tiny(tok, **shape), tok, data)


PLAN = methods.Plan(
    seeds=2,
    task_steps=(("kind", 2),),
    lengths=(2, 3),
    far_steps=(("kind", 2),),
    far_length=3,
    between=(0, 60),
)

# ------------------------------------------------------------------ what changes the base


def test_lora_starts_as_the_base_and_leaves_it_alone(tok):
    base, idx = tiny(tok), torch.arange(9)[None]  # (1, T)
    before, other = base.fingerprint(), deepcopy(base)
    lora = LoRA(other)
    assert len(lora.down) == len(lora.up) == 4  # one layer: queries, keys, values and output
    assert torch.equal(base(idx)[0], other(idx)[0])
    assert methods.numbers_in(lora) == sum(4 * sum(w.weight.shape) for w in projections(base))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for up in lora.up:
            up.normal_(generator=generator)
    assert not torch.allclose(base(idx)[0], other(idx)[0], atol=1e-2)
    assert base.fingerprint() == before == other.fingerprint()


def projections(model):
    return methods.attention_projections(model)


def test_lora_merged_into_the_weights_is_lora_hooked(tok):
    hooked, merged, idx = tiny(tok), tiny(tok), torch.arange(9)[None]  # (1, T)
    lora, generator = LoRA(hooked, seed=3), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for down, up, linear in zip(lora.down, lora.up, projections(merged)):
            up.normal_(generator=generator)
            linear.weight += 2 * up @ down
    assert torch.allclose(hooked(idx)[0], merged(idx)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", methods.INSIDE)
def test_what_is_trained_inside_changes_the_copy_alone(tok, method):
    lab = hand_made_lab(tok)
    before, idx = lab.model.fingerprint(), torch.arange(9)[None]  # (1, T)
    copied = methods.lab_on_a_copy(lab)
    arm = methods.inside_arm(copied, "kind", method, 0.01, 0)
    methods.learn(copied, [arm], 3, "three steps")
    assert lab.model.fingerprint() == before
    assert (copied.model.fingerprint() == before) == (method == "lora")
    assert not torch.allclose(lab.model(idx)[0], copied.model(idx)[0], atol=1e-3)


def test_all_weights_are_all_weights(tok):
    model = tiny(tok)
    soft = AllWeights(model)
    assert methods.numbers_in(soft) == sum(p.numel() for p in model.parameters())
    assert all(p.requires_grad for p in soft.parameters())
    assert soft.past(model).positions.shape == (1, 0)


# ------------------------------------------------------------------ other text between


def test_out_of_the_window_a_sliding_prompt_is_no_prompt(tok):
    lab = hand_made_lab(tok)  # one layer with a window of 24
    words = methods.words_arm(lab, "kind", "wording", "Return every file.")
    none = methods.words_arm(lab, "kind", "none", "")
    loss = {}
    for pinned in (True, False):
        for between in (0, 90):
            for row in methods.measure_behind(lab, [words, none], pinned, between, 6):
                loss[row["method"], row["pinned"], row["between"]] = row["loss"]
    assert loss["wording", "no", 90] == loss["none", "no", 90] == loss["none", "yes", 90]
    assert loss["wording", "yes", 90] != loss["none", "yes", 90]
    assert loss["wording", "yes", 0] != loss["none", "yes", 0]


def test_words_as_vectors_are_the_words(tok):
    lab, words = hand_made_lab(tok), "Return every file."
    arm = methods.words_arm(lab, "kind", "wording", words)
    [row] = methods.measure_behind(lab, [arm], False, 0, 6)
    scores = train.score(lab.model, None, lab.rows("kind", "test", 6, words))
    loss = (scores.nats.sum() / scores.tokens.sum()).item()
    assert row["loss"] == pytest.approx(loss, abs=1e-3)
    assert row["accuracy"] == pytest.approx(scores.right.mean().item(), abs=1e-4)


# ------------------------------------------------------------------ what the rows say


def method_rows(task, method, length, rate, valid, test):
    """Rows of two seeds with these accuracies on validation and test sentences."""
    row = {"task": task, "method": method, "length": length, "numbers": 7, "rate": rate}
    rows = []
    for split, accuracies in (("valid", valid), ("test", test)):
        for seed, accuracy in enumerate(accuracies):
            rows.append({**row, "split": split, "seed": seed, "accuracy": accuracy})
    return [{**row, "loss": 1.0, "step": 3} for row in rows]


def all_methods(task, prompt, full):
    """Rows of all methods where prompts have one accuracy and changes of the weights another."""
    rows = []
    for method in ("none", "wording", "always"):
        rows += method_rows(task, method, 0, 0, (0.1,), (0.1,))
    for method in methods.BEFORE:
        for length in (2, 8):
            rows += method_rows(task, method, length, 1.0, (prompt, prompt), (prompt, prompt))
    for method in methods.INSIDE:
        rows += method_rows(task, method, 0, 1.0, (full, full), (full, full))
    return rows


def test_the_rate_is_the_best_by_validation():
    rows = method_rows("kind", "prompt", 4, 0.3, (0.5, 0.7), (0.9, 0.9))
    rows += method_rows("kind", "prompt", 4, 1.0, (0.6, 0.8), (0.4, 0.6))
    rows += method_rows("kind", "prompt", 4, 3.0, (0.9, 0.1), (1.0, 1.0))
    way = Way("prompt", 4, 7)
    assert methods.best_rate(rows, "kind", way) == 1.0
    accuracy, error = methods.accuracy_of(rows, "kind", way)
    assert accuracy == pytest.approx(0.5)
    assert error == pytest.approx((0.02 / 2 + 0.25 / 240) ** 0.5)


def test_the_best_method_is_the_best_by_validation():
    rows = method_rows("kind", "prompt", 4, 1.0, (0.8, 0.8), (0.1, 0.1))
    rows += method_rows("kind", "prefix", 4, 1.0, (0.7, 0.7), (0.9, 0.9))
    rows += method_rows("kind", "full", 0, 1.0, (0.9, 0.9), (0.9, 0.9))
    assert methods.best_of(rows, "kind", methods.BEFORE) == Way("prompt", 4, 7)


def test_clearly_above_is_two_standard_errors():
    assert methods.clearly_above((0.8, 0.03), (0.69, 0.04))  # 0.05 together
    assert not methods.clearly_above((0.8, 0.03), (0.71, 0.04))
    assert not methods.clearly_above((0.6, 0.03), (0.8, 0.04))


@pytest.mark.parametrize(
    "nearly, outside, shown",
    [
        ((0.95, 0.96), (0.3, 0.7), True),
        ((0.80, 0.96), (0.3, 0.7), False),  # weights are better on both
        ((0.95, 0.96), (0.69, 0.7), False),  # on none
        ((0.95, 0.96), (0.7, 0.3), False),  # prompts are better outside
    ],
)
def test_the_title_says_what_the_rows_show(nearly, outside, shown):
    rows = all_methods("first-letter-last", *nearly) + all_methods("before-last", *outside)
    title = methods.methods_title(rows)
    assert ("new weights learn more" in title) == shown
    assert ("0.95 and 0.96 right\n" in title) == ("0.30 and 0.70" in title) == shown
    assert "new weights" not in methods.methods_title(all_methods("kind", 0.1, 0.9))


def test_the_picture_of_methods_shows_the_rows():
    rows = all_methods("before-last", 0.3, 0.7) + all_methods("kind", 0.8, 0.6)
    figure = methods.draw_methods(rows)
    assert len(figure.axes) == 2
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert len(names) == 8 and names[3] == "prompt of 8 vectors\n7 numbers trained"
    for axis, prompt, full in zip(figure.axes, ("0.30", "0.80"), ("0.70", "0.60")):
        written = [text.get_text() for text in axis.texts]
        assert written.count(prompt) == 4 and written.count(full) == 2


def distance_rows(task, pinned, sliding, none):
    """Rows of a prompt, a hard prompt and none at two distances; each a pair of accuracies."""
    lines = [("prompt", "yes", pinned), ("prompt", "no", sliding)]
    lines += [("wording", "yes", pinned), ("wording", "no", sliding)]
    lines += [("none", "yes", none), ("none", "no", none)]
    rows = []
    for method, shown, accuracies in lines:
        for between, accuracy in zip((0, 90), accuracies):
            row = {"task": task, "method": method, "pinned": shown, "between": between}
            rows.append({**row, "accuracy": accuracy, "window": 24})
    return rows


def test_pinned_and_sliding_are_not_confused():
    rows = distance_rows("kind", (0.86, 0.8), (0.9, 0.2), (0.1, 0.1))
    assert "slides out of the window is lost" in methods.window_title(rows)
    assert "90 tokens away, pinned 0.80 right; sliding 0.20; no prompt 0.10" in (
        methods.window_title(rows)
    )
    figure = methods.draw_distances(rows)
    for axis, method in zip(figure.axes, ("prompt", "wording")):
        lines = {bars.get_label(): bars.lines[0] for bars in axis.containers}
        assert list(lines[f"{method}, pinned"].get_ydata()) == [0.86, 0.8]
        assert list(lines[f"{method}, sliding"].get_ydata()) == [0.9, 0.2]
        assert lines[f"{method}, pinned"].get_linestyle() == "-"
        places = {text.get_text(): text.xy for text in axis.texts}
        assert places["pinned"] == (90, 0.8) and places["sliding"][0] == 90
        assert 0.2 < places["sliding"][1] < 0.8 and places["no prompt"] == (0, 0.1)


@pytest.mark.parametrize(
    "pinned, sliding",
    [
        ((0.9, 0.9), (0.9, 0.9)),  # nothing is lost
        ((0.9, 0.5), (0.9, 0.2)),  # a pinned prompt loses as well
    ],
)
def test_only_what_slides_away_is_called_lost(pinned, sliding):
    rows = distance_rows("kind", (0.9, 0.9), (0.9, 0.2), (0.1, 0.1))
    rows += distance_rows("count", pinned, sliding, (0.1, 0.1))
    assert "lost" not in methods.window_title(rows)
    methods.draw_distances(rows)


# ------------------------------------------------------------------ the command line


@pytest.fixture
def small_lab(tok, tmp_path, monkeypatch):
    """A tiny base in a file, few sentences and a small plan."""
    save_tiny(tmp_path / "base.pt", tok)
    monkeypatch.setattr(train, "load_data", lambda out: hand_made_lab(tok).data)
    monkeypatch.setattr(methods, "Plan", lambda: PLAN)
    for name, rates in methods.RATES.items():
        monkeypatch.setitem(methods.RATES, name, rates[:1])
    return ["--base", str(tmp_path / "base.pt"), "--out", str(tmp_path / "out")]


def test_a_run_writes_and_draws(small_lab, tmp_path):
    methods.main(small_lab)
    out = tmp_path / "out"
    written = {"methods.csv", "methods.png", "window.csv", "window.png"}
    assert {path.name for path in out.iterdir()} == written
    rows = train.read_rows(out / "methods.csv")
    trained = [row for row in rows if row["rate"] > 0 and row["split"] == "test"]
    assert len(trained) == 2 * (2 + 2 + 1 + 1)  # seeds; prompt and prefix have two lengths
    numbers = {row["method"]: row["numbers"] for row in rows}
    assert numbers["none"] == 0 < numbers["lora"] < numbers["full"]

    # A baseline has one number everywhere.
    [there] = [r["loss"] for r in rows if (r["method"], r["task"], r["split"]) == WORDING]
    far = train.read_rows(out / "window.csv")
    near = [row for row in far if (row["between"], row["pinned"]) == (0, "yes")]
    [here] = [row["loss"] for row in near if row["method"] == "wording"]
    assert here == pytest.approx(there, abs=1e-3)


WORDING = ("wording", "kind", "test")


def test_without_a_window_nothing_slides(tok, small_lab, tmp_path, monkeypatch, capsys):
    model = tiny(tok)
    model.config.window = None
    monkeypatch.setattr(train, "load_base", lambda path, device: (model, tok))
    done = methods.EXPERIMENTS["methods"]._replace(run=lambda *_: all_methods("kind", 0.1, 0.2))
    monkeypatch.setitem(methods.EXPERIMENTS, "methods", done)
    methods.main(small_lab)
    assert "this base has no window" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"methods.csv", "methods.png"}


def test_an_unknown_option_is_refused():
    with pytest.raises(InputError, match="--nonsense"):
        methods.main(["--nonsense"])
