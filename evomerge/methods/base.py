"""What a merge method is: declared parameters, and a lowering to one elementwise pass."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar, TypeAlias

from evomerge.errors import RecipeError
from evomerge.kernels.plan import TensorPlan
from evomerge.seeds import seed_for
from evomerge.statistics.tensor import TensorStatistics

__all__ = [
    "Method",
    "Parameter",
    "ParameterValue",
    "PerExpert",
    "TensorContext",
    "per_expert",
    "shared",
]

PerExpert: TypeAlias = tuple[float, ...]
Scalar: TypeAlias = float | bool | str
ParameterValue: TypeAlias = Scalar | Mapping[str, Scalar]


@dataclass(frozen=True)
class Parameter:
    """One declared parameter of a method.

    Attributes:
        name: As written in recipes.
        default: Used where a recipe says nothing.
        help: One line.
        low: Smallest legal value, for numbers.
        high: Largest legal value, for numbers.
        search: Range worth searching, inside the legal one; ``None``: rarely worth it.
        per_expert: Whether each expert has its own value.
    """

    name: str
    default: Scalar
    help: str
    low: float = float("-inf")
    high: float = float("inf")
    search: tuple[float, float] | None = None
    per_expert: bool = False

    def fault(self, value: object) -> str | None:
        """Say what is wrong with one value, or ``None``."""
        if isinstance(self.default, bool):
            return None if isinstance(value, bool) else f"expected true or false, got {value!r}"
        if isinstance(self.default, str):
            return None if isinstance(value, str) else f"expected text, got {value!r}"
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return f"expected a number, got {value!r}"
        if not self.low <= value <= self.high:
            return f"expected a number in [{self.low:g}, {self.high:g}], got {value:g}"
        return None


def per_expert(
    default: float, doc: str, *, low: float, high: float, search: tuple[float, float] | None = None
) -> Any:
    """Declare a method field that holds one number per expert, in recipe order."""
    return _declare(Parameter("", default, doc, low=low, high=high, search=search, per_expert=True))


def shared(
    default: Scalar,
    doc: str,
    *,
    low: float = float("-inf"),
    high: float = float("inf"),
    search: tuple[float, float] | None = None,
) -> Any:
    """Declare a method field that all experts share."""
    return _declare(Parameter("", default, doc, low=low, high=high, search=search))


def _declare(parameter: Parameter) -> Any:
    return dataclasses.field(metadata={"parameter": parameter})


@dataclass(frozen=True)
class TensorContext:
    """Everything about one tensor that a lowering may use besides the method's parameters.

    Attributes:
        name: Tensor name.
        experts: Expert names in recipe order.
        statistics: Candidate-independent statistics.
        seed: The recipe's seed, for random masks.
    """

    name: str
    experts: tuple[str, ...]
    statistics: TensorStatistics
    seed: int

    def mask_key(self, expert: int) -> int:
        """Name the random stream of one expert's mask on this tensor."""
        return seed_for(self.seed, "mask", self.experts[expert], self.name)


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """A merge rule with its parameters bound.

    A subclass declares its parameters as fields and its description as class variables; it is
    found by its ``name`` through the table in ``methods.registry``.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    formula: ClassVar[str]
    source: ClassVar[str]
    needs_base: ClassVar[bool] = True
    n_experts: ClassVar[tuple[int, int | None]] = (1, None)

    @abstractmethod
    def lower(self, tensor: TensorContext) -> TensorPlan:
        """Turn the bound parameters and the tensor's statistics into one elementwise pass."""

    @classmethod
    def requires_base(cls, n_experts: int) -> bool:
        """Tell whether a recipe with this many experts must name a base."""
        del n_experts
        return cls.needs_base

    @classmethod
    def parameters(cls) -> dict[str, Parameter]:
        """List the declared parameters by name (``lambda`` is the field ``lambda_``)."""
        declared = {}
        for field in dataclasses.fields(cls):
            name = field.name.rstrip("_")
            declared[name] = dataclasses.replace(field.metadata["parameter"], name=name)
        return declared

    @classmethod
    def bind(cls, values: Mapping[str, ParameterValue], experts: Sequence[str]) -> Method:
        """Check parameter values and fill in the defaults.

        Args:
            values: By parameter name; a number, or one per expert by name.
            experts: Expert names in recipe order.

        Returns:
            The method, ready to lower.

        Raises:
            RecipeError: Listing every unknown name and illegal value, one line each.
        """
        faults = list(cls.faults(values, experts))
        if faults:
            raise RecipeError("\n".join(faults))
        bound = {
            parameter.name + ("_" if parameter.name == "lambda" else ""): _fill(
                parameter, values.get(parameter.name, parameter.default), experts
            )
            for parameter in cls.parameters().values()
        }
        return cls(**bound)

    @classmethod
    def faults(cls, values: Mapping[str, ParameterValue], experts: Sequence[str]) -> list[str]:
        """List what is wrong with parameter values, one line each; empty if all is well."""
        fewest, most = cls.n_experts
        found = []
        if len(experts) < fewest or (most is not None and len(experts) > most):
            wanted = f"{fewest}" if fewest == most else f"{fewest} to {most or 'any number of'}"
            found.append(f"{cls.name} merges {wanted} experts, got {len(experts)}")
        declared = cls.parameters()
        for name, value in values.items():
            if name not in declared:
                near = get_close_matches(name, declared, n=1, cutoff=0.5)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                found.append(
                    f"{cls.name} has no parameter {name!r}, only {', '.join(declared)}{hint}"
                )
            else:
                found.extend(_value_faults(declared[name], value, experts))
        return found


def _value_faults(parameter: Parameter, value: ParameterValue, experts: Sequence[str]) -> list[str]:
    if not isinstance(value, Mapping):
        fault = parameter.fault(value)
        return [f"{parameter.name}: {fault}"] if fault else []
    if not parameter.per_expert:
        return [f"{parameter.name}: expected one value for all experts, got {dict(value)!r}"]
    missing = [e for e in experts if e not in value]
    unknown = [e for e in value if e not in experts]
    found = [f"{parameter.name}: no value for expert {e!r}" for e in missing]
    found += [f"{parameter.name}: {e!r} is not one of the experts" for e in unknown]
    for expert, number in value.items():
        if fault := parameter.fault(number):
            found.append(f"{parameter.name}.{expert}: {fault}")
    return found


def _fill(parameter: Parameter, value: ParameterValue, experts: Sequence[str]) -> object:
    if not parameter.per_expert:
        return value
    if isinstance(value, Mapping):
        return tuple(float(value[expert]) for expert in experts)
    return (float(value),) * len(experts)
