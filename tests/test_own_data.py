"""A file of one's own: reading it, training on it, killed and gone on with, judging."""

import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from test_train import TOKENS, tiny, tok  # noqa: F401  (tok is a fixture)

import train
from softprompt import PromptTuning, initial_embeddings, load, save
from train import Arm, choose, draw_similar_rows, few_answers, fit, ids_of, judge, read_pairs, rivals
from train import rows_behind, score

WANT = [('say "hi", now', "yes"), ('"tab', "no"), ("naïve — 文字\u2028end", "7")]
FILES = {
    "plain.csv": '"say ""hi"", now",yes\n"""tab",no\nnaïve — 文字\u2028end,7\n',
    "header.csv": 'i,Answer,text\n,yes,"say ""hi"", now"\n,no,"""tab"\n\n3,7,naïve — 文字\u2028end',
    "plain.tsv": 'say "hi", now\tyes\n\n"tab\tno\n  naïve — 文字\u2028end \t 7\n\n',
    "header.tsv": 'text\tanswer\nsay "hi", now\tyes\n"tab\tno\nnaïve — 文字\u2028end\t7',
    "rows.jsonl": "\n".join(json.dumps({"text": t, "answer": int(a) if a == "7" else a, "id": 1},
                                       ensure_ascii=False) for t, a in WANT) + "\n\n"}

@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["", "BOM"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_files_of_texts_and_answers(tmp_path, name, start, end):
    path = tmp_path / name
    path.write_bytes((start + FILES[name].replace("\n", end)).encode())
    assert read_pairs(path) == WANT == read_pairs(str(path))

@pytest.mark.parametrize("name, content, message", [
    ("a.tsv", "x\ty\nz\n", "a.tsv:2: 1 fields, not 2: text, answer"),
    ("a.tsv", "x\ty\n\nx\ty\tz\n", "a.tsv:3: 3 fields"),
    ("a.csv", "text,answer,id\nx,y\n", "a.csv:2: 2 fields, not 3: text, answer, id"),
    ("a.csv", 'x,y\n"open,y\nx,y\nx,y\n', "a.csv:2: unexpected end of data"),
    ("a.csv", 'x,y\n"two\nlines"\n', "a.csv:3: 1 fields"),
    ("a.csv", "x,y\n ,y\n", "a.csv:2: the text or the answer is empty"),
    ("a.tsv", "x\ty\nx\t\n", "a.tsv:2: the text or the answer is empty"),
    ("a.jsonl", '{"text": "x", "answer": "y"}\n{"text": "x"}\n', "a.jsonl:2: .*empty or missing"),
    ("a.jsonl", '{"text": "x", "answer": null}', "a.jsonl:1: .*empty or missing"),
    ("a.jsonl", "{'text'", "a.jsonl:1: Expecting property name"),
    ("a.jsonl", '["x", "y"]', "a.jsonl:1: "),
    ("a.tsv", b"x\ty\n\xe9\ty\n", "a.tsv:2: this is not UTF-8"),
    ("a.tsv", "\n\n", "a.tsv: there are no rows"), ("a.csv", "", "a.csv: there are no rows"),
    ("a.jsonl", "\ufeff", "a.jsonl: there are no rows"),
    ("a.csv", "text,answer\n", "a.csv: there are no rows")])
def test_bad_rows_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        read_pairs(tmp_path / name)

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

def test_judge_is_greedy_decoding_and_the_likeliest_answer(tok):
    model, answers = tiny(tok), ["torch", "numpy", "torch numpy", "function"]
    gen = random.Random(1)
    texts = [" ".join(gen.choices(["matrix", "plot", "a"], k=gen.randint(1, 6))) for _ in range(40)]
    pairs = [(text, gen.choice(answers)) for text in texts]
    soft = PromptTuning(initial_embeddings(model, 3, "vocab", generator=torch.Generator()))
    with torch.no_grad():
        pasts = None, soft.past(model)
    for past in pasts:
        # Some of the answers are the model's own, or nothing would be exactly right.
        rows = rows_behind(model, tok, pairs)
        own = model.generate([row[0] for row in rows[:9]], 2, past)
        rows[:9] = [(row[0], new) for row, new in zip(rows, own)]
        loss, exact, among = judge(model, tok, past, rows, answers)
        sums = score(model, past, rows)[:, 0]
        assert math.isclose(loss, sums[0] / sums[1], rel_tol=1e-4)
        greedy = sum(model.generate([q], len(a), past)[0] == a for q, a in rows)
        assert exact == greedy / len(rows) >= 9 / 40
        right, said = 0, [tok.encode(f" {a}") + [tok.end] for a in answers]
        for question, answer in rows:  # token by token, among those that lead to an answer
            chosen = []
            while chosen not in said:
                logits, _ = model(torch.tensor([question + chosen]), past)  # (1, T, V)
                ways = sorted({a[len(chosen)] for a in said if a[: len(chosen)] == chosen})
                chosen.append(ways[logits[0, -1, ways].argmax()])
            right += chosen == answer
            assert ids_of(tok, [choose(model, tok, past, question, answers)]) == [chosen]
        assert among == right / len(rows) > 0

def test_the_choice_is_a_distribution_over_the_answers(tok):
    """Over all answers, of which one begins as another, the chances of being chosen add up to 1;
    and the loss of a choice teaches nothing to tokens that no answer has."""
    model, answers = tiny(tok), ["no", "no, never", "yes", "no, not yet", "say so"]
    choices, past = ids_of(tok, answers), PromptTuning(torch.randn(3, 16)).past(model)
    question = tok.encode("\nOpen the graph. ->")
    nats = torch.stack([score(model, past, [(question, a)], 1, choices)[4, 0] for a in choices])
    assert (-nats).exp().sum().item() == pytest.approx(1, abs=1e-5) and nats.min() > 0
    assert rivals(choices[0], [choices[0]]) == [[token] for token in choices[0]]
    other = tok.encode(" graph") + [tok.end]  # none of them: it cannot be chosen
    assert score(model, past, [(question, other)], 1, choices)[3] == 0
    assert score(model, past, [(question, other)], 1, [*choices, other])[4].isfinite()

def test_training_on_the_choice_teaches_the_answer_as_well(tok):
    model, choices = tiny(tok), ids_of(tok, ["no", "no, never"])
    soft = PromptTuning(torch.randn(6, 16) * 0.1)
    rows = [(tok.encode(f"\n{word} ->"), choices[word == "graph"]) for word in ("graph", "matrix")]
    before = score(model, soft.past(model), rows, 1, choices)[:, 0]
    fit(model, [Arm(soft, "", 3.0)], {"": rows * 8}, 120, 16, lambda *_: None, choices=choices)
    nats, tokens, right, chosen, choice = score(model, soft.past(model), rows, 1, choices)[:, 0]
    assert chosen == 2 and choice < 0.5 * before[4] and nats < before[0]

def test_long_texts_lose_their_beginning(tok, capsys):
    model = tiny(tok, block_size=36)
    pairs = [("word " * 50 + "last", "yes"), ("short", "no")]
    rows = rows_behind(model, tok, pairs, 4, "Say:", ["the longest"])
    assert capsys.readouterr().err.count("1 of 2 texts") == 1
    longest = len(tok.encode(" the longest"))  # fits behind every text, with the end
    assert 4 + len(rows[0][0]) + longest == 36
    text = tok.decode(rows[0][0])
    assert text.startswith("Say:") and text.endswith("last ->")
    assert tok.decode(rows[1][0]) == "Say:\nshort ->"
    past = PromptTuning(torch.zeros(4, 16)).past(model)
    judge(model, tok, past, rows, ["the longest"])
    with pytest.raises(ValueError, match="leave no room for a text in block_size=36"):
        rows_behind(model, tok, [("word", "answer " * 20)])

@pytest.mark.parametrize("answers", [
    ["no", "no, never"],  # one begins with the other
    ["matrix", "graph"],  # as texts do
    [f"w{i}" for i in range(20)], [f"w{i}" for i in range(21)],
], ids=["begins alike", "within the text", "20", "21"])
def test_answers_of_every_kind_are_learned_and_judged(world, answers, capsys):
    """`tune` and `generate` agree to every digit; one answer is never validated, and the first is
    fifty times as frequent as the last."""
    drawn = answers * 3 + answers[:1] * 147
    pairs = [(f"{answer} plot {i}", answer) for i, answer in enumerate(drawn)]
    for name, part in (("train", pairs), ("valid", pairs[: len(answers) - 1])):
        Path(f"{name}.tsv").write_text("\n".join("\t".join(pair) for pair in part))
    train.main([*COMMAND, "--valid", "valid.tsv", "--steps", "4"])
    told = capsys.readouterr().out
    few = len(answers) <= 20
    assert load("soft.pt", base_model()).facts["answers"] == (sorted(answers) if few else [])
    assert (f"among {len(answers)}" in told) == few
    train.main("generate --base base.pt --prompt soft.pt --data valid.tsv".split())
    again = capsys.readouterr().out.splitlines()[-1].split()[1:]
    assert f"prompt of 4 {' '.join(again)}" in " ".join(told.split())

def test_few_answers():
    assert few_answers([("x", "a"), ("y", "b"), ("z", "b")]) == ["a", "b"]
    assert few_answers([("x", str(i)) for i in range(21)]) == []
    assert len(few_answers([("x", str(i)) for i in range(20)])) == 20
    assert few_answers([("x", "a")], " b, a") == ["a", "b"]
    with pytest.raises(ValueError, match="--answers b,c lacks 'a', an answer in the data"):
        few_answers([("x", "a"), ("y", "b")], "b,c")

@pytest.fixture
def world(tok, tmp_path, monkeypatch):
    """A folder with a small base and files to learn from."""
    monkeypatch.chdir(tmp_path)
    tiny(tok).save("base.pt", tokenizer=[token.decode("latin-1") for token in TOKENS])
    gen = random.Random(0)
    for name, n in (("train", 60), ("valid", 20)):
        texts = [" ".join(gen.choices(["matrix", "plot", "one", "graph"], k=5)) for _ in range(n)]
        answers = [gen.choice(["class", "function", "function"]) for _ in range(n)]
        lines = [f"{text} {i}\t{answer}" for i, (text, answer) in enumerate(zip(texts, answers))]
        Path(f"{name}.tsv").write_text("\n".join(lines))
    return tmp_path

COMMAND = "tune --base base.pt --data train.tsv --length 4 --init text --init-text".split()
COMMAND += ["Class or function?", "--steps", "20", "--save", "soft.pt", "--lr", "1"]

def base_model():
    return train.load_base(train.Settings(base="base.pt"))[0]

def test_own_data_is_learned_saved_and_judged(world, capsys):
    train.main([*COMMAND, "--valid", "valid.tsv"])
    out = capsys.readouterr().out
    assert "60 texts to learn from, 20 to validate" in out and "among 2" in out
    table = {line[:20].strip(): line[20:].split() for line in out.splitlines()}
    pairs = read_pairs("valid.tsv")
    share = sum(answer == "function" for _, answer in pairs) / len(pairs)
    assert float(table["always 'function'"][1]) == pytest.approx(share, abs=1e-3)
    assert {"no prompt", "'Class or function?'", "prompt of 4"} <= table.keys()
    soft = load("soft.pt", base_model())
    assert soft.facts["answers"] == ["class", "function"] and soft.facts["step"] > 0
    assert f"{soft.facts['accuracy']:.3f}" == table["prompt of 4"][2]
    train.main("generate --base base.pt --prompt soft.pt --data valid.tsv".split())
    again = capsys.readouterr().out.splitlines()[-1].split()
    assert again[1:] == table["prompt of 4"]
    train.main(COMMAND)  # a fifth of the rows for validation
    counts = [int(word) for word in capsys.readouterr().out.split() if word.isdigit()][:2]
    assert sum(counts) == 60 and 4 <= counts[1] <= 20
    train.main(["generate", "--base", "base.pt", "--prompt", "soft.pt", "--text", "plot " * 300])
    both = capsys.readouterr()
    assert "1 of 1 texts are longer" in both.err and "soft.pt" in both.out
    save(PromptTuning(torch.randn(2, 16)), "random.pt", base_model(), answers=["class", "function"])
    train.main(["generate", "--base", "base.pt", "--prompt", "random.pt", "--text", "A plot."])
    assert capsys.readouterr().out.split()[-1] in ("class", "function")  # it chooses

def test_a_prompt_that_learns_nothing_is_told(world, monkeypatch, capsys):
    Path("valid.tsv").write_text("plot\tfunction\ngraph\tfunction\nmatrix\tclass")
    for right, said in ((2 / 3, True), (1.0, False)):  # always 'function' has 2 / 3 right
        monkeypatch.setattr(train, "judge", lambda *arguments: (1.0, right, right))
        train.main([*COMMAND, "--steps", "1", "--valid", "valid.tsv"])
        assert ("no better than always 'function'" in capsys.readouterr().out) == said

@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_killed_at_any_moment_it_leaves_a_prompt_to_go_on_from(world, method, capsys):
    command = [*COMMAND, "--method", method, "--valid", "valid.tsv"]
    command[command.index("--steps") + 1] = "3000"
    gen = random.Random()  # moments that nobody chose
    for wait in [0.0] + [gen.uniform(0, 0.5) for _ in range(4)]:
        Path("soft.pt").unlink(missing_ok=True)
        run = subprocess.Popen([sys.executable, ROOT / "train.py", *command],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not Path("soft.pt").exists():
            assert run.poll() is None
            time.sleep(0.001)
        time.sleep(wait)
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        soft = load("soft.pt", base_model())
        assert soft.kind == method and soft.length == 4
    train.main([*COMMAND, "--method", method, "--valid", "valid.tsv", "--init", "soft.pt",
                "--save", "more.pt"])
    step0 = re.search(r"step +0 +validation: loss ([\d.]+)", capsys.readouterr().out)[1]
    assert step0 == f"{soft.facts['loss']:.3f}"
    more = load("more.pt", base_model())
    assert more.length == 4 and more.facts["loss"] <= soft.facts["loss"]

def test_early_stopping_keeps_the_best(world, monkeypatch, capsys):
    read_score, vectors = train.score, []
    losses = iter([3.0, 2.0, 1.0, 1.5, 1.0, 1.2, 1.1, 0.5])

    def told(model, past, rows, arms=1, choices=()):
        if torch.is_inference_mode_enabled():
            return torch.tensor([[0.0], [1.0], [0.0], [0.0], [next(losses) * len(rows)]])
        return read_score(model, past, rows, arms, choices)

    def remember(soft, *arguments, **facts):
        vectors.append(soft.embeddings.detach().clone())
        save(soft, *arguments, **facts)

    monkeypatch.setattr(train, "score", told)
    monkeypatch.setattr(train.softprompt, "save", remember)
    monkeypatch.setattr(train, "compare", lambda *arguments: 1.0)
    monkeypatch.setattr(train, "EVERY", 4)
    train.main([*COMMAND, "--steps", "40", "--valid", "valid.tsv"])
    assert "step   24 " in capsys.readouterr().out and next(losses) == 0.5
    soft = load("soft.pt", base_model())
    assert soft.facts["step"] == 8 and soft.facts["loss"] == 1 and len(vectors) == 3
    assert torch.equal(soft.embeddings, vectors[2]) and not torch.equal(vectors[2], vectors[1])

@pytest.mark.parametrize("content, arguments, message", [
    ("a\tyes\nb\tyes\nc\tyes\nd\tyes", ["--valid", "valid.tsv"], "more than one answer"),
    ("a\tyes\nb\tno", ["--save", "folder"], "folder is a folder"),
    ("a\tyes\nb\tno", ["--lr", "nan"], "--lr nan"), ("a\tyes\nb\tno", ["--lr", "-1"], "--lr -1"),
    ("a\tyes", [], "own.tsv: . rows to learn from"),
    ("a\tyes\nb\tno", ["--job", "count"], "give --job NAME, or --data FILE"),
    ("a\tyes\nb\tno", ["--valid", "nowhere.tsv"], "nowhere.tsv"),
    ("a\tyes\nb\tno\tno", [], "own.tsv:2: 3 fields"),
    ("a\tyes\nb\t" + "no " * 300, ["--valid", "valid.tsv"], "leave no room for a text")])
def test_data_that_cannot_be_learned_is_one_line(world, content, arguments, message, capsys):
    Path("own.tsv").write_text(content)
    Path("folder").mkdir()
    before = sorted(world.iterdir())
    with pytest.raises(SystemExit) as stop:
        train.main([*COMMAND, "--data", "own.tsv", *arguments])
    lines = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and len(lines) == 1 and re.search(message, lines[0]), lines
    assert sorted(world.iterdir()) == before

def test_a_model_of_hugging_face_is_a_base_like_any_other(tmp_path, monkeypatch, capsys):
    pytest.importorskip("safetensors")
    pytest.importorskip("tokenizers")
    from test_real import checkpoint, tokenizer_json

    monkeypatch.chdir(tmp_path)
    checkpoint(tokenizer_json(Path("real")), eos_token_id=None)
    Path("own.tsv").write_text("\n".join(f"Plot {i}.\t{i % 2}" for i in range(40)))
    with pytest.raises(ValueError, match="eos_token_id"):
        train.load_base(train.Settings(base="real"))
    checkpoint(Path("real"), eos_token_id=0)
    base = ["--base", "real"]
    train.main(["tune", *base, "--data", "own.tsv", "--steps", "3", "--save", "soft.pt"])
    train.main(["generate", *base, "--prompt", "soft.pt", "--text", "Plot 3."])
    assert "prompt of  16" in capsys.readouterr().out
