"""What class 8 and its scripts share: the real model and where it lies, and texts of solved
examples."""

import os
import random
import sys
import warnings
from pathlib import Path
from time import process_time
from zoneinfo import available_timezones

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from huggingface import load_folder
from own_data import judge, read_pairs, rows_behind
from shared import ROOT

from train import collate, hashed, say

TICKETS = ROOT / "tutorials" / "tickets.tsv"
QUESTION = "Is this ticket urgent?"
NAMED = "Is this ticket urgent, or can it wait? Say urgent or can wait."

# ------------------------------------------------------------------ the model


def model_folder():
    """Where the real model lies: the environment says it, or it is in the project's folder."""
    return os.environ.get("SOFTPROMPT_MODEL") or ROOT / "SmolLM2-135M-Instruct"


def open_model():
    """The real model, frozen, and its tokenizer. Where there is none, say so in one line and end:
    what stands below in a notebook does not run."""
    folder = model_folder()
    if not os.path.exists(os.path.join(folder, "config.json")):
        say("No model here: hf download HuggingFaceTB/SmolLM2-135M-Instruct, as the text says.")
        raise SystemExit
    return load_folder(folder, "cpu")


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


def best_text(model, tok, texts, pairs, answers):
    """The hard prompt that is best on these pairs (text, answer)."""
    rows = rows_behind(model, tok, pairs, max(len(tok.encode(text)) for text in texts))

    def accuracy(text):
        return judge(model, tok, past_behind(model, tok, text), rows, answers).among

    return max(texts, key=accuracy)


# ------------------------------------------------------------------ five splits

SPLITS = 5


def tickets_in_splits():
    """[(train, test)], five of them: every ticket is a test ticket in exactly one."""
    pairs = sorted(read_pairs(TICKETS), key=lambda pair: hashed(pair[0]))
    parts = []
    for split in range(SPLITS):
        test = pairs[split::SPLITS]
        parts.append(([pair for pair in pairs if pair not in test], test))
    return parts


# ------------------------------------------------------------------ places

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


# ------------------------------------------------------------------ tables as lists of runs


def runs_by(results, *columns):
    """{the values in these columns: [the accuracy of each run]} of a table."""
    runs = {}
    for row in results:
        runs.setdefault(tuple(row[column] for column in columns), []).append(row["accuracy"])
    return runs


# ------------------------------------------------------------------ distillation


def next_examples(rows, seed, step, size):
    """As `train.draw_rows`, but every row once, `size` neighbours at a step in an order of the
    seed."""
    parts = range(len(rows) // size)
    first = size * random.Random(seed).sample(parts, len(parts))[step]
    return rows[first : first + size]


# ------------------------------------------------------------------ what it costs


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
