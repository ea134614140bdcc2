"""The worker: gates and the cache of scores, on the embedded models."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from evomerge.config.presets import Presets
from evomerge.config.suites import load_suites
from evomerge.evaluation.gates import Gates
from evomerge.execution.protocol import Job, Pruned, Scored, WorkerSpec
from evomerge.execution.worker import Worker
from evomerge.merging.candidate import LiveCandidate
from evomerge.recipe.path import Hop
from evomerge.recipe.recipe import Recipe, Rule

EXPERTS = {"math": "zoo:math", "list": "zoo:list"}
(ZOO,) = load_suites(["zoo"], Presets(), Path.cwd())
SPEC = WorkerSpec("zoo:base", EXPERTS, (dataclasses.replace(ZOO, limit=20),), gates=Gates())


def job(coefficient: float, trial: int = 0, **changes) -> Job:
    recipe = Recipe(EXPERTS, (Rule("task_arithmetic", {"coefficient": coefficient}),), "zoo:base")
    return Job(trial, recipe, **changes)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def count_merges(monkeypatch) -> list[Recipe]:
    merged: list[Recipe] = []
    original = LiveCandidate.materialise
    monkeypatch.setattr(
        LiveCandidate, "materialise", lambda self, r: (merged.append(r), original(self, r))[1]
    )
    return merged


def test_the_same_recipe_on_the_same_items_is_scored_once(cache, count_merges):
    first = Worker(SPEC).run(job(0.3))
    again = Worker(SPEC).run(job(0.3, trial=7))
    assert isinstance(first, Scored)
    assert isinstance(again, Scored)
    assert again.job.trial == 7
    assert (again.scores.metrics, again.scores.items) == (first.scores.metrics, first.scores.items)
    assert len(count_merges) == 1
    assert again.seconds["evaluate"] < first.seconds["evaluate"]


@pytest.mark.parametrize(
    ("spec", "other"),
    [
        (SPEC, job(0.31)),
        (SPEC, job(0.3, split="validation")),
        (dataclasses.replace(SPEC, suites=(dataclasses.replace(ZOO, limit=19),)), job(0.3)),
        (
            dataclasses.replace(
                SPEC, suites=(dataclasses.replace(SPEC.suites[0], smooth=frozenset({"zoo_math"})),)
            ),
            job(0.3),
        ),
        (dataclasses.replace(SPEC, dtype="float32"), job(0.3)),
    ],
    ids=["recipe", "split", "items", "metrics", "dtype"],
)
def test_anything_else_is_scored_anew(cache, count_merges, spec, other):
    Worker(SPEC).run(job(0.3))
    assert isinstance(Worker(spec).run(other), Scored)
    assert len(count_merges) == 2


def test_a_damaged_entry_is_scored_anew(cache):
    first = Worker(SPEC).run(job(0.3))
    (entry,) = (cache / "scores").rglob("*.json.z")
    entry.write_bytes(entry.read_bytes()[:100])
    again = Worker(SPEC).run(job(0.3))
    assert again.scores.items == first.scores.items
    assert entry.stat().st_size > 100


def test_without_a_cache_every_job_is_run(count_merges):
    worker = Worker(SPEC)
    worker.run(job(0.3))
    worker.run(job(0.3))
    assert len(count_merges) == 2


def test_a_broken_candidate_is_pruned_and_a_parent_or_an_ungated_job_is_not():
    worker = Worker(dataclasses.replace(SPEC, gates=Gates(perplexity_factor=1.5)))
    broken = worker.run(job(8.0, is_gated=True))
    assert isinstance(broken, Pruned)
    assert "its perplexity on the prompts" in broken.reason
    for healthy in (job(8.0), job(0.0, is_gated=True), job(0.2, is_gated=True)):
        assert isinstance(worker.run(healthy), Scored)


def test_costs_are_kept_with_the_scores_they_were_asked_for(cache, count_merges):
    asked = dataclasses.replace(SPEC, costs=("hops", "kl:math"), gates=None)
    without = Worker(dataclasses.replace(SPEC, gates=None)).run(job(0.3))
    first, again = Worker(asked).run(job(0.3)), Worker(asked).run(job(0.3, trial=7))
    assert "cost" not in without.scores.metrics
    assert first.scores.metrics["cost"].keys() == {"hops", "kl:math"}
    assert again.scores.metrics == first.scores.metrics
    assert count_merges.count(job(0.3).recipe) == 2


def test_timed_costs_are_measured_anew(cache, count_merges):
    worker = Worker(dataclasses.replace(SPEC, costs=("seconds_per_item",), gates=None))
    worker.run(job(0.3))
    worker.run(job(0.3))
    assert len(count_merges) == 2


def test_a_worker_with_rungs_measures_the_costs_of_all_items():
    spec = dataclasses.replace(SPEC, costs=("output_tokens", "hops"), gates=None)
    rungs = dataclasses.replace(spec, rungs=(0.25, 0.5))
    whole, parts = Worker(spec).run(job(0.3)), Worker(rungs).run(job(0.3))
    assert parts.scores.metrics["cost"] == whole.scores.metrics["cost"]


@pytest.mark.parametrize("batch_size", ["auto", 8])
def test_recipes_with_and_without_a_path_do_not_see_one_another(batch_size):
    suites = (dataclasses.replace(SPEC.suites[0], batch_size=batch_size),)
    spec = dataclasses.replace(SPEC, suites=suites, gates=None)
    plain = job(0.3).recipe
    hops = [("merged", 0), ("math", 0), ("merged", 1), ("merged", 1), ("list", 0), ("merged", 1)]
    longer = dataclasses.replace(plain, path=tuple(Hop(*hop, scale=0.9) for hop in hops))
    shorter = dataclasses.replace(plain, path=(Hop("merged", 0),))
    worker = Worker(spec)
    for recipe in (plain, longer, shorter, plain):
        assert scored(worker, recipe) == scored(Worker(spec), recipe)


def scored(worker: Worker, recipe: Recipe) -> tuple[object, object]:
    outcome = worker.run(Job(0, recipe))
    assert isinstance(outcome, Scored), outcome
    return outcome.scores.metrics, outcome.scores.items
