"""train.py: data, tokenizer, arms that do not touch each other, the command line, the main job."""

import csv
import random
import re
import subprocess
import sys
from pathlib import Path

import pretrain
import pytest
import torch
from conftest import ROOT, make_model
from pretrain import bpe

import train
from model import GPT, GPTConfig
from softprompt import PrefixTuning, PromptTuning, initial_embeddings, load, save
from train import JOBS, Arm, Plan, Results, Start, Tokenizer, collate, fit, score
from tutorials import findings, jobs
from tutorials.jobs import Sentence

WORDS = "Return the matrix of a graph, plot one axis, solve an equation and open every file".split()

def sentences(n, seed=0):
    gen = random.Random(seed)
    texts = [" ".join(gen.choices(WORDS, k=gen.randint(3, 8))).strip(",") + "." for _ in range(n)]
    return [Sentence(text, gen.choice(jobs.LIBRARIES), gen.choice(["class", "function"]))
            for text in texts]

TOKENS = bpe([s.text for s in sentences(50)] + ["\n -> numpy torch class function"], 330)

@pytest.fixture(scope="module")
def tok():
    return Tokenizer.from_tokens(TOKENS)

def tiny(tok, **shape):
    return make_model(vocab_size=tok.end + 1, n_layer=1, n_embd=16, window=24, **shape)

def slow_bpe(texts, size):
    """The definition: count all pairs, merge the commonest (of equals, the first in order)."""
    words = [[bytes([b]) for b in piece.encode()]
             for text in texts for piece in re.findall(train.PATTERN, text)]
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
    texts = [s.text for s in sentences(30)]
    texts += ["aaaa aaa aaaaa banana bandana", "x = 12 + 3_4", "naïve café"]
    assert bpe(texts, 400) == slow_bpe(texts, 400)

def test_tokenizer_round_trips_anything(tok):
    gen, ranges = random.Random(0), ((1, 128), (128, 0xD800), (0xE000, 0x20000))
    for _ in range(300):
        text = "".join(chr(gen.randrange(*gen.choice(ranges))) for _ in range(gen.randrange(40)))
        assert tok.decode(tok.encode(text)) == text
    assert all(tok.decode([b]).encode() == bytes([b]) for b in range(128))
    assert tok.end == len(TOKENS) and tok.end not in tok.encode("<|end|>")

def test_an_example_is_wording_then_sentence_then_answer(tok):
    s = Sentence("Return the matrix of a graph.", "networkx", "function")
    for job, answer in {"library": "networkx", "kind": "function", "repeat-first": "Return",
                        "first-letter-last": "g", "letters-third": "6", "count": "6"}.items():
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
    path.write_text('raise SystemExit\nclass A:\n    """A summary.\n\n    More."""\n'
                    '    async def f(self):\n        """Another."""\n')
    found = sorted(one for one in jobs.docstrings_in(("numpy", path)) if one[2])
    assert found == [("numpy", "class", "A summary.\n\nMore."), ("numpy", "function", "Another.")]
    path.write_text("def broken(:\n")
    assert jobs.docstrings_in(("numpy", path)) == []

def test_sentences_are_split_by_their_own_text():
    docs = [("numpy", "function", f"Give back number {i} of them all.\n\nMore.")
            for i in range(2000)]
    docs += [("numpy", "class", "An array of numpy scalars, they say."),
             ("torch", "class", "Too short."),
             ("torch", "class", "Ünicode is left out of the sentences."), docs[0]]
    data = jobs.sentences_of(docs)
    assert sum(map(len, data.values())) == 2000
    assert all(jobs.split_of(s.text) == split for split, part in data.items() for s in part)
    assert 0.7 < len(data["train"]) / 2000 < 0.9 and data == jobs.sentences_of(docs[::-1])

def test_score_is_the_model_s_loss_and_greedy_decoding(tok):
    model, some = tiny(tok), sentences(80)
    rows = [tok.example(s.text, JOBS["count"].answer(s)) for s in some]
    past = PromptTuning(torch.randn(3, 16)).past(model)
    nats, tokens, right, chosen, choice = score(model, past, rows)[:, 0].tolist()
    assert chosen == len(rows) and choice == 0  # without choices there is nothing to choose
    assert nats / tokens == pytest.approx(model.loss(*collate(rows, "cpu"), past).item(), rel=1e-5)
    answers = model.generate([question for question, _ in rows], 4, past, stop=tok.end)
    assert right == sum(answer == want[:-1] for answer, (_, want) in zip(answers, rows))
    assert tokens == sum(len(answer) for _, answer in rows)

@pytest.mark.parametrize("kind", [PromptTuning, PrefixTuning])
def test_trained_together_is_trained_alone(tok, kind):
    model = tiny(tok)
    rows = {job: [tok.example(*pair) for pair in JOBS[job].pairs(sentences(60))]
            for job in ("kind", "count")}
    before = model.fingerprint()

    def arms():
        torch.manual_seed(0)
        many = ("kind", 0.6, 0, None, 4), ("count", 0.2, 1, 0, 30), ("kind", 2.0, 2, None, 1)
        return [Arm(kind.start(model, torch.randn(P, 16) * 0.2), job, lr, seed, pinned)
                for job, lr, seed, pinned, P in many]

    together, alone, start = arms(), arms(), arms()
    fit(model, together, rows, 6, 4, lambda *state: None)
    for arm in alone:
        fit(model, [arm], rows, 6, 4, lambda *state: None)
    for a, b, c in zip(together, alone, start):
        for p, q, r in zip(a.soft.parameters(), b.soft.parameters(), c.soft.parameters()):
            assert torch.allclose(p, q, atol=2e-4) and not torch.allclose(p, r, atol=2e-3)
    assert model.fingerprint() == before

def test_shipped_base():
    model, tok = train.load_base(train.Settings())
    config = model.config
    assert config.n_kv_head < config.n_head and config.window < max(Plan().lengths)
    assert (ROOT / "tutorials" / "base.pt").stat().st_size < 5e6
    for s in (Sentence("Compute the eigenvalues of a square matrix.", "sympy", "function"),
              Sentence("Return the shortest path between two nodes.", "networkx", "function")):
        for job in ("repeat-first", "repeat-last", "kind"):
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
        job = JOBS[("kind", "count")[step % 2]]
        rows = [tok.example(s.text, job.answer(s), job.wordings[0])
                for s in random.Random(step).sample(data["train"], 16)]
        optimizer.zero_grad()
        model.loss(*collate(rows, "cpu")).backward()
        optimizer.step()
    model.save(tmp_path / "base.pt", tokenizer=[token.decode("latin-1") for token in TOKENS])
    monkeypatch.setattr(train, "load_data", lambda out: data)
    plan = Plan(jobs=("kind",), starts=("related", "normal"), shares=(0.3, 1.0), start_seeds=2,
                start_length=4, lengths=(1, 20), rated=(1,), seeds=2, fillers=(0, 20),
                steps=12, new_steps=12, size=4, valid=12, test=24)
    monkeypatch.setattr(train, "Plan", lambda: plan)
    return tmp_path

def test_the_main_job_runs_resumes_and_draws(small_world, capsys, monkeypatch):
    base, out = str(small_world / "base.pt"), small_world / "out"
    command, experiment = ["--base", base, "--out", str(out)], train.EXPERIMENTS["length"]

    def killed(lab, job):
        raise KeyboardInterrupt

    monkeypatch.setitem(train.EXPERIMENTS, "length", killed)
    with pytest.raises(SystemExit) as stop:
        train.main(command)
    assert stop.value.code == 130
    half = (out / "results.csv").read_text()
    monkeypatch.setitem(train.EXPERIMENTS, "length", experiment)
    for done in ("methods", "initialization"):  # what is done is not done again
        monkeypatch.setitem(train.EXPERIMENTS, done, None)
    train.main(command)
    done = (out / "results.csv").read_text()
    assert done.startswith(half) and "initialization" in half
    rows = list(csv.DictReader(done.splitlines()))
    key = [tuple(row[name] for name in (*findings.COLUMNS[:12], "filler")) for row in rows]
    assert len(set(key)) == len(key)

    results = Results(out / "results.csv", "full", rows[0]["base"])
    [none] = results.find(method="none", job="kind", split="test")
    learned = results.find(experiment="initialization", init="related", split="test")
    assert min(row["loss"] for row in learned) < none["loss"]
    names = {"initialization.png", "length.png", "methods.png", "window.png", "kind.pt"}
    assert names <= {path.name for path in out.iterdir()} and not list(out.glob("*.part*"))
    model, _ = train.load_base(train.Settings(base=base))
    assert load(out / "kind.pt", model).facts["job"] == "kind"
    printed = capsys.readouterr().out
    assert "kind: " in printed and "N(0, 1)" in printed

    stamp = (out / "length.png").stat().st_mtime_ns
    monkeypatch.setattr(train, "fit", None)  # a finished job only draws
    train.main(command)
    train.main(["plot", "--out", str(out)])
    assert (out / "results.csv").read_text() == done
    assert (out / "length.png").stat().st_mtime_ns > stamp

def test_a_start_is_one_entry_in_one_table(small_world, monkeypatch, capsys):
    monkeypatch.setitem(train.STARTS, "zeros", Start("night train", "#123456",
                                                     lambda lab, job: lab.tok.encode("night")))
    plan = train.Plan()._replace(starts=("related", "zeros", "normal"), start_seeds=1, seeds=1)
    monkeypatch.setattr(train, "Plan", lambda: plan)
    train.main(["--base", str(small_world / "base.pt"), "--out", str(small_world / "out")])
    assert "night train" in capsys.readouterr().out

def test_a_sliding_prefix_starts_as_the_sliding_prompt(tok):
    model = tiny(tok)
    lab = train.Lab(model, tok, {})
    prompt, prefix, held = (
        lab.arm("length", "kind", method, "vocab", 40, 0, pinned=pinned).soft.past(model, pinned)
        for method, pinned in (("prompt", 0), ("prefix", 0), ("prefix", None)))
    assert all(torch.equal(a, b) for a, b in zip(prompt.values, prefix.values))
    idx = torch.arange(9)[None]
    assert torch.equal(model(idx, prompt)[0], model(idx, prefix)[0])
    assert not torch.equal(model(idx, prefix)[0], model(idx, held)[0])

def test_lora_starts_as_the_base_and_leaves_it_alone(tok):
    model, other, idx = tiny(tok), tiny(tok), torch.arange(9)[None]
    learned, before = train.add_lora(other), model.fingerprint()
    assert len(learned) == 8 and torch.equal(model(idx)[0], other(idx)[0])
    with torch.no_grad():
        learned[1].normal_()
    assert not torch.allclose(model(idx)[0], other(idx)[0], atol=1e-3)
    linear = other.model.layers[0].self_attn.q_proj
    with torch.no_grad():
        linear._forward_hooks.popitem()
        linear.weight += 2 * learned[1] @ learned[0]  # the same, merged into the weight
    x = torch.randn(1, 5, 16)
    hooked = train.add_lora(model)
    for mine, its in zip(hooked[:2], learned[:2]):
        mine.data = its.data
    assert torch.allclose(model.model.layers[0].self_attn.q_proj(x), linear(x), atol=1e-5)
    assert model.fingerprint() == before

def test_tune_then_generate(small_world, capsys):
    base, path = ["--base", str(small_world / "base.pt")], str(small_world / "first.pt")
    train.main(["tune", "--job", "count", "--method", "prefix", "--length", "3", "--init", "text",
                "--init-text", "Count the words", "--steps", "4", "--save", path, *base])
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

@pytest.mark.parametrize("arguments, message", [
    (["tune", "--job", "poem"], "'poem'.*library"),
    (["tune", "--method", "lora"], "'lora'.*prefix"),
    (["tune", "--init", "zeros"], "zeros: no such file.*matched"),
    (["tune", "--init", "other.pt"], "other.pt was trained on the base .* this base is"),
    (["tune", "--init", "prompt.pt", "--method", "prefix"], "prompt.pt is a prompt: give --method"),
    (["tune", "--length", "256"], "256 virtual tokens.*block_size=256"),
    (["tune", "--length", "x"], "--length.*'x'"), (["tune", "--init", "text"], "--init-text"),
    (["tune", "--init", "text", "--init-text", " "], "--init-text"),
    (["tune", "--steps", "0"], "--steps 0"), (["tune", "--length", "0"], "--length 0"),
    (["tune", "--valid", "valid.tsv"], "give --job NAME, or --data FILE"),
    (["--base", "nowhere.pt"], "nowhere.pt"), (["--base", "nowhere"], "nowhere is no folder"),
    (["--base", "damaged.pt"], "damaged.pt is damaged"),
    (["--base", "prompt.pt"], "prompt.pt does not hold a base model"),
    (["--base", "bare.pt"], "bare.pt has no tokenizer"),
    (["generate", "--prompt", "other.pt", "--text", "A word."], "other.pt was trained on the base"),
    (["generate", "--prompt", "nowhere.pt", "--text", "A word."], "nowhere.pt"),
    (["generate", "--prompt", "prompt.pt", "other.pt", "--text", "A."], "other.pt was trained"),
    (["generate", "--text", "A word."], "--prompt"),
    (["generate", "--prompt", "prompt.pt"], "generate needs --prompt FILE"),
    (["generate", "--prompt", "prompt.pt", "--text", "x", "--data", "a.tsv"], "--text .* or"),
    (["--out", "damaged.pt"], "damaged.pt"), (["plot", "--out", "empty"], "results.csv"),
    (["--device", "cpu:x"], "cpu:x"), (["plot", "--lr", "1"], "--lr belongs to tune"),
    (["--nonsense"], "--nonsense"), (["--device", "cuda"], "cuda"),
    (["--device", "abacus"], "abacus")])
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, tmp_path, monkeypatch, capsys):
    if arguments[-1] == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.chdir(tmp_path)
    Path("damaged.pt").write_bytes((ROOT / "tutorials" / "base.pt").read_bytes()[:-7])
    model, _ = train.load_base(train.Settings())
    save(PromptTuning(initial_embeddings(model, 2, "vocab")), "prompt.pt", model)
    other = make_model()
    save(PromptTuning(torch.randn(2, 32)), "other.pt", other)
    other.save("bare.pt")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit) as stop:
        train.main(arguments)
    lines = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and len(lines) == 1 and re.search(message, lines[0]), lines
    assert sorted(tmp_path.iterdir()) == before

def test_no_docstrings_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(jobs, "source_files", lambda: [])
    with pytest.raises(SystemExit) as stop:
        train.main(["--out", str(tmp_path)])
    assert stop.value.code == 2 and "no docstrings" in capsys.readouterr().err

def test_nothing_happens_at_import_and_help_lists_every_option():
    done = subprocess.run([sys.executable, "train.py", "--help"], cwd=ROOT, capture_output=True,
                          text=True)
    options = [f"--{f.name.replace('_', '-')}" for f in train.fields(train.Settings)]
    assert done.returncode == 0 and all(option in done.stdout for option in options)

def test_the_readme_s_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "load_data", lambda out: {"train": sentences(100)})
    code = (ROOT / "README.md").read_text(encoding="utf-8").split("```python\n")[1]
    names = {}
    exec(code.split("```")[0], names)
    assert load("library.pt", names["model"]).facts == {"job": "library"} and names["loss"] < 3

def test_pretraining_resumes_as_if_never_stopped(tmp_path, monkeypatch, capsys):
    data = {"train": sentences(60), "valid": sentences(9, 1), "test": sentences(9, 2)}
    docs = [("numpy", "function", f"{s.text}\n\nSome more words about it. " * 9)
            for s in data["train"]]
    monkeypatch.setattr(pretrain, "sentences_of", lambda docstrings: data)
    monkeypatch.setattr(pretrain, "read_docstrings", lambda out: docs)
    shape, size = dict(vocab_size=300, block_size=512), dict(n_layer=1, n_head=2, n_embd=16)
    for name, value in {"SHAPE": shape, "SIZES": {"base": size}, "LM_STEPS": 3,
                        "JOB_STEPS": {"base": 4}, "SAVE_EVERY": 0}.items():
        monkeypatch.setattr(pretrain, name, value)
    batch, steps = pretrain.batch_of, []

    def killed(step, *arguments):
        steps.append(step)
        if steps == [0, 1, 2, 3, 4]:
            raise KeyboardInterrupt
        return batch(step, *arguments)

    monkeypatch.setattr(pretrain, "batch_of", killed)
    once, twice = (pretrain.parse(["--base", str(tmp_path / f"{n}.pt")]) for n in "12")
    with pytest.raises(KeyboardInterrupt):
        pretrain.pretrain(once)
    pretrain.pretrain(once)
    assert steps == [0, 1, 2, 3, 4, 4, 5, 6]
    pretrain.pretrain(twice)
    assert steps[8:] == [0, 1, 2, 3, 4, 5, 6]  # a finished one is not gone on with
    one, two = (GPT.load(tmp_path / f"{n}.pt") for n in "12")
    assert one.fingerprint() == two.fingerprint() and "tokenizer" in one.facts
    assert "never practised the job" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.ckpt"))

def test_results_are_whole_experiments(tmp_path, monkeypatch):
    path, row = tmp_path / "results.csv", dict.fromkeys(findings.COLUMNS, 1)
    results = Results(path, "full", "b")
    results.add([{**row, "plan": "full", "base": "b", "seed": seed} for seed in (1, 2)])
    Results(path, "quick", "b").add([{**row, "plan": "quick", "base": "b"}])
    whole = path.read_text()
    assert len(Results(path, "full", "b").find(seed=2)) == 1
    assert len(Results(path, "quick", "b").find()) == 1

    def killed(self, other):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        Results(path, "full", "b").add([row])
    assert path.read_text() == whole
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no results file"):
        Results(path, "full", "b")

def test_the_one_standard_error_rule(tmp_path):
    results = Results(tmp_path / "results.csv", "full", "b")
    row = {**dict.fromkeys(findings.COLUMNS, 1), "plan": "full", "base": "b", "job": "j",
           "experiment": "length", "method": "prompt", "pinned": "yes", "split": "valid",
           "sentences": 120}
    accuracies = {1: (0.5, 0.6), 4: (0.79, 0.81), 8: (0.7, 0.9), 16: (0.8, 0.82)}
    results.add([{**row, "length": length, "accuracy": accuracy}
                 for length, values in accuracies.items() for accuracy in values])
    assert findings.chosen_length(results, "j", "prompt") == 4  # 16 is best, and its error is 0.01

def test_a_step_is_a_share_of_the_size_of_what_it_moves(tok):
    model = tiny(tok)
    soft = PrefixTuning.start(model, torch.randn(3, 16))
    with torch.no_grad():
        soft.values[0] *= 1000
    start = soft.values.detach().clone()
    rows = {"kind": [tok.example(*pair) for pair in JOBS["kind"].pairs(sentences(60))]}
    fit(model, [Arm(soft, "kind", 0.05)], rows, 1, 4, lambda *state: None)
    moved = (soft.values - start).abs().amax((1, 2, 3))  # (L,): AdamW's first step is the rate
    assert torch.allclose(moved, 0.2 * 0.05 * start.square().mean((1, 2, 3)).sqrt(), rtol=0.02)
