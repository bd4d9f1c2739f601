"""What every class begins with: where the code is, the base and the sentences, and the tables of
tutorials/experiments. Importing this file adds the tasks of the base to TASKS."""

import sys
from pathlib import Path

CLASSROOM = Path(__file__).resolve().parent
TUTORIALS = CLASSROOM.parent
ROOT = TUTORIALS.parent
EXPERIMENTS = TUTORIALS / "experiments"
sys.path[:0] = [str(ROOT), str(TUTORIALS), str(EXPERIMENTS)]

from script import table_of as table  # noqa: E402, F401  importing it adds the tasks

from train import FINAL, Lab, hashed, load_base, load_data, say, write_text  # noqa: E402

# Of the test sentences that the solved copies were made with, the first bytes of their hashes.
SOLVED_SENTENCES = CLASSROOM / "test_sentences.txt"


def open_lab(out=ROOT / "out"):
    """The frozen base, its tokenizer and the sentences of the packages that are installed here.
    Says by how much numbers may differ from the solved copies."""
    lab = Lab(*load_base(device="cpu"), load_data(out))
    say(sentences_differ(test_marks(lab)))
    return lab


def test_marks(lab):
    """A mark of each test sentence, from its text."""
    return [hashed(sentence.text)[:4].hex() for sentence in lab.data["test"][:FINAL]]


def sentences_differ(marks):
    """In words, by how much numbers may differ from the solved copies."""
    solved = set(SOLVED_SENTENCES.read_text(encoding="utf-8").split())
    others = len(set(marks) - solved)
    if not others:
        return (
            "The test sentences are those of the solved copy: an accuracy may differ by 0.02, "
            "since other processors round otherwise."
        )
    return (
        f"{others} of the {len(marks)} test sentences are not those of the solved copy, since "
        "other versions of the packages are installed here: an accuracy may differ by 0.06, "
        "which is two standard errors."
    )


def write_test_marks(lab):
    """Remember the test sentences of this run as those of the solved copies."""
    write_text(SOLVED_SENTENCES, "\n".join(test_marks(lab)) + "\n")
