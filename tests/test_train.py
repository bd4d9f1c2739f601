"""train.py: sentences, tasks, scoring, training; the experiments and pictures by hand-made rows."""

import csv
import math
import os
import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT, make_model
from small_world import TOKENS, save_tiny, sentences, tiny

import train
from model import InputError, Past, visible
from softprompt import PrefixTuning, PromptTuning, initial_embeddings, load, save
from train import (
    COMMON_LETTERS,
    FUTURE,
    HELD_OUT,
    NONE_HIDDEN,
    PLACES,
    STARTS,
    TASKS,
    Arm,
    Lab,
    Plan,
    Scores,
    Sentence,
    Task,
    accuracies_of,
    accuracy_by_letter,
    answers_lost,
    best_hard_prompt,
    chosen_length,
    collate,
    draw_rows,
    find_device,
    fit,
    hide,
    load_base,
    mean_error,
    mean_of_arms,
    measure,
    new_arm,
    parts_of,
    read_results,
    score,
    steps_needed,
    steps_to_threshold,
    times_sooner,
    untrained,
    warm_up_and_fall,
    write_results,
)

SMALL = Plan(
    examples=4,
    valid=6,
    final=12,
    starts=("related", "vocab", "normal"),
    rates=(1, 4),
    start_seeds=2,
    start_length=4,
    start_steps=(("first-letter-last", 4), ("library", 2)),
    lengths=(1, 30),
    length_seeds=2,
    length_rates={"prompt": 3, "prefix": 0.1},
    length_steps=(
        ("first-letter-last", {"prompt": 3, "prefix": 2}),
        ("swap-1", {"prompt": 2, "prefix": 1}),
    ),
    vector_seeds=2,
    vector_length=4,
    vector_steps=2,
)


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


def test_the_grid_is_practised_but_for_what_is_held_out():
    held_out = []
    for operation in train.OPERATIONS:
        for place in PLACES:
            task = TASKS[f"{operation}-{place}"]
            assert len(task.hard_prompts) == 4
            assert all(f"{place} word" in hard_prompt for hard_prompt in task.hard_prompts)
            if not task.practised:
                held_out.append(f"{operation}-{place}")
    assert sorted(held_out) == sorted(HELD_OUT)


def test_swapped_letters_change_places_and_all_others_stay():
    plain = TASKS["first-letter-first"]
    words = [f"{letter}ule is the word." for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcr"]
    for name, pairs in (("swap-1", ["RC"]), ("swap-4", ["RC", "AS", "TG", "PD"])):
        swapped = {}
        for a, b in pairs:
            swapped |= {a: b, b: a}
        for text in words:
            sentence = Sentence(text, "numpy", "class")
            letter = plain.answer(sentence)
            assert TASKS[name].answer(sentence) == swapped.get(letter, letter)
        assert "".join(pairs) == COMMON_LETTERS[: 2 * len(pairs)]
        assert TASKS[name].practised == []
        for letter, other in swapped.items():
            assert f"{other} for {letter}" in TASKS[name].unseen[-1]


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
        return train.prefill([PromptTuning(torch.randn(P, C)) for P in lengths], model)


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
    parts = list(parts_of(order, lambda i: widths[i], limit))
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
    rows = lab.rows("kind", "train", 4)
    with pytest.raises(train.NotFinite, match="the loss of row 0 of 4 is nan"):
        score(nan_model(lab.tok), None, rows)
    prompts = [PromptTuning(torch.zeros(2, 16)), PromptTuning(torch.full((2, 16), torch.nan))]
    past = train.prefill(prompts, lab.model)
    with pytest.raises(train.NotFinite, match="the loss of row 2 of 4 is nan"):
        score(lab.model, past, rows)


def test_a_loss_that_is_infinite_stops_the_run_too():
    with pytest.raises(train.NotFinite, match="the loss of row 1 of 3 is inf"):
        train.require_finite(torch.tensor([1.0, torch.inf, 2.0]))
    train.require_finite(torch.tensor([1.0, 0.0, 2.0]))


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


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_step_of_a_number_is_rate_times_size_times_warm_up(lab, kind):
    """In each layer and for keys and values apart: they differ in size by a factor of 1,000."""
    rows = {"kind": lab.rows("kind", "train")}
    soft = kind.start(lab.model, torch.randn(3, 16))
    if kind is PrefixTuning:
        with torch.no_grad():
            soft.values[0] *= 1000
        sizes = [p.square().mean().sqrt().item() for p in soft.parameters()]
    else:
        sizes = [lab.model.model.embed_tokens.weight.std().item()]
    assert train.sizes(soft, lab.model) == pytest.approx(sizes)
    start = [p.detach().clone() for p in soft.parameters()]
    training = fit(lab.model, [Arm(soft, "kind", 0.05)], rows, 100, 4)
    next(training)
    next(training)
    for before, after, size in zip(start, soft.parameters(), sizes):
        moved = (after - before).abs().max().item()
        assert moved == pytest.approx(0.05 * size / 5, rel=0.02)


def test_anything_else_that_has_a_past_moves_in_units_of_1(lab):
    other = torch.nn.Linear(2, 3)
    assert train.sizes(other, lab.model) == [1.0, 1.0]


def test_the_learning_rate_warms_up_and_falls():
    shares = [warm_up_and_fall(step, 100) for step in range(100)]
    assert shares[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert max(shares) == 1
    assert shares[5:] == sorted(shares[5:], reverse=True)
    assert shares[60] == pytest.approx(0.5)
    assert shares[99] == pytest.approx(0.11)


def test_the_learning_rate_of_every_step_follows_the_schedule(lab):
    """A schedule of zeros moves nothing, one of ones moves at once by the whole rate."""
    rows = {"kind": lab.rows("kind", "train")}
    start = torch.randn(3, 16)
    spread = lab.model.model.embed_tokens.weight.std().item()
    for share in (0.0, 1.0):
        soft = PromptTuning(start)
        arm = Arm(soft, "kind", 2.0)
        finish(fit(lab.model, [arm], rows, 1, 4, schedule=lambda step, steps, share=share: share))
        moved = (soft.embeddings - start).abs().max().item()
        assert moved == pytest.approx(2.0 * spread * share, rel=0.02)


def test_fit_yields_before_each_step_and_after_the_last(lab):
    rows = {"kind": lab.rows("kind", "train")}
    soft = PromptTuning(torch.randn(3, 16))
    seen = []
    for step in fit(lab.model, [Arm(soft, "kind", 1.0)], rows, 4, 4):
        seen.append((step, soft.embeddings.detach().clone()))
    assert [step for step, _ in seen] == [0, 1, 2, 3, 4]
    for (_, before), (_, after) in zip(seen, seen[1:]):
        assert not torch.equal(before, after)
    assert torch.equal(seen[-1][1], soft.embeddings)


def test_the_caller_can_stop_the_training(lab):
    rows = {"kind": lab.rows("kind", "train")}
    soft = PromptTuning(torch.randn(3, 16))
    start = soft.embeddings.detach().clone()
    for _ in fit(lab.model, [Arm(soft, "kind", 1.0)], rows, 4, 4):
        break
    assert torch.equal(soft.embeddings, start)


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


def test_a_prompt_that_is_no_number_stops_the_training_in_one_line(lab):
    rows = {"kind": lab.rows("kind", "train")}
    soft = PromptTuning(torch.full((3, 16), torch.nan))
    with pytest.raises(train.NotFinite, match="^training step 0: the loss of row 0 of 4 is nan"):
        finish(fit(lab.model, [Arm(soft, "kind", 1.0)], rows, 4, 4))
    where = "^valid sentences after step 7: the loss of row 0 of 6 is nan"
    with pytest.raises(train.NotFinite, match=where):
        measure(lab, [Arm(soft, "kind", 1.0)], 7, "valid", 6)


def test_a_base_or_a_start_that_is_no_number_stops_before_the_first_step(lab):
    """Also where no text has the token whose row is bad: its size would be every number's rate."""
    rows = {"kind": lab.rows("kind", "train")}
    start = PrefixTuning.start(lab.model, torch.full((3, 16), torch.nan))
    with pytest.raises(train.NotFinite, match="keys and values of the start hold"):
        finish(fit(lab.model, [Arm(start, "kind", 1.0)], rows, 1, 4))
    with torch.no_grad():
        lab.model.model.embed_tokens.weight[-1] = torch.inf
    soft = PromptTuning(torch.zeros(3, 16))
    with pytest.raises(train.NotFinite, match="embeddings of the base hold"):
        finish(fit(lab.model, [Arm(soft, "kind", 1.0)], rows, 1, 4))


def test_every_script_shows_what_its_console_cannot_show():
    code = "import train; train.guard(lambda: print('\u00bb'))"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert (done.returncode, done.stdout.strip()) == (0, rb"\xbb"), done.stderr


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
        loss = lab.model.loss(*collate(rows, "cpu"), past).item()
        right = score(lab.model, past, rows).right.mean().item()
        assert row == {
            "start": f"start {number}",
            "task": arm.task,
            "seed": arm.seed,
            "step": 5,
            "split": "valid",
            "loss": pytest.approx(loss, abs=1e-3),
            "accuracy": pytest.approx(right, abs=1e-3),
            "sentences": 8,
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


def trained_alone(lab, row, method, embeddings, rate):
    """The loss that a row of results must show: of one soft prompt, trained without any other."""
    soft = {"prompt": PromptTuning, "prefix": PrefixTuning}[method].start(lab.model, embeddings)
    task, rows = row["task"], {row["task"]: lab.rows(row["task"], "train")}
    finish(fit(lab.model, [Arm(soft, task, rate, row["seed"])], rows, row["step"], SMALL.examples))
    asked = collate(lab.rows(task, row["split"], row["sentences"]), "cpu")
    return lab.model.loss(*asked, soft.past(lab.model)).item()


def test_what_stands_in_a_row_is_what_its_arm_was_trained_with(lab):
    """Each start at each rate with each seed, once; and retrained alone it is the same."""
    results = train.compare_starts(lab, SMALL, 10)
    last = dict(SMALL.start_steps)
    final = [row for row in results if row["step"] == last[row["task"]]]
    arms = [(row["task"], row["start"], row["rate"], row["seed"]) for row in final]
    want = []
    for task, _ in SMALL.start_steps:
        for start in SMALL.starts:
            for rate in SMALL.rates:
                want += [(task, start, rate, seed) for seed in (10, 11)]
    assert arms == want
    for row in final:
        generator = torch.Generator().manual_seed(row["seed"])
        start = STARTS[row["start"]].embeddings(lab, row["task"], 4, generator)
        loss = trained_alone(lab, row, "prompt", start, row["rate"])
        assert row["loss"] == pytest.approx(loss, abs=2e-3)
    losses = sorted(row["loss"] for row in final)
    assert all(b - a > 0 for a, b in zip(losses, losses[1:]))  # no two arms are the same


def test_the_curves_are_of_the_validation_sentences_from_step_0_on(lab):
    results = train.compare_starts(lab, SMALL, 0)
    for task, steps in (("first-letter-last", [0, 2, 4]), ("library", [0, 2])):
        arm = new_arm(lab, task, "prompt", "vocab", 4, 4, 1)
        curve = []
        for row in results:
            if (row["task"], row["start"], row["rate"], row["seed"]) == (task, "vocab", 4, 1):
                curve.append(row)
        assert [row["step"] for row in curve] == steps
        assert {(row["split"], row["sentences"]) for row in curve} == {("valid", SMALL.valid)}
        [untouched] = measure(lab, [arm], 0, "valid", SMALL.valid)
        assert curve[0]["loss"] == pytest.approx(untouched["loss"], abs=1e-3)


# ------------------------------------------------------------------ experiment 1, hand-made rows


def test_steps_to_the_threshold_by_hand():
    curve = [(0, 3.0), (2, 0.6), (4, 0.5), (6, 0.7), (8, 0.1)]
    assert steps_to_threshold(curve) == 4  # 0.5 itself counts
    assert steps_to_threshold(curve, 0.4) == 8
    assert steps_to_threshold(curve[::-1], 0.65) == 2
    assert steps_to_threshold(curve, 9.0) == 0
    assert steps_to_threshold(curve, 0.05) == math.inf


def curve_rows(task, start, rate, seed, losses, split="valid"):
    """Rows of initialization.csv: the losses of one arm at steps 0, 2, 4, ..."""
    rows = []
    for i, loss in enumerate(losses):
        row = {"task": task, "start": start, "rate": rate, "seed": seed, "step": 2 * i}
        rows.append({**row, "split": split, "loss": loss, "accuracy": 0.5, "sentences": 100})
    return rows


def learned_at(task, start, rate, steps, last=32):
    """Curves of one start at one rate: seed i is at the threshold after steps[i]."""
    rows = []
    for seed, n in enumerate(steps):
        losses = [0.5 if step >= n else 2.0 for step in range(0, last + 1, 2)]
        rows += curve_rows(task, start, rate, seed, losses)
        rows += curve_rows(task, start, rate, seed, [0.0], "test")
    return rows


def hand_made_starts(task="first-letter-last"):
    """Related text needs 4 steps and noise 20 at rate 1; at their best rates they need 2 and 8."""
    rows = learned_at(task, "related", 1, [4, 4, 30])
    rows += learned_at(task, "related", 4, [2, 2, 2])
    rows += learned_at(task, "related", 8, [6, 6, 6])
    rows += learned_at(task, "normal", 1, [20, 18, 22])
    rows += learned_at(task, "normal", 4, [math.inf, math.inf, 2])
    rows += learned_at(task, "normal", 8, [8, 8, 8])
    return rows


def test_steps_needed_are_those_of_each_seed_on_the_validation_sentences():
    results = hand_made_starts() + learned_at("library", "related", 1, [0])
    needed = steps_needed(results, "first-letter-last")
    assert needed["related", 1] == [4, 4, 30]
    assert needed["normal", 4] == [math.inf, math.inf, 2]
    assert len(needed) == 6
    assert steps_needed(results, "library") == {("related", 1): [0]}


def test_times_sooner_at_each_rate_and_at_the_best_rates():
    """Medians: one seed of thirty steps does not count. Never learned is left out."""
    at_rate, at_best = times_sooner(
        steps_needed(hand_made_starts(), "first-letter-last"), "normal", "related"
    )
    assert at_rate == {1: 20 / 4, 8: 8 / 6}
    assert at_best == 8 / 2
    at_rate, at_best = times_sooner(
        steps_needed(hand_made_starts(), "first-letter-last"), "related", "normal"
    )
    assert at_rate == {1: 4 / 20, 8: 6 / 8}
    assert at_best == 2 / 8


def test_learned_at_once_counts_as_one_step():
    needed = {("related", 1): [0, 0], ("normal", 1): [6, 8]}
    assert times_sooner(needed, "normal", "related") == ({1: 7.0}, 7.0)


# ------------------------------------------------------------------ experiment 2, hand-made rows


def test_prompts_and_prefixes_of_each_length_are_what_their_rows_say(lab):
    results = train.compare_lengths(lab, SMALL, 10)
    trained = [row for row in results if row["method"] in ("prompt", "prefix")]
    want = []
    for task, _ in SMALL.length_steps:
        for method in ("prompt", "prefix"):
            for split in ("valid", "test"):
                for length in SMALL.lengths:
                    want += [(task, method, split, length, seed) for seed in (10, 11)]
    columns = ("task", "method", "split", "length", "seed")
    assert [tuple(row[name] for name in columns) for row in trained] == want
    for row in trained:
        generator = torch.Generator().manual_seed(row["seed"])
        start = initial_embeddings(lab.model, row["length"], "vocab", generator=generator)
        rate = SMALL.length_rates[row["method"]]
        assert row["step"] == dict(SMALL.length_steps)[row["task"]][row["method"]]
        loss = trained_alone(lab, row, row["method"], start, rate)
        assert row["loss"] == pytest.approx(loss, abs=2e-3)
    for task, _ in SMALL.length_steps:
        first = [row for row in results if row["task"] == task][:6]
        assert str(first) == str(untrained(lab, task, 12))  # as text, since NaN is not NaN


def test_the_commonest_answer_is_that_of_the_training_sentences(lab):
    """On the test sentences another answer is commoner: that does not count."""
    n = 12
    of_numpy, of_torch = (Sentence("Some text.", name, "class") for name in ("numpy", "torch"))
    lab.data["train"] = [of_numpy] * 40
    for split in ("valid", "test"):
        lab.data[split] = [of_torch] * 9 + [of_numpy] * 3 + [of_torch] * 28
    always = [row for row in untrained(lab, "library", n) if row["method"] == "always"]
    assert [row["split"] for row in always] == ["valid", "test"]
    for row in always:
        assert row["words"] == "numpy"
        assert row["accuracy"] == 0.25  # 3 of the first 12
        assert math.isnan(row["loss"])


def test_what_needs_no_training_is_the_base_with_and_without_words(lab, monkeypatch):
    monkeypatch.setattr(train, "best_hard_prompt", lambda *arguments: "Say it.")
    for row in untrained(lab, "count", 12):
        if row["method"] != "always":
            words = {"none": "", "wording": "Say it."}[row["method"]]
            rows = lab.rows("count", row["split"], 12, words)
            assert row["loss"] == pytest.approx(lab.model.loss(*collate(rows, "cpu")).item(), 1e-3)
            assert row["words"] == words
            assert (row["length"], row["sentences"]) == (0, 12)


def test_the_best_hard_prompt_is_chosen_on_validation_and_not_on_test(lab, monkeypatch):
    accuracies = {
        "valid": {"first": 0.2, "second": 0.6, "third": 0.4},
        "test": {"first": 0.9, "second": 0.1, "third": 0.3},
    }
    asked = set()

    def fake(lab, task, hard_prompt, split, n):
        asked.add((task, split, n))
        return 1 - accuracies[split][hard_prompt], accuracies[split][hard_prompt]

    monkeypatch.setattr(train, "score_hard_prompt", fake)
    task = Task("mine", TASKS["kind"].answer, ["first", "second"], ["third"])
    monkeypatch.setitem(TASKS, "mine", task)
    assert best_hard_prompt(lab, "mine", 12) == "second"
    assert asked == {("mine", "valid", 12)}


def test_the_score_of_a_hard_prompt_is_that_of_the_words_before_the_text(lab):
    loss, accuracy = train.score_hard_prompt(lab, "kind", "Class or function?", "test", 9)
    rows = []
    for s in lab.data["test"][:9]:
        rows.append(lab.tok.example(s.text, s.kind, "Class or function?"))
    assert loss == pytest.approx(lab.model.loss(*collate(rows, "cpu")).item(), rel=1e-4)
    assert accuracy == score(lab.model, None, rows).right.mean().item()


def test_the_error_of_a_mean_is_of_the_seeds_and_of_the_sentences():
    p, error = mean_error([0.6, 0.8], 100)
    of_seeds = 0.02 / 2  # the variance of 0.6 and 0.8 is 0.02
    of_sentences = 0.7 * 0.3 / 100
    assert p == pytest.approx(0.7)
    assert error == pytest.approx((of_seeds + of_sentences) ** 0.5)
    assert mean_error([0.7], 100) == pytest.approx((0.7, of_sentences**0.5))
    assert mean_error([1.0], 100) == (1.0, 0.0)


def length_rows(task, method, accuracies, split="valid", n=120):
    """Rows of length.csv: accuracies[length] has one for each seed."""
    rows = []
    for length, of_seeds in accuracies.items():
        for seed, accuracy in enumerate(of_seeds):
            row = {"task": task, "method": method, "length": length, "seed": seed, "step": 9}
            row |= {"split": split, "loss": 1.0, "accuracy": accuracy, "sentences": n, "words": ""}
            rows.append(row)
    return rows


def test_accuracies_are_of_one_task_one_method_and_one_split():
    results = length_rows("library", "prompt", {16: (0.6, 0.8), 1: (0.5, 0.5)}, n=50)
    results += length_rows("library", "prompt", {16: (0.1, 0.1)}, "test")
    results += length_rows("library", "prefix", {16: (0.2, 0.2)})
    results += length_rows("count", "prompt", {16: (0.3, 0.3)})
    found = accuracies_of(results, "library", "prompt", "valid")
    assert list(found) == [1, 16]
    assert found == {1: mean_error([0.5, 0.5], 50), 16: mean_error([0.6, 0.8], 50)}


def test_the_one_standard_error_rule():
    """The error is of the best length: 32 has 0.81 and an error of 0.037."""
    accuracies = {1: (0.5, 0.6), 4: (0.77, 0.79), 8: (0.7, 0.8), 16: (0.8, 0.81), 32: (0.8, 0.82)}
    results = length_rows("library", "prompt", accuracies)
    results += length_rows("library", "prompt", {1: (0.9, 0.9), 16: (0.1, 0.1)}, "test")
    results += length_rows("library", "prefix", {1: (0.9, 0.9)})
    assert chosen_length(results, "library", "prompt") == 4
    exact = length_rows("library", "prompt", accuracies, n=10**9)
    assert chosen_length(exact, "library", "prompt") == 16  # the error of 32 is 0.01
    alone = length_rows("library", "prompt", {1: (0.5,), 4: (0.9,)}, n=10**9)
    assert chosen_length(alone, "library", "prompt") == 4


# ------------------------------------------------------------------ what each vector holds


def without_key(past, hidden):
    """The past without one slot at all; the others keep their positions."""
    kept = [s for s in range(past.positions.shape[1]) if s != hidden]
    keys = [layer[:, :, kept] for layer in past.keys]
    values = [layer[:, :, kept] for layer in past.values]
    return Past(keys, values, past.positions[:, kept], past.pinned)


def test_hiding_a_virtual_token_is_attention_without_its_key(tok, monkeypatch):
    """At the same positions. By hand: the rule of what is visible, with one column struck out."""
    model = tiny(tok)
    text = torch.arange(10, 16).expand(2, -1)
    past = PromptTuning(torch.randn(5, 16)).past(model)
    for hidden in range(5):
        logits, _ = model(text, hide(past, hidden))

        def struck_out(q_pos, k_pos, pinned, window=None, column=hidden):
            seen = visible(q_pos, k_pos, pinned, window)
            seen[:, :, column] = False
            return seen

        with monkeypatch.context() as changed:
            changed.setattr("model.visible", struck_out)
            want, _ = model(text, past)
        assert torch.allclose(logits, want, atol=1e-5)
        assert not torch.allclose(logits, model(text, past)[0], atol=1e-3)


def test_hiding_leaves_the_text_where_it_was(lab):
    past = PromptTuning(torch.randn(5, 16)).past(lab.model)
    hidden = hide(past, 2)
    assert hidden.length.tolist() == [5]
    assert hidden.positions.tolist() == [[0, 1, FUTURE, 3, 4]]
    assert past.positions.tolist() == [[0, 1, 2, 3, 4]]
    assert hidden.pinned.tolist() == [5]
    _, longer = lab.model(torch.tensor([[7, 8]]), hidden)
    assert longer.positions[0, -2:].tolist() == [5, 6]
    assert hide(past, NONE_HIDDEN) is past


def test_letters_that_change_places_are_told_from_the_others():
    texts = {"Return it now.": "R", "(Compute) it now.": "C", "Say it now.": "other"}
    texts["return it now."] = "other"
    for text, letter in texts.items():
        assert train.letter_of(Sentence(text, "numpy", "class")) == letter


def test_accuracy_by_letter_by_hand():
    letters = ["R", "other", "R", "C", "R"]
    right = [1.0, 0.0, 1.0, 1.0, 0.0]
    assert accuracy_by_letter(letters, right) == {"R": 2 / 3, "other": 0.0, "C": 1.0}


def vector_rows(seed, accuracies):
    """Rows of vectors.csv: accuracies[letter] is that of nothing hidden, then of each vector."""
    rows = []
    for letter, values in accuracies.items():
        for i, accuracy in enumerate(values):
            row = {"task": "swap-1", "seed": seed, "vector": i - 1, "letter": letter}
            rows.append({**row, "accuracy": accuracy})
    return rows


def write_table(out, experiment, rows):
    """Write OUT/EXPERIMENT.csv as the main job does."""
    columns = train.EXPERIMENTS[experiment].columns
    write_results(Path(out) / f"{experiment}.csv", columns, rows)


def read_table(out, experiment):
    """What stands in OUT/EXPERIMENT.csv."""
    columns = train.EXPERIMENTS[experiment].columns
    return read_results(Path(out) / f"{experiment}.csv", columns)


def hand_made_vectors():
    """Seed 0 holds nothing clearly. In seed 1, vector 2 holds R and vector 1 holds C."""
    rows = vector_rows(0, {"R": [1.0, 0.5, 0.9], "C": [1.0, 0.5, 0.9], "other": [1.0, 0.5, 1.0]})
    rows += vector_rows(1, {"R": [1.0, 1.0, 0.1], "C": [0.75, 0.0, 0.75], "other": [1.0, 0.9, 0.9]})
    return rows


def test_answers_lost_are_those_of_one_seed_against_nothing_hidden():
    lost = answers_lost(hand_made_vectors(), 1)
    assert lost["R"] == pytest.approx([0.0, 0.9])
    assert lost["C"] == pytest.approx([0.75, 0.0])
    assert lost["other"] == pytest.approx([0.1, 0.1])
    assert answers_lost(hand_made_vectors(), 0)["R"] == pytest.approx([0.5, 0.1])


def test_vectors_are_in_their_own_order_also_when_there_are_more_than_ten():
    values = [1.0] + [1 - i / 100 for i in range(16)]
    lost = answers_lost(vector_rows(0, {"R": values})[::-1], 0)
    assert lost["R"] == pytest.approx([i / 100 for i in range(16)])


def test_each_vector_is_hidden_once_in_the_prompt_of_each_seed(lab, monkeypatch):
    """With a score by hand: hiding vector 0 loses R, vector 1 loses C, vector 2 nothing."""
    plan = replace(SMALL, vector_steps=0, vector_length=3)
    first_letters = [sentence.text[0] for sentence in lab.data["test"][: plan.final]]
    assert {"R", "C"} <= set(first_letters)
    starts = []

    def fake(model, past, rows):
        assert rows == lab.rows("swap-1", "test", plan.final)
        lost = {0: "R", 1: "C"}.get(int(past.positions.argmax()))
        if past.positions.max() < FUTURE:
            lost = None
            starts.append(past.values[0])
        right = [float(letter != lost) for letter in first_letters]
        return Scores(None, None, torch.tensor(right))

    monkeypatch.setattr(train, "score", fake)
    results = train.ask_without_each_vector(lab, plan, 10)
    assert list(dict.fromkeys(row["seed"] for row in results)) == [10, 11]
    assert {row["task"] for row in results} == {"swap-1"}
    for seed, values in zip((10, 11), starts):
        assert answers_lost(results, seed) == {
            "R": [1.0, 0.0, 0.0],
            "C": [0.0, 1.0, 0.0],
            "other": [0.0, 0.0, 0.0],
        }
        arm = new_arm(lab, "swap-1", "prompt", "vocab", 3, 1, seed)
        assert torch.allclose(arm.soft.past(lab.model).values[0], values, atol=1e-6)


# ------------------------------------------------------------------ results


@pytest.mark.parametrize(
    "experiment, rows",
    [
        ("initialization", hand_made_starts()),
        ("length", length_rows("library", "prompt", {1: (0.5, 0.25), 16: (1.0, 0.0)})),
        ("vectors", hand_made_vectors()),
    ],
)
def test_results_are_read_as_they_were_written(tmp_path, experiment, rows):
    write_table(tmp_path, experiment, rows)
    assert read_table(tmp_path, experiment) == rows
    assert [path.name for path in tmp_path.iterdir()] == [f"{experiment}.csv"]
    with open(tmp_path / f"{experiment}.csv", newline="") as file:
        assert next(csv.reader(file)) == list(train.EXPERIMENTS[experiment].columns)


def test_words_with_commas_quotes_and_line_breaks_stay_words(tmp_path):
    [row] = length_rows("library", "wording", {0: (0.5,)})
    row["words"] = 'Say "it", please:\nnow. é'
    write_table(tmp_path, "length", [row])
    assert read_table(tmp_path, "length") == [row]


@pytest.mark.parametrize(
    "damage, line",
    [
        (lambda lines: lines[:3] + [lines[3][:12]], 4),
        (lambda lines: lines[:2] + [lines[2] + ",1"] + lines[3:], 3),
        (lambda lines: [lines[0], lines[1].replace("0.5", "half")], 2),
        (lambda lines: ["a,b", "1,2"], 2),
    ],
)
def test_a_row_that_is_no_result_is_one_line_with_file_and_line(tmp_path, damage, line):
    write_table(tmp_path, "vectors", hand_made_vectors())
    path = tmp_path / "vectors.csv"
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace("1.0", "0.5")
    path.write_text("\n".join(damage(lines)))
    with pytest.raises(InputError) as refused:
        read_table(tmp_path, "vectors")
    assert str(refused.value).startswith(f"{path}:{line}: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"\x89PNG\r\n\x1a\n\x00", b"x" * 200_000])
def test_a_file_that_is_no_table_is_one_line_with_its_name(tmp_path, data):
    (tmp_path / "vectors.csv").write_bytes(data)
    with pytest.raises(InputError, match="vectors.csv:.*remove the file"):
        read_table(tmp_path, "vectors")


def test_a_table_without_rows_is_said(tmp_path):
    for text in ("", ",".join(train.EXPERIMENTS["vectors"].columns)):
        (tmp_path / "vectors.csv").write_text(text)
        with pytest.raises(InputError, match="vectors.csv: there are no results"):
            read_table(tmp_path, "vectors")


def test_a_table_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write_table(tmp_path, "vectors", hand_made_vectors())
    whole = (tmp_path / "vectors.csv").read_text()

    def killed(*paths):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_table(tmp_path, "vectors", hand_made_vectors()[:3])
    assert (tmp_path / "vectors.csv").read_text() == whole
    assert len(list(tmp_path.iterdir())) == 1


# ------------------------------------------------------------------ pictures, hand-made rows


def title_of(figure):
    return " ".join(figure.get_suptitle().split())


def line_in(axis, colour):
    """The points of the line of a colour, {x: y}."""
    [line] = [
        line
        for line in axis.lines
        if line.get_color() == colour and line.get_linestyle() == "-" and len(line.get_xdata()) > 1
    ]
    return dict(zip(line.get_xdata(), line.get_ydata()))


def labels_in(axis, texts):
    """{text: (colour, height)} of these texts beside the lines."""
    found = {}
    for text in axis.texts:
        if text.get_text() in texts:
            found[text.get_text()] = (text.get_color(), text.get_position()[1])
    return found


def test_the_starts_are_drawn_as_their_medians_and_said_as_their_ratios():
    results = hand_made_starts() + learned_at("library", "related", 1, [0, 2])
    results += learned_at("library", "normal", 1, [2, 2])
    figure = train.draw_initialization(results)
    left, right = figure.axes
    assert line_in(left, STARTS["related"].colour) == {1: 4, 4: 2, 8: 6}
    assert line_in(left, STARTS["normal"].colour) == {1: 20, 4: 64, 8: 8}  # never: twice the last
    assert [text.get_text() for text in left.get_yticklabels()][-1] == "never"
    assert left.get_yticks()[-1] == 64
    assert "5 times sooner" in title_of(figure)
    assert "4.0 times when each has its own best" in title_of(figure)
    assert TASKS["first-letter-last"].question in left.get_title()
    assert TASKS["library"].question in right.get_title()


def test_each_start_has_its_own_name_at_its_line():
    results = []
    for place, start in enumerate(STARTS):  # all lines end at one height
        results += learned_at("first-letter-last", start, 1, [2 * place])
        results += learned_at("first-letter-last", start, 4, [8])
    axis = train.draw_initialization(results).axes[0]
    names = {start.label: start.colour for start in STARTS.values()}
    labels = labels_in(axis, names)
    assert {name: colour for name, (colour, _) in labels.items()} == names
    for place, start in enumerate(STARTS.values()):
        assert line_in(axis, start.colour) == {1: max(0.5, 2 * place), 4: 8}
    heights = sorted(height for _, height in labels.values())
    assert all(high - low > 0.05 for low, high in zip(heights, heights[1:]))


def test_what_is_never_learned_is_drawn_and_no_ratio_is_claimed():
    never = [math.inf, math.inf]
    for related in ([4, 4], never):
        results = learned_at("first-letter-last", "related", 1, related)
        results += learned_at("first-letter-last", "normal", 1, never)
        figure = train.draw_initialization(results)
        assert line_in_or_dot(figure.axes[0], STARTS["normal"].colour) == 64
        assert not re.search(r"nan|\binf\b|\d times", title_of(figure))


def test_related_text_is_sooner_where_it_is_twice_as_fast_at_some_rate():
    assert train.is_sooner({1: 0.9, 4: 2.0})
    assert not train.is_sooner({1: 1.4, 4: 1.9})
    assert not train.is_sooner({})


def test_what_is_sooner_at_one_rate_only_is_not_said_to_be_sooner_at_the_best_rates():
    title = train.initialization_finding({1: 4.0, 4: 0.5}, 1.0)
    assert "4 times sooner than from noise at learning rate 1," in title
    assert "but not when each has its own best learning rate" in title
    assert "and 1.5 times when" in train.initialization_finding({1: 4.0}, 1.5)


def test_no_start_is_said_to_be_sooner_that_is_not():
    results = learned_at("first-letter-last", "related", 1, [20, 20])
    results += learned_at("first-letter-last", "normal", 1, [4, 4])
    assert "sooner" not in title_of(train.draw_initialization(results))


def line_in_or_dot(axis, colour):
    """The height of a line of one point."""
    [line] = [
        line for line in axis.lines if line.get_color() == colour and line.get_linestyle() == "-"
    ]
    return line.get_ydata()[0]


def test_other_starts_than_the_two_that_are_compared_are_drawn_too(monkeypatch):
    """A start that a student added, in a plan without noise."""
    mine = STARTS["vocab"]._replace(label="my own start", colour="#123456")
    monkeypatch.setitem(STARTS, "mine", mine)
    results = learned_at("first-letter-last", "mine", 1, [4, 6])
    results += learned_at("first-letter-last", "mine", 4, [2, 2])
    results += learned_at("first-letter-last", "vocab", 1, [8, 8])
    results += learned_at("first-letter-last", "vocab", 4, [8, 8])
    figure = train.draw_initialization(results)
    assert line_in(figure.axes[0], "#123456") == {1: 5, 4: 2}
    assert "my own start" in labels_in(figure.axes[0], ["my own start"])


@pytest.mark.parametrize("heights", [[0.1], [0.5, 0.5, 0.5], [0.0, 0.97, 0.98, 1.0], [0.2, 0.9]])
def test_labels_are_moved_apart_and_no_farther_than_needed(heights):
    moved = train.moved_apart(heights, 0.1)
    assert len(moved) == len(heights)
    assert all(high - low > 0.1 - 1e-9 for low, high in zip(moved, moved[1:]))
    assert max(moved) <= 1
    for before, after in zip(heights, moved):
        others = [abs(before - other) for other in heights]
        if sorted(others)[1:] == [] or sorted(others)[1] > 0.3:
            assert after == before


TASKS_BY_LENGTH = {  # the chosen lengths of prompts are 1, 4 and 16, those of prefixes 1
    "first-letter-last": (0.95, 0.95, 0.95),
    "swap-1": (0.4, 0.9, 0.9),
    "swap-4": (0.1, 0.4, 0.8),
}


def hand_made_lengths(tasks=TASKS_BY_LENGTH):
    rows = []
    for place, (task, accuracies) in enumerate(tasks.items()):
        for split, less in (("valid", 0.0), ("test", 0.02)):
            for column, name in enumerate(("none", "wording", "always")):
                untrained = 0.1 * place + 0.03 * column
                rows += length_rows(task, name, {0: (untrained,)}, split)
            seeds = {P: (p - less, p - less) for P, p in zip((1, 4, 16), accuracies)}
            rows += length_rows(task, "prompt", seeds, split)
            same = {P: (0.7 - less + 0.01 * place,) for P in (1, 4)}
            rows += length_rows(task, "prefix", same, split)
    return rows


def rings_in(axis):
    """[(colour, length)] of the rings around the chosen lengths."""
    rings = []
    for line in axis.lines:
        if line.get_markerfacecolor() == "none":
            rings.append((line.get_color(), round(2 ** float(line.get_xdata()[0]))))
    return rings


def test_accuracies_are_drawn_over_the_length_and_the_chosen_length_is_marked():
    figure = train.draw_length(hand_made_lengths())
    prompts, prefixes = figure.axes
    assert ("prompt" in prompts.get_title()) and ("prefix" in prefixes.get_title())
    for task, accuracies in TASKS_BY_LENGTH.items():
        line = line_in(prompts, train.COLOURS[task])
        tested = [p - 0.02 for p in accuracies]
        assert list(line) == [0, 2, 4]  # log2 of the lengths
        assert list(line.values()) == pytest.approx(tested)
    colours = [train.COLOURS[task] for task in TASKS_BY_LENGTH]
    assert rings_in(prompts) == list(zip(colours, (1, 4, 16)))
    assert rings_in(prefixes) == list(zip(colours, (1, 1, 1)))
    said = " ".join(text.get_text() for text in prompts.texts)
    for words in ("a rule: 1 enough", "2 facts: 4 enough", "8 facts: 16 or more"):
        assert words in said
    assert "The more a prompt has to store, the longer it must be" in title_of(figure)


def test_what_needs_no_training_stands_over_its_own_name():
    prompts, _ = train.draw_length(hand_made_lengths()).axes
    ticks = {}
    for place, text in zip(prompts.get_xticks(), prompts.get_xticklabels()):
        ticks[text.get_text()] = place
    for name, column in (("none", 0), ("wording", 1), ("always", 2)):
        for place, task in enumerate(TASKS_BY_LENGTH):
            [bar] = [
                line
                for line in prompts.lines
                if line.get_marker() == "_"
                and line.get_color() == train.COLOURS[task]
                and abs(line.get_xdata()[0] - ticks[train.UNTRAINED[name]]) < 0.8
            ]
            assert bar.get_ydata()[0] == pytest.approx(0.1 * place + 0.03 * column)


def test_the_title_of_the_lengths_claims_nothing_that_did_not_come_out():
    falling = {"first-letter-last": (0.4, 0.9, 0.9), "swap-1": (0.9, 0.9, 0.9)}
    title = title_of(train.draw_length(hand_made_lengths(falling)))
    assert "longer" not in title
    same = {"first-letter-last": (0.9, 0.9, 0.9), "swap-1": (0.9, 0.9, 0.9)}
    assert "longer" not in title_of(train.draw_length(hand_made_lengths(same)))


def test_a_task_that_a_student_added_is_drawn(monkeypatch):
    mine = Task("my own question", lambda s: "x", [], ["Say x."])
    monkeypatch.setitem(TASKS, "mine", mine)
    figure = train.draw_length(hand_made_lengths({"mine": (0.5, 0.6, 0.7)}))
    assert any("my own question" in text.get_text() for text in figure.axes[0].texts)


def test_the_seed_that_is_shown_first_is_the_one_that_is_clearest():
    assert train.shown_seed(hand_made_vectors()) == 1
    assert train.shown_seed(hand_made_vectors()[::-1]) == 1


def test_what_is_lost_alone_is_what_is_lost_of_no_other_letter():
    lost = {"R": [0.0, 0.9, 0.5], "C": [0.75, 0.0, 0.5], "other": [0.1, 0.1, 0.5]}
    assert train.lost_alone(lost, "R") == pytest.approx([-0.75, 0.8, 0.0])
    assert train.lost_alone(lost, "C") == pytest.approx([0.65, -0.9, 0.0])


def test_what_each_vector_holds_is_drawn_as_what_is_lost_without_it():
    figure = train.draw_vectors(hand_made_vectors())
    axes = [axis for axis in figure.axes if axis.get_title(loc="left").startswith("seed")]
    assert [axis.get_title(loc="left") for axis in axes] == [
        "seed 1 (the clearest of 2)",
        "seed 0",
    ]
    for axis, seed in zip(axes, (1, 0)):
        lost = answers_lost(hand_made_vectors(), seed)
        [image] = axis.images
        grid = [lost[letter] for letter in ("R", "C", "other")]
        assert image.get_array().tolist() == [pytest.approx(values) for values in grid]
        assert [text.get_text()[-1] for text in axis.get_yticklabels()][:2] == ["R", "C"]
        assert [text.get_text() for text in axis.get_xticklabels()] == ["1", "2"]
    title = title_of(figure)
    assert "without vector 2, R falls from 1.00 to 0.10" in title
    assert "without vector 1, C falls from 0.75 to 0.00" in title
    assert "to say C for R and R for C" in title


@pytest.mark.parametrize(
    "accuracies",
    [
        {"R": [0.9, 0.9, 0.9], "C": [0.9, 0.9, 0.9], "other": [0.9, 0.9, 0.9]},  # nothing is lost
        {"R": [1.0, 0.1, 1.0], "C": [1.0, 0.1, 1.0], "other": [1.0, 0.1, 1.0]},  # all is lost
        {"R": [1.0, 0.1, 1.0], "C": [1.0, 1.0, 0.8], "other": [1.0, 1.0, 1.0]},  # C, but little
    ],
)
def test_no_vector_is_said_to_hold_what_is_not_lost_without_it_alone(accuracies):
    title = title_of(train.draw_vectors(vector_rows(0, accuracies)))
    assert "learned" not in title
    assert "without vector" not in title


def test_tables_are_drawn_whatever_the_backend_and_whatever_is_called_tutorials(tmp_path):
    """As a notebook sets the backend; and with another package of this name first on the path."""
    write_table(tmp_path, "initialization", hand_made_starts())
    write_table(tmp_path, "length", hand_made_lengths())
    write_table(tmp_path, "vectors", hand_made_vectors())
    package = tmp_path / "path" / "tutorials"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('the other tutorials')")
    done = run_python(
        ROOT / "train.py",
        "--plot",
        "--out",
        tmp_path,
        cwd=tmp_path,
        PYTHONPATH=str(package.parent),
        MPLBACKEND="module://a_backend.that_is_not_installed",
    )
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("initialization", "length", "vectors"):
        data = (tmp_path / f"{name}.png").read_bytes()
        assert data.startswith(b"\x89PNG")
        assert f"{name}.png" in done.stdout


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


# ------------------------------------------------------------------ the command line


@pytest.fixture
def world(tok, tmp_path, monkeypatch):
    """A small base in a file, random sentences and a small plan: `main` with `world` runs."""
    save_tiny(tmp_path / "base.pt", tok)
    data = some_data()
    monkeypatch.setattr(train, "load_data", lambda out: data)
    monkeypatch.setattr(train, "Plan", lambda: SMALL)
    return ["--base", str(tmp_path / "base.pt"), "--out", str(tmp_path / "out"), "--device", "cpu"]


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setattr(train, "draw_table", lambda name, experiment, out: None)


def rows_of(world, experiment):
    return read_table(world[3], experiment)


def test_one_text_is_answered_without_a_prompt_with_words_and_with_vectors(
    lab, monkeypatch, capsys
):
    monkeypatch.setattr(train, "best_hard_prompt", lambda *arguments: "Say it.")
    train.show_one_text(lab, SMALL, 0)
    asked, *answers = capsys.readouterr().out.splitlines()
    text = asked.split("   ")[0]
    arm = new_arm(lab, "first-letter-last", "prompt", "related", 4, 2, 0)
    rows = {"first-letter-last": lab.rows("first-letter-last", "train")}
    finish(fit(lab.model, [arm], rows, 4, SMALL.examples))
    for line, hard_prompt, past in zip(
        answers, ("", "Say it.", ""), (None, None, arm.soft.past(lab.model))
    ):
        question, _ = lab.tok.example(text, "", hard_prompt)
        [ids] = lab.model.generate([question], 8, past, stop=lab.tok.end)
        assert line.strip().endswith(" ".join(lab.tok.decode(ids).split()) or "(nothing)")


def test_the_main_job_leaves_a_table_for_each_experiment(world, no_pictures, capsys):
    train.main([*world, "--seed", "20"])
    assert {row["seed"] for row in rows_of(world, "initialization")} == {20, 21}
    assert {row["seed"] for row in rows_of(world, "length") if row["length"]} == {20, 21}
    assert {row["seed"] for row in rows_of(world, "vectors")} == {20, 21}
    assert {row["vector"] for row in rows_of(world, "vectors")} == {-1, 0, 1, 2, 3}
    assert sorted(os.listdir(world[3])) == ["initialization.csv", "length.csv", "vectors.csv"]
    assert re.search(r"Done in \d+:\d\d minutes", capsys.readouterr().out)


def test_the_main_job_says_the_same_again(world, no_pictures):
    tables = []
    for _ in range(2):
        train.main(world)
        files = sorted(Path(world[3]).glob("*.csv"))
        tables.append([path.read_text() for path in files])
    assert tables[0] == tables[1]


def test_an_edited_plan_is_not_ignored(world, no_pictures, monkeypatch):
    train.main(world)
    assert {row["rate"] for row in rows_of(world, "initialization")} == {1, 4}
    changed = replace(SMALL, rates=(2,), lengths=(3,), vector_length=2)
    monkeypatch.setattr(train, "Plan", lambda: changed)
    train.main(world)
    assert {row["rate"] for row in rows_of(world, "initialization")} == {2}
    assert {row["length"] for row in rows_of(world, "length")} == {0, 3}
    assert {row["vector"] for row in rows_of(world, "vectors")} == {-1, 0, 1}


def test_quick_is_another_plan(world, no_pictures, monkeypatch):
    monkeypatch.setattr(train, "QUICK", replace(SMALL, rates=(3,)))
    train.main([*world, "--quick"])
    assert {row["rate"] for row in rows_of(world, "initialization")} == {3}


def test_an_interrupted_job_keeps_the_experiments_that_are_done(world, no_pictures, monkeypatch):
    def killed(lab, plan, first_seed):
        raise KeyboardInterrupt

    length = train.EXPERIMENTS["length"]
    monkeypatch.setitem(train.EXPERIMENTS, "length", length._replace(run=killed))
    with pytest.raises(SystemExit) as stop:
        train.guard(lambda: train.main(world))
    assert stop.value.code == 130
    assert os.listdir(world[3]) == ["initialization.csv"]
    assert len(rows_of(world, "initialization")) > 0


def test_a_mistake_in_a_task_that_a_student_added_keeps_its_traceback(world, monkeypatch):
    mine = Task("the hundredth word", lambda s: s.text.split()[99], [], ["Say the 100th word."])
    monkeypatch.setitem(TASKS, "mine", mine)
    plan = replace(SMALL, start_steps=(("first-letter-last", 1), ("mine", 4)))
    monkeypatch.setattr(train, "Plan", lambda: plan)
    with pytest.raises(IndexError) as kept:
        train.guard(lambda: train.main(world))
    assert kept.traceback[-1].path.name == Path(__file__).name  # the student's own line


def test_a_base_with_a_number_that_is_none_stops_the_run_in_one_line(world, tok, capsys):
    model = nan_model(tok)
    model.save(world[1], tokenizer=[token.decode("latin-1") for token in TOKENS])
    with pytest.raises(SystemExit) as stop:
        train.guard(lambda: train.main(world))
    errors = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2
    assert [line for line in errors if "nan" in line] == [errors[-1]]
    assert errors[-1].startswith("error: training step 0: the loss of row ")
    assert os.listdir(world[3]) == []


BAD = [
    (["--base", "nowhere.pt"], "nowhere.pt"),
    (["--base", "."], "directory|denied"),
    (["--base", "damaged.pt"], "damaged.pt is damaged"),
    (["--base", "prompt.pt"], "prompt.pt does not hold a base model"),
    (["--base", "bare.pt"], "bare.pt has no tokenizer"),
    (["--device", "abacus"], "--device abacus cannot be used"),
    (["--device", "meta"], "--device meta cannot be used"),
    (["--out", "damaged.pt"], "damaged.pt"),
    (["--plot", "--out", "empty"], "no results in empty: run this without --plot"),
    (["--plot", "--out", "cut"], "cut.vectors.csv:3: "),
    (["--seed", "x"], "--seed.*'x'"),
    (["--seed", "1" + 30 * "0"], "--seed"),
    (["--nonsense"], "--nonsense"),
    (["--plo"], "--plo"),
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
    Path("cut").mkdir()
    write_table(Path("cut"), "vectors", hand_made_vectors())
    table = Path("cut", "vectors.csv")
    table.write_text("\n".join(table.read_text().splitlines()[:2]) + "\nswap-1,0")
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
    for option in ("--quick", "--plot", "--out", "--base", "--device", "--seed"):
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
