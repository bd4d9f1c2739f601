"""What does a real model learn from few texts of one's own? Half an hour of one core.

    SOFTPROMPT_MODEL=FOLDER python tutorials/experiments/real.py      real.csv

tickets  160 short tickets of an office, urgent or not, asked in words (nothing, a question, the
         answers named, solved examples) and with what a prompt or a prefix of 16 learned. They are
         few, so all is done five times: each of five splits holds 32 other tickets back as a test,
         and its number is the seed. Rates and starts are the defaults of own_data.py; the number of
         steps was fixed before.
coins    Each letter of the alphabet gets "left" or "right" by the toss of a coin, 13 of each. There
         is no rule to find: a prompt must store all 26. The rate was tried on one other list.

The model is SmolLM2-135M-Instruct: in the folder that SOFTPROMPT_MODEL names, or in the project's.
Below stands also what a class needs to distil a long text into a prefix.
"""

import os
import random
import string
import sys
import warnings
from pathlib import Path
from time import process_time
from zoneinfo import available_timezones

sys.path.insert(0, str(Path(__file__).resolve().parent))
import torch
from huggingface import load_folder
from own_data import (
    RATES,
    choice_loss,
    draw_similar_rows,
    few_answers,
    ids_of,
    judge,
    read_pairs,
    rows_behind,
)
from script import SEEDS, TUTORIALS, in_columns, run_script

from train import Lab, collate, fit, hashed, new_arm, progress, say

COLUMNS = (
    "task",  # tickets or coins
    "method",  # none, question, named or shown: in words; prompt or prefix: learned
    "length",
    "examples",  # solved ones in the words, or those that it learned from
    "seed",
    "step",
    "split",  # train: asked for the same again
    "accuracy",  # in the choice between the two answers
)


def run(lab):
    """Rows with COLUMNS. The lab is that of a real model, as `real_lab` makes it."""
    return in_columns(tickets(lab) + coins(lab), COLUMNS)


def real_lab(settings=None):
    """The Lab of the real model, without sentences: its texts are tickets and coins. Where there is
    no model, say so in one line and end: what stands below in a notebook does not run."""
    folder = model_folder()
    if not os.path.exists(os.path.join(folder, "config.json")):
        say("No model here: hf download HuggingFaceTB/SmolLM2-135M-Instruct, as the text says.")
        raise SystemExit
    return Lab(*load_folder(folder, "cpu"), {})


def model_folder():
    """Where the real model lies: the environment says it, or it is in the project's folder."""
    return os.environ.get("SOFTPROMPT_MODEL") or TUTORIALS.parent / "SmolLM2-135M-Instruct"


# ------------------------------------------------------------------ tickets

TICKETS = TUTORIALS / "tickets.tsv"
QUESTION = "Is this ticket urgent?"
NAMED = "Is this ticket urgent, or can it wait? Say urgent or can wait."
EXAMPLES = (8, 32)  # solved ones in a hard prompt
ROOM = 1024  # slots that are kept free for a hard prompt
P, SIZE, STEPS = 16, 8, 40  # virtual tokens; tickets a step
LEARNED = (("prefix", 128), ("prefix", 8), ("prefix", 32), ("prompt", 128))


def tickets(lab):
    """Rows of all splits, in words and learned."""
    splits = tickets_in_splits()
    answers, rows = few_answers(splits[0][0]), []
    for seed, (train, test) in enumerate(progress(splits, len(splits), "tickets in words")):
        asked = rows_behind(lab.model, lab.tok, test, ROOM, "", answers)
        for method, n, text in hard_prompts(train, answers, seed):
            past = past_behind(lab.model, lab.tok, text)
            found = judge(lab.model, lab.tok, past, asked, answers).among
            rows.append(row_of("tickets", method, 0, n, seed, 0, "test", found))
    for method, n in LEARNED:
        for seed, (train, test) in enumerate(splits):
            found = learned(lab, method, n, seed, train, test, answers)
            rows.append(row_of("tickets", method, P, n, seed, STEPS, "test", found))
    return rows


def row_of(task, method, length, examples, seed, step, split, accuracy):
    """A row of results."""
    row = {"task": task, "method": method, "length": length, "examples": examples, "seed": seed}
    return {**row, "step": step, "split": split, "accuracy": round(accuracy, 4)}


def tickets_in_splits():
    """[(train, test)], one for each seed: every ticket is a test ticket in exactly one."""
    pairs = sorted(read_pairs(TICKETS), key=lambda pair: hashed(pair[0]))
    parts = []
    for seed in SEEDS:
        test = pairs[seed :: len(SEEDS)]
        parts.append(([pair for pair in pairs if pair not in test], test))
    return parts


def hard_prompts(train, answers, seed):
    """[(method, how many solved examples it holds, the text)]."""
    texts = [("none", 0, ""), ("question", 0, QUESTION), ("named", 0, NAMED)]
    for n in EXAMPLES:
        shown = solved(drawn_evenly(train, answers, n, seed))
        texts.append(("shown", n, f"{QUESTION}\n{shown}"))
    return texts


def learned(lab, method, n, seed, train, test, answers):
    """The accuracy on the test tickets of what learned from n of the training tickets."""
    some = train if n >= len(train) else drawn_evenly(train, answers, n, seed)
    arm = new_arm(lab, "tickets", method, "vocab", P, RATES[method], seed)
    rows = {"tickets": rows_behind(lab.model, lab.tok, some, P, "", answers)}
    loss = choice_loss(lab.tok, ids_of(lab.tok, answers))
    training = fit(lab.model, [arm], rows, STEPS, SIZE, loss, draw_similar_rows)
    for _ in progress(training, STEPS + 1, f"{method}, {n} tickets, split {seed}"):
        pass
    asked = rows_behind(lab.model, lab.tok, test, P, "", answers)
    return among(lab, arm, asked, answers)


@torch.inference_mode()
def among(lab, arm, rows, answers):
    """How often an arm's prompt chooses right among the answers."""
    return judge(lab.model, lab.tok, arm.soft.past(lab.model), rows, answers).among


# ------------------------------------------------------------------ coins

SIDES = ("left", "right")
COIN_LENGTHS, COIN_RATE, EVERY = (1, 4, 16), 0.3, 5


def coins(lab):
    """Rows of prompts that learn their list, every few steps."""
    lists, arms, rows = {}, [], []
    for seed in SEEDS:
        lists[f"coins {seed}"] = [lab.tok.example(*pair) for pair in tossed(seed)]
        for length in COIN_LENGTHS:
            arms.append(new_arm(lab, f"coins {seed}", "prompt", "vocab", length, COIN_RATE, seed))
    loss, size = choice_loss(lab.tok, ids_of(lab.tok, SIDES)), len(lists["coins 0"])
    training = fit(lab.model, arms, lists, STEPS, size, loss)
    for step in progress(training, STEPS + 1, "coins"):
        if step % EVERY == 0:
            for arm in arms:
                found = among(lab, arm, lists[arm.task], SIDES)
                length = arm.soft.length
                row = row_of("coins", "prompt", length, size, arm.seed, step, "train", found)
                rows.append(row)
    return rows


def tossed(seed):
    """[(letter, side)]: a list that nobody can know."""
    letters = string.ascii_uppercase
    sides = list(SIDES) * (len(letters) // 2)
    random.Random(seed).shuffle(sides)
    return list(zip(letters, sides))


# ------------------------------------------------------------------ texts of examples


def solved(pairs):
    """Examples as a text, one a line, as the model reads a question and its answer."""
    return "\n".join(f"{text} -> {answer}" for text, answer in pairs)


def drawn_evenly(pairs, answers, n, seed):
    """n of the pairs at random, as many of each answer, mixed."""
    gen, drawn = random.Random(seed), []
    for answer in answers:
        drawn += gen.sample([pair for pair in pairs if pair[1] == answer], n // len(answers))
    return gen.sample(drawn, n)


@torch.inference_mode()
def past_behind(model, tok, text):
    """The past that a text leaves, and None for no text."""
    return model(torch.tensor([tok.encode(text)]))[1] if text else None


# ------------------------------------------------------------------ a long text as a prefix

CONTINENTS = ("Africa", "America", "Asia", "Europe")


def places():
    """[(place, its continent)], mixed: Python's own time zones are named after places."""
    known = {}
    for zone in sorted(available_timezones()):
        continent, _, place = zone.replace("_", " ").partition("/")
        if continent in CONTINENTS:
            known[place.split("/")[-1]] = continent
    pairs = sorted(known.items())
    random.Random(0).shuffle(pairs)
    return pairs


def text_to_distil(tok):
    """(a text of 32 solved places, 128 other places, and 80 to test with as (place, continent))."""
    pairs = places()
    test, others = pairs[:80], pairs[120:]  # those between have chosen this text
    shown = drawn_evenly(others, CONTINENTS, 32, seed=2)
    unsolved = [place for place, continent in others if (place, continent) not in shown][:128]
    unsolved.sort(key=lambda place: len(tok.encode(place)))  # like lengths together
    return f"Which continent is this place in?\n{solved(shown)}", unsolved, test


@torch.no_grad()
def what_it_says(model, tok, past, texts, n=2):
    """For each text its question, the n tokens that the model guesses behind a past of one row, and
    its logits there: [(ids, ids, (n, V))]."""
    questions = [tok.example(text, "")[0] for text in texts]
    rows = list(zip(questions, model.generate(questions, n, past)))
    said = []
    for first in range(0, len(rows), 8):  # a few at once: each row has the past beside it
        part = rows[first : first + 8]
        logits = model.scored(*collate(part, "cpu"), past)  # (8 n, V)
        said += [(*row, of_row) for row, of_row in zip(part, logits.split(n))]
    return said


def next_examples(rows, seed, step, size):
    """As `train.draw_rows`, but every row once, `size` neighbours at a step in an order of the
    seed."""
    parts = range(len(rows) // size)
    first = size * random.Random(seed).sample(parts, len(parts))[step]
    return rows[first : first + size]


@torch.inference_mode()
def cost_of(model, past, rows, times=5):
    """(megabytes of a past, CPU milliseconds for each of the rows behind it, the least of a few
    times). The time is that of this process alone: others on the machine do not count."""
    idx, targets = collate(rows, "cpu")
    taken = []
    for _ in range(times):
        begun = process_time()
        model.scored(idx, targets, past)
        taken.append(process_time() - begun)
    megabytes = sum(part.nbytes for part in past.keys + past.values) / 1e6
    return megabytes, 1000 * min(taken) / len(rows)


# ------------------------------------------------------------------ PEFT


@torch.inference_mode()
def logits_of_peft(folder, idx):
    """What transformers and PEFT compute for idx (1, T) with the adapter in a folder: (1, T, V)."""
    import transformers
    from peft import PeftModel

    transformers.logging.disable_progress_bar()
    load = transformers.AutoModelForCausalLM.from_pretrained
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the two about each other
        other = PeftModel.from_pretrained(load(model_folder(), dtype=torch.float32), folder)
        return other(idx).logits[:, -idx.shape[1] :]  # (1, T, V): a prompt's slots have logits too


if __name__ == "__main__":
    run_script("real", run, open_lab=real_lab)
