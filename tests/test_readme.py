"""What README.md says in numbers is what the shipped tables say."""

import re
from statistics import mean, median

import pytest
import vectors
from conftest import EXPERIMENTS, ROOT

from train import averages_of, best_rate, chosen_length, read_rows, steps_needed, where

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


def test_noise_needs_so_many_times_the_steps_of_related_text():
    times, rate = said(r"needs (\w+) times the steps of related text.*? at rate (\d+), and also")
    needed = where(steps_needed(rows_of("initialization")), task=RULE)

    def steps(start, rate):
        return median(row["steps"] for row in where(needed, start=start, rate=rate))

    assert round(steps("normal", rate) / steps("related", rate)) == times
    best = {start: steps(start, best_rate(needed, start)) for start in ("normal", "related")}
    assert round(best["normal"] / best["related"]) == times


def test_how_far_away_a_solution_is():
    """In `starts` each row of this part says how far one prompt has moved until it has learned."""
    rows, distances = rows_of("starts", part="distance"), {}
    for start in dict.fromkeys(row["start"] for row in rows):
        distances[start] = median(row["distance"] for row in where(rows, start=start))
    [near] = said(r"From related text it is ([\d.]+\d) of the vectors' own length, from all else a")
    assert near == pytest.approx(distances.pop("related"), abs=0.0051)
    assert all(0.3 < distance < 0.53 for distance in distances.values())  # a third to a half
    assert distances["normal"] == pytest.approx(distances["vocab"], abs=0.05)


def test_more_steps_show_how_many_vectors_hold_the_facts():
    """To hold them is to have nine of ten sentences right."""
    pattern = r"After 1,200 steps (\w+) vectors hold two facts, and (\w+) hold eight"
    enough = []
    for task in (TWO_FACTS, EIGHT_FACTS):
        rows = rows_of("lengths", task=task, step=1200, split="test")
        averages = averages_of(rows, "length", "accuracy", mean)
        enough.append(min(length for length, accuracy in averages.items() if accuracy >= 0.9))
    assert said(pattern) == said(r"two facts (\d+), eight facts (\d+), after 1,200") == enough
    one = rows_of("lengths", task=TWO_FACTS, length=1)
    assert "One vector never held two facts" in README
    assert all(row["accuracy"] < 0.9 for row in one)


def test_length_is_chosen_by_the_budget_of_the_picture():
    rows = rows_of("length", method="prompt")
    [steps] = said(r"After the (\d+) steps of this picture")
    assert {row["step"] for row in rows if row["task"] != RULE} == {steps}
    assert said(r"by the steps: a rule (\d+);") == [chosen_length(rows, RULE, "prompt")]
    again, length = said(r"After (\d+) steps, (\d+) are better for both kinds")
    assert again == steps
    for task in (TWO_FACTS, EIGHT_FACTS):
        assert chosen_length(rows, task, "prompt") == length


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


def test_in_the_top_panel_a_vector_holds_a_letter_alone():
    lost = vectors.lost_rows(rows_of("vectors"))
    top = where(lost, seed=vectors.clearest_seed(lost))
    assert max(vectors.lost_alone(top, "R")) > 0.8 and max(vectors.lost_alone(top, "C")) > 0.8


# ------------------------------------------------------------------ what is said


def test_where_the_base_has_the_parts_few_numbers_are_as_good_as_all():
    rows = rows_of("methods", base="base", task=RULE, split="test")
    length, *accuracies = said(r"a prompt of (\d+) \(.*?\) ([\d.]+) ± .*?, all weights ([\d.]+) ±")
    ways = where(rows, method="prompt", length=length), where(rows, method="full", step=64)
    assert accuracies == list(map(accuracy_of, ways))


def test_outside_of_what_the_base_practised_new_weights_learn_more():
    rows = rows_of("methods", base="base", task="before-last", split="test", step=64)
    ways = [where(rows, method=method, length=28) for method in ("prompt", "prefix")]
    ways += [where(rows, method=method) for method in ("full", "lora")]
    pattern = (
        r"practised: prompt of 28 vectors X, prefix of 28 X \(four times the numbers\), "
        r"all weights X, LoRA X"
    )
    assert said(pattern.replace("X", r"([\d.]+\d)")) == list(map(accuracy_of, ways))


def test_on_a_practised_task_words_are_as_good_as_vectors():
    rows = rows_of("methods", base="base", task="library", split="test")
    ways = where(rows, method="prompt", length=28), where(rows, method="wording")
    assert said(r"Practised task: ([\d.]+\d) and ([\d.]+\d)") == list(map(accuracy_of, ways))


def test_an_update_of_the_base_costs_prompts_answers():
    rows = rows_of("update", task="count", method="old")
    ways = where(rows, update="none"), where(rows, update="strong")
    assert said(r"one task fell from ([\d.]+\d) to ([\d.]+\d)") == list(map(accuracy_of, ways))
