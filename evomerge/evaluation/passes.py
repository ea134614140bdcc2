"""The largest forward passes of scoring, known from the prompts alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from evomerge.evaluation.harness import GENERATION, Instance, LanguageModel
from evomerge.evaluation.requests import PromptedSuite
from evomerge.evaluation.suite import BatchSize

__all__ = ["Pass", "largest_passes"]


@dataclass(frozen=True)
class Pass:
    """How large a batch is, at most.

    Attributes:
        n_tokens: Of all its sequences together, with padding and with room for answers.
        length: Of the longest.
        n_logits: Positions whose logits are computed.
    """

    n_tokens: int
    length: int
    n_logits: int


def largest_passes(
    suites: Iterable[PromptedSuite], model: LanguageModel, full: int
) -> Iterator[Pass]:
    """Bound the batches of each suite: those that are answered, and those that are scored.

    Args:
        suites: With their prompts.
        model: Tokenises; needs no parameters.
        full: Tokens of a batch of size ``auto``; see ``batch_tokens``.
    """
    for one in suites:
        requests = [request for task in one.tasks for request in task.task.instances]
        asked = [r for r in requests if r.request_type == GENERATION]
        scored = [r for r in requests if r.request_type != GENERATION]
        for some, reads_all in ((asked, bool(one.suite.smooth)), (scored, True)):
            lengths = [length for r in some for length in _lengths(r, model)]
            if lengths:
                yield _largest(lengths, one.suite.batch_size, full, reads_all=reads_all)


def _lengths(request: Instance, model: LanguageModel) -> list[int]:
    """Tokens of each sequence that a request comes to."""
    match request.request_type:
        case "loglikelihood_rolling":
            return [sum(map(len, window)) - 1 for window in model.windows(request.args[0])]
        case str(kind) if kind == GENERATION:
            room = model.longest_answer(request.args[1])
            return [model.length(request) + room] * request.repeats
        case _:
            return [model.length(request)]


def _largest(lengths: Sequence[int], size: BatchSize, full: int, *, reads_all: bool) -> Pass:
    n, longest = len(lengths), max(lengths)
    most = max(1, full // min(lengths)) if size == "auto" else size
    n_tokens = min(n, most) * longest
    if size == "auto":
        n_tokens = min(n_tokens, max(longest, full))
    return Pass(n_tokens, longest, n_tokens if reads_all else min(n, most))
