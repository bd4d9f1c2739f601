# %% [markdown]
r"""
# Can you read it?

A soft prompt does the work of an instruction. Can you see from its numbers what it does?

After this class you can

1. look up the tokens nearest to learned vectors, and test what such a reading is worth;
2. find out what one vector holds, by taking it away;
3. compare what a model looks at with what it needs.

Needs: class 1 (a prompt is a matrix), the cosine of two vectors. Letters: P virtual tokens (learned
vectors in the place of tokens), C = 128 numbers in a vector, V = 2,048 tokens in the table.

## 1. As words?

People read a vector by its **nearest token**: the one whose row in the embedding table has the
largest **cosine** with it. A cosine is 1 where two vectors point the same way.

We test this. The **base**, our frozen language model, knows the instruction "What is the last
letter of the second word?". A prompt starts at the vectors of these words. Then we teach it another
task in small steps: *first-letter-last*, the first letter of the *last* word. For "Set the vertices
of the polygon." the answer is "e" before, and "p" afterwards.
"""

# %%
import sys
sys.path.insert(0, "classroom")
import torch
import torch.nn.functional as F
from matplotlib import pyplot
from shared import open_lab, table
import plots
from checks import exercise
from model import Past
from softprompt import nearest_tokens
from train import arm_of_tokens, best_hard_prompt, constant, first_letter, measure, new_arm
from train import read_rows, score, train_arms, where
from vectors import lost_alone, lost_rows
lab = open_lab()
model, tok = lab.model, lab.tok  # the frozen base and its tokenizer

# %%
NEW, OLD = "first-letter-last", "last-letter-second"  # two tasks
ids = tok.encode("What is the last letter of the second word?")
arm = arm_of_tokens(lab, NEW, ids, rate=1 / 16)  # starts at these words, and learns the new task
train_arms(lab, [arm], 100, "100 small steps", constant)
tuned = arm.soft.embeddings.detach()  # (P, C)
[row] = measure(lab, [arm], 100, "test", 240)
print(f"accuracy on the new task: {row['accuracy']:.2f}")

# %% [markdown]
r"""
**What to notice.** The vectors do the new task. What do they read as?

### Exercise 1: snap to tokens

Find the nearest token of each vector.

<details><summary>Hint</summary>

`F.normalize(x, dim=1)` makes each row 1 long. Do it with both. Then one matrix product gives all
cosines, (P, V). `argmax(1)` is the column of the largest in each row.

</details>

**Before you run it:** will these tokens say the old task, or the new one, or nothing? Put in the
place of the vectors, which task will they do?
"""

# %%
@exercise
def snap_to_tokens(vectors, table):
    """vectors (P, C), table (V, C) -> ids (P,) of the rows of the table nearest by cosine."""
    raise NotImplementedError

# %%
embeddings = model.model.embed_tokens.weight  # (V, C)
snapped = snap_to_tokens(tuned, embeddings)  # (P,)
print("the vectors read:", tok.decode(snapped.tolist()))
for task in (NEW, OLD):
    [row] = measure(lab, [arm_of_tokens(lab, task, snapped.tolist())], 0, "test", 240)
    print(f"these words on {task}: accuracy {row['accuracy']:.2f}")

start = arm_of_tokens(lab, OLD, ids).soft
turned = F.cosine_similarity(tuned, start.embeddings).acos().rad2deg().mean()
next_best = nearest_tokens(start, model, 2).cosines[:, 1]  # (P,); in column 0 the token itself
away = next_best.acos().rad2deg().mean()
print(f"a vector has turned by {turned:.0f} degrees; the next token is {away:.0f} degrees away")

# %% [markdown]
r"""
**What to notice.** The prompt reads as one instruction and does another. Here
snapping throws away all that training added. Why is this possible? Tokens lie far apart. A vector
may turn a long way, and the token where it started is still its nearest.

Is it this one prompt? `experiments/reading.py` did the same from four texts, in smaller steps,
three times each with other training sentences: three **seeds**. One text is about a night train and
asks for nothing.
"""

# %%
rows = where(read_rows(table("reading")), task=NEW)
for row in where(rows, by="vectors", seed=0):
    print(f"started at: {row['words']:46} now reads: {row['reads']}")

# %%
shown = [row for row in rows if row["by"] in ("vectors", "tokens")]
title = "Who does the new task: the vectors, or the tokens that they read as?"
found = "All vectors do the new task; the tokens that they read as fail, most of them wholly"
plots.dots(shown, "words", "accuracy", title, panel="by")

# %% [markdown]
r"""
**What to notice.** Near each of these four texts there is a prompt for the new
task. Khashabi et al. (2021) found this on large models: *prompt waywardness*. In three of the four
texts training put ` last`. It belongs to the task, and helps the night train to 0.33. So nearest
tokens may show the topic. They do not do what the vectors do.

## 2. By taking a vector away

So we ask in another way: what is lost without it? Take a task with facts in it. *swap-1* asks for
the first letter of the first word, but R and C have changed places: for "Return ..." say C, for
"Compute ..." say R. The base practised first letters. It knows all but these two facts. We train
16 vectors.
"""

# %%
arm = new_arm(lab, "swap-1", "prompt", "vocab", 16, rate=3, seed=3)
train_arms(lab, [arm], 200, "two facts")
past = arm.soft.requires_grad_(False).past(model)
words = arm_of_tokens(lab, "swap-1", tok.encode(best_hard_prompt(lab, "swap-1"))).soft

kinds = {"R": [], "C": [], "other": []}  # test sentences by their first letter
for sentence, row in zip(lab.data["test"], lab.rows("swap-1", "test", 240)):
    letter = first_letter(sentence)
    kinds[letter if letter in kinds else "other"].append(row)

@torch.inference_mode()
def accuracy(past, kind):
    return score(model, past, kinds[kind]).right.mean().item()

for kind in kinds:
    print(f"{kind:6} best words {accuracy(words.past(model), kind):.2f}, "
          f"vectors {accuracy(past, kind):.2f}")

# %% [markdown]
r"""
**What to notice.** The words know the other letters, and neither fact. The vectors know both facts.
In which vector does "say C for R" stand?

### Exercise 2: hide a vector from the text

A `Past` has `keys`, `values`, `positions` (B, P) and `pinned`: one column for each vector. The text
behind it gets the next positions. Its first token gets `past.length`, which is the number of
columns that are not empty. Return a past that is the same but for one position, so that no text
sees virtual token `vector`. Choose the number that changes nothing else:

- `-1` means an empty column. Nobody sees it.
- `2**20` is far in the future. Nobody sees that either: a text sees only what is not later.

<details><summary>Hint</summary>

With an empty column more, `past.length` is smaller: the text moves, and all distances change.
Change a `clone()` of `past.positions`. Virtual tokens are counted from 1, columns from 0. Then
build `Past(past.keys, past.values, positions, past.pinned)`.

</details>

**Before you run it:** when one of 16 vectors is hidden, will all letters lose a little? Or one
letter all?
"""

# %%
@exercise
def without_vector(past, vector):
    """A past like this one, but no text behind it sees virtual token `vector`, counted from 1. The
    text keeps its positions, and the given past stays as it is."""
    raise NotImplementedError

# %%
grid = []
for kind in kinds:
    whole = accuracy(past, kind)
    grid.append([whole - accuracy(without_vector(past, v), kind) for v in range(1, 17)])

# %%
title = "Which letters lose accuracy without this vector?"
found = "Some vectors hold R alone, others C alone, and many nothing that is missed"
plots.squares(grid, ["begins with R", "begins with C", "other letters"], range(1, 17), title)
pyplot.xlabel("the vector that is hidden");

# %% [markdown]
r"""
**What to notice.** Without some vectors only R is lost, without others only C. One vector costs
letters of all kinds: it carries the task. Many cost nothing: they hold nothing, or what another
vector holds as well.

## 3. Ten prompts

This was seed 3, the clearest one. `experiments/vectors.py` trained ten prompts, and hid each vector
of each. Now a row of the picture is a prompt. A number says how much *more* R loses than any other
letter.

**Before you run it:** in how many prompts will one vector hold R for itself? Always the same one?
"""

# %%
rows = lost_rows(read_rows(table("vectors")))  # column `lost`: what is lost without it
grid = [lost_alone(where(rows, seed=seed), "R") for seed in range(10)]

# %%
title = "Without which vector is R lost, and nothing else?"
found = "In nearly all prompts some vector holds R for itself; which one is chance"
plots.squares(grid, [f"seed {seed}" for seed in range(10)], range(1, 17), title)
pyplot.xlabel("the vector that is hidden");

# %% [markdown]
r"""
**What to notice.** Often one vector holds one fact. *Which* vector is chance.
In half of the prompts two vectors are needed: hide one of the two, and R is lost.

## 4. Who looks at it?

A token reads a vector by **attention**: it shares out 1 among all that it sees. One could look at
these shares in place of hiding anything. The base reads `sentence -> answer`, so the answer is
decided at the arrow. We take its shares in the last layer, for the prompt of section 2.

**Before you run it:** will the arrow look most at the vectors that are needed? For R and for C?
"""

# %%
title = "Is what the arrow looks at also what is needed?"
found = "For R the arrow looks at what is needed; for C it misses what is needed most"
figure, axes = pyplot.subplots(2, 1, figsize=(9, 4.4), sharex=True, layout="constrained")
for axis, letter in zip(axes, "RC"):
    own = where(rows, seed=3, letter=letter)
    places = [row["vector"] for row in own]
    axis.bar(places, [row["from_arrow"] for row in own], color="0.6", label="attention")
    axis.plot(places, [row["lost"] for row in own], "o", color="#D55E00", label="lost without it")
    axis.set_ylabel(f"begins with {letter}")
axes[0].legend(loc="upper left")
axes[1].set_xticks(places)
axes[1].set_xlabel("vector")
figure.suptitle(title, x=0.01, ha="left", weight="bold");

# %% [markdown]
r"""
**What to notice.** For R the arrow looks most at what is needed most. For C it looks most at
another vector. (In the ten prompts: right in 8 for R, in none for C.) So attention shows where to
search. Taking away is the test.

## Summary

The tokens nearest to learned vectors may read as one instruction while the vectors do another:
there is room between tokens. What a vector holds is found by hiding it and asking again. Nothing
else may change, so its position goes into the future. Here one vector often holds one fact.
Attention is a hint, not a proof. All of this is one small base.
"""

# %% [markdown]
r"""
## Homework

### From random tokens

In section 1 the prompts started at words and took small steps. Papers show prompts that started
elsewhere. These five start at random tokens, and take large steps.

**Before you run it:** will you find the task in their nearest tokens? A cosine needs something to
compare with. Will theirs be larger than those of random vectors?
"""

# %%
arms = [new_arm(lab, NEW, "prompt", "vocab", 8, rate=1.5, seed=seed) for seed in range(5)]
train_arms(lab, arms, 48, "five prompts")
learned = [row["accuracy"] for row in measure(lab, arms, 48, "test", 240)]
for arm, before in zip(arms, learned):
    near = nearest_tokens(arm.soft, model, 1, torch.Generator().manual_seed(arm.seed))
    snapped = snap_to_tokens(arm.soft.embeddings.detach(), embeddings).tolist()
    [row] = measure(lab, [arm_of_tokens(lab, NEW, snapped)], 0, "test", 240)
    print(f"accuracy {before:.2f}, snapped {row['accuracy']:.2f}, cosine {near.cosines.mean():.2f} "
          f"(random {near.control.mean():.2f})", [tok.decode(i) for i in near.ids.tolist()])

# %% [markdown]
r"""
**What to notice.** ` last` stands in all of them: training put it there. Yet as words they do not
do the task, and the cosines are no larger than those of random vectors. Some token is always
nearest.

### Exercise 3: the same mistakes?

Two of these prompts start from other tokens and see other sentences. Both are nearly always right,
so they must mostly agree. Look at the sentences that the first gets *wrong*: how often does the
second give the same wrong answer?

<details><summary>Hint</summary>

`zip(first, second, truth)` goes through the three lists together. Keep the places where `first` is
not the truth, and count among them.

</details>
"""

# %%
@exercise
def same_mistakes(first, second, truth):
    """Three lists of answers -> a float: of the sentences that `first` gets wrong, the share where
    `second` gives the same wrong answer."""
    raise NotImplementedError

# %%
rows = lab.rows(NEW, "test", 240)
asked, truth = [question for question, _ in rows], [answer[:-1] for _, answer in rows]
said = []
for arm in arms[:2]:
    with torch.no_grad():
        said.append(model.generate(asked, 4, arm.soft.past(model), stop=tok.end))
print(f"the same wrong answer in {same_mistakes(*said, truth):.2f} of the mistakes")

# %% [markdown]
r"""
## Sources

- Khashabi et al. 2021, arXiv 2112.08348 (prompt waywardness)
- Lester, Al-Rfou & Constant 2021, arXiv 2104.08691 (section 7 reads nearest tokens)
- Jain & Wallace 2019, arXiv 1902.10186 (attention alone is no explanation)
"""
