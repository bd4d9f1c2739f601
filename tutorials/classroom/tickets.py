"""How well a real model sorts our 160 tickets: asked in words, and with what it learned.

    python tutorials/classroom/tickets.py     16 minutes of one core; writes measured/tickets.csv

The tickets are few, so all is done five times: each of five splits holds 32 other tickets back as a
test, and its number is the seed of its start and of its order. Hard prompts: nothing, a question,
the answers named, 8 and 32 solved examples. Trained: a prefix of 16 on 8, 32 or all 128 tickets of
a split, and a prompt of 16 on all of them. Learning rates and starts are the defaults of
own_data.py; the number of steps was fixed before. Needs the real model of class 8.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import torch
from own_data import RATES, choice_loss, draw_similar_rows, few_answers, ids_of, judge, rows_behind
from real import NAMED, QUESTION, drawn_evenly, open_model, past_behind, solved, tickets_in_splits
from shared import write_measured

from softprompt import METHODS, initial_embeddings
from train import Arm, fit, guard, progress

EXAMPLES = (8, 32)  # in a hard prompt
ROOM = 1024  # slots that are kept free for a hard prompt
P, SIZE = 16, 8  # virtual tokens; tickets a step
STEPS = 40
RUNS = (("prefix", 128), ("prefix", 8), ("prefix", 32), ("prompt", 128))


def row_of(how, examples, split, accuracy, test):
    row = {"how": how, "examples": examples, "seed": split}
    return {**row, "accuracy": round(accuracy, 4), "texts": len(test)}


def hard_prompts(train, answers, split):
    """[(its kind, how many examples it holds, the text)]."""
    texts = [("none", 0, ""), ("question", 0, QUESTION), ("named", 0, NAMED)]
    for n in EXAMPLES:
        shown = solved(drawn_evenly(train, answers, n, split))
        texts.append(("shown", n, f"{QUESTION}\n{shown}"))
    return texts


def asked_in_words(model, tok, splits, answers):
    """Rows of results for what needs no training."""
    results = []
    for split, (train, test) in enumerate(progress(splits, len(splits), "hard prompts")):
        rows = rows_behind(model, tok, test, ROOM, "", answers)
        for how, n, text in hard_prompts(train, answers, split):
            past = past_behind(model, tok, text)
            found = judge(model, tok, past, rows, answers).among
            results.append(row_of(how, n, split, found, test))
    return results


def learned(model, tok, splits, answers, method, n):
    """Rows of results of a prompt or a prefix that learned from n tickets of each split."""
    results = []
    loss = choice_loss(tok, ids_of(tok, answers))
    for split, (train, test) in enumerate(splits):
        some = train if n >= len(train) else drawn_evenly(train, answers, n, split)
        generator = torch.Generator().manual_seed(split)
        start = initial_embeddings(model, P, "vocab", generator=generator)  # (P, C)
        soft = METHODS[method].start(model, start)
        arm = Arm(soft, "tickets", RATES[method], split)
        rows = {"tickets": rows_behind(model, tok, some, P, "", answers)}
        training = fit(model, [arm], rows, STEPS, SIZE, loss, draw_similar_rows)
        for _ in progress(training, STEPS + 1, f"{method}, {n} tickets, split {split}"):
            pass
        with torch.inference_mode():
            past = soft.past(model)
        test_rows = rows_behind(model, tok, test, P, "", answers)
        found = judge(model, tok, past, test_rows, answers).among
        results.append(row_of(method, n, split, found, test))
    return results


def main():
    model, tok = open_model()
    splits = tickets_in_splits()
    answers = few_answers(splits[0][0])
    results = asked_in_words(model, tok, splits, answers)
    for method, n in RUNS:
        results += learned(model, tok, splits, answers, method, n)
    write_measured("tickets", results)


if __name__ == "__main__":
    guard(main)
