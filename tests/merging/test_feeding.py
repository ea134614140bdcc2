"""Base and experts, brought to merges and to layers that run unmerged."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from evomerge.kernels.plan import TensorPlan
from evomerge.merging.feeding import make_supply
from evomerge.merging.lowering import PlannedTensor
from evomerge.merging.residency import Residency
from evomerge.merging.sources import Sources
from evomerge.models.checkpoint import Checkpoint

NAME = "model.norm.weight"
CPU = torch.device("cpu")


@pytest.fixture
def sources(tiny_family: dict[str, Path]) -> Sources:
    return Sources(
        str(tiny_family["base"]), {name: str(tiny_family[name]) for name in ("one", "two")}
    )


@pytest.mark.parametrize("residency", ["mapped", "resident"])
def test_single_tensors_are_those_of_base_and_experts(
    sources: Sources, residency: Residency
) -> None:
    supply = make_supply(sources, (CPU,), residency)
    assert sources.base is not None
    assert torch.equal(supply.tensor("base", NAME), sources.base.tensor(NAME))
    for name, expert in sources.experts.items():
        assert torch.equal(supply.tensor(name, NAME), expert.tensor(NAME))


def test_resident_tensors_are_copied_once_for_merges_and_unmerged_layers(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: Counter[Path] = Counter()
    read = Checkpoint.tensor

    def counted(checkpoint: Checkpoint, name: str) -> torch.Tensor:
        reads[checkpoint.folder] += 1
        return read(checkpoint, name)

    monkeypatch.setattr(Checkpoint, "tensor", counted)
    supply = make_supply(sources, (CPU,), "resident")
    for _ in range(2):
        out = torch.empty(sources.anchor.shape(NAME), dtype=torch.bfloat16)
        supply.feed([PlannedTensor(NAME, TensorPlan((0.5, 0.5)), out)])
        for source in ("base", "one", "two"):
            supply.tensor(source, NAME)
    assert list(reads.values()) == [1, 1, 1]
