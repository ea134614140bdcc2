"""Where the tensors of a checkpoint live in a loaded model.

transformers may rename tensors on loading and fuse several into one parameter (the experts of a
mixture). What it fuses on loading it takes apart on saving: run on the live parameters with copying
switched off, that code yields, by checkpoint name, views into their storage.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from evomerge.errors import CheckpointError
from evomerge.models.transformers_internals import may_be_missing, may_be_unused

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from evomerge.models.checkpoint import Checkpoint

__all__ = [
    "LiveView",
    "check_live",
    "contiguous_output",
    "live_names",
    "live_tensors",
    "live_views",
    "tied_names",
    "untie",
]


@dataclass(frozen=True)
class LiveView:
    """One checkpoint tensor, where it lives in a model.

    Attributes:
        parameter: Name in the model's state dict of what holds it.
        tensor: The tensor itself, sharing storage with the model.
    """

    parameter: str
    tensor: torch.Tensor


def live_names(model: PreTrainedModel, names: Iterable[str]) -> dict[str, str]:
    """Tell by which names transformers loads the tensors of a checkpoint.

    Args:
        model: Any transformers model, which may be on the meta device.
        names: Names as in the checkpoint.

    Returns:
        By name, in no order: a name of the model's state dict; for a tensor that loading makes a
        part of another one, that one's name with its own. Two checkpoints of this model hold the
        same tensor where these names are equal. Left out are tensors that the model never loads.
    """
    from transformers import core_model_loading as loading
    from transformers.conversion_mapping import get_model_conversion_mapping

    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, loading.WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, loading.WeightConverter)]
    state, prefix = model.state_dict(), model.base_model_prefix
    found = {}
    for name in sorted(names, key=loading.dot_natural_key):  # some rules depend on the order
        live, part = loading.rename_source_key(name, renamings, converters, prefix, state)
        if live not in state and name in state:
            live, part = name, None
        if live in state:
            own = "" if part is None else loading.apply_renamings(name, renamings)
            found[name] = f"{live} {own.removeprefix(f'{prefix}.')}".rstrip()
    return found


def live_views(model: PreTrainedModel, names: Iterable[str]) -> dict[str, LiveView]:
    """Find checkpoint tensors in a model, which may be on the meta device.

    Args:
        model: Any transformers model.
        names: Names as in the checkpoint.

    Returns:
        By name, in the model's order. Left out are tensors that the model ignores, and those that
        loading takes apart or permutes, so that no view has their values.
    """
    from transformers.core_model_loading import revert_weight_conversion

    state = model.state_dict()
    with _NoCopies():
        saved = revert_weight_conversion(model, dict(state))
    views = {live: saved[name] for name, live in live_names(model, saved).items()} | state
    # Of tied parameters, which share storage, the first is the owner.
    owners = {_storage(tensor): name for name, tensor in reversed(state.items())}
    found = {}
    for name, live in live_names(model, names).items():
        view = views.get(live)
        if view is not None and _storage(view) in owners:
            found[name] = LiveView(live if live in state else owners[_storage(view)], view)
    order = {name: i for i, name in enumerate(state)}
    return dict(sorted(found.items(), key=lambda item: order[item[1].parameter]))


def tied_names(found: Mapping[str, LiveView]) -> dict[str, str]:
    """Find names that share one tensor.

    Args:
        found: From ``live_views``.

    Returns:
        For every name but the first of those that share, the first: of head and embedding, the
        embedding.
    """
    first: dict[tuple[int, int], str] = {}
    for name, view in found.items():
        first.setdefault(_address(view), name)
    return {name: other for name, view in found.items() if (other := first[_address(view)]) != name}


def live_tensors(model: PreTrainedModel, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """Give every tensor of a checkpoint a view to write it through.

    Args:
        model: Loaded from a checkpoint with these tensors.
        names: Names as in the checkpoint.

    Returns:
        By name, in the model's order. A view may be non-contiguous (see ``contiguous_output``).
        Left out are the second name of tied tensors, and tensors that the model is known to have
        no use for, such as stored attention masks.

    Raises:
        CheckpointError: A tensor has no view, or the names leave a parameter unwritten.
    """
    names = tuple(names)
    found = live_views(model, names)
    unused = may_be_unused(model) + _NEVER_LOADED
    lost = [n for n in names if n not in found and not any(re.search(p, n) for p in unused)]
    if lost:
        raise CheckpointError(
            f"expected tensors that {type(model).__name__} holds as parameters or as parts of "
            f"them, got {len(lost)} others, e.g. {lost[0]}; {_CONVERT}"
        )
    tied = tied_names(found)
    live = {name: view.tensor for name, view in found.items() if name not in tied}
    _check_covered(model, live.values())
    return live


def check_live(live: Mapping[str, torch.Tensor], checkpoint: Checkpoint) -> None:
    """Compare live tensors with the checkpoint that the model was just loaded from.

    One tensor of each sort is read: of names that differ in layer or expert only, the last.

    Args:
        live: From ``live_tensors``, before anything was written.
        checkpoint: Where the model was loaded from.

    Raises:
        CheckpointError: A view does not hold its tensor.
    """
    last_of_sort = {re.sub(r"\.\d+\.", ".*.", name): name for name in live}
    for name in last_of_sort.values():
        stored = checkpoint.tensor(name).to(live[name])  # device and dtype of the view
        if not torch.equal(live[name], stored):
            raise CheckpointError(
                f"expected to find {name} of {checkpoint.folder} in the loaded model, found other "
                "values in its place: this version of transformers changes it on loading; "
                f"{_CONVERT}"
            )


def untie(model: PreTrainedModel) -> None:
    """Give each of a model's tied parameters, if it has any, memory of its own.

    Args:
        model: Changed; its config says so.
    """
    for name, other in model.all_tied_weights_keys.items():
        shared = model.get_parameter(name)
        if shared is model.get_parameter(other):
            module, _, leaf = name.rpartition(".")
            own = torch.nn.Parameter(shared.detach().clone(), shared.requires_grad)
            setattr(model.get_submodule(module), leaf, own)
    model.all_tied_weights_keys = {}
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = False


@contextmanager
def contiguous_output(view: torch.Tensor) -> Iterator[torch.Tensor]:
    """Lend a contiguous buffer whose content ends up in a view.

    Args:
        view: Of any strides.

    Yields:
        The view itself where it is contiguous; else an uninitialised tensor of its shape, copied
        into the view at the end.
    """
    if view.is_contiguous():
        yield view
        return
    buffer = torch.empty(view.shape, dtype=view.dtype, device=view.device)
    yield buffer
    view.copy_(buffer)


_CONVERT = (
    "load base and experts with transformers and save them with "
    "save_pretrained(…, save_original_format=False), then merge those"
)
# Rotary frequencies are computed from the config; old checkpoints of many types stored them.
_NEVER_LOADED = (r"rotary_emb\.inv_freq",)


class _NoCopies(TorchFunctionMode):
    """Keeps views views: ``contiguous`` returns its argument."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.contiguous:
            return args[0]
        return func(*args, **(kwargs or {}))


def _storage(tensor: torch.Tensor) -> int:
    """Identify a tensor's storage, on the meta device too, where all addresses are zero."""
    return int(tensor.untyped_storage()._cdata)


def _address(view: LiveView) -> tuple[int, int]:
    return _storage(view.tensor), int(view.tensor.storage_offset())


def _check_covered(model: PreTrainedModel, views: Iterable[torch.Tensor]) -> None:
    written: Counter[int] = Counter()
    for view in views:
        written[_storage(view)] += view.numel()
    optional = may_be_missing(model)
    missing = [
        name
        for name, parameter in model.named_parameters()
        if written[_storage(parameter)] < parameter.numel()
        and not any(re.search(pattern, name) for pattern in optional)
    ]
    if missing:
        raise CheckpointError(
            f"expected a checkpoint with all parameters of {type(model).__name__}, found nothing "
            f"or only a part for {len(missing)} of them, e.g. {missing[0]}"
        )
