"""A plan's structure as the source text of one Triton kernel over many tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from evomerge.kernels.adjoint import Adjoint
from evomerge.kernels.formula import element_source, intervals
from evomerge.kernels.numbers import Each, Shared
from evomerge.kernels.structure import RankedKind, Structure

__all__ = ["buffer_names", "kernel_source", "slope_kernel_source"]


def kernel_source(structure: Structure) -> str:
    """Write the kernel; its arguments are those that ``segments.Segments`` holds."""
    body = [
        *_inputs(structure),
        *element_source(structure),
        f"tl.store(out + position, encode_{structure.out}(merged), mask=inside)",
    ]
    return _function("merge", body)


def slope_kernel_source(structure: Structure) -> str:
    """Write the kernel that sums up slopes along ``Adjoint.names``, block by block.

    Its first argument is ``sums``, (blocks, names) float32; in the place of outputs it reads
    gradients. Outside a tensor these are 0, and so are the slopes.

    Args:
        structure: From ``Structure.of_slopes``.
    """
    adjoint = Adjoint.of(structure)
    body = [
        *_inputs(structure),
        "gradient = tl.load(out + position, mask=inside, other=0.0).to(tl.float32)",
        *adjoint.lines,
        f"sums += block.to(tl.int64) * {len(adjoint.names)}",
    ]
    for k, name in enumerate(adjoint.names):
        body.append(f"inner = tl.where(inside, slope_{name}, 0.0)")
        body.append(f"tl.store(sums + {k}, sum_of_block(inner))")
    return _function("slopes", body, first="sums, ")


def _function(name: str, body: Sequence[str], first: str = "") -> str:
    lines = [
        "@triton.jit",
        f"def {name}({first}tensor_of_block, first_block, sizes, addresses, each, shared, keys,",
        "          BLOCK: tl.constexpr, ALIGNED: tl.constexpr):",
        *["    " + line for line in body],
    ]
    return "\n".join(lines) + "\n"


def buffer_names(structure: Structure) -> tuple[str, ...]:
    """Names of the buffers whose addresses the kernel reads, in their order."""
    experts = (f"expert{i}" for i in range(structure.n_experts))
    return ("out", *(("base",) if structure.base else ()), *experts, *structure.tables)


def _inputs(s: Structure) -> Iterator[str]:
    yield "block = tl.program_id(0)"
    yield "tensor = tl.load(tensor_of_block + block).to(tl.int64)"
    yield "start = (block - tl.load(first_block + tensor)).to(tl.int64) * BLOCK"
    yield "n = tl.load(sizes + tensor * 2)"
    yield "columns = tl.load(sizes + tensor * 2 + 1)"
    yield from _addresses(s)
    yield from _numbers(s)
    yield "if ALIGNED:"
    yield "    n = tl.multiple_of(n, 16)"
    yield "    start = tl.multiple_of(start, 16)"
    for name in buffer_names(s)[: -len(s.tables) or None]:
        yield f"    {name} = tl.multiple_of({name}, 16)"
    yield "position = start + tl.arange(0, BLOCK)"
    yield "inside = position < n"
    yield "index = position.to(tl.uint32)"
    yield from _rows(s)
    if s.base:
        yield "theta = tl.load(base + position, mask=inside, other=0.0).to(tl.float32)"
    for i in range(s.n_experts):
        yield f"e{i} = tl.load(expert{i} + position, mask=inside, other=0.0).to(tl.float32)"


def _addresses(s: Structure) -> Iterator[str]:
    names = buffer_names(s)
    kinds = [s.out, *([s.base] if s.base else []), *s.experts]
    kinds += ["float32"] * len(s.tables)
    for k, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        address = f"tl.load(addresses + tensor * {len(names)} + {k})"
        yield f"{name} = {address}.to(tl.pointer_type(tl.{kind}))"


def _numbers(s: Structure) -> Iterator[str]:
    for position in Shared:
        name = position.name.lower()
        yield f"{name} = tl.load(shared + tensor * {len(Shared)} + {position})"
    for i in range(s.n_experts):
        row = f"(tensor * {s.n_experts} + {i})"
        for column in Each:
            yield f"{column.name.lower()}{i} = tl.load(each + {row} * {len(Each)} + {column})"
        yield f"key{i} = tl.load(keys + {row} * 3).to(tl.uint32)"
        yield f"salt{i} = high_word_salt(tl.load(keys + {row} * 3 + 1), start)"
        yield f"bound{i} = tl.load(keys + {row} * 3 + 2).to(tl.uint32)"


def _rows(s: Structure) -> Iterator[str]:
    """The numbers that differ between rows or columns, one per element."""
    if not s.has_rows:
        return
    yield "row = position // columns"
    yield "column = position - row * columns"
    for i, what in enumerate(s.sparse):
        if what == "row_band":
            yield f"low{i} = {_load(f'lows{i} + row')}"
            yield f"high{i} = {_load(f'highs{i} + row')}"
        if isinstance(what, RankedKind):
            yield from _knots(i, what.knots)
        if s.row_scale[i]:
            yield f"row{i} = {_load(f'rows{i} + row')}"
        if s.column_scale[i]:
            yield f"column{i} = {_load(f'columns{i} + column')}"


def _knots(i: int, knots: int) -> Iterator[str]:
    for k in range(knots):
        yield f"at_{k} = {_load(f'knots{i} + row * {knots} + {k}')}"
    for k in range(intervals(knots)):
        if k < knots - 1:
            yield f"knot{i}_{k} = at_{k}"
            yield f"inverse{i}_{k} = inverse_span(at_{k}, at_{k + 1})"
        else:
            yield f"knot{i}_{k} = f32(float('inf'))"  # padding that no magnitude reaches
            yield f"inverse{i}_{k} = f32(0.0)"


def _load(pointer: str) -> str:
    return f"tl.load({pointer}, mask=inside, other=0.0)"
