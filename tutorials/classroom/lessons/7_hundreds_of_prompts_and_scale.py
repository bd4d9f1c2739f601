# %% [markdown]
r"""
# Hundreds of prompts, and the power of scale

One frozen model, the *base*, serves any number of soft prompts in one batch; and the larger the
base, the nearer a prompt comes to training all its weights.

After this class you can

1. lay different prompts row under row in one batch, and show that no row touches another;
2. say what a prompt's file must remember, and what an update of the base does to old prompts;
3. measure whether prompts catch up with all weights as a base grows, and say when they cannot.

Needs: what a `Past` is (class 4). A *virtual token* is a learned vector in the place of a token; P
of them are a prompt. A *prefix* is P learned keys and values in every layer. B rows are a batch, S
slots a past, V tokens a vocabulary; Hkv key heads have D numbers each.

## 1. A batch in which every row has another prompt

The tasks: which library a sentence is from (*library*), how many words it has (*count*), class or
function (*kind*), its last word (*repeat-last*), and the first letter of its last word
(*first-letter-last*). The base practised all but the last one, which is new to it.

Ten runs train together. Each has its own *seed*, which decides its start and its sentences. Then
five of their pasts, and an empty one, are laid row under row. A shorter past is filled up with empty
slots, of position -1: nothing is here. **Before you run it:** the prompts have 0, 3, 8 and 14
vectors. At which position does the text start in each row? Can a row see its neighbour's prompt?

Last, N questions stand behind N prompts, in one batch and one at a time. The prompts' states are
ready before the clock starts. **Before you run it:** how many times as fast is the batch at N = 64?
"""

# %%
import sys
sys.path.insert(0, "classroom")
from time import perf_counter
import torch
from matplotlib import pyplot
from checks import exercise
from shared import COLOURS, LABELS, learn, watch
from methods import AllWeights, LoRA, lab_on_a_copy
from model import Past, read
from softprompt import PromptTuning, batch, load, save
from train import TASKS, Arm, Lab, best_hard_prompt, commonest_answer, fit, load_base, load_data
from train import measure, new_arm, score_hard_prompt, share_of

# %%
lab = Lab(*load_base(device="cpu"), load_data("../out"))  # the base is frozen
model, tok, data = lab.model, lab.tok, lab.data
RATES = {"prompt": 1.5, "prefix": 0.45}  # in units of the size of what moves
RUNS = [("library", "prompt", 8), ("count", "prompt", 8), ("first-letter-last", "prompt", 14),
        ("repeat-last", "prefix", 8), ("kind", "prompt", 3)]
def train_all(lab, runs):
    arms = [new_arm(lab, task, method, "vocab", P, RATES[method], seed)
            for seed in (0, 1) for task, method, P in runs]
    watch(lab, arms, 32, (), 12)  # 32 steps of 12 sentences, and no look while they train
    return arms
arms = train_all(lab, RUNS)

# %%
def fill(x, S):  # (1, Hkv, S', D) -> (1, Hkv, S, D): zeros in the empty slots
    zeros = x.new_zeros(1, x.shape[1], S - x.shape[2], x.shape[3])
    return torch.cat((x, zeros), 2)

def my_batch(pasts):
    S = max(past.positions.shape[1] for past in pasts)
    layers = range(len(pasts[0].keys))
    keys = [torch.cat([fill(past.keys[i], S) for past in pasts]) for i in layers]
    values = [torch.cat([fill(past.values[i], S) for past in pasts]) for i in layers]
    places = [past.positions[0].tolist() + [-1] * (S - past.positions.shape[1]) for past in pasts]
    return Past(keys, values, torch.tensor(places), torch.cat([past.pinned for past in pasts]))

# %%
softs = [PromptTuning(torch.zeros(0, 128)), *(arm.soft for arm in arms[:5])]
names = ["no prompt", *(f"{task}, {method}" for task, method, _ in RUNS)]
pasts = [soft.past(model) for soft in softs]
past, theirs = my_batch(pasts), batch(pasts)  # B = 6 twice
text = next(s.text for s in data["test"] if s.library == "networkx" and s.kind == "function")
answers = model.generate([tok.encode(f"\n{text} ->")] * 6, 6, past, stop=tok.end)
print(f"{text!r}\n{'':25s} positions of the 14 slots")
for name, places, start, answer in zip(names, past.positions.tolist(), past.length, answers):
    slots = "".join(f"{p:3d}" for p in places)
    print(f"{name:25s}{slots}  text from {start:2d}:{tok.decode(answer)}")
pairs = zip(past.keys + past.values, theirs.keys + theirs.values)
print("largest difference to batch:", max((a - b).abs().max().item() for a, b in pairs))

# %%
asked = [tok.encode(f"\n{s.text} ->") for s in data["test"][:64]]
many = past.rows(torch.arange(64) % 6)  # B = 64: the six prompts in turn
single = [many.rows(torch.tensor([n])) for n in range(64)]  # B = 1 each
for N in (1, 4, 16, 64):
    own, ratios = many.rows(torch.arange(N)), []
    for turn in range(3):
        begun = perf_counter()
        together = model.generate(asked[:N], 3, own)
        between = perf_counter()
        alone = [model.generate([row], 3, each)[0] for row, each in zip(asked[:N], single)]
        ratios.append((perf_counter() - between) / (between - begun))
    print(f"N = {N:2d}: {sorted(ratios)[1]:.1f} times as fast, equal answers: {together == alone}")

# %% [markdown]
r"""
**What to notice.** Six ways to ask give their answers in one pass. Two are wrong: the sentence is from
networkx, and its last word begins with t. The text starts where each row's own prompt ends. Empty
slots have no position, so no row attends to them. Our batch and the project's are equal. The
answers in the batch and alone are all the same. At N = 64 the batch was about 6 times as fast on
this shared machine: a rough number.

### Exercise 1: one pass for all

Prompt i stands before text i. Prompts and texts have different lengths. Return the logits at each
text's last token, with one pass over the prompts and one over the texts. (`prefill` runs prompts of
any lengths through the model in one padded pass, and returns their pasts as one batch.)

<details><summary>Hint</summary>

Texts may be padded on the left with ids of -1. Then every last token is in the last column.
`prefill([PromptTuning(x) for x in vectors], model)` makes the past.

</details>
"""

# %%
@exercise
def mixed_logits(model, vectors, rows):
    """vectors: B tensors (P_i, C); rows: B lists of ids -> logits (B, V) at the last tokens."""
    raise NotImplementedError

# %% [markdown]
r"""
## 2. A prompt's file, and a base that moves on

A prompt is saved. Then one number of the base becomes the next one that float32 has. **Before you
run it:** what must the file hold, so that nobody uses it wrongly in a year?

Is `load` too strict? The base trains 20 more steps of 32 sentences on the tasks it practised, asked in
words: once at a learning rate of 3e-4 (gentle), once at 1e-3 (strong). The old prompts are tried on the
new bases. Two controls stand beside them: the same runs trained anew on each new base, and the best
*hard prompt* (an instruction in words). **Before you run it:** after an update, which is safer, an old
prompt or a hard one?
"""

# %%
from tempfile import mkdtemp
path = f"{mkdtemp()}/library.pt"
save(arms[0].soft, path, model, task="library", steps=32)
content = read(path, "a soft prompt", ("kind", "base", "facts", "state"))
print(f"{len(open(path, 'rb').read()):,} bytes, {arms[0].soft.embeddings.nbytes:,} of them vectors")
print("kind", content["kind"], "- facts", load(path, model).facts, "- base", content["base"][:16])
nudged = lab_on_a_copy(lab).model
nudged.model.norm.weight[0] = torch.nextafter(model.model.norm.weight[0], torch.tensor(9.0))
try:
    load(path, nudged)
except ValueError as problem:
    print(str(problem).replace(path, "library.pt"))

# %%
from itertools import product
ALWAYS = {task: share_of(commonest_answer(TASKS[task].pairs(data["train"])),
                        TASKS[task].pairs(data["test"][:240])) for task, _, _ in RUNS}

def asked_in_words(lab, task):
    """The share right on test, behind the hard prompt that is best on validation."""
    return score_hard_prompt(lab, task, best_hard_prompt(lab, task), "test", 240)[1]

# %%
more = [tok.example(sentence.text, task.answer(sentence), task.practised[1])
        for task in TASKS.values() if task.practised for sentence in data["train"][:500]]
moved, shares = {"before": lab}, {}
for name, rate in (("gentle", 3e-4), ("strong", 1e-3)):
    moved[name] = lab_on_a_copy(lab)
    arm = Arm(AllWeights(moved[name].model), "more", rate)
    for step in fit(moved[name].model, [arm], {"more": more}, 20, 32):
        pass
    moved[name].model.requires_grad_(False)
for (name, place), how in product(moved.items(), ("anew", "old")):
    tried = arms if how == "old" or place is lab else train_all(place, RUNS[:3])
    shares[name, how] = measure(place, tried, 0, "test", 240)

# %%
figure, axes = pyplot.subplots(1, 3, figsize=(10, 4), sharey=True, layout="constrained")
for axis, task in zip(axes, ("library", "count", "first-letter-last")):
    for how, style in (("anew", "x:"), ("old", "o-")):  # two seeds, a line each
        runs = [[row["accuracy"] for row in shares[n, how] if row["task"] == task] for n in moved]
        axis.plot(list(moved), runs, style, color=COLOURS["prompt"], label=[f"prompts, {how}", "_"])
    spoken = [asked_in_words(place, task) for place in moved.values()]
    axis.plot(list(moved), spoken, "D--", color=COLOURS["wording"], label="best hard prompt")
    axis.axhline(ALWAYS[task], color=COLOURS["always"], ls="--", label="commonest answer")
    before, after = sum(runs[0]) / 2, sum(runs[2]) / 2  # of the old prompts
    axis.set_title(f"{TASKS[task].question}\nprompts {before:.2f} to {after:.2f}")
axes[0].set(ylim=(0, 1.03), ylabel="share right of 240 test sentences")
legend = figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncol=4)

# %% [markdown]
r"""
**What to notice.** The file holds vectors, kind, facts and the *fingerprint*: a hash of the base's
shape and weights. One weight changed in its last digit, and `load` refuses. The gentle update did
little harm. The strong one took *count* from 0.93 to 0.72. The hard prompt fell as well, and prompts
trained anew fell less: the base lost something, the old prompts lost more. *library* hardly moved. In
the new task the seed mattered more than the update, and the hard prompt rose. Only a test can tell.

### Exercise 2: of another base?

Say whether the prompt in a file belongs to another base than `model`. A damaged file is no answer
to this question: there a ValueError must come out. (`load` raises one in both cases.)

<details><summary>Hint</summary>

`read`, in the cell that saved the prompt, raises the ValueError of a damaged file by itself.
`model.fingerprint()` is what this base would write into a file.

</details>
"""

# %%
@exercise
def refuse(path, model):
    """True where the prompt in the file is of another base, False where it is of this one."""
    raise NotImplementedError

# %% [markdown]
r"""
## 3. The power of scale

Lester et al. (2021) found that prompts catch up with training all weights as models grow. Here are
three bases: 62 thousand, 279 thousand and one million numbers. The two small ones read the same
texts but practised tasks for half as many steps. Five ways to ask: the best hard prompt (by
validation), a prompt of 16, a prefix of 16, *LoRA* (small matrices that are learned beside each
attention weight, rank 4), and *fine-tuning all weights*. Two seeds each.

Each method has one learning rate for all sizes. It was chosen beforehand, from three or four tried at
every size, by the validation loss of other seeds: the best or near it. There is one exception. All
weights of the tiny base take three times that rate on the new task, which was clearly better. In the
runs before, the first gap was 0.13 at that rate and 0.07 at the common one.

*library* was practised by all three bases (15 steps), *first-letter-last* by none (48 steps).

**Before you run it:** draw the five curves for both tasks. Where is the gap between the prompt and
all weights largest?
"""

# %%
def trained(lab, task, method, rate, steps):  # the share right, for each of two seeds
    shares = []
    for seed in (0, 1):
        other = lab_on_a_copy(lab)  # LoRA and all weights change the base itself
        if method == "lora":
            arm = Arm(LoRA(other.model, seed), task, rate, seed)
        elif method == "full":
            arm = Arm(AllWeights(other.model), task, rate, seed)
        else:
            arm = new_arm(other, task, method, "vocab", 16, rate, seed)
        shares += learn(other, [arm], steps)
    return shares

# %%
labs = {n: Lab(*load_base(f"{n}.pt", "cpu"), data) for n in ("base-tiny", "base-small", "base")}
found, STEPS = {}, {"library": 15, "first-letter-last": 48}
for (name, place), (task, steps) in product(labs.items(), STEPS.items()):
    found[name, task, "wording"] = [asked_in_words(place, task)]
    for method, rate in {**RATES, "lora": 1e-2, "full": 1e-3}.items():
        if (name, task, method) == ("base-tiny", "first-letter-last", "full"):
            rate = 3 * rate
        found[name, task, method] = trained(place, task, method, rate, steps)

def point(shares):  # mean, and one standard error of the seeds and of the sentences
    x, n = torch.tensor(shares), max(len(shares) - 1, 1)
    return x.mean(), (x.var(correction=0) / n + x.mean() * (1 - x.mean()) / 240).sqrt()

# %%
figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.6), sharey=True, layout="constrained")
for axis, task in zip(axes, STEPS):
    for i, method in enumerate(("wording", "prompt", "prefix", "lora", "full")):
        points = [point(found[name, task, method]) for name in labs]
        x = [n + 0.05 * (i - 2) for n in range(3)]  # a little apart, so that the bars can be seen
        axis.errorbar(x, *zip(*points), fmt="o-", color=COLOURS[method], label=LABELS[method])
    axis.axhline(ALWAYS[task], color=COLOURS["always"], ls="--", label="commonest answer")
    gap = [point(found[n, task, "full"])[0] - point(found[n, task, "prompt"])[0] for n in labs]
    gaps = ", ".join(f"{x:.2f}" for x in gap)
    axis.set_title(f"{TASKS[task].question}\nweights minus prompt: {gaps}")
    axis.set(xticks=range(3), xticklabels=["62 k", "279 k", "1 M numbers"], ylabel="share right")
legend = figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncol=6)

# %% [markdown]
r"""
**What to notice.** On the new task the gap closes: all weights are ahead of the prompt by 0.12, then
0.04, then 0.01. Only the first is clearly wider than its bars. But look at the level. On the tiny base
nothing works: the prompt is at the commonest answer, and all weights reach 0.24. From there all four
rise together. English does not. On the practised task there is no gap at any size. And size is
not all that differs: the two small bases practised half as long.

### Exercise 3: how much of the gap is closed?

English (the hard prompt) has one share right; prompt and all weights have one share for each seed.
Which part of the way from English to all weights does the prompt go? Take means over seeds. Return
None where all weights are not better than English: there is no gap.

<details><summary>Hint</summary>

The way is mean(full) - english. The prompt may go less than nothing of it, or more than all.

</details>
"""

# %%
@exercise
def gap_closed(english, prompt, full):
    """A share, two lists of shares (one a seed) -> the part of the gap closed, or None."""
    raise NotImplementedError

# %% [markdown]
r"""
## 4. A base that never practised a task

`base-small-lm.pt` has the shape of the small base and read the same texts. Then it stopped: it
practised no task. Its rates were chosen anew, and it gets 48 steps on both tasks.
**Before you run it:** the prompt, the prefix and all weights learn the same two tasks on it. Which of
the three come near what they have on the small base (circles)? Triangles: the language alone.
"""

# %%
lm = Lab(*load_base("base-small-lm.pt", "cpu"), data)
figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
for axis, task in zip(axes, STEPS):
    for way, rate in (("prompt", 4.5), ("prefix", 0.45), ("full", 3e-3)):
        found["lm", task, way] = trained(lm, task, way, rate, 48)
        for n, mark in (("base-small", "o"), ("lm", "v")):
            x = LABELS[way].replace(" ", "\n")
            axis.errorbar(x, *point(found[n, task, way]), fmt=mark, c=COLOURS[way])
    axis.axhline(ALWAYS[task], color=COLOURS["always"], ls="--")
    right = sum(found["lm", task, "full"]) / 2
    title = f"{TASKS[task].question}\nlanguage alone, all weights: {right:.2f}"
    axis.set(ylabel="share right", title=title)

# %% [markdown]
r"""
**What to notice.** A prompt does both tasks on the small base. On the language alone it does neither:
prompt and prefix stay about at the commonest answer or below. All weights learn something in the same
48 steps. More steps did not help. Beforehand, with other seeds, *library* got 1,000 steps: prompts and
prefixes had at most 0.38, all weights 0.78 (one seed). A prompt elicits what the base can nearly do. It
hardly teaches. A bigger base of the same kind was not tried.

## Summary

Different prompts are rows of one batch. No row touches another, and the batch is several times as
fast as one at a time. A prompt is a few kilobytes, and its file names the exact base. After an
update, test old prompts, and hard ones too. On a new task prompts caught up with all weights as the
base grew, as Lester et al. found for models up to 11 billion numbers. Here a million were
enough. Our reading: that base had practised the parts of the task. Where the base had practised
nothing, no prompt helped.

## Sources

- Lester, Al-Rfou and Constant 2021, *The Power of Scale for Parameter-Efficient Prompt Tuning*
  (scale, one model for many prompts), arXiv 2104.08691
- Li and Liang 2021, *Prefix-Tuning: Optimizing Continuous Prompts for Generation* (a batch of
  users, each with a prefix of their own), arXiv 2101.00190
- Hu et al. 2021, *LoRA: Low-Rank Adaptation of Large Language Models*, arXiv 2106.09685
"""
