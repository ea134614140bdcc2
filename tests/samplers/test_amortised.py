from __future__ import annotations

import numpy as np
import pytest

from evomerge.samplers.genetic import nsga2, ranks
from evomerge.samplers.surrogate import _KERNELS, _left_out_error, fit_surrogates
from tests.samplers.searches import floats, new_study, run_one_by_one, sampler_for
from tests.samplers.test_pycma import minimise, sphere

NOTHING = np.empty((0, 3))


@pytest.mark.parametrize("kind", ["linear", "diagonal", "full"])
def test_the_error_of_leaving_out_chooses_the_polynomial_that_made_the_data(kind):
    points = np.random.default_rng(0).random((60, 3))
    x, y, z = (2 * points - 1).T
    values = {"linear": x - 2 * y, "diagonal": x - 2 * y**2, "full": x * y + z}[kind]
    (model,) = fit_surrogates(points, ((values - values.mean()) / values.std())[:, None], NOTHING)
    assert model.kind == kind or model.error < 1e-6
    assert model.error < 1e-3
    fresh = np.random.default_rng(1).random((20, 3))
    a, b, c = (2 * fresh - 1).T
    wanted = {"linear": a - 2 * b, "diagonal": a - 2 * b**2, "full": a * b + c}[kind]
    mean, _ = model.predict(fresh)
    assert np.allclose(mean, (wanted - values.mean()) / values.std(), atol=0.1)


def test_the_left_out_error_is_that_of_leaving_out():
    rng = np.random.default_rng(0)
    points, values = rng.random((12, 3)), rng.standard_normal((12, 1))
    (model,) = fit_surrogates(points, values, NOTHING)
    signed = 2 * points - 1
    shared = signed @ signed.T / 3
    more = {"linear": 0, "diagonal": signed**2 @ (signed**2).T / 3, "full": shared**2}[model.kind]
    kernel = 1 + shared + more
    errors = []
    for i in range(12):
        keep = np.arange(12) != i
        inner = kernel[np.ix_(keep, keep)] + model.ridge * np.eye(11)
        errors.append(values[i, 0] - kernel[i, keep] @ np.linalg.solve(inner, values[keep, 0]))
    assert np.isclose(model.error, np.mean(np.square(errors)))


def test_a_model_is_surer_where_a_trial_is_running():
    rng = np.random.default_rng(0)
    points, values = rng.random((8, 3)), rng.standard_normal((8, 1))
    spot = np.array([[0.9, 0.1, 0.9]])
    (before,) = fit_surrogates(points, values, NOTHING)
    (after,) = fit_surrogates(points, values, spot)
    assert after.predict(spot)[1] < before.predict(spot)[1]
    assert np.allclose(after.predict(spot)[0], before.predict(spot)[0])


def test_ranks_count_fronts_and_put_infeasible_points_last_by_violation():
    losses = np.array([[0, 1], [1, 0], [1, 1], [2, 2], [-9, -9], [-9, -8]], dtype=float)
    violations = np.array([0, 0, 0, 0, 2.0, 1.0])
    assert ranks(losses, violations).tolist() == [0, 0, 1, 2, 4, 3]


def test_nsga2_finds_the_front_between_two_optima():
    def evaluate(points):
        losses = [((points - target) ** 2).sum(axis=1) for target in (0.2, 0.8)]
        return np.column_stack(losses), np.zeros(len(points))

    rng = np.random.default_rng(0)
    points, losses = nsga2(evaluate, rng.random((40, 5)), rng, generations=60)
    assert len(points) > 20
    assert np.abs(points - points.mean(axis=1, keepdims=True)).mean() < 0.06  # on the diagonal
    assert losses.min() < 0.05


def test_map_beats_chance_by_far_on_a_sphere():
    best = [
        minimise(n, floats(8), sphere, seed=1, n_trials=40).best_value for n in ("map", "random")
    ]
    assert best[0] < best[1] / 5


def test_map_keeps_to_the_constraints_it_has_seen():
    def feasible(name):
        study = new_study(sampler_for(name, 1, constrained=True), 1)
        run_one_by_one(study, 50, constrained=True)
        return sum(max(t.user_attrs["constraints"]) <= 0 for t in study.trials[20:])

    assert feasible("map") > feasible("random") + 5


def test_values_that_were_predicted_count_the_less_the_less_sure_they_are():
    generator = np.random.default_rng(0)
    points = generator.random((40, 3))
    truth = 2 * points[:, 0] - points[:, 1]
    off = np.where(np.arange(40) < 20, truth, truth + generator.normal(0, 2, 40))[:, None]
    unsure = np.where(np.arange(40) < 20, 0.0, 4.0)[:, None]
    new = generator.random((50, 3))

    def miss(variances: np.ndarray | None) -> float:
        (model,) = fit_surrogates(points, off, NOTHING, variances)
        return float(np.mean((model.predict(new)[0] - 2 * new[:, 0] + new[:, 1]) ** 2))

    assert miss(unsure) < 0.1 * miss(None)
    assert miss(np.zeros((40, 1))) == miss(None)


def test_the_left_out_error_is_that_of_leaving_out_also_of_noisy_values():
    generator = np.random.default_rng(0)
    points, noise = generator.random((12, 2)), generator.uniform(1, 9, 12)
    values = points @ [1.0, -2.0] + generator.normal(0, 0.1, 12)
    units, kernel = np.sqrt(noise), _KERNELS["linear"]
    signed = 2 * points - 1
    spectrum = np.linalg.eigh(kernel(signed, signed) / np.outer(units, units))
    errors = []
    for i in range(12):
        rest = np.arange(12) != i
        matrix = kernel(signed[rest], signed[rest]) + 0.5 * np.diag(noise[rest])
        guess = kernel(signed[[i]], signed[rest]) @ np.linalg.solve(matrix, values[rest])
        errors.append((values[i] - guess[0]) ** 2 / noise[i])
    assert _left_out_error(*spectrum, values / units, 0.5) == pytest.approx(np.mean(errors))
