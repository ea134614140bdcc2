"""Samplers that know nothing of paths search them: they find a hidden one."""

from __future__ import annotations

import optuna
import pytest

from evomerge.recipe.path import Hop
from evomerge.samplers import GeneSpace, SearchProblem, build_sampler
from evomerge.space.protocol import SearchSpace
from tests.space.dataflow.spaces import SPACES, space

HIDDEN = ("math", "list", "list", "math", "list", "math")  # whose layer, layer by layer


def likeness(path: tuple[Hop, ...]) -> float:
    """Count the layers that are visited as in the hidden path, less those visited otherwise."""
    right = {(hop.source, hop.layer) for hop in path} & set(zip(HIDDEN, range(6), strict=True))
    return len(right) - 0.5 * (len(path) - len(right))


def best(found: SearchSpace, sampler: str, n_trials: int) -> float:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    genes = GeneSpace(found.distributions, found.defaults, found.depths)
    chosen = build_sampler(
        sampler, {}, SearchProblem(space=genes, n_objectives=1, n_trials=n_trials, seed=0)
    )
    study = optuna.create_study(direction="maximize", sampler=chosen)
    for _ in range(n_trials):
        trial = study.ask()
        study.tell(trial, likeness(found.recipe(found.suggest(trial)).path))
    return study.best_value


@pytest.mark.parametrize("sampler", ["tpe", "pycma"])
@pytest.mark.parametrize("name", ["slots", "permutation", "threshold", "slices"])
def test_a_search_comes_nearer_to_a_hidden_path(name: str, sampler: str) -> None:
    found = space(SPACES[name])
    start = likeness(found.recipe(found.defaults).path)
    assert best(found, sampler, n_trials=60) > start + 1
