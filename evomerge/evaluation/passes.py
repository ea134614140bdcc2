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
        n_kept: Tokens whose keys and values are held: of answers under way more than run at once.
    """

    n_tokens: int
    length: int
    n_logits: int
    n_kept: int


def largest_passes(
    suites: Iterable[PromptedSuite], model: LanguageModel, full: int, under_way: int
) -> Iterator[Pass]:
    """Bound the batches of each suite: those that are answered, and those that are scored.

    Args:
        suites: With their prompts.
        model: Tokenises; needs no parameters.
        full: Tokens of a batch of size ``auto``; see ``batch_tokens``.
        under_way: Of one whose prompts are being answered; see ``answer_tokens``.
    """
    for one in suites:
        requests = [request for task in one.tasks for request in task.task.instances]
        asked = [r for r in requests if r.request_type == GENERATION]
        scored = [r for r in requests if r.request_type != GENERATION]
        reads_all, size = bool(one.suite.smooth), one.suite.batch_size
        if lengths := [length for r in asked for length in _lengths(r, model)]:
            yield _largest(lengths, size, full, max(full, under_way), reads_all=reads_all)
        if lengths := [length for r in scored for length in _lengths(r, model)]:
            yield _largest(lengths, size, full, full, reads_all=True)


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


def _largest(
    lengths: Sequence[int], size: BatchSize, full: int, kept: int, *, reads_all: bool
) -> Pass:
    n, longest = len(lengths), max(lengths)
    if size != "auto":
        n_tokens = min(n, size) * longest
        return Pass(n_tokens, longest, n_tokens if reads_all else min(n, size), n_tokens)
    n_tokens, n_kept = (min(n * longest, max(longest, limit)) for limit in (full, kept))
    most = max(1, full // min(lengths), kept // longest)
    return Pass(n_tokens, longest, n_tokens if reads_all else min(n, most), n_kept)
