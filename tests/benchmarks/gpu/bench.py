"""What a phase works on and writes to."""

from __future__ import annotations

import statistics
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.benchmarks.gpu.findings import Finding, append

__all__ = ["Bench"]

_LEAD = 200_000_000  # cycles that a GPU idles while work is queued: about a tenth of a second


@dataclass(frozen=True)
class Bench:
    """The device of one phase, its clocks, its time, and the file of what it finds.

    Attributes:
        is_dry: Whether all is done in miniature on the CPU, and no figure is judged.
        ends: ``time.monotonic()`` at which the phase should be done.
        file: Takes the findings.
    """

    is_dry: bool
    ends: float
    file: Path

    @property
    def device(self) -> torch.device:
        """Where the work is done."""
        return torch.device("cpu" if self.is_dry else "cuda")

    @property
    def left_s(self) -> float:
        """Seconds until the phase should be done."""
        return self.ends - time.monotonic()

    @contextmanager
    def part(self, what: str) -> Iterator[None]:
        """Go on after what is inside, whatever it does."""
        print(f"{what} ...", flush=True)
        try:
            yield
        except Exception as err:
            traceback.print_exc()
            line = " ".join(f"{type(err).__name__}: {err}".split())[:300]
            append(self.file, Finding(what, 0, wanted="to run", is_right=False, note=line))

    def measured(
        self,
        what: str,
        value: float,
        unit: str = "",
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        note: str = "",
    ) -> None:
        """Keep a figure; only one of a GPU is judged."""
        bounds = {"at least": at_least, "at most": at_most}
        wanted = [f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None]
        is_right = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
        is_judged = bool(wanted) and not self.is_dry
        verdict = is_right if is_judged else None
        append(self.file, Finding(what, value, unit, " ".join(wanted), verdict, note))

    def checked(self, what: str, wrong: Sequence[str], n: int) -> None:
        """Keep a check of ``n`` cases, all of which must pass on any device.

        Args:
            what: What was checked.
            wrong: The cases that did not pass.
            n: All cases; none at all is a fault, too.
        """
        is_right = n > 0 and not wrong
        note = ", ".join(wrong)[:300]
        append(self.file, Finding(what, n - len(wrong), "", f"all {n}", is_right, note))

    def synchronize(self) -> None:
        """Wait for the device."""
        torch.get_device_module(self.device).synchronize()

    def wall_s(self, work: Callable[[], object], repeats: int = 5) -> float:
        """Time a call with all that it queues: the median."""
        return statistics.median(self._wall(work) for _ in range(1 if self.is_dry else repeats))

    def device_s(self, work: Callable[[], object], repeats: int = 5) -> float:
        """Time what a call queues, without the time it takes to queue it: the smallest.

        The device idles until all is queued; a call that waits for it is timed by the wall.
        """
        if self.is_dry:
            return self._wall(work)
        return min(_queued_s(work) for _ in range(repeats))

    def _wall(self, work: Callable[[], object]) -> float:
        self.synchronize()
        start = time.perf_counter()
        work()
        self.synchronize()
        return time.perf_counter() - start

    def in_time(self, cases: Iterable[str], spare_s: float) -> Iterator[str]:
        """Pass on cases for as long as there is time to spare; say which were left out."""
        left_out = []
        for case in cases:
            if left_out or self.left_s < spare_s:
                left_out.append(case)
            else:
                yield case
        if left_out:
            self.measured("cases not reached in time", len(left_out), note=", ".join(left_out))


def _queued_s(work: Callable[[], object]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    torch.cuda._sleep(_LEAD)
    begin.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / 1000
