"""How far a candidate is from a reference model."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from evomerge.models.tiles import row_blocks

__all__ = ["relative_distance"]


@torch.no_grad()
def relative_distance(
    candidate: Mapping[str, torch.Tensor], reference: Callable[[str], torch.Tensor]
) -> float:
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
    return float((far / norm) ** 0.5) if norm > 0 else float(far**0.5)
