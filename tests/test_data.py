"""A file of one's own: reading it, training on it with early stopping and resuming, judging."""

import json
import math
import random
from pathlib import Path

import pytest
import torch
from test_train import tiny, tok  # noqa: F401  (tok is a fixture)

import train
from softprompt import PromptTuning, initial_embeddings, load
from train import alike, collate, few_answers, judge, read_pairs, rows_of, score

WANT = [('say "hi", now', "yes"), ("tab\there", "no"), ("naïve — 文字\u2028end", "7")]
FILES = {
    "plain.csv": '"say ""hi"", now",yes\n"tab\there",no\nnaïve — 文字\u2028end,7\n',
    "header.csv": 'id,Answer,text\n1,yes,"say ""hi"", now"\n2,no,tab\there\n\n3,7,naïve — 文字\u2028end',
    "plain.tsv": 'say "hi", now\tyes\n\n"tab\there"\tno\n  naïve — 文字\u2028end \t 7\n\n',
    "header.tsv": 'text\tanswer\nsay "hi", now\tyes\n"tab\there"\tno\nnaïve — 文字\u2028end\t7',
    "rows.jsonl": "\n".join(
        json.dumps({"text": t, "answer": int(a) if a == "7" else a, "id": 1}, ensure_ascii=False)
        for t, a in WANT
    )
    + "\n\n",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["", "BOM"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_files_of_texts_and_answers(tmp_path, name, start, end):
    path = tmp_path / name
    path.write_bytes((start + FILES[name].replace("\n", end)).encode())
    assert read_pairs(path) == WANT == read_pairs(str(path))


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.tsv", "x\ty\nz\n", "a.tsv:2: 1 fields where 2 are expected"),
        ("a.tsv", "x\ty\n\nx\ty\tz\n", r"a.tsv:3: 3 fields.*\"\\t\" needs quotes"),
        ("a.csv", "text,answer,id\nx,y\n", "a.csv:2: 2 fields where 3.*text and answer and id"),
        ("a.csv", 'x,y\n"open,y\nx,y\nx,y\n', "a.csv:2: .*written twice"),
        ("a.csv", 'x,y\n"two\nlines"\n', "a.csv:2: 1 fields"),
        ("a.tsv", 'a\tyes\n"open\tno\nb\tyes\nclosed"\tno\n', "a.tsv:2: .*ends lines later"),
        ("a.csv", "text,label\nx,y\n", "a.csv:1: a header names text and answer once each"),
        ("a.csv", "text,answer,text\nx,y,z\n", "a.csv:1: a header names text and answer once"),
        ("a.jsonl", '{"text": "x", "answer": NaN}', "a.jsonl:1: answer is NaN"),
        ("a.jsonl", '{"text": "\\ud800", "answer": "y"}', "a.jsonl:1: the text holds half a char"),
        ("a.jsonl", "[" * 200000, "a.jsonl:1: this is not JSON"),
        ("a.tsv", 'x\ty\n"a" b\ty\n', "a.tsv:2: .*written twice"),
        ("a.csv", "x,y\n ,y\n", "a.csv:2: the text is empty"),
        ("a.tsv", "x\ty\nx\t\n", "a.tsv:2: the answer is empty"),
        ("a.jsonl", '{"text": "x", "answer": "y"}\n{"text": "x"}\n', "a.jsonl:2: answer is null"),
        ("a.jsonl", '\n{"text": "x", "answer": true}\n', "a.jsonl:2: answer is true"),
        ("a.jsonl", '{"text": ["x"], "answer": "y"}', r"a.jsonl:1: text is \[\"x\"\]"),
        ("a.jsonl", "{'text'", "a.jsonl:1: this is not JSON"),
        ("a.jsonl", '["x", "y"]', "a.jsonl:1: each line is like"),
        ("a.tsv", b"x\ty\n\xe9\ty\n", "a.tsv:2: this is not UTF-8"),
        ("a.tsv", "\n\n", "a.tsv: there are no rows"),
        ("a.csv", "", "a.csv: there are no rows"),
        ("a.jsonl", "\ufeff", "a.jsonl: there are no rows"),
        ("a.csv", "text,answer\n", "a.csv: there are no rows"),
        ("a.txt", "x y", "a.txt: data comes as .tsv, .csv or .jsonl"),
    ],
)
def test_bad_rows_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        read_pairs(tmp_path / name)


def test_alike_draws_the_same_again_and_of_like_length():
    gen = random.Random(0)
    rows = [([0] * gen.randint(1, 40), [i]) for i in range(300)]
    batches = [alike(rows, 3, step, 16) for step in range(16)]
    assert batches == [alike(rows, 3, step, 16) for step in range(16)]
    assert batches != [alike(rows, 4, step, 16) for step in range(16)]
    for eight in (batches[:8], batches[8:]):  # without replacement, and every length comes up
        answers = {row[1][0] for batch in eight for row in batch}
        ends = [[min(len(q) for q, _ in batch), max(len(q) for q, _ in batch)] for batch in eight]
        assert len(answers) == 128 and max(high - low for low, high in ends) < 14
        assert min(low for low, _ in ends) < 4 and max(high for _, high in ends) > 37
    assert len(alike(rows[:5], 0, 0, 16)) == 16  # fewer rows than a batch: they come again


def test_judge_is_greedy_decoding_and_the_likeliest_answer(tok):
    model, answers = tiny(tok), ["torch", "numpy", "a class", "function"]
    gen = random.Random(1)
    texts = [" ".join(gen.choices(["matrix", "plot", "a"], k=gen.randint(1, 6))) for _ in range(40)]
    pairs = [(text, gen.choice(answers)) for text in texts]
    soft = PromptTuning(initial_embeddings(model, 3, "vocab", generator=torch.Generator()))
    with torch.no_grad():
        pasts = None, soft.past(model)
    for past in pasts:
        # Some of the answers are the model's own, or nothing would be exactly right.
        rows = rows_of(model, tok, pairs)
        own = model.generate([row[0] for row in rows[:9]], 2, past)
        rows[:9] = [(row[0], new) for row, new in zip(rows, own)]
        loss, exact, among = judge(model, tok, past, rows, answers)
        sums = score(model, past, rows)[:, 0]
        assert math.isclose(loss, sums[0] / sums[1], rel_tol=1e-4)
        assert (
            exact == sum(model.generate([q], len(a), past)[0] == a for q, a in rows) / len(rows)
            and exact >= 9 / 40
        )
        right = 0
        for question, answer in rows:
            said = [tok.encode(f" {a}") + [tok.end] for a in answers]
            nats = [len(a) * model.loss(*collate([(question, a)], "cpu"), past) for a in said]
            right += said[torch.stack(nats).argmin()] == answer
        assert among == right / len(rows)


def test_long_texts_lose_their_beginning(tok, capsys):
    model = tiny(tok, block_size=32)
    rows = rows_of(
        model, tok, [("word " * 50 + "last", "yes"), ("short", "no")], "Say:", 4, say=True
    )
    assert capsys.readouterr().err.count("1 of 2 texts") == 1
    question, answer = rows[0]
    assert 4 + len(question) + len(answer) - 1 == 32
    assert tok.decode(question).startswith("Say:") and tok.decode(question).endswith("last ->")
    model.loss(*collate(rows, "cpu"), PromptTuning(torch.zeros(4, 16)).past(model))
    with pytest.raises(ValueError, match="leave no room for a text in block_size=32"):
        rows_of(model, tok, [("word", "answer " * 20)])


def test_the_longest_answer_fits_behind_every_text(tok):
    model, answers = tiny(tok, block_size=64), ["no", "a very much longer answer than no is"]
    rows = rows_of(model, tok, [("word " * 40, "no")], "", 5, answers)
    past = PromptTuning(torch.zeros(5, 16)).past(model)
    judge(model, tok, past, rows, answers)
    longest = len(tok.encode(" " + answers[1])) + 1
    assert 5 + len(rows[0][0]) + longest - 1 == 64


def test_few_answers():
    assert few_answers([("x", "a"), ("y", "b"), ("z", "b")]) == ["a", "b"]
    assert few_answers([("x", str(i)) for i in range(21)]) == []


@pytest.fixture
def world(tok, tmp_path, monkeypatch):
    """A folder with a small base and files to learn from."""
    monkeypatch.chdir(tmp_path)
    names = [token.decode("latin-1") for token in tok.encoding._mergeable_ranks]
    tiny(tok).save("base.pt", tokenizer=names)
    gen = random.Random(0)
    for name, n in (("train", 60), ("valid", 20)):
        lines = [
            f"{' '.join(gen.choices(['matrix', 'plot', 'one', 'graph'], k=5))} {i}\t"
            + gen.choice(["class", "function", "function"])
            for i in range(n)
        ]
        Path(f"{name}.tsv").write_text("\n".join(lines))
    return tmp_path


COMMAND = "tune --base base.pt --data train.tsv --length 4 --init text --init-text".split()
COMMAND += ["Class or function?", "--steps", "20", "--save", "soft.pt", "--lr", "0.05"]


def test_own_data_is_learned_saved_and_judged(world, capsys):
    train.main([*COMMAND, "--valid", "valid.tsv"])
    out = capsys.readouterr().out
    assert "60 texts to learn from, 20 to validate" in out and "among 2" in out
    table = {line[:20].strip(): line[20:].split() for line in out.splitlines()}
    pairs = read_pairs("valid.tsv")
    share = sum(answer == "function" for _, answer in pairs) / len(pairs)
    assert float(table["always 'function'"][1]) == pytest.approx(share, abs=1e-3)
    assert {"no prompt", "'Class or function?'", "prompt of 4"} <= table.keys()
    model, _ = train.load_base(train.Settings(base="base.pt"))
    soft = load("soft.pt", model)
    assert soft.facts["answers"] == ["class", "function"] and soft.facts["step"] > 0
    assert (
        f"{soft.facts['loss']:.3f}" == table["prompt of 4"][0] and not Path("soft.pt.ckpt").exists()
    )
    train.main("generate --base base.pt --prompt soft.pt --data valid.tsv".split())
    again = capsys.readouterr().out.splitlines()[-1].split()
    assert again[1:] == table["prompt of 4"]
    train.main(COMMAND)  # a fifth of the rows for validation
    counts = [int(word) for word in capsys.readouterr().out.split() if word.isdigit()][:2]
    assert sum(counts) == 60 and 4 <= counts[1] <= 20
    train.main(["generate", "--base", "base.pt", "--prompt", "soft.pt", "--text", "plot " * 300])
    both = capsys.readouterr()
    assert "1 of 1 texts are longer" in both.err and "soft.pt" in both.out


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_an_interrupted_tune_goes_on_as_if_it_never_stopped(world, method, monkeypatch, capsys):
    command = [*COMMAND, "--method", method]
    train.main(command)
    whole, want = Path("soft.pt").read_bytes(), capsys.readouterr().out
    ticks = iter(range(0, 10**6, 6))  # seconds: every step is written down
    monkeypatch.setattr(train.time, "time", lambda: next(ticks))
    read_score, calls = train.score, []

    def killed(*arguments):
        calls.append(1)
        if len(calls) == 15:
            raise KeyboardInterrupt
        return read_score(*arguments)

    monkeypatch.setattr(train, "score", killed)
    with pytest.raises(SystemExit) as stop:
        train.main(command)
    assert stop.value.code == 130 and "--resume" in capsys.readouterr().err
    monkeypatch.setattr(train, "score", read_score)
    with pytest.raises(SystemExit):
        train.main([*command, "--resume", "--seed", "1"])
    assert "is of another run" in capsys.readouterr().err
    compare = train.compare
    calls[14:] = []
    monkeypatch.setattr(train, "compare", lambda *arguments: killed())  # stopped while it is tested
    with pytest.raises(SystemExit):
        train.main([*command, "--resume"])
    monkeypatch.setattr(train, "compare", compare)
    capsys.readouterr()
    train.main([*command, "--resume"])
    out = capsys.readouterr().out
    assert Path("soft.pt").read_bytes() == whole and "step    0" not in out
    assert out.splitlines()[-6:] == want.splitlines()[-6:]
    train.main([*command, "--resume"])  # nothing is left to go on with: from the beginning
    assert Path("soft.pt").read_bytes() == whole


def test_early_stopping_keeps_the_best(world, monkeypatch, capsys):
    read_score, losses, kept = train.score, iter([3.0, 2.0, 1.0, 1.5, 1.0, 1.2, 1.1, 0.5]), []

    def told(model, past, rows, arms=1):
        if not torch.is_inference_mode_enabled():
            kept.append(None)  # a step of training
            return read_score(model, past, rows, arms)
        return torch.tensor([[next(losses)], [1.0], [0.0]])

    def keep(state):
        kept[-1:] = [{name: p.clone() for name, p in state.items()}]
        return kept[-1]

    monkeypatch.setattr(train, "score", told)
    monkeypatch.setattr(train, "deepcopy", keep)
    monkeypatch.setattr(train, "compare", lambda *arguments: None)
    kept.append(None)
    train.main([*COMMAND, "--steps", "40", "--valid", "valid.tsv"])
    assert "step   24 " in capsys.readouterr().out and next(losses) == 0.5
    soft = load("soft.pt", train.load_base(train.Settings(base="base.pt"))[0])
    assert soft.facts["step"] == 8 and soft.facts["loss"] == 1 and len(kept) == 25
    assert torch.equal(soft.embeddings, kept[8]["embeddings"])
    assert not torch.equal(soft.embeddings, kept[4]["embeddings"])


@pytest.mark.parametrize(
    "content, arguments, message",
    [
        (
            "a\tyes\nb\tyes\nc\tyes\nd\tyes",
            ["--valid", "valid.tsv"],
            "every answer to learn from is 'yes'",
        ),
        ("a\tyes\nb\tno", ["--save", "folder"], "folder is a folder"),
        ("a\tyes\nb\tno", ["--lr", "nan"], "--lr nan"),
        ("a\tyes\nb\tno", ["--lr", "-1"], "--lr -1"),
        ("a\tyes", [], "1 rows are too few"),
        ("a\tyes\nb\tno", ["--job", "count"], "give --job NAME, or --data FILE"),
        ("a\tyes\nb\tno", ["--valid", "nowhere.tsv"], "nowhere.tsv"),
        ("a\tyes\nb\tno\tno", [], "own.tsv:2: 3 fields"),
        ("a\tyes\nb\t" + "no " * 300, ["--valid", "valid.tsv"], "leave no room for a text"),
    ],
)
def test_data_that_cannot_be_learned_is_one_line(world, content, arguments, message, capsys):
    Path("own.tsv").write_text(content)
    Path("folder").mkdir()
    before = sorted(world.iterdir())
    with pytest.raises(SystemExit) as stop:
        train.main([*COMMAND, "--data", "own.tsv", *arguments])
    lines = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and len(lines) == 1 and train.re.search(message, lines[0]), lines
    assert sorted(world.iterdir()) == before


def test_valid_alone_and_text_with_data_are_refused(world, capsys):
    soft = PromptTuning(torch.zeros(2, 16))
    train.softprompt.save(soft, "soft.pt", train.load_base(train.Settings(base="base.pt"))[0])
    for arguments, message in (
        (["tune", "--valid", "valid.tsv"], "give --job NAME, or --data FILE"),
        (["generate", "--prompt", "soft.pt"], "generate needs --prompt FILE"),
        (
            ["generate", "--prompt", "soft.pt", "--text", "x", "--data", "valid.tsv"],
            "--text .* or --data",
        ),
    ):
        with pytest.raises(SystemExit) as stop:
            train.main([*arguments, "--base", "base.pt"])
        [line] = capsys.readouterr().err.splitlines()
        assert stop.value.code == 2 and train.re.search(message, line)


def test_a_model_of_hugging_face_is_a_base_like_any_other(tmp_path, monkeypatch, capsys):
    pytest.importorskip("safetensors")
    from test_real import checkpoint, tokenizer_json

    monkeypatch.chdir(tmp_path)
    checkpoint(tokenizer_json(Path("real")), eos_token_id=0)
    Path("own.tsv").write_text("\n".join(f"Plot {i}.\t{i % 2}" for i in range(40)))
    base = ["--base", "real"]
    for end, message in ((330, "ids go from 0 to 330, but"), (-1, "ids go from -1"), ([], "eos")):
        checkpoint(Path("real"), eos_token_id=end)
        with pytest.raises(ValueError, match=message):
            train.load_base(train.Settings(base="real"))
    checkpoint(Path("real"), eos_token_id=0)
    train.main(["tune", *base, "--data", "own.tsv", "--steps", "3", "--save", "soft.pt"])
    train.main(["generate", *base, "--prompt", "soft.pt", "--text", "Plot 3."])
    assert "prompt of  16" in capsys.readouterr().out
