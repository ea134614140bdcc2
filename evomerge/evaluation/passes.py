"""The largest forward passes of scoring, known from the prompts alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from evomerge.evaluation.batches import images_at_once
from evomerge.evaluation.harness import GENERATION, Instance
from evomerge.evaluation.images import images_of
from evomerge.evaluation.language_model import LanguageModel, is_sampling
from evomerge.evaluation.requests import PromptedSuite
from evomerge.evaluation.suite import BatchSize

__all__ = ["Pass", "largest_passes"]


@dataclass(frozen=True)
class Pass:
    """How large a batch is, at most.

    Attributes:
        n_tokens: Run at once, of all its sequences, with padding, at most.
        length: Of the longest.
        n_logits: Positions whose logits are computed.
        n_kept: Tokens whose keys and values are kept, with padding and room for answers.
        n_drawn: Answers whose next tokens are drawn at once.
    """

    n_tokens: int
    length: int
    n_logits: int
    n_kept: int
    n_drawn: int = 0


def largest_passes(
    suites: Iterable[PromptedSuite],
    model: LanguageModel,
    full: int,
    answers: Callable[[int], int],
) -> Iterator[Pass]:
    """Bound the batches of each suite: those that are answered, and those that are scored.

    Of prompts with images, what the language tower runs and keeps; not what the vision tower does.

    Args:
        suites: With their prompts.
        model: Tokenises; needs no parameters.
        full: Tokens of a batch of size ``auto``; see ``batch_tokens``.
        answers: How many answers are under way there, given a length; see ``answers_at_once``.
    """
    for one in suites:
        requests = [request for task in one.tasks for request in task.task.instances]
        shown = [r for r in requests if images_of(r)]
        asked = [r for r in requests if r.request_type == GENERATION and not images_of(r)]
        scored = [r for r in requests if r.request_type != GENERATION]
        size, texts = one.suite.batch_size, [n for r in asked for n in _lengths(r, model)]
        if texts:
            found = _answered(texts, size, full, answers)
            is_drawn = any(is_sampling(request.args[1]) for request in asked)
            yield replace(found, n_drawn=found.n_logits) if is_drawn else found
        if shown:
            yield _shown([n for r in shown for n in _lengths(r, model)], size, full)
        if scored or one.suite.smooth:
            lengths = [n for r in scored for n in _lengths(r, model)]
            yield _scored(lengths + (texts if one.suite.smooth else []), size, full)


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


def _answered(
    lengths: Sequence[int], size: BatchSize, full: int, answers: Callable[[int], int]
) -> Pass:
    longest = max(lengths)
    if size != "auto":
        n = min(len(lengths), size)
        return Pass(n * longest, longest, n, n * longest)
    n = min(len(lengths), answers(min(lengths)))
    n_kept = min(n * longest, max(answers(length) * length for length in {*lengths}))
    return Pass(min(n_kept, max(full, longest)), longest, n, n_kept)


def _shown(lengths: Sequence[int], size: BatchSize, full: int) -> Pass:
    longest = max(lengths)
    n = min(len(lengths), images_at_once(full, longest) if size == "auto" else size)
    return Pass(n * longest, longest, n, n * longest)


def _scored(lengths: Sequence[int], size: BatchSize, full: int) -> Pass:
    n, longest = len(lengths), max(lengths)
    n_tokens = min(n, max(1, full // min(lengths)) if size == "auto" else size) * longest
    if size == "auto":
        n_tokens = min(n_tokens, max(longest, full))
    return Pass(n_tokens, longest, n_tokens, n_tokens)
