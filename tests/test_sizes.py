"""docs/sizes.md says what ``check`` would."""

from __future__ import annotations

import math

import pytest
import torch

from evomerge.models.outline import model_outline
from tests.pages import DOCS
from tests.sizes import MODELS, rows

PUBLISHED = {"1.5B": 1.54e9, "7B": 7.61e9, "32B": 32.5e9, "70B": 70.6e9}  # on their model cards


def test_the_table_is_that_of_the_formulas() -> None:
    page = (DOCS / "sizes.md").read_text(encoding="utf-8")
    assert all(row in page for row in rows())


@pytest.mark.parametrize("name", MODELS)
def test_the_models_are_as_large_as_published(name: str) -> None:
    model = model_outline(MODELS[name].config(), torch.bfloat16)
    assert model is not None
    size = sum(parameter.nbytes for parameter in model.parameters()) / 2
    assert math.isclose(size, PUBLISHED[name.split(maxsplit=1)[0]], rel_tol=0.01)
