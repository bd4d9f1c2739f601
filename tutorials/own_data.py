"""A soft prompt for texts of your own, on any base: train it, save it, let it answer.

    python tutorials/own_data.py tune --data tickets.tsv      learn from texts and their answers
    python tutorials/own_data.py answer --prompt FILE...      answer a text, or a file of texts

A file of texts and answers is .tsv, .csv or .jsonl in UTF-8, with columns `text` and `answer`. The
base is a file of this project, or a Llama in Hugging Face's format: a folder, or a name on the hub.
Where there are few different answers, training and answering is a choice between these. Learning
rates are in units of the size of what they move (`train.sizes`), losses in nats. Letters (B, P, V,
...) as at the top of model.py; A is the number of arms.
"""

import csv
import glob
import math
import os
import random
import shlex
import sys
import time
import unicodedata
from collections import defaultdict
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))
from huggingface import load_folder
from pairs import (
    Row,
    Table,
    as_answered,
    read_pairs,  # noqa: F401  for who has texts of one's own, it is here
    read_table,
    require_characters,
)
from pretrain import Checkpoint  # importing it also adds the tasks of the base to TASKS

import softprompt
from model import GPT, InputError, Past, require_writable
from softprompt import INITIALIZATIONS, PromptTuning, initial_embeddings
from train import (
    BASE,
    METHODS,
    TASKS,
    Arm,
    NotFinite,
    Tokenizer,
    answer_logits,
    commonest_answer,
    fit,
    guard,
    hashed,
    load_base,
    load_data,
    progress,
    say,
    script_parser,
    share_of,
    split_of,
    warm_up_and_fall,
    write_text,
)

# ------------------------------------------------------------------ what is learned from what

MAX_VALID = 400  # texts: with a real model on a CPU, more would take longer than the training
MAX_STOP = 128  # of these, the texts that say when to stop; the others are for the table


def read_data(data, valid=None):
    """(train, valid): what `tune` learns from, and what it validates with, [(text, answer)] each.

    `data` and `valid` are files. Without `valid`, a fifth of `data` is set apart by a hash of the
    text, so that equal texts are on one side. The pairs of `valid` are mixed, so that the first are
    a fair sample. Raises InputError where there is too little of either.
    """
    train = read_and_report(data, ["text", "answer"]).pairs
    if valid:
        held_out = read_and_report(valid, ["text", "answer"]).pairs
        say_learned_by_heart(train, held_out)
    else:
        held_out = [pair for pair in train if split_of(pair[0]) != "train"]
        train = [pair for pair in train if split_of(pair[0]) == "train"]
    if len({answer for _, answer in train}) < 2 or not held_out:
        raise InputError(
            f"{data}: {len(train)} rows to learn from and {len(held_out)} to validate with: both "
            "must be there, and more than one answer"
        )
    say_two_answers(train + held_out)
    say_alike({answer for _, answer in train + held_out})
    if len(held_out) > MAX_VALID:
        warn(f"{MAX_VALID} of {len(held_out)} texts to validate with are used, drawn by a hash")
    held_out.sort(key=lambda pair: hashed(repr(pair)))  # has nothing to do with what they are
    return train, held_out[:MAX_VALID]


def read_task(name, out):
    """As `read_data`, of a task of train.py; the folder `out` keeps its sentences."""
    sentences, task = load_data(out), TASKS[name]
    return task.pairs(sentences["train"]), task.pairs(sentences["valid"][:MAX_VALID])


def split_valid(valid):
    """(texts that say when to stop, texts for the table at the end): the latter have no part in any
    choice, so that the numbers are those of new texts."""
    n = min(MAX_STOP, math.ceil(len(valid) / 2))
    return valid[:n], valid[n:]


# ------------------------------------------------------------------ what is said of the data


def warn(message):
    """Say on stderr what is not as one would think."""
    say(message, file=sys.stderr)


def read_and_report(path, needed):
    """The Table in a file; what of the file is not used is said."""
    table = read_table(path, needed)
    if table.passed_over:
        warn(
            f"{path}: {len(table.passed_over)} lines are passed over, empty or with the names of "
            f"the columns once more; the first is {table.passed_over[0]}"
        )
    if table.others:
        missing = "" if table.has_answers else "no column is called answer; "
        warn(f"{path}: {missing}columns that are not used: {', '.join(table.others)}")
    return table


def say_learned_by_heart(train, held_out):
    """Say how many texts to validate with are among those to learn from."""
    known = {text for text, _ in train}
    both = sum(text in known for text, _ in held_out)
    if both:
        warn(f"{both} of {len(held_out)} texts to validate with are also among those to learn from")


def say_two_answers(pairs):
    """Say how many texts have more than one answer."""
    answers = defaultdict(set)
    for text, answer in pairs:
        answers[text].add(answer)
    several = [text for text, given in answers.items() if len(given) > 1]
    if several:
        first = several[0]
        warn(
            f"{len(several)} texts have more than one answer, as {first[:60]!r}: "
            f"{' and '.join(map(repr, sorted(answers[first])))}"
        )


def say_alike(answers):
    """Say which answers look alike, but are different ones to learn."""
    groups = defaultdict(list)
    for answer in sorted(answers):
        groups[as_seen(answer)].append(answer)
    alike = [group for group in groups.values() if len(group) > 1]
    if alike:
        warn(
            f"{len(alike)} answers are spelled in several ways, by case, spaces or codes, and each "
            f"is an answer of its own: {', '.join(map(ascii, alike[0]))}"
        )


def as_seen(answer):
    """An answer without what one hardly sees: case, spaces, and é as one code or as two."""
    return " ".join(unicodedata.normalize("NFKC", answer.casefold()).split())


def say_unknown(pairs, answers, purpose):
    """Say how many of the pairs have an answer that cannot be chosen."""
    unknown = [answer for _, answer in pairs if answer not in answers]
    if answers and unknown:
        warn(
            f"{len(unknown)} of {len(pairs)} texts {purpose} have an answer that training never "
            f"saw, as {unknown[0]!r}: it cannot be chosen, and they count as wrong"
        )
        say_alike({*answers, *unknown})


# ------------------------------------------------------------------ few answers

FEW = 20  # so many different answers are a choice; more are texts like any other


def few_answers(pairs, given=""):
    """The different answers, sorted, where they are at most 20, else none; or those that are
    `given`, with commas between, in quotes where they hold commas. Raises InputError where these
    lack one that occurs."""
    occur = {answer for _, answer in pairs}
    if not given:
        return sorted(occur) if len(occur) <= FEW else []
    try:
        [fields] = csv.reader([given], strict=True, skipinitialspace=True)
    except (csv.Error, ValueError) as problem:
        raise InputError(f"--answers {given}: {problem}") from problem
    answers = {field.strip() for field in fields} - {""}
    missing = sorted(occur - answers)
    if missing:
        raise InputError(
            f"--answers {given} lacks {missing[0]!r}, an answer in the data: put quotes around "
            "one that holds a comma"
        )
    return sorted(answers)


def ids_of(tok, answers):
    """The answers as the ids that `Tokenizer.example` gives them."""
    return [tok.example("", answer)[1] for answer in answers]


def allowed_tokens(answer, choices):
    """What may stand at each place of an answer (ids) where only `choices` may be answered: the
    tokens there of all choices that begin alike, and the answer's own; in order of their ids."""
    allowed = []
    for i, token in enumerate(answer):
        alike = {choice[i] for choice in choices if choice[:i] == answer[:i]}
        allowed.append(sorted(alike | {token}))
    return allowed


# ------------------------------------------------------------------ rows


def rows_behind(model, tok, pairs, length=0, hard_prompt="", answers=()):
    """Pairs as rows of ids that fit behind `length` virtual tokens and a hard prompt, whichever of
    `answers` follows: a text that is too long loses its beginning, and that is said. Raises
    InputError where no room is left for a text."""
    room = room_for_text(model, tok, pairs, length, hard_prompt, answers)
    first = len(tok.encode(hard_prompt))
    rows, cut = [], 0
    for text, answer in pairs:
        question, ids = tok.example(text, answer, hard_prompt)
        cut += len(question) > first + room
        rows.append((question[:first] + question[first:][-room:], ids))
    if cut:
        warn(
            f"{cut} of {len(rows)} texts are longer than the {room} tokens that are left for them: "
            "their beginnings are cut off"
        )
    return rows


def room_for_text(model, tok, pairs, length, hard_prompt, answers):
    """How many tokens a text may have between hard prompt and answer; InputError without any."""
    first, limit = len(tok.encode(hard_prompt)), model.config.block_size
    longest = max(map(len, ids_of(tok, {*answers, *(answer for _, answer in pairs)})))
    room = limit - length - first - longest
    if room <= 0:
        raise InputError(
            f"soft prompt and answer of {length + longest} tokens and {first} of hard prompt leave "
            f"no room for a text in block_size={limit}"
        )
    return room


def draw_similar_rows(rows, seed, step, size):
    """As `train.draw_rows`, but of similar length, so that little is spent on padding: the rows of
    eight steps are drawn together, sorted, and cut into eight."""
    gen = random.Random(f"{seed} {step // 8}")
    if len(rows) < 8 * size:
        drawn = gen.choices(rows, k=8 * size)
    else:
        drawn = gen.sample(rows, 8 * size)
    drawn.sort(key=lambda row: len(row[0]) + len(row[1]))
    part = gen.sample(range(8), 8)[step % 8]
    return drawn[part * size : (part + 1) * size]


# ------------------------------------------------------------------ the choice between answers


class ChoiceScores(NamedTuple):
    """How well answers are given, and chosen: one entry for each row of text, (B,)."""

    nats: torch.Tensor  # of the whole answer, over the vocabulary
    tokens: torch.Tensor  # of the answer, its end included
    right: torch.Tensor  # 1.0 where greedy decoding gives exactly this answer, else 0.0
    choice_nats: torch.Tensor  # of the whole answer, where only the choices may be answered
    chosen: torch.Tensor  # 1.0 where greedy decoding among the choices gives it, else 0.0


def score_choice(model, tok, past, rows, choices):
    """The ChoiceScores of rows (question, answer), among `choices` (ids); `past` as in `score`.

    Without choices there is nothing to choose: 0 nats, chosen. Of equal logits the lowest id is
    taken, as everywhere, whether it is right or not. Raises NotFinite with the text whose loss is
    not finite: not a number is never right.
    """
    B = len(rows)
    nats = torch.zeros(B, device=model.device)  # (B,), and so are these:
    tokens, wrong, choice_nats, missed = (torch.zeros_like(nats) for _ in range(4))
    for row, want, logits in answer_logits(model, past, rows):
        few, place = logits_of_choices(logits, row, want, rows, choices)  # (n, K), (n,)
        of_token = F.cross_entropy(logits, want, reduction="none")  # (n,)
        of_choice = F.cross_entropy(few, place, reduction="none")  # (n,)
        nats = nats.index_add(0, row, of_token)
        tokens = tokens.index_add(0, row, torch.ones_like(of_token))
        wrong = wrong.index_add(0, row, (logits.argmax(1) != want).float())
        choice_nats = choice_nats.index_add(0, row, of_choice)
        missed = missed.index_add(0, row, (few.argmax(1) != place).float())
    require_finite(tok, nats, rows)
    chosen = (missed == 0).float()  # (B,)
    if choices:  # what is none of them cannot be chosen
        possible = [answer in choices for _, answer in rows]
        chosen = chosen * torch.tensor(possible, device=model.device)  # (B,)
    return ChoiceScores(nats, tokens, (wrong == 0).float(), choice_nats, chosen)


def logits_of_choices(logits, row, want, rows, choices):
    """Of logits (n, V) those of the allowed tokens, (n, K) with minus infinity to fill up, and the
    place of the wanted one among them, (n,). `row` and `want` (n,) as `answer_logits` gives them:
    the tokens of an answer follow one another."""
    allowed = []
    for i in row.unique_consecutive().tolist():
        allowed += allowed_tokens(rows[i][1], choices)
    K = max(map(len, allowed))
    padded = torch.tensor([ids + [-1] * (K - len(ids)) for ids in allowed], device=want.device)
    few = logits.gather(1, padded.clamp(min=0)).masked_fill(padded < 0, -torch.inf)  # (n, K)
    place = (padded == want[:, None]).int().argmax(1)  # (n,)
    return few, place


def require_finite(tok, nats, rows):
    """Raise NotFinite with the text of the first row whose loss (B,) is not finite."""
    bad = ~nats.isfinite()  # (B,)
    if bad.any():
        i = int(bad.int().argmax())
        raise not_finite(tok, rows[i][0], nats[i].item())


def not_finite(tok, question, loss):
    """The NotFinite that names the text of a question (ids)."""
    return NotFinite(
        f"{at_text(tok, question)} the loss is {loss}: too high a learning rate, or weights of the "
        "base that are damaged or too big for half precision"
    )


def at_text(tok, question):
    """The place of an error: the end of the text in a question (ids)."""
    text = tok.decode(question).strip().removesuffix("->").strip()
    return f"at the text {text[-60:]!r}"


VOCABULARY = 0.1  # how much of the vocabulary's loss stays beside that of the choice


def mean_losses(scores, arms, choices):
    """What training makes smaller, for each arm, (A,), from the ChoiceScores of A B rows.

    That is nats a token. Where there are choices, it is nats of the choice between them: most of
    the vocabulary's loss only says which words are answers at all, and drowns what tells one answer
    from another. A tenth of it stays, so that greedy decoding gives the answer as well.
    """
    nats = scores.nats.view(arms, -1).sum(1) / scores.tokens.view(arms, -1).sum(1)  # (A,)
    if not choices:
        return nats
    return scores.choice_nats.view(arms, -1).mean(1) + VOCABULARY * nats  # (A,)


def choice_loss(tok, choices):
    """The loss of `train.fit` for the choice between `choices` (ids; none: over the vocabulary)."""

    def loss(model, past, rows):
        scores = score_choice(model, tok, past, rows, choices)
        return mean_losses(scores, len(past.positions), choices)  # (A,)

    return loss


class Judgement(NamedTuple):
    loss: float  # nats a token
    exact: float  # share that greedy decoding answers exactly
    among: float  # share right when choosing among the answers; without any, 1


@torch.inference_mode()
def judge(model, tok, past, rows, answers=()) -> Judgement:
    """How well rows (question, answer) are answered behind a past of one row (None: no prompt)."""
    scores = score_choice(model, tok, past, rows, ids_of(tok, answers))
    loss = scores.nats.sum() / scores.tokens.sum()
    return Judgement(loss.item(), share_of_ones(scores.right), share_of_ones(scores.chosen))


def share_of_ones(right):
    """The mean of ones and zeros (B,), exactly: in float32, 0.6 would be more than 0.6."""
    return right.sum().item() / len(right)


def choose(model, tok, past, question, answers):
    """The one of `answers` that `judge` takes as chosen, behind a past of one row."""
    [answer] = choose_each(model, tok, past, [question], answers)
    return answer


@torch.inference_mode()
def choose_each(model, tok, past, questions, answers):
    """The one of `answers` for each question (ids), behind a past of one row: token by token, the
    likeliest of those that lead to an answer. The model is only asked where there are several."""
    choices = ids_of(tok, answers)
    said = [forced([], choices) for _ in questions]
    while True:
        waiting = [i for i, ids in enumerate(said) if ids not in choices]
        if not waiting:
            return [answers[choices.index(ids)] for ids in said]
        any_token = [tok.end]  # what counts are the logits at its place
        rows = [(questions[i] + said[i], any_token) for i in waiting]
        for row, _, logits in answer_logits(model, past, rows):
            for place, scores in zip(row.tolist(), logits):
                i = waiting[place]
                if not scores.isfinite().all():
                    raise not_finite(tok, questions[i], math.nan)
                ways = next_tokens(said[i], choices)
                best = ways[int(scores[ways].argmax())]
                said[i] = forced([*said[i], best], choices)


def next_tokens(said, choices):
    """The tokens that lead from what is said to one of the choices, in order of their ids."""
    n = len(said)
    return sorted({choice[n] for choice in choices if choice[:n] == said})


def forced(said, choices):
    """What is said so far, and what must follow as long as there is only one way."""
    while said not in choices and len(next_tokens(said, choices)) == 1:
        said = said + next_tokens(said, choices)
    return said


# ------------------------------------------------------------------ what a prompt depends on


def reading_of(model, tok):
    """What a soft prompt depends on beside the weights, {what: value}: which ids a text becomes,
    which end an answer, and the form of an example."""
    pieces = [piece_of(tok, i) for i in range(model.config.vocab_size)]
    return {
        "tokenizer": hashed(repr((pieces, tok.encode("\n".join(pieces))))).hex(),
        "end": ends_of(model, tok),
        "form": form_of_example(),
    }


def piece_of(tok, token):
    """The text of an id, "" where the table has more rows than the tokenizer has tokens."""
    try:
        return tok.decode([token])
    except KeyError:
        return ""


def ends_of(model, tok):
    """The ids that end an answer; the first stands behind those to learn from."""
    return model.facts.get("end", [tok.end])


def form_of_example():
    """An example as `Tokenizer.example` spells it, with the names of text and answer in it."""
    spelled = Tokenizer(encode=lambda text: [text], decode="".join, end="")
    question, answer = spelled.example("TEXT", "ANSWER")
    return "".join(question + answer)


def say_other_reading(path, soft, model, tok):
    """Say what of `reading_of` is not as it was when the soft prompt in this file was trained."""
    ours = reading_of(model, tok)
    theirs = soft.facts.get("reading", ours)  # old files do not say
    for name, value in ours.items():
        if theirs.get(name) != value:
            warn(
                f"{path} was trained with {name} {theirs.get(name)!r:.30}, and now it is "
                f"{value!r:.30}: its answers may be others. Take the base as it was, or train anew"
            )


# ------------------------------------------------------------------ training

RATES = {"prompt": 0.1, "prefix": 0.01}  # learning rates; a prefix acts in every layer at once
LENGTH = 16  # virtual tokens, where nothing else is asked for
SIZE = 16  # texts a step
EVERY = 20  # steps between validations
PATIENCE = 2  # validations without gain, after which the learning rate falls
FALLS = 2  # of the learning rate: at the second, training ends


class Lesson(NamedTuple):
    """What is learned, by which base, and how it is judged."""

    name: str
    model: GPT
    tok: Tokenizer
    answers: list  # to choose among; none: any text may be an answer
    train: list  # [(text, answer)] to learn from
    stop: list  # to choose when to stop
    table: list  # for the numbers at the end

    @property
    def choices(self):
        """The answers as ids."""
        return ids_of(self.tok, self.answers)

    def rows(self, length):
        """(train, stop) as rows of ids behind `length` virtual tokens."""
        pairs = self.train + self.stop + self.table  # with room for the answers of all
        rows = rows_behind(self.model, self.tok, pairs, length, "", self.answers)
        n = len(self.train)
        return rows[:n], rows[n : n + len(self.stop)]


@dataclass
class EarlyStop:
    """Lets the learning rate fall to a third after PATIENCE validations without gain, and training
    end at the second fall."""

    best: float = math.inf  # loss
    without_gain: int = 0  # validations in a row
    falls: int = 0

    def better(self, loss):
        """Take note of a validation loss: is it the best so far?"""
        if loss < self.best:
            self.best, self.without_gain = loss, 0
            return True
        self.without_gain += 1
        if self.without_gain == PATIENCE:
            self.without_gain = 0
            self.falls += 1
        return False

    @property
    def over(self):
        return self.falls == FALLS

    def schedule(self, step, steps):
        """The share of the learning rate in a step, for `train.fit`."""
        return warm_up_and_fall(step, steps) / 3**self.falls


def learn(lesson, arm, rows, steps, path):
    """Train the arm's soft prompt on `rows`, (to learn from, to stop by), and return the best that
    it was by validation loss.

    That is saved to `path` each time it gets better: stopped at any moment, training leaves a valid
    prompt. No other prompt is lost, as the file is new. Raises NotFinite with the text whose loss
    is not a number.
    """
    train_rows, stop_rows = rows
    stopping, best = EarlyStop(), None
    training = fit(
        lesson.model,
        [arm],
        {arm.task: train_rows},
        steps,
        SIZE,
        loss=choice_loss(lesson.tok, lesson.choices),
        draw=draw_similar_rows,
        schedule=stopping.schedule,
    )
    try:
        for step in progress(training, steps + 1, "training"):
            if step % EVERY and step < steps:
                continue
            loss, accuracy = validate(lesson, arm.soft, stop_rows)
            say_validation(lesson, step, loss, accuracy)
            if stopping.better(loss):
                best = deepcopy(arm.soft)
                best.facts |= {"step": step, "loss": loss, "accuracy": accuracy}
                softprompt.save(best, path, lesson.model)
            if stopping.over:
                break
    except (KeyboardInterrupt, NotFinite):
        if best is not None:
            warn(f"{path} has the best prompt so far: --init {quoted(path)} goes on from there")
        raise
    return best


@torch.inference_mode()
def validate(lesson, soft, rows):
    """(loss as in training, share right) of a soft prompt on rows of texts."""
    past = soft.past(lesson.model)
    scores = score_choice(lesson.model, lesson.tok, past, rows, lesson.choices)
    right = scores.chosen if lesson.answers else scores.right
    return mean_losses(scores, 1, lesson.choices).item(), share_of_ones(right)


def say_validation(lesson, step, loss, accuracy):
    """Print a validation, beside what always giving the commonest answer would have right."""
    always = commonest_answer(lesson.train)
    say(
        f"step {step:4d}   validation: loss {loss:.3f}, {accuracy:.3f} right "
        f"(always {always!r}: {share_of(always, lesson.stop):.3f})"
    )


def starting_prompt(model, tok, settings, length):
    """The soft prompt of this length at one of the INITIALIZATIONS."""
    ids = tok.encode(settings.init_text)
    generator = torch.Generator().manual_seed(settings.seed)
    embeddings = initial_embeddings(model, length, settings.init, ids, generator)  # (P, C)
    return METHODS[settings.method].start(model, embeddings)


def saved_prompt(model, tok, settings):
    """The saved soft prompt that --init names; InputError where other options ask for another."""
    path = settings.init
    if not Path(path).is_file():
        raise InputError(f"--init {path}: no such file, and none of {', '.join(INITIALIZATIONS)}")
    soft = softprompt.load(path, model)
    if soft.kind != settings.method:
        raise InputError(f"{path} is a {soft.kind}: give --method {soft.kind}")
    if settings.length not in (None, soft.length):
        raise InputError(
            f"--length {settings.length}: {path} has {soft.length} virtual tokens, and keeps them"
        )
    say_other_reading(path, soft, model, tok)
    return soft


# ------------------------------------------------------------------ the command `tune`


def tune(settings):
    """Train one soft prompt on texts and answers; what needs no training stands beside it."""
    check(settings)
    name = Path(settings.data).stem if settings.data else settings.task
    path = Path(settings.save or Path(settings.out) / f"{name}-{settings.method}.pt")
    require_place(path, [settings.data, settings.valid, settings.base])
    lesson = read_lesson(settings, name)
    announce(lesson)

    if settings.init not in INITIALIZATIONS:
        soft = saved_prompt(lesson.model, lesson.tok, settings)
    else:
        length = settings.length or LENGTH
        soft = starting_prompt(lesson.model, lesson.tok, settings, length)
    rows = lesson.rows(soft.length)
    room_for_text(lesson.model, lesson.tok, lesson.train, 0, settings.init_text, lesson.answers)
    say_cut_start(lesson.tok, settings, soft.length)
    say_unknown(lesson.stop + lesson.table, lesson.answers, "to validate with")
    soft.facts = facts_of(lesson, settings)
    arm = Arm(soft, name, learning_rate(settings), settings.seed)
    own = new_file(path)
    if own != path:
        stays = "is replaced when this training is done" if settings.save else "stays as it is"
        warn(f"{path} {stays}: the best prompt so far is in {own}")
    best = learn(lesson, arm, rows, settings.steps, own)
    if settings.save and own != path:
        softprompt.save(best, path, lesson.model)
        own.unlink()
        own = path

    show(lesson, best, settings.init_text)
    say_size(lesson.model, best, own)
    say_next(settings, own)


def check(settings):
    """Raise InputError for options of `tune` that are out of range, or do not go together."""
    require_range("--steps", settings.steps, 1, 10**6)
    require_range("--seed", settings.seed, 0, 2**63 - 1)
    if settings.lr is not None and not 0 < settings.lr < math.inf:
        raise InputError(f"--lr {settings.lr}: give a number above 0")
    if settings.length is not None:
        require_range("--length", settings.length, 1, 10**6)
    if bool(settings.task) == bool(settings.data) or settings.valid and not settings.data:
        raise InputError("give --data FILE and perhaps --valid FILE, or --task NAME")
    require_characters(settings.init_text, "--init-text")
    if settings.init == "text" and not settings.init_text.strip():
        raise InputError('--init text starts from a text: give it with --init-text "..."')


def require_range(option, value, low, high):
    """Raise InputError for a number outside of its range."""
    if not low <= value <= high:
        raise InputError(f"{option} {value}: give a number from {low} to {high}")


def require_place(path, inputs):
    """Raise InputError where a result would replace one of the inputs, and OSError where it cannot
    be written."""
    for name in inputs:
        if name and Path(path).exists() and Path(name).exists() and os.path.samefile(path, name):
            raise InputError(f"--save {path} would replace the file that is read: name another")
    require_writable(path)


def new_file(path):
    """The first of PATH.pt, PATH-2.pt, PATH-3.pt and so on that is not there. A run saves to a file
    of its own, so that what was trained before is lost neither now nor if the run is stopped."""
    candidate, number = path, 1
    while os.path.lexists(candidate):
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return candidate


def learning_rate(settings):
    return settings.lr or RATES[settings.method]


def read_lesson(settings, name):
    """The Lesson of --data and --valid, or of --task, with the base of --base."""
    if settings.data:
        train, valid = read_data(settings.data, settings.valid)
    else:
        train, valid = read_task(settings.task, settings.out)
    answers = few_answers(train, settings.answers)
    model, tok = load_any_base(settings.base, settings.device)
    return Lesson(name, model, tok, answers, train, *split_valid(valid))


def load_any_base(name, device):
    """(frozen base, tokenizer): of a file of ours, or of a folder or a name on the hub."""
    if is_own_file(name):
        return load_base(name, device)
    return load_folder(name, device)


def is_own_file(name):
    return str(name).lower().endswith(".pt") and not Path(name).is_dir()


def announce(lesson):
    """Say what is learned from how many texts."""
    stop, table = len(lesson.stop), len(lesson.table)
    text, answer = lesson.train[0]
    say(
        f"{lesson.name}: {len(lesson.train)} texts to learn from, {stop + table} to validate "
        f"({stop} to choose when to stop, {table} for the table at the end); the first: "
        f"{text!r} -> {answer!r}"
    )
    if not lesson.answers:
        different = len({answer for _, answer in lesson.train})
        say(f"{different} different answers, more than {FEW}: they are written, and not chosen")


def say_cut_start(tok, settings, length):
    """Say where the text to start from is longer than the soft prompt."""
    n = len(tok.encode(settings.init_text))
    if settings.init == "text" and n > length:
        warn(f"--init-text has {n} tokens: the start is cut to the first {length}, see --length")


def facts_of(lesson, settings):
    """What a saved prompt says of itself."""
    rows = ids_of(lesson.tok, {answer for _, answer in lesson.train})
    return {
        "task": lesson.name,
        "init": settings.init,
        "init_text": settings.init_text,
        "rate": learning_rate(settings),
        "answers": lesson.answers,
        "commonest": commonest_answer(lesson.train),
        "longest": max(map(len, rows)),  # answer, in tokens
        "reading": reading_of(lesson.model, lesson.tok),
    }


def show(lesson, soft, hard_prompt):
    """Print how the soft prompt does on texts that had no part in any choice."""
    if not lesson.table:
        warn("there is one text to validate with, and none for a table: give more")
        return
    candidates = [Candidate("no prompt", None)]
    if hard_prompt.strip():
        candidates.append(Candidate(repr(hard_prompt), None, hard_prompt))
    with torch.inference_mode():
        past = soft.past(lesson.model)
    candidates.append(Candidate(f"{soft.kind} of {soft.length}", past))
    commonest = commonest_answer(lesson.train)
    right = compare(lesson.model, lesson.tok, lesson.table, commonest, lesson.answers, candidates)
    if right <= share_of(commonest, lesson.table):
        say(
            f"It is no better than always {commonest!r}: nothing was learned. More texts or a "
            "bigger --base may help"
        )


def say_size(model, soft, path):
    say(
        f"{path}: {soft.length} virtual tokens, {os.path.getsize(path) / 1000:.1f} kB, "
        f"{100 * softprompt.trainable_fraction(soft, model):.3f} % of the base's numbers"
    )


def say_next(settings, path):
    """Say what to do with the trained prompt."""
    base = "" if settings.base == BASE else f" --base {quoted(settings.base)}"
    say(
        f"Next: python tutorials/own_data.py answer{base} --prompt {quoted(path)} "
        '--text "..." (or --data FILE)'
    )
    if not is_own_file(settings.base):
        say(
            "For PEFT, to_peft in tutorials/huggingface.py writes it as an adapter; give it texts "
            f"in exactly this form, without a token before it: {form_of_example()!r}"
        )


def quoted(path):
    """A path as it is pasted into a shell, also where it looks like an option."""
    path = f"./{path}" if str(path).startswith("-") else str(path)
    return shlex.quote(path)


class Candidate(NamedTuple):
    """Something that answers."""

    name: str
    past: Past | None  # of one row; None: no soft prompt
    hard_prompt: str = ""


def compare(model, tok, pairs, commonest, answers, candidates):
    """Print how each Candidate does on these pairs, below always giving the `commonest` answer;
    return the share that the last has right."""
    share = f"{share_of(commonest, pairs):.3f}"
    table = [
        (f"{len(pairs)} texts", "nats a token", "exact", f"among {len(answers)}"),
        (f"always {commonest!r}", "-", share, share),
    ]
    for name, past, hard_prompt in progress(candidates, len(candidates), "testing"):
        length = 0 if past is None else int(past.length.max())
        rows = rows_behind(model, tok, pairs, length, hard_prompt, answers)
        loss, exact, among = judge(model, tok, past, rows, answers)
        table.append((name, f"{loss:.3f}", f"{exact:.3f}", f"{among:.3f}"))
        right = among if answers else exact
    width = max(len(line[0]) for line in table)
    for name, loss, exact, among in table:
        last = f"{among:>11s}" if answers else ""
        say(f"{name:{width}s}{loss:>14s}{exact:>8s}{last}")
    return right


# ------------------------------------------------------------------ the command `answer`

NEW_TOKENS = 16  # of an answer that is no choice, at least
AT_ONCE = 32  # texts that are answered together
KEEP_EVERY = 10  # seconds between two looks after what is answered


class Reply(NamedTuple):
    """An answer, and whether it came to its end."""

    text: str
    whole: bool


def answer(settings):
    """Answer a text without and with each soft prompt, or label a file of texts with one; where the
    file gives answers, say how many are right."""
    if bool(settings.text.strip()) == bool(settings.data):
        raise InputError('answer needs --text "..." or --data FILE')
    if settings.save and not settings.data:
        raise InputError("--save is for the answers to --data FILE")
    require_characters(settings.text, "--text")
    paths = expanded(settings.prompt)
    if settings.data:
        answer_file(settings, paths)
    else:
        model, tok, softs = load_prompts(settings, paths)
        answer_text(model, tok, paths, softs, settings.text.strip())


def answer_file(settings, paths):
    """Label the texts of --data with one soft prompt, judge all where the file gives answers."""
    if settings.save:
        require_place(settings.save, [settings.data, settings.base, *paths])
    table = read_and_report(settings.data, ["text"])
    judged = [pair for pair in table.pairs if pair[1]]
    if len(paths) > 1 and (settings.save or not judged):
        reason = "" if judged else ", which gives no answers to compare with"
        raise InputError(
            f"{len(paths)} prompts: give the one that is to label {settings.data}{reason}"
        )
    if settings.save:
        as_answered(table, ["" for _ in table.rows], settings.save)  # fails now, not at the end
        if Path(settings.save).exists():
            warn(f"{settings.save} is replaced when all texts are answered")

    model, tok, softs = load_prompts(settings, paths)
    if len(softs) == 1:
        label(model, tok, softs[0], table.pairs, settings.save, table)
    if judged:
        compare_prompts(model, tok, paths, softs, judged)


def load_prompts(settings, paths):
    """(base, tokenizer, soft prompts) of the command line."""
    model, tok = load_any_base(settings.base, settings.device)
    softs = [softprompt.load(path, model) for path in paths]
    for path, soft in zip(paths, softs):
        say_other_reading(path, soft, model, tok)
    return model, tok, softs


def expanded(names):
    """The files of these names, with `*` expanded where the console leaves it as it is."""
    files = []
    for name in names:
        found = [name] if Path(name).exists() else sorted(glob.glob(name))
        if not found:
            raise InputError(f"--prompt {name}: there is no such file")
        files += found
    return files


def answer_text(model, tok, names, softs, text):
    """Print what the base answers to a text without a prompt and with each."""
    names = ["without a prompt", *names]
    nothing = PromptTuning(torch.empty(0, model.config.n_embd, device=model.device))
    width = max(map(len, names))
    for name, soft in zip(names, [nothing, *softs]):
        [reply] = reply_each(model, tok, soft, [text])
        more = "" if reply.whole else " ..."
        print(f"{name:{width}s}  {soft.kind} of {soft.length:3d}  {in_a_line(reply.text)}{more}")


def in_a_line(text):
    """A text as the console shows it."""
    return " ".join(text.split())


def label(model, tok, soft, pairs, path, table=None):
    """Write each text and its answer to a file, beside all else that the `table` of the texts has;
    without a path print them, a line each."""
    texts = [text for text, _ in pairs]
    if path:
        table = table or Table(["text"], [Row(text, "", [text]) for text in texts], [])
        replies = write_labels(model, tok, soft, texts, path, table)
        say(f"{path}: {len(replies)} texts and their answers")
    else:
        replies = []
        for text, reply in zip(texts, replies_to(model, tok, soft, texts)):
            say(f"{in_a_line(text)}\t{in_a_line(reply.text)}")
            replies.append(reply)
    cut = sum(not reply.whole for reply in replies)
    if cut:
        warn(f"{cut} of {len(replies)} answers came to no end, and are cut")


def write_labels(model, tok, soft, texts, path, table):
    """Write the table with the Reply to each text, and return these. Stopped at any moment, the
    answers that there are stay in a file beside it, and the same command goes on from there."""
    numbers = [tensor.tolist() for tensor in soft.saved_tensors().values()]
    plan = (numbers, soft.facts, model.fingerprint(), reading_of(model, tok), texts)
    kept = Checkpoint(Path(path).with_suffix(".unfinished"), hashed(repr(plan)).hex())
    replies = [Reply(*reply) for reply in kept.load().get("replies", [])]
    saved = time.time()
    try:
        for reply in replies_to(model, tok, soft, texts, len(replies)):
            replies.append(reply)
            if time.time() - saved > KEEP_EVERY:
                kept.save(replies=[tuple(reply) for reply in replies])
                saved = time.time()
        write_text(path, as_answered(table, said_in(replies, path), path))
    except BaseException:  # by hand, by a text that cannot be answered, by a disk that is full
        if replies:
            kept.save(replies=[tuple(reply) for reply in replies])
            warn(
                f"{path} is not written yet: {kept.path} has {len(replies)} of {len(texts)} "
                "answers, and the same command goes on from there"
            )
        raise
    kept.remove()
    return replies


def said_in(replies, path):
    """The answers as this file holds them: in a .tsv a line has no lines in it."""
    said = [reply.text for reply in replies]
    if Path(path).suffix.lower() != ".tsv":
        return said
    in_lines = [in_a_line(text) for text in said]
    changed = sum(text != line for text, line in zip(said, in_lines))
    if changed:
        warn(f"{path}: {changed} answers lose their lines and spaces, a .jsonl keeps them")
    return in_lines


def reply_each(model, tok, soft, texts):
    """The Reply to each text."""
    return list(replies_to(model, tok, soft, texts))


@torch.inference_mode()
def replies_to(model, tok, soft, texts, done=0):
    """Yield the Reply to each text behind the first `done`: a choice where the soft prompt knows
    its answers, else any text."""
    answers = soft.facts.get("answers", [])
    new = 0 if answers else max(NEW_TOKENS, soft.facts.get("longest", 0))
    rows = rows_behind(model, tok, [(text, "") for text in texts], soft.length + new, "", answers)
    questions, past = [question for question, _ in rows[done:]], soft.past(model)
    parts = [questions[i : i + AT_ONCE] for i in range(0, len(questions), AT_ONCE)]
    for part in progress(parts, len(parts), "answering") if len(parts) > 1 else parts:
        if answers:
            yield from [Reply(said, True) for said in choose_each(model, tok, past, part, answers)]
            continue
        for ids in generate_each(model, tok, past, part, new):
            yield Reply(tok.decode(ids).strip(), len(ids) < new)


def generate_each(model, tok, past, questions, new):
    """At most `new` ids behind each question; InputError names the text that cannot be answered."""
    ends = model.facts.get("end", [tok.end])
    try:
        return model.generate(questions, new, past, stop=ends)
    except InputError as problem:
        if len(questions) == 1:
            raise InputError(f"{at_text(tok, questions[0])}: {problem}") from problem
    # It names a row, not a text. One after another, it is the text that fails.
    return [generate_each(model, tok, past, [question], new)[0] for question in questions]


def compare_prompts(model, tok, names, softs, pairs):
    """Print how the base does on these pairs without a prompt, and with each."""
    # The answers that the prompts were trained on, where they know; none where these were many.
    known = [soft.facts["answers"] for soft in softs if "answers" in soft.facts]
    answers = sorted(set().union(*known)) if known else few_answers(pairs)
    say_unknown(pairs, answers, "of the file")
    often = [soft.facts["commonest"] for soft in softs if "commonest" in soft.facts]
    commonest = often[0] if often else commonest_answer(pairs)
    candidates = [Candidate("without a prompt", None)]
    for name, soft in zip(names, softs):
        with torch.inference_mode():
            candidates.append(Candidate(name, soft.past(model)))
    compare(model, tok, pairs, commonest, answers, candidates)


# ------------------------------------------------------------------ the command line


def parse(arguments):
    """The settings of a command; `run` is the function that does it."""
    parser = script_parser("own_data.py", __doc__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_tune(commands)
    add_answer(commands)
    return parser.parse_args(arguments)


def add_base(add):
    """The options of both commands."""
    add("--base", default=BASE, help="a .pt file, a folder, or a name on the hub (base.pt)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, mps or auto (auto)")


def add_tune(commands):
    text = "train one soft prompt and save it"
    parser = commands.add_parser("tune", help=text, description=text, allow_abbrev=False)
    parser.set_defaults(run=tune)
    add = parser.add_argument
    add_base(add)
    add("--data", help="texts and answers: .tsv, .csv or .jsonl")
    add("--valid", help="more of them, to validate with; without, a fifth of --data")
    add("--task", choices=TASKS, help="a task of train.py, in place of --data")
    add("--answers", default="", help="allowed answers, with commas between; else all in --data")
    add("--method", default="prompt", choices=METHODS, help="what to train (prompt)")
    add("--length", type=int, help=f"virtual tokens ({LENGTH})")
    add("--init", default="vocab", help="start: vocab, text, matched, normal or a file (vocab)")
    add("--init-text", default="", help="the text to start from; also judged as a hard prompt")
    add("--steps", type=int, default=300, help="training steps of 16 texts, at most (300)")
    add("--lr", type=float, help="learning rate, in units of the size of what it moves")
    add("--seed", type=int, default=0, help="which random numbers and examples (0)")
    add("--out", default="out", help="folder for the trained prompt (out)")
    add("--save", help="file of the trained prompt (OUT/NAME-METHOD.pt)")


def add_answer(commands):
    text = "answer a text, or label a file of texts"
    parser = commands.add_parser("answer", help=text, description=text, allow_abbrev=False)
    parser.set_defaults(run=answer)
    add = parser.add_argument
    add_base(add)
    add("--prompt", nargs="+", required=True, help="files of trained prompts")
    add("--text", default="", help="a text to answer")
    add("--data", help="a file of texts, with or without answers: .txt, .tsv, .csv or .jsonl")
    add("--save", help="file for the texts of --data and their answers; else the screen")


def main(arguments=None):
    settings = parse(arguments)
    settings.run(settings)


if __name__ == "__main__":
    guard(main)
