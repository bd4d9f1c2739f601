"""Texts of one's own: training on them, killed and gone on with, judging, answering."""

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

from model import InputError
from softprompt import PrefixTuning, PromptTuning, initial_embeddings, load, prefill, save
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
    for _ in fit(model, [Arm(soft, "", 3.0)], {"": rows * 8}, 120, 16, choice_loss(tok, choices)):
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
    assert [better for better, _, _ in found] == [True, True, *[False] * 2, True, *[False] * 2, True, *[False] * 2]
    assert [falls for _, falls, _ in found] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    assert [over for _, _, over in found].index(True) == 6  # there training ends
    for falls in range(3):
        share = EarlyStop(falls=falls).schedule(50, 300)
        assert share == pytest.approx(warm_up_and_fall(50, 300) / 3**falls)
    assert not EarlyStop().better(math.nan)
