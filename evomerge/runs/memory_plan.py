"""What the devices of a worker hold, reckoned from configs and headers alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evomerge.evaluation.batches import batch_tokens
from evomerge.evaluation.step_memory import Outline, answer_tokens, cache_bytes
from evomerge.merging.residency import Needs, common_residency
from evomerge.runs.units import bytes_text

__all__ = ["DevicePlan", "memory_plan"]


@dataclass(frozen=True)
class DevicePlan:
    """Bytes of one device.

    Attributes:
        live: Of the candidate, with what it is quantised to.
        sources: Of base and experts: all that is resident, or the buffers that they pass through;
            0 where they are mapped.
        scoring: Keys, values and logits of the largest batch, at most.
        step: What a step along slopes takes, if there are any, at most.
        room: Of the device for this worker.
    """

    live: int
    sources: int
    scoring: int
    step: int
    room: int

    @property
    def left(self) -> int:
        """What stays free; scoring and steps take turns. Below 0 it does not fit."""
        return self.room - self.live - self.sources - max(self.scoring, self.step)

    def __str__(self) -> str:
        """Name all of it in one line."""
        step = f" or {bytes_text(self.step)} of a step" if self.step else ""
        left = f"{bytes_text(self.left)} left" if self.left >= 0 else "does not fit"
        return (
            f"{bytes_text(self.live)} live, {bytes_text(self.sources)} base and experts, "
            f"{bytes_text(self.scoring)} keys, values and logits{step}; {left}"
        )


def memory_plan(
    model: Outline,
    needed: Sequence[Needs],
    *,
    device_type: str,
    stage_bytes: int,
    room: int,
    step_bytes: int = 0,
) -> Iterator[DevicePlan]:
    """Reckon what each device of a worker holds.

    Args:
        model: The candidate, or an outline of it.
        needed: Of each device; see ``needed_on``.
        device_type: ``cpu``, or that of an accelerator.
        stage_bytes: Of one of the two buffers that experts are streamed by.
        room: Memory of each device for the worker.
        step_bytes: Of a step, as if all of it were on each device.
    """
    place = common_residency(device_type, needed, [room] * len(needed))
    vocabulary, itemsize = model.config.get_text_config().vocab_size, model.dtype.itemsize
    tokens = batch_tokens(vocabulary, itemsize, None if device_type == "cpu" else room)
    logits = tokens * vocabulary * itemsize  # on the first device
    of_answers = answer_tokens(model, tokens)
    for needs in needed:
        held = {"mapped": 0, "resident": needs.source_bytes, "streamed": 2 * stage_bytes}[place]
        choices = needs.n_layers * cache_bytes(model, tokens) + logits
        scoring = max(choices, needs.n_layers * cache_bytes(model, of_answers))
        yield DevicePlan(needs.live_bytes, held, scoring, step_bytes, room)
        logits = 0
