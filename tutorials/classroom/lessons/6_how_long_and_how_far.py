# %% [markdown]
r"""
# How long, and how far

After this class you can

1. choose a prompt's length, and say what the choice depends on;
2. say how much one vector holds, and how one finds out;
3. say what a sliding window does to a prompt, and why it fails before the theory says so.

Needs: class 1. A **prompt** is P **virtual tokens**: learned vectors of C numbers before the text.
"""

# %%
import sys
sys.path.insert(0, "classroom")
from collections import defaultdict
from statistics import mean, variance
from shared import FUTURE, ROOT, TEST, arms_of, learn, mean_error, measured, open_lab
import torch
import capacity
import drawings
import rule_or_list
from checks import exercise
from model import GPT, GPTConfig, Past, visible
from softprompt import PromptTuning, initial_embeddings, prefill
from train import TASKS, Lab, best_hard_prompt, chosen_length, fit, load_base, mean_of_arms, score
lab = open_lab()

# %% [markdown]
r"""
## 1. How long?

Three tasks. *first-letter-last* is a new **rule**, but the base practised its parts. *swap-1* is
practised (the first letter of the first word), but R and C have changed places: the base lacks two
**facts**. In *swap-4* it lacks eight.

A run is an **arm**. Its **seed** decides where it starts and which sentences it sees. Five arms of
each length were trained before (`classroom/lengths.py`); we train five of them again. With k seeds
of mean p and variance v, all on the same n sentences, its **standard error** is $\sqrt{v/k +
p(1-p)/n}$.

**Before you run it:** draw accuracy over length for each task.
"""

# %%
RULE, rows, runs = "first-letter-last", measured("lengths"), {}
for row in rows:
    where = row["task"], row["split"], row["method"], row["length"]
    runs.setdefault(where, []).append(row["accuracy"])  # of each seed

arms = arms_of(lab, RULE, "vocab", 16, 3, range(5))  # 16 sampled tokens, rate 3
now, stored = learn(lab, arms, 64), runs[RULE, "test", "prompt", 16]
print("trained just now:", now, "in the table:", stored)
points, seeds, levels = defaultdict(dict), defaultdict(dict), defaultdict(dict)
for (task, split, method, length), accuracies in runs.items():
    if (split, method) == ("test", "prompt"):
        points[task][length] = mean_error(accuracies, TEST)
        seeds[task][length] = accuracies
    elif split == "test":
        levels[task][method] = accuracies[0]  # what needs no training

# %%
questions = {task: TASKS[task].question for task in points}
title = "How long must a prompt be?"
one = {task: line[1][0] for task, line in points.items()}
found = (f"One vector has {one[RULE]:.2f} on a rule and {one['swap-1']:.2f} on two facts; "
         f"on eight facts even 64 have {points['swap-4'][64][0]:.2f}")
drawings.accuracy_over_length(points, seeds, levels, questions, title)

# %% [markdown]
r"""
**What to notice.** For the rule one or two vectors are enough: they only say which of the base's
skills to combine. Facts nobody but the prompt knows, so they cost room. For two facts 16 vectors
are nearly as good as 64; for eight, accuracy still rises at 64, the most that we tried. A puzzle
remains. The next part shows that one vector can hold dozens of bits. But here the base says R by
itself, for every word with R, and must be overruled without harm to other letters. That seems to
cost more; it is not tested.

### Exercise 1: the one-standard-error rule

The best of six lengths is partly the luckiest. So (Breiman et al. 1984) the best mean minus its
standard error is the **bar**. Choose the smallest length whose mean is at the bar or above, on
**validation** sentences. **Test** sentences choose nothing.

<details><summary>Hint</summary>

Make a list of pairs (mean, standard error). `max` of pairs compares the means first.

</details>
"""

# %%
@exercise
def one_se(lengths, accuracies, n):
    """lengths in any order, for each of them a list of runs, all on the same n sentences
    -> one of the lengths. The standard error is that of seeds and sentences, as above."""
    raise NotImplementedError

# %%
for task, line in points.items():
    lengths = list(line)
    chosen = one_se(lengths, [runs[task, "valid", "prompt", P] for P in lengths], TEST)
    same = chosen == chosen_length(rows, task, "prompt")
    p, error = points[task][chosen]
    print(f"{task}: {chosen} vectors, test {p:.2f} ± {error:.2f}; as chosen_length says: {same}")

# %% [markdown]
r"""
## 2. How much does one vector hold?

The purest facts: K random tokens, each with a **coin flip** as its answer. No rule is in them, so a
prompt has to remember each. It trains on all K until more steps change little, and is
asked for the same K again. The small base has vectors of 64 numbers (`classroom/capacity.py`). The
figure shows the same runs over the flips, and over the flips *for each vector*.

**Before you run it:** up to how many flips does one vector get right?
"""

# %%
LOSS = capacity.choice_loss
small_lab, live = Lab(*load_base(ROOT / "tutorials" / "base-small.pt", "cpu"), None), {}
for K in (32, 64):  # one vector, and a seed that is not in the table
    pupils, flips = capacity.flip_arms(small_lab, "prompt", 1, K, [5])
    for step in fit(small_lab.model, pupils, flips, capacity.STEPS, K, LOSS):
        pass
    [(live[K], loss)] = capacity.remembered(small_lab, pupils, flips)

table = measured("capacity")
curves, big = capacity.curves_of(table), {}  # big: {vectors: {flips: accuracies}}
for (base, method, P, numbers), curve in curves.items():
    if (base, method) == ("base-small.pt", "prompt"):
        big[P] = {K: [row["accuracy"] for row in rows] for K, rows in curve.items()}
most = {key: capacity.most_bits(curve) for key, curve in curves.items()}
longer = [row["accuracy"] for row in table if row["steps"] > capacity.STEPS]
print(f"4 vectors, 128 flips: {mean(big[4][128]):.2f}, three times the steps {mean(longer):.2f}")

# %%
title = "How many coin flips does a prompt remember?"
found = (f"What counts is flips for each vector: of 64, one vector has {mean(big[1][64]):.2f} "
         f"right, and eight have {mean(big[8][512]):.2f} of 512")
drawings.flips_by_length(big, live, title)

# %% [markdown]
r"""
**What to notice.** Left four curves, right nearly one: length buys room.

### Room is counted in numbers

A flip is one *bit*. With a loss of 0 it is held, with log 2 nats (a guess) not. So of K flips,
K (1 − loss / log 2) bits are held. We take the most, over all K.

**Before you run it:** vectors have 24, 64 or 128 numbers on our three bases, and 192 as a
**prefix** (learned keys and values in every layer) of the small base. Who holds more?
"""

# %%
of_one = mean(most["base.pt", "prompt", 1, 128])
title = "What decides how many bits are held?"
found = f"The numbers that are learned decide: one vector of 128 numbers holds {of_one:.0f} bits"
drawings.bits_over_numbers(most, title)

# %% [markdown]
r"""
**What to notice.** Longer, wider or a prefix: bits grow with the numbers that are learned. It is
about one bit for two numbers (0.4 to 0.65 a number). Nearly without mistakes it is less: one vector
of 128 numbers has 0.99 of 32 flips right.

### A rule or a list

64 short sentences have their true *first-letter-last*, or the same answers *shuffled*
(`classroom/rule_or_list.py`). **Before you run it:** how good is one vector at each?
"""

# %%
known = rule_or_list.runs_of(measured("rule_or_list"), "known")
title = "What does a rule cost, and what a list?"
found = (f"One vector holds a rule ({mean(known['true'][1]):.2f}) but no list "
         f"({mean(known['shuffled'][1]):.2f}; 64 vectors {mean(known['shuffled'][64]):.2f})")
drawings.rule_beside_list(known, 7 / 64, title)

# %% [markdown]
r"""
**What to notice.** A rule costs one vector, a list costs length. And a rule carries over: asked for
sentences that it never saw, that vector has 0.91.

How many examples? For this rule prompts of 8 vectors from 64 different sentences are about as good
as from 1,024 ([RESULTS.md](RESULTS.md)). Of a list, what was not shown is not known.

## 3. How far?

In attention a **query** (a position that asks) sees **keys** (positions that are asked). In this
base it sees only the last W = 64, itself included: a **sliding window**. A prompt slides out of it,
unless it is **pinned**. A query at q sees a key at k

- that is real: k ≥ 0
- not in the future: k ≤ q
- near enough: k > q − W, **or** k < pinned

**Before you run it:** three virtual tokens, nine text tokens, W = 4. Draw both masks.
"""

# %%
def may_see(q_pos, k_pos, W, pinned):
    """Positions of T queries and of S keys -> (T, S), True where the query sees the key."""
    q, k = q_pos[:, None], k_pos[None, :]  # (T, 1), (1, S)
    near_enough = (k > q - W) | (k < pinned)  # (T, S)
    return (k >= 0) & (k <= q) & near_enough  # (T, S)

text, keys, masks = torch.arange(3, 12), torch.arange(12), {}  # three virtual tokens, nine of text
for pinned in (0, 3):
    mask = may_see(text, keys, 4, pinned)  # (T, S)
    [theirs] = visible(text[None], keys[None], torch.tensor([pinned]), 4)  # (T, S)
    masks["pinned" if pinned else "sliding"] = mask
    print(f"pinned={pinned}: {int((mask != theirs).sum())} entries differ from model.visible")

# %%
title = "Which text tokens see the prompt?"
found = "Sliding, 3 of 9 text tokens see the prompt; pinned, all 9"
drawings.masks_beside(masks, 3, title)

# %% [markdown]
r"""
**What to notice.** Sliding, the prompt is out of sight from text token 3 on. Pinned, all see it.

### Out of sight, out of reach?

A token that does not *see* the prompt could still *hear* of it: a near token reads from the prompt,
and in the next layer a later token reads from that one. So in L layers a message travels up to **L
(W − 1)** positions: here 4 · 63 = 252. (Homework: a proof.)

We put n tokens of other sentences between prompt and question. The question ends with an arrow,
"->", behind which the answer comes. **Before you run it:** where does each curve fall?
"""

# %%
words = lab.tok.encode(best_hard_prompt(lab, RULE))  # on 240 validation sentences
in_words = PromptTuning(initial_embeddings(lab.model, len(words), "text", words))
softs = {"prompt": [arm.soft for arm in arms], "wording": [in_words]}
other = lab.tok.encode("\n" + "\n".join(sentence.text for sentence in lab.data["valid"][-40:]))
asked = lab.rows(RULE, "test", 120)

@torch.inference_mode()
def scores_far(prompts, n, pinned):
    """The Scores of each prompt, one after another, n tokens of other text before a question."""
    past = prefill(prompts, lab.model, pinned)  # a row for each prompt
    _, past = lab.model(torch.tensor([other[:n]] * len(prompts)), past)  # and the other text
    return score(lab.model, past, asked * len(prompts))

far = defaultdict(dict)
for kind, pinned in (("prompt", True), ("prompt", False), ("wording", True), ("wording", False)):
    for n in (1, 16, 32, 48, 96, 192):
        accuracies = mean_of_arms(scores_far(softs[kind], n, pinned), len(softs[kind]))[1]
        far[kind, "pinned" if pinned else "sliding"][n] = mean_error(accuracies.tolist(), 120)

# %%
title = "How far from the prompt may a question stand?"
found = (f"48 tokens away: {far['prompt', 'pinned'][48][0]:.2f} pinned, "
         f"{far['prompt', 'sliding'][48][0]:.2f} sliding, though a message could travel 252")
drawings.accuracy_far_away(far, levels[RULE]["always"], title)

# %% [markdown]
r"""
**What to notice.** Pinned, the prompt works at every distance. Sliding, it is lost between 16 and
48 tokens, far inside the reach.

### Exercise 2: how much does the arrow still see?

P virtual tokens, n tokens of other text, a question of q tokens, the arrow last.

<details><summary>Hint</summary>

Where is the arrow, if the first virtual token is at 0? Which is the first key in its window?

</details>
"""

# %%
@exercise
def still_seen(W, P, n, q):
    """How many of P virtual tokens the last token of a question of q tokens sees, with n other
    tokens between prompt and question: W keys in its window, itself included, nothing pinned."""
    raise NotImplementedError

# %% [markdown]
r"""
Which tokens need the prompt? We hide it (in the future, as in class 2) from the question's text, or
from its arrow. **Before you run it:** all see it, all but the arrow, the arrow alone. Guess three
accuracies.
"""

# %%
by_seen = {}
for n in (28, 34, 40):
    right, groups = scores_far(softs["prompt"], n, False).right, defaultdict(list)
    for (question, _), value in zip(asked * 5, right.tolist()):
        groups[still_seen(64, 16, n, len(question))].append(value)
    by_seen[n] = {seen: mean(groups[seen]) for seen in sorted(groups) if len(groups[seen]) >= 15}

def seen_or_not(past, is_seen):
    """The past with its 16 virtual tokens in sight, or hidden in the future."""
    positions = past.positions.clone()  # (B, S)
    positions[:, :16] = torch.arange(16) if is_seen else FUTURE
    return Past(past.keys, past.values, positions, past.pinned)

# %%
longest = max(len(question) for question, _ in asked)
texts = [[-1] * (longest - len(question)) + question[:-1] for question, _ in asked]  # from the left
texts, arrow = torch.tensor(texts), torch.tensor([question[-1:] for question, _ in asked])
letters = torch.tensor([answer[0] for _, answer in asked])

@torch.inference_mode()
def accuracy_seen_by(soft, text_sees, arrow_sees):
    _, past = lab.model(texts, seen_or_not(soft.past(lab.model), text_sees))
    logits, _ = lab.model(arrow, seen_or_not(past, arrow_sees))  # (B, 1, V)
    return (logits[:, 0].argmax(1) == letters).float().mean().item()

ways = {"all tokens": (True, True), "all but\nthe arrow": (True, False),
        "the arrow\nalone": (False, True)}
by_reader = {way: [accuracy_seen_by(soft, *sees) for soft in softs["prompt"]]
             for way, sees in ways.items()}

# %%
title = "Which token has to see the prompt?"
_, others, alone = map(mean, by_reader.values())
found = f"Only the arrow needs the prompt: {alone:.2f} alone, and {others:.2f} without it"
drawings.who_must_see(by_seen, by_reader, levels[RULE]["always"], title)

# %% [markdown]
r"""
**What to notice.** Right: only the arrow, which gives the answer, needs the prompt. If all *other*
tokens see it, nothing arrives. Left: three distances, one curve; what counts is how many vectors
the arrow sees. It sees all while n + q ≤ W − P = 48, none from n + q = 64 on. With q = 18, that is
n = 30 to 46. The reach L (W − 1) needs tokens that *hand a message on*. Nobody taught the base
that: when it practised, instructions were always in sight.

## Summary

A rule costs one or two vectors and some 64 examples, facts cost room, counted in learned numbers.
Choose by the one-standard-error rule. Under a window, the token that answers must see the prompt
itself: this base hands no message on. Pinned, it always does, for up to P more keys a query.
"""

# %% [markdown]
r"""
## Homework

### Exercise 3: does it arrive?

In L layers a message travels at most L (W − 1) positions. Write this as a function. Then we ask the
gradient, on a small model of random numbers. The **gradient** of a logit with respect to a virtual
token says how much the logit changes when the vector moves a little. Where nothing arrives it is
exactly zero: there a prompt can neither help nor learn. **Before you run it:** L = 2, W = 4, P = 3.
Which text tokens hear of virtual token 0?

<details><summary>Hint</summary>

Virtual token j is at position j. The text stands behind all P virtual tokens. So text token t is at
position P + t. How far apart are they?

</details>
"""

# %%
@exercise
def reaches(L, W, P, j, t):
    """L layers, window W, nothing pinned: True where virtual token j (from 0) of P can change the
    logits at text position t (from 0), else False."""
    raise NotImplementedError

# %%
torch.manual_seed(0)
small = GPT(GPTConfig(vocab_size=50, block_size=32, n_layer=2, n_head=2, n_embd=16, window=4))
for p in small.requires_grad_(False).parameters():
    p.copy_(torch.randn(p.shape) / 2)  # large weights, so that every path counts
soft, sentence = PromptTuning(torch.randn(3, 16)), torch.randint(50, (1, 9))  # P = 3, T = 9

def pull(pinned):
    """How strongly the top logit of text token t depends on virtual token j, (T, P)."""
    logits, _ = small(sentence, soft.past(small, pinned))  # (1, T, V)
    gradients = [torch.autograd.grad(top, soft.embeddings, retain_graph=True)[0]
                 for top in logits[0].amax(1)]  # (P, C) each
    return torch.stack(gradients).norm(dim=2)  # (T, P)

sizes = {"sliding": pull(False), "pinned": pull(True)}
theory = torch.tensor([[reaches(2, 4, 3, j, t) for j in range(3)] for t in range(9)])  # (T, P)
print(f"{int(((sizes['sliding'] > 0) != theory).sum())} of 27 differ from the theory")

# %%
title = "Which text tokens can hear of which virtual token?"
found = (f"Sliding, {int((sizes['sliding'] == 0).sum())} of 27 gradients are exactly zero (white); "
         f"pinned, {int((sizes['pinned'] == 0).sum())}")
drawings.sizes_of_gradients(sizes, title)

# %% [markdown]
r"""
**What to notice.** Theory and gradient agree everywhere. Sliding, virtual token 0 arrives up to
text token 3, at distance L (W − 1) = 6, and behind that the gradient is exactly zero. Pinned,
nothing is zero and nothing fades with the distance. (The Mistral paper writes L · W: its window
counts W keys *before* the query, ours counts the query too.)

PEFT, a common library for soft prompts, puts virtual tokens before the text like any tokens. On a
model with a window they slide out of sight. Relatives of pinning are the global tokens of
Longformer and the first tokens that StreamingLLM keeps.

### Exercise 4: what pinning costs

Pinned keys are seen on top of the window. Count the keys that one query sees in one layer. A key
that is pinned *and* near counts once.

<details><summary>Hint</summary>

First count the near keys: W, or fewer at the beginning. The keys before those can be seen only if
they are pinned. `min` helps twice.

</details>
"""

# %%
@exercise
def keys_seen(t, P, W, pinned):
    """How many keys the query at text position t (from 0) sees in one layer, itself included,
    behind P virtual tokens, of which the first `pinned` are pinned (0 <= pinned <= P)."""
    raise NotImplementedError

# %% [markdown]
r"""
## Sources

- Lester, Al-Rfou and Constant 2021, *The Power of Scale for Parameter-Efficient Prompt Tuning*,
  arXiv 2104.08691 (length: figure 3a)
- Li and Liang 2021, *Prefix-Tuning: Optimizing Continuous Prompts for Generation*, arXiv 2101.00190
- Breiman, Friedman, Olshen and Stone 1984, *Classification and Regression Trees* (the rule)
- Jiang et al. 2023, *Mistral 7B*, arXiv 2310.06825 (sliding window)
- Beltagy, Peters and Cohan 2020, *Longformer: The Long-Document Transformer*, arXiv 2004.05150
- Xiao et al. 2023, *Efficient Streaming Language Models with Attention Sinks*, arXiv 2309.17453
  (StreamingLLM)
"""
