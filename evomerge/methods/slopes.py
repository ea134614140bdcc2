"""From slopes along the scalars of a plan to slopes along the parameters of the rule that made it.

Lowering is a cheap program of float64 arithmetic from a few parameters to the scalars of a plan,
whatever a method writes in it: normalisation, arcs on spheres, iterations. So it is run a little to
either side of each parameter, and central differences of the scalars are its derivative, to nine
digits or so. No method writes a derivative, nor those of other packages. The tensors, of which
there are billions of elements, take no part in it: their slopes are exact (``kernels``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

from evomerge.errors import RecipeError
from evomerge.kernels.plan import TensorPlan
from evomerge.kernels.scalars import Scalars, held
from evomerge.methods.base import Method, TensorContext
from evomerge.methods.declared import PerExpert, Scalar
from evomerge.methods.modifiers.base import Modifier

__all__ = ["Lowering", "ParameterSlopes"]

ParameterSlopes: TypeAlias = Mapping[str, float | PerExpert]
"""Slopes by parameter, one or one per expert; a modifier's is called ``modifier:parameter``."""

_STEP = 1e-5  # the error of rounding is about 1e-16 / step, that of curvature step²


@dataclass(frozen=True)
class Lowering:
    """A rule with its parameters bound.

    Attributes:
        method: Its method.
        modifiers: Its modifiers, in order of application.
    """

    method: Method
    modifiers: Sequence[Modifier] = ()

    def plan(self, tensor: TensorContext) -> TensorPlan:
        """Lower the rule for one tensor.

        Raises:
            RecipeError: A modifier does not fit the method.
        """
        plan = self.method.lower(tensor)
        for modifier in self.modifiers:
            plan = modifier.apply(plan, tensor)
        return plan

    def slopes(self, tensor: TensorContext, along_plan: Scalars) -> ParameterSlopes:
        """Find an objective's slopes along every parameter that has one (``Parameter.slope``).

        Args:
            tensor: Whose plan it is.
            along_plan: Slopes along the scalars of that plan.

        Raises:
            RecipeError: A parameter that is declared to have slopes moves a mask.
        """
        found: dict[str, float | PerExpert] = {}
        for position, own in enumerate(self._parts):
            prefix = f"{own.name}:" if position else ""
            for name, parameter in own.parameters().items():
                if parameter.slope:
                    each = tuple(
                        along_plan.along(*self._scalars(position, name, both, tensor)) / distance
                        for distance, both in _neighbours(own.value(name))
                    )
                    found[prefix + name] = each if parameter.per_expert else each[0]
        return found

    @property
    def _parts(self) -> tuple[Method | Modifier, ...]:
        return (self.method, *self.modifiers)

    def _scalars(
        self, position: int, name: str, values: Sequence[Scalar | PerExpert], tensor: TensorContext
    ) -> list[Scalars]:
        """Lower with each of several values of one parameter."""
        parts = list(self._parts)
        plans = []
        for value in values:
            parts[position] = self._parts[position].moved(name, value)
            method, *modifiers = parts
            plans.append(
                Lowering(cast(Method, method), cast(list[Modifier], modifiers)).plan(tensor)
            )
        if held(plans[0]) != held(plans[1]):
            raise RecipeError(
                f"{parts[position].name}: expected {name} to move no mask, since it is declared to "
                f"have slopes, got another mask of {tensor.name}; declare it without slope=True"
            )
        return [Scalars.of(plan) for plan in plans]


def _neighbours(
    value: Scalar | PerExpert,
) -> Iterator[tuple[float, Sequence[Scalar | PerExpert]]]:
    """For each number of a value, step to either side of it: the distance, and both values."""
    numbers = value if isinstance(value, tuple) else (float(value),)
    for i, number in enumerate(numbers):
        step = _STEP * max(1.0, abs(number))
        both = [(*numbers[:i], number + by, *numbers[i + 1 :]) for by in (-step, step)]
        yield 2 * step, both if isinstance(value, tuple) else [moved[0] for moved in both]
