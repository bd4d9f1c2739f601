"""tutorials/pretrain.py: the vocabulary, what is learned from, and a run that was stopped."""

import re
from collections import Counter

import pretrain
import pytest
from small_world import sentences

from model import GPT, InputError
from train import PATTERN, TASKS, Tokenizer


def slow_bpe(texts, size):
    """The definition: count all pairs, merge the commonest (of equals, the first in order)."""
    words = []
    for text in texts:
        words += [[bytes([b]) for b in word.encode()] for word in re.findall(PATTERN, text)]
    tokens = [bytes([b]) for b in range(256)]
    while len(tokens) < size:
        counts = Counter()
        for word in words:
            counts.update(zip(word, word[1:]))
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        tokens.append(best[0] + best[1])
        for word in words:
            pretrain.join(word, best)
    return tokens


def test_bpe_is_its_definition():
    texts = [s.text for s in sentences(30)]
    texts += ["aaaa aaa aaaaa banana bandana", "x = 12 + 3_4", "naïve café"]
    assert pretrain.bpe(texts, 400) == slow_bpe(texts, 400)
    few = pretrain.bpe(["ab ab"], 400)  # ends where nothing is left to merge
    assert few == slow_bpe(["ab ab"], 400) and few[256:] == [b"ab", b" ab"]


def test_pairs_are_joined_from_left_to_right():
    parts = [b"a", b"a", b"a", b"b"]
    pretrain.join(parts, (b"a", b"a"))
    assert parts == [b"aa", b"a", b"b"]


def test_no_held_out_sentence_is_read():
    data = {"train": sentences(5), "valid": sentences(2, 1), "test": sentences(2, 2)}
    docs = [("numpy", "class", f"Line {i} of a text.\n\nMore.") for i in range(50)]
    docs += [("numpy", "class", f"Line {i}.\n  {data['test'][0].text}") for i in range(50)]
    texts = pretrain.texts_to_learn(docs + docs[:3], data)
    assert 30 < len(texts) == len(set(texts)) < 50
    assert all(text.endswith("More.") for text in texts)


def test_only_practised_tasks_are_practised():
    counts = Counter(task.question for task in pretrain.PRACTISED)
    assert counts.pop(TASKS["library"].question) == 4
    assert counts.pop(TASKS["count"].question) == 2
    assert set(counts.values()) == {1}
    for name in (*pretrain.HELD_OUT, "before-last", "swap-1", "swap-4"):
        assert TASKS[name].question not in counts


def test_batches_are_of_three_kinds(monkeypatch):
    monkeypatch.setattr(pretrain, "LANGUAGE_STEPS", 0)
    train = sentences(60)
    tok = Tokenizer.from_tokens(pretrain.bpe([s.text for s in train], 600))
    lengths = set()
    for step in range(12):
        batch = pretrain.batch_of(step, None, train, tok)
        again = pretrain.batch_of(step, None, train, tok)
        assert all(a.equal(b) for a, b in zip(batch, again))
        scored = (batch.targets >= 0).sum(1)  # (B,)
        near = bool((batch.pinned == 0).all())
        answers_alone = bool((scored < 12).all())
        assert near != answers_alone and (near or bool((batch.pinned > 0).all()))
        assert batch.weight.sum().item() == pytest.approx(1.2 if near else 1)
        assert batch.weight[batch.targets < 0].sum() == 0
        lengths.add((near, batch.idx.shape[1]))
    assert {near for near, _ in lengths} == {True, False}


@pytest.fixture
def small_plan(monkeypatch):
    """Seven steps of a base that has next to nothing, and 60 docstrings."""
    data = {"train": sentences(60), "valid": sentences(9, 1), "test": sentences(9, 2)}
    more = "\n\nSome more words about it. " * 9
    docs = [("numpy", "function", s.text + more) for s in data["train"]]
    monkeypatch.setattr(pretrain, "sentences_of", lambda docstrings: data)
    monkeypatch.setattr(pretrain, "read_docstrings", lambda out: docs)
    monkeypatch.setattr(pretrain, "SHAPE", {"vocab_size": 300, "block_size": 512})
    monkeypatch.setattr(pretrain, "SIZES", {"base": {"n_layer": 1, "n_head": 2, "n_embd": 16}})
    monkeypatch.setattr(pretrain, "LANGUAGE_STEPS", 3)
    monkeypatch.setattr(pretrain, "TASK_STEPS", {"base": 4})
    monkeypatch.setattr(pretrain, "SAVE_EVERY", 0)
    reported = {name: TASKS[name] for name in ("library", "before-last")}
    monkeypatch.setattr(pretrain, "TASKS", reported)


def test_pretraining_resumes_as_if_never_stopped(small_plan, tmp_path, monkeypatch, capsys):
    batch_of, steps = pretrain.batch_of, []

    def killed(step, *arguments):
        steps.append(step)
        if steps == [0, 1, 2, 3, 4]:
            raise KeyboardInterrupt
        return batch_of(step, *arguments)

    monkeypatch.setattr(pretrain, "batch_of", killed)
    once = ["--base", str(tmp_path / "1.pt")]
    with pytest.raises(KeyboardInterrupt):
        pretrain.main(once)
    monkeypatch.setattr(pretrain, "TASK_STEPS", {"base": 9})
    with pytest.raises(InputError, match="1.pt.ckpt is of other data or another plan"):
        pretrain.main(once)
    monkeypatch.setattr(pretrain, "TASK_STEPS", {"base": 4})
    pretrain.main(once)
    assert steps == [0, 1, 2, 3, 4, 4, 5, 6]
    pretrain.main(["--base", str(tmp_path / "2.pt")])
    assert steps[8:] == [0, 1, 2, 3, 4, 5, 6]
    one, two = (GPT.load(tmp_path / f"{n}.pt") for n in "12")
    assert one.fingerprint() == two.fingerprint() and "tokenizer" in one.facts
    table = capsys.readouterr().out.splitlines()[-3:]
    assert [line.split()[1] == "*" for line in table[1:]] == [False, True]
    assert [len(line.split()) for line in table[1:]] == [9, 8]  # a share, no prompt, 6 or 4 others
    assert not list(tmp_path.glob("*.ckpt"))


def test_a_checkpoint_is_of_one_plan(tmp_path):
    kept = pretrain.Checkpoint(tmp_path / "run.ckpt", "plan 1")
    assert kept.load() == {}
    kept.save(step=3, seen=["a"])
    assert pretrain.Checkpoint(tmp_path / "run.ckpt", "plan 1").load() == {"step": 3, "seen": ["a"]}
    with pytest.raises(InputError, match="run.ckpt is of other data or another plan: remove it"):
        pretrain.Checkpoint(tmp_path / "run.ckpt", "plan 2").load()
    kept.remove()
    kept.remove()
    assert kept.load() == {}
