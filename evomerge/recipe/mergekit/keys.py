"""mergekit's methods and parameters: which are which of ours, and what only one side can do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from evomerge.errors import Fault, near_name
from evomerge.methods.base import ParameterValue, Scalar
from evomerge.methods.registry import method

__all__ = [
    "COUNTERPARTS",
    "PASSTHROUGH",
    "SCALE",
    "Counterpart",
    "Key",
    "counterpart_of",
    "known_parameters",
    "misplaced_parameters",
    "unknown_parameters",
]


@dataclass(frozen=True)
class Key:
    """What mergekit calls a parameter of ours.

    Attributes:
        name: In mergekit.
        default: Where it differs from ours.
        required: Whether mergekit has no default.
        values: mergekit's value by ours, where they are not the same; of several of ours with one
            value the first is meant.
        is_whole: Whether mergekit takes whole numbers only.
    """

    name: str
    default: Scalar | None = None
    required: bool = False
    values: Mapping[Scalar, Scalar] | None = None
    is_whole: bool = False

    def theirs(self, value: Scalar) -> Scalar | None:
        """Translate one of our values; ``None`` if mergekit cannot do that."""
        if self.is_whole:
            return int(value)
        return value if self.values is None else self.values.get(value)

    def ours(self, value: Scalar) -> Scalar:
        """Translate one of mergekit's values."""
        if self.values is None:
            return int(value) if self.is_whole else value
        return next(ours for ours, theirs in self.values.items() if theirs == bool(value))


@dataclass(frozen=True)
class Counterpart:
    """A method of mergekit's as a method of ours.

    Attributes:
        ours: Name of our method.
        keys: By our parameter name, those that mergekit has.
        alone: Parameters that mergekit does not have, and the values that are what it does.
        without_effect: Parameters that mergekit accepts and does not use.
        base: Whether base_model is ``read``, can be left out (``optional``), or is merged like any
            ``model``.
        n_experts: Fewest and most models besides a base that is read.
        imported: Turns our parameters, read key by key, into what they mean together.
        exported: Likewise mergekit's parameters.
        difference: How mergekit's result differs, for the head of an exported file.
    """

    ours: str
    keys: Mapping[str, Key] = field(default_factory=dict)
    alone: Mapping[str, tuple[ParameterValue, ...]] = field(default_factory=dict)
    without_effect: tuple[str, ...] = ()
    base: Literal["read", "optional", "model"] = "read"
    n_experts: tuple[int, int | None] = (1, None)
    imported: Callable[[dict[str, ParameterValue]], dict[str, ParameterValue]] = dict
    exported: Callable[[dict[str, Any]], dict[str, Any]] = dict
    difference: str = ""

    @property
    def has_coefficients(self) -> bool:
        """Whether a model can be left out of some layers, as its coefficient is 0 there."""
        return "coefficient" in self.keys


_DRAWS = """;
- other masks are drawn (--random-seed), and each task vector is rescaled to its L1 norm instead of
  divided by the probability, so single elements differ"""
_CUTS = """;
- mergekit sorts and keeps an exact count of elements, evomerge all that reach a threshold, so equal
  changes at the threshold differ; above 65,536 elements also changes near it"""
_SAMPLES = """;
- the quartiles of large tensors are those of a random sample, so elements near the threshold
  differ"""

_UNIFORM = """;
- where the mean squares of the changes sum to less than 1e-6, mergekit weighs all models alike,
  evomerge by their energy"""


def _rows_or_columns(parameters: dict[str, ParameterValue]) -> dict[str, ParameterValue]:
    """Columns turn instead of rows, and neither of them in a flattened tensor."""
    if parameters.get("column_wise"):
        parameters.pop("row_wise" if parameters.get("row_wise") else "column_wise")
    return parameters


def _not_flat(parameters: dict[str, Any]) -> dict[str, Any]:
    flat = parameters["nuslerp_flatten"] and not parameters["nuslerp_row_wise"]
    return {**parameters, "nuslerp_flatten": flat}


_COEFFICIENT = {"coefficient": Key("weight", required=True)}
_NORMALIZE = {"normalize": Key("normalize")}
_LAMBDA = {"lambda": Key("lambda")}
_DENSITY = {"density": Key("density", default=1.0)}
_SPARSE = {**_COEFFICIENT, **_DENSITY, **_NORMALIZE, **_LAMBDA}
_TRIM = {
    **_SPARSE,
    "rescale": Key("rescale", default=False, values={"none": False, "l1": True}),
}
_BAND = {**_TRIM, "gamma": Key("gamma")}
_RESCALE = {
    "rescale": Key("rescale", default=True, values={"inv_p": True, "l1": True, "none": False})
}
_DROP = {**_SPARSE, **_RESCALE}
_RANKED = {**_DROP, "epsilon": Key("epsilon")}
_TOLERANCE = {"tolerance": Key("epsilon")}

_PER_TENSOR = {"scope": ("tensor",)}
_ELECTION = {"vote": ("weighted",), "zero_sign": ("positive",)}
_UNSCALED = {"lambda": (1.0,)}
_ALIKE = {"coefficient": (1.0,), **_UNSCALED}


COUNTERPARTS: Mapping[str, Counterpart] = {
    "linear": Counterpart("linear", {**_COEFFICIENT, **_NORMALIZE}, base="model"),
    "task_arithmetic": Counterpart(
        "task_arithmetic",
        {**_COEFFICIENT, **_NORMALIZE, **_LAMBDA},
        without_effect=("density", "rescale"),
    ),
    "ties": Counterpart("ties", _TRIM, {**_PER_TENSOR, **_ELECTION}, difference=_CUTS),
    "dare_linear": Counterpart("dare_linear", _DROP, difference=_DRAWS),
    "dare_ties": Counterpart("dare_ties", _DROP, _ELECTION, difference=_DRAWS),
    "della_linear": Counterpart("della_linear", _RANKED, difference=_DRAWS),
    "della": Counterpart("della", _RANKED, _ELECTION, difference=_DRAWS),
    "breadcrumbs": Counterpart("breadcrumbs", _BAND, _PER_TENSOR, difference=_CUTS),
    "breadcrumbs_ties": Counterpart(
        "breadcrumbs_ties", _BAND, {**_PER_TENSOR, **_ELECTION}, difference=_CUTS
    ),
    "sce": Counterpart(
        "sce",
        {"select_topk": Key("select_topk")},
        {**_ALIKE, **_PER_TENSOR, "sce_mode": ("masked",)},
        difference=_CUTS + _UNIFORM,
    ),
    "ram": Counterpart("ram", _TOLERANCE, _ALIKE),
    "ramplus_tl": Counterpart(
        "ramplus", {**_TOLERANCE, "boost": Key("r"), "boost_cap": Key("alpha")}, _ALIKE
    ),
    "model_stock": Counterpart(
        "model_stock",
        {"filter_wise": Key("filter_wise")},
        {**_UNSCALED, "average": ("cosine",)},
        n_experts=(2, None),
    ),
    "slerp": Counterpart("slerp", {"t": Key("t", required=True)}, n_experts=(1, 1)),
    "nuslerp": Counterpart(
        "nuslerp",
        {
            **_COEFFICIENT,
            "row_wise": Key("nuslerp_flatten", default=True, values={False: True, True: False}),
            "column_wise": Key("nuslerp_row_wise"),  # sic: by it mergekit turns columns
        },
        _UNSCALED,
        base="optional",
        n_experts=(2, 2),
        imported=_rows_or_columns,
        exported=_not_flat,
    ),
    "multislerp": Counterpart(
        "multislerp",
        {**_COEFFICIENT, "normalize": Key("normalize_weights"), "eps": Key("eps")},
        _UNSCALED,
        base="optional",
    ),
    "karcher": Counterpart(
        "karcher",
        {"max_iter": Key("max_iter", default=10, is_whole=True), "tol": Key("tol", default=1e-5)},
        {"coefficient": (1.0,)},
        base="model",
    ),
    "nearswap": Counterpart("nearswap", {"limit": Key("t", required=True)}, n_experts=(1, 1)),
    "arcee_fusion": Counterpart(
        "arcee_fusion",
        {},
        {**_UNSCALED, "fence": (1.5,)},
        n_experts=(1, 1),
        difference=_SAMPLES,
    ),
}
"""By mergekit's name of the method."""

PASSTHROUGH = "passthrough"
"""mergekit's method without a counterpart: what it stacks is a path here."""

SCALE = Key("scale")
"""The parameter of passthrough."""

_EVERYWHERE = ("int8_mask",)  # without effect
_ON_THE_COMMAND_LINE = {
    key: f", an option of mergekit's command line that its files ignore; {instead}"
    for key, instead in {
        "random_seed": "write seed: N in a recipe of evomerge",
        "write_model_card": "every merge here has a card",
        "copy_tokenizer": "every merge here has its base's tokenizer",
        **dict.fromkeys(
            ("allow_crimes", "cuda", "lazy_unpickle", "low_cpu_memory", "trust_remote_code"),
            "remove it",
        ),
        "out_shard_size": "remove it",
    }.items()
}


def counterpart_of(ours: str) -> tuple[str, Counterpart] | None:
    """Find what mergekit calls one of our methods; ``None`` if it has none like it."""
    return next(((n, c) for n, c in COUNTERPARTS.items() if c.ours == ours), None)


def known_parameters(merge_method: str, *, of_one_model: bool) -> set[str]:
    """List the parameters that mergekit reads.

    Args:
        merge_method: One of ``COUNTERPARTS``, or ``PASSTHROUGH``.
        of_one_model: Among the parameters of one model, where it reads no shared ones.
    """
    if merge_method == PASSTHROUGH:
        return {SCALE.name, *_EVERYWHERE}
    counterpart = COUNTERPARTS[merge_method]
    declared = method(counterpart.ours).parameters()
    known = {
        key.name
        for ours, key in counterpart.keys.items()
        if declared[ours].per_expert or not of_one_model
    }
    return known | {*_EVERYWHERE, *counterpart.without_effect}


def misplaced_parameters(merge_method: str) -> dict[str, str]:
    """Say of every parameter of mergekit's what to do where it stands beside ``parameters``."""
    methods = (*COUNTERPARTS, PASSTHROUGH)
    everything = {key for one in methods for key in known_parameters(one, of_one_model=False)}
    ours = known_parameters(merge_method, of_one_model=False)
    return _ON_THE_COMMAND_LINE | {
        key: " here, which mergekit ignores; it belongs under parameters"
        if key in ours
        else f", which mergekit ignores here, and {merge_method} everywhere; remove it"
        for key in everything
    }


def unknown_parameters(given: Collection[str], known: Collection[str]) -> Iterator[Fault]:
    """Say of each given parameter that is not known which one may be meant."""
    for key in given:
        if key not in known:
            near = near_name(key, sorted(known), cutoff=0.5)
            hint = f"did you mean {near!r}?" if near else f"known here: {', '.join(sorted(known))}"
            yield Fault((key,), "unknown key", hint)
