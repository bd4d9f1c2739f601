"""tutorials/experiments: on a tiny base, each leaves rows that say what was done."""

import importlib
import math
import runpy
import sys

import lengths
import pytest
import reading
import script
import starts
import torch
import vectors
from conftest import EXPERIMENTS, ids, make_model
from small_world import same_columns, save_tiny, sentences, tiny

import train
from model import InputError, visible
from softprompt import PromptTuning
from train import TASKS, Arm, Lab, Scores, Sentence, arm_of_tokens, fit, measure, new_arm, where

NAMES = sorted(path.stem for path in EXPERIMENTS.glob("*.py") if path.stem != "script")
MAIN_JOB = ["initialization", "length"]  # train.py leaves these tables


@pytest.fixture
def lab(tok):
    """Sentences that begin with R, with C, with S and with A, in turn."""
    data = {}
    for seed, split in enumerate(("train", "valid", "test")):
        data[split] = []
        for i, sentence in enumerate(sentences(24, seed)):
            first = ("Return ", "Compute ", "Some ", "Add ")[i % 4]
            data[split].append(sentence._replace(text=first + sentence.text))
    return Lab(tiny(tok), tok, data)


def loss_of(lab, arm, split="test"):
    [row] = measure(lab, [arm], 0, split, train.FINAL)
    return pytest.approx(row["loss"], abs=2e-3)


# ------------------------------------------------------------------ all of one shape


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_is_a_program_that_says_how_it_is_started(name, monkeypatch, capsys):
    path = EXPERIMENTS / f"{name}.py"
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(path), run_name="__main__")
    assert stop.value.code == 0
    assert f"usage: {name}.py" in capsys.readouterr().out
    about = importlib.import_module(name).__doc__
    assert "?" in about.splitlines()[0]
    assert f"python tutorials/experiments/{name}.py      " in about
    assert f"{name}.csv" in about


def test_every_experiment_has_left_its_table():
    tables = sorted(path.stem for path in EXPERIMENTS.glob("*.csv"))
    assert tables == sorted([*NAMES, *MAIN_JOB])


@pytest.mark.parametrize("name", NAMES)
def test_a_table_can_be_read_and_has_shares_and_five_seeds(name):
    rows = train.read_rows(script.table_of(name))
    assert all(0 <= row["accuracy"] <= 1 for row in rows if row.get("accuracy", "") != "")
    assert len({row["seed"] for row in rows}) >= (3 if name == "reading" else 5)


@pytest.fixture
def started(tok, tmp_path, monkeypatch):
    """The command line of an experiment with a small base, whose tables go to a folder."""
    save_tiny(tmp_path / "base.pt", tok)
    monkeypatch.setattr(train, "load_data", lambda out: {"train": sentences(3)})
    monkeypatch.setattr(script, "__file__", str(tmp_path / "script.py"))
    monkeypatch.setattr(script, "FIGURES", tmp_path)
    options = ["--base", tmp_path / "base.pt", "--out", tmp_path / "out", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["mine.py", *map(str, options)])
    return tmp_path


def test_a_program_leaves_its_rows_and_a_picture_of_them(started):
    rows, given = [{"step": 0, "loss": 0.5}], []

    def run(lab):
        given.append(lab.data)
        return rows

    def draw(results):
        given.append(results)
        return train.panels(1)[0]

    script.run_script("mine", run, draw)
    assert given == [{"train": sentences(3)}, rows]
    assert train.read_rows(started / "mine.csv") == rows
    assert (started / "mine.png").read_bytes().startswith(b"\x89PNG")
    (started / "mine.png").unlink()
    script.run_script("mine", run)
    assert not (started / "mine.png").exists()


def test_a_program_that_is_refused_leaves_the_table_of_before(started, capsys):
    def refuse(lab):
        raise InputError("a value: a fix")

    (started / "mine.csv").write_text("before")
    with pytest.raises(SystemExit) as stop:
        script.run_script("mine", refuse)
    assert stop.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: a value: a fix"
    assert (started / "mine.csv").read_text() == "before"


# ------------------------------------------------------------------ lengths


def test_each_length_is_trained_with_each_budget(lab, monkeypatch):
    monkeypatch.setattr(lengths, "BUDGETS", (1, 3))
    monkeypatch.setattr(lengths, "SEEDS", range(7, 9))
    monkeypatch.setattr(lengths, "Plan", lambda **more: train.Plan(lengths=(1, 4), **more))
    rows = lengths.run(lab)
    want = []
    for task in ("swap-1", "swap-4"):
        for budget in (1, 3):
            for split in ("valid", "test"):
                for P in (1, 4):
                    want += [(task, "prompt", P, seed, budget, split) for seed in (7, 8)]
    assert same_columns("lengths", rows)
    columns = ("task", "method", "length", "seed", "step", "split")
    assert [tuple(row[name] for name in columns) for row in rows] == want
    for row in where(rows, split="test", seed=7):
        arm = new_arm(lab, row["task"], "prompt", "vocab", row["length"], 3, 7)
        for _ in fit(lab.model, [arm], {arm.task: lab.rows(arm.task, "train")}, row["step"], 16):
            pass
        assert row["loss"] == loss_of(lab, arm)


# ------------------------------------------------------------------ reading


def test_vectors_and_the_tokens_that_they_read_as_are_told_apart(lab, monkeypatch):
    """Trained by hand: what began as these words now reads "equation", and is twice as long."""
    table = lab.model.model.embed_tokens.weight
    seen = []

    def by_hand(lab, arms, steps, title, schedule):
        assert (steps, schedule) == (200, train.constant)
        for arm in arms:
            assert (arm.task, arm.rate) == ("first-letter-last", 1 / 64)
            words = lab.tok.encode(arm.columns["words"])
            assert torch.equal(arm.soft.embeddings, table[words])
            seen.append((arm.columns["words"], arm.seed))
            arm.soft.embeddings.data = 2 * table[equation]

    equation = lab.tok.encode(" equation") * 3
    monkeypatch.setattr(reading, "train_arms", by_hand)
    monkeypatch.setattr(reading, "SEEDS", range(4, 6))
    rows = reading.run(lab)
    assert seen == [(words, seed) for words in reading.WORDS for seed in (4, 5)]
    assert len(rows) == 4 * len(seen)
    assert same_columns("reading", rows)
    for words, own in reading.WORDS.items():
        ways = {
            "vectors": Arm(PromptTuning(2 * table[equation]), "first-letter-last", 0),
            "tokens": arm_of_tokens(lab, "first-letter-last", equation),
            "tokens, own task": arm_of_tokens(lab, own, equation),
            "words, own task": arm_of_tokens(lab, own, lab.tok.encode(words)),
        }
        for by, way in ways.items():
            for seed in (4, 5):
                [row] = where(rows, words=words, by=by, seed=seed)
                assert row["task"] == way.task
                assert row["reads"] == " equation" * 3
                assert (row["step"], row["split"]) == (200, "test")
                assert row["loss"] == loss_of(lab, way)


def test_every_word_asks_for_the_task_that_it_is_said_to_ask_for():
    *asking, (nothing, task) = reading.WORDS.items()
    for words, own in asking:
        assert words in TASKS[own].hard_prompts
    assert nothing.startswith("The night train") and task == reading.TASK


# ------------------------------------------------------------------ starts


def test_how_far_vectors_have_moved_by_hand():
    x = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    turned = torch.tensor([[0.0, 3.0], [-4.0, 0.0]])
    half = torch.tensor([[3.0, 0.0], [-4.0, 0.0]])  # only the second one, of 4 out of 5
    for now, distance, turn in (
        (x, 0, 0),
        (1.5 * x, 0.5, 0),
        (-x, 2, 180),
        (turned, 2**0.5, 90),
        (half, 2**0.5 * 4 / 5, 45),
    ):
        assert starts.moved(x, now) == pytest.approx({"distance": distance, "turn": turn}, abs=1e-4)


def test_each_start_moves_by_a_64th_of_its_own_size_in_a_step(lab, monkeypatch):
    """As AdamW does in its first step; and it stands in one row, at the end of its steps."""
    monkeypatch.setattr(starts, "DISTANCE_STEPS", 1)
    monkeypatch.setattr(starts, "SEEDS", range(2))
    rows = starts.distance(lab)
    assert [(row["start"], row["seed"]) for row in rows] == [
        (start, seed) for start in train.STARTS for seed in (0, 1)
    ]
    for row in rows:
        assert row["step"] == 1
        assert row["distance"] == pytest.approx(1 / 64, rel=0.1)


def test_a_start_that_has_learned_is_measured_there(lab, monkeypatch):
    """At the first look in which the loss of the validation sentences is at the threshold."""
    monkeypatch.setattr(starts, "DISTANCE_STEPS", 3)
    monkeypatch.setattr(starts, "SEEDS", range(1))
    looks = []

    def by_hand(lab, arms, step, split, n):
        assert (split, n) == ("valid", train.CURVE)
        looks.append(len(arms))
        return [{**arm.columns, "seed": 0, "step": step, "loss": loss(arm, step)} for arm in arms]

    def loss(arm, step):
        learned = {"related": 1, "vocab": 2}.get(arm.columns["start"], math.inf)
        return train.THRESHOLD if step >= learned else 9.0

    monkeypatch.setattr(script, "measure", by_hand)
    rows = starts.distance(lab)
    steps = {row["start"]: row["step"] for row in rows}
    assert steps == {**dict.fromkeys(train.STARTS, 3), "related": 1, "vocab": 2}
    assert where(rows, start="related")[0]["distance"] == pytest.approx(1 / 64, rel=0.1)
    assert looks == [6, 6, 5, 4]


# ------------------------------------------------------------------ vectors


def test_hiding_a_virtual_token_is_attention_without_its_key(tok, monkeypatch):
    """At the same positions. By hand: the rule of what is visible, with columns struck out."""
    model, text = tiny(tok), ids(2, 6)
    past = PromptTuning(torch.randn(5, 16)).past(model)
    for hidden in ([1], [2], [5], [1, 4]):

        def struck_out(q_pos, k_pos, pinned, window=None, hidden=hidden):
            seen = visible(q_pos, k_pos, pinned, window)
            for vector in hidden:
                seen[:, :, vector - 1] = False
            return seen

        logits, _ = model(text, vectors.hide(past, hidden))
        with monkeypatch.context() as changed:
            changed.setattr("model.visible", struck_out)
            want, _ = model(text, past)
        assert torch.allclose(logits, want, atol=1e-5)
        assert not torch.allclose(logits, model(text, past)[0], atol=1e-3)


def test_hiding_leaves_the_text_and_the_past_where_they_were(lab):
    past = PromptTuning(torch.randn(5, 16)).past(lab.model)
    hidden = vectors.hide(past, [3])
    assert hidden.positions.tolist() == [[0, 1, vectors.FUTURE, 3, 4]]
    assert past.positions.tolist() == [[0, 1, 2, 3, 4]]
    assert hidden.pinned.tolist() == [5]
    _, longer = lab.model(torch.tensor([[7, 8]]), hidden)
    assert longer.positions[0, -2:].tolist() == [5, 6]
    assert vectors.hide(past, []).positions.tolist() == past.positions.tolist()


def test_letters_that_change_places_are_told_from_the_others():
    texts = {"Return it now.": "R", "(Compute) it now.": "C", "Add it now.": "A"}
    texts |= {"Say it now.": "other", "return it now.": "other"}
    for text, letter in texts.items():
        assert vectors.letter_of(Sentence(text, "numpy", "class")) == letter


def test_the_attention_that_is_looked_at_comes_from_the_first_word_and_from_the_arrow(lab):
    question, _ = lab.tok.example("Return the matrix.", "")
    assert lab.tok.decode([question[vectors.WORD]]) == "R"  # its first token
    assert lab.tok.decode([question[vectors.ARROW]]) == " ->"


def test_each_vector_is_hidden_once_in_the_prompt_of_each_seed(lab, monkeypatch):
    """With a score by hand: without vector 1 every R is wrong, without 2 every second C."""
    for name, value in (("P", 3), ("STEPS", 0), ("SEEDS", range(10, 12))):
        monkeypatch.setattr(vectors, name, value)
    lab.model = make_model(vocab_size=lab.tok.end + 1, window=24)  # of two layers
    values = []

    def by_hand(model, past, rows):
        assert rows == lab.rows("swap-1", "test", train.FINAL)
        hidden = [s + 1 for s in range(3) if past.positions[0, s] == vectors.FUTURE]
        if not hidden:
            values.append(past.values[0])
        right = torch.ones(24)
        right[0::4] = float(hidden != [1])
        right[1::8] = float(hidden != [2])
        return Scores(None, None, right)

    monkeypatch.setattr(vectors, "score", by_hand)
    rows = vectors.run(lab)
    assert len(rows) == 2 * 4 * 4  # seeds, vectors and none, letters
    assert same_columns("vectors", rows)
    for row in rows:
        want = {(1, "R"): 0.0, (2, "C"): 0.5}.get((row["vector"], row["letter"]), 1.0)
        assert row["accuracy"] == want
        assert row["task"] == "swap-1"
    for seed, of_seed in zip((10, 11), values):
        for letter in ("R", "C", "A", "other"):
            together, *each = where(rows, seed=seed, letter=letter)
            assert [row["vector"] for row in (together, *each)] == [0, 1, 2, 3]
            for look in ("from_word", "from_arrow"):
                shares = [row[look] for row in each]
                assert min(shares) > 0 and together[look] < 1
                assert sum(shares) == pytest.approx(together[look], abs=3e-4)
        arm = new_arm(lab, "swap-1", "prompt", "vocab", 3, 1, seed)
        assert torch.allclose(arm.soft.past(lab.model).values[0], of_seed, atol=1e-6)


ACCURACIES = {  # {seed: {letter: with nothing hidden, then without each vector}}
    0: {"R": [1.0, 0.5, 0.9], "C": [1.0, 0.5, 0.9], "other": [1.0, 0.5, 1.0]},  # nothing alone
    1: {"R": [1.0, 1.0, 0.1], "C": [0.75, 0.0, 0.75], "other": [1.0, 0.9, 0.95]},  # 2: R, 1: C
}


def hand_made_vectors():
    rows = []
    for seed, letters in ACCURACIES.items():
        for letter, accuracies in letters.items():
            for vector, accuracy in enumerate(accuracies):
                row = {"task": "swap-1", "seed": seed, "vector": vector, "letter": letter}
                rows.append({**row, "accuracy": accuracy})
    return rows


def lost_by_hand(seed, letter):
    whole, *without = ACCURACIES[seed][letter]
    return pytest.approx([whole - accuracy for accuracy in without])


def test_what_is_lost_is_lost_against_nothing_hidden_in_the_same_seed():
    lost = vectors.lost_rows(hand_made_vectors())
    for seed, letters in ACCURACIES.items():
        for letter in letters:
            own = where(lost, seed=seed, letter=letter)
            assert [row["vector"] for row in own] == [1, 2]
            assert [row["lost"] for row in own] == lost_by_hand(seed, letter)


def test_what_is_lost_alone_is_what_is_lost_of_no_other_letter():
    own = where(vectors.lost_rows(hand_made_vectors()), seed=1)
    assert vectors.lost_alone(own, "R") == pytest.approx([-0.75, 0.85])
    assert vectors.lost_alone(own, "C") == pytest.approx([0.65, -0.9])


def test_the_clearest_seed_holds_a_letter_in_a_vector_alone():
    lost = vectors.lost_rows(hand_made_vectors())
    assert vectors.clearest_seed(lost) == vectors.clearest_seed(lost[::-1]) == 1


def test_what_each_vector_holds_is_drawn_with_the_clearest_seed_first(monkeypatch):
    monkeypatch.setattr(vectors, "P", 2)
    figure = vectors.draw(hand_made_vectors())
    *axes, _ = figure.axes  # the last is the scale of the colours
    titles = [axis.get_title(loc="left") for axis in axes]
    assert titles == ["seed 1 (the clearest of 2)", "seed 0"]
    for axis, seed in zip(axes, (1, 0)):
        [image] = axis.images
        for line, letter in zip(image.get_array().tolist(), ("R", "C", "other")):
            assert line == lost_by_hand(seed, letter)
        names = [text.get_text() for text in axis.get_yticklabels()]
        assert names == ["begins with R", "begins with C", "other letters"]
        assert [text.get_text() for text in axis.get_xticklabels()] == ["1", "2"]
        numbers = {text.get_position(): text.get_text() for text in axis.texts}
        for y, letter in enumerate(("R", "C", "other")):
            for x, value in enumerate(lost_by_hand(seed, letter).expected):
                want = f"{value:.1f}" if value >= 0.1 else None
                assert numbers.get((x, y)) == want
    assert figure.get_suptitle() == "What is lost when one vector of a prompt is hidden"
