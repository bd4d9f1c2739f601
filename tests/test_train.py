"""train.py: data, tokenizer, arms that do not touch each other, the command line, the main job."""

import csv
import random
import subprocess
import sys
from pathlib import Path

import pytest
import tiktoken
import torch
from conftest import make_model

import train
from model import GPT, GPTConfig
from softprompt import PrefixTuning, PromptTuning, initial_embeddings, load
from train import JOBS, Arm, Plan, Results, Sentence, Tokenizer, bpe, collate, fit, score

ROOT = Path(train.__file__).parent
WORDS = "Return the matrix of a graph, plot one axis, solve an equation and open every file".split()


def sentences(n, seed=0):
    gen = random.Random(seed)
    return [
        Sentence(
            " ".join(gen.choices(WORDS, k=gen.randint(3, 8))).strip(",") + ".",
            gen.choice(train.LIBRARIES),
            gen.choice(["class", "function"]),
        )
        for _ in range(n)
    ]


@pytest.fixture(scope="module")
def tok():
    return Tokenizer(
        bpe([s.text for s in sentences(50)] + ["\n -> numpy torch class function"], 330)
    )


def tiny(tok, **shape):
    return make_model(vocab_size=tok.end + 1, n_layer=1, n_embd=16, window=24, **shape)


def slow_bpe(texts, size):
    """The definition: count all pairs, merge the commonest (of equals, the first in order)."""
    words = [
        [bytes([b]) for b in piece.encode()]
        for text in texts
        for piece in train.re.findall(train.PATTERN, text)
    ]
    tokens = [bytes([b]) for b in range(256)]
    while len(tokens) < size:
        counts = train.Counter(pair for word in words for pair in zip(word, word[1:]))
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        tokens.append(best[0] + best[1])
        for word in words:
            j = 0
            while j < len(word) - 1:
                if (word[j], word[j + 1]) == best:
                    word[j : j + 2] = [tokens[-1]]
                j += 1
    return tokens


def test_bpe_is_its_definition():
    texts = [s.text for s in sentences(30)] + [
        "aaaa aaa aaaaa banana bandana",
        "x = 12 + 3_4",
        "naïve café",
    ]
    assert bpe(texts, 400) == slow_bpe(texts, 400)


def test_tokenizer_round_trips_anything(tok):
    gen = random.Random(0)
    for _ in range(300):
        text = "".join(
            chr(
                gen.choice(
                    [
                        gen.randrange(1, 128),
                        gen.randrange(128, 0xD800),
                        gen.randrange(0xE000, 0x20000),
                    ]
                )
            )
            for _ in range(gen.randrange(40))
        )
        assert tok.decode(tok.encode(text)) == text
    assert all(tok.encoding.decode_single_token_bytes(b) == bytes([b]) for b in range(256))
    assert isinstance(tok.encoding, tiktoken.Encoding) and tok.end not in tok.encode("<|end|>")


def test_an_example_is_wording_then_sentence_then_answer(tok):
    s = Sentence("Return the matrix of a graph.", "networkx", "function")
    for job, answer in zip(
        ("library", "kind", "first", "last", "count"),
        ("networkx", "function", "Return", "graph", "6"),
    ):
        question, ids = tok.example(s.text, JOBS[job].answer(s), "Say it.")
        assert tok.decode(question) == "Say it.\nReturn the matrix of a graph. ->"
        assert ids[-1] == tok.end and tok.decode(ids[:-1]) == " " + answer
        # Cut off the wording's ids, and what is left is the example without a wording.
        assert question[len(tok.encode("Say it.")) :] == tok.example(s.text, "x")[0]


def test_collate_scores_the_answers_and_nothing_else():
    idx, targets = collate([([1, 2, 3], [4, 5]), ([6], [7, 8, 9])], "cpu")
    assert idx.tolist() == [[1, 2, 3, 4], [6, 7, 8, -1]]
    assert targets.tolist() == [[-1, -1, 4, 5], [7, 8, 9, -1]]


def test_docstrings_are_read_without_importing(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        'raise SystemExit\nclass A:\n    """A summary.\n\n    More."""\n'
        '    async def f(self):\n        """Another."""\n'
    )
    assert sorted(train.docstrings_in(("numpy", path))) == [
        ("numpy", "class", "A summary.\n\nMore."),
        ("numpy", "function", "Another."),
    ]
    path.write_text("def broken(:\n")
    assert train.docstrings_in(("numpy", path)) == []


def test_sentences_are_split_by_their_own_text():
    docs = [
        ("numpy", "function", f"Give back number {i} of them all.\n\nMore.") for i in range(2000)
    ]
    docs += [
        ("numpy", "class", "An array of numpy scalars, they say."),
        ("torch", "class", "Too short."),
        ("torch", "class", "Ünicode is left out of the sentences."),
        docs[0],
    ]
    data = train.sentences_of(docs)
    assert sum(map(len, data.values())) == 2000
    assert all(train.split_of(s.text) == split for split, part in data.items() for s in part)
    assert 0.7 < len(data["train"]) / 2000 < 0.9 and data == train.sentences_of(docs[::-1])


def test_score_is_the_model_s_loss_and_greedy_decoding(tok):
    model, some = tiny(tok), sentences(80)
    rows = [tok.example(s.text, JOBS["count"].answer(s)) for s in some]
    soft = PromptTuning(torch.randn(3, 16))
    nats, tokens, right = score(model, soft.past(model), rows)[:, 0].tolist()
    assert nats / tokens == pytest.approx(
        model.loss(*collate(rows, "cpu"), soft.past(model)).item(), rel=1e-5
    )
    answers = model.generate([question for question, _ in rows], 4, soft.past(model), stop=tok.end)
    assert right == sum(answer == want[:-1] for answer, (_, want) in zip(answers, rows))
    assert tokens == sum(len(answer) for _, answer in rows)


@pytest.mark.parametrize("kind", [PromptTuning, PrefixTuning])
def test_trained_together_is_trained_alone(tok, kind):
    model, train_rows = (
        tiny(tok),
        {
            job: [tok.example(*pair) for pair in JOBS[job].pairs(sentences(60))]
            for job in ("kind", "count")
        },
    )
    before = model.fingerprint()

    def arms():
        torch.manual_seed(0)
        settings = [
            ("kind", 0.03, 0, None, 4),
            ("count", 0.01, 1, 0, 30),
            ("kind", 0.1, 2, None, 1),
        ]
        return [
            Arm(kind.start(model, torch.randn(P, 16) * 0.2), job, lr, seed, pinned)
            for job, lr, seed, pinned, P in settings
        ]

    together, alone, start = arms(), arms(), arms()
    fit(model, together, train_rows, 6, 4, lambda *state: None)
    for arm in alone:
        fit(model, [arm], train_rows, 6, 4, lambda *state: None)
    for a, b, c in zip(together, alone, start):
        for p, q, r in zip(a.soft.parameters(), b.soft.parameters(), c.soft.parameters()):
            assert torch.allclose(p, q, atol=2e-4) and not torch.allclose(p, r, atol=2e-3)
    assert model.fingerprint() == before


def test_shipped_base():
    model, tok = train.load_base(train.Settings())
    config = model.config
    assert config.n_kv_head < config.n_head and config.window < max(Plan().lengths)
    assert (ROOT / "base.pt").stat().st_size < 5e6
    held_out = [
        Sentence("Compute the eigenvalues of a square matrix.", "sympy", "function"),
        Sentence("Return the shortest path between two nodes.", "networkx", "function"),
    ]
    for s in held_out:
        for job in ("first", "last", "kind"):
            question, answer = tok.example(s.text, JOBS[job].answer(s), JOBS[job].wordings[0])
            assert model.generate([question], 8, stop=tok.end) == [answer[:-1]]


@pytest.fixture
def small_world(tok, tmp_path, monkeypatch):
    """A base trained for a moment on two jobs, random sentences, and a small plan."""
    data = {"train": sentences(200), "valid": sentences(24, 1), "test": sentences(24, 2)}
    torch.manual_seed(0)
    model = GPT(GPTConfig(tok.end + 1, 128, 1, 2, 32, n_kv_head=1, window=16))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for step in range(60):
        job = ("kind", "count")[step % 2]
        rows = [
            tok.example(s.text, JOBS[job].answer(s), JOBS[job].wordings[0])
            for s in random.Random(step).sample(data["train"], 16)
        ]
        optimizer.zero_grad()
        model.loss(*collate(rows, "cpu")).backward()
        optimizer.step()
    tokens = [tok.encoding.decode_single_token_bytes(i).decode("latin-1") for i in range(tok.end)]
    model.save(tmp_path / "base.pt", tokenizer=tokens)
    monkeypatch.setattr(train, "sentences_of", lambda docstrings: data)
    monkeypatch.setattr(train, "read_docstrings", lambda out: [])
    plan = Plan("full", ("kind",), ("related", "normal"), (0.3,), 2, (1, 20), 2, 12, 4, 12, 24)
    monkeypatch.setattr(train, "Plan", lambda: plan)
    return tmp_path


def test_the_main_job_runs_resumes_and_draws(small_world, capsys, monkeypatch):
    out, command = (
        small_world / "out",
        ["--base", str(small_world / "base.pt"), "--out", str(small_world / "out")],
    )
    weights = train.weights

    def killed(lab, job):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "weights", killed)
    with pytest.raises(SystemExit) as stop:
        train.main(command)
    assert stop.value.code == 130
    half = (out / "results.csv").read_text()
    begun = half.splitlines()[-1].replace(",test,", ",valid,").replace("length", "methods")
    with open(out / "results.csv", "a") as file:  # a run that had only begun to write
        file.write(f"{begun}\nfull,hal")
    monkeypatch.setattr(train, "weights", weights)
    train.main(command)
    done = (out / "results.csv").read_text()
    assert done.startswith(half) and begun not in done and "full,hal" not in done
    rows = list(csv.DictReader(done.splitlines()))
    key = [tuple(row[name] for name in train.FIELDS[:12]) for row in rows]
    assert len(set(key)) == len(key)

    results = Results(out / "results.csv", plan="full", base=rows[0]["base"])
    [none] = results.find(method="none", split="test")
    learned = results.find(experiment="initialization", init="related", split="test")
    assert min(row["loss"] for row in learned) < none["loss"]
    names = {
        "initialization.png",
        "length.png",
        "methods.png",
        "kind.pt",
        "library.pt",
        "results.csv",
    }
    assert names <= {path.name for path in out.iterdir()}
    assert not list(out.glob("*.part*"))
    model, _ = train.load_base(train.Settings(base=str(small_world / "base.pt")))
    assert load(out / "kind.pt", model).facts["job"] == "kind"
    printed = capsys.readouterr().out
    assert "kind: " in printed and "N(0, 1)" in printed and "all at once" not in printed

    other = make_model()  # a prompt of another base takes the name of one of ours
    train.softprompt.save(PromptTuning(torch.zeros(2, 32)), out / "kind.pt", other)
    train.main(command)
    assert load(out / "kind.pt", model).facts["job"] == "kind"

    stamp, done = (out / "length.png").stat().st_mtime_ns, (out / "results.csv").read_text()
    monkeypatch.setattr(train, "fit", None)  # a finished job only draws
    train.main(command)
    (out / "results.csv").write_text(done + "full,hal")  # of a run that goes on elsewhere
    train.main(["plot", "--out", str(out)])
    assert (out / "results.csv").read_text() == done + "full,hal" and (
        out / "length.png"
    ).stat().st_mtime_ns > stamp


def test_a_sliding_prefix_starts_as_the_sliding_prompt(tok):
    model = tiny(tok)
    lab = train.Lab(model, tok, {})
    prompt, prefix, held = (
        lab.arm("length", "kind", method, "vocab", 40, 0.1, 0, pinned).soft.past(model, pinned)
        for method, pinned in (("prompt", 0), ("prefix", 0), ("prefix", None))
    )
    assert all(torch.equal(a, b) for a, b in zip(prompt.values, prefix.values))
    idx = torch.arange(9)[None]
    assert torch.equal(model(idx, prompt)[0], model(idx, prefix)[0])
    assert not torch.equal(model(idx, prefix)[0], model(idx, held)[0])


def test_tune_then_generate(small_world, capsys):
    base, path = ["--base", str(small_world / "base.pt")], str(small_world / "first.pt")
    train.main(
        [
            "tune",
            "--job",
            "count",
            "--method",
            "prefix",
            "--length",
            "3",
            "--init",
            "text",
            "--init-text",
            "Count the words",
            "--steps",
            "4",
            "--save",
            path,
            "--out",
            str(small_world / "out"),
            *base,
        ]
    )
    assert "3 virtual tokens" in capsys.readouterr().out
    second = str(small_world / "second.pt")
    more = ["--init", "matched", "--lr", "0.01", "--seed", "3", "--save", second, *base]
    train.main(["tune", "--length", "20", "--steps", "1", *more])
    capsys.readouterr()
    alone = []
    for prompts in ([path], [second], [path, second]):  # a prefix of 3 and a prompt of 20
        train.main(["generate", "--prompt", *prompts, "--text", "Open the file.", *base])
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("without a prompt") and len(lines) == 1 + len(prompts)
        alone += [line.split() for line in lines[1:]]
    assert alone[:2] == alone[2:] and path == alone[0][0] and second == alone[1][0]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["tune", "--job", "poem"], "'poem'.*library"),
        (["tune", "--method", "lora"], "'lora'.*prefix"),
        (["tune", "--init", "zeros"], "'zeros'.*matched"),
        (["tune", "--length", "256"], "256 virtual tokens.*block_size=256"),
        (["tune", "--length", "x"], "--length.*'x'"),
        (["tune", "--init", "text"], "--init-text"),
        (["tune", "--init", "text", "--init-text", " "], "--init-text"),
        (["--base", "nowhere.pt"], "nowhere.pt.*pretrain"),
        (["--base", "damaged.pt"], "damaged.pt is damaged"),
        (["--base", "prompt.pt"], "prompt.pt does not hold a base model"),
        (
            ["generate", "--prompt", "other.pt", "--text", "A word."],
            "trained on the base .* this base is",
        ),
        (["generate", "--prompt", "nowhere.pt", "--text", "A word."], "nowhere.pt"),
        (
            ["generate", "--prompt", "prompt.pt", "other.pt", "--text", "A word."],
            "other.pt was trained",
        ),
        (["generate", "--text", "A word."], "--prompt"),
        (["--out", "damaged.pt"], "damaged.pt"),
        (["plot", "--out", "empty"], "results.csv"),
        (["tune", "--steps", "0"], "--steps 0"),
        (["tune", "--save", "nowhere/soft.pt"], "nowhere/soft.pt"),
        (["--base", "bare.pt"], "bare.pt has no tokenizer"),
        (["--device", "cpu:x"], "cpu:x"),
        (["plot", "--lr", "1"], "--lr belongs to tune"),
        (["--nonsense"], "--nonsense"),
        (["--device", "cuda"], "cuda"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, tmp_path, monkeypatch, capsys):
    if arguments[-1] == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.chdir(tmp_path)
    Path("damaged.pt").write_bytes((ROOT / "base.pt").read_bytes()[:-7])
    model, _ = train.load_base(train.Settings())
    train.softprompt.save(PromptTuning(initial_embeddings(model, 2, "vocab")), "prompt.pt", model)
    other = make_model()
    train.softprompt.save(PromptTuning(torch.randn(2, 32)), "other.pt", other)
    other.save("bare.pt")
    monkeypatch.setattr(train, "read_docstrings", lambda out: [])
    with pytest.raises(SystemExit) as stop:
        train.main(arguments)
    lines = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and len(lines) == 1 and train.re.search(message, lines[0]), lines
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "bare.pt",
        "damaged.pt",
        "other.pt",
        "prompt.pt",
    ]


def test_no_docstrings_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "source_files", lambda: [])
    with pytest.raises(SystemExit) as stop:
        train.main(["--out", str(tmp_path)])
    assert stop.value.code == 2 and "no docstrings" in capsys.readouterr().err


def test_nothing_happens_at_import_and_help_lists_every_option():
    done = subprocess.run(
        [sys.executable, "train.py", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0 and all(
        f"--{f.name.replace('_', '-')}" in done.stdout for f in train.fields(train.Settings)
    )


def test_the_readme_s_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "load_data", lambda out: ({"train": sentences(100)}, None))
    code = (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0]
    names = {}
    exec(code, names)
    assert load("library.pt", names["model"]).facts == {"job": "library"} and names["loss"] < 3


def test_pretraining_resumes_as_if_never_stopped(tok, tmp_path, monkeypatch, capsys):
    data = {"train": sentences(60), "valid": sentences(9, 1), "test": sentences(9, 2)}
    docs = [
        ("numpy", "function", f"{s.text}\n\nSome more words about it. " * 9) for s in data["train"]
    ]
    monkeypatch.setattr(train, "sentences_of", lambda docstrings: data)
    monkeypatch.setattr(train, "read_docstrings", lambda out: docs)
    monkeypatch.setattr(
        train, "SHAPE", dict(vocab_size=300, block_size=160, n_layer=1, n_head=2, n_embd=16)
    )
    monkeypatch.setattr(train, "LM_STEPS", 3)
    monkeypatch.setattr(train, "JOB_STEPS", 4)
    monkeypatch.setattr(train, "SAVE_EVERY", 0)
    batch, steps = train.pretrain_batch, []

    def killed(step, *arguments):
        steps.append(step)
        if steps == [0, 1, 2, 3, 4]:
            raise KeyboardInterrupt
        return batch(step, *arguments)

    monkeypatch.setattr(train, "pretrain_batch", killed)
    once, twice = (
        ["pretrain", "--base", str(tmp_path / f"{n}.pt"), "--out", str(tmp_path)] for n in "12"
    )
    with pytest.raises(SystemExit):
        train.main(once)
    train.main(once)
    assert steps == [0, 1, 2, 3, 4, 4, 5, 6]
    train.main(twice)
    assert steps[8:] == [0, 1, 2, 3, 4, 5, 6]  # a finished one is not gone on with
    one, two = (GPT.load(tmp_path / f"{n}.pt") for n in "12")
    assert one.fingerprint() == two.fingerprint() and "tokenizer" in one.facts
    assert "unseen wordings" in capsys.readouterr().out


def test_results_survive_a_torn_line(tmp_path):
    facts = dict.fromkeys(train.FIELDS, 1)
    about, path = {"plan": "full", "base": "b"}, tmp_path / "results.csv"
    results = Results(path, **about)
    results.prune()
    results.add({**facts, **about}, split="test", seed=1)
    whole = path.read_text()
    results.add({**facts, **about}, split="test", seed=2)
    for cut in (-1, -2, -20):
        path.write_text((whole + whole.splitlines()[1] + "\n")[:cut])
        results = Results(path, **about)
        assert len(results.rows) == 1
        results.prune()
        assert path.read_text() == whole
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no results file"):
        Results(path, **about)
