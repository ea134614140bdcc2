"""The parts of transformers that are not public, used nowhere else: what an upgrade may break."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "dtype_plan",
    "may_be_missing",
    "may_be_unused",
    "tied_patterns",
    "use_default_attention",
]


def dtype_plan(model: PreTrainedModel, dtype: torch.dtype) -> Mapping[str, torch.dtype]:
    """Return the dtypes of what does not take the model's, by pattern of parameter names."""
    plan: dict[str, torch.dtype] = model._get_dtype_plan(dtype)
    return plan


def may_be_unused(model: PreTrainedModel) -> tuple[str, ...]:
    """Return patterns of tensors that a checkpoint may hold and the model has no use for."""
    return tuple(model._keys_to_ignore_on_load_unexpected or ())


def may_be_missing(model: PreTrainedModel) -> tuple[str, ...]:
    """Return patterns of parameters that the model loads without."""
    return tuple(model._keys_to_ignore_on_load_missing or ())


def tied_patterns(model: PreTrainedModel) -> Mapping[str, str]:
    """Return which parameters are tied to which, as the model's class declares it."""
    return dict(model._tied_weights_keys or {})


def use_default_attention(model: PreTrainedModel) -> None:
    """Let a model's config name the attention that it is loaded with where nobody chooses one."""
    model.config._attn_implementation = "sdpa" if model._supports_sdpa else "eager"
