"""Studies made of records, with known answers, for the analysis tests."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from evomerge.study.records import FinalRecord, Objective, StudyRecord, TrialRecord

START = datetime(2026, 1, 5, 9, 0, 0)
NAMES = ("zoo_math", "zoo_list", "zoo_code", "zoo_facts")


def objectives(
    k: int, direction: Literal["maximize", "minimize"] = "maximize"
) -> tuple[Objective, ...]:
    return tuple(Objective(NAMES[i], "exact_match", direction, NAMES[i]) for i in range(k))


def trial(
    number: int,
    values: Sequence[float],
    *,
    origin: str = "search",
    stderr: float = 0.02,
    recipe: dict[str, object] | None = None,
) -> TrialRecord:
    started = START + timedelta(seconds=13 * number)
    return TrialRecord(
        number=number,
        state="complete",
        origin=origin,
        values=tuple(values),
        stderr=(stderr,) * len(values),
        params={},
        recipe=recipe or {},
        seconds={"ask": 0.02, "merge": 0.9, "evaluate": 11.0, "tell": 0.03},
        error=None,
        started=started,
        finished=started + timedelta(seconds=24),
    )


def failed(number: int, error: str) -> TrialRecord:
    return TrialRecord(
        number, "failed", "search", (), (), {}, {}, {"ask": 0.02}, error, START, START
    )


def study_of(
    trials: Sequence[TrialRecord],
    of: Sequence[Objective],
    *,
    name: str = "quickstart",
    finals: Sequence[FinalRecord] = (),
) -> StudyRecord:
    return StudyRecord(name, tuple(of), tuple(trials), tuple(finals), n_trials=120)


def layerwise_recipe(rng: random.Random, experts: Sequence[str], layers: int) -> dict[str, object]:
    rules: list[object] = [
        {
            "where": {"layers": [layer, layer + 2], "kinds": [kind], "names": None},
            "method": "ties",
            "parameters": {
                "coefficient": {e: round(rng.gauss(0.5, 0.35), 4) for e in experts},
                "density": 0.3,
            },
        }
        for layer in range(0, layers, 2)
        for kind in ("attention", "mlp")
    ]
    rest = {"coefficient": dict.fromkeys(experts, 0.33), "density": 0.3}
    rules.append({"where": {}, "method": "ties", "parameters": rest})
    named = {"where": {"names": r"lm_head\.bias"}, "method": "linear", "parameters": {}}
    return {
        "base": "zoo:base",
        "experts": {e: f"zoo:{e}" for e in experts},
        "rules": [named, *rules],
        "dtype": "bfloat16",
        "seed": 7,
    }


def make_study(
    k: int, *, n_trials: int = 110, n_failed: int = 4, finals: bool = True, layers: int = 12
) -> StudyRecord:
    """A whole study of ``k`` objectives, one expert each, with failures and held-out scores."""
    rng = random.Random(k)
    experts = ("math", "list", "code", "facts")[:k]
    trials: list[TrialRecord] = []
    if n_trials:
        trials.append(trial(0, [0.12 + 0.02 * i for i in range(k)], origin="base"))
        for e, expert in enumerate(experts):
            scores = [0.74 if i == e else 0.16 for i in range(k)]
            trials.append(trial(len(trials), scores, origin=f"expert:{expert}"))
        trials.append(trial(len(trials), [0.46] * k, origin="uniform"))
    for step in range(n_trials):
        skill = 0.95 - 0.35 * math.exp(-step / 30) - abs(rng.gauss(0, 0.08))
        angles = [rng.random() ** 0.5 for _ in range(k)]
        norm = math.hypot(*angles)
        scores = [min(0.97, skill * (a / norm) ** 0.5 * 0.95) for a in angles]
        recipe = layerwise_recipe(rng, experts, layers)
        trials.append(trial(len(trials), scores, recipe=recipe))
    for index in range(n_failed):
        oom = "Traceback (most recent call last):\n  in score\nMemoryError: 14 GB asked, 12 GB free"
        trials.append(
            failed(len(trials), oom if index else "EvaluationError: logits are not finite")
        )
    study = study_of(trials, objectives(k))
    return study_of(trials, objectives(k), finals=_finals(study) if finals and n_trials else ())


def _finals(study: StudyRecord) -> tuple[FinalRecord, ...]:
    complete = [t for t in study.trials if t.state == "complete"]
    base = [t for t in complete if t.origin != "search"]
    best = sorted((t for t in complete if t.origin == "search"), key=lambda t: -sum(t.values))[:4]
    found = []
    losses: dict[Literal["validation", "test"], float] = {"validation": 0.03, "test": 0.035}
    for split, loss in losses.items():
        for t in [*base, *best]:
            drop = loss if t in best else 0.005
            values = tuple(v - drop for v in t.values)
            found.append(
                FinalRecord(t.number, t.origin, split, values, t.stderr, chosen=t is best[1])
            )
    return tuple(found)
