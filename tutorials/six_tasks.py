"""How good is `tune` as it comes? Six tasks made from what the requirements install.

    python tutorials/six_tasks.py --base FOLDER [--tasks NAME...] [--peft prompt prefix]

FOLDER is a Llama in Hugging Face's format. On each task, `own_data.py tune` trains a prompt and a
prefix with its defaults. Beside them stand always the commonest answer, a bag of words, and PEFT:
200 steps of 16 texts at the rate that is best of three by validation after 20. All are judged on
the same test texts, choosing among the answers that there are. Writes six_tasks.csv into --out.
Needs safetensors, tokenizers and scikit-learn, with --peft transformers and peft as well.

The first three tasks had a say in the defaults of `tune`, *module* and *language* had none. A first
run of *character* showed that the rate before was too high (RESULTS.md). A hash of the text splits
each task into what is learned from and what is tested.
"""

import csv
import io
import json
import random
import sys
import sysconfig
import time
import unicodedata
import zoneinfo
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
import own_data
from huggingface import from_peft, load_folder
from own_data import draw_similar_rows, few_answers, judge, read_data, rows_behind

import softprompt
from model import InputError, require_writable
from train import (
    METHODS,
    TASKS,
    Tokenizer,
    clock,
    commonest_answer,
    docstrings_in,
    guard,
    hashed,
    load_data,
    progress,
    say,
    script_parser,
    share_of,
    source_files,
    split_of,
    warm_up_and_fall,
    write_text,
)

TRAIN, TEST = 2400, 400  # texts at most

# ------------------------------------------------------------------ the tasks: [(text, answer)]


def libraries(out):
    """The first line of a docstring -> the library it is from."""
    return pairs_of_all_sentences("library", out)


def kinds(out):
    """The first line of a docstring -> class or function."""
    return pairs_of_all_sentences("kind", out)


def pairs_of_all_sentences(task, out):
    pairs = []
    for sentences in load_data(out).values():
        pairs += TASKS[task].pairs(sentences)
    return pairs


CONTINENTS = ("Africa", "America", "Asia", "Europe", "Pacific")


def zones(out):
    """The name of a place -> the continent that its time zone is filed under."""
    pairs = []
    for zone in zoneinfo.available_timezones():
        parts = zone.split("/")
        if len(parts) > 1 and parts[0] in CONTINENTS:
            pairs.append((parts[-1].replace("_", " "), parts[0]))
    return pairs


def modules(out):
    """The first line of a docstring of SymPy -> which of its eight biggest packages has it."""
    pairs = []
    for library, path in source_files():
        package = package_of(path) if library == "sympy" else None
        if package is None:
            continue
        for _, docstring in docstrings_in(path):
            line = docstring.split("\n")[0].strip()
            if 20 <= len(line) <= 100:
                pairs.append((line, package))
    counts = Counter(package for _, package in pairs)
    biggest = {package for package, _ in counts.most_common(8)}
    return [(line, package) for line, package in pairs if package in biggest]


def package_of(path):
    """The package of SymPy that a file is in, or None."""
    parts = Path(path).parts
    inner = parts[parts.index("sympy") + 1 :]
    return inner[0] if len(inner) > 1 else None


SOURCES = {  # language: where its files lie among the installed packages, and how they end
    "Python": ("torch/nn", ".py"),
    "C++": ("torch/include/ATen", ".h"),
    "Fortran": ("numpy/f2py/tests/src", ".f90"),
    "CMake": ("torch/share/cmake", ".cmake"),
}


def languages(out):
    """A line of code -> the language that it is written in."""
    packages = Path(sysconfig.get_paths()["purelib"])
    pairs = []
    for language, (folder, ending) in SOURCES.items():
        lines = set()
        for path in sorted((packages / folder).rglob(f"*{ending}")):
            lines.update(line.strip() for line in path.read_text(errors="ignore").split("\n"))
        lines = sorted(line for line in lines if 12 <= len(line) <= 80 and line.isascii())
        drawn = random.Random(0).sample(lines, min(800, len(lines)))
        pairs += [(line, language) for line in drawn]
    return pairs


CATEGORIES = {"L": "letter", "M": "mark", "N": "number", "P": "punctuation", "S": "symbol"}


def characters(out):
    """The name of a Unicode character -> what kind of character it is."""
    pairs = []
    for code in range(0x3000):
        name = unicodedata.name(chr(code), "").lower()
        category = unicodedata.category(chr(code))[0]
        if name and category in CATEGORIES:
            pairs.append((name, CATEGORIES[category]))
    return pairs


SIX = {
    "library": libraries,
    "kind": kinds,
    "zone": zones,
    "module": modules,
    "language": languages,
    "character": characters,
}


def read_pairs_of(name, out):
    """(pairs to learn from, pairs to test with), mixed; a text that has two answers is left out."""
    pairs = set(SIX[name](out))
    answers = Counter(text for text, _ in pairs)
    pairs = [pair for pair in pairs if answers[pair[0]] == 1]
    pairs.sort(key=lambda pair: hashed(pair[0]))
    learn, test = [], []
    for pair in pairs:
        part = test if split_of(pair[0]) == "test" else learn
        part.append(pair)
    return learn[:TRAIN], test[:TEST]


def write_pairs(pairs, path):
    """Write them as .jsonl, for `own_data.py tune`."""
    lines = []
    for text, answer in pairs:
        lines.append(json.dumps({"text": text.replace("\t", " "), "answer": answer}) + "\n")
    write_text(path, "".join(lines))


# ------------------------------------------------------------------ what is compared


class Result(NamedTuple):
    """How often something is right on the test texts of a task."""

    task: str
    method: str
    accuracy: float  # choosing among the answers
    exact: float  # by greedy decoding
    seconds: float  # of training and choosing a rate


class Bench(NamedTuple):
    """A real model and a task for it."""

    base: str  # its folder
    model: torch.nn.Module
    tok: Tokenizer
    task: str
    file: Path  # of the pairs to learn from
    test: list  # [(text, answer)]
    few: list  # the answers that there are

    def tested(self, method, soft, seconds):
        """The Result of a soft prompt."""
        rows = rows_behind(self.model, self.tok, self.test, soft.length, "", self.few)
        with torch.inference_mode():
            found = judge(self.model, self.tok, soft.past(self.model), rows, self.few)
        return Result(self.task, method, found.among, found.exact, seconds)


def without_base(name, learn, test):
    """The Results of always giving the commonest answer, and of a bag of words."""
    started = time.time()
    always = share_of(commonest_answer(learn), test)
    bag = bag_of_words(learn, test)
    return [
        Result(name, "always the commonest", always, always, 0.0),
        Result(name, "bag of words", bag, bag, time.time() - started),
    ]


def bag_of_words(learn, test):
    """The accuracy of logistic regression on word counts."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    words, regression = CountVectorizer(), LogisticRegression(max_iter=1000)
    counts = words.fit_transform([text for text, _ in learn])
    regression.fit(counts, [answer for _, answer in learn])
    counts = words.transform([text for text, _ in test])
    return float(regression.score(counts, [answer for _, answer in test]))


def tuned(bench, method, device):
    """The Result of `own_data.py tune` with its defaults."""
    started = time.time()
    path = bench.file.with_name(f"{method}.pt")
    command = ["tune", "--base", bench.base, "--data", str(bench.file), "--method", method]
    own_data.main([*command, "--save", str(path), "--device", device])
    seconds = time.time() - started
    soft = softprompt.load(path, bench.model)
    return bench.tested(f"our {method}, {soft.facts['step']} steps", soft, seconds)


# ------------------------------------------------------------------ PEFT

PEFT_RATES = {"prompt": (0.1, 0.3, 1.0), "prefix": (0.003, 0.03, 0.3)}
PEFT_STEPS, TRIAL_STEPS, SIZE = 200, 20, 16


def tuned_by_peft(bench, method):
    """The Result of PEFT's method: as many virtual tokens, trained on the same texts, at the rate
    that is best of three by validation after TRIAL_STEPS."""
    started = time.time()
    learn, valid = read_data(bench.file)
    P = own_data.LENGTH
    rows = rows_behind(bench.model, bench.tok, learn, P)
    valid = rows_behind(bench.model, bench.tok, valid[: own_data.MAX_STOP], P)
    losses = {}
    for rate in PEFT_RATES[method]:
        soft = peft_prompt(bench, method, rate, rows, TRIAL_STEPS)
        with torch.inference_mode():
            losses[rate] = judge(bench.model, bench.tok, soft.past(bench.model), valid).loss
    rate = min(losses, key=losses.get)
    soft = peft_prompt(bench, method, rate, rows, PEFT_STEPS)
    return bench.tested(f"PEFT's {method}, rate {rate:g}", soft, time.time() - started)


def peft_prompt(bench, method, rate, rows, steps):
    """What PEFT learns from the batches that `tune` learns from, with its schedule, as a soft
    prompt of ours. Its start is PEFT's default, N(0, 1); its loss is over the vocabulary."""
    other = peft_model(bench, method)
    learned = [p for p in other.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=rate, weight_decay=0.0)
    for step in progress(range(steps), steps, f"PEFT's {method}, {rate:g}"):
        batch = draw_similar_rows(rows, 0, step, SIZE)
        idx, labels = padded(batch, bench.model.device)  # (B, T) each
        mask = (idx >= 0).long()  # (B, T)
        other(input_ids=idx.clamp(min=0), attention_mask=mask, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.param_groups[0]["lr"] = rate * warm_up_and_fall(step, steps)
        optimizer.step()
        optimizer.zero_grad()
    folder = bench.file.with_name("adapter")
    other.save_pretrained(folder)
    return from_peft(folder, bench.model, same_base=True)


def peft_model(bench, method):
    """The base in transformers with PEFT's prompt or prefix."""
    import peft
    import transformers

    torch.manual_seed(0)
    base = transformers.AutoModelForCausalLM.from_pretrained(bench.base, dtype=torch.float32)
    configs = {"prompt": peft.PromptTuningConfig, "prefix": peft.PrefixTuningConfig}
    config = configs[method](task_type="CAUSAL_LM", num_virtual_tokens=own_data.LENGTH)
    return peft.get_peft_model(base.to(bench.model.device), config)


def padded(batch, device):
    """Rows of (question, answer) as transformers wants them: ids (B, T), -1 in empty slots, and
    labels (B, T), -100 for what is not scored; they are not shifted."""
    T = max(len(question) + len(answer) for question, answer in batch)
    idx = torch.full((len(batch), T), -1)  # (B, T)
    labels = torch.full((len(batch), T), -100)  # (B, T)
    for b, (question, answer) in enumerate(batch):
        end = len(question) + len(answer)
        idx[b, :end] = torch.tensor(question + answer)
        labels[b, len(question) : end] = torch.tensor(answer)
    return idx.to(device), labels.to(device)


# ------------------------------------------------------------------ the command line


def try_all(settings):
    """Yield every Result, task after task."""
    model, tok = load_folder(settings.base, settings.device)
    for name in settings.tasks:
        learn, test = read_pairs_of(name, settings.out)
        file = Path(settings.out) / "tasks" / name / "learn.jsonl"
        write_pairs(learn, file)
        yield from without_base(name, learn, test)
        bench = Bench(settings.base, model, tok, name, file, test, few_answers(learn))
        for method in METHODS:
            yield tuned(bench, method, settings.device)
        for method in settings.peft:
            yield tuned_by_peft(bench, method)


def write_table(results, path):
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(Result._fields)
    writer.writerows(results)
    write_text(path, file.getvalue())


def require_packages(settings):
    """Raise InputError, before the work, where a package is missing."""
    try:
        import sklearn  # noqa: F401

        if settings.peft:
            import peft  # noqa: F401
            import transformers  # noqa: F401
    except ImportError as missing:
        more = "transformers peft" if settings.peft else ""
        raise InputError(f"{missing}: pip install scikit-learn {more}") from missing


def parse(arguments):
    parser = script_parser("six_tasks.py", __doc__)
    add = parser.add_argument
    add("--base", required=True, help="folder of a Llama in Hugging Face's format")
    add("--tasks", nargs="+", choices=SIX, default=list(SIX), help="these tasks alone")
    add("--peft", nargs="*", choices=PEFT_RATES, default=["prompt"], help="PEFT's methods (prompt)")
    add("--out", default="out", help="folder for data, prompts and the table (out)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, mps or auto (auto)")
    return parser.parse_args(arguments)


def main(arguments=None):
    settings = parse(arguments)
    require_packages(settings)
    table, results = Path(settings.out) / "six_tasks.csv", []
    require_writable(table)
    for result in try_all(settings):
        task, method, accuracy, exact, seconds = result
        say(f"{task:10s} {method:26s} {accuracy:.3f} (exact {exact:.3f}) {clock(seconds)} minutes")
        results.append(result)
        write_table(results, table)


if __name__ == "__main__":
    guard(main)
