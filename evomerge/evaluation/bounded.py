"""A bound on the memory that a template may take: it comes from others, and can multiply strings.

A sandbox keeps templates from Python, not from ``{{ 'x' * 9000000000 }}``. The operating system
does, whatever way a template finds to grow, where it knows such limits (Linux).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from evomerge.errors import EvaluationError

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

__all__ = ["ROOM_BYTES", "bounded"]

_T = TypeVar("_T")
ROOM_BYTES = 1 << 28  # a prompt is a thousandth of it
_SIZES = Path("/proc/self/statm")  # the first one: address space in pages

_known_bytes = 0  # of address space, some time ago: reading it anew takes longer than a template


def bounded(work: Callable[[], _T], what: str) -> _T:
    """Do some work that needs little memory.

    The whole process has the bound meanwhile, so only one thread may work at a time.

    Args:
        work: Without effects; may be begun twice.
        what: Is named where it needs more.

    Raises:
        EvaluationError: It needs more than ``ROOM_BYTES``.
    """
    for taken in _bytes_taken():
        with contextlib.suppress(MemoryError), _address_space(taken):
            return work()
    raise EvaluationError(
        f"{what} takes more than {ROOM_BYTES >> 20} MiB; what it repeats, it repeats too often"
    )


def _bytes_taken() -> Iterator[int]:
    """How much address space the process has: as known, and if that is too little, as it is."""
    global _known_bytes  # noqa: PLW0603  a cache of what the operating system says
    if _known_bytes:
        yield _known_bytes
    if resource is not None and _SIZES.exists():
        _known_bytes = int(_SIZES.read_text().split()[0]) * resource.getpagesize()
    yield _known_bytes


@contextmanager
def _address_space(taken: int) -> Iterator[None]:
    """Leave the process room for so much more than it has taken, where that is known."""
    if resource is None or not taken:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limits = [taken + ROOM_BYTES, *(n for n in (soft, hard) if n != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
