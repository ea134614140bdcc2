"""What ``check`` plans for a worker, against what one holds while it scores a candidate."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from evomerge.execution.protocol import Job, Scored
from evomerge.execution.worker import Worker
from evomerge.merging.sources import Sources
from evomerge.models.opening import peek_model
from evomerge.runs.cost import device_plans
from tests.architectures import tiny_model
from tests.benchmarks.memory import resident_peak_of

from .whole_texts import on_whole_texts

N_ITEMS, N_WORDS, VOCABULARY = 32, 96, 8192  # logits that are given back to the system
SLACK = 4e6  # bytes: tokens, answers and scores as Python objects


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not tell")
@pytest.mark.parametrize(("batch_size", "at_once"), [("auto", N_ITEMS), (16, 16)])
def test_a_worker_holds_at_most_what_is_planned_and_not_much_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int | str, at_once: int
) -> None:
    monkeypatch.setenv("EVOMERGE_CACHE", "off")
    sizes = {"vocab_size": VOCABULARY, "max_position_embeddings": 128}
    for seed, name in enumerate(("base", "math")):
        tiny_model("llama", tmp_path / name, seed=seed, dtype=torch.float32, **sizes)
    found = on_whole_texts(tmp_path, N_ITEMS, N_WORDS, batch_size)
    sources = Sources.of(found.models, open_full=peek_model)
    (plan,) = device_plans(found, sources)
    assert plan.scoring > 2 * at_once * N_WORDS * VOCABULARY * 4
    worker, recipe = Worker(found.worker), found.space.recipe(found.space.defaults)
    outcomes = [worker.run(Job(0, recipe))]  # compiles and imports
    peak = resident_peak_of(lambda: outcomes.append(worker.run(Job(1, recipe))))
    assert all(isinstance(outcome, Scored) for outcome in outcomes)
    assert 0.7 * plan.scoring < peak < plan.scoring + SLACK
