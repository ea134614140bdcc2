"""docs/architectures.md, written of what the sweep found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version

from tests.pages import DOCS
from tests.sweep.configs import LEFT_OUT, TYPES
from tests.sweep.verdict import Verdict

__all__ = ["PAGE", "page_text"]

PAGE = DOCS / "architectures.md"
_HEAD = """\
# Architectures

What transformers {version} has a causal language model for, by `model_type`: {total} types. Of the
{swept} that are a decoder of their own, {works} work, {generically} work generically, and {refused}
are refused. Works means, on a tiny random model with every sort of layer that its type has: base
and two experts, merged with coefficients of their own in every layer, give the same tensors in the
live model, in the exported folder and by plain float64 arithmetic on what transformers loads; and
the folder loads in plain transformers and answers the same. Generically: they merge, but not all
layers have genes of their own.

Attention in a search space is whatever mixes tokens: state spaces, recurrences and convolutions,
too. The parts of a mixture can be [module groups](spaces.md#mixtures-of-experts). Paths are those
through [repeated, moved and left out layers](spaces.md#paths-through-layers). Models that
transformers does not know are merged by the names of their tensors.

This page is generated: `make architectures`, some minutes.

## Works

| type | mixture of experts | paths through layers |
|---|---|---|
"""
_WORDS = {
    "router": "routers",
    "routed_experts": "routed experts",
    "shared_experts": "shared experts",
}


def page_text(found: Sequence[Verdict]) -> str:
    """Write the page.

    Args:
        found: Of every swept type.
    """
    refused = [row for row in found if row.refused]
    generically = [row for row in found if row.layers]
    works = [row for row in found if not (row.refused or row.layers)]
    scored = [row for row in found if row.scoring]
    head = _HEAD.format(
        version=version("transformers"),
        total=len(TYPES) + len(LEFT_OUT),
        swept=len(found),
        works=len(works),
        generically=len(generically),
        refused=len(refused),
    )
    lines = [
        *(f"| `{r.model_type}` | {_parts(r)} | {_cell(r.path) or 'yes'} |" for r in works),
        *_table(
            "Works generically",
            "what is not recognised",
            {r.model_type: r.layers for r in generically},
        ),
        *_table("Refused", "why", {r.model_type: r.refused for r in refused}),
        *_table(
            "Scored otherwise than one by one",
            "what",
            {r.model_type: r.scoring for r in scored},
        ),
        *_table("Not swept", "what it is", LEFT_OUT),
    ]
    return head + "\n".join(lines) + "\n"


def _parts(row: Verdict) -> str:
    return ", ".join(_WORDS[part] for part in _WORDS if part in row.parts)


def _table(title: str, column: str, rows: Mapping[str, str]) -> Iterator[str]:
    if rows:
        yield from ("", f"## {title}", "", f"| type | {column} |", "|---|---|")
        yield from (f"| `{name}` | {_cell(text)} |" for name, text in sorted(rows.items()))


def _cell(text: str) -> str:
    """Put what a program said into a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
