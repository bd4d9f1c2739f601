"""For class 2: what each vector of ten prompts holds, and how much it is looked at.

    python tutorials/classroom/knock_out.py     about four minutes on two cores

The prompts are those of tutorials/experiments/vectors.py, ten seeds in place of five: 16 vectors,
trained on *swap-1* for 200 steps at rate 3. The table classroom/measured/knock_out.csv has a row
for each seed, vector (from 0) and letter that the first word begins with. R and C change places;
"other" are all that keep theirs; A, the commonest of these, stands in rows of its own as well, as a
control.

    accuracy    on the test sentences with this letter, while this vector is hidden
    from_word   the share of attention that this vector gets from the first word, third layer
    from_arrow  the share that it gets from the arrow, where the answer begins, last layer

Vector -1 means that none is hidden, and the attention of all 16 together.
"""

from collections import defaultdict

import shared
import torch
from shared import NONE_HIDDEN, hide, letter_of

from train import COMMON_LETTERS, first_letter, guard, progress, score, train_arms

TASK, P, RATE, STEPS = "swap-1", 16, 3, 200
SEEDS = range(10)

CONTROL = COMMON_LETTERS[2]  # the commonest letter that keeps its place
KINDS = (*COMMON_LETTERS[:2], CONTROL, "other")

# A question is a line break, the sentence and an arrow.
WORD, ARROW = 1, -1  # the slots of the first word's first token and of the arrow
WORD_LAYER, ARROW_LAYER = 2, 3  # counted from 0: where they look at one vector for one letter


def questions_of_kinds(lab):
    """{kind: [(question, answer)]} of the test sentences, as ids. A sentence that begins with the
    control letter is of two kinds."""
    rows = defaultdict(list)
    sentences = lab.data["test"][: shared.TEST]
    for sentence, row in zip(sentences, lab.rows(TASK, "test", shared.TEST)):
        rows[letter_of(sentence)].append(row)
        if first_letter(sentence) == CONTROL:
            rows[CONTROL].append(row)
    return rows


# ------------------------------------------------------------------ who looks at what


def attention_weights(model, past, question):
    """The attention of each layer while a question (a list of ids) is read behind a past of one
    row: L tensors (H, T, S), in which each query's shares of all keys sum to 1."""
    return [scores.softmax(-1) for scores in shared.attention_scores(model, question, past)]


def looks(model, past, question):
    """What share of its attention the first word gives to each virtual token, and what share the
    arrow gives, (P,) each: the means of the heads."""
    P = past.positions.shape[1]
    weights = attention_weights(model, past, question)
    from_word = weights[WORD_LAYER][:, WORD, :P].mean(0)  # (P,)
    from_arrow = weights[ARROW_LAYER][:, ARROW, :P].mean(0)  # (P,)
    return from_word, from_arrow


def mean_looks(model, past, rows):
    """The means over these rows (question, answer): (from_word, from_arrow), (P,) each."""
    both = [torch.stack(looks(model, past, question)) for question, _ in rows]  # (2, P) each
    return torch.stack(both).mean(0).unbind()


# ------------------------------------------------------------------ the table


@torch.inference_mode()
def rows_of(lab, arm):
    """The rows of the table of one seed's prompt."""
    past = arm.soft.past(lab.model)
    rows = []
    for kind, questions in questions_of_kinds(lab).items():
        from_word, from_arrow = mean_looks(lab.model, past, questions)  # (P,) each
        for vector in (NONE_HIDDEN, *range(arm.soft.length)):
            right = score(lab.model, hide(past, vector), questions).right
            row = {"seed": arm.seed, "vector": vector, "letter": kind}
            row["accuracy"] = round(right.mean().item(), 4)
            for name, shares in (("from_word", from_word), ("from_arrow", from_arrow)):
                share = shares.sum() if vector == NONE_HIDDEN else shares[vector]
                row[name] = round(share.item(), 4)
            rows.append(row)
    return rows


def main():
    lab = shared.open_lab()
    arms = shared.arms_of(lab, TASK, "vocab", P, RATE, SEEDS)
    train_arms(lab, arms, STEPS, "prompts")
    rows = []
    for arm in progress(arms, len(arms), "hiding vectors"):
        rows += rows_of(lab, arm)
    shared.write_measured("knock_out", rows)


if __name__ == "__main__":
    guard(main)
