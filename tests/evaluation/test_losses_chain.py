"""From the params of a trial to smooth losses and back: slopes against finite differences."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from evomerge.evaluation import PreparedSuites
from evomerge.evaluation.item_losses import LossSettings
from evomerge.execution.protocol import WorkerSpec
from evomerge.execution.worker import Worker
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.sources import Sources
from evomerge.runs.parts import build_space
from evomerge.space.protocol import ModelSet, Params
from evomerge.space.slopes import gene_slopes
from tests.architectures import tiny_model

STEP = 0.004
STENCIL = ((-2, 1), (-1, -8), (1, 8), (2, -1))  # of fourth order, over 12 steps
SPACE = {
    "method": "task_arithmetic",
    "depth": {"groups": 2},
    "genes": {"coefficient": {"range": [0.05, 1.0], "log": True}, "lambda": {"per": []}},
}
OBJECTIVES = (
    *(("tiny_generate", "exact_match"), ("tiny_choice", "acc_norm")),
    *(("tiny_rolling", "bits_per_byte"), ("tiny_likelihood", "acc")),
)


def family_of(root: Path, family: str, tokenizer) -> ModelSet:
    """A base and two experts in real files, with the tests' tokenizer."""
    # All experts of a layer answer: which do is a choice that jumps.
    every = {"num_experts_per_tok": 3} if family == "mixtral" else {}
    for seed, name in enumerate(("base", "one", "two")):
        tiny_model(family, root / name, seed, torch.float32, vocab_size=len(tokenizer), **every)
        tokenizer.save_pretrained(root / name)
    experts = {name: str(root / name) for name in ("one", "two")}
    sources = Sources(str(root / "base"), experts)
    roles = {name: sources.architecture.roles[name] for name in sources.names}
    return ModelSet(str(root / "base"), experts, 3, "float32", tensors=roles)


@pytest.mark.parametrize("family", ["llama", "gemma2", "mixtral"])
def test_slopes_of_losses_along_genes_are_what_finite_differences_find(
    family, suite, tokenizer, tmp_path
):
    models = family_of(tmp_path, family, tokenizer)
    space = build_space(SPACE, models)
    candidate = LiveCandidate(Sources(models.base, models.experts), "float32")
    suite = dataclasses.replace(suite, limit=2, num_fewshot=0)
    prepared = PreparedSuites.of([suite], "search", candidate.model, tokenizer)
    gold = prepared.losses(OBJECTIVES, LossSettings(n_tokens=30))
    sure = prepared.losses([("tiny_group", "acc")], LossSettings("entropy", checkpointing=True))
    cases = [(gold, k) for k in range(len(OBJECTIVES))] + [(sure, 0)]

    params = {
        gene: value * (1.0 + 0.07 * i) + 0.013
        for i, (gene, value) in enumerate(space.defaults.items())
    }
    candidate.materialise(space.recipe(params))
    ours = []
    for losses, k in cases:
        with candidate.slopes() as found:
            losses.backward(k, range(losses.n_items[k]))
        ours.append(gene_slopes(space, params, found.along_recipe(), models.roles))
    assert all(p.grad is None and p.requires_grad for p in candidate.model.parameters())
    assert all(own.keys() == params.keys() for own in ours)

    def values(by: float, direction: Params) -> list[float]:
        moved = {gene: value + by * STEP * direction[gene] for gene, value in params.items()}
        candidate.materialise(space.recipe(moved))
        found = [losses.backward(k, range(losses.n_items[k])) for losses, k in cases]
        candidate.model.zero_grad()
        return found

    assert_slopes(ours, values, params)


def assert_slopes(
    ours: list[dict[str, float]], values: Callable[[float, Params], list[float]], params: Params
) -> None:
    """Compare slopes, by objective and gene, with differences of values in a random direction."""
    random = np.random.default_rng(0).uniform(-1, 1, len(params))
    direction = dict(zip(params, random, strict=True))
    parts = [(values(by, direction), share) for by, share in STENCIL]
    for k, own in enumerate(ours):
        slope = sum(found[k] * share for found, share in parts) / (12 * STEP)
        along = {gene: own[gene] * by for gene, by in direction.items()}
        size = sum(map(abs, along.values()))
        assert size > 1e-3
        assert sum(along.values()) == pytest.approx(slope, abs=2e-3 * size)


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_slopes_of_costs_along_genes_are_what_finite_differences_find(
    family, suite, tokenizer, tmp_path
):
    """Differences are those of the costs as they are measured."""
    models = family_of(tmp_path, family, tokenizer)
    space = build_space(SPACE, models)
    suite = dataclasses.replace(suite, limit=2, num_fewshot=0)
    costs = ("distance", "distance:one", "kl", "kl:two")
    worker = Worker(WorkerSpec(models.base, models.experts, (suite,), "float32", costs=costs))
    candidate, meter, prepared = worker._candidate, worker._meter, worker._prepared["search"]
    params = {
        gene: value * (1.0 + 0.07 * i) + 0.013
        for i, (gene, value) in enumerate(space.defaults.items())
    }

    def values(by: float, direction: Params) -> list[float]:
        moved = {gene: value + by * STEP * direction[gene] for gene, value in params.items()}
        candidate.materialise(recipe := space.recipe(moved))
        found = meter.measure(recipe, "search", prepared, prepared.score())
        return [found[cost].value for cost in costs]

    candidate.materialise(space.recipe(params))
    ours, measured = [], values(0.0, params)
    for cost, value in zip(costs, measured, strict=True):
        for settings in (LossSettings(), LossSettings(n_tokens=12, checkpointing=True)):
            with candidate.slopes() as found:
                rows = range(meter.n_items(cost))
                own = meter.backward(cost, rows, 3.0, settings)
            assert own == pytest.approx(value, rel=1e-5)
            assert all(p.grad is None for p in candidate.model.parameters())
            slopes = gene_slopes(space, params, found.along_recipe(), models.roles)
            ours.append({gene: slope / 3.0 for gene, slope in slopes.items()})
    assert_slopes(ours[::2], values, params)
    for one, other in zip(ours[::2], ours[1::2], strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-6)


def test_at_its_reference_a_model_has_no_slope_away_from_it(tmp_path, suite, tokenizer):
    models = family_of(tmp_path, "llama", tokenizer)
    space = build_space(SPACE, models)
    suite = dataclasses.replace(suite, limit=2, num_fewshot=0)
    worker = Worker(WorkerSpec(models.base, models.experts, (suite,), costs=("distance", "kl")))
    params = {**space.defaults, **{gene: 0.0 for gene in space.defaults if "lambda" in gene}}
    worker._candidate.materialise(space.recipe(params))
    for cost in ("distance", "kl"):
        with worker._candidate.slopes() as found:
            assert worker._meter.backward(cost, [0], 1.0, LossSettings()) == pytest.approx(
                0, abs=1e-6
            )
        slopes = gene_slopes(space, params, found.along_recipe(), models.roles)
        assert [*slopes.values()] == pytest.approx([0.0] * len(slopes), abs=1e-5)
