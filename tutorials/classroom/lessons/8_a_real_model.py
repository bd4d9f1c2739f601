# %% [markdown]
r"""
# A real model

A language model that somebody else trained gets a soft prompt in the same few lines.

After this class you can

1. train a soft prompt on a file of your own, and say how many examples that takes;
2. *distil* a long text into a short prefix;
3. hand a soft prompt to PEFT, the library that most people use.

Needs: classes 1 and 4, and a model of 270 MB. Fetch it once, in the project's folder:

    pip install safetensors tokenizers transformers peft tzdata
    hf download HuggingFaceTB/SmolLM2-135M-Instruct --local-dir SmolLM2-135M-Instruct

If it lies elsewhere, set SOFTPROMPT_MODEL to its folder. Without a model the first cell says so,
and nothing below it runs.

## 1. A model, and texts of your own

A file with a text and its answer in each line is enough. Ours has 160 short tickets of an office,
80 of them urgent. `read_data` sets a fifth apart for the test. **Before you run it:** how many
examples would you need to sort them?
"""

# %%
import sys
sys.path.insert(0, "classroom")
import torch
from shared import measured
import drawings
import real_length
import tickets
from checks import exercise
from real import NAMED, QUESTION, TICKETS, best_text, cost_of, drawn_evenly, logits_of_peft
from real import next_examples, open_model, past_behind, places, runs_by, solved
from own_data import choice_loss, draw_similar_rows, few_answers, ids_of, judge, read_data
from own_data import rows_behind
from softprompt import PrefixTuning, PromptTuning, initial_embeddings
from train import Arm, collate, commonest_answer, fit, share_of
model, tok = open_model()  # frozen; without a model, nothing below runs
numbers = sum(weight.numel() for weight in model.parameters())
print(f"{numbers:,} numbers, a vector has {model.config.n_embd}")
print("other processors round otherwise: an accuracy may differ from the solved copy's by 0.06")

# %%
train, test = read_data(TICKETS)  # [(text, answer)] each
answers = few_answers(train)
print(len(train), "tickets to learn from,", len(test), "to test with; answers:", answers)
for text, answer in train[:5]:
    print(f"{answer:8s} {text}")

# %% [markdown]
r"""
## 2. As far as words go

First we only ask. A *hard prompt* is English in front of the text: a question, or a question with
solved examples (*learning in context*, Brown et al. 2020).

This model was never told that an answer ends after a word. So the test is which answer has the
higher probability. `judge` decides token by token, and our two answers part at their first.

**Exercise 1. The likeliest answer.** The probability of an answer is the product of those of its
tokens, each behind the tokens before it. Which answer has the highest? Do not divide by the length.

<details><summary>Hint</summary>

Run the question and one answer through the model together. `logits[0, len(question) - 1 : -1]` are
the positions that say the answer's tokens. Add up the logarithms of the probabilities.

</details>

**Before you run it:** put these in order: nothing, a question, the answers named, 8 solved tickets,
32 solved tickets.
"""

# %%
@exercise
def likeliest(model, past, question, answers):
    """The index of the likeliest of `answers` (lists of ids) behind `question` (a list of ids).
    `past` (one row, or None) comes before both."""
    raise NotImplementedError

# %%
rows = rows_behind(model, tok, test, 1024)  # with room for 1024 slots before them
hard = {"nothing": "", QUESTION: QUESTION, NAMED: NAMED}
for n in (8, 32):
    hard[f"{n} solved tickets"] = f"{QUESTION}\n{solved(drawn_evenly(train, answers, n, 0))}"
for name, text in hard.items():
    found = judge(model, tok, past_behind(model, tok, text), rows, answers)
    print(f"accuracy {found.among:.2f}, {len(tok.encode(text)):3d} tokens: {name}")
ids, few, past = ids_of(tok, answers), rows[:8], past_behind(model, tok, NAMED)
right = {"judge": judge(model, tok, past, few, answers).among}
for name, choices in (("first tokens", [answer[:1] for answer in ids]), ("whole answers", ids)):
    with torch.inference_mode():
        chosen = [likeliest(model, past, text, choices) for text, _ in few]
    ours = [ids[index] == answer for index, (_, answer) in zip(chosen, few)]
    right[f"yours by {name}"] = sum(ours) / len(few)
print("8 tickets, behind the question that names the answers:", right)

# %% [markdown]
r"""
## 3. Learning from tickets

A *prefix* is learned keys and values in every layer, here of 16 slots. It starts as 16 random
tokens leave it. The loss is the choice between the two answers. The learning rate is the default
of `own_data.py`, 0.01 of the size of what moves. **Before you run it:** after 40 steps of 8
tickets, is it ahead of words?

32 test tickets are few. So a script did this on five splits, in which each of the 160 is tested
once. There prefixes learned from 8, 32 or 128 tickets and prompts from 128, in 40 steps.
"""

# %%
P = 16
generator = torch.Generator().manual_seed(0)
start = initial_embeddings(model, P, "vocab", generator=generator)  # (P, C)
prefix = PrefixTuning.start(model, start)
arm = Arm(prefix, "tickets", rate=0.01)
to_learn = {"tickets": rows_behind(model, tok, train, P)}
loss = choice_loss(tok, ids)
for step in fit(model, [arm], to_learn, 40, 8, loss, draw_similar_rows):
    if step in (0, 20, 40):
        accuracy = judge(model, tok, prefix.past(model), rows, answers).among
        print(f"after {step:2d} steps: accuracy {accuracy:.2f}")

# %%
results = measured("tickets")  # python tutorials/classroom/tickets.py
runs = runs_by(results, "how", "examples")  # {(how, examples): [accuracy of each split]}
means = {way: sum(some) / len(some) for way, some in runs.items()}
words = max(means[way] for way in drawings.WAYS if way[0] in drawings.WORDS)
always = share_of("urgent", train + test)  # of all 160: the five tests together
title = "What do solved tickets bring, in words and in a prefix?"
found = (
    f"The best words have {words:.2f}, a prefix that learned from 128 tickets "
    f"{means['prefix', 128]:.2f}"
)
drawings.accuracy_of_words_and_of_learning(runs, always, title)

# %% [markdown]
r"""
**What to notice.** In words this model only guesses, and solved tickets before the question do not
help it. As texts to learn from they do. So such a task takes dozens of examples, not thousands.
Real tickets, written less clearly, need more. Runs of one kind differ by 0.1 and more, and ours was
better halfway than at the end. So trust no single run, and let other texts say when to stop, as
`own_data.py` does. A prompt from 128 tickets has 0.71 after these 40 steps, and 0.88 (of 16
tickets) after 200 steps of 16; fewer tickets were not tried.

### The same on the command line

    python tutorials/own_data.py tune --base SmolLM2-135M-Instruct --method prefix \
        --data tutorials/tickets.tsv
    python tutorials/own_data.py answer --base SmolLM2-135M-Instruct \
        --prompt out/tickets-prefix.pt --text "The lift is stuck between two floors."

## 4. A list

What of a list without a rule? Each letter of the alphabet gets "left" or "right" by the toss of a
coin, and a prompt must store these 26 coins. A script trained prompts of 1, 4 and 16 vectors, on
five lists each. **Before you run it:** in class 6 a vector of 128 numbers had 0.99 of 32 coins
right. Which lengths store this list?
"""

# %%
coins = measured("real_length")  # python tutorials/classroom/real_length.py
runs = runs_by(coins, "length", "step")  # {(length, step): [accuracy of each seed]}
last = {length: sum(some) / len(some) for (length, step), some in runs.items() if step == 40}
title = "Which lengths store a list of 26 coins?"
found = (
    f"After 40 steps one vector stores {last[1]:.2f} of a list, 4 vectors {last[4]:.2f}, "
    f"16 vectors {last[16]:.2f}"
)
drawings.list_stored_over_steps(runs, title)

# %% [markdown]
r"""
**What to notice.** Four vectors store the lists, and so do 16. One stores nearly all, and is
slower. So length buys little here: by class 6, one vector of 576 numbers has room for 26 coins. A
list several times as long was not tried.

## 5. A long text as a short prefix

Do solved examples help elsewhere? On which continent is a place? (Python's time zones are named
after places.) 32 solved places are a *long text* of about 200 slots in every layer. Can 16 slots do
its work?

We train a prefix, the *student*, to give the same probabilities as the model behind the long text,
the *teacher*. This is *distillation* (Hinton et al. 2015; of a text: *cartridges*, Eyuboglu et al.
2025). The student reads 192 other places **without their answers**. All it gets are the teacher's
*logits* (scores before the softmax) behind the place and behind the teacher's own guess.

**Exercise 2. The loss of distillation.** How far is the student q from the teacher p? Use the
*Kullback-Leibler divergence*: the sum over the vocabulary of p (log p - log q), in nats. It is 0
only if both are equal. Return the mean over the positions.

<details><summary>Hint</summary>

`log_softmax` over the vocabulary gives log p and log q. Sum over V first, then take the mean over
n. The teacher's p is the weight.

</details>

Students start at the keys and values of the text's first 16 tokens, or of 16 random tokens.
**Before you run it:** which end closer to the teacher? It is often wrong: is that a problem?
"""

# %%
@exercise
def distil_loss(teacher, student):
    """Logits (n, V) of the teacher and the student -> mean divergence over n in nats, a scalar."""
    raise NotImplementedError

# %%
pairs, question = places(), "Which continent is this place in?"  # pairs (place, continent), mixed
test_places, valid_places, others = pairs[:80], pairs[80:120], pairs[120:]
continents = few_answers(pairs)
shown = [solved(drawn_evenly(others, continents, 32, seed)) for seed in (0, 1, 2)]
texts = [f"{question}\n{examples}" for examples in shown]
long_text = best_text(model, tok, texts, valid_places, continents)
long = past_behind(model, tok, long_text)
print(f"{long.length.item()} slots:", long_text[:160].replace("\n", " / "), "...")
unsolved = [place for place, _ in others if f"\n{place} ->" not in long_text][:192]
unsolved.sort(key=lambda place: len(tok.encode(place)))  # like lengths together
questions = [tok.example(place, "")[0] for place in unsolved]
asked = list(zip(questions, model.generate(questions, 2, long)))  # and the teacher's two tokens
taught = {}  # {question: the teacher's logits (2, V) at the two tokens}
with torch.no_grad():
    for i in range(0, 192, 8):
        idx, targets = collate(asked[i : i + 8], "cpu")  # (8, T) each
        logits = model.scored(idx, targets, long)  # (16, V)
        for (ids_asked, _), two in zip(asked[i : i + 8], logits.split(2)):
            taught[tuple(ids_asked)] = two
print(*[tok.decode(asked[i][0] + asked[i][1]).strip() for i in range(4, 192, 32)], sep=", ")

# %%
curve = []  # at each step the divergence of every student, (A,)

def distillation(model, past, rows):  # a loss for `fit`: A pasts, rows of A students -> (A,)
    students = len(past.positions)
    size = len(rows) // students  # rows of each
    idx, targets = collate(rows, "cpu")
    own = past.rows(torch.arange(students).repeat_interleave(size))  # a past for each row
    student = model.scored(idx, targets, own)  # (2 A size, V)
    teacher = torch.cat([taught[tuple(question)] for question, _ in rows])  # (2 A size, V)
    both = zip(teacher.split(2 * size), student.split(2 * size))
    losses = torch.stack([distil_loss(p, q) for p, q in both])  # (A,)
    curve.append(losses.tolist())
    return losses

# %%
SEEDS = (0, 1, 2, 3, 4)
text_start = initial_embeddings(model, P, "text", tok.encode(long_text))  # (P, C)
starts = {("related", seed): text_start for seed in SEEDS}
for seed in SEEDS:
    generator = torch.Generator().manual_seed(seed)
    starts["vocab", seed] = initial_embeddings(model, P, "vocab", generator=generator)
softs = {way: PrefixTuning.start(model, start) for way, start in starts.items()}
arms = [Arm(soft, "places", 0.01, seed) for (_, seed), soft in softs.items()]
for _ in fit(model, arms, {"places": asked}, 24, 8, distillation, next_examples):
    pass

# %%
of_student = dict(zip(starts, zip(*curve)))  # {(start, seed): the divergence at every step}
curves, ends = {}, {}
for name in ("related", "vocab"):
    curves[name] = [of_student[name, seed] for seed in SEEDS]
    ends[name] = sum(sum(values[-8:]) for values in curves[name]) / (8 * len(SEEDS))
title = "Which start comes closer to the teacher?"
found = (
    f"From the text's own keys and values, students end {ends['related']:.2f} nats from the "
    f"teacher, from random tokens {ends['vocab']:.2f}"
)
drawings.divergence_over_steps(curves, title)

# %% [markdown]
r"""
**What to notice.** Every place is new to the students when they are measured, and nobody told them
an answer. Still both starts come close to the teacher. The text's own keys and values begin closer,
and stay closer in all five seeds. So start at the text, as the paper does. A teacher's mistakes are
no problem for a student, which is to copy them.

## 6. What does it save?

We compare accuracy on 80 test places, bytes of cache (float32), and CPU time for one question in a
batch of 32. Beside the students stand the text's first 16 slots as they are. **Before you run it:**
the long text has more than twelve times as many slots. Is it twelve times slower?
"""

# %%
tested = rows_behind(model, tok, test_places, 512)
compared = {
    "its first 16 slots": [PrefixTuning.start(model, text_start)],
    "distilled": [softs["related", seed] for seed in SEEDS],
    "from random tokens": [softs["vocab", seed] for seed in SEEDS],
}
right = {"long text": [judge(model, tok, long, tested, continents).among]}
with torch.inference_mode():
    for name, some in compared.items():
        pasts = [soft.past(model) for soft in some]
        right[name] = [judge(model, tok, past, tested, continents).among for past in pasts]
always = share_of(commonest_answer(others), test_places)
distilled = softs["related", 0]
pasts = {"nothing": model.empty_past(), "distilled": distilled.past(model), "long text": long}
costs = {name: cost_of(model, past, tested[:32]) for name, past in pasts.items()}
times_the_bytes = costs["long text"][0] / costs["distilled"][0]
times_the_time = costs["long text"][1] / costs["distilled"][1]
print(f"the long text: {times_the_bytes:.1f} times the bytes, {times_the_time:.2f} times the time")

# %%
mean_right = {name: sum(values) / len(values) for name, values in right.items()}
title = "What do 16 distilled slots keep, and what do they save?"
found = (
    f"16 distilled slots have {mean_right['distilled']:.2f}, the long text with "
    f"{times_the_bytes:.0f} times the bytes {mean_right['long text']:.2f}"
)
drawings.what_a_distilled_prefix_saves(right, always, costs, title)

# %% [markdown]
r"""
**What to notice.** Sixteen distilled slots do the long text's work: 80 places cannot tell them
apart, as one standard error is 0.05. Before training the same slots were below the commonest
answer. The start makes no difference here, though one came closer to the teacher. The cache is 13
times smaller. And the time? See the bar "nothing": most of it goes into the model's weights,
whatever stands before.

## 7. To PEFT, and back

PEFT (Mangrulkar et al. 2022) keeps a soft prompt as a folder: a JSON file that says what it is, and
one tensor with a row for each virtual token. **Before you run it:** a prompt has 16 vectors of 576
numbers. How many bytes has its file? And how large a difference between the logits of two correct
programs would you accept?
"""

# %%
from pathlib import Path
from tempfile import mkdtemp
from safetensors.torch import load_file
from huggingface import from_peft, to_peft

idx = torch.tensor(questions[:1])  # (1, T)
for soft in (PromptTuning(text_start), distilled):
    folder = Path(mkdtemp())
    to_peft(soft, model, folder)
    for path in sorted(folder.iterdir()):
        print(f"{soft.kind}: {path.name}, {path.stat().st_size:,} bytes")
    back = from_peft(folder, model).state_dict()
    same = [torch.equal(back[name], numbers) for name, numbers in soft.state_dict().items()]
    with torch.inference_mode():
        ours, _ = model(idx, soft.past(model))  # (1, T, V)
    difference = (logits_of_peft(folder, idx) - ours).abs().max()
    print(f"{soft.kind}: back the same: {all(same)}, logits differ by at most {difference:.0e}")

# %% [markdown]
r"""
**What to notice.** Both programs compute the same, up to the last digits of float32. What comes
back is equal in every bit. PEFT stores P rows of numbers and what kind they are, and no weights.
`to_peft` adds which base they belong to, and `from_peft` refuses any other.
"""

# %% [markdown]
r"""
## Summary

For our tickets, words are no better than guessing, and a prefix that learned from 32 tickets has
0.80. One vector of 576 numbers stores nearly all of 26 coins. A text of 32 examples was
distilled into 16 slots: a student learns to say what the teacher says, true or not. All of it goes
to PEFT and back unchanged.
"""

# %% [markdown]
r"""
## Homework

**Exercise 3. PEFT's order.** A row of PEFT's tensor, (P, 2 L Hkv D), is one virtual token: L layers
one after the other, and in each layer first the keys of all Hkv heads (D numbers each), then the
values of all heads. Lay a prefix out in that way.

<details><summary>Hint</summary>

Stack keys and values to (2, L, Hkv, P, D), and write down in which order the five letters must
stand. `permute` and then `flatten(1)` do the rest.

</details>

**With your own texts.** Take a hundred of your own in two or three kinds. Before you train: what
has always giving the commonest answer? Which hard prompt is the fair rival?
"""

# %%
@exercise
def peft_prefix(keys, values):
    """Keys and values (L, Hkv, P, D) -> (P, 2 L Hkv D)."""
    raise NotImplementedError

# %%
stored = load_file(folder / "adapter_model.safetensors")["prompt_embeddings"]
keys, values = torch.stack(list(distilled.keys)), torch.stack(list(distilled.values))
difference = (stored - peft_prefix(keys, values)).abs().max()
print(f"yours and to_peft's: largest difference {difference:.0f}")

# %% [markdown]
r"""
## Sources

- Brown et al. 2020, *Language Models are Few-Shot Learners*, arXiv 2005.14165
- Ben Allal et al. 2025, *SmolLM2: When Smol Goes Big*, arXiv 2502.02737
- Eyuboglu et al. 2025, *Cartridges: Lightweight and general-purpose long context representations
  via self-study*, arXiv 2506.06266
- Hinton, Vinyals and Dean 2015, *Distilling the Knowledge in a Neural Network*, arXiv 1503.02531
- Lester, Al-Rfou and Constant 2021, *The Power of Scale for Parameter-Efficient Prompt Tuning*,
  arXiv 2104.08691
- Li and Liang 2021, *Prefix-Tuning: Optimizing Continuous Prompts for Generation*, arXiv 2101.00190
- Mangrulkar et al. 2022, *PEFT: State-of-the-art Parameter-Efficient Fine-Tuning methods*,
  github.com/huggingface/peft
"""
