# %% [markdown]
r"""
# A real model

A language model that somebody else trained gets a soft prompt in the same few lines, and a long
text of examples becomes a prefix of 16 slots.

After this class you can

1. train a soft prompt on a file of your own, and compare it fairly with instructions in words;
2. *distil* a long text: train a short prefix to answer as the model does behind the long text;
3. hand a soft prompt over to PEFT, the library that most people use, and show that nothing changed.

Needs: notebooks 1 and 4 (virtual token, prefix, keys and values, cache), and a model of 270 MB.
Fetch it once, in the project's folder:

    pip install safetensors tokenizers transformers peft tzdata
    hf download HuggingFaceTB/SmolLM2-135M-Instruct --local-dir SmolLM2-135M-Instruct

Any Llama or Mistral in Hugging Face's format does. If it lies elsewhere, set SOFTPROMPT_MODEL to
its folder. Without a model, the first cell says so in one line, and nothing below it runs.

## 1. A model and data of your own

A file with a text and an answer in each line is enough. Python itself knows some: its time zones
are named after places, by continent. We take four continents. The *test* places are for the last
number only. What is chosen, is chosen on the *validation* places. **Before you run it:** of ten
such places, how many would you know? (On the command line the same file works:
`python tutorials/own_data.py tune --base FOLDER --data train.tsv`.)
"""

# %%
import os
import sys
sys.path.insert(0, "classroom")
import torch
from checks import exercise
from huggingface import load_folder
FOLDER = os.environ.get("SOFTPROMPT_MODEL", "../SmolLM2-135M-Instruct")
if not os.path.exists(f"{FOLDER}/config.json"):
    print("No model here: hf download HuggingFaceTB/SmolLM2-135M-Instruct, as the cell above says.")
    raise SystemExit  # and nothing below runs
model, tok = load_folder(FOLDER, "cpu")  # frozen
print(f"{sum(p.numel() for p in model.parameters()):,} numbers, a vector has {model.config.n_embd}")

# %%
import random
from pathlib import Path
from tempfile import TemporaryDirectory
from zoneinfo import available_timezones
zones = [zone.replace("_", " ").split("/") for zone in sorted(available_timezones())]
four = {zone[-1]: zone[0] for zone in zones if zone[0] in ("Africa", "America", "Asia", "Europe")}
lines = [f"{place}\t{continent}\n" for place, continent in sorted(four.items())]
random.Random(0).shuffle(lines)
files = TemporaryDirectory()
for name, part in (("test", lines[:80]), ("valid", lines[80:120]), ("train", lines[120:])):
    Path(files.name, name + ".tsv").write_text("".join(part), encoding="utf-8")
print("".join(lines[:5]))

# %% [markdown]
r"""
## 2. As far as words go

First we only ask. A *hard prompt* is English in front of the text: a question, or a question and then
solved examples (*learning in the context*, Brown et al. 2020).

This model was never told that an answer ends after one word, so it chatters on. The fair test is:
which of the four answers has the highest probability? The project's `judge` does it for many
places. **Before you run it:** put these in order: nothing, the question, the question with the
answers named, 8 examples, 32 examples.

**Exercise 1. The likeliest answer.** An answer may have several tokens. Its probability is the
product of all their probabilities, each behind the tokens before it. Return which answer has the
highest. Do not divide by the length.

<details><summary>Hint</summary>

Run the question and one answer through the model together. `logits[0, len(question) - 1 : -1]` are
the positions that say the answer's tokens. Add up the logarithms of the probabilities.

</details>
"""

# %%
@exercise
def likeliest(model, past, question, answers):
    """The index of the likeliest of `answers` (lists of ids) behind `question` (a list of ids).
    `past` (one row, or None) comes before both."""
    raise NotImplementedError

# %%
from own_data import few_answers, ids_of, judge, read_data, read_pairs, rows_behind
from train import COLOURS, share_of
train, valid = read_data(f"{files.name}/train.tsv", f"{files.name}/valid.tsv")
test, answers = read_pairs(f"{files.name}/test.tsv"), few_answers(train)
question = "Which continent is this place in?"
hard = {"nothing": [""], "question": [question],
        "answers\nnamed": ["Is this place in Africa, America, Asia or Europe?"]}
for n in (8, 32):  # three draws of examples, as many of each continent
    for gen in map(random.Random, range(3)):
        even = [gen.sample([pair for pair in train if pair[1] == a], n // 4) for a in answers]
        shown = [f"{place} -> {a}" for place, a in gen.sample(sum(even, []), n)]
        hard.setdefault(f"{n}\nexamples", []).append("\n".join([question, *shown]))

# %%
rows = {"valid": rows_behind(model, tok, valid, 512), "test": rows_behind(model, tok, test, 512)}
ids, asked, pasts = ids_of(tok, answers), {}, {}
for name, text in [(name, text) for name, texts in hard.items() for text in texts]:
    with torch.inference_mode():
        pasts[text] = model(torch.tensor([tok.encode(text)]))[1] if text else None
    both = [judge(model, tok, pasts[text], rows[part], answers).among for part in ("valid", "test")]
    asked.setdefault(name, []).append((*both, text))  # (validation, test, hard prompt)
with torch.inference_mode():
    few, past = rows["test"][:8], pasts[question]
    ours = sum(likeliest(model, past, place, ids) == ids.index(answer) for place, answer in few)
print(f"by hand {ours / 8}, by judge {judge(model, tok, past, few, answers).among}")

# %% [markdown]
r"""
## 3. A prompt and a prefix

Now numbers are learned. Of the three texts with 32 examples we take the best by validation, and
call it *the long text*. Its first 16 tokens are where we start: a prompt of 16 virtual tokens
(learned vectors in the place of tokens), and a prefix of 16 slots (learned keys and values in
every layer). Two seeds each, which here are two orders of the training places, train as one batch.
The loss is the choice between the four answers. Each method has one learning rate, found by hand on
another split of these places. **Before you run it:** after 24 steps of 8 places, which is ahead: the
prompt, the prefix, or words? The figure shows each run as a dot.
"""

# %%
from softprompt import PrefixTuning, PromptTuning, initial_embeddings, prefill
from own_data import choice_loss, draw_similar_rows
from train import Arm, fit
_, words_right, long_text = max(asked["32\nexamples"], key=lambda run: run[0])
P, kinds = 16, (PromptTuning, PromptTuning, PrefixTuning, PrefixTuning)
start = initial_embeddings(model, P, "text", tok.encode(long_text))  # (P, C)
arms = [Arm(kind.start(model, start), "", rate, seed)
        for kind, rate, seed in zip(kinds, (0.1, 0.1, 0.01, 0.01), (0, 1, 0, 1))]
learn = {"": rows_behind(model, tok, train, P)}
for step in fit(model, arms, learn, 24, 8, choice_loss(tok, ids), draw_similar_rows):
    pass  # no looking while they train
trained = [judge(model, tok, arm.soft.past(model), rows["test"], answers).among for arm in arms]

# %%
from matplotlib import pyplot
bars = {name: [share for _, share, _ in runs] for name, runs in asked.items()}
bars |= {"prompt\nof 16": trained[:2], "prefix\nof 16": trained[2:]}
best = max(sum(asked.values(), []), key=lambda run: run[0])[1]  # the best by validation
colours = [COLOURS[kind] for kind in ("none", *["wording"] * 4, "prompt", "prefix")]
figure, axis = pyplot.subplots(figsize=(9, 4.2))
axis.bar(list(bars), [sum(x) / len(x) for x in bars.values()], color=colours, alpha=0.5)
axis.plot(*zip(*[(name, x) for name, runs in bars.items() for x in runs]), "o", color="0.2", ms=4)
axis.axhline(share_of("America", test), ls="--", color=COLOURS["always"])
title = f"The best hard prompt has {best:.2f} right, a trained one {sum(trained[:2]) / 2:.2f}"
axis.set(ylim=(0, 1), ylabel="share right (dashed: always America)", title=title)
pyplot.show()

# %% [markdown]
r"""
**What to notice.** The question alone is hardly better than nothing, and naming the answers is
worse. Examples help, and which ones matters: four times as many are no better. The best hard
prompt, chosen by validation, has 0.60 right, the prompt 0.72 and the prefix 0.83. With 80 places one
standard error is 0.05. So the prefix is ahead of words, the prompt perhaps. Is it fair? Both
learned from 24 batches of answers, and the hard prompts hold a few dozen.

## 4. A long text as a short prefix

The long text fills about two hundred slots in every layer. Can 16 slots do the same work? We train
a prefix, the *student*, to give the same probabilities as the model behind the long text, the
*teacher*. This is *distillation* of a text (*cartridges*, Eyuboglu et al. 2025). The student reads
192 other places, **without their answers**. All it gets are the teacher's *logits* (the scores
before the softmax) behind the place, and behind the teacher's own guess. It starts at the *real* keys
and values of the text's first 16 tokens, the control at those of 16 random tokens. **Before you run
it:** the teacher is often wrong. Is that a problem for the student?
**Exercise 2. The loss of distillation.** How far is the student q from the teacher p? Use the
*Kullback-Leibler divergence*: the sum over the vocabulary of p (log p - log q). It is in nats
(natural logarithms), and 0 only if both are equal. Return the mean over the positions.

<details><summary>Hint</summary>

`log_softmax` over the vocabulary gives log p and log q. Sum over V first, then take the mean over
n. The teacher's p is the weight.

</details>
"""

# %%
@exercise
def distil_loss(teacher, student):
    """Logits (n, V) of the teacher and the student -> mean divergence over n in nats, a scalar."""
    raise NotImplementedError

# %%
from model import Past
from train import collate
long = pasts[long_text]
places = [place for place, _ in train if f"\n{place} ->" not in long_text]  # no answers
places = sorted(places[:192], key=lambda place: len(tok.encode(place)))
questions = [tok.example(place, "")[0] for place in places]
said = model.generate(questions, 2, long)  # the teacher's own two tokens
batches = [list(zip(questions, said))[i : i + 8] for i in range(0, 192, 8)]
with torch.no_grad():
    taught = [model.scored(*collate(batch, "cpu"), long) for batch in batches]  # (16, V) each
orders = [random.Random(seed).sample(range(24), 24) for seed in (0, 1)] * 2  # each batch once
print(*(f"{places[i]} ->{tok.decode(said[i]).rstrip()}" for i in range(4, 192, 32)), sep=", ")

# %%
def my_past(states):  # keys and values (2, L, A, Hkv, P, D) of A prefixes -> a Past of A rows
    keys, values = states
    return Past(list(keys), list(values), torch.arange(P).expand(keys.shape[1], P), P)

gens = [torch.Generator().manual_seed(seed) for seed in range(2)]
drawn = [initial_embeddings(model, P, "vocab", generator=gen) for gen in gens]
softs = [PrefixTuning.start(model, x) for x in (start, start, *drawn)]
both = [torch.stack((torch.stack([*s.keys]), torch.stack([*s.values]))) for s in softs]
begin = torch.stack(both, 2).detach()  # (2, L, A, Hkv, P, D)
size = begin.square().mean((3, 4, 5), True).sqrt()  # (2, L, A, 1, 1, 1): as the project's `sizes`
apart = torch.stack(my_past(begin).keys) - torch.stack(prefill(softs, model).keys)
print(f"keys by hand and by prefill differ by {apart.abs().max().item()}")

# %%
moved, losses = torch.zeros_like(begin, requires_grad=True), []
optimizer = torch.optim.AdamW([moved], betas=(0.6, 0.9), weight_decay=0.0)
for step in range(24):
    optimizer.param_groups[0]["lr"] = 0.01 * min((step + 1) / 5, 1.1 - step / 24)
    idx, targets = collate([row for order in orders for row in batches[order[step]]], "cpu")
    past = my_past(begin + size * moved).rows(torch.arange(4).repeat_interleave(8))
    student = model.scored(idx, targets, past).view(4, 16, -1)  # (A, n, V)
    losses.append(torch.stack([distil_loss(taught[o[step]], s) for o, s in zip(orders, student)]))
    optimizer.zero_grad()
    losses[-1].sum().backward()
    optimizer.step()

# %%
pupils = [PrefixTuning(*states) for states in (begin + size * moved).unbind(2)]
curves = torch.stack(losses, 1).detach().view(2, 2, 24)  # start, seed, step
figure, axis = pyplot.subplots(figsize=(7.5, 4.2))
for runs, name, label in zip(curves, ("related", "vocab"), ("the text itself", "random tokens")):
    axis.fill_between(range(24), runs.amin(0), runs.amax(0), color=COLOURS[name], alpha=0.2)
    axis.semilogy(runs.mean(0), "o-", ms=4, color=COLOURS[name], label=label)
own, other = curves[:, :, -8:].mean((1, 2)).tolist()
axis.set(xlabel="training steps of 8 new places", ylabel="divergence from the teacher (nats)",
         title=f"Last 8 steps: {own:.2f} nats from the text itself, {other:.2f} from random tokens",
         yticks=(0.03, 0.1, 0.3, 1, 3), yticklabels=("0.03", "0.1", "0.3", "1", "3"))
axis.legend(frameon=False, title="keys and values at the start\n(mean and range of 2 seeds)")
pyplot.show()

# %% [markdown]
r"""
**What to notice.** Each place is new to the student when it is measured, and nobody told it the
place's answer. Still both starts come close to the teacher. The text's own keys and values begin closer,
0.6 nats against 3. They also stay closer: 0.06 against 0.14. So we start as the paper does. Two
seeds are few, but at no step do their ranges touch.

## 5. What does it save?

We compare three things: the share of right answers, the bytes of cache (in float32), and the
CPU time for one question in a batch of 32 (the least of five times). Beside it stand
the first 16 slots before any training, and the prefix of section 3, which learned from the right
answers. **Before you run it:** the long text has more than twelve times as many slots. Is it twelve
times slower?
"""

# %%
from time import process_time  # of this process only: others do not count
from timeit import repeat
groups = {"its first\n16 slots": softs[:1], "distilled": pupils[:2], "random\nstart": pupils[2:]}
before = {"nothing": model.empty_past(), "prefix": pupils[0].past(model), "long text": long}
idx, targets = collate(rows["test"][:32], "cpu")
right, cost = {"long text": [words_right]}, {}
with torch.inference_mode():
    for name, some in groups.items():
        right[name] = [judge(model, tok, s.past(model), rows["test"], answers).among for s in some]
    for name, past in before.items():
        took = repeat(lambda: model.scored(idx, targets, past), timer=process_time, number=1)
        cost[name] = sum(x.nbytes for x in past.keys + past.values) / 1e6, min(took) / len(idx)

# %%
figure, (left, *others) = pyplot.subplots(1, 3, figsize=(12, 4), layout="tight")
right["with the\nanswers"] = trained[2:]
means = [sum(x) / len(x) for x in right.values()]
left.bar(list(right), means, color=[colours[i] for i in (1, 1, 6, 6, 6)], alpha=0.5)
left.plot(*zip(*[(name, x) for name, runs in right.items() for x in runs]), "o", color="0.2", ms=4)
left.axhline(share_of("America", test), ls="--", color=COLOURS["always"])
title = f"Distilled slots: {means[2]:.2f} right, the long text {means[0]:.2f}"
left.set(ylim=(0, 1), ylabel="share right (dashed: always America)", title=title)
for axis, values, unit in zip(others, zip(*cost.values()), ("MB of cache", "CPU seconds")):
    axis.bar(list(cost), values, color=[colours[i] for i in (0, 6, 1)], alpha=0.5)
    axis.set(ylabel=unit, title=f"The long text needs {values[2] / values[1]:.1f} times as much")

# %% [markdown]
r"""
**What to notice.** Sixteen distilled slots have 0.61 right, and the long text 0.60. Before the
training the same slots had 0.36. So they do the long text's work, its mistakes included: right
answers teach as many slots 0.83. The random start, with its higher divergence, is no worse here: 80
places cannot tell. The cache is 12.8 times smaller. The time falls
by about a third only. Even with no cache at all it hardly falls further: in this small model most of
it goes into the weights.

## 6. To PEFT, and back

PEFT (Mangrulkar et al. 2022) keeps a soft prompt as a folder: a JSON file and one tensor. A prompt
is (P, C), P vectors of C numbers, as ours. A prefix has one row for each virtual token,
(P, 2 L Hkv D): L layers, Hkv key heads of D numbers, once for keys and once for values. **Before you
run it:** a prompt has 16 vectors of 576 numbers. How many bytes will its file have? And how large a
difference between the logits of two correct programs would you accept?
**Exercise 3. PEFT's order.** Lay a prefix out in that way. In a row come the layers, one after the
other. In a layer come first the keys of all heads, then the values of all heads.

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
from safetensors.torch import load_file
from huggingface import from_peft, to_peft
for soft in (arms[0].soft, pupils[0]):  # a prompt, and the distilled prefix
    folder = f"{files.name}/{soft.kind}"
    to_peft(soft, model, folder)
    for path in sorted(Path(folder).iterdir()):
        print(f"{soft.kind}: {path.name}, {path.stat().st_size:,} bytes")
stored = load_file(f"{folder}/adapter_model.safetensors")["prompt_embeddings"]
ours = peft_prefix(torch.stack([*pupils[0].keys]), torch.stack([*pupils[0].values]))
print(f"by hand and to_peft differ by {(stored - ours).abs().max():.0f}")

# %%
import transformers
from peft import PeftModel
transformers.logging.disable_progress_bar()
llama = transformers.AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
idx = torch.tensor(questions[:1])  # (1, T)
for soft in (arms[0].soft, pupils[0]):
    with torch.inference_mode():
        other = PeftModel.from_pretrained(llama, f"{files.name}/{soft.kind}")
        theirs, ours = other(idx).logits[:, -idx.shape[1] :], model(idx, soft.past(model))[0]
    back = from_peft(f"{files.name}/{soft.kind}", model).state_dict()
    same = all(torch.equal(back[name], numbers) for name, numbers in soft.state_dict().items())
    print(f"{soft.kind}: logits differ by {(theirs - ours).abs().max():.0e}; back the same: {same}")

# %% [markdown]
r"""
**What to notice.** Both programs compute the same. Their logits differ in the last digits of
float32. What comes back is equal in every bit. The prompt's file has 37,048 bytes, the
prefix's twenty times as many, and the model 270 million. `to_peft` also writes down which base the
soft prompt belongs to, and `from_peft` refuses any other.

## Summary

A model that somebody else trained runs in the same files. On our places, a hard prompt with examples has
0.60 right, a trained prompt 0.72 and a trained prefix 0.83. A text of 32 examples was distilled
into 16 slots, without any other right answer. They answer as well as the long text, and no better. They
save most of the cache, but little time. All of it goes to PEFT and back unchanged.
## Sources

- Brown et al. 2020, *Language Models are Few-Shot Learners*, arXiv 2005.14165
- Ben Allal et al. 2025, *SmolLM2: When Smol Goes Big*, arXiv 2502.02737
- Eyuboglu et al. 2025, *Cartridges: Lightweight and general-purpose long context representations
  via self-study*, arXiv 2506.06266
- Hinton, Vinyals and Dean 2015, *Distilling the Knowledge in a Neural Network*, arXiv 1503.02531
- Lester, Al-Rfou and Constant 2021, *The Power of Scale for Parameter-Efficient Prompt Tuning*, arXiv
  2104.08691
- Li and Liang 2021, *Prefix-Tuning: Optimizing Continuous Prompts for Generation*, arXiv 2101.00190
- Mangrulkar et al. 2022, *PEFT: State-of-the-art Parameter-Efficient Fine-Tuning methods*,
  github.com/huggingface/peft
"""
