"""The choice of where base and experts are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.merging.residency import choose_residency, residency_of
from evomerge.merging.sources import Sources

BYTES = st.integers(0, 1 << 40)


def test_a_quarter_of_the_free_memory_is_left_for_evaluation() -> None:
    sizes = {"source_bytes": 60, "live_bytes": 15}
    assert choose_residency("cuda", **sizes, free_bytes=100) == "resident"
    assert choose_residency("cuda", **sizes, free_bytes=99) == "streamed"


@given(source=BYTES, live=BYTES, free=BYTES)
def test_less_memory_never_makes_experts_resident(source: int, live: int, free: int) -> None:
    less = choose_residency("cuda", source_bytes=source, live_bytes=live, free_bytes=free // 2)
    more = choose_residency("cuda", source_bytes=source, live_bytes=live, free_bytes=free)
    assert (less, more) != ("resident", "streamed")
    on_cpu = choose_residency("cpu", source_bytes=source, live_bytes=live, free_bytes=free)
    assert on_cpu == "mapped"


class Accelerator:
    """A device with the memory that a test gives it."""

    def __init__(self, free: int, total: int) -> None:
        self._memory = free, total

    def mem_get_info(self) -> tuple[int, int]:
        return self._memory


@pytest.mark.parametrize(("models", "wanted"), [(5, "streamed"), (7, "resident")])
def test_base_experts_and_live_model_are_counted(
    models: int,
    wanted: str,
    tiny_family: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A base, three experts and the live model are five models; a quarter stays free."""
    experts = {name: str(tiny_family[name]) for name in ("one", "two", "three")}
    sources = Sources(str(tiny_family["base"]), experts)
    size = sum(sources.anchor.tensor(name).nbytes for name in sources.names)
    chosen = []
    for free, total, share in ((models, 99, 1.0), (99, 2 * models, 0.5)):
        device = Accelerator(free * size, total * size)
        monkeypatch.setattr(torch, "get_device_module", lambda _, device=device: device)
        chosen.append(residency_of(sources, torch.bfloat16, [torch.device("cuda")], share))
    assert chosen == [wanted, wanted]
