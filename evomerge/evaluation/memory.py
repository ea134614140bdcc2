"""Batches that do not fit into memory are halved, down to one sequence."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from evomerge.evaluation.engine import Answer
from evomerge.evaluation.kinds import Part

__all__ = ["Halving", "is_out_of_memory"]

_log = logging.getLogger(__name__)
_OF_CPU = ("DefaultCPUAllocator", "can't allocate memory")  # of plain RuntimeErrors


def is_out_of_memory(err: BaseException) -> bool:
    """Tell whether an error says that memory ran out, on a GPU or elsewhere."""
    if isinstance(err, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(err, RuntimeError) and any(text in str(err) for text in _OF_CPU)


class Halving:
    """How much smaller than planned the batches of one engine are.

    Attributes:
        divisor: Of every planned size; a power of two.
    """

    def __init__(self) -> None:
        self.divisor = 1
        self._largest = 1  # sequences of any batch since the last halving

    def size(self, planned: int) -> int:
        """Return how many sequences a batch has of which so many were planned."""
        size = max(1, planned // self.divisor)
        self._largest = max(self._largest, size)
        return size

    def part(self, prepare: Callable[[], Part]) -> Part:
        """Prepare requests; they are prepared again whenever batches have become smaller.

        Args:
            prepare: Cuts requests into batches, by ``size``.
        """
        prepared = {self.divisor: prepare()}

        def answer() -> list[Answer]:
            while True:
                if self.divisor not in prepared:
                    prepared.clear()
                    prepared[self.divisor] = prepare()
                found = self._tried(prepared[self.divisor])
                if found is not None:
                    return found

        return answer

    def _tried(self, part: Part) -> list[Answer] | None:
        """Answer requests; ``None`` if memory ran out and batches are smaller now."""
        try:
            return part()
        except Exception as err:
            if not is_out_of_memory(err) or self._largest == 1:
                raise
        self._halve()  # the error is gone, and with it whatever its frames held
        return None

    def _halve(self) -> None:
        if self.divisor == 1:
            _log.warning(
                "memory ran out: batches are halved, and again where that is not enough; scores "
                "are those of a smaller batch_size"
            )
        self.divisor, self._largest = 2 * self.divisor, 1
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
