# %% [markdown]
r"""
# Can you read it?

A soft prompt does the work of an instruction. What does it hold?

After this class you can

1. look up the tokens nearest to learned vectors, and test what such a reading is worth;
2. find out what one vector holds, by taking it away;
3. see who looks at a vector, and compare this with what it holds.

Needs: class 1 (a prompt is a matrix), the cosine of two vectors. Letters: P virtual tokens (learned
vectors in the place of tokens), C = 128 numbers in a vector, V = 2,048 tokens in the table.

## 1. As words?

The **base**, our language model, is frozen: its numbers never change. We train prompts of 8 vectors
for two tasks. It practised *library*: which of six libraries is a sentence from? It never practised
*first-letter-last*: the first letter of the last word. A prompt starts from **sampled tokens**,
random rows of the table of embeddings. A **seed** is a number that fixes what is random: these
tokens and the training sentences. **Accuracy** is the share of right answers.

How do people read a vector? By its **nearest token**: the one whose embedding has the largest
cosine with it. Some token is always nearest. So we need a **control**: random vectors that know
nothing of the task, with the mean and the spread of the table's columns.

**Before you run it:** will the nearest tokens say what the task is? Will their cosines be larger
than those of random vectors?
"""

# %%
import sys
sys.path.insert(0, "classroom")
import torch
import torch.nn.functional as F
from shared import accuracies_without, answers_lost, arms_of, learn, lost_alone, measured
from shared import open_lab, right_on_test, score_hard_prompt, watch
import drawings
from checks import exercise
from knock_out import KINDS, mean_looks, questions_of_kinds
from model import Past
from softprompt import PromptTuning, nearest_tokens
from train import TASKS, Arm, best_hard_prompt, commonest_answer, score, share_of
lab = open_lab()
model, tok = lab.model, lab.tok  # the frozen base and its tokenizer
table = model.model.embed_tokens.weight  # (V, C)

# %%
NAMES, SEEDS = ("library", "first-letter-last"), range(5)
arms = []
for task in NAMES:
    arms += arms_of(lab, task, "vocab", 8, 1.5, SEEDS)  # 8 vectors, rate 1.5 (see class 1)
starts = [arm.soft.embeddings.detach().clone() for arm in arms]  # (P, C) each
learned = learn(lab, arms, 48)  # accuracies after 48 steps
tuned = [arm.soft.embeddings.detach() for arm in arms]  # (P, C) each

every = PromptTuning(torch.cat(tuned))  # (10 P, C)
near = nearest_tokens(every, model, 1, torch.Generator().manual_seed(0))
print(f"mean cosine: learned {near.cosines.mean():.2f}, random vectors {near.control.mean():.2f}\n")
for arm, ids in zip(arms, near.ids.view(-1, 8).tolist()):
    words = "|".join(repr(tok.decode([i]))[1:-1] for i in ids)
    print(f"{arm.task:18}{words}")

# %% [markdown]
r"""
**What to notice.** No line is a sentence, and none says "first letter". But ` last` stands in all
five prompts for the *last* word, and `ib` in all five for *library*; neither in the other task's.
Training put them there. Lester et al. (2021) saw such words too. Yet the cosines are *smaller* than
those of random vectors: to be near says little.

### Exercise 1: snap to tokens

A better test: if these tokens *were* the prompt, they could take the place of the vectors. Find
them.

<details><summary>Hint</summary>

`F.normalize` the rows of both. One matrix product then gives all cosines (P, V). `argmax(1)` is the
column of the largest in each row.

</details>

The cell behind it measures each prompt at its start, learned, and snapped to tokens. The start,
random tokens, is a control. **Before you run it:** what is left of the accuracy on each task?
"""

# %%
@exercise
def snap_to_tokens(vectors, table):
    """vectors (P, C), table (V, C) -> ids (P,) of the nearest rows by cosine."""
    raise NotImplementedError

# %%
def measure_prompts(prompts):
    """The accuracy of each of the ten prompts (P, C) on its task."""
    return right_on_test(lab, [Arm(PromptTuning(x), arm.task, 0) for x, arm in zip(prompts, arms)])

snapped = [table[snap_to_tokens(vectors, table)] for vectors in tuned]  # (P, C) each
states = {  # library's five seeds, then those of first-letter-last
    "random\ntokens": measure_prompts(starts),
    "learned": learned,
    "nearest\ntokens": measure_prompts(snapped),
}
baselines = {}
for task in NAMES:
    _, hard = score_hard_prompt(lab, task, best_hard_prompt(lab, task), "test", 240)
    common = commonest_answer(TASKS[task].pairs(lab.data["train"]))
    always = share_of(common, TASKS[task].pairs(lab.data["test"][:240]))
    baselines[task] = {"wording": hard, "always": always}

# %%
kept = [sum(states["nearest\ntokens"][part]) / 5 for part in (slice(0, 5), slice(5, 10))]
title = "What is left when the nearest tokens take the place of the vectors?"
found = f"The nearest tokens keep {kept[0]:.2f} on the practised task, {kept[1]:.2f} on the new one"
drawings.draw_snapping(NAMES, states, baselines, title)

# %% [markdown]
r"""
**What to notice.** On the new task nearly all is lost: what was learned is what snapping throws
away. On *library* the words keep nearly all. But there random tokens have much too: this task asks
little of a prompt. So nearest tokens show the topic. They are not the prompt.

## 2. By taking a vector away

Now a task with facts in it. *swap-1* asks for the first letter of the first word, but R and C have
changed places: for "Return ..." say C, for "Compute ..." say R. The base practised the first
letter. So it knows all but these two facts. We train 16 vectors.

**Before you run it:** can a hard prompt tell the base to swap two letters?
"""

# %%
[arm] = arms_of(lab, "swap-1", "vocab", 16, 3, [3])  # seed 3 of the ten below
watch(lab, [arm], 200, ())  # 200 steps; nothing is measured on the way
P = arm.soft.length
past = arm.soft.requires_grad_(False).past(model)
questions = questions_of_kinds(lab)  # {"R", "C", "A" or "other": rows of ids}; A is one of other

def accuracy(past, kind):
    return score(model, past, questions[kind]).right.mean().item()

words = tok.encode(best_hard_prompt(lab, "swap-1"))
_, behind_words = model(torch.tensor([words]))
whole = {kind: accuracy(past, kind) for kind in ("R", "C", "other")}
for kind in whole:
    print(f"first letter {kind:6}{len(questions[kind]):4} sentences:  no prompt "
          f"{accuracy(None, kind):.2f}, best hard prompt {accuracy(behind_words, kind):.2f}, "
          f"learned {whole[kind]:.2f}")

# %% [markdown]
r"""
**What to notice.** The hard prompt knows the other letters, and neither fact. The vectors have both
facts, and nearly all of the rest. In which vector does "say C for R" stand?

### Exercise 2: hide a vector from the text

Now ask again while the text cannot see one vector. A `Past` has `keys`, `values`, `positions` (B,
P) and `pinned`. A text sees a key if its position is 0 or more and not later than the text's own.
Return a past that is the same but for one position, so that no text behind it ever sees virtual
token `vector`. A position of -1 means an empty slot. The text's own positions begin after all slots
that are not empty, and they must stay as they are.

<details><summary>Hint</summary>

With -1 the slot is empty, and the text moves up by one position: two things change at once. What
other position does no text see? One in the future, such as `2**20`. Change a `clone()` of
`past.positions`, and build `Past(past.keys, past.values, positions, past.pinned)`.

</details>

**Before you run it:** when one of 16 vectors is hidden, will all letters lose a little? Or one
letter all?
"""

# %%
@exercise
def without_vector(past, vector):
    """A past like this one, but no text behind it sees virtual token `vector`, counted from 0.
    The text keeps its positions, and the given past is not changed."""
    raise NotImplementedError

# %%
lost = {"R": [], "C": [], "other": []}
for vector in range(P):
    hidden = without_vector(past, vector)
    for kind in lost:
        lost[kind].append(whole[kind] - accuracy(hidden, kind))

# %%
most = {kind: max(range(P), key=lost[kind].__getitem__) for kind in ("R", "C")}
title = "Without one vector, which letters lose accuracy?"
found = f"Some vectors hold one letter alone: without vector {most['R'] + 1}, only R is lost"
drawings.draw_lost_answers(lost, title)

# %% [markdown]
r"""
**What to notice.** Figures count vectors from 1. Without some vectors R alone is lost, without
others C alone. One vector costs letters of all kinds: it carries the task. Many carry nothing that
is missed: either nothing, or what another vector holds as well. This prompt is the clearest of ten.
What about the others?

## 3. Ten prompts

Ten seeds take minutes. `python tutorials/classroom/knock_out.py` did it once, and we read its
table. A vector **holds R** if, without it, R loses at least 0.5, and neither C nor the other
letters lose 0.1. It holds **nothing** if no letter loses 0.1. All else is **between**: a little, or
a part of several.

**Before you run it:** in how many of the ten prompts does a vector hold R alone? And C alone?
"""

# %%
results = measured("knock_out")

def holds(lost, vector):
    """What a vector holds, by the rule above."""
    fell = [kind for kind in ("R", "C", "other") if lost[kind][vector] >= 0.1]
    if not fell:
        return "nothing"
    alone = len(fell) == 1 and fell[0] != "other" and lost[fell[0]][vector] >= 0.5
    return fell[0] if alone else "between"

held = {}
for seed in range(10):
    of_seed = answers_lost(results, seed)
    held[seed] = [holds(of_seed, vector) for vector in range(P)]
    before = accuracies_without(results, seed)
    print(f"seed {seed}: all 16 vectors: R {before['R', -1]:.2f}, C {before['C', -1]:.2f}, "
          f"other {before['other', -1]:.2f}")

# %%
count = {kind: sum(kind in row for row in held.values()) for kind in ("R", "C")}
title = "What does each vector of ten prompts hold?"
found = f"A vector holds R alone in {count['R']} of 10 prompts, and C alone in {count['C']} of 10"
drawings.draw_what_is_held(held, title)

# %% [markdown]
r"""
**What to notice.** That some vector holds one fact alone is the rule, at another place in each
seed. Sometimes two hold parts of it, each of them needed. And it is mixed: many vectors are
between, and in one prompt none holds R alone. In some seeds C was learned less well.

## 4. Who looks at it?

A text reads a vector by **attention**: each token shares out 1 among all that it sees. We look at
the *arrow* (the base reads `sentence -> answer`) in the last layer, where the answer begins, and at
the *first word* in the layer before. (In the first two layers hardly anything depends on the
letter.) Shares are means of the heads and sentences. A is a control: the commonest letter that
keeps its place.

**Before you run it:** which vectors will be looked at more when the first word begins with R?
"""

# %%
looked = {"first word": {}, "arrow": {}}
for kind in KINDS:
    from_word, from_arrow = mean_looks(model, past, questions[kind])  # (P,) each
    looked["first word"][kind] = from_word.tolist()
    looked["arrow"][kind] = from_arrow.tolist()

# %%
shares = looked["arrow"]["R"]
top = max(range(P), key=shares.__getitem__)
title = "Which vectors are looked at, and are they those that hold the letter?"
found = f"The arrow looks at vector {top + 1} for R, and without vector {top + 1} R is lost"
drawings.draw_lost_and_looked(lost, looked, title)

# %% [markdown]
r"""
**What to notice.** For R the arrow turns to the two vectors that hold R, for C to one that holds C.
The first word turns to another that holds C.

## 5. Looked at, and needed

Some vectors are looked at whatever the letter. So we take the **rise**: the share with one letter
minus the largest share with the other kinds. Now for all ten prompts. A rise of 0.1 is clear. A
letter *needs* a vector if without it this letter loses 0.3 more than any other.

**Before you run it:** will a letter need each vector to which attention rises for it? And will
attention rise for each vector that a letter needs?
"""

# %%
def rise(rows, letter, vector):
    """How much more this vector is looked at with this letter, from the place where it is more."""
    rises = []
    for place in ("from_word", "from_arrow"):
        others = [rows[kind, vector][place] for kind in KINDS if kind != letter]
        rises.append(rows[letter, vector][place] - max(others))
    return max(rises)

points = []  # (letter, rise, how much more of it is lost than of any other; 0 if not more)
for seed in range(10):
    of_seed = answers_lost(results, seed)
    rows = {(row["letter"], row["vector"]): row for row in results if row["seed"] == seed}
    for letter in ("R", "C", "A"):
        for vector, alone in enumerate(lost_alone(of_seed, letter)):
            points.append((letter, rise(rows, letter, vector), max(0, alone)))

# %%
looked_at = [point for point in points if point[1] >= 0.1]
needed = [point for point in points if point[2] >= 0.3]
both = [point for point in looked_at if point[2] >= 0.3]
missed = len(needed) - len(both)
title = "Is what is looked at also what is needed?"
found = f"Of {len(looked_at)} vectors looked at {len(both)} are needed; so are {missed} others"
drawings.draw_rise_and_loss(points, 0.1, 0.3, title)

# %% [markdown]
r"""
**What to notice.** A vector looked at for one letter is nearly always needed for it. The control A
has no clear rise. But some vectors are looked at for nothing, and others are needed without a rise.
So attention shows where to search. Taking away is the test.

## Summary

The tokens nearest to learned vectors show the topic. In place of the vectors they do not do a new
task. What a vector holds is found by taking it away and asking again. Nothing else may change, so
its position goes into the future. In nearly all prompts for *swap-1* some vector holds one fact
alone. Others carry the task, many nothing that is missed. What is looked at for one letter is
mostly needed for it, not always. All of this is one small base and one task.
"""

# %% [markdown]
r"""
## Homework

### Exercise 3: a second control

Random vectors with the table's mean lie nearer to tokens than learned ones: the mean alone brings
them near. Learned vectors have moved far away from it. What cosine is left if they move as far, but
in random directions? Each vector keeps its own distance.

<details><summary>Hint</summary>

Make each row of `noise` 1 long (`F.normalize(noise, dim=1)`). Multiply it by the distance that this
row of the prompt has moved: `norm(dim=1, keepdim=True)` gives (P, 1).

</details>
"""

# %%
@exercise
def random_steps(start, tuned, noise):
    """start, tuned, noise (P, C) -> (P, C): from start, as far as tuned, but along the noise."""
    raise NotImplementedError

# %%
before, after = torch.cat(starts), torch.cat(tuned)  # (10 P, C) each
noise = torch.randn(after.shape, generator=torch.Generator().manual_seed(1))  # (10 P, C)
stepped = PromptTuning(random_steps(before, after, noise))
far = nearest_tokens(stepped, model, 1, torch.Generator().manual_seed(0)).cosines  # (10 P, 1)
print(f"mean cosine to the nearest token: random vectors {near.control.mean():.2f}, "
      f"learned {near.cosines.mean():.2f}, random steps as far {far.mean():.2f}")

# %% [markdown]
r"""
**What to notice.** The two controls give opposite answers. Beside random vectors the learned ones
are *less* like tokens, beside random steps as long they are *more* like tokens. Both are true: they
have left the cloud of tokens, and on their way they prefer directions of some tokens.

### Exercise 4: the same mistakes?

Two seeds for *first-letter-last* start from other tokens and see other sentences. Two prompts that
are nearly always right must mostly agree. So look at the sentences that the first gets wrong: how
often does the second give the *same wrong* answer?

<details><summary>Hint</summary>

`zip(first, second, truth)` goes through the three lists together. Keep the places where `first` is
not the truth, and count among them. No mistake at all: there is nothing to divide by.

</details>
"""

# %%
@exercise
def same_mistakes(first, second, truth):
    """Three lists of answers -> two shares: how often first and second are equal, of all sentences
    and of those that first gets wrong (None where it gets none wrong)."""
    raise NotImplementedError

# %%
rows = lab.rows("first-letter-last", "test", 240)
asked, truth = [question for question, _ in rows], [answer[:-1] for _, answer in rows]
said = []
for vectors in tuned[5:8]:  # three seeds
    said.append(model.generate(asked, 4, PromptTuning(vectors).past(model), stop=tok.end))
for other in (1, 2):
    everywhere, where_wrong = same_mistakes(said[0], said[other], truth)
    print(f"seeds 0 and {other}: same answer {everywhere:.2f}, same wrong answer {where_wrong:.2f}")

# %% [markdown]
r"""
## Sources

- Lester, Al-Rfou & Constant 2021, arXiv 2104.08691 (prompt tuning; section 7 reads nearest tokens)
- Khashabi et al. 2021, arXiv 2112.08348 (prompts that do one task and read as any other text)
- Jain & Wallace 2019, arXiv 1902.10186 (attention alone is no explanation)
"""
