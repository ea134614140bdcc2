"""Units of a model that may change places without changing its answers: neurons, heads, channels.

An axis is a side of tensors whose positions mean the same in all of them: the hidden neurons of one
MLP, the rows of one layer's queries, the channels of the residual stream. A group of units is a set
of positions on one or more axes that move together. A family is added by one row below, and tested
by its tiny model: a randomly permuted one must answer the same.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from evomerge.arrays import IntArray
from evomerge.errors import CheckpointError
from evomerge.models.checkpoint import Checkpoint
from evomerge.models.loading import read_loading

__all__ = ["STREAM", "ModelUnits", "UnitGroup", "neurons", "units_of"]

STREAM = "stream"
"""The axis of the residual stream; every other one belongs to a module of a layer."""

_Axes = tuple[str | None, ...]


@dataclass(frozen=True)
class _Family:
    """The tensors of a family's models.

    Attributes:
        axes: By regular expression of whole names, the first that fits: the axis of each of its
            dimensions, ``None`` for one whose positions stay. What ``at`` matches is the module.
        has_rotary: Whether positions within a head's queries and keys have frequencies of their
            own, so that they stay.
    """

    axes: Mapping[str, _Axes]
    has_rotary: bool = True


_AT = r"(?P<at>.*\.)"
_ENDS: Mapping[str, _Axes] = {
    r".*norm\.weight": (STREAM,),
    r"(.*\.)?(embed_tokens|lm_head|gate)\.weight": (None, STREAM),  # gate: a mixture's router
}
_OUTPUTS: Mapping[str, _Axes] = {
    rf"{_AT}o_proj\.\w+": (STREAM, "o"),
    rf"{_AT}(down_proj|w2)\.\w+": (STREAM, "hidden"),
}
_LLAMA: Mapping[str, _Axes] = {
    **{rf"{_AT}{axis}_proj\.\w+": (axis, STREAM) for axis in "qkv"},
    rf"{_AT}(gate_proj|up_proj|w1|w3)\.\w+": ("hidden", STREAM),
    **_OUTPUTS,
}
# One norm for all heads, of one head's size.
_QWEN3 = _Family({**_LLAMA, r".*[qk]_norm\.weight": (None,), **_ENDS})
_PLAIN = _Family({**_LLAMA, **_ENDS})

_FAMILIES: Mapping[str, _Family] = {
    **dict.fromkeys(("llama", "mistral", "mixtral", "qwen2", "gemma2"), _PLAIN),
    **dict.fromkeys(("qwen3", "qwen3_moe", "gemma3_text"), _QWEN3),
    "gpt2": _Family(  # its matrices are (in, out)
        {
            rf"{_AT}c_attn\.weight": (STREAM, "qkv"),
            rf"{_AT}c_attn\.bias": ("qkv",),
            rf"{_AT}c_fc\.weight": (STREAM, "hidden"),
            rf"{_AT}c_fc\.bias": ("hidden",),
            r"(?P<at>.*\.attn\.)c_proj\.weight": ("o", STREAM),
            r"(?P<at>.*\.mlp\.)c_proj\.weight": ("hidden", STREAM),
            r".*c_proj\.bias|.*ln_\w+\.(weight|bias)": (STREAM,),
            r"(.*\.)?(wte|wpe|lm_head)\.weight": (None, STREAM),
        },
        has_rotary=False,
    ),
    # Norms over the queries, and over the keys, of all heads together.
    "olmo2": _Family({**_LLAMA, **{rf"{_AT}{a}_norm\.weight": (a,) for a in "qk"}, **_ENDS}),
    "phi3": _Family(
        {
            rf"{_AT}qkv_proj\.\w+": ("qkv", STREAM),
            rf"{_AT}gate_up_proj\.\w+": ("gate_up", STREAM),
            **_OUTPUTS,
            **_ENDS,
        }
    ),
}


@dataclass(frozen=True, eq=False)
class UnitGroup:
    """Units that may change places among themselves.

    Attributes:
        members: By axis, the positions of each unit: (units, positions of one). A position of one
            unit has its like at the same column of another.
        has_inner: Whether positions within a unit are units of a later group.
    """

    members: Mapping[str, IntArray]
    has_inner: bool = False

    @property
    def n(self) -> int:
        """How many units there are."""
        return len(next(iter(self.members.values())))


@dataclass(frozen=True, eq=False)
class ModelUnits:
    """The axes and groups of one model.

    Attributes:
        axes: By tensor, of each of its dimensions.
        sizes: Positions of each axis.
        groups: All of two units or more, from the outside to the inside: first the residual stream.
    """

    axes: Mapping[str, _Axes]
    sizes: Mapping[str, int]
    groups: tuple[UnitGroup, ...]

    def tensors(self, group: UnitGroup) -> tuple[str, ...]:
        """List the tensors that a group's units are parts of, sorted."""
        return tuple(
            n for n in sorted(self.axes) if not group.members.keys().isdisjoint(self.axes[n])
        )


def units_of(checkpoint: Checkpoint) -> ModelUnits:
    """Find what may change places in a model.

    Args:
        checkpoint: Looked at for its config, names and shapes.

    Raises:
        CheckpointError: Nobody has looked at such models, or this one has tensors that others of
            its family do not have.
    """
    model_type = str(checkpoint.config.get("model_type"))
    if (family := _FAMILIES.get(model_type)) is None:
        raise CheckpointError(
            f"expected a model whose neurons and heads are known ({', '.join(sorted(_FAMILIES))}), "
            f"to align an expert with it, got {model_type} in {checkpoint.folder}"
        )
    axes = {name: _axes(name, family, checkpoint) for name in _loaded(checkpoint)}
    sizes = {
        axis: size
        for name, found in axes.items()
        for axis, size in zip(found, checkpoint.shape(name), strict=True)
        if axis is not None
    }
    return ModelUnits(axes, sizes, tuple(_groups(sizes, family, checkpoint.config)))


def _loaded(checkpoint: Checkpoint) -> list[str]:
    loading = read_loading(checkpoint.config, checkpoint.names)
    assert loading is not None, "transformers has the families above"
    known = {*loading.live, *loading.live.values(), *loading.tied, *loading.tied.values()}
    return [name for name in checkpoint.names if name in known]


def _axes(name: str, family: _Family, checkpoint: Checkpoint) -> _Axes:
    for pattern, axes in family.axes.items():
        if match := re.fullmatch(pattern, name):
            at = match.groupdict().get("at", "")
            found = tuple(a if a in (None, STREAM) else f"{at}{a}" for a in axes)
            return found[: len(checkpoint.shape(name))]
    raise CheckpointError(
        f"expected the tensors that models of type {checkpoint.config['model_type']} have, to "
        f"align an expert with one, got {name} in {checkpoint.folder}"
    )


def _groups(
    sizes: Mapping[str, int], family: _Family, config: Mapping[str, Any]
) -> Iterator[UnitGroup]:
    yield UnitGroup({STREAM: np.arange(sizes[STREAM])[:, None]})
    modules: dict[str, dict[str, int]] = defaultdict(dict)  # sizes by axis of a module
    for axis, size in sizes.items():
        if axis != STREAM:
            at, _, kind = axis.rpartition(".")
            modules[f"{at}."][kind] = size
    for at, own in modules.items():
        for group in (*neurons(own), *_heads(own, family, config)):
            if group.n > 1:
                members = {f"{at}{kind}": found for kind, found in group.members.items()}
                yield UnitGroup(members, group.has_inner)


def neurons(sizes: Mapping[str, int]) -> Iterator[UnitGroup]:
    """Find the hidden neurons of one MLP, if it is one.

    Args:
        sizes: Of its axes: ``hidden``, and ``gate_up`` where both halves are one matrix.
    """
    if "hidden" in sizes:
        own = np.arange(sizes["hidden"])[:, None]
        both = {"gate_up": np.hstack([own, own + len(own)])} if "gate_up" in sizes else {}
        yield UnitGroup({"hidden": own, **both})


def _heads(
    sizes: Mapping[str, int], family: _Family, config: Mapping[str, Any]
) -> Iterator[UnitGroup]:
    """List sets of heads that share keys, the heads of each, and what may move in a head."""
    if "o" not in sizes:
        return
    n = int(config.get("num_attention_heads") or config["n_head"])
    axis = {kind: kind if kind in sizes else "qkv" for kind in "qkvo"}
    at = _positions(sizes, n)

    def group(has_inner: bool = False, **found: IntArray) -> UnitGroup:
        joined: dict[str, list[IntArray]] = defaultdict(list)
        for kind, positions in found.items():
            joined[axis[kind]].append(positions.reshape(len(positions), -1))
        return UnitGroup({kind: np.hstack(parts) for kind, parts in joined.items()}, has_inner)

    yield group(has_inner=True, **at)
    for q, k, v, o in zip(at["q"], at["k"], at["v"], at["o"], strict=True):
        yield group(has_inner=True, q=q, o=o)
        yield group(v=v[0], o=o.T)
        if not family.has_rotary:
            yield group(q=q.T, k=k[0])


def _positions(sizes: Mapping[str, int], n: int) -> dict[str, IntArray]:
    """Say where queries, keys, values and what they yield stand on their axes.

    Returns:
        (sets, heads, positions of a head) each; keys and values have one head per set.
    """
    size = sizes["o"] // n
    n_shared = sizes["v"] if "v" in sizes else (sizes["qkv"] - sizes["o"]) // 2  # keys, values
    if "qkv" in sizes:
        q, k, v = np.split(np.arange(sizes["qkv"]), [n * size, n * size + n_shared])
    else:
        q, k, v = (np.arange(sizes[kind]) for kind in "qkv")
    n_sets, found = n_shared // size, {"q": q, "k": k, "v": v, "o": np.arange(sizes["o"])}
    heads = {"q": n // n_sets, "k": 1, "v": 1, "o": n // n_sets}
    return {kind: found[kind].reshape(n_sets, heads[kind], -1) for kind in found}
