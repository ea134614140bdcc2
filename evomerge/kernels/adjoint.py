"""The derivative of the formula of one element, as source text, taken from the formula's own text.

The formula (``formula.element_source``) is a list of assignments over a handful of operations, so
its adjoint is that list read backwards, and what is changed there changes here. Comparisons and
hashes pass no slope on: masks, gates and elected signs are held without further ado.
"""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from evomerge.kernels.formula import element_source
from evomerge.kernels.numbers import Each, Shared
from evomerge.kernels.structure import Structure

__all__ = ["Adjoint"]

Statement = tuple[str, ast.expr]
Kept = tuple[str, bool]


@dataclass(frozen=True)
class Adjoint:
    """What compiled kernels run to find slopes.

    Attributes:
        lines: Statements for one element: the formula, then its derivative. Besides what the
            formula reads they read ``gradient``, the objective's slope along the merged element;
            they set ``slope_NAME`` for every one of ``names``.
        names: Numbers that the formula reads and that have slopes, e.g. ``coefficient0``.
    """

    lines: tuple[str, ...]
    names: tuple[str, ...]

    @classmethod
    @cache
    def of(cls, structure: Structure) -> Adjoint:
        """Take the derivative of a structure's formula along all scalars but tables."""
        statements = _assigned_once(element_source(structure))
        wanted = tuple(_scalars(structure))
        lines = [f"{name} = {ast.unparse(value)}" for name, value in statements]
        backwards = _Backwards(statements, wanted)
        lines += backwards.lines()
        return cls(tuple(lines), tuple(name for name in wanted if backwards.terms[name]))


def _scalars(structure: Structure) -> Iterator[str]:
    for i, what in enumerate(structure.sparse):
        own = [Each.COEFFICIENT, Each.MIXING, Each.UNIQUE, *([Each.LOW] if what == "clamp" else [])]
        yield from (f"{column.name.lower()}{i}" for column in own)
    for position in (Shared.BASE_COEFFICIENT, Shared.OFFSET, Shared.SCALE):
        yield position.name.lower()


def _assigned_once(lines: Sequence[str]) -> list[Statement]:
    """Give every value a name of its own where the formula assigns to one name repeatedly."""
    times: Counter[str] = Counter()
    newest: dict[str, str] = {}
    statements: list[Statement] = []
    for line in lines:
        (assignment,) = ast.parse(line).body
        assert isinstance(assignment, ast.Assign), "a formula has no other statements"
        for node in ast.walk(assignment.value):
            if isinstance(node, ast.Name):
                node.id = newest.get(node.id, node.id)
        name = ast.unparse(assignment.targets[0])
        newest[name] = f"{name}__{times[name]}" if times[name] else name
        times[name] += 1
        statements.append((newest[name], assignment.value))
    return statements


class _Backwards:
    """Collects, for every name, the terms of the objective's slope along it.

    Args:
        statements: Each name is assigned once; the last is the merged element.
        wanted: Names to differentiate along.
    """

    def __init__(self, statements: Sequence[Statement], wanted: Sequence[str]) -> None:
        self._statements = statements
        self._varies = set(wanted)
        for name, value in statements:
            if self._depends(value):
                self._varies.add(name)
        self.terms: dict[str, list[str]] = defaultdict(list)
        self.terms[statements[-1][0]].append("gradient")

    def lines(self) -> Iterator[str]:
        """Write the derivative; all uses of a name come after it, so its terms are complete."""
        for name, value in reversed(self._statements):
            if self.terms[name]:
                yield self._sum(name)
                self._pass_on(value, f"slope_{name}")
        assigned = {name for name, _ in self._statements}
        yield from (self._sum(name) for name in self.terms if name not in assigned)

    def _sum(self, name: str) -> str:
        return f"slope_{name} = {' + '.join(self.terms[name])}"

    def _depends(self, value: ast.expr) -> bool:
        """Tell whether a slope along a value is one along something wanted."""
        match value:
            case ast.Name(id=name):
                return name in self._varies
            case ast.BinOp(left=left, right=right) if not isinstance(value.op, ast.BitAnd):
                return self._depends(left) or self._depends(right)
            case ast.UnaryOp(operand=operand):
                return self._depends(operand)
            case ast.Call(func=ast.Name(id="where" | "divide"), args=[*_, one, other]):
                return self._depends(one) or self._depends(other)
        return False  # comparisons, masks, hashes, constants

    def _pass_on(self, value: ast.expr, slope: str, kept: tuple[Kept, ...] = ()) -> None:
        """Pass the slope along a value on to what it is made of.

        Args:
            value: An expression.
            slope: The slope along it, as text.
            kept: Masks outside of which (or inside, if false) it is zero. They stay outermost:
                what is not kept may be infinite, and zero times infinity is no number.
        """
        if not self._depends(value):
            return
        match value:
            case ast.Name(id=name):
                for mask, inside in reversed(kept):
                    branches = (slope, "f32(0.0)") if inside else ("f32(0.0)", slope)
                    slope = f"where({mask}, {', '.join(branches)})"
                self.terms[name].append(slope)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                self._pass_on(left, slope, kept)
                self._pass_on(right, slope, kept)
            case ast.BinOp(left=left, op=ast.Sub(), right=right):
                self._pass_on(left, slope, kept)
                self._pass_on(right, f"-({slope})", kept)
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                self._pass_on(left, f"({slope}) * ({ast.unparse(right)})", kept)
                self._pass_on(right, f"({slope}) * ({ast.unparse(left)})", kept)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                self._pass_on(operand, f"-({slope})", kept)
            case ast.Call(func=ast.Name(id="where"), args=[mask, yes, no]):
                self._pass_on(yes, slope, (*kept, (ast.unparse(mask), True)))
                self._pass_on(no, slope, (*kept, (ast.unparse(mask), False)))
            case ast.Call(func=ast.Name(id="divide"), args=[above, below]):
                quotient, divisor = ast.unparse(value), ast.unparse(below)
                self._pass_on(above, f"divide({slope}, {divisor})", kept)
                self._pass_on(below, f"-divide(({slope}) * {quotient}, {divisor})", kept)
            case _:
                raise NotImplementedError(f"no derivative of {ast.unparse(value)}")
