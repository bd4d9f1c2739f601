"""What README.md says in numbers is what the shipped tables say."""

import re
from statistics import mean, median

import pytest
import vectors
from conftest import EXPERIMENTS, ROOT

from train import chosen_length, read_rows, steps_needed, where

README = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
RULE, TWO_FACTS, EIGHT_FACTS = "first-letter-last", "swap-1", "swap-4"
WORDS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "eight": 8, "sixteen": 16}


def rows_of(name, **columns):
    """Rows of the table of an experiment, or of the main job."""
    return where(read_rows(EXPERIMENTS / f"{name}.csv"), **columns)


def said(pattern):
    """What README says in the groups of this pattern, numbers as numbers. It says it once."""
    [found] = re.finditer(pattern, README)
    return [WORDS.get(word) or float(word) for word in found.groups()]


def accuracy_of(rows):
    """The mean accuracy, as a number that README may round either way."""
    return pytest.approx(mean(row["accuracy"] for row in rows), abs=0.0051)


# ------------------------------------------------------------------ the first screen


def test_one_text_before_which_stand_nothing_words_or_vectors():
    rows = rows_of("length", task=RULE, split="test")
    assert said(r"\| nothing \| \w+ \| ([\d.]+) \|") == [accuracy_of(where(rows, method="none"))]
    words = accuracy_of(where(rows, method="wording"))
    assert said(r"\| the best instruction in words, [^|]+ \| \w+ \| ([\d.]+) \|") == [words]
    length, accuracy = said(r"\| (\d+) learned vectors \| \w+ \| ([\d.]+) \|")
    assert accuracy == accuracy_of(where(rows, method="prompt", length=length))


def test_noise_takes_so_many_times_the_steps_of_related_text():
    rate, times = said(r"At learning rate (\d+) .*?, noise takes (\w+) times the steps of related")
    needed = where(steps_needed(rows_of("initialization")), task=RULE, rate=rate)
    steps = {}
    for start in ("normal", "related"):
        steps[start] = median(row["steps"] for row in where(needed, start=start))
    assert round(steps["normal"] / steps["related"]) == times


def test_facts_seem_to_need_many_vectors_after_the_budget_of_the_picture():
    rows = rows_of("length")
    steps, length = said(r"After the (\d+) steps of this picture, facts seem to need (\d+) vectors")
    for task in (TWO_FACTS, EIGHT_FACTS):
        assert chosen_length(rows, task, "prompt") == length
        assert {row["step"] for row in where(rows, task=task, method="prompt")} == {steps}


def test_more_steps_show_how_many_vectors_hold_the_facts():
    """To hold them is to have nine of ten sentences right."""
    pattern = r"After 1,200 steps (\w+) vectors hold two facts, and (\w+) hold eight"
    for task, length in zip((TWO_FACTS, EIGHT_FACTS), said(pattern)):
        rows = rows_of("lengths", task=task, step=1200, split="test")
        enough = []
        for P in sorted({row["length"] for row in rows}):
            if mean(row["accuracy"] for row in where(rows, length=P)) >= 0.9:
                enough.append(P)
        assert enough[0] == length
    [never] = said(r"(\w+) vector never held two")
    assert all(row["accuracy"] < 0.9 for row in rows_of("lengths", task=TWO_FACTS, length=never))


READING = re.findall(r"\| ([^|]+) \| ([^|]+) \| (0\.\d\d) \| (0\.\d\d) \|", README)


def test_all_texts_of_reading_are_in_the_table_of_readme():
    assert {words for words, *_ in READING} == {row["words"] for row in rows_of("reading")}


@pytest.mark.parametrize("words, reads, of_vectors, of_tokens", READING)
def test_a_prompt_reads_as_one_thing_and_does_another(words, reads, of_vectors, of_tokens):
    rows = rows_of("reading", words=words, task=RULE)
    assert {row["reads"] for row in rows} == {reads}
    assert float(of_vectors) == accuracy_of(where(rows, by="vectors"))
    assert float(of_tokens) == accuracy_of(where(rows, by="tokens"))


# ------------------------------------------------------------------ what each vector holds


def test_which_vectors_of_the_top_panel_hold_a_letter_alone():
    lost = vectors.lost_rows(rows_of("vectors"))
    top = where(lost, seed=vectors.clearest_seed(lost))
    pattern = r"without vector (\d+) it fails on R and still answers C; without vector (\d+)"
    for letter, vector in zip("RC", said(pattern)):
        alone = vectors.lost_alone(top, letter)
        assert alone.index(max(alone)) + 1 == vector  # counted from one
        assert max(alone) > 0.8


# ------------------------------------------------------------------ what is said


def test_the_lengths_that_a_rule_and_facts_take():
    pattern = r"a rule (\d+), two facts (\d+) .*?, eight facts (\d+)"
    rows = rows_of("length")
    chosen = [chosen_length(rows, task, "prompt") for task in (RULE, TWO_FACTS, EIGHT_FACTS)]
    assert said(pattern) == chosen


def test_outside_of_what_the_base_practised_new_weights_learn_more():
    rows = rows_of("methods", base="base", task="before-last", split="test", step=64)
    prompts = [where(rows, method="prompt", length=P) for P in (28, 112)]
    best = max(prompts, key=lambda own: mean(row["accuracy"] for row in own))
    others = [where(rows, method=method) for method in ("prefix", "full", "lora")]
    pattern = "Outside of what it practised: prompt X, prefix X, all weights X, LoRA X"
    assert said(pattern.replace("X", r"([\d.]+\d)")) == list(map(accuracy_of, (best, *others)))


def test_on_a_practised_task_words_are_as_good_as_vectors():
    rows = rows_of("methods", base="base", task="library", split="test")
    ways = where(rows, method="prompt", length=28), where(rows, method="wording")
    assert said(r"Practised task: ([\d.]+\d) and ([\d.]+\d)") == list(map(accuracy_of, ways))


def test_an_update_of_the_base_costs_prompts_answers():
    rows = rows_of("update", task="count", method="old")
    ways = where(rows, update="none"), where(rows, update="strong")
    assert said(r"one task fell from ([\d.]+\d) to ([\d.]+\d)") == list(map(accuracy_of, ways))
