"""The exercises of class 5: our function, its inputs, and the mistakes that many make."""

import math
from statistics import mean, median

from train import averages_of

# -------------------------------------------------- steps_to


def steps_to(rows, threshold):
    """rows: dicts with "step" and "loss" of one arm, steps going up -> the first step with a loss
    at or below the threshold; math.inf where there is none."""
    for row in rows:
        if row["loss"] <= threshold:
            return row["step"]
    return math.inf


def steps_to_inputs():
    """One curve, which rises again; thresholds that it meets exactly, later, at once and never."""
    steps, losses = [0, 1, 2, 4, 8, 16], [3.0, 2.0, 1.0, 1.5, 0.5, 0.75]
    rows = [{"step": step, "loss": loss} for step, loss in zip(steps, losses)]
    return [(rows, threshold) for threshold in (1.25, 2.0, 4.0, 0.75, 0.25)]


def number_of_the_row(rows, threshold):
    for number, row in enumerate(rows):
        if row["loss"] <= threshold:
            return number
    return math.inf


def below_alone(rows, threshold):
    return min((row["step"] for row in rows if row["loss"] < threshold), default=math.inf)


def last_step_where_none(rows, threshold):
    steps = [row["step"] for row in rows if row["loss"] <= threshold]
    return min(steps, default=rows[-1]["step"])


steps_to_mistakes = {
    'you return the number of the row; a row says its step in row["step"]': number_of_the_row,
    "a loss that is exactly at the threshold counts as well": below_alone,
    "an arm that never gets there has math.inf, not its last step": last_step_where_none,
}

# -------------------------------------------------- fair_steps


def fair_steps(choose, race):
    """choose, race: rows of one start, dicts with "rate" and "steps", at the same rates
    -> (rate, steps): the rate with the lowest median in `choose` (the lowest of equals), and the
    median of the steps in `race` at this rate."""
    medians = averages_of(choose, "rate", "steps", median)
    rate = min(medians, key=medians.get)  # the race has no say in this
    return rate, averages_of(race, "rate", "steps", median)[rate]


def fair_steps_inputs():
    """Starts whose race would choose another rate; one has equals, and arms that never learn."""
    text = {1: [4, 6, 5], 2: [9, 2, 8], 4: [7, 7, 30]}
    text_race = {1: [8, 6, 10, 6, 40], 2: [5, 9, 9, 7, 6], 4: [2, 3, 4, 2, 6]}
    noise = {1: [math.inf, 50, math.inf], 2: [9, 12, 10], 4: [10, 8, 40]}
    noise_race = {1: [9, 9, 9, 9, 9], 2: [14, 10, 12, 50, 11], 4: [8, 9, 10, 8, 9]}
    late, late_race = {0.5: [2, 3, math.inf], 8: [9, 9, 9]}, {0.5: [4, 5, 30], 8: [3, 3, 3]}
    pairs = ((text, text_race), (noise, noise_race), (late, late_race))
    return [(rows_of(choose), rows_of(race)) for choose, race in pairs]


def rows_of(tried):
    """{rate: steps of the seeds} as rows."""
    rows = []
    for rate, steps in tried.items():
        rows += [{"rate": rate, "steps": steps_of_seed} for steps_of_seed in steps]
    return rows


def race_chooses(choose, race):
    return fair_steps(race, race)


def steps_of_the_choice(choose, race):
    return fair_steps(choose, choose)


def means(choose, race):
    steps = averages_of(choose, "rate", "steps", mean)
    rate = min(steps, key=steps.get)
    return rate, averages_of(race, "rate", "steps", mean)[rate]


fair_steps_mistakes = {
    "the race chooses its own rate: choose it with `choose` alone": race_chooses,
    "the rate is right, but the steps are those of `choose`; take those of `race`":
        steps_of_the_choice,
    "take medians, not means: one arm that never learns makes a mean infinite": means,
}  # fmt: skip
