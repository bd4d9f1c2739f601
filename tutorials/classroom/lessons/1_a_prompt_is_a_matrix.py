# %% [markdown]
r"""
# A prompt is a matrix

An instruction in words, a **hard prompt**, is a matrix of numbers for the model; a **soft prompt** is
such a matrix whose numbers were learned.

After this class you can

1. take an instruction apart into vectors, and give them to the model in place of words;
2. train these vectors with your own class and your own loop, while the model stays as it is;
3. count what a prompt costs, and say for which models "0.001 %" is true.

Needs: embeddings, cross-entropy, gradient descent. Letters: B rows, T tokens of text, P vectors, C
numbers in a vector, V tokens in the vocabulary.

## 1. Take an instruction apart

Our model, the **base**, has a million numbers (C = 128, V = 2,048). It is **frozen**: no number of
it ever changes here. An instruction is cut into **tokens**, which are pieces of words. Each token
has a number, its **id**. Each id selects one row of the embedding table (V, C). The model computes
with these rows. It never looks at the ids again.

**Before you run it:** into how many tokens is "Which letter does the last word begin with?" cut?
How many numbers are that?
"""

# %%
import sys
sys.path.insert(0, "classroom")
import torch
from matplotlib import pyplot
from checks import exercise
from softprompt import PromptTuning, load, save
from train import COLOURS, TASKS, Arm, Lab, best_hard_prompt, collate, commonest_answer, draw_rows
from train import fit, load_base, load_data, measure, score, score_hard_prompt, share_of
model, tok = load_base(device="cpu")  # frozen
lab = Lab(model, tok, load_data("../out"))  # lab.rows(task, split, n): sentences as ids
NEW = "first-letter-last"

# %%
text = "Which letter does the last word begin with?"
ids = tok.encode(text)  # P numbers
table = model.model.embed_tokens.weight  # (V, C)
vectors = table[ids]  # (P, C)
P, C = vectors.shape
figure, axis = pyplot.subplots(figsize=(9, 4))
drawn = axis.imshow(vectors, aspect="auto", cmap="RdBu", vmin=-0.2, vmax=0.2)
axis.set_yticks(range(P), [f"{tok.decode([i])!r}   id {i:4}" for i in ids], fontsize=9)
axis.set_xlabel("the 128 numbers of each row")
axis.set_title(f"The instruction as the model gets it: {P} rows of {C} = {P * C:,} numbers")
figure.colorbar(drawn, label="size of the number")
pyplot.show()

# %% [markdown]
r"""
**What to notice.** The instruction is a matrix of 16 rows. There are more rows than words, because
rare words are cut into pieces. You cannot read the meaning from the colours. The model can.

### Exercise 1: vectors before the text

`model(idx)` takes ids. `model(embeds=...)` takes vectors in their place. Both return two things,
the logits and a *past*; take the first. Put the same P vectors before each of B texts. Return the
logits at the text's tokens only.

<details><summary>Hint</summary>

`model.model.embed_tokens(idx)` gives the text's rows, (B, T, C). `vectors.expand(B, -1, -1)` shows
the vectors once for each text. `torch.cat(..., 1)` puts one behind the other. Then cut the first P
slots away.

</details>
"""

# %%
@exercise
def vectors_before_text(model, vectors, idx):
    """vectors (P, C), idx (B, T) ids -> logits (B, T, V) of the text behind the vectors."""
    raise NotImplementedError

# %% [markdown]
r"""
## 2. Once for all texts

In the exercise each text carried its own copy of the vectors through the model. That is not
necessary. The base is **causal**: a token sees what stands before it, never what comes later. So
what the model computes at the instruction is the same for every sentence behind it. The vectors can
go through the model *alone*, once. Later tokens read two things of each earlier token, in every
layer: its **key** and its **value**. All keys and values together are the **past** that the model
returns. Any text can be put behind it.

**Before you run it:** 16 sentences follow (a) the ids of the instruction, (b) its vectors, (c) the
one past of its vectors. By how much do the logits differ? And if a sentence stands *before* the
instruction, are the instruction's values still the same?
"""

# %%
question = torch.tensor([q for q, _ in lab.rows(NEW, "test") if len(q) == 20][:16])  # (B, T)
instruction = torch.tensor([ids] * 16)  # (B, P)
from_ids, whole = model(torch.cat((instruction, question), 1))  # (B, P + T, V), past of all of it
_, turned = model(torch.cat((question, instruction), 1))  # the sentence comes first
_, past = model(embeds=vectors[None])  # the instruction alone, one row
ways = {"vectors": solved(model, vectors, question), "past": model(question, past)[0],
        "nothing": model(question)[0]}  # (B, T, V) each
for name, logits in ways.items():
    print(f"logits after ids, against {name}: {(from_ids[:, P:] - logits).abs().max():.1e}")
left = {"behind": whole.values[-1][:, :, :P], "before": turned.values[-1][:, :, -P:]}
for name, values in left.items():
    print(f"its values, with a sentence {name} it: {(past.values[-1] - values).abs().max():.1e}")

# %% [markdown]
r"""
**What to notice.** Vectors in place of ids change nothing. One past, shared by all 16 sentences,
gives the same logits too. Here the difference is zero. With more processor cores it may be about
0.00001: the same sums, added in another order, are rounded differently. Without the instruction the
logits differ by 16, so the test can fail. A sentence *behind* the instruction does not change its
values. A sentence *before* it does. So one pass is enough only because the prompt stands first.

## 3. A task for which words fail

The task is called *first-letter-last*: say the first letter of the last word of a sentence. The base
never practised it. It did practise the parts: first letters of other words, and other things about
last words. We try four hard prompts, and none at all. An answer is right if the base
writes it exactly. The dashed line is a **baseline**, the simplest thing that could work: always say
the commonest letter. SE is the **standard error**, the uncertainty that comes from having only 240
sentences. The best hard prompt is chosen on *other* sentences (validation), not on the test.

**Before you run it:** each of the four means the same. Will they be equally good?
"""

# %%
words = ["", *TASKS[NEW].hard_prompts]
test = [score_hard_prompt(lab, NEW, text, "test", 240)[1] for text in words]
letter = commonest_answer(TASKS[NEW].pairs(lab.data["train"]))
always = share_of(letter, TASKS[NEW].pairs(lab.data["test"][:240]))
best = words.index(best_hard_prompt(lab, NEW))  # chosen without looking at the test
figure, axis = pyplot.subplots(figsize=(8, 3))
axis.barh([text or "no prompt" for text in words], test, color=COLOURS["wording"],
          xerr=[(x * (1 - x) / 240) ** 0.5 for x in test])
axis.axvline(always, linestyle="--", color=COLOURS["always"])
axis.set(xlim=(0, 1), xlabel=f"right of 240 test sentences (± 1 SE; dashed: always {letter!r})")
axis.set_title(f"The best hard prompt (by validation) has {test[best]:.3f} right", loc="left")
pyplot.show()

# %% [markdown]
r"""
**What to notice.** Four sentences with one meaning give from 0.02 to 0.425. Two of them are worse
than always saying "s". So the base can do something like the task, but it depends on luck with words.
Our instruction from above has 0.08. People try hard prompts by hand. Is there a better way to search?

## 4. Five lines

Nothing in the model asks that the vectors are rows of the table. So let them move. The class below
has a name and five lines. It keeps the vectors as a `Parameter`, which is what an optimizer may
change. Its `past` runs them through the base once. Learned vectors in the place of tokens are called
**virtual tokens**, and this method is called **prompt tuning** (Lester et al. 2021). The project's
class for it is `PromptTuning`.

The base also has a **window**: a token sees only the last 64 slots. The project **pins** virtual
tokens, so that they stay visible however long the text is. Your class does not. We therefore keep
to sentences that fit into the window together with the prompt.

**Before you run it:** 16 sentences stand behind both classes. Do the losses differ?
"""

# %%
class FiveLines(torch.nn.Module):
    def __init__(self, vectors):
        super().__init__()
        self.vectors = torch.nn.Parameter(vectors.clone())  # (P, C)
    def past(self, model):
        return model(embeds=self.vectors[None])[1]

train = [row for row in lab.rows(NEW, "train") if len(row[0]) + len(row[1]) + P <= 64]
idx, targets = collate(train[:16], "cpu")  # (B, T) each
mine, theirs = FiveLines(vectors).past(model), PromptTuning(vectors).past(model)
print(f"losses {model.loss(idx, targets, mine):.4f}, {model.loss(idx, targets, theirs):.4f}; "
      f"logits differ by at most {(model(idx, mine)[0] - model(idx, theirs)[0]).abs().max():.1e}")

# %% [markdown]
r"""
**What to notice.** Five lines do what the project's class does: the largest difference is zero. All
that is learned is one `Parameter` of 2,048 numbers. The loss is bad. The instruction is still the
English that fails.

## 5. Ten lines

A step draws 16 sentences with their answers. The **loss** is minus the logarithm of the probability
of the right token, in **nats** (natural logarithms). Its gradient goes back through the frozen base
into the vectors, and only they move.

### Exercise 2: one step

Do one step of plain gradient descent: vectors minus rate times gradient of `model.loss`. Return new
vectors. Leave the model and the given vectors as they are.

<details><summary>Hint</summary>

`moving = vectors.clone().requires_grad_()` is a copy with a gradient. The past of `moving` goes into
`model.loss(idx, targets, past)`. After `.backward()` the gradient is in `moving.grad`.

</details>

The cell behind the exercise does 60 steps, in ten lines from `optimizer` on. Three things are new.
*AdamW* divides each gradient by its usual size. A gradient longer than 1 is *clipped* to length 1.
The rate rises for five steps and then falls. **Before you run it:** after how many steps is the loss
below 0.5?
"""

# %%
@exercise
def one_prompt_step(model, vectors, idx, targets, rate):
    """vectors (P, C), idx and targets (B, T) -> the vectors after one step (P, C), no gradient."""
    raise NotImplementedError

# %%
STEPS, rate, soft, curve = 60, 1.5 * table.std(), FiveLines(vectors), []
optimizer = torch.optim.AdamW(soft.parameters(), lr=rate, betas=(0.6, 0.9), weight_decay=0)
for step in range(STEPS):
    idx, targets = collate(draw_rows(train, 0, step, 16), "cpu")  # drawn at random; 0: the seed
    loss = model.loss(idx, targets, soft.past(model))
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(soft.parameters(), 1.0)
    optimizer.param_groups[0]["lr"] = rate * min((step + 1) / 5, 1, 1.1 - step / STEPS)
    optimizer.step()
    curve.append(loss.item())
past = soft.requires_grad_(False).past(model)  # learned: from here on nothing moves

# %%
learned = score(model, past, lab.rows(NEW, "test", 240)).right.mean().item()  # of 1 and 0, (240,)
_, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
left.plot(range(1, STEPS + 1), curve, color=COLOURS["prompt"])
left.set(ylim=0, xlabel="step (16 sentences each)", ylabel="loss of the step (nats a token)",
         title=f"The loss falls from {curve[0]:.1f} to {sum(curve[-10:]) / 10:.2f} nats")
x = torch.tensor([test[0], test[best], learned])
right.bar(["no prompt", "best hard prompt", "16 vectors"], x, yerr=(x * (1 - x) / 240) ** 0.5,
          color=[COLOURS[name] for name in ("none", "wording", "prompt")])
right.axhline(always, linestyle="--", color=COLOURS["always"])
right.set(ylim=(0, 1), ylabel="right of 240 test sentences (± 1 SE)",
          title=f"Right: {learned:.2f} with the prompt (dashed: always {letter!r})")
pyplot.show()

# %% [markdown]
r"""
**What to notice.** The same instruction, moved, has 0.96 right. It had 0.08 as English. No hard prompt
of ours has half of that. Most of the loss is gone after 10 steps. On the way it jumps up again, since
the steps are large. One thing is not equal: the vectors have seen 960 sentences with answers, and the
hard prompts none. This is one run. Section 7 has more.

## 6. Count and keep

A prompt is P C numbers. A fine-tuned copy is all N numbers of a model. One often reads that a soft
prompt needs "0.001 %" of the parameters. Is that true?

### Exercise 3: how long may it be?

Somebody allows you a share of a model's numbers, say 0.001 %, which is 0.00001. How many virtual
tokens are that, at most?

<details><summary>Hint</summary>

The share of the numbers is `share * n_parameters`. One virtual token takes `n_embd` of them. A part
of a token does not help.

</details>

Then comes a figure with real models. **Before you run it:** from which size on are 16 vectors 0.001 %?
The cell behind it saves your prompt, loads it, and answers a sentence. A prompt fits one base only.
The file therefore holds the base's **fingerprint**, a code made of all its numbers.
"""

# %%
@exercise
def longest_prompt(n_parameters, n_embd, share):
    """The largest P, an int, whose P C numbers are at most `share` times the parameters."""
    raise NotImplementedError

# %%
shapes = {"our base": (1_000_576, C), "SmolLM2 135M": (134_515_008, 576),
          "GPT-2 XL": (1_557_611_200, 1600), "Llama 7B": (6_738_415_616, 4096),
          "T5-XXL 11B": (11_135_332_352, 4096), "Llama 2 70B": (68_976_648_192, 8192)}
figure, axis = pyplot.subplots(figsize=(8.5, 4), layout="constrained")
for length, style in ((100, "o:"), (P, "o-"), (1, "o--")):
    percent = [100 * length * width / size for size, width in shapes.values()]
    axis.semilogy(list(shapes), percent, style, color=COLOURS["prompt"], label=f"P = {length}")
axis.axhline(0.001, color=COLOURS["always"], label="0.001 %")
first = next(name for name, (size, width) in shapes.items() if P * width <= 1e-5 * size)
axis.set(ylabel="% of all numbers", title=f"{P} vectors are 0.001 % or less from {first} on")
axis.legend()
pyplot.show()

# %%
import tempfile
from pathlib import Path
fresh, _ = load_base(device="cpu")  # the base again, as it is on disk
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "first-letter-last.pt"
    save(PromptTuning(soft.vectors), path, model, task=NEW)
    print(f"{P * C / 1_000_576:.2%} of the base's numbers, {path.stat().st_size:,} bytes")
    again = load(path, fresh)  # refused where the fingerprint is another
row = tok.encode("\nReturn the adjacency matrix of a graph. ->")
answers = [fresh.generate([row], 8, past, stop=tok.end)[0] for past in (None, again.past(fresh))]
print("same fingerprint:", fresh.fingerprint() == model.fingerprint())
print("without a prompt and with it:", [tok.decode(answer) for answer in answers])

# %% [markdown]
r"""
**What to notice.** 16 vectors are 0.2 % of our base. They are 0.001 % or less only from 7 billion
numbers on. With 100 vectors not even the largest model here gets there. The share falls with size,
because a vector grows with the width C of a model, and the model grows with its depth and with the
square of its width. The base's fingerprint is what it was: training changed nothing in it. The file has
10 kilobytes and answers "g", for "graph".

## 7. Only then `fit`

The project's `fit` does what your loop does, for many prompts at once. Each run is called an **arm**:
its vectors, its learning rate, and its **seed**, which decides what sentences it draws. All arms are
rows of one mixed batch over one base. None touches another.

What does a learning rate mean? AdamW divides a gradient by the usual size of that gradient. What is
left is a number near 1 or -1, and the rate times that is the step. So a rate is a *distance*. The
project gives it in units of the size of what moves: for a prompt, the spread (standard deviation) of
the numbers in the embedding table. Your loop had 1.5 of that.

**Before you run it:** the loss is multiplied by 1,000. How far does one step of SGD go then (plain
gradient descent), and one of AdamW? Of six rates from 0.005 to 50 spreads, which learn the task in 60
steps?
"""

# %%
for method in (torch.optim.SGD, torch.optim.AdamW):
    for factor in (1, 1000):
        moving = FiveLines(vectors)
        optimizer = method(moving.parameters(), lr=rate, weight_decay=0)
        (factor * model.loss(idx, targets, moving.past(model))).backward()
        optimizer.step()
        moved = (moving.vectors - vectors).abs().mean() / rate
        print(f"{method.__name__:5}, loss x {factor:5,}: a number moves by {moved:.5f} rates")

# %%
rates, SEEDS, after = (0.005, 0.05, 0.5, 1.5, 5, 50), 3, {}  # rates in spreads of the table
arms = [Arm(PromptTuning(vectors), NEW, rate, seed) for rate in rates for seed in range(SEEDS)]
for step in fit(model, arms, {NEW: train}, STEPS, 16):  # stops before each step and after the last
    if step in (5, 20, STEPS):
        right = [row["accuracy"] for row in measure(lab, arms, step, "test", 240)]  # of each arm
        after[step] = torch.tensor(right).view(-1, SEEDS)  # (rates, seeds)

apart = (arms[9].soft.embeddings - soft.vectors).abs().max()  # arm 9: your loop's rate and seed
print(f"fit and your loop: vectors differ by {apart:.1e}, the table's spread is {table.std():.2f}")
print("right at 1.5, three seeds:", [f"{right:.3f}" for right in after[STEPS][3]])

# %%
figure, axis = pyplot.subplots(figsize=(8, 4), layout="constrained")
for (step, right), style in zip(after.items(), (":", "--", "-")):  # right (rates, seeds)
    axis.semilogx(rates, right, "o", color=COLOURS["prompt"], markersize=3 + step / 20, alpha=0.5)
    axis.semilogx(rates, right.mean(1), style, color=COLOURS["prompt"], label=f"{step} steps")
axis.axhline(test[best], color=COLOURS["wording"], label="best hard prompt")
axis.axhline(always, linestyle="--", color=COLOURS["always"], label=f"always {letter!r}")
axis.set(xticks=rates, xticklabels=rates, xlabel="learning rate (in spreads of the table)",
         ylim=(0, 1), ylabel="right of 240 test sentences (dots: seeds)")
good = [rate for rate, right in zip(rates, after[STEPS]) if right.min() > 0.9]
axis.set_title(f"After {STEPS} steps, rates from {good[0]} to {good[-1]} have all learned the task")
figure.legend(loc="outside right center")
pyplot.show()

# %% [markdown]
r"""
**What to notice.** `fit` found your loop's vectors, up to rounding, beside 17 other arms. Three seeds
agree: about 0.95. A step of AdamW has the same size for a loss a thousand times larger; SGD's does
not. So its rate is a distance. Rates that differ by a factor of 1,000 all learn the task here. The
smallest is too slow for 60 steps. After 5 steps the seeds still lie far apart. So the rate decides
the pace more than the end.

## Summary

An instruction is a matrix of P rows of the embedding table. The model gives the same logits for the
matrix as for the words. Because it is causal, the matrix goes through it once for all texts. Let the
numbers move, and five lines of class with ten lines of loop learn a task for which our hard prompts
fail. The base stays as it is. A prompt costs P C numbers. 16 vectors are 0.2 % here, and 0.001 % from
models of 7 billion on. All of this is for a task near what the base had practised. A task far from that
is learned much less well ([RESULTS.md](RESULTS.md)).

## Sources

- Lester, Al-Rfou & Constant 2021, arXiv 2104.08691 (prompt tuning)
- Loshchilov & Hutter 2017, arXiv 1711.05101 (AdamW)
"""
