"""Steps along slopes: on functions whose minima are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.errors import EvaluationError
from evomerge.execution.climb import Factors, SlopedGenes, Slopes, climb, drawn_items
from evomerge.execution.protocol import Climb
from evomerge.optuna_internals import contains
from evomerge.space.protocol import ModelSet, Params, SearchSpace
from tests.space.test_parameter import space

MODELS = ModelSet("base", {"math": "m", "list": "l"}, n_layers=4)
SPACE: SearchSpace = space(
    {
        "method": {"choice": ["ties", "task_arithmetic"], "per": []},
        "depth": {"groups": 3},
        "genes": {
            "coefficient": {"range": [-1.0, 2.0]},
            "lambda": {"range": [0.1, 10.0], "log": True},
            "density": {"range": [0.1, 1.0]},
        },
    },
    MODELS,
)
GENES = SlopedGenes(SPACE)
COEFFICIENTS = [name for name in SPACE.distributions if name.startswith("coefficient")]
STILL = [name for name in SPACE.distributions if name not in (*COEFFICIENTS, "lambda")]
START: Params = {**SPACE.defaults, "method": "ties"}
REQUEST = Climb(START, voices=(1.0, 1.0), steps=20, items=4, step_size=0.1, pull=0.0, seed=3)


def bowl(target: float, scale: float = 1.0) -> Callable[[Params], Slopes]:
    """(c - target)² over coefficients, and the square of log lambda."""

    def at(params: Params) -> Slopes:
        along = {name: 2 * scale * (float(params[name]) - target) for name in COEFFICIENTS}
        factor = float(params["lambda"])
        along["lambda"] = 2 * scale * np.log(factor) / factor
        loss = sum((float(params[name]) - target) ** 2 for name in COEFFICIENTS)
        return Slopes((scale * (loss + np.log(factor) ** 2),), along, n_items=4)

    return at


def summed(factors: Factors, each: Sequence[Slopes]) -> Slopes:
    """The slopes of a sum of losses, from those of each objective."""
    counted = [(f, s) for f, s in zip(factors, each, strict=True) if f]
    names = dict.fromkeys(name for _, s in counted for name in s.along)
    along = {name: sum(f * s.along.get(name, 0.0) for f, s in counted) for name in names}
    losses = tuple(loss for _, s in counted for loss in s.losses)
    return Slopes(losses, along, sum(s.n_items for _, s in counted))


def steps(
    *objectives: Callable[[Params], Slopes],
) -> Callable[[Params, int, Sequence[Factors]], list[Slopes]]:
    return lambda params, step, sums: [
        summed(factors, [objective(params) for objective in objectives]) for factors in sums
    ]


def distances(a: Params, b: Params) -> np.ndarray:
    return np.abs(GENES.encode(a) - GENES.encode(b))


def test_it_goes_to_the_minimum_of_one_objective() -> None:
    request = replace(REQUEST, params={**START, "lambda": 0.3}, voices=(1.0,), steps=40)
    ended = climb(request, GENES, steps(bowl(1.0)))
    assert [ended.params[name] for name in COEFFICIENTS] == pytest.approx([1.0] * 6, abs=0.1)
    assert ended.params["lambda"] == pytest.approx(1.0, rel=0.15)
    assert ended.losses[0][0] == bowl(1.0)(request.params).losses[0]
    assert len(ended.losses) == 40
    assert ended.n_items == 40 * 4


@pytest.mark.parametrize(("voices", "between"), [((3, 1), (0.0, 0.5)), ((1, 3), (0.5, 1.0))])
def test_it_ends_nearer_to_the_objective_that_counts_more(
    voices: tuple[float, float], between: tuple[float, float]
) -> None:
    ended = climb(replace(REQUEST, voices=voices, steps=60), GENES, steps(bowl(0.0), bowl(1.0)))
    low, high = between
    assert all(low - 0.1 < float(ended.params[name]) < high + 0.1 for name in COEFFICIENTS)


@settings(max_examples=30, deadline=None)
@given(scale=st.floats(1e-3, 1e3), other=st.floats(1e-3, 1e3))
def test_the_units_of_losses_do_not_matter(scale: float, other: float) -> None:
    plain = climb(REQUEST, GENES, steps(bowl(0.0), bowl(1.5)))
    scaled = climb(REQUEST, GENES, steps(bowl(0.0, scale), bowl(1.5, other)))
    assert distances(plain.params, scaled.params).max() < 1e-6


def noise(seed: int) -> Callable[[Params, int, Sequence[Factors]], list[Slopes]]:
    rng = np.random.default_rng(seed)
    names = [*COEFFICIENTS, "lambda"]

    def at(params: Params, step: int, sums: Sequence[Factors]) -> list[Slopes]:
        each = [
            Slopes((float(rng.normal()),), dict(zip(names, rng.normal(size=7), strict=True)), 1)
            for _ in REQUEST.voices
        ]
        return [summed(factors, each) for factors in sums]

    return at


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 1000),
    start=st.lists(st.floats(0, 1), min_size=13, max_size=13),
    n_steps=st.integers(1, 12),
    step_size=st.floats(0.01, 0.5),
    pull=st.floats(0, 3),
)
def test_bounds_and_distance_hold_whatever_the_slopes(
    seed: int, start: list[float], n_steps: int, step_size: float, pull: float
) -> None:
    params = GENES.decode(np.array(start), START)
    request = replace(REQUEST, params=params, steps=n_steps, step_size=step_size, pull=pull)
    ended = climb(request, GENES, noise(seed))
    again = climb(request, GENES, noise(seed))
    assert ended == again
    for name, gene in SPACE.distributions.items():
        assert contains(gene, ended.params[name])
    assert distances(params, ended.params).max() <= step_size * (n_steps + 1) / 2 + 1e-9
    assert all(ended.params[name] == pytest.approx(params[name]) for name in STILL)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), voices=st.tuples(st.floats(0.1, 9), st.floats(0.1, 9)))
def test_a_step_goes_down_the_sum_on_the_scales_of_the_first_slopes(
    seed: int, voices: tuple[float, float]
) -> None:
    """Adam written out, from the slopes of each objective in every step."""
    drawn: list[np.ndarray] = []
    rng = np.random.default_rng(seed)

    def slopes_at(params: Params, step: int, sums: Sequence[Factors]) -> list[Slopes]:
        drawn.append(0.1**step * rng.normal(size=(2, len(COEFFICIENTS))))
        each = [
            Slopes((0.0,), dict(zip(COEFFICIENTS, own, strict=True)), 1)
            for own in drawn[-1].tolist()
        ]
        return [summed(factors, each) for factors in sums]

    request = replace(REQUEST, voices=voices, steps=4, step_size=0.02)
    ended = climb(request, GENES, slopes_at)
    share = np.array(voices) / sum(voices)
    totals = [(share / np.linalg.norm(drawn[0], axis=1)) @ own for own in drawn]
    point, mean, square = np.full(len(COEFFICIENTS), float(START[COEFFICIENTS[0]])), 0.0, 0.0
    for step, total in enumerate(totals):
        mean, square = 0.8 * mean + 0.2 * total, 0.95 * square + 0.05 * total**2
        ratio = (mean / (1 - 0.8 ** (step + 1))) / np.sqrt(square / (1 - 0.95 ** (step + 1)))
        point = point - 3.0 * 0.02 * (1 - step / 4) * np.clip(ratio, -1, 1)  # 3: width of a gene
    assert [ended.params[name] for name in COEFFICIENTS] == pytest.approx(point.tolist())


def test_only_the_first_step_takes_the_slopes_of_every_objective() -> None:
    asked: list[Sequence[Factors]] = []
    at = steps(bowl(0.0), bowl(1.5), bowl(9.0))

    def slopes_at(params: Params, step: int, sums: Sequence[Factors]) -> list[Slopes]:
        asked.append(sums)
        return at(params, step, sums)

    ended = climb(replace(REQUEST, voices=(1.0, 3.0, 0.0), steps=3), GENES, slopes_at)
    assert asked[0] == [(1, 0, 0), (0, 1, 0)]
    assert [len(sums) for sums in asked] == [2, 1, 1]
    assert asked[1] == asked[2]
    assert asked[1][0][2] == 0
    point = GENES.encode(START)
    scales = [
        np.linalg.norm(GENES.slopes(bowl(target)(START).along, point)) for target in (0.0, 1.5)
    ]
    assert asked[1][0][:2] == pytest.approx((0.25 / scales[0], 0.75 / scales[1]))
    assert all(len(losses) == 2 for losses in ended.losses)
    assert ended.n_items == 3 * 2 * 4


def test_an_objective_that_is_flat_at_first_gets_its_scale_from_its_first_slope() -> None:
    """It must not take all once it has one, nor hinder the other one before."""

    def late(params: Params, step: int, sums: Sequence[Factors]) -> list[Slopes]:
        flat = Slopes((1.0,), dict.fromkeys(COEFFICIENTS, 0.0), 4)
        each = [bowl(1.0)(params), flat if step < 3 else bowl(-1.0, 1e6)(params)]
        return [summed(factors, each) for factors in sums]

    start = {**START, **dict.fromkeys(COEFFICIENTS, 0.2)}
    ended = climb(replace(REQUEST, params=start, voices=(3.0, 1.0), steps=6), GENES, late)
    assert all(0.4 < float(ended.params[name]) < 1.0 for name in COEFFICIENTS)


def test_an_objective_that_gets_much_steeper_is_scaled_anew() -> None:
    """Else its first slope, taken where it was flat, would let it take all from there on."""
    asked: list[int] = []

    def late(params: Params, step: int, sums: Sequence[Factors]) -> list[Slopes]:
        asked.append(len(sums))
        each = [bowl(1.0)(params), bowl(-1.0, 1e-3 if step < 2 else 1.0)(params)]
        return [summed(factors, each) for factors in sums]

    start = {**START, **dict.fromkeys(COEFFICIENTS, 0.2)}
    request = replace(REQUEST, params=start, voices=(9.0, 1.0), steps=20)
    ended = climb(request, GENES, late)
    assert asked[:5] == [2, 1, 1, 2, 1]
    assert all(float(ended.params[name]) > 0.5 for name in COEFFICIENTS)


def test_slopes_along_the_cube_are_those_of_the_loss() -> None:
    point = np.random.default_rng(0).uniform(0.1, 0.9, len(GENES.encode(START)))

    def loss(at: np.ndarray) -> float:
        return bowl(0.7)(GENES.decode(at, START)).losses[0]

    steps_ = 1e-6 * np.eye(len(point))
    numeric = [(loss(point + step) - loss(point - step)) / 2e-6 for step in steps_]
    slopes = GENES.slopes(bowl(0.7)(GENES.decode(point, START)).along, point)
    assert slopes == pytest.approx(numeric, abs=1e-5)


def test_the_prior_draws_genes_to_those_at_other_depths_and_to_nothing_else() -> None:
    """Slopes that are noise leave a family together; without a pull it drifts apart."""

    def spread(params: Params) -> float:
        rows = [[params[f"coefficient.{g}.{e}"] for g in range(3)] for e in ("math", "list")]
        return float(np.std(np.array(rows, dtype=float), axis=1).mean())

    request = replace(REQUEST, steps=60)
    free = [climb(request, GENES, noise(seed)).params for seed in range(5)]
    held = [climb(replace(request, pull=2.0), GENES, noise(seed)).params for seed in range(5)]
    assert np.mean([spread(p) for p in held]) < 0.7 * np.mean([spread(p) for p in free])
    apart = {**START, "coefficient.0.math": 2.0, "coefficient.0.list": -1.0}
    ended = climb(
        replace(request, params=apart, pull=1.0, voices=(1.0,)),
        GENES,
        lambda params, step, sums: [Slopes((0.0,), dict.fromkeys(COEFFICIENTS, (-1.0) ** step), 1)],
    )
    means = [
        np.mean([float(ended.params[f"coefficient.{g}.{e}"]) for g in range(3)])
        for e in ("math", "list")
    ]
    assert means[0] > means[1] + 0.5


def test_objectives_without_weight_are_left_out() -> None:
    request = replace(REQUEST, voices=(0.0, 1.0))
    ended = climb(request, GENES, steps(lambda params: Slopes((np.nan,), {}, 1), bowl(1.0)))
    alone = climb(replace(REQUEST, voices=(1.0,)), GENES, steps(bowl(1.0)))
    assert ended == alone


@pytest.mark.parametrize(
    "broken", [Slopes((np.nan,), {}, 1), Slopes((0.0,), {COEFFICIENTS[0]: np.inf}, 1)]
)
def test_a_step_that_is_not_finite_is_refused(broken: Slopes) -> None:
    request = replace(REQUEST, voices=(1.0,))
    with pytest.raises(EvaluationError, match="finite"):
        climb(request, GENES, lambda params, step, _: [bowl(1.0)(params) if step < 2 else broken])


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 40), items=st.integers(1, 50), seed=st.integers(0, 9))
def test_all_items_have_come_before_one_comes_again(n: int, items: int, seed: int) -> None:
    request = replace(REQUEST, items=items, seed=seed)
    drawn = [drawn_items(request, step, 0, n) for step in range(12)]
    size = min(items, n)
    assert all(len(set(rows)) == size and set(rows) <= set(range(n)) for rows in drawn)
    first = [row for rows in drawn[: n // size] for row in rows]
    assert len(first) == len(set(first))
    assert set().union(*drawn[: -(-n // size)]) == set(range(n)) or -(-n // size) > 12


def test_items_differ_between_seeds_and_objectives() -> None:
    rows = {
        tuple(drawn_items(replace(REQUEST, seed=seed), 0, objective, 100))
        for seed in (1, 2)
        for objective in (0, 1)
    }
    assert len(rows) == 4
