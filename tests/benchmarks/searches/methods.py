"""One search on real evaluations: by any of our samplers, or as other tools search."""

from __future__ import annotations

import time

from evomerge.execution.protocol import Job, Outcome, Scored
from evomerge.execution.worker import Worker
from evomerge.recipe.files import stored_recipe
from evomerge.runs.events import Events
from evomerge.runs.loaded import Loaded
from evomerge.runs.run import settled
from evomerge.samplers import GeneSpace
from evomerge.space.protocol import Params
from evomerge.study.folder import StudyFolder
from evomerge.study.records import TrialRecord
from tests.benchmarks.bayes import BOTORCH, bayes
from tests.benchmarks.evolve import PEER, evolve
from tests.benchmarks.searches.cases import FOLDER, Case
from tests.benchmarks.searches.history import Step
from tests.benchmarks.studies import load_quickstart, run_study

__all__ = ["AFTER_SLOPES", "WHOLE_MODEL", "load_case", "objective_values", "search", "study_folder"]

WHOLE_MODEL = "nsga2-whole-model"
AFTER_SLOPES = "slopes+"
_EVALUATIONS_OF_A_CLIMB = 2  # the trial and the few items of its steps


def search(case: Case, method: str, seed: int) -> list[Step]:
    """Run one search, or read what an earlier call ran.

    Args:
        case: What is searched, and for how long.
        method: A sampler's name, ``PEER``, ``BOTORCH`` or ``WHOLE_MODEL``; ``slopes+NAME`` is a
            sampler after a third of the budget along slopes.
        seed: Of the search; items and models are the same for all.

    Raises:
        EvomergeError: The method cannot search this space.
    """
    if method in (PEER, BOTORCH):
        return _in_this_process(load_case(case), method, case.trials, seed)
    is_whole = method == WHOLE_MODEL
    sampler = method.removeprefix(AFTER_SLOPES)
    chosen = [f"sampler={'nsga2' if is_whole else sampler}", f"seed={seed}"]
    if sampler != method:
        chosen.append(f"seeds.slopes={case.trials // (3 * _EVALUATIONS_OF_A_CLIMB)}")
    experiment = load_quickstart([*case.overrides(whole_model=is_whole), *chosen])
    folder = study_folder(case, method, seed)
    return list(map(_step, run_study(experiment, folder).trials))


def study_folder(case: Case, method: str, seed: int) -> StudyFolder:
    """Name the folder of one search by a sampler."""
    name = f"{case.name} {method} {case.trials} {seed}".replace(",", "").replace(" ", "-")
    return StudyFolder(FOLDER / "studies" / name)


def load_case(case: Case) -> Loaded:
    """Load the parts of a case; the sampler of its experiment is what ``auto`` takes."""
    return settled(
        Loaded.of(load_quickstart(case.overrides())), study_folder(case, "auto", 0), Events()
    )


def objective_values(outcome: Outcome, parts: Loaded) -> tuple[float, ...]:
    """Read the values of a job that succeeded, larger is better; empty for any other."""
    if not isinstance(outcome, Scored):
        return ()
    metrics = outcome.scores.metrics
    return tuple(o.sign * metrics[o.task][o.metric].value for o in parts.objectives)


def _step(trial: TrialRecord) -> Step:
    recipe = stored_recipe(trial.recipe, trial.number)
    return Step(recipe, trial.values, trial.seconds, trial.evaluations)


def _in_this_process(parts: Loaded, method: str, trials: int, seed: int) -> list[Step]:
    """Search as ``PEER`` or ``BOTORCH`` does, with real evaluations."""
    worker = Worker(parts.worker)
    steps: list[Step] = []
    told = time.perf_counter()

    def score(params: Params) -> tuple[float, ...]:
        nonlocal told
        recipe = parts.space.recipe(params)
        asked = time.perf_counter()
        outcome = worker.run(Job(len(steps), recipe))
        values = objective_values(outcome, parts)
        phases = outcome.seconds if isinstance(outcome, Scored) else {}
        steps.append(Step(recipe, values, {"ask": asked - told, **phases}))
        told = time.perf_counter()
        return values

    def mean(params: Params) -> float:
        values = score(params)
        return sum(values) / len(values) if values else 0.0  # no worse accuracy than none

    space = parts.space
    genes = GeneSpace(space.distributions, space.defaults, space.depths)
    if method == PEER:
        evolve(genes, mean, trials, seed)
    else:
        parents = [one.params for one in parts.seeds if one.params is not None]
        bayes(genes, parents, score, trials, seed)
    return steps
