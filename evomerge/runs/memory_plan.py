"""What the devices of a worker hold, reckoned from configs and headers alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evomerge.evaluation.step_memory import Outline, scoring_bytes
from evomerge.merging.residency import Needs, common_residency
from evomerge.runs.units import bytes_text

if TYPE_CHECKING:
    from evomerge.evaluation.passes import Pass

__all__ = ["PROCESS_BYTES", "DevicePlan", "memory_plan"]

PROCESS_BYTES = 512 << 20
"""Of a worker on CPU: interpreter, libraries, prompts."""


@dataclass(frozen=True)
class DevicePlan:
    """Bytes of one device.

    Attributes:
        live: Of the candidate, with what it is quantized to.
        sources: Of base and experts: all that is resident, or the buffers that they pass through;
            0 where they are mapped.
        scoring: Activations, and keys and values or logits, of the largest batch, at most.
        step: What a step along slopes takes, if there are any, at most.
        process: What a worker holds before all that; 0 on a GPU.
        room: Of the device for this worker.
    """

    live: int
    sources: int
    scoring: int
    step: int
    process: int
    room: int

    @property
    def total(self) -> int:
        """What is held at the peak; scoring and steps take turns."""
        return self.live + self.sources + self.process + max(self.scoring, self.step)

    @property
    def left(self) -> int:
        """What stays free; below 0 it does not fit."""
        return self.room - self.total

    def __str__(self) -> str:
        """Name all of it in one line."""
        step = f" or {bytes_text(self.step)} of a step" if self.step else ""
        process = f", {bytes_text(self.process)} of the process" if self.process else ""
        left = f"{bytes_text(self.left)} left" if self.left >= 0 else "does not fit"
        return (
            f"{bytes_text(self.live)} live, {bytes_text(self.sources)} base and experts, "
            f"{bytes_text(self.scoring)} of scoring at most{step}{process}; {left}"
        )


def memory_plan(
    model: Outline,
    needed: Sequence[Needs],
    *,
    device_type: str,
    stage_bytes: int,
    room: int,
    passes: Sequence[Pass],
    step_bytes: int = 0,
) -> Iterator[DevicePlan]:
    """Reckon what each device of a worker holds.

    Args:
        model: The candidate, or an outline of it.
        needed: Of each device; see ``needed_on``.
        device_type: ``cpu``, or that of an accelerator.
        stage_bytes: Of one of the two buffers that experts are streamed by.
        room: Memory of each device for the worker.
        passes: The largest batches.
        step_bytes: Of a step, as if all of it were on each device.
    """
    place = common_residency(device_type, needed, [room] * len(needed))
    process = PROCESS_BYTES if device_type == "cpu" else 0
    for i, needs in enumerate(needed):
        held = {"mapped": 0, "resident": needs.source_bytes, "streamed": 2 * stage_bytes}[place]
        sizes = (scoring_bytes(model, one, needs.n_layers, has_head=i == 0) for one in passes)
        scoring = max(sizes, default=0)
        yield DevicePlan(needs.live_bytes, held, scoring, step_bytes, process, room)
