# %% [markdown]
r"""
# Can you read it?

A soft prompt does the work of an instruction, but nobody can read it as one.

After this class you can

1. look up the tokens nearest to learned vectors, and judge the result with a control;
2. test a reading: put the words in place of the vectors and measure;
3. compare two prompts, by their vectors and by what they do.

Needs: class 1 (a prompt is a matrix), the cosine of two vectors. Letters: P virtual tokens (learned
vectors in the place of tokens), C = 128 numbers in a vector, V = 2,048 tokens in the table.

## 1. Twelve prompts to read

The base (the language model) is frozen: its weights never change. We train prompts of 8 vectors for
two tasks. *library* was practised by the base: which of six libraries is a sentence from?
*first-letter-last* was never practised: the first letter of the last word.
A prompt starts from *related text* (English for the task) or from *sampled tokens* (random rows of
the table of embeddings). A *seed* is a number that fixes what is random: the sampled tokens and the
training sentences. Three seeds make twelve prompts. They all train as one batch.

An instruction in words is a *hard prompt*. **Before you run it:** on which of the two tasks will the
vectors be much better than the best hard prompt?
"""

# %%
import sys
sys.path.insert(0, "classroom")
import torch
import torch.nn.functional as F
from itertools import permutations, product
from matplotlib import pyplot
from checks import exercise
from softprompt import PromptTuning, nearest_tokens, prefill
from train import COLOURS, STARTS, TASKS, Lab, best_hard_prompt, commonest_answer, fit, load_base
from train import load_data, mean_of_arms, new_arm, score, score_hard_prompt, share_of
model, tok = load_base(device="cpu")  # frozen
lab, table = Lab(model, tok, load_data("../out")), model.model.embed_tokens.weight  # (V, C)

# %%
def share_right(prompts, task, split="test", n=240):
    """The share of n sentences that each of A matrices (P, C) answers right: (A,)."""
    rows = lab.rows(task, split, n) * len(prompts)
    with torch.inference_mode():
        past = prefill([PromptTuning(vectors) for vectors in prompts], model)
        return mean_of_arms(score(model, past, rows), len(prompts))[1]

P, names, rate = 8, ("library", "first-letter-last"), 1.5  # in spreads of the table
runs = [*product(names, ("related", "vocab"), range(3))]  # (task, start, seed)
arms = [new_arm(lab, task, "prompt", start, P, rate, seed) for task, start, seed in runs]
starts = torch.stack([arm.soft.embeddings.detach() for arm in arms]).view(2, 6, P, -1)

# %%
train = {task: lab.rows(task, "train") for task in names}
for step in fit(model, arms, train, steps=48, size=16):
    pass  # no looking while they train
tuned = torch.stack([arm.soft.embeddings.detach() for arm in arms]).view(2, 6, P, -1)
best, always = {}, {}  # shares right: of the best hard prompt, and of the commonest answer
for task, vectors in zip(names, tuned):
    best[task] = score_hard_prompt(lab, task, best_hard_prompt(lab, task), "test", 240)[1]
    common = commonest_answer(TASKS[task].pairs(lab.data["train"]))
    always[task] = share_of(common, TASKS[task].pairs(lab.data["test"][:240]))
    right = [round(x, 2) for x in share_right([table[:0], *vectors], task).tolist()]
    print(f"{task:18} no prompt {right[0]}, hard {best[task]:.3f}, soft {right[1:]}")

# %% [markdown]
r"""
**What to notice.** On *library*, which the base has practised, the best hard prompt has 0.82 right and
the soft ones have no more. On *first-letter-last* the best hard prompt (chosen on 240 validation
sentences) has 0.425, and all six soft ones have at least 0.93. The base never changed. So these vectors
say something that our English does not say. Can we read it?

## 2. The nearest tokens

The usual way to read a vector: find the token whose embedding has the largest cosine with it. But
some token is always nearest. So we need a *control*: random vectors that know nothing of the task.
They are Gaussian, with the mean and the spread (standard deviation) of each column of the table.

**Before you run it:** will the nearest tokens of *first-letter-last* say what the task is? From
related text? From sampled tokens?
"""

# %%
def my_neighbours(vectors, k, generator):
    """The k nearest tokens of each vector by cosine, and the cosines of random vectors: (P, k)."""
    units = F.normalize(table, dim=1)  # (V, C)
    noise = torch.randn(vectors.shape, generator=generator)  # (P, C)
    random = table.mean(0) + table.std(0) * noise  # (P, C)
    near = (F.normalize(vectors, dim=1) @ units.T).topk(k, 1)  # (P, k)
    control = (F.normalize(random, dim=1) @ units.T).topk(k, 1)  # (P, k)
    return near.indices, near.values, control.values

# %%
every = tuned.flatten(0, 2)  # (12 P, C)
ids, cosines, control = my_neighbours(every, 1, torch.Generator().manual_seed(0))
theirs = nearest_tokens(PromptTuning(every), model, 1, torch.Generator().manual_seed(0))
apart = max((cosines - theirs.cosines).abs().max(), (control - theirs.control).abs().max())
print(f"softprompt.nearest_tokens: same tokens {torch.equal(ids, theirs.ids)}, largest difference "
      f"{float(apart)}\nnearest to tuned vectors {cosines.mean():.2f}, to random vectors "
      f"{control.mean():.2f} (cosine)\n")
for (task, start, seed), tokens in zip(runs, ids.view(-1, P).tolist()):
    if start == "vocab" or seed == 0:
        words = "|".join(repr(tok.decode([token]))[1:-1] for token in tokens)
        print(f"{task:18} {STARTS[start].label:15}{words}")

# %% [markdown]
r"""
**What to notice.** No line is a sentence, and nothing says "first letter". But look for words of the
task. ` last` is in all three prompts for the *last* word that began with sampled tokens, `ib` or
`rary` in all three for *library*. The other task's have none of them. Training put them there. So
single words of the topic can be read; Lester et al. (2021) saw such words too. And the control? Its
cosine is *larger*: 0.62 against 0.45.

### Exercise 1: a second control

Those random vectors have the same mean as the tokens: that alone brings them near. Tuned vectors have
moved far away from it. What cosine is left if they move as far, but in random directions? Each vector
keeps its own distance.

<details><summary>Hint</summary>

Make each row of `noise` 1 long (`F.normalize(noise, dim=1)`). Multiply it by the distance that
this row of the prompt has moved: `norm(dim=1, keepdim=True)` gives (P, 1).

</details>

The cell behind it draws both controls and the tuned vectors. **Before you run it:** will the second
control be above the tuned vectors or below?
"""

# %%
@exercise
def random_steps(start, tuned, noise):
    """start, tuned, noise (P, C) -> (P, C): from start, as far as tuned, but along the noise."""
    raise NotImplementedError

# %%
gen, origin = torch.Generator().manual_seed(1), starts.flatten(0, 2)  # (12 P, C)
stepped = random_steps(origin, every, torch.randn(every.shape, generator=gen))  # (12 P, C)
walked = my_neighbours(stepped, 1, gen)[1]  # (12 P, 1)
figure, axis = pyplot.subplots(figsize=(8.5, 4))
axis.set_title(f"Tuned vectors ({cosines.mean():.2f}) lie between the two controls")
axis.set_xticks(range(4), [f"{task}\n{STARTS[start].label}" for task, start, _ in runs[::3]])
axis.set(xlim=(-0.4, 3.4), ylim=(0, 0.8), ylabel="cosine to nearest token (dots: seeds)")
shown = {"matched": control, "prompt": cosines, "unrelated": walked}
for (name, x), label in zip(shown.items(), ("random vectors", "tuned", "random steps as far")):
    axis.plot(x.view(4, 3, P).mean(2), "o", color=COLOURS[name], label=[label, "", ""])
    axis.legend(frameon=False, ncol=3, loc="lower center")

# %% [markdown]
r"""
**What to notice.** The two controls give opposite answers. Beside random vectors with the table's
mean, the tuned vectors are *less* like tokens. Beside steps as long in random directions (0.30)
they are *more* like tokens: 0.45. Both are true. Vectors have left the cloud of tokens, and on their
way they prefer directions of some tokens. A cosine without a named control says nothing.

## 3. Put the words in place of the vectors

### Exercise 2: snap to tokens

If the nearest tokens *were* the prompt, they could take the place
of the vectors. Find them.

<details><summary>Hint</summary>

`F.normalize` the rows of both. One matrix product then gives all cosines (P, V). `argmax(1)` is
the column of the largest in each row.

</details>

The cell behind it measures each prompt three times: at its start, tuned, and snapped to the nearest
tokens. **Before you run it:** what is left of the accuracy on each task?
"""

# %%
@exercise
def snap_to_tokens(vectors, table):
    """vectors (P, C), table (V, C) -> ids (P,) of the nearest rows by cosine."""
    raise NotImplementedError

# %%
snapped, states = table[snap_to_tokens(every, table)].view(tuned.shape), ["start", "tuned", "words"]
figure, axes = pyplot.subplots(1, 2, figsize=(9.5, 4.2), layout="constrained")
for task, axis, *three in zip(names, axes, starts, tuned, snapped):
    right = torch.stack([share_right(prompts, task) for prompts in three])  # (3, 6)
    for start, x in (("related", right[:, :3]), ("vocab", right[:, 3:])):
        axis.plot(states, x, "o-", color=COLOURS[start], label=[STARTS[start].label, "", ""])
    axis.axhline(best[task], color=COLOURS["wording"], ls=":", label="best hard prompt")
    axis.axhline(always[task], color=COLOURS["always"], ls="--", label="commonest answer")
    axis.set(title=f"{task}: from vectors to words {(right[2] - right[1]).mean():+.2f}",
             ylabel="right on 240 test sentences", ylim=(-0.03, 1.03))
    axis.legend(frameon=False, fontsize=8)

# %% [markdown]
r"""
**What to notice.** On *first-letter-last* the words lose nearly all: they end near the commonest
answer and below a hard prompt. What was learned lies in the part of the vectors that snapping throws
away. On *library* the words keep nearly everything. Then can that prompt be read? Be careful: this
task may need hardly any prompt. The next section tries what words chosen by chance do.

## 4. Vectors against texts

Every text is a matrix of rows of the table, but few matrices are texts. So vectors can do all that
a text of their length can do. Can they do more? Two rivals: every hard prompt that we have
(11 to 16 tokens), and 200 random strings of 8 tokens. Each is measured on 40 validation sentences
(dots, sorted). The best of each kind is then measured on 240 test sentences (◆; of the hard prompts
the one from above). Dashed is the commonest answer.

**Before you run it:** what will the best of 200 random strings reach on each task?
"""

# %%
strings = table[torch.randint(len(table), (200, P), generator=gen)]  # (200, P, C)
_, axes = pyplot.subplots(1, 2, figsize=(9.5, 4.2), sharey=True, layout="constrained")
for task, vectors, axis in zip(names, tuned, axes):
    hard = [table[tok.encode(text)] for text in TASKS[task].hard_prompts]  # (P, C) each
    for x, (name, prompts) in enumerate(dict(vocab=strings, wording=hard, prompt=vectors).items()):
        valid = share_right(prompts, task, "valid", 40)  # (A,)
        test = best[task] if name == "wording" else share_right([prompts[valid.argmax()]], task)[0]
        axis.plot(x + torch.linspace(-0.3, 0.2, len(valid)), valid.sort()[0], ".", c=COLOURS[name])
        axis.text(x + 0.23, test, f"◆ {test:.3f}", color=COLOURS[name], va="center")
    axis.axhline(always[task], color=COLOURS["always"], ls="--")
    axis.set(title=f"{task}: tuned {test - best[task]:+.2f} beside words", xlim=(-0.5, 2.8),
             xticks=range(3), xticklabels=["200 strings", "words", "tuned"], ylabel="share right")

# %% [markdown]
r"""
**What to notice.** On *library* many random strings do well, and the best has 0.70 on test. So it
proves nothing that words kept the accuracy there. On *first-letter-last* nearly all strings have
nothing right. Their best has 0.20, hard prompts 0.425, the vectors 0.94: here vectors say more than any
text that we found. Two limits: there are far more strings than 200, and the vectors have learned
from 768 answers, the texts from none.

## 5. How far do they move?

The table is 2,048 points in 128 dimensions. First the distances: how far a vector has moved, and how
far it is then from its nearest token. Then a picture of two dimensions, for one prompt for
*first-letter-last*. The usual two are the first *principal components*: the directions in which the
points are spread most. The share of the *variance* (the mean squared distance from the mean) that
they hold says how much one sees. For moves it is the share of their squared length.

**Before you run them:** does a vector move farther than it is from a token to its neighbour? What
share of that way will two components show?
"""

# %%
gap = torch.cdist(table, table).fill_diagonal_(torch.inf).amin(1).median()
moved, left = (every - origin).norm(dim=1), torch.cdist(every, table).amin(1)  # (12 P,) each
figure, axis = pyplot.subplots(figsize=(8.5, 3.8))
axis.axhline(gap, color="black", ls=":", label="from a token to the nearest other")
axis.set_xticks(range(4), [f"{task}\n{STARTS[start].label}" for task, start, _ in runs[::3]])
axis.set(xlim=(-0.4, 3.4), ylim=(0, 5), ylabel="distance (mean, one mark a seed)")
axis.set_title(f"Vectors moved {moved.mean() / gap:.0f} times as far as tokens lie apart")
for way, shift, marker, label in ((moved, -0.06, "o", "from its start"),
                                  (left, 0.06, "^", "to its nearest token")):
    x = way.view(4, 3, P).mean(2)  # (4, 3)
    axis.plot(torch.arange(4) + shift, x, marker, color=COLOURS["prompt"], label=[label, "", ""])
    axis.legend(frameon=False, ncol=3, loc="upper center")

# %%
centred = table - table.mean(0)  # (V, C)
two = torch.linalg.svd(centred, full_matrices=False).Vh[:2].T  # (C, 2): the first two components
seen = [float((x @ two).square().sum() / x.square().sum()) for x in (centred, every - origin)]
tokens, then, now = [(x - table.mean(0)) @ two for x in (table, starts[1, 3], tuned[1, 3])]
figure, axis = pyplot.subplots(figsize=(7, 4.6))
axis.set(xlabel="first component", ylabel="second component")
axis.set_title(f"You see {seen[0]:.0%} of the table's variance, but {seen[1]:.0%} of the moves")
axis.plot(*torch.stack((then, now)).permute(2, 0, 1), color="black", lw=0.8)  # (2, 2, P)
for x, colour, name in ((tokens, "0.8", "tokens"), (then, COLOURS["vocab"], "start"),
                        (now, COLOURS["prompt"], "tuned")):
    axis.scatter(*x.T, s=4 if len(x) > P else 40, color=colour, label=name)
    axis.legend(frameon=False)

# %% [markdown]
r"""
**What to notice.** A vector moves about 7 times as far as it is from a token to the nearest other.
Then its nearest token is nearly as far as its start. It does not walk from word to word, it leaves
the cloud. In the picture some tuned vectors lie among the tokens. They do not: you see 41 % of how
tokens differ, but 2 % of the moves. The distance depends on the learning rate, too: each step of AdamW
moves each number by about the rate.

## 6. Two seeds, one task

Two seeds start from other tokens and see other sentences. Are the two prompts alike? We take the
cosine of the vectors at the same place, and in the best of all 40,320 orders of the second prompt.
The best order always looks better, so we do it for vectors after random steps as well. Then both
prompts answer the same 240 sentences. At last we go on a straight line from one prompt to the other.

**Before you run them:** how often will two prompts give the same answer? And will their average
still do the task?
"""

# %%
def likeness(a, b):
    """The mean cosine of vectors (P, C): at the same place, and in the best order of b."""
    cosines = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T  # (P, P)
    ordered = cosines[range(P), torch.tensor([*permutations(range(P))])]  # (P!, P)
    return f"{cosines.diag().mean():5.2f} in place, {ordered.mean(1).max():.2f} in best order"

for task, vectors, far in zip(names, tuned, stepped.view(tuned.shape)):
    asked = [question for question, _ in lab.rows(task, "test", 240)]
    said = [model.generate(asked, 4, PromptTuning(x).past(model), stop=tok.end) for x in vectors]
    for a, b in ((3, 4), (3, 5), (4, 5)):  # pairs of seeds from sampled tokens
        print(f"{task:18}{likeness(vectors[a], vectors[b])} (random {likeness(far[a], far[b])})",
              f"{sum(x == y for x, y in zip(said[a], said[b])) / 240:.2f} same answers")

# %%
shares, pairs = torch.linspace(0, 1, 7), ((3, 4), (3, 5), (4, 5))
figure, axes = pyplot.subplots(1, 2, figsize=(9.5, 4.2), layout="constrained")
for task, vectors, noise, axis in zip(names, tuned, stepped.view(tuned.shape), axes):
    for ends, name, label in ((noise, "unrelated", "to random steps as far"),
                              (vectors, "prompt", "to another seed's prompt")):
        ways = [vectors[a].lerp(ends[b], share) for a, b in pairs for share in shares]
        right = share_right(ways, task, n=120).view(3, -1)  # (3 pairs, 7 shares)
        axis.plot(shares, right.T, "o-", color=COLOURS[name], label=[label, "", ""])
    axis.axhline(always[task], color=COLOURS["always"], ls="--", label="commonest answer")
    axis.set(title=f"{task}: the average has {right[:, 3].mean():.2f}", ylim=(-0.03, 1.03),
             xlabel="share of the second (0.5: the average)", ylabel="right on 120 test sentences")
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(0, 0.6))

# %% [markdown]
r"""
**What to notice.** The vectors are little alike: 0.10 to 0.28 at the same place. That is more than
nothing, for random steps have about 0. Yet both prompts give the same answer to at least 0.94 of the
sentences. We expected that their average fails. It does not: on the new task it has 0.86, less than
its two ends. But halfway to random vectors most of the accuracy is still there too. So this shows how
much noise a prompt bears, and not that two prompts agree.

### Exercise 3: the same mistakes?

Two prompts that are nearly always right must mostly agree. So look at the sentences that the first
gets wrong: how often does the second give the *same wrong* answer? When it is right, try it on
`said[3]` and `said[4]`, with `truth = [x[:-1] for _, x in lab.rows(task, "test", 240)]`.

<details><summary>Hint</summary>

`zip(first, second, truth)` goes through the three lists together. Keep the places where `first`
is not the truth, and count among them. No mistake at all: there is nothing to divide by.

</details>
"""

# %%
@exercise
def same_mistakes(first, second, truth):
    """Three lists of answers -> two shares: how often first and second are equal, of all sentences
    and of those that first gets wrong (None where it gets none wrong)."""
    raise NotImplementedError

# %% [markdown]
r"""
## Summary

The tokens nearest to learned vectors are no sentence. Single words of the topic show through, but in
place of the vectors they do not do a new task. For such a task the vectors say more than all texts
that we tried. On a task that the base has practised, they say no more than English. The vectors leave
the cloud of tokens, and a picture of two components hides nearly all of the way. Two seeds give two
prompts that are little alike and answer alike. A reading needs two tests: a control, and the words
in place of the vectors. At a fifth of our learning rate the vectors stay nearer: see "Reading the
vectors" in [RESULTS.md](RESULTS.md). All of this is one small base, two tasks and three seeds.

## Sources

- Lester, Al-Rfou & Constant 2021, arXiv 2104.08691 (prompt tuning; section 7 reads nearest tokens)
- Khashabi et al. 2021, arXiv 2112.08348 (prompts that do one task and read as any other text)
- Li & Liang 2021, arXiv 2101.00190 (why vectors can say more than words)
"""
