"""Texts of one's own: training on them, killed and gone on with, judging, answering."""

# ruff: noqa: F811 (a fixture that is imported has the name of an argument)

import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import own_data
import pytest
import torch
from conftest import ROOT
from own_data import (
    EarlyStop,
    allowed_tokens,
    choice_loss,
    choose,
    choose_each,
    draw_similar_rows,
    few_answers,
    ids_of,
    judge,
    mean_losses,
    read_data,
    read_pairs,
    rows_behind,
    score_choice,
)
from small_world import save_tiny, tiny, tok  # noqa: F401  (tok is a fixture)

import train
from model import InputError
from softprompt import PromptTuning, initial_embeddings, load, prefill, save
from train import Arm, NotFinite, fit, load_base, mean_of_arms, score, warm_up_and_fall

# ------------------------------------------------------------------ rows


def test_similar_rows_are_the_same_again_and_of_like_length():
    gen = random.Random(0)
    rows = [([0] * gen.randint(1, 40), [i]) for i in range(300)]
    batches = [draw_similar_rows(rows, 3, step, 16) for step in range(16)]
    assert batches == [draw_similar_rows(rows, 3, step, 16) for step in range(16)]
    assert batches != [draw_similar_rows(rows, 4, step, 16) for step in range(16)]
    for eight in (batches[:8], batches[8:]):  # without replacement, and every length comes up
        answers = {row[1][0] for batch in eight for row in batch}
        ends = [[min(len(q) for q, _ in batch), max(len(q) for q, _ in batch)] for batch in eight]
        assert len(answers) == 128 and max(high - low for low, high in ends) < 14
        assert min(low for low, _ in ends) < 4 and max(high for _, high in ends) > 37
    assert len(draw_similar_rows(rows[:5], 0, 0, 16)) == 16  # so few come again


def test_long_texts_lose_their_beginning(tok, capsys):
    model = tiny(tok, block_size=36)
    pairs = [("word " * 50 + "last", "yes"), ("short", "no")]
    rows = rows_behind(model, tok, pairs, 4, "Say:", ["the longest"])
    assert capsys.readouterr().err.count("1 of 2 texts") == 1
    longest = len(tok.encode(" the longest")) + 1  # fits behind every text, with the end
    assert 4 + len(rows[0][0]) + longest == 36
    text = tok.decode(rows[0][0])
    assert text.startswith("Say:") and text.endswith("last ->")
    assert tok.decode(rows[1][0]) == "Say:\nshort ->"
    judge(model, tok, PromptTuning(torch.zeros(4, 16)).past(model), rows, ["the longest"])
    with pytest.raises(InputError, match="leave no room for a text in block_size=36"):
        rows_behind(model, tok, [("word", "answer " * 20)])


# ------------------------------------------------------------------ few answers, and the choice


def test_few_answers():
    assert few_answers([("x", "a"), ("y", "b"), ("z", "b")]) == ["a", "b"]
    assert few_answers([("x", str(i)) for i in range(21)]) == []
    assert len(few_answers([("x", str(i)) for i in range(20)])) == 20
    assert few_answers([("x", "a")], " b, a") == ["a", "b"]
    with pytest.raises(InputError, match="--answers b,c lacks 'a', an answer in the data"):
        few_answers([("x", "a"), ("y", "b")], "b,c")


def test_answers_hold_commas_in_quotes():
    pairs = [("x", "no, never"), ("y", "yes")]
    assert few_answers(pairs, 'yes, "no, never"') == ["no, never", "yes"]
    with pytest.raises(InputError, match="lacks 'no, never'.*put quotes around"):
        few_answers(pairs, "yes,no, never")
    with pytest.raises(InputError, match='--answers "yes: '):
        few_answers(pairs, '"yes')


def test_allowed_tokens_are_those_that_begin_alike():
    choices = [[3, 9], [3, 4, 9], [5, 9]]
    assert allowed_tokens([3, 4, 9], choices) == [[3, 5], [4, 9], [9]]
    assert allowed_tokens([5, 9], choices) == [[3, 5], [9]]
    assert allowed_tokens([1, 9], choices) == [[1, 3, 5], [9]]  # none of them
    assert allowed_tokens([3, 9], []) == [[3], [9]]


def random_pairs(answers, n=40):
    """n texts, each with one of the answers."""
    gen = random.Random(1)
    texts = [" ".join(gen.choices(["matrix", "plot", "a"], k=gen.randint(1, 6))) for _ in range(n)]
    return [(text, gen.choice(answers)) for text in texts]


def test_judge_is_greedy_decoding_and_the_likeliest_answer(tok):
    model, answers = tiny(tok), ["torch", "numpy", "torch numpy", "function"]
    pairs = random_pairs(answers)
    soft = PromptTuning(initial_embeddings(model, 3, "vocab", generator=seeded(0)))
    with torch.no_grad():
        pasts = None, soft.past(model)
    for past in pasts:
        # Some of the answers are the model's own, or nothing would be exactly right.
        rows = rows_behind(model, tok, pairs)
        own = model.generate([row[0] for row in rows[:9]], 2, past)
        rows[:9] = [(row[0], new) for row, new in zip(rows, own)]
        loss, exact, among = judge(model, tok, past, rows, answers)
        [mean], [right] = mean_of_arms(score(model, past, rows), 1)
        assert math.isclose(loss, mean, rel_tol=1e-4) and exact == pytest.approx(right.item())
        greedy = sum(model.generate([q], len(a), past)[0] == a for q, a in rows)
        assert exact == pytest.approx(greedy / len(rows)) and exact >= 9 / 40
        right, said = 0, [tok.encode(f" {a}") + [tok.end] for a in answers]
        every = choose_each(model, tok, past, [question for question, _ in rows], answers)
        for (question, answer), one in zip(rows, every):
            chosen = []  # token by token, among those that lead to an answer
            while chosen not in said:
                logits, _ = model(torch.tensor([question + chosen]), past)  # (1, T, V)
                ways = sorted({a[len(chosen)] for a in said if a[: len(chosen)] == chosen})
                chosen.append(ways[logits[0, -1, ways].argmax()])
            right += chosen == answer
            assert ids_of(tok, [one]) == [chosen]
        assert choose(model, tok, past, *rows[-1][:1], answers) == every[-1]
        assert among == pytest.approx(right / len(rows)) and among > 0


def test_the_choice_is_a_distribution_over_the_answers(tok):
    """Over all answers, of which one begins as another, the chances of being chosen add up to 1;
    and the loss of a choice teaches nothing to tokens that no answer has."""
    model, answers = tiny(tok), ["no", "no, never", "yes", "no, not yet", "say so"]
    choices = ids_of(tok, answers)
    past = PromptTuning(torch.randn(3, 16, generator=seeded(0))).past(model)
    question = tok.encode("\nOpen the graph. ->")
    scores = score_choice(model, tok, past, [(question, ids) for ids in choices], choices)
    assert (-scores.choice_nats).exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert scores.choice_nats.min() > 0 and scores.chosen.sum() == 1
    other = tok.encode(" graph") + [tok.end]  # none of them: it cannot be chosen
    [alone] = score_choice(model, tok, past, [(question, other)], choices).chosen
    [listed] = score_choice(model, tok, past, [(question, other)], [*choices, other]).choice_nats
    assert alone == 0 and listed.isfinite()
    nothing = score_choice(model, tok, past, [(question, other)], [])
    assert nothing.choice_nats == 0 and nothing.chosen == 1


def test_equal_logits_do_not_favour_the_truth(tok):
    """With all logits equal, one answer is chosen for every text, and judge says the same."""
    model = tiny(tok)
    for p in model.parameters():
        torch.nn.init.zeros_(p)
    answers = ["torch", "numpy", "class"]
    rows = rows_behind(model, tok, [(f"plot {i}", answer) for i, answer in enumerate(answers)])
    assert judge(model, tok, None, rows, answers).among == pytest.approx(1 / 3)
    [one] = set(choose_each(model, tok, None, [question for question, _ in rows], answers))
    assert judge(model, tok, None, rows, [*answers, "graph"]).exact == 0
    for row, answer in zip(rows, answers):
        assert judge(model, tok, None, [row], answers).among == (answer == one)


def spoil(model, tok, word):
    """Not a number wherever this word stands in a text, as in a damaged or never trained row; the
    logits of other texts stay whole."""
    [token] = tok.encode(word)
    with torch.no_grad():
        model.model.embed_tokens.weight[token] = math.nan


def test_not_a_number_is_never_right_and_its_text_is_named(tok):
    model, answers = tiny(tok, tie_embeddings=False), ["torch", "numpy"]
    spoil(model, tok, "~")
    pairs = [("a plot", "torch"), ("a ~ matrix", "numpy"), ("a graph", "torch")]
    rows = rows_behind(model, tok, pairs)
    judge(model, tok, None, [rows[0], rows[2]], answers)
    for work in (
        lambda: judge(model, tok, None, rows, answers),
        lambda: judge(model, tok, None, rows),
        lambda: choose_each(model, tok, None, [question for question, _ in rows], answers),
        lambda: choice_loss(tok, [])(model, PromptTuning(torch.ones(2, 16)).past(model), rows),
    ):
        with pytest.raises(NotFinite, match="at the text 'a ~ matrix' the loss is nan"):
            work()


def test_the_loss_of_the_choice_is_that_of_each_arm_alone(tok):
    model, choices = tiny(tok), ids_of(tok, ["no", "no, never", "yes"])
    texts = ["graph", "matrix", "plot a", "open"]
    rows = [(tok.encode(f"\n{text} ->"), choices[i % 3]) for i, text in enumerate(texts)]
    softs = [PromptTuning(torch.randn(P, 16, generator=seeded(P))) for P in (2, 5)]
    for some in (choices, []):
        loss = choice_loss(tok, some)
        together = loss(model, prefill(softs, model), rows)
        alone = [loss(model, s.past(model), part) for s, part in zip(softs, (rows[:2], rows[2:]))]
        assert torch.allclose(together, torch.cat(alone), atol=1e-5)
    scores = score_choice(model, tok, softs[0].past(model), rows[:2], choices)
    by_hand = scores.choice_nats.sum() / 2 + 0.1 * scores.nats.sum() / scores.tokens.sum()
    assert mean_losses(scores, 1, choices).item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_training_on_the_choice_teaches_the_answer_as_well(tok):
    model, choices = tiny(tok), ids_of(tok, ["no", "no, never"])
    soft = PromptTuning(torch.randn(6, 16, generator=seeded(0)) * 0.1)
    rows = [(tok.encode(f"\n{word} ->"), choices[word == "graph"]) for word in ("graph", "matrix")]

    def scores():
        with torch.inference_mode():
            return score_choice(model, tok, soft.past(model), rows, choices)

    before = scores()
    for _ in fit(model, [Arm(soft, "", 6.0)], {"": rows * 2}, 60, 4, choice_loss(tok, choices)):
        pass
    assert scores().chosen.sum() == 2
    assert scores().choice_nats.sum() < 0.5 * before.choice_nats.sum()
    assert scores().nats.sum() < before.nats.sum()


def seeded(seed):
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------ when to stop


def test_early_stopping_by_hand():
    stop, found = EarlyStop(), []
    for loss in [3.0, 2.0, 2.5, 2.0, 1.5, 1.6, 1.7, 1.4, 1.4, 1.4]:
        better = stop.better(loss)
        found.append((better, stop.falls, stop.over))
    assert [i for i, (better, _, _) in enumerate(found) if better] == [0, 1, 4, 7]
    assert [falls for _, falls, _ in found] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    assert [over for _, _, over in found].index(True) == 6  # there training ends
    for falls in range(3):
        share = EarlyStop(falls=falls).schedule(50, 300)
        assert share == pytest.approx(warm_up_and_fall(50, 300) / 3**falls)
    assert not EarlyStop().better(math.nan)


def write_rows(path, pairs):
    Path(path).write_text("\n".join("\t".join(pair) for pair in pairs), encoding="utf-8")


def lines_of(n, seed, answers=("class", "function", "function")):
    """n texts and answers that have nothing to do with one another."""
    gen = random.Random(seed)
    texts = [" ".join(gen.choices(["matrix", "plot", "one", "graph"], k=5)) for _ in range(n)]
    return [(f"{text} {i}", gen.choice(answers)) for i, text in enumerate(texts)]


@pytest.fixture
def world(tok, tmp_path, monkeypatch):
    """A folder with a small base and files to learn from."""
    monkeypatch.chdir(tmp_path)
    save_tiny("base.pt", tok)
    write_rows("train.tsv", lines_of(60, 0))
    write_rows("valid.tsv", lines_of(20, 1))
    return tmp_path


COMMAND = "tune --base base.pt --data train.tsv --length 4 --init text --init-text".split()
COMMAND += ["Class or function?", "--steps", "20", "--save", "soft.pt", "--lr", "1"]
ANSWER = "answer --base base.pt --prompt".split()


def base_model():
    return load_base("base.pt", "cpu")[0]


def run(capsys, *words):
    """(stdout, stderr) of a command."""
    own_data.main([*words])
    told = capsys.readouterr()
    return told.out, told.err


def table_of(out):
    """{name: [its numbers]} of the lines of a table."""
    found = {}
    for line in out.splitlines():
        match = re.match(r"(.*?)  +([-\d.]+) +([\d.]+)(?: +([\d.]+))?$", line.rstrip())
        if match:
            name, *numbers = match.groups()
            found[name] = [number for number in numbers if number]
    return found


def refused(message, *words):
    with pytest.raises(InputError, match=message) as stop:
        own_data.main([*words])
    assert "\n" not in str(stop.value)


# ------------------------------------------------------------------ tune


def test_own_data_is_learned_saved_and_judged(world, capsys):
    out, _ = run(capsys, *COMMAND, "--valid", "valid.tsv")
    assert "60 texts to learn from, 20 to validate (10 to choose when to stop, 10 for the" in out
    assert "among 2" in out and "10 texts" in out
    table = table_of(out)
    assert list(table) == ["always 'function'", "no prompt", "'Class or function?'", "prompt of 4"]
    _, valid = read_data("train.tsv", "valid.tsv")
    assert sorted(valid) == sorted(read_pairs("valid.tsv"))
    stop, last = valid[:10], valid[10:]  # the table is of texts that had no part in the choice
    share = sum(answer == "function" for _, answer in last) / 10
    assert table["always 'function'"][-1] == f"{share:.3f}"
    soft = load("soft.pt", base_model())
    assert soft.facts["answers"] == ["class", "function"] and soft.facts["step"] > 0

    # The table and what is saved, again and by hand.
    tok = load_base("base.pt", "cpu")[1]
    past = soft.past(base_model())
    for pairs, accuracy in (
        (stop, f"{soft.facts['accuracy']:.3f}"),
        (last, table["prompt of 4"][2]),
    ):
        rows = rows_behind(base_model(), tok, pairs, 4)
        among = judge(base_model(), tok, past, rows, ["class", "function"]).among
        assert f"{among:.3f}" == accuracy
    write_rows("last.tsv", last)
    again, _ = run(capsys, *ANSWER, "soft.pt", "--data", "last.tsv")
    assert table_of(again)["soft.pt"] == table["prompt of 4"]

    # What to do next is a command that runs.
    following = re.search(r'Next: python tutorials/own_data.py (.*) --text "..."', out)[1]
    out, _ = run(capsys, *following.split(), "--text", "A plot.")
    assert out.split()[-1] in ("class", "function")

    out, _ = run(capsys, *COMMAND)  # a fifth of the rows for validation
    counts = [int(word) for word in out.split() if word.isdigit()][:2]
    assert sum(counts) == 60 and 4 <= counts[1] <= 20
    out, err = run(capsys, *ANSWER, "soft.pt", "--text", "plot " * 300)
    assert "1 of 1 texts are longer" in err and "soft.pt" in out


@pytest.mark.parametrize(
    "answers",
    [
        ["no", "no, never"],  # one begins with the other
        ["matrix", "graph"],  # as texts do
        [f"w{i}" for i in range(20)],
        [f"w{i}" for i in range(21)],
    ],
    ids=["begins alike", "within the text", "20", "21"],
)
def test_answers_of_every_kind_are_learned_and_judged(world, answers, capsys):
    """`tune` and `answer` agree to every digit; one answer is never validated, and the first is
    fifty times as frequent as the last."""
    drawn = answers * 3 + answers[:1] * 147
    pairs = [(f"{answer} plot {i}", answer) for i, answer in enumerate(drawn)]
    write_rows("train.tsv", pairs)
    write_rows("valid.tsv", pairs[: 2 * len(answers) - 1])
    out, err = run(capsys, *COMMAND, "--valid", "valid.tsv", "--steps", "4")
    few = len(answers) <= 20
    assert load("soft.pt", base_model()).facts["answers"] == (sorted(answers) if few else [])
    assert (f"among {len(answers)}" in out) == few
    assert (
        f"{2 * len(answers) - 1} of {2 * len(answers) - 1} texts to validate with are also" in err
    )
    _, valid = read_data("train.tsv", "valid.tsv")
    write_rows("table.tsv", valid[math.ceil(len(valid) / 2) :])
    again, _ = run(capsys, *ANSWER, "soft.pt", "--data", "table.tsv")
    assert table_of(again)["soft.pt"] == table_of(out)["prompt of 4"]
    labels = [line.split("\t") for line in again.splitlines() if "\t" in line]
    assert [text for text, _ in labels] == [text for text, _ in read_pairs("table.tsv")]
    if few:
        right = [pair for pair in read_pairs("table.tsv") if list(pair) in labels]
        assert f"{len(right) / len(labels):.3f}" == table_of(again)["soft.pt"][2]
        assert {said for _, said in labels} <= set(answers)


def test_a_prompt_that_learns_nothing_is_told(world, monkeypatch, capsys):
    _, valid = read_data("train.tsv", "valid.tsv")
    share = own_data.share_of("function", valid[10:])
    for among, told in ((share, True), (share + 0.01, False)):
        judgement = own_data.Judgement(1.0, 1.0, among)
        monkeypatch.setattr(own_data, "judge", lambda *given, it=judgement: it)
        out, _ = run(capsys, *COMMAND, "--steps", "1", "--valid", "valid.tsv")
        assert ("no better than always 'function'" in out) == told


def test_early_stopping_keeps_the_best(world, monkeypatch, capsys):
    losses, vectors = iter([3.0, 2.0, 1.0, 1.5, 1.0, 1.2, 1.1, 0.5]), []
    rates, real = [], own_data.warm_up_and_fall

    def remember(soft, *where, **facts):
        vectors.append(soft.embeddings.detach().clone())
        save(soft, *where, **facts)

    def schedule(step, steps):
        rates.append(real(step, steps))
        return rates[-1]

    monkeypatch.setattr(own_data, "validate", lambda *given: (next(losses), 0.5))
    monkeypatch.setattr(own_data.softprompt, "save", remember)
    monkeypatch.setattr(own_data, "warm_up_and_fall", schedule)
    monkeypatch.setattr(own_data, "EVERY", 4)
    out, _ = run(capsys, *COMMAND, "--steps", "40", "--valid", "valid.tsv")
    assert "step   24 " in out and next(losses) == 0.5 and len(rates) == 24
    soft = load("soft.pt", base_model())
    assert soft.facts["step"] == 8 and soft.facts["loss"] == 1 and len(vectors) == 3
    assert torch.equal(soft.embeddings, vectors[2]) and not torch.equal(vectors[2], vectors[1])


def test_what_tune_does_where_nothing_is_asked_for(world, monkeypatch, capsys):
    """The defaults that the six tasks were measured with."""
    asked, real = {}, own_data.fit

    def remember(model, arms, rows, steps, size, loss, draw, schedule):
        asked.update(arms=arms, steps=steps, size=size, draw=draw)
        return real(model, arms, rows, 1, size, loss, draw, schedule)

    monkeypatch.setattr(own_data, "fit", remember)
    for method, rate in (("prompt", 0.1), ("prefix", 0.01)):
        tune = ["tune", "--base", "base.pt", "--data", "train.tsv", "--method", method]
        run(capsys, *tune)
        [arm] = asked.pop("arms")
        assert (arm.soft.kind, arm.soft.length, arm.rate, arm.seed) == (method, 16, rate, 0)
        assert asked == {"steps": 300, "size": 16, "draw": draw_similar_rows}
        assert load(f"out/train-{method}.pt", base_model()).facts["init"] == "vocab"
    assert (own_data.EVERY, own_data.PATIENCE, own_data.FALLS) == (20, 2, 2)
    assert own_data.parse(["tune"]).base == train.BASE


def test_what_another_run_saves_to_the_same_name_is_not_reported(world, monkeypatch, capsys):
    want, _ = run(capsys, *COMMAND, "--valid", "valid.tsv")

    def save_both(soft, path, model, **facts):
        save(soft, path, model, **facts)
        save(PromptTuning(torch.full((4, 16), 9.0)), path, model, **facts)  # the other run

    monkeypatch.setattr(own_data.softprompt, "save", save_both)
    got, _ = run(capsys, *COMMAND, "--valid", "valid.tsv")
    assert table_of(got) == table_of(want)


@pytest.mark.parametrize("word", ["valid", "train"])
def test_not_a_number_stops_and_says_where(world, tok, word, monkeypatch, capsys):
    monkeypatch.setattr(train, "sizes", lambda soft, model: [0.1])  # the table's spread is NaN too
    model = save_tiny("base.pt", tok, tie_embeddings=False)
    spoil(model, tok, "~")
    facts = load_base("base.pt", "cpu")[0].facts
    model.save("base.pt", **facts)
    run(capsys, *COMMAND, "--valid", "valid.tsv", "--steps", "1")
    before = Path("soft.pt").read_bytes()
    pairs = read_pairs(f"{word}.tsv")
    write_rows(f"{word}.tsv", [(f"{text} ~ {i}", answer) for i, (text, answer) in enumerate(pairs)])
    with pytest.raises(InputError, match=r"at the text '.* ~ \d+' the loss is nan"):
        own_data.main([*COMMAND, "--valid", "valid.tsv"])
    out = capsys.readouterr().out
    assert "1.000" not in out and "Next" not in out
    if word == "valid":  # not even a first prompt of this run
        assert Path("soft.pt").read_bytes() == before
    refused(r"at the text '.* ~ \d+' the loss", *ANSWER, "soft.pt", "--data", f"{word}.tsv")
    save(PromptTuning(torch.ones(2, 16)), "free.pt", model)  # knows no answers, so it writes them
    refused(
        r"at the text '.* ~ \d+': row 0: .*not numbers", *ANSWER, "free.pt", "--data", f"{word}.tsv"
    )


# ------------------------------------------------------------------ said or refused

BAD_DATA = [
    ("a\tyes\nb\tyes\nc\tyes\nd\tyes", ["--valid", "valid.tsv"], "more than one answer"),
    ("a\tyes\nb\tno", ["--save", "folder"], "folder is a folder"),
    ("a\tyes\nb\tno", ["--save", "../{}/own.tsv"], "would replace the file that is read"),
    ("a\tyes", [], "own.tsv: . rows to learn from"),
    ("a\tyes\nb\tno", ["--task", "count"], "give --data FILE and perhaps --valid FILE, or --task"),
    ("a\tyes\nb\tno", ["--valid", "nowhere.tsv"], "nowhere.tsv"),
    ("a\tyes\nb\tno\tno", [], "own.tsv:2: 3 fields"),
    ("a\tyes\nb\t" + "no " * 300, ["--valid", "valid.tsv"], "leave no room for a text"),
    ("a\tyes\nb\tno", ["--init-text", "a " * 300, "--valid", "valid.tsv"], "301 of hard prompt"),
    # numbers out of range
    ("a\tyes\nb\tno", ["--lr", "nan"], "--lr nan"),
    ("a\tyes\nb\tno", ["--lr", "-1"], "--lr -1"),
    ("a\tyes\nb\tno", ["--lr", "0"], "--lr 0"),
    ("a\tyes\nb\tno", ["--steps", "0"], "--steps 0: give a number from 1"),
    ("a\tyes\nb\tno", ["--seed", "-1"], "--seed -1: give a number from 0"),
    ("a\tyes\nb\tno", ["--seed", "9" * 20], "--seed 9+: give a number from 0"),
    ("a\tyes\nb\tno", ["--seed", "one"], "argument --seed: invalid int value: 'one'"),
    ("a\tyes\nb\tno", ["--length", "0"], "--length 0: give a number from 1"),
    ("a\tyes\nb\tno", ["--length", "long"], "argument --length: invalid"),
    ("a\tyes\nb\tno", ["--length", "300", "--valid", "valid.tsv"], "300 virtual tokens leave no"),
    ("a\tyes\nb\tno", ["--device", "hpu", "--valid", "valid.tsv"], "--device hpu cannot be used"),
    ("a\tyes\nb\tno", ["--device", "meta", "--valid", "valid.tsv"], "--device meta cannot be"),
    # what is asked for and cannot be done
    ("a\tyes\nb\tno", ["--answers", "yes", "--valid", "valid.tsv"], "--answers yes lacks 'no'"),
    ("a\tyes\nb\tno", ["--init", "here.pt", "--valid", "valid.tsv"], "--init here.pt: no such"),
    ("a\tyes\nb\tno", ["--length", "auto"], "argument --length: invalid int value: 'auto'"),
    ("a\tyes\nb\tno", ["--init-text", ""], "--init text starts from a text"),
    ("a\tyes\nb\tno", ["--init-text", "half \ud83d"], "--init-text: half of a character at 6"),
    ("a\tyes\nb\tno", ["--base", "nowhere", "--valid", "valid.tsv"], "nowhere is no folder"),
    ("a\tyes\nb\tno", ["--method", "lora"], "argument --method: invalid choice"),
    ("a\tyes\nb\tno", ["--job", "count"], "unrecognized arguments: --job"),
]


@pytest.mark.parametrize("content, arguments, message", BAD_DATA)
def test_data_that_cannot_be_learned_is_one_line(world, content, arguments, message, capsys):
    Path("own.tsv").write_text(content)
    Path("folder").mkdir()
    arguments = [word.replace("{}", world.name) for word in arguments]
    before = sorted(world.iterdir())
    with pytest.raises(SystemExit) as stop:
        own_data.guard(lambda: own_data.main([*COMMAND, "--data", "own.tsv", *arguments]))
    lines = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and len(lines) == 1 and re.search(message, lines[0]), lines
    assert sorted(world.iterdir()) == before


def test_what_is_asked_for_and_not_done_is_said(world, capsys):
    command = [*COMMAND, "--valid", "valid.tsv", "--steps", "1"]
    write_rows("valid.tsv", lines_of(6, 1, ["function", "module"]) + [("graph", "class")] * 2)
    _, err = run(capsys, *command, "--length", "2")
    tokens = len(load_base("base.pt", "cpu")[1].encode("Class or function?"))
    assert f"--init-text has {tokens} tokens: the start is cut to the first 2" in err
    unknown = sum(answer == "module" for _, answer in read_pairs("valid.tsv"))
    assert f"{unknown} of 8 texts to validate with have an answer that training never saw" in err
    assert "'module'" in err
    _, err = run(capsys, *ANSWER, "soft.pt", "--data", "valid.tsv")
    assert f"{unknown} of 8 texts of the file have an answer" in err
    write_rows("valid.tsv", lines_of(401, 1))
    _, err = run(capsys, *command, "--length", str(tokens))
    assert "400 of 401 texts to validate with are used" in err and "cut" not in err
    write_rows("valid.tsv", lines_of(1, 1))
    out, err = run(capsys, *command)
    assert "one text to validate with, and none for a table" in err and "Next: " in out


def test_a_saved_prompt_is_gone_on_with_as_it_is(world, capsys):
    command = [*COMMAND, "--valid", "valid.tsv", "--steps", "1"]
    run(capsys, *command)
    saved = load("soft.pt", base_model())
    going_on = [*command, "--init", "soft.pt", "--save", "more.pt"]
    out, _ = run(capsys, *going_on)
    assert f"step    0   validation: loss {saved.facts['loss']:.3f}" in out
    assert load("more.pt", base_model()).facts["loss"] <= saved.facts["loss"]
    going_on[going_on.index("--length") + 1] = "32"
    refused("--length 32: soft.pt has 4 virtual tokens", *going_on)
    going_on[going_on.index("--length") : going_on.index("--length") + 2] = []
    run(capsys, *going_on)
    assert load("more.pt", base_model()).length == 4
    refused("soft.pt is a prompt: give --method prompt", *going_on, "--method", "prefix")


def test_a_task_of_the_project(world, monkeypatch, capsys):
    from small_world import sentences

    data = {"train": sentences(60), "valid": sentences(20, 1)}
    monkeypatch.setattr(own_data, "load_data", lambda out: data)
    out, _ = run(capsys, *"tune --base base.pt --task kind --steps 1 --length 2".split())
    assert "kind: 60 texts to learn from, 20 to validate" in out
    assert Path("out/kind-prompt.pt").exists()
    refused("or --task NAME", "tune", "--base", "base.pt")


# ------------------------------------------------------------------ killed, and consoles


def test_killed_at_any_moment_it_leaves_a_prompt_to_go_on_from(world, capsys):
    gen, runs = random.Random(0), {}
    for method in ("prompt", "prefix"):
        command = [*COMMAND, "--method", method, "--valid", "valid.tsv"]
        command[command.index("--steps") + 1] = "3000"
        command[command.index("--save") + 1] = f"{method}.pt"
        program = [sys.executable, ROOT / "tutorials" / "own_data.py", *command]
        nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
        runs[method] = subprocess.Popen(program, env=one_thread, **nowhere)
    for method, child in runs.items():
        while not Path(f"{method}.pt").exists():
            assert child.poll() is None
            time.sleep(0.001)
        time.sleep(gen.uniform(0, 0.3))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        soft = load(f"{method}.pt", base_model())
        assert soft.kind == method and soft.length == 4
    going_on = ["--method", method, "--init", f"{method}.pt", "--save", "more.pt"]
    out, _ = run(capsys, *COMMAND, "--valid", "valid.tsv", *going_on)
    assert f"step    0   validation: loss {soft.facts['loss']:.3f}" in out
    more = load("more.pt", base_model())
    assert more.length == 4 and more.facts["loss"] <= soft.facts["loss"]


def test_stopped_by_hand_it_says_what_there_is(world, monkeypatch, capsys):
    def stop(*given):
        if Path("soft.pt").exists():
            raise KeyboardInterrupt
        return 1.0, 0.5

    monkeypatch.setattr(own_data, "validate", stop)
    with pytest.raises(KeyboardInterrupt):
        own_data.main([*COMMAND, "--valid", "valid.tsv"])
    assert "soft.pt has the best prompt so far: --init soft.pt goes on" in capsys.readouterr().err


def test_consoles_that_are_not_utf8(world, monkeypatch, capsys):
    """They show the code of a character that they do not have, and files are UTF-8 as ever."""
    import io

    write_rows("jp.tsv", [(f"日本語 {i}", ("はい", "いいえ")[i % 2]) for i in range(40)])
    screen = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", screen)
    tune = ["tune", "--base", "base.pt", "--data", "jp.tsv", "--steps", "1", "--length", "2"]
    train.guard(lambda: own_data.main([*tune, "--save", "jp.pt"]))
    train.guard(lambda: own_data.main([*ANSWER, "jp.pt", "--text", "日本語"]))
    train.guard(
        lambda: own_data.main([*ANSWER, "jp.pt", "--data", "jp.tsv", "--save", "labels.csv"])
    )
    screen.flush()
    shown = screen.buffer.getvalue().decode("cp1252")
    assert "\\u65e5" in shown and "Next: " in shown
    assert {answer for _, answer in read_pairs("labels.csv")} <= {"はい", "いいえ"}


# ------------------------------------------------------------------ no prompt is lost


def test_two_files_of_one_name_have_a_prompt_each(world, capsys):
    tune = ["tune", "--base", "base.pt", "--steps", "1", "--length", "2", "--data"]
    for folder, answers in (("a", ("urgent", "wait")), ("b", ("yes", "no"))):
        Path(folder).mkdir()
        write_rows(f"{folder}/train.tsv", lines_of(60, 0, answers))
        out, err = run(capsys, *tune, f"{folder}/train.tsv")
    assert (
        "out/train-prompt.pt stays as it is: the best prompt so far is in out/train-prompt-2" in err
    )
    assert "--prompt out/train-prompt-2.pt" in out and "out/train-prompt-2.pt: 2 virtual" in out
    kept = {path.name: load(path, base_model()).facts["answers"] for path in Path("out").iterdir()}
    assert kept == {"train-prompt.pt": ["urgent", "wait"], "train-prompt-2.pt": ["no", "yes"]}


def test_a_trained_prompt_stays_until_another_is_trained(world, monkeypatch, capsys):
    """Also where --save asks for its name, through a link, and the run is stopped or fails."""
    command = [*COMMAND, "--valid", "valid.tsv"]
    Path("soft.pt").symlink_to("real.pt")
    run(capsys, *command)
    before, validate, looks = Path("real.pt").read_bytes(), own_data.validate, []

    def stop(*given):
        looks.append(stopped)
        if len(looks) == 2:
            raise stopped
        return validate(*given)

    for stopped in (KeyboardInterrupt(), NotFinite("the loss is nan")):
        with monkeypatch.context() as patch:
            patch.setattr(own_data, "validate", stop)
            with pytest.raises(type(stopped)):
                own_data.main([*command, "--seed", "1"])
        err = capsys.readouterr().err
        assert "soft.pt is replaced when this training is done" in err
        assert "soft-2.pt has the best prompt so far: --init soft-2.pt goes on" in err
        assert Path("real.pt").read_bytes() == before
        assert load("soft-2.pt", base_model()).facts["step"] == 0
        Path("soft-2.pt").unlink()
        looks.clear()
    run(capsys, *command, "--seed", "1")
    assert Path("soft.pt").is_symlink() and Path("real.pt").read_bytes() != before
    assert not Path("soft-2.pt").exists()


# ------------------------------------------------------------------ what a prompt depends on


def test_another_tokenizer_end_or_form_is_said(prompts, tok, monkeypatch, capsys):
    run(capsys, *COMMAND, "--steps", "1")
    whole, ask = base_model(), [*ANSWER, "soft.pt", "--text", "A plot."]
    _, err = run(capsys, *ask)
    assert "was trained with" not in err
    tokens = whole.facts["tokenizer"]
    swapped = [*tokens[:-2], tokens[-1], tokens[-2]]
    whole.save("base.pt", tokenizer=swapped)
    assert base_model().fingerprint() == whole.fingerprint()
    for words in (ask, [*COMMAND, "--steps", "1", "--init", "soft.pt", "--save", "more.pt"]):
        _, err = run(capsys, *words)
        assert err.count("soft.pt was trained with tokenizer") == 1 and "with end" not in err
    whole.save("base.pt", tokenizer=tokens, end=[7])
    _, err = run(capsys, *ask)
    assert f"soft.pt was trained with end [{tok.end}], and now it is [7]" in err
    assert "with tokenizer" not in err
    whole.save("base.pt", tokenizer=tokens)
    example = train.Tokenizer.example

    def other(self, text, answer, hard_prompt=""):
        return example(self, f"{text}!", answer, hard_prompt)

    monkeypatch.setattr(train.Tokenizer, "example", other)
    _, err = run(capsys, *ask)
    assert r"with form '\nTEXT -> ANSWER', and now it is '\nTEXT! -> ANSWER'" in err
    _, err = run(capsys, *ANSWER, "a.pt", "--text", "A plot.")  # it does not say, as old files
    assert "was trained with" not in err


# ------------------------------------------------------------------ what is said of the data


def test_what_is_hidden_in_the_data_is_said_before_the_training(world, capsys):
    same = ["Yes", "yes", "caf\u00e9", "cafe\u0301", "can  wait", "can wait", "no"]
    rows = [f"{i},plot {i},{same[i % 7]}" for i in range(70)]
    rows[3] += "\n\nid,text,answer\n9,plot 1,no"
    Path("own.csv").write_text("\n".join(["id,text,answer", *rows, "", ""]), encoding="utf-8")
    _, err = run(capsys, *COMMAND, "--data", "own.csv", "--steps", "1")
    before, _ = err.split("training:")
    assert "own.csv: 2 lines are passed over" in before and "the first is own.csv:6" in before
    assert "own.csv: columns that are not used: id" in before
    assert "1 texts have more than one answer, as 'plot 1': 'no' and 'yes'" in before
    assert "3 answers are spelled in several ways" in before
    write_rows("many.tsv", [(f"plot {i}", f"w{i % 20}") for i in range(100)] + [("x", "W1")] * 3)
    out, err = run(capsys, *COMMAND, "--data", "many.tsv", "--steps", "1")
    assert "21 different answers, more than 20: they are written, and not chosen" in out
    assert "1 answers are spelled in several ways" in err and "'W1', 'w1'" in err
    _, err = run(capsys, *COMMAND, "--steps", "1", "--length", "20", "--save", "new.pt")
    assert [line for line in err.splitlines() if "minutes" not in line] == []  # nothing to say


def test_answer_says_what_tune_says_of_columns(prompts, capsys):
    rows = [f"plot {i},{('class', 'function')[i % 2]}" for i in range(30)]
    Path("v.csv").write_text("\n".join(["text,label", *rows]))
    refused("v.csv:1: the columns seem to be called text, label", *COMMAND, "--data", "v.csv")
    out, err = run(capsys, *ANSWER, "a.pt", "--data", "v.csv")
    assert "v.csv: no column is called answer; columns that are not used: label" in err
    assert len(out.splitlines()) == 30
    message = "2 prompts: give the one that is to label v.csv, which gives no answers"
    refused(message, *ANSWER, "a.pt", "b.pt", "--data", "v.csv")
    write_rows("valid.tsv", [(f"plot {i}", "Class") for i in range(5)])
    _, err = run(capsys, *ANSWER, "a.pt", "--data", "valid.tsv")
    assert "an answer that training never saw, as 'Class'" in err and "'Class', 'class'" in err


# ------------------------------------------------------------------ answer


@pytest.fixture
def prompts(world):
    """Prompts of the base: two that choose, one that writes."""
    model = base_model()
    for name, answers in (("a", ["class", "function"]), ("b", ["class", "no, never"])):
        soft = PromptTuning(torch.randn(2, 16, generator=seeded(6)))
        save(soft, f"{name}.pt", model, answers=answers, commonest=answers[1])
    save(PromptTuning(torch.randn(3, 16, generator=seeded(0))), "free.pt", model)
    return world


def test_a_file_of_texts_is_labelled(prompts, capsys):
    texts = [text for text, _ in read_pairs("valid.tsv")]
    Path("texts.txt").write_text("\n".join(texts))
    out, _ = run(capsys, *ANSWER, "b.pt", "--data", "texts.txt")
    labels = [tuple(line.split("\t")) for line in out.splitlines()]
    model, tok = load_base("base.pt", "cpu")
    past = load("b.pt", model).past(model)
    for (text, said), want in zip(labels, texts):
        question, _ = tok.example(text, "")
        assert text == want and said == choose(model, tok, past, question, ["class", "no, never"])
    assert len(labels) == len(texts) and {said for _, said in labels} == {"class", "no, never"}
    for name in ("new/labels.tsv", "labels.csv", "labels.jsonl"):
        out, _ = run(capsys, *ANSWER, "b.pt", "--data", "texts.txt", "--save", name)
        assert read_pairs(name) == labels and f"{name}: 20 texts and their answers" in out
        assert "always" not in out  # there are no answers to compare with


def test_the_share_right_of_the_answers_that_are_given(prompts, capsys):
    rows = [*lines_of(30, 3)]
    Path("some.jsonl").write_text(
        "\n".join(
            json.dumps({"text": text} | ({"answer": answer} if i % 3 else {}))
            for i, (text, answer) in enumerate(rows)
        )
    )
    out, _ = run(capsys, *ANSWER, "a.pt", "--data", "some.jsonl")
    labels = [line.split("\t")[1] for line in out.splitlines() if "\t" in line]
    right = [said == answer for i, (said, (_, answer)) in enumerate(zip(labels, rows)) if i % 3]
    assert len(labels) == 30 and len(right) == 20 and "20 texts" in out
    assert table_of(out)["a.pt"][2] == f"{sum(right) / 20:.3f}"
    write_rows("given.tsv", [row for i, row in enumerate(rows) if i % 3])
    both, err = run(capsys, *ANSWER, "a.pt", "b.pt", "--data", "given.tsv")
    assert "\t" not in both and {"without a prompt", "a.pt", "b.pt"} <= table_of(both).keys()
    assert "among 3" in both and "never saw" not in err
    alone, err = run(capsys, *ANSWER, "b.pt", "--data", "given.tsv")
    assert "of 20 texts of the file have an answer that training never saw, as 'function'" in err


def test_what_answer_cannot_do_is_refused_before_the_work(prompts, monkeypatch):
    monkeypatch.setattr(own_data, "load_any_base", lambda *given: 1 / 0)
    Path("texts.txt").write_text("one\ntwo")
    Path("texts.csv").write_text('"two\nlines"\n')
    files = ["--data", "texts.txt"]
    refused("--prompt", "answer", *files)
    refused("answer needs --text", *ANSWER, "a.pt")
    refused("answer needs --text", *ANSWER, "a.pt", "--text", "x", *files)
    refused(
        "--save is for the answers to --data", *ANSWER, "a.pt", "--text", "x", "--save", "y.csv"
    )
    refused("2 prompts: give the one that is to label texts.txt", *ANSWER, "a.pt", "b.pt", *files)
    refused("2 prompts", *ANSWER, "a.pt", "b.pt", "--data", "valid.tsv", "--save", "y.csv")
    refused("y.xml: the name ends in none of", *ANSWER, "a.pt", *files, "--save", "y.xml")
    refused(". is a folder", *ANSWER, "a.pt", *files, "--save", ".")
    refused("would replace the file", *ANSWER, "a.pt", "--data", "valid.tsv", "--save", "valid.tsv")
    refused("cannot hold", *ANSWER, "a.pt", "--data", "texts.csv", "--save", "y.tsv")
    refused("--prompt no.pt: there is no such file", *ANSWER, "no.pt", *files)
    refused(r"--prompt no\*.pt: there is no such file", *ANSWER, "no*.pt", *files)
    refused("--text: half of a character", *ANSWER, "a.pt", "--text", "\udce9")


def test_labels_keep_every_row_and_column(prompts, capsys):
    Path("v.csv").write_text('ID,text,answer\n07,"a, plot",old\n08,graph,\n\n08,graph,class\n')
    for name in ("labels.csv", "labels.jsonl", "labels.tsv"):
        _, err = run(capsys, *ANSWER, "b.pt", "--data", "v.csv", "--save", name)
        assert "v.csv: 1 lines are passed over" in err
        table = own_data.read_table(name, ["text", "answer"])
        assert table.columns == ["ID", "text", "given answer", "answer"]
        assert [row.values[:3] for row in table.rows] == [
            ["07", "a, plot", "old"],
            ["08", "graph", ""],
            ["08", "graph", "class"],
        ]
        assert set(answer for _, answer in table.pairs) <= {"class", "no, never"}


def test_labelling_that_is_stopped_goes_on_where_it_was(prompts, monkeypatch, capsys):
    texts = [f"plot {i}" for i in range(100)]
    Path("texts.txt").write_text("\n".join(texts))
    command = [*ANSWER, "b.pt", "--data", "texts.txt", "--save", "new/labels.csv"]
    run(capsys, *command[:-1], "whole.csv")
    asked, choose_some = [], own_data.choose_each

    def stop(model, tok, past, questions, answers):
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(len(questions))
        return choose_some(model, tok, past, questions, answers)

    with monkeypatch.context() as patch:
        patch.setattr(own_data, "choose_each", stop)
        with pytest.raises(KeyboardInterrupt):
            own_data.main(command)
    assert "new/labels.unfinished has 64 of 100 answers" in capsys.readouterr().err
    assert not Path("new/labels.csv").exists()
    before = Path("new/labels.unfinished").read_bytes()
    other = "new/labels.unfinished is of other data or another plan: remove it"
    refused(other, *ANSWER, "a.pt", *command[-4:])
    Path("texts.txt").write_text("\n".join(["one more", *texts]))
    refused(other, *command)
    Path("texts.txt").write_text("\n".join(texts))
    assert Path("new/labels.unfinished").read_bytes() == before
    # A disk that is full at the end: no answer is lost, and none is asked for again.
    asked.clear()
    monkeypatch.setattr(own_data, "KEEP_EVERY", 0)  # after each answer
    monkeypatch.setattr(own_data, "choose_each", lambda *given: stop(*given))
    with monkeypatch.context() as patch:
        patch.setattr(own_data, "write_text", lambda *given: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            own_data.main(command)
    assert "has 100 of 100 answers" in capsys.readouterr().err and asked == [32, 4]
    out, _ = run(capsys, *command)
    assert asked == [32, 4] and "new/labels.csv: 100 texts and their answers" in out
    assert Path("new/labels.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert os.listdir("new") == ["labels.csv"]


@pytest.mark.skipif(os.name != "posix", reason="its pipes")
def test_the_place_of_the_answers_is_looked_at_before_the_work(prompts, monkeypatch):
    monkeypatch.setattr(own_data, "load_any_base", lambda *given: 1 / 0)
    Path("file").write_text("")
    os.mkfifo("pipe.csv")
    command = [*ANSWER, "a.pt", "--data", "valid.tsv", "--save"]
    with pytest.raises(OSError, match="file/l.csv"):
        own_data.main([*command, "file/l.csv"])
    refused("pipe.csv is a device or a pipe", *command, "pipe.csv")
    Path("link.csv").symlink_to("valid.tsv")
    refused("would replace the file that is read", *command, "link.csv")
    refused("is a folder: name a file", *COMMAND, "--save", "..")


def test_the_lines_of_a_free_answer_are_lost_on_the_console_only(prompts, tok, monkeypatch, capsys):
    want = "1. open it\n    2.  plot  it"
    ids = tok.encode(f" {want}\n")
    monkeypatch.setattr(own_data, "generate_each", lambda *given: [ids for _ in given[3]])
    monkeypatch.setattr(own_data, "NEW_TOKENS", len(ids) + 1)
    monkeypatch.setattr(
        own_data, "rows_behind", lambda m, t, pairs, *rest: [([1], [])] * len(pairs)
    )
    Path("texts.txt").write_text("a plot\ngraph")
    for name in ("l.csv", "l.jsonl"):
        _, err = run(capsys, *ANSWER, "free.pt", "--data", "texts.txt", "--save", name)
        assert read_pairs(name) == [("a plot", want), ("graph", want)] and "lose" not in err
    _, err = run(capsys, *ANSWER, "free.pt", "--data", "texts.txt", "--save", "l.tsv")
    assert "l.tsv: 2 answers lose their lines and spaces" in err
    assert read_pairs("l.tsv")[0] == ("a plot", "1. open it 2. plot it")
    for words in (["--data", "texts.txt"], ["--text", "a plot"]):
        out, _ = run(capsys, *ANSWER, "free.pt", *words)
        assert len(out.splitlines()) == 2 and out.rstrip().endswith("1. open it 2. plot it")


# ------------------------------------------------------------------ messages and streams


@pytest.mark.skipif(os.name != "posix", reason="the quotes of these shells")
@pytest.mark.parametrize("name", ["a.pt", "my file.pt", "a(1).pt", "it's.pt", "a&b$1.pt", "-a.pt"])
def test_a_printed_path_can_be_pasted(name):
    words = subprocess.run(
        ["sh", "-c", f"printf %s {own_data.quoted(name)}"], capture_output=True, text=True
    )
    assert Path(words.stdout) == Path(name) and not words.stdout.startswith("-")


def test_a_text_may_begin_with_a_minus(prompts, capsys):
    for words in (["--text", "-5"], ["--text=-x"], ["--text", "- plot"]):
        out, _ = run(capsys, *ANSWER, "a.pt", *words)
        assert out.splitlines()[1].startswith("a.pt")
    refused(
        "expected one argument; a value that begins with a minus", *ANSWER, "a.pt", "--text", "-x"
    )


STREAMS = {  # what a shell does with the output: (exit code, on stderr)
    "| head -1; exit ${PIPESTATUS[0]}": (141, ""),
    ">&-": (0, ""),
    "<&- >&- 2>&-": (0, ""),
    "2>&1 | head -1 >&2; exit ${PIPESTATUS[0]}": (141, "line 0\n"),
}
if os.path.exists("/dev/full"):
    STREAMS["> /dev/full"] = (2, "error: [Errno 28] No space left on device: where the output goes")


@pytest.mark.skipif(os.name != "posix", reason="its shell")
def test_output_that_is_closed_or_read_no_more(tmp_path):
    code = "import train\ndef work():\n  for i in range(9**5): print('line', i)\ntrain.guard(work)"
    runs = {}
    for stream in STREAMS:
        line = f"{sys.executable} -c {own_data.quoted(code)} {stream}"
        where = {"cwd": ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        runs[stream] = subprocess.Popen(["bash", "-c", line], text=True, **where)
    for stream, (status, said) in STREAMS.items():
        _, err = runs[stream].communicate()
        assert (runs[stream].returncode, err.strip()) == (status, said.strip()), stream


def test_stars_are_expanded(prompts, capsys):
    """Where the console does not: that of Windows."""
    shutil.copy("a.pt", "odd[1].pt")
    out, _ = run(capsys, *ANSWER, "?.pt", "odd[1].pt", "--text", "A plot.")
    shown = [line.split()[0] for line in out.splitlines()]
    assert shown == ["without", "a.pt", "b.pt", "odd[1].pt"]


def test_answers_that_are_no_choice_are_written(prompts, monkeypatch, capsys):
    out, _ = run(capsys, *ANSWER, "free.pt", "--text", "A plot.")
    assert "prompt of   0" in out and "prompt of   3" in out
    model, tok = load_base("base.pt", "cpu")
    past, (question, _) = load("free.pt", model).past(model), tok.example("A plot.", "")
    [said] = model.generate([question], 16, past, stop=tok.end)
    words = " ".join(tok.decode(said).split())
    assert out.splitlines()[1].rstrip().endswith(words + (" ..." if len(said) == 16 else ""))
    Path("texts.txt").write_text("A plot.\nOne graph.")
    _, err = run(capsys, *ANSWER, "free.pt", "--data", "texts.txt")
    assert ("of 2 answers came to no end, and are cut" in err) == (len(said) == 16)
    # Several ids end a text; then it is whole.
    model.facts["end"] = [tok.end, said[0]]
    monkeypatch.setattr(own_data, "load_any_base", lambda *given: (model, tok))
    out, _ = run(capsys, *ANSWER, "free.pt", "--text", "A plot.")
    assert out.splitlines()[1].split() == ["free.pt", "prompt", "of", "3"]


def test_an_answer_may_be_as_long_as_in_training(world, capsys):
    """Of more than 20 answers, the longest has 24 tokens: that many are written, and not 16."""
    answers = [f"w{i}" for i in range(30)] + ["w" * 23]
    write_rows("train.tsv", [(f"plot {i}", answer) for i, answer in enumerate(answers * 3)])
    run(capsys, *COMMAND, "--steps", "1")
    model, tok = load_base("base.pt", "cpu")
    soft = load("soft.pt", model)
    assert soft.facts["longest"] == len(tok.example("", "w" * 23)[1]) > 16
    [reply] = own_data.reply_each(model, tok, soft, ["plot 1"])
    question, _ = tok.example("plot 1", "")
    [said] = model.generate([question], soft.facts["longest"], soft.past(model), stop=tok.end)
    assert reply.text == tok.decode(said).strip()


# ------------------------------------------------------------------ real models


def test_a_model_of_hugging_face_is_a_base_like_any_other(tmp_path, monkeypatch, capsys):
    pytest.importorskip("safetensors")
    pytest.importorskip("tokenizers")
    from test_huggingface import checkpoint, tokenizer_json

    monkeypatch.chdir(tmp_path)
    checkpoint(tokenizer_json(Path("real")), eos_token_id=None)
    write_rows("own.tsv", [(f"Plot {i}.", str(i % 2)) for i in range(40)])
    tune = ["tune", "--base", "real", "--data", "own.tsv", "--steps", "3", "--save", "soft.pt"]
    refused("eos_token_id", *tune)
    checkpoint(Path("real"), torch.float16, eos_token_id=[0, 5])
    for method in ("prompt", "prefix"):
        out, _ = run(capsys, *tune, "--method", method)
        assert "Next: python tutorials/own_data.py answer --base real --prompt soft.pt" in out
        assert "For PEFT" in out and r"exactly this form, without a token before it: '\nTEXT" in out
        out, _ = run(capsys, *"answer --base real --prompt soft.pt --text".split(), "Plot 3.")
        assert f"{method} of  16" in out and out.split()[-1] in ("0", "1")


def test_a_base_of_ours_that_is_damaged_is_one_line(world):
    Path("base.pt").write_bytes(Path("base.pt").read_bytes()[:1000])
    refused("base.pt is damaged", *COMMAND)
