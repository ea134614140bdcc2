"""From the params of a trial to an objective and back: slopes against finite differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch

from evomerge.kernels.choice import slopes_all
from evomerge.kernels.job import SlopeJob
from evomerge.kernels.scalars import Scalars
from evomerge.merging import slopes as slopes_module
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.sources import Sources
from evomerge.recipe.recipe import Recipe, Rule
from evomerge.runs.parts import build_space
from evomerge.space.protocol import ModelSet, Params, SearchSpace
from evomerge.space.slopes import gene_slopes
from tests.architectures import tiny_model

STEP = 0.004
TOKENS = torch.randint(3, 32, (3, 9), generator=torch.Generator().manual_seed(1))
SPREAD = {"attention": ["attention"], "rest": ["mlp", "norm", "embedding", "head"]}
SPACES: dict[str, tuple[str, Mapping[str, Any]]] = {
    # Signs are elected without coefficients: what flips with a step has no slope.
    "shares at control points, modified": (
        "llama",
        {
            "method": "ties",
            "depth": {"control_points": 2},
            "genes": {"coefficient": {"sum_to_one": True}, "lambda": {"per": ["depth"]}},
            "fixed": {"vote": "unweighted", "density": 0.7, "normalize": False},
            "modifiers": {"lines": {"alpha": 0.5, "beta": {"range": [0.0, 1.0]}}},
        },
    ),
    "groups and logarithms, tied": (
        "gemma2",
        {
            "method": "task_arithmetic",
            "depth": {"groups": 2},
            "modules": SPREAD,
            "genes": {
                "coefficient": {"range": [0.05, 1.0], "log": True},
                "lambda": {"log": True, "per": ["depth"]},
            },
        },
    ),
    "logarithms at control points, fused experts": (
        "mixtral",
        {
            "method": "linear",
            "depth": {"control_points": 2},
            "modules": SPREAD,
            "genes": {"coefficient": {"range": [0.1, 1.0], "log": True}},
        },
    ),
    "scales of a path": (
        "llama",
        {
            "kind": "hybrid",
            "merge": {
                "method": "multislerp",
                "genes": {"coefficient": {"range": [0.1, 1.0], "per": ["expert"]}},
            },
            "path": {
                "encoding": {"name": "slots"},
                "sources": ["merged", "one"],
                "scale": {"range": [0.5, 2.0], "per": "hop", "limit": 1.6},
            },
        },
    ),
}


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelSet]:
    """A base and two experts of each architecture, in float32."""
    found = {}
    for family in ("llama", "gemma2", "mixtral"):
        root = tmp_path_factory.mktemp(family)
        for seed, name in enumerate(("base", "one", "two")):
            # All experts of a layer answer: which do is a choice that jumps.
            every = {"num_experts_per_tok": 3} if family == "mixtral" else {}
            tiny_model(family, root / name, seed, torch.float32, **every)
        experts = {name: str(root / name) for name in ("one", "two")}
        sources = Sources(str(root / "base"), experts)
        roles = {name: sources.architecture.roles[name] for name in sources.names}
        found[family] = ModelSet(str(root / "base"), experts, 3, "float32", tensors=roles)
    return found


def objective(model: torch.nn.Module) -> torch.Tensor:
    """Mean negative log-probability of random words."""
    logits = model(TOKENS).logits[:, :-1].double()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), TOKENS[:, 1:].flatten())


def params_of(space: SearchSpace) -> Params:
    """Defaults, each number moved a bit, so that none sits at a corner."""
    return {
        gene: value * (1.0 + 0.07 * (i % 3)) + 0.013 if isinstance(value, float) else value
        for i, (gene, value) in enumerate(space.defaults.items())
    }


def candidate_of(models: ModelSet) -> tuple[LiveCandidate, Sources]:
    sources = Sources(models.base, models.experts)
    return LiveCandidate(sources, "float32"), sources


@pytest.mark.parametrize("case", SPACES)
def test_slopes_along_params_are_what_finite_differences_find(
    case: str, families: dict[str, ModelSet]
) -> None:
    family, content = SPACES[case]
    models = families[family]
    space = build_space(content, models)
    candidate, _ = candidate_of(models)
    params = params_of(space)
    candidate.materialise(space.recipe(params))
    with candidate.slopes() as found:
        objective(candidate.model).backward()
    ours = gene_slopes(space, params, found.along_recipe(), models.roles)

    def value(moved: Params) -> float:
        candidate.materialise(space.recipe(moved))
        with torch.no_grad():
            return float(objective(candidate.model))

    theirs = {
        gene: sum(
            weight * value({**params, gene: params[gene] + by * STEP})  # type: ignore[operator]
            for by, weight in ((-2, 1), (-1, -8), (1, 8), (2, -1))
        )
        / (12 * STEP)
        for gene in ours
    }
    largest = max(map(abs, theirs.values()))
    assert largest > 1e-3
    assert ours == pytest.approx(theirs, abs=2e-3 * largest)
    floats = [gene for gene, x in params.items() if isinstance(x, float)]
    unused = {gene for gene in floats if gene not in ours}
    recipes = {gene: space.recipe({**params, gene: params[gene] + STEP}) for gene in unused}  # type: ignore[operator]
    assert all(recipe == space.recipe(params) for recipe in recipes.values())


def test_batches_add_up_and_nothing_is_left_behind(families: dict[str, ModelSet]) -> None:
    candidate, _ = candidate_of(families["llama"])
    models = families["llama"]
    recipe = models.recipe((Rule("task_arithmetic", {"coefficient": 0.4}),))
    candidate.materialise(recipe)
    found = []
    for batches in (1, 2):
        with candidate.slopes() as slopes:
            for _ in range(batches):
                (objective(candidate.model) / batches).backward()
        found.append(slopes.along_recipe())
        assert all(p.grad is None and p.requires_grad for p in candidate.model.parameters())
    for name, once in found[0].tensors.items():
        assert found[1].tensors[name]["lambda"] == pytest.approx(once["lambda"], abs=1e-6)
    assert found[0].tensors.keys() == set(models.roles)


def test_gradients_wait_for_each_other_up_to_a_bound(
    families: dict[str, ModelSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All at once or a few at a time, over several batches: the slopes are the same."""
    models = families["gemma2"]
    candidate, _ = candidate_of(models)
    candidate.materialise(models.recipe((Rule("task_arithmetic", {"coefficient": 0.4}),)))
    reduced: list[int] = []

    def noted(jobs: Sequence[SlopeJob]) -> list[Scalars]:
        reduced.append(sum(job.gradient.nbytes for job in jobs))
        return slopes_all(jobs)

    monkeypatch.setattr(slopes_module, "slopes_all", noted)

    def found(bound: int) -> list[float]:
        monkeypatch.setattr(slopes_module, "GRADIENT_BYTES", bound)
        reduced.clear()
        with candidate.slopes() as slopes:
            for _ in range(2):
                objective(candidate.model).backward()
        own = slopes.along_recipe().tensors
        assert own.keys() == set(models.roles)
        return [x for tensor in own.values() for x in (tensor["lambda"], *tensor["coefficient"])]  # type: ignore[misc,list-item]

    total = sum(p.nbytes for p in candidate.model.parameters())
    together = found(total)
    assert reduced == [total]
    bound, largest = total // 8, max(p.nbytes for p in candidate.model.parameters())
    assert found(bound) == pytest.approx(together, rel=1e-4, abs=1e-6)
    assert len(reduced) > 4
    assert max(reduced) <= bound + largest
    assert sum(reduced) > total


def test_slopes_are_gradients_times_task_vectors(families: dict[str, ModelSet]) -> None:
    """The plainest case, by plain torch: the slope along a coefficient is Σ gradient · τ."""
    models = families["mixtral"]
    candidate, sources = candidate_of(models)
    candidate.materialise(Recipe(models.experts, (Rule("task_arithmetic"),), base=models.base))
    with candidate.slopes() as slopes:
        objective(candidate.model).backward()
    ours = slopes.along_recipe().tensors
    objective(candidate.model).backward()
    by_storage = {p.untyped_storage().data_ptr(): p for p in candidate.model.parameters()}
    for name, view in candidate.tensors.items():
        parameter = by_storage[view.untyped_storage().data_ptr()]
        gradient = parameter.grad.as_strided(view.shape, view.stride(), view.storage_offset())
        base, experts = sources.tensors(name)
        expected = [float((gradient * (e - base)).sum()) for e in experts]
        assert ours[name]["coefficient"] == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_parameters_that_are_not_merged_get_no_gradient(families: dict[str, ModelSet]) -> None:
    models = families["llama"]
    content = SPACES["scales of a path"][1]
    space = build_space(content, models)
    candidate, _ = candidate_of(models)
    candidate.materialise(space.recipe(space.defaults))
    with candidate.slopes() as slopes:
        objective(candidate.model).backward()
    found = slopes.along_recipe()
    path = space.recipe(space.defaults).path
    merged = {hop.layer for hop in path if hop.source == "merged"}
    assert {models.roles[name].layer for name in found.tensors} == merged | {0, 2}
    assert len(found.scales) == len(path)
