"""Public benchmarks are not searched by the items they are reported by, unless that is allowed."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import pytest

from evomerge.errors import EvaluationError
from evomerge.evaluation import Suite, TaskCatalogue
from evomerge.evaluation.harness import BUILTIN_TASKS, TaskManager
from evomerge.evaluation.index import is_public

from .tiny_tasks import NAMED, metrics_of, write_task


@pytest.fixture
def benchmark(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """A task that is taken for lm-eval's own; those need the network."""
    write_task(empty_folder, "tiny_generate", test_split="test")
    monkeypatch.setattr("evomerge.evaluation.tasks.is_public", lambda manager, name: True)
    return Suite("one", ("tiny_generate",), include_path=empty_folder, splits=NAMED)


@pytest.mark.parametrize(
    "splits", [{"search": "test"}, {"search": 0.5, "test": 0.5}], ids=["named", "fraction"]
)
def test_searching_the_reported_split_needs_an_explicit_key(benchmark, splits, caplog):
    suite = dataclasses.replace(benchmark, splits=splits)
    with pytest.raises(EvaluationError, match=r"allow_test_split: true .*model card"):
        metrics_of([suite])
    allowed = dataclasses.replace(suite, allow_test_split=True)
    with caplog.at_level(logging.WARNING):
        assert metrics_of([allowed])
    assert "WARNING: one.tasks[0]: task 'tiny_generate' is a public benchmark" in caplog.text
    assert TaskCatalogue.of([allowed]).searched_benchmarks == {"tiny_generate": "test"}


def test_another_split_of_a_benchmark_may_be_searched(benchmark, caplog):
    suite = dataclasses.replace(benchmark, splits={"search": "validation", "test": "test"})
    with caplog.at_level(logging.WARNING):
        assert metrics_of([suite])
    assert not caplog.text
    assert TaskCatalogue.of([suite]).searched_benchmarks == {}


def test_tasks_of_the_user_are_no_benchmarks(empty_folder):
    write_task(empty_folder, "tiny_generate", test_split="test")
    own = Suite("one", ("tiny_generate",), include_path=empty_folder, splits={"search": "test"})
    assert metrics_of([own])


def test_tasks_that_ship_with_lm_eval_are_told_from_the_users(empty_folder):
    write_task(empty_folder, "tiny_generate")
    folders = [str(BUILTIN_TASKS / "arc"), str(empty_folder)]
    manager = TaskManager(include_path=folders, include_defaults=False)
    assert is_public(manager, "arc_easy")
    assert not is_public(manager, "tiny_generate")
    assert not is_public(manager, "unknown")
