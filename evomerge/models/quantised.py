"""Quantised checkpoints, told by their tensors: codes and scales, which no arithmetic may mix."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import torch

__all__ = ["quantised_tensor"]

_NAMES = re.compile(
    r"(.*[.:])?("
    r"qweight|qzeros|scales|g_idx"  # GPTQ, AWQ, AutoRound
    r"|SCB|weight_format"  # bitsandbytes, 8 bits
    r"|weight\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\..+)"  # and 4
    r"|weight_(scales?|scale_inv|scale_2|packed|shape|zero_point|global_scale|g_idx)"  # fp8, …
    r"|W_q"  # HQQ
    r"|weight\._(data|scale|shift|zeropoint)"  # quanto
    r"|_weight_\w+|_data|_qdata"  # torchao
    r"|codebooks|centroids|dense_weights"  # AQLM, VPTQ, SpQR
    r"|\w+_proj_(blocks|scales)"  # MXFP4
    r")"
)


def quantised_tensor(names: Iterable[str], dtype_of: Callable[[str], torch.dtype]) -> str | None:
    """Find a tensor that only a quantised checkpoint has.

    Args:
        names: Tensor names.
        dtype_of: Tells the stored dtype of one that is called a weight.

    Returns:
        The first such name: by GPTQ, AWQ, bitsandbytes, fp8 and compressed-tensors, HQQ, quanto,
        torchao, AQLM, MXFP4, or a weight in whole numbers.
    """
    for name in names:
        is_weight = name.endswith(".weight")
        if _NAMES.fullmatch(name) or (is_weight and not dtype_of(name).is_floating_point):
            return name
    return None
