"""Data-flow and hybrid spaces over the zoo, and params for them."""

from __future__ import annotations

from typing import Any

import optuna
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from evomerge.runs.parts import build_space
from evomerge.space.protocol import ModelSet, Params, SearchSpace

MODELS = ModelSet("zoo:base", {"math": "zoo:math", "list": "zoo:list"}, n_layers=6)
MERGE = {"method": "task_arithmetic", "genes": {"coefficient": {"range": [0.0, 1.0]}}}
ONE_TO_ONE: dict[str, dict[str, Any]] = {
    "slots": {"kind": "dataflow", "encoding": "slots"},
    "slots of pairs of layers, tight, three sources": {
        "kind": "dataflow",
        "encoding": {"name": "slots", "layers_per_slot": 2},
        "sources": ["math", "base", "list"],
        "max_hops": 7,
    },
    "slots, own choices, owner a gene, no scales": {
        "kind": "dataflow",
        "encoding": {"name": "slots", "choices": ["math", "math>list>math", "skip"]},
        "owner": ["math", "base"],
        "max_hops": 12,
        "scale": None,
    },
    "permutation": {"kind": "dataflow", "encoding": "permutation", "owner": ["list", "math"]},
    "permutation, three sources, scales by position": {
        "kind": "dataflow",
        "encoding": {"name": "permutation", "layers_per_slot": 3},
        "sources": ["list", "math", "base"],
        "max_hops": 11,
        "scale": {"range": [0.25, 4.0], "per": "hop", "limit": 8.0},
    },
    "hybrid": {"kind": "hybrid", "merge": MERGE, "path": {"encoding": "slots"}},
    "hybrid, dropping": {"kind": "hybrid", "merge": MERGE, "path": {"sources": ["merged"]}},
}
MANY_TO_ONE: dict[str, dict[str, Any]] = {
    "threshold": {"kind": "dataflow", "encoding": {"name": "threshold", "repeats": 2}},
    "threshold, tight": {
        "kind": "dataflow",
        "encoding": {"name": "threshold", "repeats": 3},
        "max_hops": 5,
        "scale": {"range": [0.9, 1.3], "per": "hop"},
    },
    "slices": {"kind": "dataflow", "encoding": "slices", "owner": ["math", "list"]},
    "slices, short and tight": {
        "kind": "dataflow",
        "encoding": {"name": "slices", "slices": 6, "longest": 3},
        "max_hops": 9,
    },
    "hybrid, slices": {"kind": "hybrid", "merge": MERGE, "path": {"encoding": "slices"}},
}
SPACES = ONE_TO_ONE | MANY_TO_ONE


def space(content: dict[str, Any], models: ModelSet = MODELS) -> SearchSpace:
    return build_space(content, models)


@st.composite
def params_of(draw: st.DrawFn, found: SearchSpace) -> Params:
    """Draw params as a sampler would, through the space's own conditions."""
    values: dict[str, float | int | str] = {}
    for name, d in found.distributions.items():
        if isinstance(d, CategoricalDistribution):
            values[name] = draw(st.sampled_from(d.choices))  # type: ignore[assignment]
        elif isinstance(d, FloatDistribution):
            values[name] = draw(st.floats(d.low, d.high))
        elif isinstance(d, IntDistribution):
            values[name] = draw(st.integers(d.low, d.high))
    return found.suggest(optuna.trial.FixedTrial(values))  # type: ignore[arg-type]
