"""The jobs: what is asked of a sentence. To add a job, add an entry to JOBS.

Everything that trains takes pairs of a text and its answer. The base practised the jobs that have
`wordings`; the others it never saw.
"""

import string
from functools import partial
from typing import Callable, NamedTuple

class Sentence(NamedTuple):
    text: str
    library: str
    kind: str

class Job(NamedTuple):
    """What is asked of a sentence. To add a job, add an entry to JOBS."""

    answer: Callable[[Sentence], str]
    wordings: list[str]  # the base learned the job from these; none: it never practised the job
    unseen: list[str]  # the base never saw these; the first is where "related text" starts

    def pairs(self, sentences):
        """[(text, answer)], which is what everything trains on."""
        return [(sentence.text, self.answer(sentence)) for sentence in sentences]

def word(text):
    """A word without the signs around it."""
    return text.strip(string.punctuation) or text

JOBS = {
    "library": Job(lambda s: s.library, [
        "Which library is this sentence from?", "Name the library that this comes from.",
        "What library does this belong to?", "Say which library documents this."], [
        "From which library was this sentence taken?", "Tell me the library of this text."]),
    "kind": Job(lambda s: s.kind, [
        "Is this a class or a function?", "Class or function?",
        "Does this describe a class or a function?", "Say whether this is a function or a class."
    ], ["Decide: is it a function or is it a class?", "What is described, a class or a function?"]),
    "count": Job(lambda s: str(len(s.text.split())), [
        "How many words are there?", "Count the words.", "What is the number of words?",
        "Say how many words this sentence has."], [
        "Give the number of words in this sentence.", "How many words do you count here?"]),
    "before-last": Job(lambda s: word(s.text.split()[-2]), [], [
        "Repeat the word before the last.", "What is the word before the last word?",
        "Copy the word before the last word.", "Say the last word but one again."]),
}
# A grid: every operation on every word. The base practised each operation and each place, but never
# the pairs in HELD_OUT: of three operations one each, at three places, and none at the first word.
OPERATIONS = {
    "repeat": (lambda w: w, ["Repeat the {} word.", "What is the {} word?",
                             "Copy the {} word of this sentence.", "Say the {} word again."]),
    "first-letter": (lambda w: w[0], [
        "What is the first letter of the {} word?", "Name the first letter of the {} word.",
        "Which letter does the {} word begin with?", "Say how the {} word begins."]),
    "last-letter": (lambda w: w[-1], [
        "What is the last letter of the {} word?", "Name the last letter of the {} word.",
        "Which letter does the {} word end with?", "Say how the {} word ends."]),
    "letters": (lambda w: str(len(w)), [
        "How many letters has the {} word?", "Count the letters of the {} word.",
        "What is the length of the {} word?", "Say how long the {} word is."]),
}
PLACES = {"first": 0, "second": 1, "third": 2, "last": -1}
HELD_OUT = ("repeat-second", "first-letter-last", "letters-third")
for operation, (apply, wordings) in OPERATIONS.items():
    for place in PLACES:
        job, texts = f"{operation}-{place}", [wording.format(place) for wording in wordings]
        answer = partial(lambda apply, n, s: apply(word(s.text.split()[n])), apply, PLACES[place])
        JOBS[job] = Job(answer, *(([], texts) if job in HELD_OUT else (texts, [])))
