"""Climbs on workers, with the embedded models."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from evomerge.config.presets import Presets
from evomerge.evaluation.item_losses import LossSettings
from evomerge.evaluation.losses import Losses
from evomerge.execution.climb import Factors, SlopedGenes, Slopes, climb, drawn_items
from evomerge.execution.protocol import Climb, Goal, Job, Outcome, Scored, WorkerSpec
from evomerge.execution.ray import RayExecutor
from evomerge.execution.worker import Worker
from evomerge.runs.parts import build_space, load_suites
from evomerge.space.protocol import ModelSet, Params

EXPERTS = {"math": "zoo:math", "list": "zoo:list"}
MODELS = ModelSet("zoo:base", EXPERTS, n_layers=4)
GENES = {"coefficient": {"range": [0, 1]}}
SPACE = build_space({"method": "task_arithmetic", "genes": GENES}, MODELS)
OBJECTIVES = (("zoo_math", "exact_match"), ("zoo_list", "exact_match"), ("cost", "hops"))
START = {"coefficient.math": 0.3, "coefficient.list": 0.6}
(ZOO,) = load_suites(["zoo"], Presets(), Path.cwd())
SPEC = WorkerSpec(
    *("zoo:base", EXPERTS, (replace(ZOO, limit=12),), "float32"),
    costs=("hops",),
    space=SPACE,
    objectives=OBJECTIVES,
)


def asked(voices: tuple[float, ...] = (1.0, 0.5, 0.0), steps: int = 2) -> Climb:
    return Climb(START, voices, steps=steps, items=5, step_size=0.1, pull=0.0, seed=3)


def job(request: Climb | None) -> Job:
    return Job(4, SPACE.recipe(START), climb=request)


def scored(outcome: Outcome) -> Scored:
    assert isinstance(outcome, Scored)
    return outcome


@pytest.fixture(scope="module")
def worker() -> Worker:
    return Worker(SPEC)


def mean_loss(worker: Worker, params: Params, k: int, rows: list[int]) -> float:
    """The loss of a model that is merged for it."""
    worker._materialise(SPACE.recipe(params))
    loss = worker._prepared["search"].losses(OBJECTIVES).backward(k, rows)
    worker._candidate.model.zero_grad(set_to_none=True)
    return loss


def test_a_climb_follows_the_differences_of_losses(worker: Worker) -> None:
    """The same steps, with slopes from central differences of losses at merged models."""
    request = asked()

    def slope(params: Params, gene: str, k: int, rows: list[int], h: float = 0.004) -> float:
        ends = ({**params, gene: params[gene] + side} for side in (h, -h))
        above, below = (mean_loss(worker, end, k, rows) for end in ends)
        return (above - below) / (2 * h)

    def slopes_at(params: Params, step: int, sums: Sequence[Factors]) -> list[Slopes]:
        each = []
        for k in (0, 1):
            rows = drawn_items(request, step, k, 12)
            along = {gene: slope(params, gene, k, rows) for gene in START}
            each.append((mean_loss(worker, params, k, rows), along))
        found = []
        for factors in sums:
            counted = [(f, own) for f, own in zip(factors, each, strict=False) if f]
            along = {gene: sum(f * own[gene] for f, (_, own) in counted) for gene in START}
            losses = tuple(loss for _, (loss, _) in counted)
            found.append(Slopes(losses, along, 5 * len(counted)))
        return found

    wanted = climb(request, SlopedGenes(SPACE), slopes_at)
    found = scored(worker.run(job(request))).climbed
    assert found is not None
    assert found.params == pytest.approx(wanted.params, abs=5e-3)
    for row, wanted_row in zip(found.losses, wanted.losses, strict=True):
        assert row == pytest.approx(wanted_row, rel=1e-2)
    assert found.n_items == 2 * 2 * 5
    assert any(abs(found.params[gene] - START[gene]) > 0.05 for gene in START)


def test_a_climb_changes_no_scores_of_its_own_trial_or_of_later_ones(worker: Worker) -> None:
    plain = scored(worker.run(job(None)))
    climbed = scored(worker.run(job(asked())))
    later = scored(worker.run(job(None)))
    for outcome in (climbed, later):
        assert outcome.scores.metrics == plain.scores.metrics
        assert outcome.scores.items == plain.scores.items
    assert climbed.seconds["slopes"] > 0
    assert "slopes" not in plain.seconds


def test_scores_that_are_known_already_are_climbed_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worker: Worker
) -> None:
    wanted = scored(worker.run(job(asked()))).climbed
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path))
    scored(Worker(SPEC).run(job(None)))
    again = Worker(SPEC)
    monkeypatch.setattr(again, "_looks", None)  # it need not be scored
    assert scored(again.run(job(asked()))).climbed == wanted


def test_small_microbatches_and_layers_that_run_again_lead_to_the_same_end(worker: Worker) -> None:
    wanted = scored(worker.run(job(asked()))).climbed
    small = replace(SPEC, losses=LossSettings(n_tokens=32, checkpointing=True))
    found = scored(Worker(small).run(job(asked()))).climbed
    assert wanted is not None
    assert found is not None
    assert found.params == pytest.approx(wanted.params, abs=1e-4)


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of\nmemory"), MemoryError()])
def test_a_backward_pass_that_fails_keeps_the_scores_and_says_why(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    plain = scored(worker.run(job(None)))

    def fail(self: Losses, k: int, rows: list[int], factor: float) -> float:
        raise error

    monkeypatch.setattr(Losses, "backward", fail)
    outcome = scored(worker.run(job(asked())))
    assert outcome.climbed is None
    assert outcome.climb_error == f"{type(error).__name__}: " + (
        " ".join(str(error).split()) or "MemoryError"
    )
    assert outcome.scores.metrics == plain.scores.metrics
    monkeypatch.undo()
    assert scored(worker.run(job(asked()))).climbed is not None


def test_a_candidate_that_got_no_farther_takes_no_steps(worker: Worker) -> None:
    values = scored(worker.run(job(None))).scores.metrics
    math = values["zoo_math"]["exact_match"].value
    for bar, climbs in ((math - 0.01, True), (math, False)):
        goal = Goal((bar, -9.0, 9.0), (1.0, 1e12, -1e12), (1.0, 1e-15, 1e-15), 0.0)
        outcome = scored(worker.run(job(replace(asked(), goal=goal))))
        assert (outcome.climbed is not None) == climbs
        assert (outcome.climb_error, "slopes" in outcome.seconds) == (None, climbs)


def test_a_metric_that_did_not_come_is_left_to_the_driver(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = scored(worker.run(job(None)))
    bare = replace(known, scores=replace(known.scores, metrics={}))
    monkeypatch.setattr(worker, "_run", lambda job: bare)
    goal = Goal((0.0, 0.0, 9.0), (1.0, 1.0, -1.0), (1.0, 1.0, 1.0), 0.0)
    assert worker.run(job(replace(asked(), goal=goal))) == bare


def test_an_objective_that_has_no_slope_cannot_be_climbed(worker: Worker) -> None:
    outcome = scored(worker.run(job(asked((0.0, 0.0, 1.0)))))
    assert outcome.climbed is None
    assert outcome.climb_error is not None
    assert outcome.climb_error.startswith("EvaluationError: cost hops has no slope: ")


def killed_once(marker: Path) -> Callable[[Losses, int, list[int], float], float]:
    """Kill the process that is the first to run backward; afterwards all is as ever."""
    backward = Losses.backward

    def die(self: Losses, k: int, rows: list[int], factor: float) -> float:
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return backward(self, k, rows, factor)

    return die


class KillsDuringAClimb:
    """A space that arms its worker when it is unpickled there; see ``killed_once``."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return _armed, (self._marker,)


def _armed(marker: Path) -> object:
    Losses.backward = killed_once(marker)  # type: ignore[method-assign]
    return SPACE


@pytest.mark.survival
def test_a_worker_that_dies_during_a_climb_is_replaced_and_the_climb_is_the_same(
    worker: Worker, tmp_path: Path
) -> None:
    wanted = scored(worker.run(job(asked())))
    executor = RayExecutor(1)
    try:
        marker = tmp_path / "killed"
        executor.load(replace(SPEC, space=KillsDuringAClimb(marker)))  # type: ignore[arg-type]
        executor.submit(job(asked()))
        outcome = scored(executor.next_outcome())
    finally:
        executor.close()
    assert marker.exists()
    assert outcome.climbed == wanted.climbed
    assert outcome.scores.metrics == wanted.scores.metrics
