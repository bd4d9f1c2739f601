"""Does a prompt do what it reads as? One minute.

    python tutorials/experiments/reading.py      reading.csv

A prompt starts at the embeddings of some words, and learns another task in small steps. Its nearest
tokens still read as the words, or nearly so. Khashabi et al. 2021 (arXiv 2112.08348) found it on
large models. Three ways are compared: the trained vectors, the tokens that they read as, and the
words at which they started.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from script import run_script

from train import FINAL, arm_of_tokens, constant, measure, nearest_text, train_arms

TASK, RATE, STEPS, SEEDS = "first-letter-last", 1 / 64, 200, range(3)
WORDS = {  # what a prompt starts at: the task that these words ask for
    "What is the last letter of the second word?": "last-letter-second",
    "Which library is this sentence from?": "library",
    "Count the words.": "count",
    "The night train to the coast was late again,": TASK,  # they ask for nothing
}


def run(lab):
    """Rows: words (at the start), seed, reads (the nearest tokens afterwards), task (that is
    measured), by (one of the ways in `compare`: "vectors", "tokens", "tokens, own task", "words,
    own task"), and what `measure` says."""
    arms = []
    for words in WORDS:
        for seed in SEEDS:
            arm = arm_of_tokens(lab, TASK, lab.tok.encode(words), RATE, seed)
            arm.columns = {"words": words}
            arms.append(arm)
    train_arms(lab, arms, STEPS, "reading", constant)
    rows = []
    for arm in arms:
        rows += compare(lab, arm)
    return rows


def compare(lab, arm):
    """The vectors of an arm on the task that they learned; the tokens that they read as on this
    task and on that of the words; and the words themselves on their own task."""
    words = arm.columns["words"]
    ids, own = nearest_text(lab, arm.soft), WORDS[words]
    ways = {
        "vectors": arm,
        "tokens": arm_of_tokens(lab, TASK, ids),
        "tokens, own task": arm_of_tokens(lab, own, ids),
        "words, own task": arm_of_tokens(lab, own, lab.tok.encode(words)),
    }
    rows = []
    for by, way in ways.items():
        way.seed = arm.seed
        way.columns = {"words": words, "reads": lab.tok.decode(ids), "by": by}
        rows += measure(lab, [way], STEPS, "test", FINAL)
    return rows


if __name__ == "__main__":
    run_script("reading", run)
