"""How far a candidate is from a reference model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn

from evomerge.models.tiles import row_blocks

__all__ = ["distance_backward", "relative_distance"]

Reference = Callable[[str], torch.Tensor]


@torch.no_grad()
def relative_distance(candidate: Mapping[str, torch.Tensor], reference: Reference) -> float:
    """Measure ``||candidate - reference|| / ||reference||`` over all merged parameters.

    Relative to the reference itself rather than to a task vector, so that it is defined for every
    reference and comparable between experiments.

    Args:
        candidate: Tensors by name, of any floating dtype, on one device.
        reference: Returns the reference's tensor of a name.

    Returns:
        Dimensionless, 0 for equal models. Summed in float64; differences are float32.

    Notes:
        Memory: a few blocks of a quarter million elements.
    """
    far, norm = _squares(candidate, reference)
    return float((far / norm) ** 0.5) if norm > 0 else float(far**0.5)


def distance_backward(
    parameters: Iterable[nn.Parameter],
    candidate: Mapping[str, torch.Tensor],
    reference: Reference,
    factor: float,
) -> float:
    """Add the slope of the relative distance to the gradients of a live model, times a factor.

    The slope along an element is (own - other) / (||candidate - reference|| ||reference||); it is
    taken as 0 at the reference itself, where the distance has a kink.

    Args:
        parameters: Of the model; those that want no gradient get none.
        candidate: Its merged tensors by name, views into the parameters.
        reference: Returns the reference's tensor of a name.
        factor: What the gradients are multiplied with.

    Returns:
        The distance.

    Notes:
        Memory: one gradient at a time, if whoever hooks into the parameters drops it.
    """
    far, norm = _squares(candidate, reference)
    scale = factor / (far * (norm or 1.0)) ** 0.5 if far > 0 else 0.0
    inside: dict[int, list[str]] = defaultdict(list)
    for name, own in candidate.items():
        inside[own.untyped_storage().data_ptr()].append(name)
    for parameter in parameters:
        names = inside.get(parameter.untyped_storage().data_ptr(), [])
        if parameter.requires_grad and names:
            own_tensors = {name: candidate[name] for name in names}
            parameter.backward(_gradient(parameter, own_tensors, reference, scale))
    return float((far / (norm or 1.0)) ** 0.5)


@torch.no_grad()
def _gradient(
    parameter: nn.Parameter,
    candidate: Mapping[str, torch.Tensor],
    reference: Reference,
    scale: float,
) -> torch.Tensor:
    """Scale the differences of the tensors that a parameter holds; laid out like it."""
    gradient = torch.zeros_like(parameter)
    for name, own in candidate.items():
        offset = own.storage_offset() - parameter.storage_offset()
        theirs = reference(name).to(own.device, torch.float32)
        part = gradient.as_strided(own.shape, own.stride(), offset)
        part.copy_(scale * (own.to(torch.float32) - theirs))
    return gradient


@torch.no_grad()
def _squares(candidate: Mapping[str, torch.Tensor], reference: Reference) -> tuple[float, float]:
    """Sum up ||candidate - reference||² and ||reference||²."""
    devices = {tensor.device for tensor in candidate.values()}
    squares = {device: torch.zeros(2, dtype=torch.float64, device=device) for device in devices}
    for name, own in candidate.items():
        other = reference(name)
        for rows in row_blocks(own.shape):
            theirs = other[rows].to(own.device, torch.float32)
            difference = own[rows].to(torch.float32) - theirs
            pair = [block.square().sum(dtype=torch.float64) for block in (difference, theirs)]
            squares[own.device] += torch.stack(pair)
    far, norm = sum((total.cpu() for total in squares.values()), torch.zeros(2)).tolist()
    return far, norm
