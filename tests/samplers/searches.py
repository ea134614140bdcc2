"""Small searches with known answers, run the way a study runs them."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping
from pathlib import Path

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import Trial, TrialState, create_trial

from evomerge.samplers import GeneSpace, SearchProblem, build_sampler

SLOPED = frozenset({"math", "code"})

Suggest = Callable[[Trial], dict[str, float | int | str]]

MIXED = GeneSpace(
    {
        "method": CategoricalDistribution(["linear", "ties", "dare"]),
        "math": FloatDistribution(0.0, 1.0),
        "code": FloatDistribution(0.01, 10.0, log=True),
        "density": FloatDistribution(0.1, 1.0),
        "groups": IntDistribution(1, 9, step=2),
        "fixed": FloatDistribution(0.5, 0.5),
    },
    {"method": "linear", "math": 0.5, "code": 1.0, "density": 1.0, "groups": 5, "fixed": 0.5},
)


def suggest_mixed(trial: Trial) -> dict[str, float | int | str]:
    """Suggest the active genes of MIXED: density only for methods that drop coordinates."""
    active = [name for name in MIXED.distributions if name != "density"]
    params = {name: suggest(trial, name, MIXED.distributions[name]) for name in active}
    if params["method"] != "linear":
        params["density"] = suggest(trial, "density", MIXED.distributions["density"])
    return params


def suggest(trial: Trial, name: str, distribution: BaseDistribution) -> float | int | str:
    """Suggest one gene."""
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    kwargs = {"step": distribution.step, "log": distribution.log}
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high, **kwargs)
    return trial.suggest_float(name, distribution.low, distribution.high, **kwargs)


def score_mixed(params: Mapping[str, float | int | str], n_objectives: int) -> list[float]:
    """Score MIXED; two objectives disagree on math and groups."""
    common = abs(math.log(params["code"])) / 5 + (params["method"] != "ties") * 0.3
    common += abs(params.get("density", 1.0) - 0.4)
    first = common + (params["math"] - 0.2) ** 2 + params["groups"] / 20
    second = common + (params["math"] - 0.8) ** 2 - params["groups"] / 20
    return [first, second][:n_objectives]


def floats(n_genes: int) -> GeneSpace:
    """Make a space of floats in [0, 1]."""
    names = [f"g{i}" for i in range(n_genes)]
    return GeneSpace(dict.fromkeys(names, FloatDistribution(0.0, 1.0)), dict.fromkeys(names, 0.5))


def suggest_all(space: GeneSpace) -> Suggest:
    """Make a function that suggests every gene."""
    return lambda trial: {n: suggest(trial, n, d) for n, d in space.distributions.items()}


def sampler_for(
    name: str,
    n_objectives: int,
    *,
    seed: int = 3,
    n_trials: int = 30,
    constrained: bool = False,
    **options: float | bool,
) -> BaseSampler:
    """Build a sampler of MIXED."""
    return build_sampler(
        name,
        options,
        SearchProblem(
            space=MIXED,
            n_objectives=n_objectives,
            n_trials=n_trials,
            seed=seed,
            constrained=constrained,
            sloped=SLOPED,
            sloped_objectives=(True,) * n_objectives,
        ),
    )


def new_study(sampler: BaseSampler, n_objectives: int, storage: BaseStorage | None = None) -> Study:
    """Create a study, or load it if the storage has it."""
    return optuna.create_study(
        study_name="s",
        storage=storage,
        sampler=sampler,
        directions=["minimize"] * n_objectives,
        load_if_exists=True,
    )


def open_journal(path: Path) -> JournalStorage:
    """Open a journal file as a new process would."""
    return JournalStorage(JournalFileBackend(str(path)))


def add_baselines(study: Study, n_objectives: int) -> None:
    """Add what every study starts with: two models outside the space, one inside it."""
    for value in (2.0, 3.0):
        study.add_trial(create_trial(values=[value] * n_objectives))
    study.enqueue_trial({"method": "linear", "math": 1.0, "code": 0.01, "groups": 1, "fixed": 0.5})


def run_one_by_one(
    study: Study,
    n_trials: int,
    *,
    constrained: bool = False,
    failed: Container[int] = (),
    pruned: Container[int] = (),
) -> None:
    """Run MIXED with one worker until the study has so many trials."""
    while len(study.trials) < n_trials or study.get_trials(states=[TrialState.WAITING]):
        trial = study.ask()
        params = suggest_mixed(trial)
        climb_on(study, trial)
        if constrained:
            trial.set_user_attr("constraints", violations(params))
        if trial.number in failed:
            study.tell(trial, state=TrialState.FAIL)
        elif trial.number in pruned:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, score_mixed(params, len(study.directions)))


def climb_on(study: Study, trial: Trial) -> None:
    """Go halfway to the minimum of MIXED, if the trial is to climb."""
    asked = study.get_trials(deepcopy=False)[trial.number]  # attributes of a Trial are older
    if climb := asked.user_attrs.get("climb"):
        first, second = [*climb["voices"], 0.0][:2]
        target = (0.2 * first + 0.8 * second) / (first + second)
        math_, code = climb["params"]["math"], climb["params"]["code"]
        way = 0.5 + climb["seed"] % 100 / 1000  # as drawn items differ
        moved = {"math": math_ + way * (target - math_), "code": code**way}
        trial.set_user_attr("climbed", {"params": {**climb["params"], **moved}})


def violations(params: Mapping[str, float | int | str]) -> list[float]:
    """Constrain MIXED: math at most 0.6, code at least 0.1."""
    return [float(params["math"]) - 0.6, 0.1 - float(params["code"])]


def run_out_of_order(study: Study, n_trials: int, *, seed: int = 0) -> None:
    """Run MIXED with 4 trials pending, results in random order, the tenth failed, 12th pruned."""
    rng = np.random.default_rng(seed)
    pending: list[tuple[Trial, dict[str, float | int | str]]] = []
    n_told = 0
    while n_told < n_trials:
        while len(pending) < 4:
            trial = study.ask()
            climb_on(study, trial)
            pending.append((trial, suggest_mixed(trial)))
        trial, params = pending.pop(int(rng.integers(len(pending))))
        n_told += 1
        if n_told == 10:
            study.tell(trial, state=TrialState.FAIL)
        elif n_told == 12:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, score_mixed(params, len(study.directions)))


def params_of(study: Study) -> list[dict[str, float | int | str]]:
    """List the params of all trials."""
    return [trial.params for trial in study.trials]
