# %% [markdown]
r"""
# Hundreds of prompts, and the power of scale

One frozen model, the *base*, serves hundreds of soft prompts in one batch.

After this class you can

1. lay different prompts row under row, and test whether one row touches another;
2. say what a prompt's file must hold, and what an update of the base does;
3. measure the gap between prompts and new weights as the base grows.

Needs: classes 1 and 4. A *virtual token* is a learned vector in the place of a token; a *prefix* is
P learned keys and values in every layer. B rows are a batch, V tokens a vocabulary.

## 1. A batch in which every row has another prompt

We train 160 prompts and 40 prefixes at once, no two alike, of 8 to 20 virtual tokens, for 16 tasks.
It is short, 6 steps of 4 sentences. So each starts from a *hard prompt*, an instruction in words.

Their pasts are laid row under row. Behind a shorter past stand *empty slots*, of position -1:
nothing is here, and a query sees only keys of position 0 or more. **Before you run it:** at which
position does the text start in each row?
"""

# %%
import sys
sys.path.insert(0, "classroom")
from shared import TEST, measured, open_lab, watch
from statistics import mean, median
from time import process_time
import torch
import drawings
import scale
import update
from checks import exercise
from methods import lab_on_a_copy
from model import read
from softprompt import PromptTuning, batch, load, prefill, save
from train import TASKS, commonest_answer, new_arm, score, share_of

lab = open_lab()
model, tok = lab.model, lab.tok

# %%
RATES = {"prompt": 1.5, "prefix": 0.3}  # in units of the size of what moves
practised = [name for name, task in TASKS.items() if task.practised]  # 16 tasks
arms = []
for n in range(200):
    task = practised[n % 16]
    method = "prefix" if n % 5 == 0 else "prompt"
    length = 8 + 5 * n % 13  # virtual tokens
    arms.append(new_arm(lab, task, method, "related", length, RATES[method], seed=n))
watch(lab, arms, 6, (), examples=4)  # trains them all as one batch
softs = [arm.soft.requires_grad_(False) for arm in arms]

# %%
pasts = [soft.past(model) for soft in softs]  # B = 1 each
past = batch(pasts)  # B = 200: row after row, filled up with empty slots
for row in range(3):
    print(f"row {row}, text from {past.length[row]:2d} on:", past.positions[row].tolist())
difference = 0
for row, alone in enumerate(pasts):
    P = softs[row].length
    for ours, theirs in zip(past.keys + past.values, alone.keys + alone.values):
        difference = max(difference, (ours[row, :, :P] - theirs[0]).abs().max().item())
print("largest difference between a row of the batch and its past alone:", difference)

# %%
title = "Where do 200 pasts of different lengths have their empty slots?"
found = f"Behind each prompt's own slots: so {len(softs)} pasts of different lengths are one batch"
drawings.slots_of_a_batch([soft.kind for soft in softs], past.positions.tolist(), title)

# %% [markdown]
r"""
**What to notice.** The text starts where each row's own prompt ends. Prompts and prefixes share a
batch, since both are keys, values and positions.

### Exercise 1: one pass for all

Prompt i stands before text i, each of any length. Return the logits at each text's last token, with
one pass over the prompts and one over the texts.

<details><summary>Hint</summary>

Texts may be padded on the left with ids of -1. Then every last token is in the last column.
`prefill([PromptTuning(x) for x in vectors], model)` runs prompts of any lengths through the model
in one padded pass, and returns their pasts as one batch.

</details>
"""

# %%
@exercise
def mixed_logits(model, vectors, rows):
    """vectors: B tensors (P_i, C); rows: B lists of ids -> logits (B, V) at the last tokens."""
    raise NotImplementedError

# %% [markdown]
r"""
Your function asks 160 prompts a question each, together and alone. Then one prompt is made of NaN,
"not a number", which spoils whatever is computed from it. Last, all 200 answer, behind their own
prompt and behind the next row's. **Before you run it:** how many rows does the NaN reach?
"""

# %%
asked = [lab.rows(arm.task, "test")[n] for n, arm in enumerate(arms)]  # (question, answer) each
mine = [n for n, soft in enumerate(softs) if soft.kind == "prompt"]  # 160 rows
vectors = [softs[n].embeddings for n in mine]
rows = [asked[n][0] for n in mine]
together = mixed_logits(model, vectors, rows)  # (160, V)
alone = torch.cat([mixed_logits(model, [x], [row]) for x, row in zip(vectors, rows)])  # (160, V)
poisoned = mixed_logits(model, [vectors[0] * torch.nan, *vectors[1:]], rows)  # (160, V)
print(f"largest difference, alone or together: {(alone - together).abs().max():.1e}")
print("rows with a NaN:", poisoned.isnan().any(1).sum().item())
print("largest difference in the other rows:", (poisoned - together)[1:].abs().max().item())
own = score(model, past, asked).right.mean()
next_row = past.rows(torch.arange(200).roll(-1))
print(f"accuracy behind its own prompt {own:.2f}, behind the next row's "
      f"{score(model, next_row, asked).right.mean():.2f}")

# %% [markdown]
r"""
Is it fast? The clock counts the processor's time. **Before you run it:** how many times as fast are
200 questions in one batch as one at a time?
"""

# %%
questions = [question for question, _ in asked]
single = [past.rows(torch.tensor([n])) for n in range(200)]  # B = 1 each
model.generate(questions[:1], 2, single[0])  # the first call is slow: not on the clock
for N in (8, 40, 200):
    own_pasts, ratios = past.rows(torch.arange(N)), []
    for turn in range(3):
        begun = process_time()
        together = model.generate(questions[:N], 2, own_pasts)
        between = process_time()
        alone = [model.generate([questions[n]], 2, single[n])[0] for n in range(N)]
        ratios.append((process_time() - between) / (between - begun))
    print(f"N = {N:3d}: {median(ratios):4.1f} times as fast ({min(ratios):.1f} to "
          f"{max(ratios):.1f}), equal answers: {together == alone}")

# %% [markdown]
r"""
**What to notice.** The NaN stays in its row; no other row changes in its last digit. A row's
queries read the keys of their own row alone, and empty slots have no position. Alone or together
differ by rounding. Behind the next row's prompt nearly all is wrong. The batch is several times as
fast, since the weights are read once for all rows; beyond some tens of rows it gains no more here.

## 2. What a file must remember

A prompt is saved. Then one number of the base becomes the next one that float32 has. **Before you
run it:** what must the file hold? Will `load` notice the change?
"""

# %%
from tempfile import mkdtemp
path = f"{mkdtemp()}/count.pt"
arm = arms[2]
save(arm.soft, path, model, task=arm.task, steps=6)
content = read(path, "a soft prompt", ("kind", "base", "facts", "state"))
size = len(open(path, "rb").read())
print(f"{size:,} bytes, {arm.soft.embeddings.nbytes:,} of them vectors")
print("kind:", content["kind"], "| facts:", content["facts"], "| base:", content["base"][:16])
nudged = lab_on_a_copy(lab).model
weight = nudged.model.norm.weight
weight[0] = torch.nextafter(weight[0], torch.tensor(9.0))
print("one number of the base:", model.model.norm.weight[0].item(), "becomes", weight[0].item())
try:
    load(path, nudged)
except ValueError as problem:
    print(str(problem).replace(path, "count.pt"))

# %% [markdown]
r"""
**What to notice.** Beside the vectors stand the kind, facts, and the *fingerprint*: a hash of the
base's shape and all its weights. One weight changed in its last digit, and `load` refuses.

## 3. A base that moves on

Is `load` too strict? The base trains 20 more steps on tasks that it practised, at a learning rate
of 3e-4 (gentle) or 1e-3 (strong), five times each. Prompts of five seeds are tried before and
after. Two controls: prompts trained anew on three of the new bases, and the hard prompt that was
best before. `python tutorials/classroom/update.py` made the table in four minutes.

**Before you run it:** after an update, which is safer, an old prompt or a hard one?
"""

# %%
results = measured("update")
shares = update.accuracies_after(results)  # of prompts and hard prompts
answers = update.answers_after(results)  # to the hard prompts of the new task
NEW = "first-letter-last"  # the base never practised it
always = {}
for task in update.PROMPT_TASKS:
    answer = commonest_answer(TASKS[task].pairs(lab.data["train"]))
    always[task] = share_of(answer, TASKS[task].pairs(lab.data["test"][:TEST]))
middle = {where: median(values) for where, values in shares.items()}
right = {where: mean(kinds["right"]) for where, kinds in answers.items()}

# %%
title = "What does an update of the base do to old prompts and to hard ones?"
found = (
    f"Old prompts of one task fall, {middle['count', 'none', 'old']:.2f} to "
    f"{middle['count', 'strong', 'old']:.2f}, and a hard prompt of the new task rises, "
    f"{middle[NEW, 'none', 'wording']:.2f} to {middle[NEW, 'strong', 'wording']:.2f}"
)
drawings.after_an_update(shares, always, title)

# %% [markdown]
r"""
**What to notice.** The gentle update costs little. The strong one takes a fifth from old prompts of
*count* (how many words are there?), and nearly as much from the hard prompt. Prompts trained anew
get a part back. So neither is safe. `load` is too strict only where an update was gentle, and no
file says so. In the new task old prompts mostly hold, and the hard prompt *rises*; some prompts
trained anew got stuck.

### Why does a hard prompt rise?

Nobody practised the new task. It has two parts: *what* is asked (the first letter), and *of which
word* (the last). Which part does a wrong answer miss? Controls, all at the strong rate: practise
only tasks of the last word (repeat it, its last letter, its length), only the others, only
*library*; or move as far in a random direction. **Before you run it:** which of them lift a hard
prompt?
"""

# %%
title = "Why does a hard prompt of the new task rise after an update?"
words = update.best_words(results)  # "Say how ..."
found = (
    f"One hard prompt rises from {right[words, 'none']:.2f} to "
    f"{right[words, 'the last word alone']:.2f} where the last word is practised, to "
    f"{right[words, 'library alone']:.2f} where only library is"
)
drawings.answers_to_hard_prompts(answers, title)

# %% [markdown]
r"""
**What to notice.** Two hard prompts take the right letter of the wrong word. The other two find the
last word, and say something else of it. "Say how" rises in four of five strong updates, on
validation sentences too, and it was the best before: so the choice among four is not the reason.
*library*, at the same rate and with texts as short, lifts nothing, and a random move lifts nothing.
So neither the rate nor any disturbance is the reason. Practising the last word alone lifts three of
the four; without it little rises. Our reading: the base recombines parts that it has just
practised.

Not shown: why updates differ so much, and why one wording never moves.

## 4. The power of scale

Lester et al. (2021) found that prompts catch up with *fine-tuning*, training all weights, as models
grow. Here are three bases; the two small ones practised tasks for half as many steps. Three tasks:
*library*, practised; *first-letter-last*, of which the parts were practised; *before-last* (the
word before the last), outside of all practice. Prompt and prefix have 16 virtual tokens. *LoRA*
learns small matrices beside the attention weights. Learning rates were chosen by validation, on
another seed (`classroom/scale.py`).

**Before you run it:** grey is the gap between prompt and all weights. On which task does it close?
"""

# %%
measurements = measured("scale")
BASES = ("base-tiny", "base-small", "base")

def accuracies(base, task, method):  # of each seed
    return scale.accuracies(measurements, base, task, method)

numbers = {row["base"]: row["numbers"] for row in measurements}
sizes = [numbers[base] for base in BASES]
of_size, commonest = {}, {}
for task in scale.STEPS:
    [commonest[task]] = accuracies("base", task, "always")
    for method in ("wording", "prompt", "prefix", "lora", "full"):
        of_size[task, method] = [accuracies(base, task, method) for base in BASES]

# %%
lag = [median(full) - median(prompt) for prompt, full in
       zip(of_size["before-last", "prompt"], of_size["before-last", "full"])]
title = "Where does a prompt come near new weights as the base grows?"
found = f"A prompt is near where the base practised the parts; outside it is {lag[-1]:.2f} behind"
drawings.accuracy_over_size(sizes, of_size, commonest, title)

# %% [markdown]
r"""
**What to notice.** In the second task all that is trained rises with the base. On the tiny base all
weights are ahead; on ours the lines meet. On the middle base one prompt and one prefix of five got
stuck; so lines are medians. In the third task prompt and prefix stay far below.

### Exercise 2: how much of the gap is closed?

The hard prompt has one accuracy; prompt and all weights have one for each seed. Which part of the
way from the hard prompt to all weights does the prompt go? Take medians over seeds. Return None
where all weights are not better than the hard prompt: there is no gap.

<details><summary>Hint</summary>

The way is median(full) - english. The prompt may go less than nothing of it, or more than all.

</details>
"""

# %%
@exercise
def gap_closed(english, prompt, full):
    """The hard prompt's accuracy, two lists of accuracies (one a seed) -> the part of the gap
    closed, or None."""
    raise NotImplementedError

# %%
gaps, closed = {}, {}
for task in scale.STEPS:
    gaps[task], closed[task] = [], []
    for base in BASES:
        [english] = accuracies(base, task, "wording")
        prompt, full = accuracies(base, task, "prompt"), accuracies(base, task, "full")
        gaps[task].append([b - a for a, b in zip(prompt, full)])
        closed[task].append(gap_closed(english, prompt, full))
middles = {task: [median(seeds) for seeds in gaps[task]] for task in gaps}
for task in gaps:
    parts = ["no gap" if part is None else f"{part:.2f}" for part in closed[task]]
    print(f"{task:18s} gap", " ".join(f"{gap:5.2f}" for gap in middles[task]), "| closed", *parts)

# %%
first, _, last = middles["first-letter-last"]
title = "Does the gap between a prompt and all weights close as the base grows?"
found = (
    f"The gap closes, {first:.2f} to {last:.2f}, where the base knows the parts of the task; "
    f"outside it opens to {middles['before-last'][-1]:.2f}"
)
drawings.gap_over_size(sizes, gaps, closed, title)

# %% [markdown]
r"""
**What to notice.** On *first-letter-last* the gap closes: the prompt goes the whole way, on the
tiny base none of it. On *before-last* it opens: new weights gain more from a larger base. On
*library* a prompt is a little ahead on the two small bases. What size alone does, these bases
cannot say: the small ones practised half as long.

## Summary

A row attends to its own keys alone, and nobody writes to the base: sharing is exact. A file names
its base by a fingerprint. After an update, test prompts and hard prompts again. The gap to new
weights closes where the larger base knows the parts of a task. Elsewhere it opens.
"""

# %% [markdown]
r"""
## Homework

### Exercise 3: of another base?

Say whether the prompt in a file belongs to another base than `model`. A damaged file is no answer
to this question: there a ValueError must come out. (`load` raises one in both cases.)

<details><summary>Hint</summary>

`read`, in the cell that saved the prompt, raises the ValueError of a damaged file by itself.
`model.fingerprint()` is what this base would write into a file.

</details>
"""

# %%
@exercise
def is_of_another_base(path, model):
    """True where the prompt in the file is of another base, False where it is of this one."""
    raise NotImplementedError

# %% [markdown]
r"""
### Size or practice?

`base-small-lm.pt` has the shape of the small base and read the same texts. Then it stopped: it
practised no task. Its rates were chosen in the same way. **Before you run it:** which of prompt,
prefix and all weights learn *library* on it?
"""

# %%
print("is the prompt of another base?", is_of_another_base(path, model))
practice = {}
for base in ("base-small", "base-small-lm"):
    for task in scale.STEPS:
        for method in ("prompt", "prefix", "full"):
            practice[base, task, method] = accuracies(base, task, method)

# %%
alone = {method: median(practice["base-small-lm", "library", method])
         for method in ("prompt", "prefix", "full")}
title = "What do prompts and new weights learn on a base that practised nothing?"
found = (
    f"Without practice a prompt learns nothing (library: {alone['prompt']:.2f}); "
    f"all weights come to {alone['full']:.2f}"
)
drawings.with_and_without_practice(practice, commonest, title)

# %% [markdown]
r"""
**What to notice.** On the language alone, a prompt stays below the commonest answer in all three
tasks. A prefix finds the commonest answer and no more. All weights learn something of each in the
same 16 or 48 steps. So at one size, practice decides. A prompt elicits what the base can nearly do;
it hardly teaches. More steps might change that; they were not tried here.
"""

# %% [markdown]
r"""
## Sources

- Lester, Al-Rfou and Constant 2021, *The Power of Scale for Parameter-Efficient Prompt Tuning*
  (scale, one model for many prompts), arXiv 2104.08691
- Li and Liang 2021, *Prefix-Tuning: Optimizing Continuous Prompts for Generation* (a batch of
  users, each with a prefix of their own), arXiv 2101.00190
- Hu et al. 2021, *LoRA: Low-Rank Adaptation of Large Language Models*, arXiv 2106.09685
"""
