"""Things with declared parameters: checked, bound to experts, listed for search and help.

Methods and modifiers are such things: frozen dataclasses whose fields are their parameters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from evomerge.errors import Fault, RecipeError, did_you_mean

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "Declared",
    "Parameter",
    "ParameterValue",
    "PerExpert",
    "Scalar",
    "choice",
    "per_expert",
    "shared",
    "value_faults",
]

PerExpert: TypeAlias = tuple[float, ...]
Scalar: TypeAlias = float | bool | str
Prepares: TypeAlias = Literal[False, True, "order"]
ParameterValue: TypeAlias = Scalar | Mapping[str, Scalar]


@dataclass(frozen=True)
class Parameter:
    """One declared parameter: a number, a truth value, or one of several named choices.

    Attributes:
        name: As written in recipes.
        default: Used where a recipe says nothing; its type is the type of the parameter.
        help: One line.
        low: Smallest legal value, for numbers.
        high: Largest legal value, for numbers.
        search: Range worth searching, inside the legal one; ``None``: rarely worth it.
        per_expert: Whether each expert has its own value.
        choices: The legal values, for named choices.
        slope: Whether a merge depends smoothly on it, masks, gates and elected signs held as they
            are: then objectives have slopes along it (``methods.slopes``). What moves a mask has
            none.
        prepares: Whether a method of matrix algebra computes its task vectors anew for each value
            (``methods.prepared``); ``order``: for each order of the experts' values.
    """

    name: str
    default: Scalar
    help: str
    low: float = float("-inf")
    high: float = float("inf")
    search: tuple[float, float] | None = None
    per_expert: bool = False
    choices: tuple[str, ...] = ()
    slope: bool = False
    prepares: Prepares = False

    def fault(self, value: object) -> str | None:
        """Say what is wrong with one value, or ``None``."""
        if self.choices:
            wanted = ", ".join(self.choices)
            return None if value in self.choices else f"expected one of {wanted}, got {value!r}"
        if isinstance(self.default, bool):
            return None if isinstance(value, bool) else f"expected true or false, got {value!r}"
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return f"expected a number, got {value!r}"
        if not self.low <= value <= self.high:
            return f"expected a number in [{self.low:g}, {self.high:g}], got {value:g}"
        return None


def per_expert(
    default: float,
    doc: str,
    *,
    low: float,
    high: float,
    search: tuple[float, float] | None = None,
    slope: bool = False,
    prepares: Prepares = False,
) -> Any:
    """Declare a field that holds one number per expert, in recipe order."""
    return _declare(
        Parameter(
            *("", default, doc, low, high, search),
            per_expert=True,
            slope=slope,
            prepares=prepares,
        )
    )


def shared(
    default: float | bool,
    doc: str,
    *,
    low: float = float("-inf"),
    high: float = float("inf"),
    search: tuple[float, float] | None = None,
    slope: bool = False,
    prepares: bool = False,
) -> Any:
    """Declare a field with one number or truth value for all experts."""
    return _declare(Parameter("", default, doc, low, high, search, slope=slope, prepares=prepares))


def choice(choices: tuple[str, ...], doc: str, *, prepares: bool = False) -> Any:
    """Declare a field that holds one of several names; the first is the default."""
    return _declare(Parameter("", choices[0], doc, choices=choices, prepares=prepares))


def _declare(parameter: Parameter) -> Any:
    return dataclasses.field(metadata={"parameter": parameter})


@dataclass(frozen=True, kw_only=True)
class Declared:
    """A frozen dataclass whose fields are declared parameters."""

    name: ClassVar[str]

    @classmethod
    @cache
    def parameters(cls) -> Mapping[str, Parameter]:
        """List the declared parameters by name (``lambda`` is the field ``lambda_``)."""
        declared = {}
        for field in dataclasses.fields(cls):
            name = field.name.rstrip("_")
            declared[name] = dataclasses.replace(field.metadata["parameter"], name=name)
        return declared

    @classmethod
    def bind(cls, values: Mapping[str, ParameterValue], experts: Sequence[str]) -> Self:
        """Check parameter values and fill in the defaults.

        Args:
            values: By parameter name; a number, or one per expert by name.
            experts: Expert names in recipe order.

        Returns:
            An instance with all its parameters.

        Raises:
            RecipeError: Every unknown name and illegal value.
        """
        faults = list(cls.faults(values, experts))
        if faults:
            raise RecipeError(*faults)
        bound = {
            _field(parameter.name): _fill(
                parameter, values.get(parameter.name, parameter.default), experts
            )
            for parameter in cls.parameters().values()
        }
        return cls(**bound)

    def value(self, name: str) -> Scalar | PerExpert:
        """Return the value of a parameter; of one per expert, in recipe order."""
        found: Scalar | PerExpert = getattr(self, _field(name))
        return found

    def moved(self, name: str, value: Scalar | PerExpert) -> Self:
        """Return the same with another value of one parameter, which is not checked."""
        return dataclasses.replace(self, **{_field(name): value})

    @classmethod
    def faults(cls, values: Mapping[str, ParameterValue], experts: Sequence[str]) -> list[Fault]:
        """List what is wrong with parameter values; empty if all is well."""
        declared = cls.parameters()
        found: list[Fault] = []
        for name, value in values.items():
            if name in declared:
                found.extend(value_faults(declared[name], value, experts))
                continue
            hint = did_you_mean(name, declared, cutoff=0.5)
            text = f"{cls.name} has no parameter {name!r}, only {', '.join(declared)}{hint}"
            found.append(Fault((name,), text))
        return found


def value_faults(
    parameter: Parameter, value: ParameterValue, experts: Sequence[str]
) -> Iterator[Fault]:
    """Say what is wrong with the value, or values by expert, of one parameter."""
    name = parameter.name
    if not isinstance(value, Mapping):
        if text := parameter.fault(value):
            yield Fault((name,), text)
        return
    if not parameter.per_expert:
        yield Fault((name,), f"expected one value for all experts, got {dict(value)!r}")
        return
    yield from (Fault((name,), f"no value for expert {e!r}") for e in experts if e not in value)
    for expert, number in value.items():
        if expert not in experts:
            yield Fault((name,), f"{expert!r} is not one of the experts")
        if text := parameter.fault(number):
            yield Fault((name, expert), text)


def _field(name: str) -> str:
    return name + "_" if name == "lambda" else name


def _fill(parameter: Parameter, value: ParameterValue, experts: Sequence[str]) -> object:
    if not parameter.per_expert:
        return value
    if isinstance(value, Mapping):
        return tuple(float(value[expert]) for expert in experts)
    return (float(value),) * len(experts)
