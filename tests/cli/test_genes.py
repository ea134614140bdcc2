"""Genes as rows: nothing is left out, however many stand in one row."""

from __future__ import annotations

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.cli.genes import gene_rows, name_pattern
from evomerge.space.protocol import GeneInfo

AXES = st.one_of(
    st.integers(1, 12).map(lambda n: [str(i) for i in range(n)]),
    st.lists(st.sampled_from(["attention", "mlp", "other", "math"]), min_size=1, unique=True),
)


def expand(pattern: str) -> list[str]:
    """Write out the braces of a pattern again."""
    axes = []
    for part in re.findall(r"\{([^}]*)\}|([^.{}]+)", pattern):
        braces, plain = part
        first, dash, last = braces.partition("-")
        numbers = [str(i) for i in range(int(first), int(last) + 1)] if dash else []
        axes.append(numbers or braces.split(", ") if braces else [plain])
    return [".".join(names) for names in product(*axes)]


@given(st.lists(AXES, min_size=1, max_size=3))
def test_a_pattern_stands_for_exactly_its_names(axes: list[list[str]]) -> None:
    names = [".".join(("gene", *parts)) for parts in product(*axes)]
    assert expand(name_pattern(names)) == names


def test_names_that_are_no_grid_become_first_and_last() -> None:
    assert name_pattern(["a.0", "a.1.x", "a.2"]) == "a.0 … a.2"
    assert name_pattern(["a.0.x", "a.1.y", "a.1.z"]) == "a.0.x … a.1.z"


@pytest.mark.parametrize(("count", "rows"), [(2, 3), (30, 2)])
def test_only_many_genes_share_rows(count: int, rows: int) -> None:
    genes = [
        GeneInfo(f"density.{i}", "0 to 1", 0.5 + i % 2, f"layer {i}: share") for i in range(count)
    ]
    found = list(gene_rows([*genes, GeneInfo("lambda", "0 to 2", 1.0, "scale")]))
    assert len(found) == rows
    assert found[-1] == ("lambda", "0 to 2", "1", "scale")
    if count == 30:
        assert found[0] == (
            "density.{0-29}",
            "0 to 1",
            "0.5 or 1.5",
            "30 genes, the first: layer 0: share",
        )
