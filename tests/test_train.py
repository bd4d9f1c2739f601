"""train.py: sentences, tasks, scoring, training; the experiments and pictures by hand-made rows."""

import importlib.util
import io
import math
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import matplotlib
import pretrain  # noqa: F401  adds its tasks to TASKS
import pytest
import torch
from conftest import ROOT, make_model
from small_world import TOKENS, same_columns, save_tiny, sentences, tiny

import train
from model import InputError
from softprompt import PrefixTuning, PromptTuning, initial_embeddings, load, prefill, save
from train import (
    COMMON_LETTERS,
    CURVE,
    FINAL,
    QUICK,
    STARTS,
    TASKS,
    THRESHOLD,
    UNTRAINED,
    Arm,
    Lab,
    Plan,
    Scores,
    Sentence,
    Start,
    Sweep,
    Task,
    arm_of_tokens,
    best_hard_prompt,
    best_rate,
    chosen_length,
    collate,
    constant,
    draw_rows,
    find_device,
    fit,
    load_base,
    mean_error,
    mean_of_arms,
    measure,
    moved_apart,
    new_arm,
    parts_of,
    read_rows,
    score,
    steps_needed,
    untrained,
    warm_up_and_fall,
    where,
    write_picture,
    write_rows,
)

RULE, FACTS = "first-letter-last", "swap-1"


def some_data():
    """Sentences of which a third begins with R, a third with C and a third with other letters."""
    data = {}
    for seed, split in enumerate(("train", "valid", "test")):
        data[split] = []
        for i, sentence in enumerate(sentences(40, seed)):
            first = ("Return ", "Compute ", "")[(i + seed) % 3]
            data[split].append(sentence._replace(text=first + sentence.text))
    return data


@pytest.fixture
def lab(tok):
    return Lab(tiny(tok), tok, some_data())


@pytest.fixture
def few_tasks(monkeypatch):
    """A rule and facts, each trained for some steps only."""
    few = {
        RULE: TASKS[RULE]._replace(
            sweep=Sweep(6, 2, (1, 4), 2, without=("other", "unrelated", "matched")),
            steps={"prompt": 9, "prefix": 6},
        ),
        FACTS: TASKS[FACTS]._replace(
            sweep=Sweep(3, 3, (4,), 1, without=("other", "unrelated", "matched", "normal")),
            steps={"prompt": 6},
        ),
        "library": TASKS["library"],
    }
    monkeypatch.setattr(train, "TASKS", few)
    return few


SMALL = Plan(without_rates=(1 / 16, 1 / 4, 16), start_length=4, lengths=(1, 30), part=1 / 3)


def run_python(*arguments, cwd, **environment):
    """A Python of its own; `environment` beside what this one has."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def finish(training):
    """Run a `fit` to its end."""
    for _ in training:
        pass


# ------------------------------------------------------------------ sentences


def test_docstrings_are_read_without_importing(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "raise SystemExit\n"
        "class A:\n"
        '    """A summary.\n\n    More."""\n'
        "    async def f(self):\n"
        '        """Another."""\n'
        "try:\n"
        "    pass\n"
        "except ValueError:\n"
        "    def g():\n"
        '        """A third."""\n'
        "def h():\n"
        "    pass\n"
    )
    found = [one for one in train.docstrings_in(path) if one[1]]
    assert sorted(found) == [
        ("class", "A summary.\n\nMore."),
        ("function", "A third."),
        ("function", "Another."),
    ]


@pytest.mark.parametrize("text", ["def broken(:\n", "x = '\0'\n"])
def test_what_is_no_python_has_no_docstrings(tmp_path, text):
    (tmp_path / "module.py").write_text(text)
    assert train.docstrings_in(tmp_path / "module.py") == []
    (tmp_path / "module.py").write_bytes(b"# \xff\xfe\n")
    assert train.docstrings_in(tmp_path / "module.py") == []


def test_sentences_are_split_by_their_own_text():
    docs = []
    for i in range(2000):
        docs.append(("numpy", "function", f"Give back number {i} of them all.\n\nMore."))
    docs.append(("numpy", "class", "An array of numpy scalars, they say."))
    docs.append(("torch", "class", "Too short."))
    docs.append(("torch", "class", "Ünicode is left out of the sentences."))
    docs.append(docs[0])
    data = train.sentences_of(docs)
    texts = [sentence.text for sentence in data["train"] + data["valid"] + data["test"]]
    assert len(texts) == len(set(texts)) == 2000
    for split, part in data.items():
        assert all(train.split_of(sentence.text) == split for sentence in part)
    shares = {split: len(part) / 2000 for split, part in data.items()}
    assert shares == pytest.approx({"train": 0.8, "valid": 0.1, "test": 0.1}, abs=0.03)
    assert data == train.sentences_of(docs[::-1])
    assert data["train"][0] != Sentence(texts[0], "numpy", "class")


@pytest.fixture
def one_library(tmp_path, monkeypatch):
    """A library of two public modules and of what is skipped, in place of those installed."""
    folder = tmp_path / "library"
    for name in ("__init__", "api", "_private", "test_api", "tests/inner", "sub/deep"):
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'def f():\n    """Say {path.stem} in many words, please."""\n')
    monkeypatch.setattr(train, "LIBRARIES", ("numpy",))
    monkeypatch.setattr(train, "library_folder", lambda library: folder)
    return folder


def test_public_modules_are_read_and_no_others(one_library, tmp_path):
    found = train.read_docstrings(tmp_path / "out")
    said = sorted(text.split()[1] for _, _, text in found)
    assert said == ["__init__", "api", "deep"]
    assert {library for library, _, _ in found} == {"numpy"}


def test_what_was_read_is_kept_until_a_library_changes(one_library, tmp_path, monkeypatch):
    first = train.read_docstrings(tmp_path / "out")
    with monkeypatch.context() as changed:
        changed.setattr(train, "docstrings_in", None)  # is not called
        assert list(map(tuple, train.read_docstrings(tmp_path / "out"))) == first
    (one_library / "more.py").write_text('def f():\n    """One more."""\n')
    assert len(train.read_docstrings(tmp_path / "out")) == len(first) + 1


@pytest.mark.parametrize("damage", [lambda text: text[:40], lambda text: "[]", lambda text: "{}"])
def test_a_truncated_docstrings_file_is_said_by_name_and_read_anew(
    one_library, tmp_path, capsys, damage
):
    first = train.read_docstrings(tmp_path)
    kept = tmp_path / "docstrings.json"
    whole = kept.read_text()
    capsys.readouterr()
    kept.write_text(damage(whole))
    assert train.read_docstrings(tmp_path) == first
    assert f"{kept} is damaged" in capsys.readouterr().err
    assert kept.read_text() == whole


def test_no_docstrings_is_said(one_library, tmp_path):
    for path in one_library.rglob("*.py"):
        path.unlink()
    with pytest.raises(InputError, match="no docstrings.*install"):
        train.read_docstrings(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_library_that_is_not_installed_has_no_files(monkeypatch):
    monkeypatch.setattr(train, "LIBRARIES", ("no_such_library",))
    assert train.source_files() == []


def test_sentences_need_no_process_pool_and_no_main_guard(tmp_path):
    """A script as a newcomer writes it, with the start method of Windows, in a fresh folder.
    Where it starts a process, each would start more of them without end, so it may start none."""
    (tmp_path / "mine.py").write_text(
        "import multiprocessing, sys\n"
        "multiprocessing.set_start_method('spawn')\n"
        "multiprocessing.process.BaseProcess.start = None\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import train\n"
        "train.LIBRARIES = ('tiktoken',)\n"
        "data = train.load_data('out')\n"
        "print(len(data['train']))\n"
    )
    done = run_python("mine.py", ROOT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
    assert (tmp_path / "out" / "docstrings.json").exists()


# ------------------------------------------------------------------ tasks

EXAMPLE = Sentence("Return the (weighted) matrix of a graph.", "networkx", "function")


@pytest.mark.parametrize(
    "task, answer",
    [
        ("library", "networkx"),
        ("kind", "function"),
        ("count", "7"),
        ("before-last", "a"),
        ("repeat-third", "weighted"),
        ("repeat-last", "graph"),
        ("first-letter-last", "g"),
        ("last-letter-first", "n"),
        ("letters-third", "8"),
        ("swap-1", "C"),
    ],
)
def test_answers_by_hand(task, answer):
    assert TASKS[task].answer(EXAMPLE) == answer
    assert TASKS[task].pairs([EXAMPLE]) == [(EXAMPLE.text, answer)]


def test_a_word_of_signs_only_stays_a_word():
    assert train.bare("->") == "->"
    assert train.bare("(x)") == "x"


def test_swapped_letters_change_places_and_all_others_stay():
    for name, pairs in ((FACTS, ["RC"]), ("swap-4", ["RC", "AS", "TG", "PD"])):
        swapped = {}
        for a, b in pairs:
            swapped |= {a: b, b: a}
        for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcr":
            sentence = Sentence(f"{letter}ule is the word.", "numpy", "class")
            assert TASKS[name].answer(sentence) == swapped.get(letter, letter)
        assert "".join(pairs) == COMMON_LETTERS[: 2 * len(pairs)]
        assert not TASKS[name].practised
        for letter, other in swapped.items():
            assert f"{other} for {letter}" in TASKS[name].unseen[-1]


def test_the_tasks_of_the_base_take_no_part_in_the_main_job(monkeypatch):
    """pretrain.py, imported once more beside the four tasks of train.py alone."""
    four = {name: TASKS[name] for name in (RULE, FACTS, "swap-4", "library")}
    more = dict(four)
    monkeypatch.setattr(train, "TASKS", more)
    spec = importlib.util.spec_from_file_location("again", ROOT / "tutorials" / "pretrain.py")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert {"kind", "count", "before-last", "repeat-first", "letters-third"} < set(more)
    for name, task in more.items():
        if name in four:
            assert task is four[name]
        else:
            assert task.sweep is None and not task.steps
    assert [name for name in four if four[name].sweep] == [RULE, FACTS]
    assert [name for name in four if four[name].steps] == [RULE, FACTS, "swap-4"]


def test_no_two_lines_of_a_picture_have_one_colour():
    starts = [start.colour for start in STARTS.values()]
    tasks = [TASKS[name].colour for name in (RULE, FACTS, "swap-4", "library")]
    assert len({*starts, *tasks}) == len(starts) + len(tasks)


def test_the_commonest_answer_and_its_share():
    pairs = [("a", "x"), ("b", "y"), ("c", "y"), ("d", "z")]
    assert train.commonest_answer(pairs) == "y"
    assert train.share_of("y", pairs) == 0.5
    assert train.share_of("no", pairs) == 0


# ------------------------------------------------------------------ tokens


def test_the_tokenizer_round_trips_anything(tok):
    gen = random.Random(0)
    ranges = ((1, 128), (128, 0xD800), (0xE000, 0x20000))
    for _ in range(300):
        length = gen.randrange(40)
        text = "".join(chr(gen.randrange(*gen.choice(ranges))) for _ in range(length))
        assert tok.decode(tok.encode(text)) == text


def test_ids_are_in_the_order_of_the_tokens_and_the_end_is_the_last(tok):
    assert all(tok.decode([i]).encode() == token for i, token in enumerate(TOKENS) if i < 128)
    assert tok.decode([len(TOKENS) - 1]).encode() == TOKENS[-1]
    assert tok.end == len(TOKENS)
    assert tok.end not in tok.encode("<|end|>")


def test_an_example_is_hard_prompt_then_text_then_answer(tok):
    question, answer = tok.example(EXAMPLE.text, "function", "Say it.")
    assert tok.decode(question) == "Say it.\nReturn the (weighted) matrix of a graph. ->"
    assert tok.decode(answer[:-1]) == " function"
    assert answer[-1] == tok.end
    # Without the hard prompt the other ids stay: so a soft prompt can take its place.
    assert question[len(tok.encode("Say it.")) :] == tok.example(EXAMPLE.text, "x")[0]


def test_only_the_answers_are_scored():
    idx, targets = collate([([1, 2, 3], [4, 5]), ([6], [7, 8, 9])], "cpu")
    assert idx.tolist() == [[1, 2, 3, 4], [6, 7, 8, -1]]
    assert targets.tolist() == [[-1, -1, 4, 5], [7, 8, 9, -1]]


# ------------------------------------------------------------------ the base


def test_the_shipped_base_does_what_it_practised():
    model, tok = load_base(device="cpu")
    assert model.config.n_kv_head < model.config.n_head
    assert model.config.window < model.config.block_size
    assert (ROOT / "tutorials" / "base.pt").stat().st_size < 5e6
    assert not any(p.requires_grad for p in model.parameters())
    for s in (
        Sentence("Compute the eigenvalues of a square matrix.", "sympy", "function"),
        Sentence("Return the shortest path between two nodes.", "networkx", "function"),
    ):
        for task in ("repeat-first", "repeat-last", "kind", "first-letter-first"):
            hard_prompt = TASKS[task].practised[0]
            question, answer = tok.example(s.text, TASKS[task].answer(s), hard_prompt)
            assert model.generate([question], 8, stop=tok.end) == [answer[:-1]]


def test_the_number_of_a_device_is_kept(monkeypatch):
    used = []

    def ones(n, device):
        used.append(device)
        return torch.zeros(n)

    monkeypatch.setattr(torch, "ones", ones)
    for name in ("cuda:1", "mps", "cuda:0", "cpu"):
        assert str(find_device(name)) == name
    assert list(map(str, used)) == ["cuda:1", "mps", "cuda:0", "cpu"]


@pytest.mark.parametrize("cuda, mps, best", [(1, 1, "cuda"), (0, 1, "mps"), (0, 0, "cpu")])
def test_the_best_device_of_a_machine(monkeypatch, cuda, mps, best):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(cuda))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: bool(mps))
    monkeypatch.setattr(torch, "ones", lambda n, device: torch.zeros(n))
    assert find_device("auto").type == best


@pytest.mark.parametrize("name", ["meta", "hpu", "abacus", "cpu:x", "", "cuda:99"])
def test_a_device_that_this_machine_lacks_is_refused_in_one_line(name):
    with pytest.raises(InputError) as refused:
        find_device(name)
    assert str(refused.value).startswith(f"--device {name} cannot be used on this machine, ")
    assert "\n" not in str(refused.value)


def test_a_lab_gives_the_first_sentences_of_a_task_and_a_split(lab):
    for task in ("library", "kind"):
        for split in ("train", "valid"):
            for hard_prompt in ("", "Say it."):
                rows = lab.rows(task, split, 5, hard_prompt)
                pairs = TASKS[task].pairs(lab.data[split][:5])
                assert rows == [lab.tok.example(*pair, hard_prompt) for pair in pairs]
    assert len(lab.rows("library", "test")) == 40


# ------------------------------------------------------------------ scoring


def prompts_of(model, lengths):
    """A past of a row for each length."""
    C = model.config.n_embd
    with torch.no_grad():
        return prefill([PromptTuning(torch.randn(P, C)) for P in lengths], model)


def test_score_is_the_models_loss_and_greedy_decoding(lab):
    rows = lab.rows("count", "train")
    past = prompts_of(lab.model, [3])
    scores = score(lab.model, past, rows)
    answers = lab.model.generate([question for question, _ in rows], 4, past, stop=lab.tok.end)
    for b, (question, answer) in enumerate(rows):
        loss = lab.model.loss(*collate([(question, answer)], "cpu"), past)
        assert torch.isclose(scores.nats[b] / scores.tokens[b], loss, rtol=1e-4)
        assert scores.tokens[b] == len(answer)
        assert scores.right[b] == (answers[b] == answer[:-1])


def test_what_greedy_decoding_gives_is_right_and_all_else_is_wrong(lab):
    questions = [question for question, _ in lab.rows("count", "train", 12)]
    past = prompts_of(lab.model, [3])
    rows = []
    for i, (question, given) in enumerate(zip(questions, lab.model.generate(questions, 3, past))):
        changed = list(given)
        if i % 4 < 3:
            changed[i % 4] = (changed[i % 4] + 1) % lab.tok.end  # the first, a middle, the last id
        rows.append((question, changed))
    right = score(lab.model, past, rows).right
    assert right.tolist() == [0.0, 0.0, 0.0, 1.0] * 3


def test_each_arm_is_scored_behind_its_own_prompt(lab, monkeypatch):
    """Also when few tokens go through the model at once."""
    rows = lab.rows("count", "train", 12)
    past = prompts_of(lab.model, [3, 40, 1])
    together = score(lab.model, past, rows)
    monkeypatch.setitem(train.TOKENS_AT_ONCE, "cpu", 100)
    in_small_parts = score(lab.model, past, rows)
    for arm in range(3):
        part = slice(4 * arm, 4 * arm + 4)
        alone = score(lab.model, past.rows(torch.tensor([arm])), rows[part])
        assert torch.allclose(together.nats[part], alone.nats, rtol=1e-4)
        assert torch.allclose(in_small_parts.nats[part], alone.nats, rtol=1e-4)
        assert torch.equal(together.tokens[part], alone.tokens)


@pytest.mark.parametrize("limit", [1, 10, 64, 1000])
def test_parts_hold_every_row_once_in_order_and_no_more_than_the_limit(limit):
    gen = random.Random(0)
    widths = [gen.randint(1, 30) for _ in range(200)]
    order = gen.sample(range(200), 200)
    parts = list(parts_of(order, widths, limit))
    assert sum(parts, []) == order

    def slots(part):
        return len(part) * max(widths[i] for i in part)

    for part in parts:
        assert slots(part) <= limit or len(part) == 1
    for part, following in zip(parts, parts[1:]):  # and none could take one more
        assert slots([*part, following[0]]) > limit


def test_long_rows_go_through_the_model_a_few_at_a_time(lab, monkeypatch):
    monkeypatch.setitem(train.TOKENS_AT_ONCE, "cpu", 300)
    gen = random.Random(0)
    rows = [([5] * gen.choice([3, 60, 140]), [1, 2]) for _ in range(30)]
    slots = []
    scored = lab.model.scored

    def spy(idx, targets, past):
        slots.append(idx.numel() + past.positions.numel())
        return scored(idx, targets, past)

    monkeypatch.setattr(lab.model, "scored", spy)
    for lengths in ([], [40], [1, 33, 70]):
        past = prompts_of(lab.model, lengths) if lengths else None
        scores = score(lab.model, past, rows)
        assert scores.tokens.tolist() == [2.0] * 30
        assert max(slots) <= 300
        assert len(slots) < 30  # and not one by one
        slots.clear()


def nan_model(tok):
    """A base with one number that is none, as in a damaged file."""
    model = tiny(tok)
    with torch.no_grad():
        model.model.norm.weight[3] = torch.nan
    return model


def test_not_a_number_is_never_right(lab):
    """Not even where the answer is what argmax makes of it, the id 0; other arms do not notice."""
    rows = [(question, [0]) for question, _ in lab.rows("kind", "train", 4)]
    broken = score(nan_model(lab.tok), None, rows)
    assert broken.right.tolist() == [0.0] * 4
    assert broken.nats.isnan().all()
    whole, nan = PromptTuning(torch.zeros(2, 16)), PromptTuning(torch.full((2, 16), torch.nan))
    together = score(lab.model, prefill([whole, nan], lab.model), rows)
    alone = score(lab.model, whole.past(lab.model), rows[:2])
    assert torch.allclose(together.nats[:2], alone.nats, rtol=1e-4)
    assert together.right[2:].tolist() == [0.0, 0.0]


def test_among_equal_logits_the_truth_is_not_preferred(lab):
    """Two tokens with one embedding have equal logits: greedy decoding gives the first."""
    questions = [question for question, _ in lab.rows("count", "train", 8)]
    likeliest = [ids[0] for ids in lab.model.generate(questions, 1)]
    assert 0 not in likeliest
    for question, truth in zip(questions, likeliest):
        model = tiny(lab.tok)
        assert score(model, None, [(question, [truth])]).right.tolist() == [1.0]
        with torch.no_grad():
            table = model.model.embed_tokens.weight
            table[0] = table[truth]
        assert model.generate([question], 1) == [[0]]
        assert score(model, None, [(question, [truth])]).right.tolist() == [0.0]
        assert score(model, None, [(question, [0])]).right.tolist() == [1.0]


@pytest.mark.parametrize("rows, arms", [(0, 1), (3, 2)])
def test_rows_that_do_not_fit_the_arms_are_refused(tok, rows, arms):
    model = tiny(tok)
    past = model.empty_past(arms)
    with pytest.raises(InputError, match=f"{rows} rows behind {arms} soft prompts"):
        score(model, past, [([1, 2], [3])] * rows)


def test_means_of_arms_by_hand():
    nats = torch.tensor([1.0, 2.0, 3.0, 10.0])
    tokens = torch.tensor([1.0, 3.0, 2.0, 2.0])
    right = torch.tensor([1.0, 0.0, 1.0, 1.0])
    losses, accuracies = mean_of_arms(Scores(nats, tokens, right), 2)
    assert losses.tolist() == [3 / 4, 13 / 4]  # of all tokens, so a long answer counts more
    assert accuracies.tolist() == [0.5, 1.0]


# ------------------------------------------------------------------ training

KINDS = [PromptTuning, PrefixTuning]


def three_arms(model, kind):
    """Arms that differ in everything: task, rate, seed and length."""
    torch.manual_seed(0)
    arms = []
    for task, rate, seed, P in (("kind", 0.6, 0, 4), ("count", 0.2, 1, 30), ("kind", 2.0, 2, 1)):
        soft = kind.start(model, torch.randn(P, 16) * 0.2)
        arms.append(Arm(soft, task, rate, seed))
    return arms


@pytest.mark.parametrize("kind", KINDS)
def test_trained_together_is_trained_alone(lab, kind):
    rows = {task: lab.rows(task, "train") for task in ("kind", "count")}
    before = lab.model.fingerprint()
    together, alone, start = (three_arms(lab.model, kind) for _ in range(3))
    finish(fit(lab.model, together, rows, 6, 4))
    for arm in alone:
        finish(fit(lab.model, [arm], rows, 6, 4))
    for a, b, c in zip(together, alone, start):
        for p, q, r in zip(a.soft.parameters(), b.soft.parameters(), c.soft.parameters()):
            assert torch.allclose(p, q, atol=2e-4)
            assert not torch.allclose(p, r, atol=2e-3)
    assert lab.model.fingerprint() == before


def steep_loss(model, past, rows):
    return 100 * train.answer_loss(model, past, rows)


def test_training_is_adamw_with_clipping_as_written_out(lab):
    """Three steps by hand on the model's own loss, made steep so that clipping changes it."""
    model, rows = lab.model, {"kind": lab.rows("kind", "train")}
    start = torch.randn(5, 16)
    arm = Arm(PromptTuning(start), "kind", 2.0, seed=7)
    training = fit(model, [arm], rows, 100, 4, loss=steep_loss)
    for _ in range(4):  # to the place before the fourth step
        next(training)

    x = start.clone()
    m, v = torch.zeros_like(x), torch.zeros_like(x)
    spread = model.model.embed_tokens.weight.std().item()
    for step in range(3):
        soft = PromptTuning(x)
        batch = collate(draw_rows(rows["kind"], 7, step, 4), "cpu")
        (100 * model.loss(*batch, soft.past(model))).backward()
        grad = soft.embeddings.grad
        assert grad.norm() > 1
        grad = grad / grad.norm()
        m = 0.6 * m + 0.4 * grad
        v = 0.9 * v + 0.1 * grad.square()
        direction = m / (1 - 0.6 ** (step + 1)) / (v / (1 - 0.9 ** (step + 1))).sqrt()
        x = x - 2.0 * spread * (step + 1) / 5 * direction
    assert torch.allclose(arm.soft.embeddings, x, atol=2e-3)


def test_a_learning_rate_is_in_units_of_the_size_of_what_it_moves(lab):
    """For a prefix in each layer, and for keys and values apart. For what is unknown it is 1."""
    prompt = PromptTuning(torch.randn(3, 16))
    prefix = PrefixTuning.start(lab.model, torch.randn(3, 16))
    prefix.values[0].data *= 1000
    table, states = lab.model.model.embed_tokens.weight, (prefix.keys[0], prefix.values[0])
    want = [table.std().item(), *(state.square().mean().sqrt().item() for state in states), 1, 1]
    softs = (prompt, prefix, torch.nn.Linear(2, 3))
    found = [size for soft in softs for size in train.sizes(soft, lab.model)]
    assert found == pytest.approx(want)
    arms = [Arm(soft, "kind", 0.1 * i) for i, soft in enumerate(softs, 1)]
    groups = train.make_optimizer(lab.model, arms).param_groups
    rates = [0.1, 0.2, 0.2, 0.3, 0.3]
    assert [group["full_lr"] for group in groups] == pytest.approx(
        [rate * size for rate, size in zip(rates, want)]
    )
    assert {(group["betas"], group["weight_decay"]) for group in groups} == {((0.6, 0.9), 0.0)}


def test_the_learning_rate_warms_up_and_falls():
    shares = [warm_up_and_fall(step, 100) for step in range(100)]
    assert shares[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert max(shares) == 1
    assert shares[5:] == sorted(shares[5:], reverse=True)
    assert shares[60] == pytest.approx(0.5)
    assert shares[99] == pytest.approx(0.11)


def test_the_loss_and_the_examples_are_the_callers(lab):
    drawn = []

    def first_rows(rows, seed, step, size):
        drawn.append((seed, step))
        return rows[:size]

    def to_zero(model, past, rows):
        assert rows == lab.rows("kind", "train", 4)
        return past.keys[0].square().sum((1, 2, 3))  # (A,)

    soft = PrefixTuning.start(lab.model, torch.randn(3, 16))
    size = soft.keys[0].square().sum().item()
    rows = {"kind": lab.rows("kind", "train")}
    arm = Arm(soft, "kind", 0.1, seed=8)
    finish(fit(lab.model, [arm], rows, 5, 4, loss=to_zero, draw=first_rows))
    assert drawn == [(8, step) for step in range(5)]
    assert soft.keys[0].square().sum().item() < size


def test_examples_follow_their_seed_and_step():
    rows = list(range(100))
    assert draw_rows(rows, 1, 2, 16) == draw_rows(rows, 1, 2, 16)
    assert draw_rows(rows, 1, 2, 16) != draw_rows(rows, 1, 3, 16)
    assert draw_rows(rows, 1, 2, 16) != draw_rows(rows, 2, 2, 16)
    assert sorted(draw_rows(rows, 1, 2, 100)) == rows  # each once


def test_too_few_examples_are_refused():
    with pytest.raises(InputError, match="3 examples are too few for steps of 4"):
        draw_rows([1, 2, 3], seed=0, step=0, size=4)


def train_until(lab, arm, rows, last, steps=6):
    """Train an arm by itself, and stop at the place before the step `last`."""
    for step in fit(lab.model, [arm], rows, steps, 4):
        if step == last:
            return


def test_an_arm_that_leaves_keeps_its_vectors_and_the_others_learn_on(lab):
    rows = {task: lab.rows(task, "train") for task in ("kind", "count")}
    together, alone = (three_arms(lab.model, PromptTuning) for _ in range(2))
    leaves, staying, seen = (2, 4, 0), list(together), []
    for step in fit(lab.model, staying, rows, 6, 4):
        seen.append(step)
        staying[:] = [arm for arm, last in zip(together, leaves) if step < last]
    assert seen == [0, 1, 2, 3, 4]  # at 4 the last of them leaves
    for arm, other, last in zip(together, alone, leaves):
        start = other.soft.embeddings.detach().clone()
        train_until(lab, other, rows, last)
        assert torch.allclose(arm.soft.embeddings, other.soft.embeddings, atol=2e-4)
        assert torch.equal(arm.soft.embeddings, start) == (last == 0)


def test_a_loss_that_is_no_number_stops_the_training_and_names_step_and_arm(lab):
    rows = {"kind": lab.rows("kind", "train")}
    whole = Arm(PromptTuning(torch.randn(3, 16)), "kind", 1.0)
    said = "^training step 2: the loss of kind, seed 5, rate 0.25 is nan: give"
    broken = Arm(PromptTuning(torch.randn(3, 16)), "kind", 0.25, seed=5)
    with pytest.raises(train.NotFinite, match=said):
        for step in fit(lab.model, [whole, broken], rows, 4, 4):
            if step == 2:
                broken.soft.embeddings.data[1, 1] = torch.nan
    with pytest.raises(train.NotFinite, match="^training step 7: .*seed 5, rate 0.25 is inf"):
        train.require_finite(torch.tensor([1.0, torch.inf]), [whole, broken], 7)


def test_an_arm_that_is_no_number_has_learned_nothing(lab, few_tasks, monkeypatch):
    """It does not leave as one that has learned: the training stops."""

    def start(lab, task, length, generator):
        return torch.full((length, 16), torch.nan)

    monkeypatch.setattr(train, "STARTS", {"broken": Start("broken", "red", start)})
    with pytest.raises(train.NotFinite, match="training step 0: the loss of first-letter-last"):
        train.compare_starts(lab, SMALL, 0)


LONG = "Return the matrix of a graph and open every file and " * 5


def test_what_trains_and_is_measured_is_pinned(tok):
    """Behind a text that is longer than the window (24), only a pinned prompt is seen."""
    model = tiny(tok)
    data = {split: [Sentence(LONG, "numpy", "class")] * 4 for split in ("train", "valid", "test")}
    lab = Lab(model, tok, data)
    rows = lab.rows("kind", "train")
    assert min(len(question) for question, _ in rows) > 24 + 3
    soft = PromptTuning(torch.randn(3, 16))
    sliding = model.loss(*collate(rows, "cpu"), soft.past(model, pinned=False)).item()
    pinned = model.loss(*collate(rows, "cpu"), soft.past(model)).item()
    assert abs(pinned - sliding) > 0.01
    arm = Arm(soft, "kind", 1.0)
    [row] = measure(lab, [arm], 0, "valid", 4)
    assert row["loss"] == pytest.approx(pinned, abs=1e-3)
    start = soft.embeddings.detach().clone()
    finish(fit(model, [arm], {"kind": rows}, 1, 4))
    assert not torch.equal(soft.embeddings, start)


def test_measured_rows_say_which_arm_they_are_of(lab):
    arms = three_arms(lab.model, PromptTuning)
    for number, arm in enumerate(arms):
        arm.columns = {"start": f"start {number}"}
    measured = measure(lab, arms, 5, "valid", 8)
    for number, (arm, row) in enumerate(zip(arms, measured)):
        rows = lab.rows(arm.task, "valid", 8)
        past = arm.soft.past(lab.model)
        assert row == {
            "task": arm.task,
            "start": f"start {number}",
            "seed": arm.seed,
            "step": 5,
            "split": "valid",
            "loss": pytest.approx(lab.model.loss(*collate(rows, "cpu"), past).item(), abs=1e-3),
            "accuracy": pytest.approx(score(lab.model, past, rows).right.mean().item(), abs=1e-4),
        }


# ------------------------------------------------------------------ starts


def test_starts_from_text_are_the_embeddings_of_their_text(lab):
    table = lab.model.model.embed_tokens.weight
    said = {
        "related": "What is the first letter of the last word?",
        "other": "Decide: is it a function or is it a class?",
        "unrelated": "The night train to the coast was late again, and it had begun to rain.",
    }
    for start, text in said.items():
        embeddings = STARTS[start].embeddings(lab, "first-letter-last", 8, None)
        assert torch.equal(embeddings, table[lab.tok.encode(text)[:8]])


def test_related_text_is_of_a_wording_that_the_base_never_saw_where_there_is_one():
    for name, task in TASKS.items():
        text = train.related_text(name)
        assert text in task.hard_prompts
        assert (text in task.unseen) == bool(task.unseen)


def test_starts_from_noise_are_what_they_are_called(lab):
    for start in ("vocab", "matched", "normal"):
        generator = torch.Generator().manual_seed(3)
        embeddings = STARTS[start].embeddings(lab, "kind", 8, generator)
        generator = torch.Generator().manual_seed(3)
        assert torch.equal(embeddings, initial_embeddings(lab.model, 8, start, generator=generator))


def test_a_new_arm_has_its_own_start_rate_and_seed(lab):
    for seed in (0, 5):
        arm = new_arm(lab, "count", "prompt", "vocab", 6, 3, seed)
        generator = torch.Generator().manual_seed(seed)
        start = initial_embeddings(lab.model, 6, "vocab", generator=generator)
        assert torch.equal(arm.soft.embeddings, start)
        assert (arm.task, arm.rate, arm.seed) == ("count", 3, seed)


def test_a_new_prefix_is_pinned_from_the_start(lab):
    """With more virtual tokens than the window (24) that makes a difference."""
    arm = new_arm(lab, "count", "prefix", "normal", 40, 3, 0)
    generator = torch.Generator().manual_seed(0)
    embeddings = initial_embeddings(lab.model, 40, "normal", generator=generator)
    text = torch.arange(9)[None]
    prompt = PromptTuning(embeddings).past(lab.model)
    logits, _ = lab.model(text, arm.soft.past(lab.model))
    assert isinstance(arm.soft, PrefixTuning)
    assert torch.allclose(logits, lab.model(text, prompt)[0], atol=1e-5)


# ------------------------------------------------------------------ words as vectors


@pytest.fixture
def far_sighted(tok):
    """A base without a window: words in a text are seen from everywhere, as a pinned prompt is."""
    return Lab(make_model(vocab_size=tok.end + 1, n_layer=1, n_embd=16), tok, some_data())


@pytest.mark.parametrize("words", ["", "Say it.", "Is this a class or a function?"])
def test_words_as_vectors_are_the_words_in_the_text(far_sighted, words):
    lab = far_sighted
    arm = arm_of_tokens(lab, "kind", lab.tok.encode(words))
    [row] = measure(lab, [arm], 0, "test", 12)
    rows = [lab.tok.example(*pair, words) for pair in TASKS["kind"].pairs(lab.data["test"][:12])]
    assert row["loss"] == pytest.approx(lab.model.loss(*collate(rows, "cpu")).item(), abs=1e-4)
    assert arm.soft.length == len(lab.tok.encode(words))


def test_the_best_hard_prompt_is_chosen_on_the_validation_sentences(lab, monkeypatch):
    accuracies = {  # of hard prompts of one, two and three tokens
        "valid": {1: 0.2, 2: 0.6, 3: 0.4},
        "test": {1: 0.9, 2: 0.1, 3: 0.3},
    }

    def by_hand(lab, arms, step, split, n):
        assert n == FINAL
        return [{"accuracy": accuracies[split][arm.soft.length]} for arm in arms]

    mine = Task("mine", "mine", TASKS["kind"].answer, unseen=["a", "ab"], practised=("abc",))
    monkeypatch.setitem(TASKS, "mine", mine)
    monkeypatch.setattr(train, "measure", by_hand)
    assert best_hard_prompt(lab, "mine") == "ab"


def test_the_nearest_text_of_words_is_the_words(lab):
    ids = lab.tok.encode("Return the matrix of a graph.")
    table = lab.model.model.embed_tokens.weight
    soft = PromptTuning(3 * table[ids] + 0.001 * torch.randn(len(ids), 16))
    assert train.nearest_text(lab, soft) == ids


def greedy_answer(lab, text, past):
    question, _ = lab.tok.example(text, "")
    [ids] = lab.model.generate([question], 8, past, stop=lab.tok.end)
    return " ".join(lab.tok.decode(ids).split())


def test_an_answer_is_what_greedy_decoding_gives_behind_the_prompt(lab, monkeypatch):
    text, soft = "Return the graph.", PromptTuning(torch.randn(3, 16))
    answer = train.answer_to(lab, text, soft)
    assert (
        answer == greedy_answer(lab, text, soft.past(lab.model)) != greedy_answer(lab, text, None)
    )
    monkeypatch.setattr(lab.model, "generate", lambda *more, stop: [lab.tok.encode(" \n")])
    assert train.answer_to(lab, text, soft) == "(nothing)"


def test_one_text_is_answered_without_a_prompt_with_words_and_with_vectors(
    far_sighted, monkeypatch, capsys
):
    lab = far_sighted
    monkeypatch.setattr(train, "best_hard_prompt", lambda *arguments: "Say it.")
    train.show_one_text(lab, 3)
    asked, *answers = capsys.readouterr().out.splitlines()
    text = "Compute the eigenvalues of a square matrix."
    assert asked.split("   ") == [text, f"(asked for: {TASKS[RULE].question})"]
    words = torch.tensor([lab.tok.encode("Say it.")])  # (1, P)
    _, behind_words = lab.model(words)
    arm = new_arm(lab, RULE, "prompt", "related", 16, 1, 3)
    finish(fit(lab.model, [arm], {RULE: lab.rows(RULE, "train")}, 40, 16))
    pasts = (None, behind_words, arm.soft.past(lab.model))
    names = ("no prompt:", "Say it.", "16 learned vectors:")
    want = [f"    {name} {greedy_answer(lab, text, past)}" for name, past in zip(names, pasts)]
    assert [answer.rstrip() for answer in answers] == [line.rstrip() for line in want]


def test_a_prompt_that_says_one_thing_is_shown_with_what_it_says_and_does(lab, monkeypatch, capsys):
    """Trained by hand, to twice the embeddings of a text: so that it says this text."""
    starts_at, says = "What is the last letter of the second word?", "Count the letters of"
    table = lab.model.model.embed_tokens.weight

    def by_hand(lab, arms, steps, title, schedule):
        [arm] = arms
        assert (steps, schedule, arm.rate, arm.seed) == (200, constant, 1 / 64, 5)
        assert torch.equal(arm.soft.embeddings, table[lab.tok.encode(starts_at)])
        arm.soft.embeddings.data = 2 * table[lab.tok.encode(says)]

    def accuracy(lab, arms, step, split, n):
        assert (split, n) == ("test", FINAL)
        tokens = table[lab.tok.encode(says)]
        return [{"accuracy": 0.25 if arm.soft.embeddings.equal(tokens) else 0.75} for arm in arms]

    monkeypatch.setattr(train, "train_arms", by_hand)
    monkeypatch.setattr(train, "measure", accuracy)
    train.show_what_words_hide(lab, 5)
    vectors, does, tokens = capsys.readouterr().out.splitlines()
    assert repr(says) in vectors
    assert does.startswith("    0.75 right") and TASKS[RULE].question in does
    assert tokens.startswith("    0.25 right with these tokens")


# ------------------------------------------------------------------ rows


def test_rows_with_these_values_in_these_columns():
    rows = [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}]
    assert where(rows, a=1) == rows[:2]
    assert where(rows, a=1, b="y") == [rows[1]]
    assert where(rows, a=3) == []


def test_rows_are_read_as_they_were_written(tmp_path):
    words = 'Say "it", please:\nnow. é'
    rows = [
        {"task": "library", "rate": 1 / 16, "step": 0, "loss": 0.5, "words": words},
        {"task": "mine", "rate": 4, "step": -1, "loss": math.inf, "words": ""},
    ]
    write_rows(tmp_path / "some.csv", rows)
    again = read_rows(tmp_path / "some.csv")
    assert again == rows
    assert [list(map(type, row.values())) for row in again] == [
        list(map(type, row.values())) for row in rows
    ]
    write_rows(tmp_path / "some.csv", [{"loss": math.nan}])
    [row] = read_rows(tmp_path / "some.csv")
    assert math.isnan(row["loss"])
    assert [path.name for path in tmp_path.iterdir()] == ["some.csv"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("a,b\n1,2\n3", "row 2 is cut"),
        ("a,b\n1,2,3\n4,5\n", "row 1 is cut"),
        ("a,b\n", "no rows"),
        ("", "no rows"),
    ],
)
def test_a_table_that_is_cut_or_empty_is_refused_by_name(tmp_path, text, message):
    (tmp_path / "some.csv").write_text(text)
    with pytest.raises(InputError, match=f"some.csv: .*{message}.*: remove the file"):
        read_rows(tmp_path / "some.csv")


def test_a_table_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write_rows(tmp_path / "some.csv", [{"a": 1}])

    def killed(*paths):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_rows(tmp_path / "some.csv", [{"a": 2}])
    assert read_rows(tmp_path / "some.csv") == [{"a": 1}]
    assert len(list(tmp_path.iterdir())) == 1


def test_averages_are_those_of_the_rows_at_each_place_in_order():
    rows = [{"x": x, "y": y} for x, y in ((16, 1), (2, 6), (16, 3), (16, 8), (2, 8))]
    assert train.averages_of(rows, "x", "y", mean) == {2: 7, 16: 4}
    assert train.averages_of(rows, "x", "y", max) == {2: 8, 16: 8}
    assert list(train.averages_of(rows, "x", "y", mean)) == [2, 16]


@pytest.mark.parametrize("heights", [[0.1], [0.5, 0.5, 0.5], [0.0, 0.97, 0.98, 1.0], [0.2, 0.9]])
def test_heights_are_moved_apart_and_their_mean_stays(heights):
    moved = moved_apart(heights, 0.1)
    assert all(high - low > 0.1 - 1e-9 for low, high in zip(moved, moved[1:]))
    assert mean(moved) == pytest.approx(mean(heights))
    if all(high - low >= 0.1 for low, high in zip(heights, heights[1:])):
        assert moved == pytest.approx(heights)


# ------------------------------------------------------------------ experiment 1: initialization


def curve_alone(lab, plan, task, start, rate, seed):
    """The rows of an arm of experiment 1 that is trained by itself, at a constant rate."""
    sweep, rows = train.TASKS[task].sweep, []
    arm = new_arm(lab, task, "prompt", start, plan.start_length, rate, seed)
    arm.columns = {"start": start, "rate": rate}
    train_rows = {task: lab.rows(task, "train")}
    for step in fit(lab.model, [arm], train_rows, sweep.steps, 16, schedule=lambda *_: 1.0):
        if step % sweep.every == 0:
            rows += measure(lab, [arm], step, "valid", CURVE)
    return rows


def until_learned(curve, threshold):
    """The rows up to the first that is at the threshold."""
    kept = []
    for row in curve:
        kept.append(row)
        if row["loss"] <= threshold:
            break
    return kept


def test_every_arm_of_the_starts_learns_as_alone_and_leaves_when_it_has_learned(
    lab, few_tasks, monkeypatch
):
    """Each start that takes part, at each rate, with each seed, once."""
    curves = []
    for start in ("related", "vocab", "normal"):
        for rate in (1, 4):
            for seed in (10, 11):
                curves.append(curve_alone(lab, SMALL, RULE, start, rate, seed))
    for start in ("related", "vocab"):
        curves.append(curve_alone(lab, SMALL, FACTS, start, 4, 10))
    losses = sorted(curve[1]["loss"] for curve in curves)
    threshold = (losses[6] + losses[7]) / 2  # half of them have learned after two steps
    monkeypatch.setattr(train, "THRESHOLD", threshold)
    curves = [until_learned(curve, threshold) for curve in curves]
    assert {2, 4} <= {len(curve) for curve in curves if curve[0]["task"] == RULE}
    want = sum(curves, [])
    found = train.compare_starts(lab, SMALL, 10)
    assert len(found) == len(want)
    for row in want:
        columns = {name: row[name] for name in ("task", "start", "rate", "seed", "step", "split")}
        [same] = where(found, **columns)
        assert list(same) == list(row)
        assert same["loss"] == pytest.approx(row["loss"], abs=3e-3)


def start_rows(task, start, rate, steps, last=32, every=2):
    """Rows of initialization.csv for a start at a rate: seed i has learned after steps[i]."""
    rows = []
    for seed, learned in enumerate(steps):
        arm = {"task": task, "start": start, "rate": rate, "seed": seed}
        for step in range(0, min(learned, last) + 1, every):
            loss = THRESHOLD if step >= learned else 2.0
            rows.append({**arm, "step": step, "split": "valid", "loss": loss, "accuracy": 0.5})
    return rows


NEVER = math.inf
STEPS = {  # of the seeds, at each start and rate
    ("related", 1): (4, 4, 30),
    ("related", 4): (2, 6, 2),
    ("related", 16): (0, 0, 6),
    ("normal", 1): (32, 18, 32),  # at the last of 32 steps
    ("normal", 4): (8, 8, NEVER),
    ("normal", 16): (NEVER, 2, NEVER),
}
MEDIANS = {
    "related": {1: 4, 4: 2, 16: 0},
    "normal": {1: 32, 4: 8, 16: NEVER},
}


def hand_made_starts(task=RULE, steps=STEPS, last=32):
    rows = []
    for (start, rate), of_seeds in steps.items():
        rows += start_rows(task, start, rate, of_seeds, last)
    return rows


def test_steps_needed_are_those_of_each_seed():
    needed = steps_needed(hand_made_starts() + start_rows(FACTS, "related", 1, [0]))
    assert len(needed) == 3 * len(STEPS) + 1
    for (start, rate), of_seeds in STEPS.items():
        own = where(needed, task=RULE, start=start, rate=rate)
        assert [row["seed"] for row in own] == [0, 1, 2]
        assert tuple(row["steps"] for row in own) == of_seeds
    [row] = where(needed, task=FACTS)
    assert row == {"task": FACTS, "start": "related", "rate": 1, "seed": 0, "steps": 0}


def test_what_counts_is_the_first_step_at_the_threshold():
    arm = {"task": RULE, "start": "vocab", "rate": 1, "seed": 0}
    losses = {0: 3.0, 2: THRESHOLD + 0.01, 4: THRESHOLD, 6: 0.7, 8: 0.1}
    rows = [{**arm, "step": step, "loss": loss} for step, loss in losses.items()]
    for some, steps in ((rows, 4), (rows[::-1], 4), (rows[:2], NEVER), (rows[3:], 8)):
        assert steps_needed(some) == [{**arm, "steps": steps}]


def test_the_best_rate_is_that_of_the_smallest_median():
    needed = steps_needed(hand_made_starts())
    assert best_rate(needed, "related") == 16
    assert best_rate(needed, "normal") == 4
    never = steps_needed(start_rows(RULE, "vocab", 4, [NEVER]) + start_rows(RULE, "vocab", 1, [9]))
    assert best_rate(never, "vocab") == 1


# ------------------------------------------------------------------ experiment 2: length


def test_prompts_and_prefixes_of_each_length_are_what_their_rows_say(lab, few_tasks):
    results = train.compare_lengths(lab, SMALL, 10)
    trained, want = [row for row in results if row["method"] in ("prompt", "prefix")], []
    for task, method, steps in ((RULE, "prompt", 3), (RULE, "prefix", 2), (FACTS, "prompt", 2)):
        for split in ("valid", "test"):
            for length in SMALL.lengths:
                want += [(task, method, length, seed, steps, split) for seed in (10, 11)]
    columns = ("task", "method", "length", "seed", "step", "split")
    assert [tuple(row[name] for name in columns) for row in trained] == want
    for row in trained:
        rate = {"prompt": 3, "prefix": 0.1}[row["method"]]
        arm = new_arm(lab, row["task"], row["method"], "vocab", row["length"], rate, row["seed"])
        rows = {arm.task: lab.rows(arm.task, "train")}
        finish(fit(lab.model, [arm], rows, row["step"], 16))
        asked = collate(lab.rows(arm.task, row["split"], FINAL), "cpu")
        loss = lab.model.loss(*asked, arm.soft.past(lab.model)).item()
        assert row["loss"] == pytest.approx(loss, abs=2e-3)
    for task in (RULE, FACTS):
        first = where(results, task=task)[:6]
        assert str(first) == str(untrained(lab, task))  # as text, since NaN is not NaN
    assert {row["task"] for row in results} == {RULE, FACTS}  # none of a task without steps


def test_the_commonest_answer_is_that_of_the_training_sentences(lab):
    """On the test sentences another answer is commoner: that does not count."""
    numpy, torch_ = (Sentence("Some text.", name, "class") for name in ("numpy", "torch"))
    lab.data["train"] = [numpy] * 40
    for split in ("valid", "test"):
        lab.data[split] = [torch_] * 180 + [numpy] * 60 + [torch_] * 99
    always = where(untrained(lab, "library"), method="always")
    assert [row["split"] for row in always] == ["valid", "test"]
    for row in always:
        assert row["accuracy"] == 0.25  # 60 of the first 240
        assert math.isnan(row["loss"])


def test_what_needs_no_training_is_the_base_with_and_without_words(far_sighted, monkeypatch):
    lab = far_sighted
    monkeypatch.setattr(train, "best_hard_prompt", lambda *arguments: "Say it.")
    rows = untrained(lab, "count")
    for split in ("valid", "test"):
        for method, words in (("none", ""), ("wording", "Say it.")):
            [row] = where(rows, method=method, split=split)
            asked = [lab.tok.example(*p, words) for p in TASKS["count"].pairs(lab.data[split])]
            loss = lab.model.loss(*collate(asked, "cpu")).item()
            assert row["loss"] == pytest.approx(loss, abs=1e-3)
    assert len(rows) == 6
    assert {(row["task"], row["length"], row["step"]) for row in rows} == {("count", 0, 0)}


def test_the_error_of_a_mean_is_of_the_seeds_and_of_the_sentences():
    p, error = mean_error([0.6, 0.8])
    of_seeds = 0.02 / 2  # the variance of 0.6 and 0.8 is 0.02
    of_sentences = 0.7 * 0.3 / 240
    assert p == pytest.approx(0.7)
    assert error == pytest.approx((of_seeds + of_sentences) ** 0.5)
    assert mean_error([0.7]) == pytest.approx((0.7, of_sentences**0.5))
    assert mean_error([1.0]) == (1.0, 0.0)


def length_rows(task, method, accuracies, split="valid", step=9):
    """Rows of length.csv: accuracies[length] has one for each seed."""
    rows = []
    for length, of_seeds in accuracies.items():
        for seed, accuracy in enumerate(of_seeds):
            row = {"task": task, "method": method, "length": length, "seed": seed, "step": step}
            rows.append({**row, "split": split, "loss": 1.0, "accuracy": accuracy})
    return rows


def test_the_one_standard_error_rule(monkeypatch):
    """The error is of the best length: 32 has 0.81, and an error of 0.027."""
    accuracies = {1: (0.5, 0.6), 4: (0.78, 0.8), 8: (0.7, 0.8), 16: (0.8, 0.81), 32: (0.8, 0.82)}
    rows = length_rows("library", "prompt", accuracies)
    rows += length_rows("library", "prompt", {1: (0.9, 0.9), 16: (0.1, 0.1)}, "test")
    rows += length_rows("library", "prefix", {1: (0.9, 0.9)})
    rows += length_rows("count", "prompt", {1: (0.9, 0.9)})
    assert chosen_length(rows, "library", "prompt") == 4
    monkeypatch.setattr(train, "FINAL", 10**9)  # now the error of 32 is 0.01
    assert chosen_length(rows, "library", "prompt") == 16
    alone = length_rows("library", "prompt", {1: (0.5,), 4: (0.9,)})
    assert chosen_length(alone, "library", "prompt") == 4
    equal = length_rows("library", "prompt", {1: (0.85, 0.85), 4: (0.9, 0.9), 16: (0.8, 1.0)})
    assert chosen_length(equal, "library", "prompt") == 4  # of equals the shortest, and its error


# ------------------------------------------------------------------ one entry


def own_task(name, **more):
    return Task(f"my {name}", f"my {name} question", lambda s: s.library, ["Say it."], **more)


@pytest.mark.parametrize("plan", [Plan(start_seeds=1, lengths=(1, 4)), QUICK], ids=["", "quick"])
def test_a_task_and_a_start_are_one_entry(lab, few_tasks, plan, monkeypatch):
    """They are in both experiments and in both pictures, one task with steps for a prompt only
    beside others; and when they are no more in the code, their rows are not drawn."""
    monkeypatch.setattr(train, "THRESHOLD", math.inf)  # all have learned at the first look
    starts = {
        "vocab": STARTS["vocab"],
        "mine": Start("my start", "#123456", train.from_noise("vocab")),
    }
    own = {"first": own_task("first"), "second": own_task("second", colour="#654321")}
    own["third"] = own_task("third", steps={"prompt": 100}, sweep=Sweep(rates=(2,)))
    few_tasks.update(own)
    monkeypatch.setattr(train, "STARTS", starts)
    compared = train.compare_starts(lab, plan, 0)
    lengths = train.compare_lengths(lab, plan._replace(part=0.01), 0)
    for name, task in own.items():
        assert {row["start"] for row in where(compared, task=name)} == set(starts)
        for method in plan.methods:
            assert bool(where(lengths, task=name, method=method)) == (method in task.steps)

    def panels_of_starts():
        return {
            axis.get_title(): set(labels_in(axis))
            for axis in train.draw_initialization(compared).axes
        }

    def labels_of_lengths():
        return [labels_in(axis) for axis in train.draw_length(lengths).axes]

    panels = panels_of_starts()
    assert list(panels) == [f"{t.label}: {t.question}" for t in few_tasks.values() if t.sweep]
    assert set(map(frozenset, panels.values())) == {frozenset({"sampled tokens", "my start"})}
    for method, labels in zip(plan.methods, labels_of_lengths()):
        named = {label.split("\n")[0] for label in labels}
        assert named == {t.label for t in few_tasks.values() if method in t.steps}
    del starts["mine"], few_tasks["first"], few_tasks["third"]
    panels = panels_of_starts()
    assert [title for title in panels if "my" in title] == ["my second: my second question"]
    assert set(map(frozenset, panels.values())) == {frozenset({"sampled tokens"})}
    for labels in labels_of_lengths():
        assert [label.split("\n")[0] for label in labels if "my" in label] == ["my second"]


# ------------------------------------------------------------------ pictures, hand-made rows


class Drawn(NamedTuple):
    """What stands in an axis in one colour; marks as (x, y)."""

    lines: list[dict]  # {x: y} each
    filled: list
    empty: list
    rings: list
    dots: list


def drawn(axis, colour):
    found = Drawn([], [], [], [], [])
    for line in axis.lines:
        points = list(zip(line.get_xdata(), line.get_ydata()))
        if line.get_color() != colour:
            continue
        if line.get_marker() == ".":
            found.dots.extend(points)
        elif line.get_marker() == "o":
            assert line.get_markerfacecolor() == "none"
            found.rings.extend(points)
        else:
            found.lines.append(dict(points))
    for marks in axis.collections:
        for (x, y), face, edge in zip(
            marks.get_offsets().tolist(),
            marks.get_facecolors(),
            marks.get_edgecolors().repeat(99, 0),
        ):
            if matplotlib.colors.same_color(edge, colour):
                kind = found.empty if matplotlib.colors.same_color(face, "white") else found.filled
                kind.append((x, y))
    return found


def labels_in(axis):
    """{label: its text object} of the lines of an axis."""
    return {text.get_text(): text for text in axis.texts if text.get_weight() == "bold"}


def laid_out(figure):
    """The figure with everything in its place, as it is written."""
    figure.draw_without_rendering()
    return figure


def words_of(figure):
    """What is written above and below the axes."""
    words = [figure.get_suptitle(), figure.get_supxlabel()]
    for axis in figure.axes:
        words += [axis.get_title(), axis.get_xlabel(), axis.get_ylabel()]
    return words


def test_the_starts_are_drawn_as_the_medians_of_their_seeds():
    """A start that has not learned stands as an empty mark at the end of its own task's budget."""
    rows = hand_made_starts() + hand_made_starts(FACTS, last=160)
    axes = train.draw_initialization(rows).axes
    assert len(axes) == 2
    for axis, last in zip(axes, (32, 160)):
        for start, medians in MEDIANS.items():
            found = drawn(axis, STARTS[start].colour)
            heights = {rate: min(steps, last) for rate, steps in medians.items()}
            assert found.lines == [heights]
            assert found.filled == [mark for mark in medians.items() if mark[1] < NEVER]
            assert found.empty == [(rate, last) for rate in medians if medians[rate] == NEVER]
            dots = []
            for (name, rate), seeds in STEPS.items():
                if name == start:
                    dots += [(rate, min(steps, last)) for steps in seeds]
            assert sorted(found.dots) == sorted(dots)
        assert drawn(axis, STARTS["related"].colour).rings == [(16, 0)]
        assert drawn(axis, STARTS["normal"].colour).rings == [(4, 8)]
        said = [text.get_text() for text in axis.texts]
        assert f"empty: not learned in {last} steps" in said


def test_zero_steps_have_a_place_inside_the_axes():
    [axis] = laid_out(train.draw_initialization(hand_made_starts())).axes
    to_axis = axis.transData + axis.transAxes.inverted()
    x, zero = to_axis.transform((16, 0))
    _, one = to_axis.transform((16, 1))
    _, two = to_axis.transform((16, 2))
    assert 0 < zero < one < two < 1 and 0 < x < 1


@pytest.mark.parametrize("ends", [(0, 2, 4, 8, 16, 30), (8,) * 6, (30, 30, 4, 4, 0, 0)])
def test_each_line_has_its_name_at_its_end_in_order_and_none_overlaps(ends):
    rows = []
    for start, end in zip(STARTS, ends):
        rows += start_rows(RULE, start, 1, [20]) + start_rows(RULE, start, 4, [end])
    [axis] = laid_out(train.draw_initialization(rows)).axes
    labels = labels_in(axis)
    assert {name: text.get_color() for name, text in labels.items()} == {
        start.label: start.colour for start in STARTS.values()
    }
    boxes = [labels[start.label].get_window_extent() for start in STARTS.values()]
    for i, box in enumerate(boxes):
        for j, other in enumerate(boxes):
            assert i == j or not box.overlaps(other)
            if ends[i] < ends[j]:
                assert box.y0 < other.y0


def test_a_name_alone_stands_at_the_height_of_its_line():
    for steps in (0, 7, 30):
        rows = start_rows(RULE, "vocab", 1, [20], every=1) + start_rows(
            RULE, "vocab", 4, [steps], every=1
        )
        [axis] = laid_out(train.draw_initialization(rows)).axes
        [label] = labels_in(axis).values()
        _, end = axis.transData.transform((4, steps))
        _, middle = label.get_transform().transform(label.get_position())
        assert middle == pytest.approx(end, abs=1)


LENGTHS = {  # of three seeds at 1, 4 and 16 vectors; the chosen lengths are 1, 4 and 16
    RULE: ((0.95, 0.95, 0.95), (0.9, 0.95, 0.94), (0.95, 0.9, 0.94)),
    FACTS: ((0.2, 0.4, 0.9), (0.9, 0.9, 0.9), (0.9, 0.9, 0.9)),
    "swap-4": ((0.1, 0.1, 0.1), (0.4, 0.4, 0.4), (0.8, 0.8, 0.8)),
}


def hand_made_lengths(tasks=LENGTHS):
    """Prompts of three tasks and prefixes of two. A test accuracy is 0.01 below its validation."""
    rows = []
    for place, (task, accuracies) in enumerate(tasks.items()):
        for split, less in (("valid", 0.0), ("test", 0.01)):
            for column, name in enumerate(UNTRAINED):
                accuracy = 0.1 * place + 0.03 * column + less
                rows += length_rows(task, name, {0: (accuracy,)}, split, step=0)
            of_prompts = {}
            for length, seeds in zip((1, 4, 16), accuracies):
                of_prompts[length] = [accuracy - less for accuracy in seeds]
            rows += length_rows(task, "prompt", of_prompts, split, step=100 + place)
            if task != "swap-4":
                rows += length_rows(task, "prefix", {1: (0.5 - less,), 4: (0.5,)}, split, step=40)
    return rows


def test_accuracies_are_drawn_as_the_means_of_the_test_sentences_over_the_length():
    """The ring is at the length that is chosen on the validation sentences."""
    figure = train.draw_length(hand_made_lengths())
    prompts, prefixes = figure.axes
    for (task, accuracies), chosen in zip(LENGTHS.items(), (1, 4, 16)):
        found = drawn(prompts, TASKS[task].colour)
        means = [mean(seeds) - 0.01 for seeds in accuracies]
        [line] = [line for line in found.lines if len(line) > 1]
        assert line == pytest.approx(dict(zip((1, 4, 16), means)))
        assert found.rings == [pytest.approx((chosen, line[chosen]))]
        dots = []
        for length, seeds in zip((1, 4, 16), accuracies):
            dots += [pytest.approx((length, accuracy - 0.01)) for accuracy in seeds]
        assert [dot for dot in found.dots if dot[0] >= 1] == dots
        assert not found.empty
    for task in (RULE, FACTS):
        found = drawn(prefixes, TASKS[task].colour)
        assert {1: 0.49, 4: 0.5} in found.lines
    assert drawn(prefixes, TASKS["swap-4"].colour) == Drawn([], [], [], [], [])
    assert [axis.get_title() for axis in figure.axes] == ["prompt tuning", "prefix tuning"]
    assert set(labels_in(prompts)) == {
        "a rule\n100 steps",
        "two facts\n101 steps",
        "eight facts\n102 steps",
    }
    assert set(labels_in(prefixes)) == {"a rule\n40 steps", "two facts\n40 steps"}


def test_what_needs_no_training_stands_over_its_own_name_left_of_the_lengths():
    for axis in train.draw_length(hand_made_lengths()).axes:
        names = [text.get_text() for text in axis.get_xticklabels()]
        places = dict(zip(names, axis.get_xticks()))
        assert names[3:] == ["1", "4", "16"]
        said = {"always": "commonest\nanswer", "none": "no\nprompt", "wording": "best hard\nprompt"}
        for place, task in enumerate((RULE, FACTS)):
            marks = dict(drawn(axis, TASKS[task].colour).filled)
            for column, name in enumerate(UNTRAINED):
                want = 0.1 * place + 0.03 * column + 0.01  # of the test sentences
                assert places[said[name]] < 0.5
                assert marks[places[said[name]]] == pytest.approx(want)


def test_names_of_the_lengths_do_not_overlap_where_all_lines_end_together():
    same = {task: ((0.9,), (0.9,), (0.9,)) for task in LENGTHS}
    figure = laid_out(train.draw_length(hand_made_lengths(same)))
    for axis in figure.axes:
        boxes = [text.get_window_extent() for text in labels_in(axis).values()]
        for i, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:i])


def test_titles_say_what_is_drawn_and_hold_no_finding():
    """They stay the same when the results are turned round."""
    turned = {key: STEPS[other] for key, other in zip(STEPS, reversed(STEPS))}
    figure, other = (train.draw_initialization(hand_made_starts(steps=s)) for s in (STEPS, turned))
    assert words_of(figure) == words_of(other)
    assert figure.get_suptitle() == "Steps until a prompt has learned a task, from each start"
    assert "line: median of the seeds" in figure.get_supxlabel()
    assert figure.axes[0].get_title() == "a rule: first letter of the last word"
    assert "constant" in figure.axes[0].get_xlabel()
    assert f"{THRESHOLD} nats" in figure.axes[0].get_ylabel()
    turned = {task: LENGTHS[other] for task, other in zip(LENGTHS, reversed(LENGTHS))}
    figure, other = (train.draw_length(hand_made_lengths(tasks)) for tasks in (LENGTHS, turned))
    assert words_of(figure) == words_of(other)
    assert "after a budget of steps" in figure.get_suptitle()
    assert "line: mean of the seeds" in figure.get_supxlabel()
    assert figure.axes[0].get_xlabel() == "virtual tokens"
    assert f"{FINAL} test sentences" in figure.axes[0].get_ylabel()


def test_a_picture_is_the_same_whatever_a_matplotlibrc_says(tmp_path):
    """text.usetex would need LaTeX."""
    pictures = []
    for name, settings in (("a", {}), ("b", {"text.usetex": True, "lines.linewidth": 9})):
        with matplotlib.rc_context(settings):
            write_picture(tmp_path / f"{name}.png", lambda rows: train.panels(1)[0], [])
        pictures.append((tmp_path / f"{name}.png").read_bytes())
    assert pictures[0] == pictures[1]
    assert pictures[0].startswith(b"\x89PNG")


BACKEND = """
import importlib.machinery, importlib.metadata, os

# As if matplotlib_inline was not there: neither the package, nor what pip wrote about it.
find, written = importlib.machinery.PathFinder.find_spec, importlib.metadata.entry_points
def find_others(name, *more):
    return None if name.startswith("matplotlib_inline") else find(name, *more)
importlib.machinery.PathFinder.find_spec = find_others
importlib.metadata.entry_points = lambda **group: []
import train
print(os.environ.get("MPLBACKEND"))
train.write_picture("one.png", lambda rows: train.panels(1)[0], [])

importlib.machinery.PathFinder.find_spec = find
os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
importlib.reload(train)
print(os.environ.get("MPLBACKEND"))
"""


def test_the_backend_of_a_notebook_is_kept_where_it_is_installed_and_does_no_harm_where_not(
    tmp_path,
):
    backend = "module://matplotlib_inline.backend_inline"
    kept = backend if importlib.util.find_spec("matplotlib_inline") else "None"
    done = run_python("-c", BACKEND, cwd=tmp_path, MPLBACKEND=backend, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["None", "one.png", kept]


# ------------------------------------------------------------------ progress and messages


def test_progress_gives_every_step_and_says_what_goes_on(capsys, monkeypatch):
    """In a file: a line for each ten seconds, with the share done and the time left."""
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(train.time, "time", lambda: next(clock))
    assert list(train.progress(range(10), 10, "title")) == list(range(10))
    lines = capsys.readouterr().err.splitlines()
    assert [line.strip() for line in lines[:2]] == [
        "title:  20 %, 0:48 left",
        "title:  50 %, 0:24 left",
    ]
    assert lines[-1].strip() == "title: 0:44 minutes"
    assert train.clock(59.9) == "0:59"
    assert train.clock(754) == "12:34"


def test_what_a_user_can_mend_is_one_line_and_exit_code_2(capsys):
    def refuse():
        raise InputError("one\nmessage:   a value,\na fix")

    def no_file():
        open("nowhere.txt")

    for work, message in ((refuse, "error: one message: a value, a fix"), (no_file, "nowhere.txt")):
        with pytest.raises(SystemExit) as stop:
            train.guard(work)
        [line] = capsys.readouterr().err.splitlines()
        assert stop.value.code == 2
        assert message in line


def test_an_interruption_is_one_line_and_exit_code_130(capsys):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        train.guard(interrupted)
    assert stop.value.code == 130
    assert capsys.readouterr().err.split() == ["interrupted"]


@pytest.mark.parametrize("mistake", [ValueError, KeyError, RuntimeError, TypeError, IndexError])
def test_a_mistake_in_the_code_keeps_its_traceback(mistake):
    def broken():
        raise mistake("in a student's code")

    with pytest.raises(mistake, match="in a student's code"):
        train.guard(broken)


def test_what_a_console_cannot_show_is_shown_as_its_code(monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", console)
    train.guard(lambda: train.say("\u00bb"))
    assert console.buffer.getvalue().strip() == rb"\xbb"


# ------------------------------------------------------------------ the command line


@pytest.fixture
def world(tok, tmp_path, monkeypatch):
    """A small base in a file, random sentences, and nothing said about one text."""
    save_tiny(tmp_path / "base.pt", tok)
    monkeypatch.setattr(train, "load_data", lambda out: some_data())
    for name in ("show_one_text", "show_what_words_hide"):
        monkeypatch.setattr(train, name, lambda lab, seed: None)
    return ["--base", str(tmp_path / "base.pt"), "--out", str(tmp_path / "out"), "--device", "cpu"]


@pytest.fixture
def by_hand(monkeypatch):
    """Experiments that leave hand-made rows; what they were asked for, and what was drawn."""
    asked, experiments = {}, {}
    rows = {"initialization": hand_made_starts(), "length": hand_made_lengths()}
    for name in train.EXPERIMENTS:

        def run(lab, plan, first_seed, name=name):
            asked[name] = [plan, first_seed]
            return rows[name]

        def draw(results, name=name):
            asked[name].append(results)
            return train.panels(1)[0]

        experiments[name] = train.Experiment(run, draw)
    monkeypatch.setattr(train, "EXPERIMENTS", experiments)
    return rows, asked


FILES = ["initialization.csv", "initialization.png", "length.csv", "length.png"]


@pytest.mark.parametrize("option", ["", "--quick"])
def test_each_experiment_leaves_its_rows_and_a_picture_of_them(world, by_hand, option, capsys):
    """--quick leaves what stands in OUT as it is, and what is drawn is never read from a file."""
    rows, asked = by_hand
    out = Path(world[3])
    out.mkdir()
    for name in FILES:
        (out / name).write_text("of the full run")
    train.main([*world, "--seed", "20", *option.split()])
    folder = out / "quick" if option else out
    for name in rows:
        plan, seed, drawn_rows = asked[name]
        assert plan == (QUICK if option else Plan())
        assert seed == 20
        assert drawn_rows is rows[name]
        assert str(read_rows(folder / f"{name}.csv")) == str(rows[name])
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in folder.iterdir()) == FILES
    if option:
        assert {(out / name).read_text() for name in FILES} == {"of the full run"}
        assert sorted(path.name for path in out.iterdir()) == [*FILES, "quick"]
    assert re.search(r"Done in \d+:\d\d minutes", capsys.readouterr().out)


def test_the_main_job_leaves_the_columns_that_everything_reads(world, few_tasks, monkeypatch):
    plan = SMALL._replace(lengths=(1,), length_seeds=1, start_seeds=1)
    monkeypatch.setattr(train, "Plan", lambda: plan)
    train.main([*world, "--seed", "20"])
    starts, lengths = (read_rows(Path(world[3], f"{name}.csv")) for name in train.EXPERIMENTS)
    assert list(starts[0]) == "task start rate seed step split loss accuracy".split()
    assert list(lengths[0]) == "task method length seed step split loss accuracy".split()
    assert same_columns("initialization", starts) and same_columns("length", lengths)  # shipped
    assert {row["seed"] for row in starts} == {20}
    assert {row["seed"] for row in lengths if row["length"]} == {20}


def test_one_text_and_what_words_hide_are_shown_first(world, by_hand, monkeypatch):
    shown = []
    for name in ("show_one_text", "show_what_words_hide"):
        monkeypatch.setattr(train, name, lambda lab, seed, name=name: shown.append((name, seed)))
    train.main([*world, "--seed", "3"])
    assert shown == [("show_one_text", 3), ("show_what_words_hide", 3)]


def test_an_interrupted_job_keeps_the_experiments_that_are_done(world, by_hand, monkeypatch):
    def killed(lab, plan, first_seed):
        raise KeyboardInterrupt

    length = train.EXPERIMENTS["length"]
    monkeypatch.setitem(train.EXPERIMENTS, "length", length._replace(run=killed))
    with pytest.raises(SystemExit) as stop:
        train.guard(lambda: train.main(world))
    assert stop.value.code == 130
    assert sorted(os.listdir(world[3])) == FILES[:2]


def test_a_mistake_in_a_task_that_a_student_added_keeps_its_traceback(world, few_tasks):
    few_tasks["mine"] = few_tasks[RULE]._replace(answer=lambda s: s.text.split()[99])
    with pytest.raises(IndexError) as kept:
        train.guard(lambda: train.main([*world, "--quick"]))
    assert kept.traceback[-1].path.name == Path(__file__).name  # the student's own line


def test_a_base_with_a_number_that_is_none_stops_the_run_in_one_line(world, tok, capsys):
    model = nan_model(tok)
    model.save(world[1], tokenizer=[token.decode("latin-1") for token in TOKENS])
    with pytest.raises(SystemExit) as stop:
        train.guard(lambda: train.main([*world, "--quick"]))
    assert stop.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: training step 0: the loss ")
    assert not Path(world[3], "quick").exists()


BAD = [
    (["--base", "nowhere.pt"], "nowhere.pt"),
    (["--base", "."], "directory|denied"),
    (["--base", "damaged.pt"], "damaged.pt is damaged"),
    (["--base", "prompt.pt"], "prompt.pt does not hold a base model"),
    (["--base", "bare.pt"], "bare.pt has no tokenizer"),
    (["--device", "abacus"], "--device abacus cannot be used"),
    (["--device", "meta"], "--device meta cannot be used"),
    (["--out", "damaged.pt"], "damaged.pt"),
    (["--seed", "x"], "--seed.*'x'"),
    (["--seed", "-1"], "--seed"),
    (["--seed", "1" + 30 * "0"], "--seed"),
    (["--nonsense"], "--nonsense"),
    (["--qui"], "--qui"),
    (["tune"], "tune"),
]


@pytest.mark.parametrize("arguments, message", BAD)
def test_bad_input_is_one_line_and_writes_nothing(
    arguments, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    data = (ROOT / "tutorials" / "base.pt").read_bytes()
    Path("damaged.pt").write_bytes(data[:-7])
    model = make_model()
    model.save("bare.pt")
    save(PromptTuning(torch.randn(2, 32)), "prompt.pt", model)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as stop:
        train.guard(lambda: train.main(arguments))
    [line] = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2
    assert re.search(message, line)
    assert sorted(tmp_path.rglob("*")) == before


def test_help_lists_every_option(capsys):
    with pytest.raises(SystemExit) as stop:
        train.main(["--help"])
    said = capsys.readouterr().out
    assert stop.value.code == 0
    for option in ("--quick", "--out", "--base", "--device", "--seed"):
        assert option in said


def test_the_python_of_the_readme_runs(tok, tmp_path, monkeypatch):
    """On a small base and a few sentences, in a fresh folder."""
    base = tiny(tok)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "load_data", lambda out: some_data())
    monkeypatch.setattr(train, "load_base", lambda: (base, tok))
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = re.search("```python\n(.*?)```", text, re.DOTALL).group(1)  # others need the network
    exec(code, {})
    assert load("library.pt", base).facts == {"task": "library"}
    with pytest.raises(InputError, match="library.pt was trained on the base"):
        load("library.pt", tiny(tok, seed=1))


def test_pictures_are_drawn_again_from_their_tables(tmp_path, monkeypatch, capsys):
    rows = length_rows("swap-1", "prompt", {1: (0.5,)}) + length_rows(
        "swap-1", "prompt", {1: (0.5,)}, "test"
    )
    drawn = {"length": train.Experiment(lambda *given: 1 / 0, train.draw_length)}
    monkeypatch.setattr(train, "EXPERIMENTS", drawn)
    train.write_rows(tmp_path / "length.csv", rows)
    train.main(["--plot", "--out", str(tmp_path)])
    assert (tmp_path / "length.png").stat().st_size > 1000
    gone = {"task": "gone", "start": "vocab", "rate": 1, "seed": 0, "step": 0, "loss": 1.0}
    with pytest.raises(InputError, match="nothing to draw"):
        train.draw_initialization([gone])
    with pytest.raises(FileNotFoundError, match="length.csv"):
        train.main(["--plot", "--out", str(tmp_path / "other")])
