"""Bayesian optimisation as BoTorch does it, beside our samplers; needs ``pip install botorch``.

A Gaussian process per objective with BoTorch's own priors, which are scaled by the dimension; the
next candidate is the best one for qLogNEHVI, or for qLogNEI of one objective.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from evomerge.errors import SpaceError
from evomerge.samplers import GeneSpace
from evomerge.samplers.unit_cube import UnitCube
from evomerge.seeds import seed_for
from evomerge.space.protocol import Params

__all__ = ["BOTORCH", "bayes", "is_installed"]

BOTORCH = "botorch"

_STARTUP = 10  # trials, the parents among them, before the first model: as our `gp`
_SAMPLES = 64  # of the acquisition
_RESTARTS, _RAW, _STEPS = 2, 64, 60  # of its ascent
_FIT_STEPS = 50  # of a model: the default takes ten times as long

FloatArray = NDArray[np.float64]


def is_installed() -> bool:
    """Tell whether BoTorch is there; it is no dependency."""
    return find_spec("botorch") is not None


def bayes(
    genes: GeneSpace,
    parents: Sequence[Params],
    score: Callable[[Params], Sequence[float]],
    trials: int,
    seed: int,
) -> None:
    """Search by Bayesian optimisation, one candidate at a time.

    Args:
        genes: What may vary.
        parents: Scored first.
        score: Returns the objectives, larger is better; empty if it was given up.
        trials: Candidates in all.
        seed: Of the search.

    Raises:
        SpaceError: BoTorch is not installed.
    """
    if not is_installed():
        raise SpaceError("expected botorch, which is not installed; `pip install botorch`")
    cube = UnitCube(genes.searched)
    rng = np.random.default_rng(seed_for(seed, "bayes"))
    points: list[FloatArray] = []
    values: list[Sequence[float]] = []
    for number in range(trials):
        if number < len(parents):
            point = cube.encode(genes.complete(parents[number]))
        elif len(points) < _STARTUP:
            point = rng.random(cube.dimension)
        else:
            known = np.array(points), np.array(values)
            point = _best_candidate(*known, len(parents), seed_for(seed, "ask", number))
        (point,) = cube.snap(point[None])
        scored = score(genes.complete(cube.decode(point)))
        if len(scored):
            points.append(point)
            values.append(scored)


def _best_candidate(
    points: FloatArray, values: FloatArray, n_parents: int, seed: int
) -> FloatArray:
    """Return the most promising point (axes,) after points (n, axes) with values (n, objectives).

    Hypervolumes are measured from the worst parent; the parents come first.
    """
    import torch
    from botorch.acquisition.logei import qLogNoisyExpectedImprovement
    from botorch.acquisition.multi_objective import logei
    from botorch.optim import optimize_acqf
    from botorch.sampling import SobolQMCNormalSampler

    logei._load_attempted = True  # else it compiles C++ with what compiler there is
    torch.manual_seed(seed % 2**63)
    known = torch.tensor(points)
    sampler = SobolQMCNormalSampler(torch.Size([_SAMPLES]), seed=seed % 2**31)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on fits that are tried again
        model = _fitted(known, torch.tensor(values))
        if values.shape[1] == 1:
            promise = qLogNoisyExpectedImprovement(model, known, sampler, prune_baseline=True)
        else:
            low = values[:n_parents].min(axis=0).tolist()
            promise = logei.qLogNoisyExpectedHypervolumeImprovement(
                model, low, known, sampler, prune_baseline=True
            )
        cube = torch.stack([torch.zeros(points.shape[1]), torch.ones(points.shape[1])]).double()
        found, _ = optimize_acqf(
            promise, cube, 1, _RESTARTS, _RAW, options={"maxiter": _STEPS, "batch_limit": _RESTARTS}
        )
    return np.asarray(found[0].numpy())


def _fitted(points, values):  # type: ignore[no-untyped-def]
    """Fit one Gaussian process per objective; tensors in, model out."""
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import ModelListGP, SingleTaskGP
    from gpytorch.mlls import ExactMarginalLogLikelihood

    models = [SingleTaskGP(points, values[:, [i]]) for i in range(values.shape[1])]
    for one in models:
        likelihood = ExactMarginalLogLikelihood(one.likelihood, one)
        fit_gpytorch_mll(likelihood, optimizer_kwargs={"options": {"maxiter": _FIT_STEPS}})
    return models[0] if len(models) == 1 else ModelListGP(*models)
