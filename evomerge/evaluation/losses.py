"""Smooth losses of objectives, whose gradients flow into the live model item by item."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import torch

from evomerge.evaluation.item_losses import LossSettings
from evomerge.evaluation.sloped_objectives import SlopedObjective
from evomerge.evaluation.step_memory import Outline, pass_bytes
from evomerge.evaluation.targets import SlopedItem
from evomerge.evaluation.teacher_forcing import (
    Piece,
    Reading,
    as_evaluated,
    checkpointed,
    microbatches,
    read,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Losses"]


class Losses:
    """The losses of objectives under the live model; made by ``PreparedSuites.losses``.

    Args:
        model: Live, as it is at each call; an outline of it reckons memory.
        objectives: In the order of the study's.
        settings: How to run them.
    """

    def __init__(
        self,
        model: PreTrainedModel | Outline | None,
        objectives: Sequence[SlopedObjective],
        settings: LossSettings,
    ) -> None:
        self._model, self._objectives, self._settings = model, tuple(objectives), settings

    @property
    def reasons(self) -> tuple[str | None, ...]:
        """Why an objective has no slope; ``None`` for each that has."""
        return tuple(one.reason for one in self._objectives)

    @property
    def n_items(self) -> tuple[int, ...]:
        """Items of each objective; 0 for one without slope."""
        return tuple(len(one.items) for one in self._objectives)

    def items(self, k: int) -> tuple[SlopedItem, ...]:
        """The items of an objective, in the order of the positions that ``backward`` takes."""
        return self._objectives[k].items

    def backward(self, k: int, rows: Sequence[int], factor: float = 1.0) -> float:
        """Run items forward and backward; gradients add up in the live model's parameters.

        The model runs as in evaluation, without dropout. Nothing but gradients is left behind.

        Args:
            k: Position of an objective that has a slope.
            rows: Positions of its items, from 0 to ``n_items[k] - 1``; at least one.
            factor: What the gradients are multiplied with.

        Returns:
            The mean loss of these items, without the factor; less is better whatever the metric's
            direction.
        """
        model, objective = cast("PreTrainedModel", self._model), self._objectives[k]
        forward = functools.partial(read, model, max_length=objective.max_length)
        found: list[torch.Tensor] = []
        checkpointing = checkpointed(model, self._settings.checkpointing)
        with torch.enable_grad(), as_evaluated(model), checkpointing:
            items = [objective.items[row] for row in rows]
            pieces = [piece for item in items for piece in self._pieces(item, forward)]
            for batch in microbatches(pieces, self._settings.n_tokens):
                loss = _loss(batch, forward) / len(rows)
                (factor * loss).backward()
                found.append(loss.detach())
        total: float = torch.stack(found).double().sum().item()
        return total

    def step_bytes(self, n_items: int) -> int:
        """Reckon the peak memory of ``backward`` beside the model's parameters, from above.

        Args:
            n_items: Of one objective, that go forward and backward in a step.

        Returns:
            Bytes, for the items that take most; 0 if no objective has a slope.
        """
        limit, checkpointing = self._settings.n_tokens, self._settings.checkpointing
        batches = {}
        for item in (item for objective in self._objectives for item in objective.items):
            whole = Piece(item.readings, item.loss)
            fits = whole.n_tokens <= limit
            piece = whole if fits else max(_parts(whole), key=lambda part: part.n_tokens)
            n_alike = max(1, min(n_items if fits else len(item.readings), limit // piece.n_tokens))
            batches[piece.n_sequences, piece.length, piece.n_rows] = [piece] * n_alike
        if (model := self._model) is None:
            return 0
        sizes = (pass_bytes(model, b, checkpointing=checkpointing) for b in batches.values())
        return max(sizes, default=0)

    def _pieces(self, item: SlopedItem, forward: Callable[..., torch.Tensor]) -> list[Piece]:
        """Take an item as a whole, or reading by reading if it takes more than a microbatch.

        Then the loss is replaced by its tangent, which takes a pass without gradients to find.
        """
        whole = Piece(item.readings, item.loss, item.share)
        if len(item.readings) == 1 or whole.n_tokens <= self._settings.n_tokens:
            return [whole]
        parts = _parts(whole)
        if item.loss.is_linear:
            return parts
        with torch.no_grad():
            batches = microbatches(parts, self._settings.n_tokens)
            found = {
                p.readings[0]: v
                for b in batches
                for p, v in zip(b, forward(_readings(b)), strict=True)
            }
        point = torch.stack([found[reading] for reading in item.readings]).requires_grad_()
        loss = whole.share * whole.loss(point)
        (slopes,) = torch.autograd.grad(loss, point)
        rest = (loss.detach() - slopes @ point.detach()) / len(parts)
        return [
            Piece((reading,), functools.partial(_tangent, slope, rest))
            for reading, slope in zip(item.readings, slopes, strict=True)
        ]


def _tangent(slope: torch.Tensor, rest: torch.Tensor, reading: torch.Tensor) -> torch.Tensor:
    return slope * reading.sum(-1) + rest


def _parts(whole: Piece) -> list[Piece]:
    return [Piece((reading,), whole.loss, whole.share) for reading in whole.readings]


def _readings(batch: Sequence[Piece]) -> list[Reading]:
    return [reading for piece in batch for reading in piece.readings]


def _loss(batch: Sequence[Piece], forward: Callable[..., torch.Tensor]) -> torch.Tensor:
    """Sum the losses of a microbatch, those that are alike at once."""
    alike: dict[tuple[Callable[..., torch.Tensor], float, int], list[list[int]]]
    alike, start = defaultdict(list), 0
    for piece in batch:
        stop = start + len(piece.readings)
        alike[piece.loss, piece.share, stop - start].append([*range(start, stop)])
        start = stop
    values = forward(_readings(batch))
    found = []
    for (loss, share, _), own in alike.items():
        rows = torch.tensor(own, device=values.device)  # (pieces, readings)
        found.append(share * loss(values[rows]).sum())
    return torch.stack(found).sum()
