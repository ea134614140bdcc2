"""Measured rows: kept under ``runs/benchmarks`` as they come, shown as Markdown tables.

A slow benchmark can so be run bit by bit: the latest row of each method counts.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import torch

__all__ = ["Row", "keep", "latest", "layout", "markdown", "setting"]

Row = Mapping[str, float | str | bool]

_FOLDER = Path("runs/benchmarks")


def keep(benchmark: str, row: Row) -> None:
    """Append a row, with the machine and versions it was measured on.

    Args:
        benchmark: Its module in this package; names the file.
        row: Holds at least ``method``.
    """
    _FOLDER.mkdir(parents=True, exist_ok=True)
    with (_FOLDER / f"{benchmark}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({**row, "setting": setting(), "load": os.getloadavg()[0]}) + "\n")


def latest(benchmark: str, methods: Iterable[str]) -> list[Row]:
    """Read the last row of each method, in the order of ``methods``; some may have none."""
    path = _FOLDER / f"{benchmark}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    rows: dict[str, Row] = {row["method"]: row for row in map(json.loads, lines)}
    return [rows[method] for method in methods if method in rows]


def markdown(columns: Sequence[str], cells: Iterable[Sequence[str]], rows: Sequence[Row]) -> str:
    """Lay out a table, with a caption of what the rows were measured on.

    Args:
        columns: Headers.
        cells: One line per row.
        rows: Where the cells come from.
    """
    settings = dict.fromkeys(str(row["setting"]) for row in rows)
    loads = [float(row["load"]) for row in rows]
    caption = (
        f"Measured on {'; '.join(settings)}; load average {min(loads):.1f} to {max(loads):.1f}."
        if rows
        else "Not measured yet."
    )
    return f"{layout(columns, cells)}\n\n{caption}"


def layout(columns: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    """Lay out a table without a caption."""
    lines = [columns, ["---"] * len(columns), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def setting() -> str:
    """Describe machine and versions, without naming the machine."""
    numba = version("numba")
    return (
        f"{_processor()}, {torch.get_num_threads()} threads, Python {platform.python_version()}, "
        f"torch {torch.__version__}, numba {numba}"
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
