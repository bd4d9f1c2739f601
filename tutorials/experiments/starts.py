"""Where should a prompt start, and why does it matter? Nine minutes.

    python tutorials/experiments/starts.py      starts.csv

race        as experiment 1 of the main job on the rule, with eight seeds
usual       at the learning rates that users of other libraries meet, for a fixed time
neighbour   from a trained prompt of another task (SPoT, Vu et al. 2021, arXiv 2110.07904)
distance    in steps of 1/64 of the size of the start's own numbers. With such steps a prompt stops
            soon after it has learned the task. So how far it has moved says how far away the
            nearest solutions are. Distances are in the same unit: noise is sixteen times as long as
            tokens, and so is a step of it
"""

import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import torch.nn.functional as F
from script import SEEDS, arms_of, in_columns, learn, run_script, until_learned

from softprompt import PromptTuning
from train import STARTS, Arm, Sweep, new_arm, sizes

RULE, FACTS, P = "first-letter-last", "swap-4", 16
RACE, RACE_SEEDS = Sweep(), range(8)

# Absolute rates: the default of Hugging Face's Trainer, PEFT's comparison of methods, PEFT's guide,
# and Lester et al. 2021.
USUAL_RATES = (0.00005, 0.001, 0.03, 0.3)
USUAL_STARTS, USUAL_STEPS = ("related", "vocab", "normal"), 60

NEIGHBOURS = {"swap-1": 200, "first-letter-first": 40, "last-letter-last": 40}  # and their steps
FACTS_FROM, FACTS_STEPS, FACTS_RATE = ("swap-1", "first-letter-first"), 120, 3
RULE_FROM = ("first-letter-first", "last-letter-last")

DISTANCE_STEPS, SHARE = 160, 1 / 64

COLUMNS = (
    "part",
    "task",
    "start",  # in `neighbour` also the task of the neighbour's prompt
    "rate",  # in units of the embeddings' spread
    "seed",
    "step",  # in `race`, `distance` and for the rule: 0, and where the arm stopped
    "split",
    "loss",
    "accuracy",
    "distance",  # root mean square of the movement over that of the start
    "turn",  # mean angle in degrees
)


def run(lab):
    """Rows with COLUMNS."""
    rows = []
    for part in (race, usual, neighbour, distance):
        rows += [{"part": part.__name__, **row} for row in part(lab)]
    return in_columns(rows, COLUMNS)


def race(lab):
    """Every start at every rate; `train.steps_needed` says how long each arm took."""
    arms = []
    for start in STARTS:
        for rate in RACE.rates:
            arms += arms_of(lab, RULE, start, rate, RACE_SEEDS)
    return until_learned(lab, arms, RACE.steps, "race")


def usual(lab):
    """Three starts at absolute rates, for a fixed time, with a warm-up and a fall as is usual."""
    spread = lab.model.model.embed_tokens.weight.std().item()
    arms = []
    for start in USUAL_STARTS:
        for rate in USUAL_RATES:
            arms += arms_of(lab, RULE, start, round(rate / spread, 5))
    return learn(lab, arms, USUAL_STEPS, "usual rates", ("test",))


def neighbour(lab):
    """Facts and the rule from trained prompts of other tasks. The same from sampled tokens stands
    beside the facts, and for the rule in `race`."""
    prompts = {task: trained_prompts(lab, task) for task in NEIGHBOURS}
    facts = arms_of(lab, FACTS, "vocab", FACTS_RATE)
    for task in FACTS_FROM:
        facts += arms_from(task, prompts[task], FACTS, FACTS_RATE)
    rule = []
    for task in RULE_FROM:
        for rate in RACE.rates:
            rule += arms_from(task, prompts[task], RULE, rate)
    looks = range(0, FACTS_STEPS + 1, 20)
    rows = learn(lab, facts, FACTS_STEPS, f"{FACTS} from neighbours", ("test",), looks)
    return rows + until_learned(lab, rule, RACE.steps, f"{RULE} from neighbours")


def trained_prompts(lab, task):
    """A trained prompt of each seed, from sampled tokens."""
    arms = arms_of(lab, task, "vocab", FACTS_RATE)
    learn(lab, arms, NEIGHBOURS[task], f"neighbours, {task}", splits=())
    return [arm.soft for arm in arms]


def arms_from(neighbour, prompts, task, rate):
    """An arm for each seed, from the neighbour's prompt of this seed."""
    arms = []
    for seed, soft in zip(SEEDS, prompts):
        columns = {"start": neighbour, "rate": rate}
        arms.append(Arm(PromptTuning(soft.embeddings), task, rate, seed, columns))
    return arms


def distance(lab):
    """How far, and by what angle, each start has moved when the rule is learned."""
    arms, begins = [], {}
    for start in STARTS:
        for seed in SEEDS:
            arm = new_arm(lab, RULE, "prompt", start, P, 1, seed)
            embeddings = arm.soft.embeddings.detach()  # (P, C)
            arm.rate = SHARE * embeddings.std().item() / sizes(arm.soft, lab.model)[0]
            arm.columns = {"start": start, "rate": round(arm.rate, 5)}
            begins[start, seed] = embeddings.clone()
            arms.append(arm)
    rows = until_learned(lab, arms, DISTANCE_STEPS, "distance")
    movement = {}
    for arm in arms:
        where = arm.columns["start"], arm.seed
        movement[where] = moved(begins[where], arm.soft.embeddings.detach())
    return [{**row, **movement[row["start"], row["seed"]]} for row in rows if row["step"] > 0]


def moved(begin, now):
    """How far vectors (P, C) have moved, in units of their own size, and by what angle."""
    distance = (now - begin).norm() / begin.norm()
    cosines = F.cosine_similarity(begin, now)  # (P,)
    turn = math.degrees(cosines.clamp(-1, 1).acos().mean())
    return {"distance": round(distance.item(), 4), "turn": round(turn, 2)}


if __name__ == "__main__":
    run_script("starts", run)
