"""A plan's structure as the source text of one loop, experts unrolled, without branches.

LLVM vectorises such a loop over the elements. Numbers of the plan are read once, before the loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from evomerge.kernels.adjoint import Adjoint
from evomerge.kernels.formula import element_source, intervals
from evomerge.kernels.numbers import Each, Shared
from evomerge.kernels.structure import RankedKind, Structure

__all__ = ["loop_source", "slope_loop_source"]

_TILE = 1 << 12  # elements whose slopes are summed up in float32


def loop_source(structure: Structure) -> str:
    """Write the function ``merge(start, stop, columns, each, shared, keys, out, ...)``.

    It merges the elements from start to stop, which must not straddle a multiple of 2**32. After
    ``out`` come the base (if read), the experts and the tables, all flat.
    """
    streams = ["out", *_inputs(structure)]
    lines = [
        _signature("merge", structure, streams),
        *_indent(1, _numbers(structure)),
        "    while start < stop:",
        *_indent(2, _row(structure, "stop")),
        *[f"        {name}_part = {name}[start:end]" for name in streams],
        "        low_index = u32(start)",
        "        for j in range(out_part.size):",
        *_indent(3, _element(structure)),
        *_indent(3, element_source(structure)),
        f"            out_part[j] = encode_{structure.out}(merged)",
        "        start = end",
    ]
    return "\n".join(lines) + "\n"


def slope_loop_source(structure: Structure) -> str:
    """Write the function ``slopes(start, stop, columns, each, shared, keys, sums, along, ...)``.

    It adds to ``sums``, float64, the slopes along ``Adjoint.names`` over the elements from start to
    stop, which must not straddle a multiple of 2**32. Products are float32; so are the sums over a
    tile, whose ends depend on nothing but the elements' positions. What comes after ``along``, the
    gradient, is what comes after ``out`` in ``loop_source``.

    Args:
        structure: From ``Structure.of_slopes``.
    """
    adjoint, streams = Adjoint.of(structure), ["along", *_inputs(structure)]
    lines = [
        _signature("slopes", structure, ["sums", *streams]),
        *_indent(1, _numbers(structure)),
        "    while start < stop:",
        f"        tile = min(stop, (start // {_TILE} + 1) * {_TILE})",
        *_indent(2, _row(structure, "tile")),
        *[f"        {name}_part = {name}[start:end]" for name in streams],
        "        low_index = u32(start)",
        *[f"        sum_{name} = f32(0.0)" for name in adjoint.names],
        "        for j in range(along_part.size):",
        *_indent(3, _element(structure)),
        f"            gradient = decode_{structure.out}(along_part[j])",
        *_indent(3, adjoint.lines),
        *[f"            sum_{name} = add(sum_{name}, slope_{name})" for name in adjoint.names],
        *[f"        sums[{k}] += sum_{name}" for k, name in enumerate(adjoint.names)],
        "        start = end",
    ]
    return "\n".join(lines) + "\n"


def _signature(name: str, s: Structure, streams: Sequence[str]) -> str:
    parameters = ["start", "stop", "columns", "each", "shared", "keys", *streams, *s.tables]
    return f"def {name}({', '.join(parameters)}):"


def _inputs(s: Structure) -> list[str]:
    return [*(["base"] if s.base else []), *[f"expert{i}" for i in range(s.n_experts)]]


def _indent(depth: int, lines: Iterable[str]) -> list[str]:
    return ["    " * depth + line for line in lines]


def _numbers(s: Structure) -> Iterator[str]:
    for position in Shared:
        yield f"{position.name.lower()} = shared[{position}]"
    for i in range(s.n_experts):
        for column in Each:
            yield f"{column.name.lower()}{i} = each[{i}, {column}]"
        yield f"key{i} = keys[{i}, 0]"
        yield f"salt{i} = high_word_salt(keys[{i}, 1], start)"
        yield f"bound{i} = keys[{i}, 2]"


def _row(s: Structure, limit: str) -> Iterator[str]:
    """The end of the run of elements that share a row, and the numbers of that row."""
    if not s.has_rows:
        yield f"end = {limit}"
        return
    yield "row = start // columns"
    yield f"end = min({limit}, (row + 1) * columns)"
    for i, what in enumerate(s.sparse):
        if what == "row_band":
            yield f"low{i} = lows{i}[row]"
            yield f"high{i} = highs{i}[row]"
        if isinstance(what, RankedKind):
            yield from _knots(i, what.knots)
        if s.row_scale[i]:
            yield f"row{i} = rows{i}[row]"
        if s.column_scale[i]:
            yield f"columns{i}_part = columns{i}[start - row * columns : end - row * columns]"


def _knots(i: int, knots: int) -> Iterator[str]:
    yield f"first = row * {knots}"
    for k in range(intervals(knots)):
        if k < knots - 1:
            yield f"knot{i}_{k} = knots{i}[first + {k}]"
            yield f"inverse{i}_{k} = inverse_span(knot{i}_{k}, knots{i}[first + {k + 1}])"
        else:
            yield f"knot{i}_{k} = f32(np.inf)"  # padding that no magnitude reaches
            yield f"inverse{i}_{k} = f32(0.0)"


def _element(s: Structure) -> Iterator[str]:
    if any(what == "random" or isinstance(what, RankedKind) for what in s.sparse):
        yield "index = u32(low_index + u32(j))"
    if s.base:
        yield f"theta = decode_{s.base}(base_part[j])"
    for i in range(s.n_experts):
        yield f"e{i} = decode_{s.experts[i]}(expert{i}_part[j])"
        if s.column_scale[i]:
            yield f"column{i} = columns{i}_part[j]"
