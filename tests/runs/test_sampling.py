"""Which sampler a study keeps, by its experiment."""

from __future__ import annotations

from typing import Any

import pytest

from evomerge.config.experiment import BudgetConfig, Experiment, SamplerConfig
from evomerge.runs.sampling import sampler_choice, with_settled_sampler
from evomerge.runs.sloped import SlopedParts
from evomerge.space.protocol import ModelSet
from tests.runs.test_climbs import CONTENT
from tests.space.test_parameter import space

LAYERS = space(
    {
        "method": "task_arithmetic",
        "depth": {"groups": 6},
        "genes": CONTENT["search_space"]["genes"],
    },
    ModelSet("zoo:base", {"math": "zoo:math", "list": "zoo:list"}, n_layers=6),
)
SLOPED = SlopedParts(frozenset(LAYERS.distributions), (None, None))


@pytest.mark.parametrize("budget", [{"trials": 40}, {"trials": 100, "wall_clock": "1h"}])
def test_a_longer_budget_keeps_the_sampler(budget: dict[str, Any]) -> None:
    experiment = Experiment.from_dict({**CONTENT, "sampler": "auto", "budget": budget})
    settled = with_settled_sampler(experiment, LAYERS, SLOPED)
    assert settled.sampler == SamplerConfig(name="slopes")
    assert sampler_choice(experiment, LAYERS, SLOPED)[0] == "slopes"
    longer = settled.model_copy(update={"budget": BudgetConfig(trials=300)})
    assert with_settled_sampler(longer, LAYERS, SLOPED).sampler == settled.sampler
