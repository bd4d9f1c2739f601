"""The exercises: `@exercise` above a student's function checks it on the spot.

All of an exercise stands in exercises/class_N.py, under its name: our function NAME, NAME_inputs()
with the arguments to try it on, and NAME_mistakes, {what to say: a function with this mistake}. A
student's function is right where it gives what ours gives.
"""

import copy
import importlib
import math

import shared  # noqa: F401  where model.py is
import torch
from torch import nn

from model import Past

RIGHT = "right"
CLASSES = [importlib.import_module(f"exercises.class_{number}") for number in range(1, 9)]


def ours(name):
    """What the classes have under this name: a solution, its inputs or its mistakes."""
    [found] = [getattr(module, name) for module in CLASSES if hasattr(module, name)]
    return found


def exercise(student):
    """What stands above a function of the student's: say whether it is right, and what the notebook
    uses from here on. That is the student's own function, or, until it is right, ours."""
    name = student.__name__
    verdict = check(student)
    print(verdict)
    if verdict == RIGHT:
        return student
    print(f"Until it is right, the notebook goes on with {name} of classroom/exercises.")
    return ours(name)


def check(student):
    """RIGHT, or a sentence that begins with "not yet" and says what differs. It never stops the
    notebook, and the notebook's next random numbers stay the same."""
    name = student.__name__
    with torch.random.fork_rng(devices=[]):
        inputs = ours(f"{name}_inputs")()
        wanted = [call(ours(name), given) for given in inputs]
        try:
            results = [call(student, given) for given in inputs]
        except NotImplementedError:
            return "not yet: replace `raise NotImplementedError` by your code"
        except Exception as problem:
            return f"not yet: your function stopped with {type(problem).__name__}: {problem}"
        if all(map(same, results, wanted)):
            return RIGHT
        for sentence, mistaken in ours(f"{name}_mistakes").items():
            if all(map(same, results, [call(mistaken, given) for given in inputs])):
                return f"not yet: {sentence}"
    for given, got, want in zip(inputs, results, wanted):
        if not same(got, want):
            return f"not yet: {difference(given, got, want)}"


def call(function, given):
    """[what a function returns, the arguments afterwards]: who changes what is given, differs."""
    arguments = copy.deepcopy(given)
    return [function(*arguments), arguments]


def same(got, want):
    """Whether two results are equal, numbers to four digits."""
    got, want = parts_of(got), parts_of(want)
    if isinstance(want, list):
        return isinstance(got, list) and len(got) == len(want) and all(map(same, got, want))
    if torch.is_tensor(want):
        alike = torch.is_tensor(got) and got.shape == want.shape
        return alike and torch.allclose(got.double(), want.double(), atol=1e-4, equal_nan=True)
    if isinstance(want, float):
        number = isinstance(got, (int, float))
        return number and (got == want or math.isclose(got, want, rel_tol=1e-4, abs_tol=1e-4))
    return type(got) is type(want) and got == want


def parts_of(value):
    """What a value consists of, as a list; a value without parts as it is."""
    if isinstance(value, Past):
        return [*value.keys, *value.values, value.positions, value.pinned]
    if isinstance(value, nn.Module):
        return [p.detach() for p in value.parameters()]
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple)):
        return list(value)
    return value.detach() if torch.is_tensor(value) else value


def difference(given, got, want):
    """In words, what a function returns and what it should."""
    if not same(got[1], want[1]):
        return "your function changes what it is given; return something new"
    said = ", ".join(short(argument) for argument in given)
    return f"for ({said}) you return {short(got[0])}, it should be {short(want[0])}"


def short(value):
    """A value in few words."""
    if torch.is_tensor(value) and value.numel() > 6:
        first = [round(number, 4) for number in value.flatten()[:3].tolist()]
        return f"a tensor {tuple(value.shape)} that begins with {first}"
    if torch.is_tensor(value):
        return f"tensor({value.tolist()})"
    if isinstance(value, Past):
        return f"a Past with positions {value.positions.tolist()}"
    if isinstance(value, nn.Module):
        return f"a {type(value).__name__}"
    return repr(value)[:80]
