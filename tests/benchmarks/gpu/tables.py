"""What ``make gpu`` found, for the terminal and as Markdown for ``docs/gpu.md``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tests.benchmarks.gpu.findings import Finding
from tests.benchmarks.gpu.phases import PHASES
from tests.benchmarks.gpu.running import PhaseResult

__all__ = ["markdown_table", "phase_lines", "summary"]

_VERDICT = {True: "yes", False: "NO", None: ""}


def phase_lines(result: PhaseResult) -> Iterator[str]:
    """Lay out one phase for the terminal."""
    yield f"\n{result.name}: {result.state}, {result.seconds:.0f} s"
    for finding in result.findings:
        value, wanted = _value(finding), finding.wanted
        line = f"  {finding.what:<64} {value:>14}  {wanted:<14} {_VERDICT[finding.is_right]}"
        yield line.rstrip()
        if finding.note:
            yield f"      {finding.note}"


def summary(results: Sequence[PhaseResult]) -> str:
    """Say in a line what failed, and what was not run."""
    failed = ", ".join(result.name for result in results if result.has_failed)
    left = ", ".join(f"{r.name} ({r.state})" for r in results if not r.was_begun)
    return f"failed: {failed or 'nothing'}" + (f"; not run: {left}" if left else "")


def markdown_table(about: dict[str, Any] | None, results: Sequence[PhaseResult]) -> str:
    """Lay out a run on a GPU, with what has never run; ``None``: no run at all."""
    ran = {result.name for result in results if result.was_begun} if about else set()
    lines = ["| phase | what | found | wanted | met |", "| --- | --- | --- | --- | --- |"]
    for result in results:
        cells = [[f.what, _value(f), f.wanted, _VERDICT[f.is_right]] for f in result.findings]
        if result.state != "done":
            cells.append([result.state, "", "", ""])
        lines += [f"| {' | '.join([result.name, *row])} |" for row in cells]
    if about:
        lines += ["", f"{about['date']}, {_machine(about['machine'])}."]
    never = [f"- `{p.name}`: {p.title}" for p in PHASES if p.name not in ran]
    head = [] if results else ["Nothing was measured yet."]
    tail = ["", "Has never run on a GPU:", "", *never] if never else []
    return "\n".join([*(head or lines), *tail])


def _machine(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items() if v)
    return f"{machine.get('gpu', 'no GPU')}, {machine['cores']} cores; {versions}"


def _value(finding: Finding) -> str:
    return f"{finding.value:.4g} {finding.unit}".strip()
