"""The formula's source text, run by numpy: what compiled kernels compute, without compiling."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import assume, given, settings

from evomerge.kernels.eager import merge_eager
from evomerge.kernels.formula import element_source, intervals
from evomerge.kernels.masks import hash24
from evomerge.kernels.numbers import Each, Numbers, Shared
from evomerge.kernels.structure import RankedKind, Structure, is_supported
from tests.kernels.comparing import same_bytes
from tests.kernels.plans import Case, cases

Names = dict[str, object]


def run_in_numpy(case: Case) -> torch.Tensor:
    structure = Structure.of(case.job())
    with np.errstate(all="ignore"):
        names = {**helpers(case), **inputs(case), **numbers(case, structure)}
        exec("\n".join(element_source(structure)), names)
    merged = np.broadcast_to(names["merged"], (case.experts[0].numel(),))  # type: ignore[call-overload]
    return torch.from_numpy(merged.copy()).to(case.out_dtype).reshape(case.experts[0].shape)


def helpers(case: Case) -> Names:
    index = np.arange(case.experts[0].numel(), dtype=np.uint64)
    return {
        "where": np.where,
        "magnitude": np.abs,
        "divide": np.divide,
        "f32": np.float32,
        "as_float": np.float32,
        "index": index,
        "hash24": lambda at, key, salt: hash24(int(key) + (int(salt) << 32), at),
    }


def inputs(case: Case) -> Names:
    names: Names = {f"e{i}": e.float().reshape(-1).numpy() for i, e in enumerate(case.experts)}
    if case.base is not None:
        names["theta"] = case.base.float().reshape(-1).numpy()
    return names


def numbers(case: Case, structure: Structure) -> Names:
    laid_out = Numbers.of(case.plan)
    shape = case.experts[0].shape
    columns = shape[-1] if shape else 1
    index = np.arange(case.experts[0].numel())
    row, column = index // columns, index % columns
    tables = dict(zip(structure.tables, laid_out.tables, strict=True))
    names: Names = {p.name.lower(): laid_out.shared[p] for p in Shared}
    for i, what in enumerate(structure.sparse):
        names |= {f"{c.name.lower()}{i}": laid_out.each[i, c] for c in Each}
        names |= dict(zip((f"key{i}", f"salt{i}", f"bound{i}"), laid_out.keys[i], strict=True))
        if what == "row_band":
            names |= {f"low{i}": tables[f"lows{i}"][row], f"high{i}": tables[f"highs{i}"][row]}
        if isinstance(what, RankedKind):
            names |= knots(i, what, tables[f"knots{i}"].reshape(-1, what.knots)[row])
        if structure.row_scale[i]:
            names[f"row{i}"] = tables[f"rows{i}"][row]
        if structure.column_scale[i]:
            names[f"column{i}"] = tables[f"columns{i}"][column]
    return names


def knots(i: int, what: RankedKind, at: np.ndarray) -> Names:
    names: Names = {}
    for k in range(intervals(what.knots)):
        inside = k < what.knots - 1
        span = at[:, k + 1] - at[:, k] if inside else np.ones(1, np.float32)
        inverse = np.where(span > 0, np.float32(1) / span, np.float32(1))
        names[f"knot{i}_{k}"] = at[:, k] if inside else np.float32(np.inf)
        names[f"inverse{i}_{k}"] = inverse
    return names


@settings(max_examples=200, deadline=None)
@given(case=cases())
def test_has_the_bytes_of_eager_on_any_plan(case: Case) -> None:
    assume(is_supported(case.job()))
    expected = case.buffer()
    merge_eager(case.plan, case.base, case.experts, expected)
    assert same_bytes(run_in_numpy(case), expected)
