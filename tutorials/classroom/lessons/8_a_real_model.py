# %% [markdown]
r"""
# A real model

A language model that somebody else trained gets a soft prompt in the same few lines.

After this class you can

1. train a soft prompt on a file of your own, and say how many examples that takes;
2. *distil* a long text into a short prefix;
3. say what that saves, and what it does not.

Needs: classes 1 and 4, and a model of 270 MB. Fetch it once, into the project's folder:

    pip install safetensors tokenizers transformers peft tzdata
    hf download HuggingFaceTB/SmolLM2-135M-Instruct --local-dir SmolLM2-135M-Instruct

If it lies elsewhere, set SOFTPROMPT_MODEL to its folder. Without a model the first cell says so,
and nothing below it runs.

## 1. A model, and texts of your own

A file with a text and its answer in each line is enough. Ours has 160 short **tickets** of an
office, 80 of them urgent. `read_data` sets 32 apart: our test tickets. (The command `tune`, below,
uses half of the 32 to say when to stop. So it tests with 16, as README does.)
"""

# %%
import sys
sys.path.insert(0, "classroom")
from statistics import mean
import torch
import torch.nn.functional as F
from shared import table
import plots
from checks import exercise
from real import NAMED, QUESTION, TICKETS, cost_of, drawn_evenly, next_examples, past_behind
from real import real_lab, solved, text_to_distil, what_it_says
from own_data import draw_similar_rows, few_answers, ids_of, judge, read_data, rows_behind
from softprompt import PrefixTuning, initial_embeddings
from train import Arm, collate, commonest_answer, fit, read_rows, share_of, where
lab = real_lab()  # without a model, nothing below runs
model, tok = lab.model, lab.tok  # frozen
print(f"{sum(weight.numel() for weight in model.parameters()):,} numbers")
print("other processors round otherwise: an accuracy may differ from the solved copy's by 0.06")

# %%
train, test = read_data(TICKETS)  # [(text, answer)] each
answers = few_answers(train)
print(len(train), "tickets to learn from,", len(test), "to test with; answers:", answers)
for text, answer in train[:4]:
    print(f"{answer:8s} {text}")

# %% [markdown]
r"""
## 2. As far as words go

First we only ask. A **hard prompt** is English in front of the text: a question, or a question with
solved examples. The latter is called *learning in context* (Brown et al. 2020).

This model was never told to answer in one word and stop. So we do not let it write. We ask which of
the two answers is more probable: `judge` does that.

**Before you run it:** put these in order: nothing, a question, a question that names the answers, a
question and 8 solved tickets.
"""

# %%
rows = rows_behind(model, tok, test, 512)  # (question, answer) each, as ids
shown = f"{QUESTION}\n{solved(drawn_evenly(train, answers, 8, 0))}"
for text in ("", QUESTION, NAMED, shown):
    # among: only the given answers compete
    accuracy = judge(model, tok, past_behind(model, tok, text), rows, answers).among
    print(f"accuracy {accuracy:.2f}: {text[:100]!r}")

# %% [markdown]
r"""
**What to notice.** A guesser has 0.5, and 32 test tickets are few: one standard error is 0.09. So
words only guess here.

## 3. Learn from the same tickets

We train a **prefix**: 16 slots of learned keys and values in every layer. It starts at 16 random
tokens. What should its loss be? Most of the usual loss asks which of 49,152 tokens comes next. We
only need to tell two answers apart, and their first tokens differ: *can* and *urgent*.

### Exercise 1: the loss of a choice

Return the cross-entropy of the right answer, but with a softmax over the given tokens alone. Take
the mean over the texts.

<details><summary>Hint</summary>

`logits[:, tokens]` has a column for each answer: (n, K). `F.cross_entropy` does the rest.

</details>
"""

# %%
@exercise
def choice_nats(logits, tokens, right):
    """Logits (n, V) of n texts, the first tokens of K answers (K,), and for each text which of the
    K is right (n,), counted from 0 -> mean nats of the right one among the K, a scalar."""
    raise NotImplementedError

# %%
P = 16
generator = torch.Generator().manual_seed(0)
start = initial_embeddings(model, P, "vocab", generator=generator)  # (P, C)
prefix = PrefixTuning.start(model, start)
tokens = torch.tensor([answer[0] for answer in ids_of(tok, answers)])  # (2,)

def loss_of_choice(model, past, rows):  # a loss for `fit`, of one arm: (1,)
    idx, targets = collate([(question, answer[:1]) for question, answer in rows], "cpu")
    logits = model.scored(idx, targets, past)  # (8, V)
    right = (targets[targets >= 0] == tokens[1]).long()  # (8,): 1 where the second is right
    return choice_nats(logits, tokens, right)[None]  # (1,): `fit` wants a loss for each arm

arm = Arm(prefix, "tickets", rate=0.01)  # a share of the size of what moves
to_learn = {"tickets": rows_behind(model, tok, train, P)}
for step in fit(model, [arm], to_learn, 20, 8, loss_of_choice, draw_similar_rows):
    pass
accuracy = judge(model, tok, prefix.past(model), rows, answers).among
print(f"after 20 steps of 8 tickets: accuracy {accuracy:.2f}")

# %% [markdown]
r"""
That is one run. A script did it five times, with 40 steps: each time 32 other tickets are
the test, and the prefix learns from 8, 32 or 128 of the rest. **Before you run it:** how many are
enough?
"""

# %%
names = {
    ("none", 0): "no prompt",
    ("named", 0): "the answers named",
    ("shown", 32): "32 solved tickets as words",
    ("prefix", 8): "prefix, learned from 8",
    ("prefix", 32): "prefix, learned from 32",
    ("prefix", 128): "prefix, learned from 128",
}
tickets = []
for (method, examples), name in names.items():
    runs = where(read_rows(table("real")), task="tickets", method=method, examples=examples)
    tickets += [{**row, "before the ticket": name} for row in runs]

title = "What do solved tickets bring?"
found = "Words guess; a prefix learns from few tickets"
plots.dots(tickets, "before the ticket", "accuracy", title)

# %% [markdown]
r"""
**What to notice.** Solved tickets in words do not help this small model. The same tickets, learned
from, do: 32 bring 0.80, 128 bring 0.86. So such a task takes dozens of examples, not thousands.
Real tickets are written less clearly, and need more.

Runs of one kind differ by 0.1, so trust no single run. On a file of your own:

    python tutorials/own_data.py tune --base SmolLM2-135M-Instruct --method prefix \
        --data tutorials/tickets.tsv

## 4. A long text as a short prefix

Another question: on which continent is a place? Here solved examples do help. But 32 of them are a
long text, some 200 slots in every layer, before each question. Can 16 slots do its work?

The model behind the long text is the **teacher**. The same model behind a prefix of 16 is the
**student**. It learns to say what the teacher says. This is **distillation** (Hinton et al. 2015;
of a text: *cartridges*, Eyuboglu et al. 2025).

Nobody gives the student a right answer. For 128 other places the teacher guesses a continent, in
two tokens. At both we keep its logits: what it found likely, and how likely. That is all that the
student gets.

### Exercise 2: the loss of distillation

How far is the student q from the teacher p? The **Kullback-Leibler divergence** is the sum over the
vocabulary of p (log p - log q), in nats. It is 0 only where both are equal. Return its mean over
the positions.

<details><summary>Hint</summary>

`log_softmax(-1)` gives log p and log q, and `.exp()` of log p gives p. Sum over V first, then take
the mean over n.

</details>
"""

# %%
@exercise
def distil_loss(teacher, student):
    """Logits (n, V) of the teacher and the student -> mean divergence over n in nats, a scalar."""
    raise NotImplementedError

# %%
long_text, others, test_places = text_to_distil(tok)
long = past_behind(model, tok, long_text)  # the teacher's past
print(f"{long.length.item()} slots:", long_text[:120].replace("\n", " / "), "...")
lessons = what_it_says(model, tok, long, others)  # [(question, guess, logits (2, V))]
for question, guess, _ in lessons[::32]:
    print(tok.decode(question + guess).strip())

# %% [markdown]
r"""
The student starts at the keys and values of the text's first 16 tokens. Each step shows it 8 places
that it has not seen yet. **Before you run it:** the teacher is often wrong. Is that a problem?
"""

# %%
text_start = initial_embeddings(model, P, "text", tok.encode(long_text))  # (P, C)
nats, students = [], []

def distillation(model, past, rows):  # a loss for `fit`, of one arm: (1,)
    idx, targets = collate([row[:2] for row in rows], "cpu")  # (8, T) each
    student = model.scored(idx, targets, past)  # (16, V): 8 places, two answer tokens each
    teacher = torch.cat([logits for _, _, logits in rows])  # (16, V)
    loss = distil_loss(teacher, student)
    nats.append(loss.item())
    return loss[None]

for seed in range(3):
    arm = Arm(PrefixTuning.start(model, text_start), "places", 0.01, seed)
    for step in fit(model, [arm], {"places": lessons}, 16, 8, distillation, next_examples):
        pass
    students.append(arm.soft)
    print(f"student {seed + 1}: {nats[-16]:.2f} nats at first, then {mean(nats[-4:]):.2f}")

# %% [markdown]
r"""
**What to notice.** In 16 steps the student comes close, each time on places that are new to it. Its
teacher's mistakes are no problem: it is to copy them too.

## 5. What does it save?

We compare accuracy on 80 test places, the bytes of the past, and the processor's time for a
question. **Before you run it:** the long text has twelve times as many slots. Is it twelve times
slower?
"""

# %%
tested = rows_behind(model, tok, test_places, 512)
first = PrefixTuning.start(model, text_start)  # the text's first 16 slots, as they are
pasts = [("nothing", model.empty_past()), ("its first 16 slots", first.past(model))]
pasts += [("16 distilled slots", student.past(model)) for student in students]
pasts += [("the long text", long)]
always = share_of(commonest_answer(test_places), test_places)
kept = [{"before the place": "always", "accuracy": always}]
for name, past in pasts:
    right = judge(model, tok, past, tested, few_answers(test_places)).among
    kept.append({"before the place": name, "accuracy": right})
for name, past in (pasts[0], pasts[2], pasts[-1]):
    megabytes, milliseconds = cost_of(model, past, tested[:16])
    print(f"{name}: {megabytes:.1f} MB, {milliseconds:.0f} ms for a question")

title = "What do 16 distilled slots keep of the long text?"
found = "16 distilled slots do the work of 200"
plots.dots(kept, "before the place", "accuracy", title)

# %% [markdown]
r"""
**What to notice.** Sixteen distilled slots do the work of 200. (80 places cannot tell them apart:
one standard error is 0.05.) Before training the same 16 slots did harm. The past is more than
twelve times smaller. And the time? Far from twelve times: even with nothing before the question,
most of it goes into the model's weights.

## Summary

For our tickets words only guess, and a prefix that learned from 32 of them has 0.80. A long text of
32 examples was distilled into 16 slots, without one right answer. It saves memory most of all.
"""

# %% [markdown]
r"""
## Homework

### Exercise 3: the likeliest answer

`judge` decides at the first token in which two answers differ. That is how a model writes. But is
the winner also the likeliest answer as a whole? Where answers have several tokens, it need not be.

An answer is a list of tokens. Its probability is the product of those of its tokens, each behind
the tokens before it. Which answer has the highest? Do not divide by the length.

<details><summary>Hint</summary>

Run the question and one answer through the model together: `model(torch.tensor([question +
answer]), past)`. In the logits, `logits[0, len(question) - 1 : -1]` are the places that say the
answer's tokens. A product of probabilities is a sum of logarithms: `log_softmax`.

</details>
"""

# %%
@exercise
def likeliest(model, past, question, answers):
    """The index of the likeliest of `answers` (lists of ids) behind `question` (a list of ids).
    `past` (one row, or None) comes before both."""
    raise NotImplementedError

# %% [markdown]
r"""
Test tickets, where the answers are named: which of the two ways is right more often?
"""

# %%
ids, past = ids_of(tok, answers), past_behind(model, tok, NAMED)
choices = [answer[:-1] for answer in ids]  # without the token that ends an answer
with torch.inference_mode():
    chosen = [ids[likeliest(model, past, question, choices)] for question, _ in rows]
yours = mean(ours == answer for ours, (_, answer) in zip(chosen, rows))
theirs = judge(model, tok, past, rows, answers).among
print(f"accuracy {yours:.2f} by whole answers, {theirs:.2f} by the first token")

# %% [markdown]
r"""
### To PEFT, and back

**PEFT** (Mangrulkar et al. 2022) is the library that most people use. It keeps a soft prompt as a
folder: a JSON file that says what it is, and a tensor with a row for each virtual token. `to_peft`
writes such a folder, and `from_peft` reads one. **Before you run it:** how large a difference
between the logits of two correct programs would you accept?
"""

# %%
from pathlib import Path
from tempfile import mkdtemp
from safetensors.torch import load_file
from huggingface import from_peft, to_peft
from real import logits_of_peft
from softprompt import PromptTuning

idx = torch.tensor([lessons[0][0]])  # (1, T)
for soft in (PromptTuning(text_start), students[0]):
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
**What to notice.** Both programs compute the same, up to the last digits. What comes back is equal
in every bit. PEFT stores P rows of numbers and what kind they are, and no weights. `to_peft` adds
which base they belong to, and `from_peft` refuses any other.

### Exercise 4: PEFT's order

A row of PEFT's tensor, (P, 2 L Hkv D), is one virtual token: L layers one after the other, and in
each layer first the keys of all Hkv heads (D numbers each), then the values of all heads. Lay a
prefix out in that way.

<details><summary>Hint</summary>

Stack keys and values to (2, L, Hkv, P, D), and write down in which order the five letters must
stand. `permute` and then `flatten(1)` do the rest.

</details>
"""

# %%
@exercise
def peft_prefix(keys, values):
    """Keys and values (L, Hkv, P, D) -> (P, 2 L Hkv D)."""
    raise NotImplementedError

# %%
stored = load_file(folder / "adapter_model.safetensors")["prompt_embeddings"]
keys, values = torch.stack(list(students[0].keys)), torch.stack(list(students[0].values))
difference = (stored - peft_prefix(keys, values)).abs().max()
print(f"yours and to_peft's: largest difference {difference:.0f}")

# %% [markdown]
r"""
### With your own texts

Take a hundred of your own in two or three kinds. Before you train: what has always giving the
commonest answer? Which hard prompt is the fair rival?

## Sources

- Brown et al. 2020, *Language Models are Few-Shot Learners*, arXiv 2005.14165
- Ben Allal et al. 2025, *SmolLM2: When Smol Goes Big*, arXiv 2502.02737
- Eyuboglu et al. 2025, *Cartridges: Lightweight and general-purpose long context representations
  via self-study*, arXiv 2506.06266
- Hinton, Vinyals and Dean 2015, *Distilling the Knowledge in a Neural Network*, arXiv 1503.02531
- Li and Liang 2021, *Prefix-Tuning: Optimizing Continuous Prompts for Generation*, arXiv 2101.00190
- Mangrulkar et al. 2022, *PEFT: State-of-the-art Parameter-Efficient Fine-Tuning methods*,
  github.com/huggingface/peft
"""
