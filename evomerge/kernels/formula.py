"""The formula of one element as source text, the same for every compiled kernel.

Operations and their order are those of the eager kernel. The text is plain Python over the helpers
``where``, ``magnitude``, ``divide``, ``f32``, ``as_float`` and ``hash24``, which each kernel
supplies. For each expert i it reads ``e{i}`` and the numbers its structure needs; it ends by
setting ``merged``.
"""

from __future__ import annotations

from collections.abc import Iterator

from evomerge.kernels.masks import MASK_BITS
from evomerge.kernels.plan import (
    Agree,
    Conflict,
    Consensus,
    Elect,
    Largest,
    Sum,
    UniqueShared,
    Variance,
)
from evomerge.kernels.structure import RankedKind, Structure

__all__ = ["element_source", "intervals"]


def element_source(structure: Structure) -> list[str]:
    """Write the statements that merge one element.

    Args:
        structure: Supported by compiled kernels (``structure.is_supported``).

    Returns:
        One statement per line. Names read: ``theta`` (the base, if read), ``e{i}``; per expert
        ``coefficient{i}``, ``mixing{i}``, ``low{i}``, ``high{i}``, ``ratio{i}``, ``unique{i}``,
        ``row{i}``, ``column{i}``, ``key{i}``, ``salt{i}``, ``bound{i}``, and for each interval k
        between knots ``knot{i}_{k}``, ``inverse{i}_{k}``; shared ``base_coefficient``, ``offset``,
        ``scale``, ``gate``; ``index`` (the low word of the element's index).
    """
    return list(_statements(structure))


def intervals(knots: int) -> int:
    """Number of intervals between knots, rounded up to a power of two."""
    return 1 << (knots - 2).bit_length()


def _statements(s: Structure) -> Iterator[str]:
    each = range(s.n_experts)
    for i in each:
        yield f"t{i} = e{i} - theta" if s.delta else f"t{i} = e{i}"
    masks: list[str | None] = []
    for i in each:
        yield from _sparsify(s, i)
        masks.append(None if s.sparse[i] in (None, "clamp") else f"m{i}")
    yield from _gate(s, masks)
    if s.gate is not None:
        masks = ["open" if mask is None else f"({mask} & open)" for mask in masks]
    for i in each:
        yield f"x{i} = {_where(masks[i], f'{_factor(s, i)} * v{i}')}"
    yield from _combine(s, masks)
    if s.normalizes:
        taking_part = [f"a{i}" for i in each] if s.combine is Elect else masks
        yield f"divisor = {_sum(_where(m, f'mixing{i}') for i, m in enumerate(taking_part))}"
        yield "divisor = where(magnitude(divisor) < f32(1e-8), f32(1.0), divisor)"
        yield "merged = divide(merged, divisor)"
    yield "merged = merged * scale"
    if s.adds_base:
        yield "merged = base_coefficient * theta + merged"
    if s.adds_offset:
        yield "merged = merged + offset"


def _sum(terms: Iterator[str] | list[str]) -> str:
    return " + ".join(terms)  # Python adds from the left: recipe order


def _where(mask: str | None, value: str) -> str:
    return value if mask is None else f"where({mask}, {value}, f32(0.0))"


def _factor(s: Structure, i: int) -> str:
    row = f" * row{i}" if s.row_scale[i] else ""
    column = f" * column{i}" if s.column_scale[i] else ""
    return f"coefficient{i}{row}{column}"


def _sparsify(s: Structure, i: int) -> Iterator[str]:
    """Set the mask m{i}, if there is one, and the values v{i} that it keeps."""
    match s.sparse[i]:
        case "above":
            yield f"m{i} = magnitude(t{i}) >= low{i}"
            yield f"v{i} = t{i}"
        case "band" | "row_band":
            yield f"m{i} = (magnitude(t{i}) >= low{i}) & (magnitude(t{i}) <= high{i})"
            yield f"v{i} = t{i}"
        case "random":
            yield f"m{i} = hash24(index, key{i}, salt{i}) < bound{i}"
            yield f"v{i} = t{i}"
        case "clamp":
            yield f"v{i} = where(t{i} > low{i}, low{i}, where(t{i} < -low{i}, -low{i}, t{i}))"
        case RankedKind(knots=knots, rescale=rescale):
            yield from _rank(i, knots)
            yield f"p{i} = low{i} + high{i} * rank"
            drawn = f"as_float(hash24(index, key{i}, salt{i}))"
            yield f"m{i} = {drawn} < p{i} * f32({1 << MASK_BITS}.0)"
            yield f"v{i} = divide(t{i}, p{i})" if rescale else f"v{i} = t{i}"
        case None:
            yield f"v{i} = t{i}"


def _rank(i: int, knots: int) -> Iterator[str]:
    """Halve the intervals between knots until one is left: selections only."""
    count = intervals(knots)
    knot = [f"knot{i}_{k}" for k in range(count)]
    inverse = [f"inverse{i}_{k}" for k in range(count)]
    yield "rank = f32(0.0)"
    while count > 1:
        count //= 2
        yield f"above = magnitude(t{i}) >= {knot[count]}"
        yield f"rank = rank + where(above, f32({count}.0), f32(0.0))"
        for k in range(count):
            yield f"knot_{count}_{k} = where(above, {knot[k + count]}, {knot[k]})"
            yield f"inverse_{count}_{k} = where(above, {inverse[k + count]}, {inverse[k]})"
        knot = [f"knot_{count}_{k}" for k in range(count)]
        inverse = [f"inverse_{count}_{k}" for k in range(count)]
    yield f"within = (magnitude(t{i}) - {knot[0]}) * {inverse[0]}"
    yield "within = where(within < f32(0.0), f32(0.0), within)"
    yield "within = where(within > f32(1.0), f32(1.0), within)"
    yield f"rank = (rank + within) * f32({1 / (knots - 1)!r})"


def _gate(s: Structure, masks: list[str | None]) -> Iterator[str]:
    n = s.n_experts
    each = range(n)
    if s.gate is Variance:
        yield f"mean = ({_sum(f't{i}' for i in each)}) * f32({1 / n!r})"
        yield f"squares = {_sum(f'(t{i} - mean) * (t{i} - mean)' for i in each)}"
        yield f"open = squares * f32({1 / max(n - 1, 1)!r}) >= gate"
    if s.gate is Conflict:
        yield "seen = f32(0.0)"
        yield "pairs = f32(0.0)"
        for i in each:
            yield f"pairs = pairs + magnitude(t{i}) * seen"
            yield f"seen = seen + magnitude(t{i})"
        yield "open = f32(2.0) * pairs <= gate"
    if s.gate is Consensus:
        for i in each:
            yield f"x{i} = {_where(masks[i], f'{_factor(s, i)} * v{i}')}"
        yield f"total = {_sum(f'x{i}' for i in each)}"
        agree = (f"magnitude(x{i}) >= ratio{i} * magnitude(total - x{i})" for i in each)
        yield f"open = {_count(agree)} >= gate"


def _count(masks: Iterator[str]) -> str:
    return _sum(f"where({mask}, f32(1.0), f32(0.0))" for mask in masks)


def _combine(s: Structure, masks: list[str | None]) -> Iterator[str]:
    each = range(s.n_experts)
    x = [f"x{i}" for i in each]
    if s.combine is Sum:
        yield f"merged = {_sum(x)}"
    if s.combine is Elect:
        yield from _elect(s, masks)
        for i in each:
            yield f"a{i} = x{i} * elected > f32(0.0)"
        yield f"merged = {_sum(_where(f'a{i}', f'x{i}') for i in each)}"
    if s.combine is Largest:
        yield "merged = x0"
        for i in each[1:]:
            yield f"merged = where(magnitude(x{i}) >= magnitude(merged), x{i}, merged)"
    if s.combine is Agree:
        yield from _elect(s, masks)
        yield "merged = f32(0.0)"
        for i in each:
            yield f"merged = where(x{i} * elected > merged, x{i} * elected, merged)"
        yield "merged = merged * elected"
    if s.combine is UniqueShared:
        ones = (_where(mask, "f32(1.0)") for mask in masks)
        yield f"owners = {_sum(ones)}"
        yield f"alone = {_sum(f'unique{i} * x{i}' for i in each)}"
        yield "owned = where(owners < f32(1.0), f32(1.0), owners)"
        yield f"mean = divide({_sum(x)}, owned)"
        yield "merged = where(owners == f32(1.0), alone, mean)"


def _elect(s: Structure, masks: list[str | None]) -> Iterator[str]:
    each = range(s.n_experts)
    ballots = [f"x{i}" for i in each]
    if s.vote == "unweighted":
        ballots = [_where(masks[i], f"v{i}") for i in each]
    if s.vote == "count":
        ballots = [_sign(x, zero=0) for x in ballots]
    yield f"vote = {_sum(ballots)}"
    yield f"elected = {_sign('vote', s.zero)}"


def _sign(x: str, zero: int) -> str:
    if zero == 0:
        return f"where({x} > f32(0.0), f32(1.0), where({x} < f32(0.0), f32(-1.0), f32(0.0)))"
    return f"where({x} {'>=' if zero > 0 else '>'} f32(0.0), f32(1.0), f32(-1.0))"
