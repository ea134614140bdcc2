"""Base and experts that pass through a device in stages.

``Device`` stands for an accelerator: what is queued on its streams runs as late, as early and in
any order that streams and events permit. A stage overwritten too early shows as wrong bytes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from evomerge.kernels.choice import merge_all
from evomerge.kernels.job import MergeJob
from evomerge.kernels.plan import TensorPlan
from evomerge.merging import streaming
from evomerge.merging.lowering import PlannedTensor
from evomerge.merging.sources import Sources
from evomerge.merging.streaming import StreamedFeed

CPU = torch.device("cpu")
PLANS = (
    TensorPlan((0.2, 0.5, 0.9)),
    TensorPlan((0.2, 0.5, 0.9), delta=False, base_coefficient=0.0),  # leaves the base unread
)


@dataclass(eq=False)
class Work:
    """Something queued, and what must have run before."""

    run: Callable[[], None]
    after: list[Work]
    is_done: bool = False


@dataclass(eq=False)
class Stream:
    queued: list[Work] = field(default_factory=list)  # the last work of all that must come first

    def wait_event(self, event: Event) -> None:
        self.queued = self.queued + event.recorded

    def add(self, run: Callable[[], None]) -> Work:
        work = Work(run, self.queued)
        self.queued = [work]
        return work


@dataclass(eq=False)
class Event:
    recorded: list[Work] = field(default_factory=list)

    def record(self, stream: Stream) -> None:
        self.recorded = list(stream.queued)

    def synchronize(self) -> None:
        for work in self.recorded:
            finish(work)


def finish(work: Work) -> None:
    """Run a work and what must come before it, no more."""
    if not work.is_done:
        for other in work.after:
            finish(other)
        work.run()
        work.is_done = True


class Device(TorchDispatchMode):
    """Queues copies on its second stream and merges on its first; runs them when it likes to."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._draw = random.Random(seed)
        self._eagerness = self._draw.choice([0.0, 0.3, 1.0])
        self._main = self._current = Stream()
        self._all: list[Work] = []

    Stream, Event = Stream, Event

    def current_stream(self) -> Stream:
        return self._current

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        self._current = stream
        yield
        self._current = self._main

    def queue(self, run: Callable[[], None]) -> None:
        self._all.append(self._current.add(run))
        while self._draw.random() < self._eagerness and (left := self._left()):
            finish(self._draw.choice(left))

    def synchronize(self) -> None:
        while left := self._left():
            finish(self._draw.choice(left))

    def _left(self) -> list[Work]:
        return [work for work in self._all if not work.is_done]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.copy_.default and self._current is not self._main:
            self.queue(lambda: func(*args))
            return args[0]
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def sources(tiny_family: dict[str, Path]) -> Sources:
    experts = {name: str(tiny_family[name]) for name in ("one", "two", "three")}
    return Sources(str(tiny_family["base"]), experts)


def planned_tensors(sources: Sources) -> list[PlannedTensor]:
    return [
        PlannedTensor(name, PLANS[i % 2], torch.full(sources.anchor.shape(name), float("nan")))
        for i, name in enumerate(sources.names)
    ]


def check(sources: Sources, tensors: Iterable[PlannedTensor]) -> None:
    for tensor in tensors:
        wanted = torch.empty_like(tensor.out)
        merge_all([MergeJob(tensor.plan, *sources.tensors(tensor.name), wanted)])
        assert torch.equal(tensor.out, wanted), tensor.name


@pytest.mark.parametrize("stage_bytes", [0, 20_000, 1 << 30])
def test_stages_of_any_size_give_the_bytes_of_mapped_sources(
    stage_bytes: int, sources: Sources
) -> None:
    feed = StreamedFeed(sources, CPU, stage_bytes)
    for _ in range(2):
        tensors = planned_tensors(sources)
        feed(iter(tensors))
        check(sources, tensors)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1 << 30))
def test_no_stage_is_overwritten_before_it_has_been_read(seed: int, sources: Sources) -> None:
    device = Device(seed)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(torch, "get_device_module", lambda _: device)
        patch.setattr(streaming, "merge_all", lambda jobs: device.queue(lambda: merge_all(jobs)))
        feed = StreamedFeed(sources, CPU, stage_bytes=20_000)
        candidates = [planned_tensors(sources) for _ in range(2)]
        with device:
            for tensors in candidates:
                feed(tensors)
        device.synchronize()
    for tensors in candidates:
        check(sources, tensors)


def test_memory_is_two_stages_of_the_size_that_was_asked_for(sources: Sources) -> None:
    feed = StreamedFeed(sources, CPU, stage_bytes=20_000)
    sizes = [stage._device.nbytes for stage in feed._stages]
    assert sizes == [20_000, 20_000]
