"""What can be wrong with a parameter space."""

from __future__ import annotations

import pytest

from evomerge.errors import SpaceError
from evomerge.space.parameter import ParameterSpace
from evomerge.space.protocol import ModelSet
from evomerge.space.spec import Gene, ParameterSpec

MODELS = ModelSet("zoo:base", {"a": "zoo:math"}, n_layers=6)


def test_a_name_with_a_colon_is_no_parameter_of_a_method() -> None:
    genes = {"coefficient": Gene(), "coefficien:t": Gene()}
    spec = ParameterSpec("task_arithmetic", genes=genes, fixed={"den:sity": 0.5})
    with pytest.raises(SpaceError) as error:
        ParameterSpace(spec, MODELS)
    assert "genes.coefficien:t: no method here (task_arithmetic) has it; did you" in str(
        error.value
    )
    assert "fixed.den:sity: no method here (task_arithmetic) has it" in str(error.value)


def test_what_is_prepared_anew_for_each_value_is_no_gene() -> None:
    spec = ParameterSpec("tsv_m", genes={"rank_share": Gene(range=(0.1, 1.0))})
    with pytest.raises(SpaceError, match=r"genes\.rank_share: each value is matrix algebra.*fixed"):
        ParameterSpace(spec, MODELS)
    fixed = ParameterSpec("tsv_m", genes={"coefficient": Gene()}, fixed={"rank_share": 0.5})
    assert ParameterSpace(fixed, MODELS).statistics == ('prepared tsv_m {"rank_share":0.5}',)
