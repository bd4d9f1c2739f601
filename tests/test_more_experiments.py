"""tutorials/experiments: starts, examples, methods, attention, distance, memory, update, real."""

import math
from collections import Counter

import attention
import distance
import examples
import memory
import methods
import pytest
import real
import script
import starts
import torch
import update
import vectors
from conftest import make_model
from small_world import TOKENS, same_columns, sentences

import train
from model import InputError
from softprompt import prefill
from train import Arm, Lab, Sentence, Tokenizer, where

RULE = "first-letter-last"


def random_lab(**shape):
    """A random base of two layers without any skill, and sentences."""
    tok = Tokenizer.from_tokens([*TOKENS, b" h", b" t"])  # the sides of a coin
    shape = {"vocab_size": tok.end + 1, "n_layer": 2, "n_embd": 16, "window": 24, **shape}
    data = {"train": sentences(32), "valid": sentences(12, 1), "test": sentences(8, 2)}
    return Lab(make_model(**shape), tok, data)


@pytest.fixture
def lab():
    return random_lab()


@pytest.fixture(autouse=True)
def tasks_stay_as_they_are():
    """memory.py adds lists to TASKS."""
    before = dict(train.TASKS)
    yield
    train.TASKS.clear()
    train.TASKS.update(before)


@pytest.fixture
def small(monkeypatch):
    """A setting of an experiment made small: small(module, NAME=value)."""

    def change(module, **settings):
        for name, value in settings.items():
            monkeypatch.setattr(module, name, value)

    return change


@pytest.fixture
def one_seed(small):
    """One seed where an experiment has five."""
    small(script.arms_of, __defaults__=([0], *script.arms_of.__defaults__[1:]))
    small(memory.flip_arms, __defaults__=([0],))
    for module in (starts, methods, attention, memory, update):
        small(module, SEEDS=[0])


@pytest.fixture
def bases(small, lab):
    """The random base in the place of all that methods.py and memory.py open."""
    small(methods, load_base=lambda path, device: (lab.model, lab.tok))
    small(memory, load_base=lambda path, device: (lab.model, lab.tok))


# ------------------------------------------------------------------ each leaves its rows


def test_starts_run(lab, small, one_seed):
    small(starts, RACE=train.Sweep(2, rates=(1,)), RACE_SEEDS=[0], USUAL_STEPS=1)
    small(starts, NEIGHBOURS={task: 1 for task in starts.NEIGHBOURS}, FACTS_STEPS=1)
    small(starts, DISTANCE_STEPS=1, USUAL_RATES=(0.03,), USUAL_STARTS=("vocab",))
    rows = starts.run(lab)
    assert same_columns("starts", rows)
    assert {row["part"] for row in rows} == {"race", "usual", "neighbour", "distance"}
    begun = where(rows, part="race", seed=0, step=0)
    assert len(begun) == len(train.STARTS)
    moved = where(rows, part="distance", seed=0)
    assert all(row["distance"] == pytest.approx(1 / 64, rel=0.3) for row in moved)


def test_examples_run(lab, small, one_seed):
    steps = {task: entry._replace(steps={"prompt": 1}) for task, entry in train.TASKS.items()}
    small(examples, EXAMPLES=(16, 32), TASKS=steps)
    rows = examples.run(lab)
    assert same_columns("examples", rows)
    assert len(where(rows, task="swap-1", examples=16, split="test", step=1)) == 1


def test_methods_run_and_picture(lab, small, bases, one_seed):
    ways = {("prompt", 28): (1, 3), ("lora", 0): (3e-3, 1e-2), ("full", 0): (1e-3,)}
    one_rate = {way: rates[:1] for way, rates in ways.items()}
    small(methods, SHOWN=[("none", 0), ("wording", 0), *ways])
    races = [methods.Race("base", RULE, 2, ways, (100,), (0, 1))]
    races += [methods.Race("base", task, 1, one_rate) for task in ("library", "before-last")]
    small(
        methods, SEEDS=[0], RACES=races, BASES=("base",), IN_WORDS=("library", "before-last", RULE)
    )
    rows = methods.run(lab)
    assert same_columns("methods", rows)
    tried = where(rows, task=RULE, method="lora", seed=100)
    assert [row["rate"] for row in tried] == [3e-3, 1e-2]
    [raced] = where(rows, task=RULE, method="lora", split="test")
    assert raced["rate"] == methods.best_rate(tried)
    assert [row["step"] for row in where(rows, task=RULE, method="lora", seed=0)] == [0, 1, 2]
    figure = methods.draw(rows)
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert names[0] == "no prompt" and names[2].startswith("prompt of 28\n")
    for axis, race in zip(figure.axes, races):
        [full] = where(rows, task=race.task, method="full", split="test")
        assert f"{full['accuracy']:.2f}" == axis.texts[-1].get_text()


def test_attention_run(lab, small, one_seed):
    small(attention, STEPS=2, SENTENCES=2)
    rows = attention.run(lab)
    assert same_columns("attention", rows)
    moved = {(row["method"], row["layer"]): row["moved"] for row in rows}
    assert moved["prompt", 1] == moved["prefix", 1] == 0 < moved["lora", 1]
    assert moved["prompt", 2] > 0 and moved["prefix", 2] > 0


def test_distance_run_and_picture(lab, small, one_seed):
    small(distance, STEPS={RULE: 1, "library": 1}, P=3, BETWEEN=(0, 60), FINAL=12)
    rows = distance.run(lab)
    assert same_columns("distance", rows)
    assert {row["sees"] for row in where(rows, part="sees")} == set(distance.READERS)
    figure = distance.draw(rows)
    assert [len(axis.get_lines()) for axis in figure.axes] == [10, 10]  # a line and its dots


def test_memory_run(lab, small, bases, one_seed):
    small(memory, PLANS=(memory.Plan("base-tiny", "prefix", 1, (1 / 8,), 2),), BYTES=0)
    small(memory, LONGEST=60, LIST_STEPS=1, RULE_LENGTHS=(1,), LIST_LENGTHS=(1, 2))
    rows = memory.run(lab)
    assert same_columns("memory", rows)
    assert [(row["part"], row["task"]) for row in where(rows, split="train")] == [
        ("flips", "flips"),
        ("list", RULE),
        ("list", "list"),
        ("list", "list"),
    ]


def test_update_run(lab, small, one_seed):
    small(update, UPDATE_STEPS=1, UPDATE_EXAMPLES=2, PROMPT_STEPS=1, ANEW_SEEDS=(0,))
    small(update, PRACTISED=["library"], PROMPT_TASKS=("library", RULE))
    updates = {"strong": update.Update(["library"], 1e-3), "random": update.Update([], 1e-3)}
    small(update, UPDATES=updates)
    before = lab.model.fingerprint()
    rows = update.run(lab)
    assert same_columns("update", rows)
    assert lab.model.fingerprint() == before
    assert {row["method"] for row in where(rows, update="strong")} == {"wording", "old", "anew"}
    for row in where(rows, task=update.NEW, method="wording", split="test"):
        shares = [row["accuracy"], *(row[kind] for kind in update.MISTAKES)]
        assert sum(shares) == pytest.approx(1, abs=1e-3)


def test_real_run(small):
    lab, splits = random_lab(block_size=400, window=None), real.tickets_in_splits()
    few = [(learn[:40], test[:3]) for learn, test in splits[:2]]
    small(real, tickets_in_splits=lambda: few)
    small(real, STEPS=1, EVERY=1, SEEDS=range(2), ROOM=200, EXAMPLES=(2,), P=2, SIZE=2)
    small(real, LEARNED=(("prefix", 8),), COIN_LENGTHS=(1, 2))
    rows = real.run(lab)
    assert same_columns("real", rows)
    assert len(where(rows, task="tickets", split="test")) == 2 * (4 + 1)
    assert len(where(rows, task="coins", length=2, seed=1)) == 2


# ------------------------------------------------------------------ what they share


def test_the_best_rate_has_the_least_validation_loss():
    losses = ((1, 0.9), (1, 0.2), (3, 0.5), (3, 0.5), (9, 0.1), (9, 2.0))
    rows = [{"rate": rate, "loss": loss, "split": "valid"} for rate, loss in losses]
    rows.append({"rate": 9, "loss": 0.0, "split": "test"})
    assert script.best_rate(rows) == 3


def test_an_arm_stops_where_it_has_learned(lab, small):
    arms = script.arms_of(lab, "library", "vocab", 1, [0, 1], length=2)
    begun = train.measure(lab, arms, 0, "valid", train.CURVE)
    between = sum(row["loss"] for row in begun) / 2  # one of two has learned before it begins
    small(script, THRESHOLD=between)
    done, other = sorted(begun, key=lambda row: row["loss"])
    rows = script.until_learned(lab, arms, 3, "two arms")
    assert [row["step"] for row in where(rows, seed=done["seed"])] == [0]
    first, last = where(rows, seed=other["seed"])
    assert first["step"] == 0 < last["step"] and first["loss"] > between
    assert last["step"] == 3 or last["loss"] <= between


def test_a_past_is_measured_as_a_soft_prompt(lab):
    [arm] = script.arms_of(lab, "library", "vocab", 1, [0], length=4)
    ready = Arm(script.Before(arm.soft.past(lab.model)), "library", 0.0, 0, arm.columns)
    [ours] = train.measure(lab, [ready], 0, "test", 9)
    [theirs] = train.measure(lab, [arm], 0, "test", 9)
    assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-3)


def test_attention_is_what_the_layers_compute(lab):
    [arm] = script.arms_of(lab, "library", "vocab", 1, [0], length=4)
    past = vectors.hide(arm.soft.past(lab.model), [3])
    question, _ = lab.rows("library", "test", 1)[0]
    values, mixed = [], []
    for block in lab.model.model.layers:
        layer = block.self_attn
        layer.register_forward_hook(lambda layer, given, out: values.append(given[2]))
        layer.o_proj.register_forward_hook(lambda layer, given, out: mixed.append(given[0]))
    scores = script.attention_scores(lab.model, question, past)
    assert len(scores) == len(values) == len(mixed) == lab.model.config.n_layer
    for found, v, out in zip(scores, values, mixed):
        weights = found.softmax(-1)  # (H, T, S)
        H, T, S = weights.shape
        assert (T, S) == (len(question), 4 + len(question))
        assert (weights[:, :, 2] == 0).all(), "the third vector is hidden, and is looked at"
        assert (weights[:, :, 1] > 0).all()
        v = v.repeat_interleave(H // v.shape[1], 1)  # (1, H, S, D)
        assert torch.allclose((weights @ v).transpose(1, 2).flatten(2), out, atol=1e-5)


# ------------------------------------------------------------------ examples


def test_few_examples_are_the_same_at_every_step():
    draw, rows = examples.from_few(4), list(range(100))
    seen = Counter()
    for step in range(40):
        seen.update(draw(rows, 0, step, 2))
    assert len(seen) == 4 and set(draw(rows, 1, 0, 4)) != set(seen)


# ------------------------------------------------------------------ what changes the base itself


def test_lora_starts_as_the_base_and_leaves_it_alone(lab):
    base, idx = lab.model, torch.arange(9)[None]  # (1, T)
    before, other = base.fingerprint(), methods.lab_on_a_copy(lab).model
    lora = methods.LoRA(other)
    assert len(lora.down) == len(lora.up) == 8  # two layers: queries, keys, values and output
    assert torch.equal(base(idx)[0], other(idx)[0])
    shapes = [linear.weight.shape for linear in methods.attention_projections(base)]
    assert methods.numbers_in(lora) == sum(4 * sum(shape) for shape in shapes)  # of rank 4
    with torch.no_grad():
        for up in lora.up:
            up.normal_()
    assert not torch.allclose(base(idx)[0], other(idx)[0], atol=1e-2)
    assert base.fingerprint() == before == other.fingerprint()


def test_lora_merged_into_the_weights_is_lora_hooked(lab):
    hooked, merged = (methods.lab_on_a_copy(lab).model for _ in range(2))
    lora, idx = methods.LoRA(hooked, seed=3), torch.arange(9)[None]  # (1, T)
    with torch.no_grad():
        for down, up, linear in zip(lora.down, lora.up, methods.attention_projections(merged)):
            up.normal_()
            linear.weight += 2 * up @ down
    assert torch.allclose(hooked(idx)[0], merged(idx)[0], rtol=1e-4, atol=1e-4)


def test_all_weights_are_all_weights(lab):
    other = methods.lab_on_a_copy(lab).model
    soft = methods.AllWeights(other)
    assert methods.numbers_in(soft) == sum(p.numel() for p in lab.model.parameters())
    assert all(p.requires_grad for p in soft.parameters())
    assert not any(p.requires_grad for p in lab.model.parameters())
    assert soft.past(other).positions.shape == (1, 0)


@pytest.mark.parametrize("method", methods.INSIDE)
def test_what_is_trained_inside_changes_the_copy_alone(lab, method):
    before, idx = lab.model.fingerprint(), torch.arange(9)[None]  # (1, T)
    [(own, arms)] = methods.labs_and_arms(lab, "library", (method, 0), [0.01], [0])
    script.learn(own, arms, 3, "three steps", splits=())
    assert lab.model.fingerprint() == before
    assert (own.model.fingerprint() == before) == (method == "lora")
    assert not torch.allclose(lab.model(idx)[0], own.model(idx)[0], atol=1e-3)


def test_three_prefixes_start_at_the_same_past(lab):
    pasts = []
    for method in ("prompt", "prefix", "prefix, one rate", "prefix, MLP"):
        soft = methods.arm_of(lab, "library", (method, 4), 1, 0).soft
        pasts.append(torch.stack(soft.past(lab.model).keys))
    assert all(torch.allclose(past, pasts[0], atol=1e-6) for past in pasts)


# ------------------------------------------------------------------ distance


def test_out_of_the_window_a_sliding_prompt_is_no_prompt():
    lab = random_lab(n_layer=1)  # one layer with a window of 24
    arms = [
        distance.words_arm(lab, "library", "wording", "Return every file."),
        distance.words_arm(lab, "library", "none", ""),
    ]
    loss = {}
    for pinned in (True, False):
        for between in (0, 90):
            for row in distance.measure_far(lab, arms, pinned, between):
                loss[row["method"], row["pinned"], between] = row["loss"]
    assert loss["wording", "no", 90] == loss["none", "no", 90] == loss["none", "yes", 90]
    assert loss["wording", "yes", 90] != loss["none", "yes", 90]
    assert loss["wording", "yes", 0] != loss["none", "yes", 0]


def test_words_far_away_are_the_words_before_the_other_text(lab):
    lab.model.config.window = None
    words, answers = "Return every file.", lab.rows("library", "test")
    arm = distance.words_arm(lab, "library", "wording", words)
    [row] = distance.measure_far(lab, [arm], False, 30)
    before = lab.tok.encode(words) + distance.other_text(lab)[:30]
    asked = [(before + question, answer) for question, answer in answers]
    [loss], [accuracy] = train.mean_of_arms(train.score(lab.model, None, asked), 1)
    assert row["loss"] == pytest.approx(loss.item(), abs=1e-3)
    assert row["accuracy"] == pytest.approx(accuracy.item(), abs=1e-4)


def test_other_text_in_the_past_is_other_text_before_the_question(lab):
    [arm] = script.arms_of(lab, "library", "vocab", 1, [0], length=4)
    rows, filler = lab.rows("library", "test", 6), distance.other_text(lab)[:30]
    far = train.score(lab.model, distance.past_far_away(lab, arm.soft, 30, False), rows)
    longer = [(filler + question, answer) for question, answer in rows]
    near = train.score(lab.model, arm.soft.past(lab.model, pinned=False), longer)
    assert torch.allclose(far.nats, near.nats, atol=1e-4)


def test_a_prompt_that_nobody_sees_leaves_only_its_place(lab):
    prompts = script.arms_of(lab, "library", "vocab", 1, [0, 1], length=4)
    rows = [(question, [5, 6]) for question, _ in lab.rows("library", "test", 12)]
    unseen = [distance.right_seen_by(lab, arm.soft, rows, False, False) for arm in prompts]
    assert torch.equal(*unseen)
    for arm in prompts:
        scores = train.score(lab.model, arm.soft.past(lab.model), [(q, a[:1]) for q, a in rows])
        assert torch.equal(distance.right_seen_by(lab, arm.soft, rows, True, True), scores.right)


def test_without_a_window_nothing_slides():
    with pytest.raises(InputError, match="no window"):
        distance.run(random_lab(window=None))


# ------------------------------------------------------------------ memory


def test_bits_held_are_all_or_none():
    assert memory.bits_held({"flips": 8, "loss": 0.0}) == 8
    assert memory.bits_held({"flips": 8, "loss": math.log(2)}) == pytest.approx(0)
    assert memory.bits_held({"flips": 8, "loss": 2.0}) == 0


def test_flips_are_remembered_where_the_margin_is_positive(lab):
    arms, flips = memory.flip_arms(lab, "prompt", 2, 6, [0, 1])
    past = prefill([arm.soft for arm in arms], lab.model)
    for a, arm in enumerate(arms):
        for k, flip in enumerate(flips[arm.task]):
            logits, _ = lab.model(torch.tensor([[flip.token]]), past.rows(torch.tensor([a])))
            difference = logits[0, 0, flip.right] - logits[0, 0, flip.wrong]
            asked = [f for other in arms for f in flips[other.task]]
            margin = memory.margins(lab.model, past, asked)[a, k]
            assert torch.allclose(margin, difference, atol=1e-4)


def test_a_list_has_the_answers_of_the_rule_in_another_order(lab):
    name = memory.add_list(lab, 3)
    ours = [train.TASKS[name].answer(sentence) for sentence in lab.data["train"]]
    theirs = [train.TASKS[RULE].answer(sentence) for sentence in lab.data["train"]]
    assert sorted(ours) == sorted(theirs) and ours != theirs


# ------------------------------------------------------------------ an update


@pytest.mark.parametrize(
    "said, kind",
    [
        ("g", "right"),
        ("graph", "another_part"),
        ("h", "another_part"),
        ("5", "another_part"),
        ("R", "another_word"),
        ("x", "neither"),
        ("", "neither"),
    ],
)
def test_a_mistake_says_which_part_of_the_question_it_missed(said, kind):
    sentence = Sentence("Return the matrix of a graph.", "networkx", "function")
    assert update.kind_of_answer(sentence, said) == kind


# ------------------------------------------------------------------ a real model


def test_every_ticket_is_tested_once():
    splits = real.tickets_in_splits()
    tested = Counter(pair for _, test in splits for pair in test)
    assert len(tested) == 160 and set(tested.values()) == {1}
    assert all(not set(train) & set(test) for train, test in splits)


def test_coins_are_as_many_of_each_side():
    sides = Counter(side for _, side in real.tossed(1))
    assert sides == {"left": 13, "right": 13} and real.tossed(1) != real.tossed(2)


def test_every_neighbour_is_drawn_once():
    rows = list(range(24))
    steps = [real.next_examples(rows, 0, step, 8) for step in range(3)]
    assert sorted(sum(steps, [])) == rows and all(part[7] - part[0] == 7 for part in steps)


def test_what_the_teacher_says_is_what_it_says_to_each_text_alone(lab):
    past = lab.model(torch.tensor([[1, 2, 3]]))[1]
    texts = [sentence.text for sentence in lab.data["test"]] + ["one", "one two three"]
    for text, (question, guess, logits) in zip(
        texts, real.what_it_says(lab.model, lab.tok, past, texts)
    ):
        assert question == lab.tok.example(text, "")[0]
        assert [guess] == lab.model.generate([question], 2, past)
        alone, _ = lab.model(torch.tensor([question + guess[:1]]), past)
        assert torch.allclose(logits, alone[0, -2:], atol=1e-4)


def test_no_place_is_in_two_parts_of_the_distillation(lab):
    shown, unsolved, test = real.text_to_distil(lab.tok)
    assert len(unsolved) == 128 and len(test) == 80
    assert not {place for place, _ in test} & set(unsolved)
    shown = set(shown.split("\n"))
    assert not any(line.startswith(f"{place} ->") for place in unsolved for line in shown)
