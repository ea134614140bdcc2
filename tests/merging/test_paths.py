"""Paths: live, and written as plain checkpoints that another process reads without evomerge."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.folder import write_checkpoint
from evomerge.merging.sources import Sources
from evomerge.recipe.path import Hop
from evomerge.recipe.recipe import Recipe, Rule
from tests.architectures import FAMILIES, tiny_model
from tests.merging import paths

Answers = tuple[torch.Tensor, torch.Tensor]
N_LAYERS = 3


def random_path(family: str, *, scaled: bool) -> tuple[Hop, ...]:
    """Between 4 and 8 hops over all four sources, at least one of each."""
    rng = random.Random(f"{family} {scaled}")
    sources = ["base", "one", "two", "merged", *rng.choices(["one", "merged"], k=rng.randrange(5))]
    rng.shuffle(sources)
    scales = [math.exp(rng.uniform(-0.6, 0.6)) if scaled else 1.0 for _ in sources]
    return tuple(
        Hop(s, rng.randrange(N_LAYERS), scale) for s, scale in zip(sources, scales, strict=True)
    )


def recipe_of(folder: Path, path: tuple[Hop, ...]) -> Recipe:
    experts = {name: str(folder / name) for name in ("one", "two")}
    return Recipe(experts, (Rule("ties", {"density": 0.6}),), base=str(folder / "base"), path=path)


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("families")
    for family in FAMILIES:
        for seed, name in enumerate(("base", "one", "two")):
            tiny_model(family, root / family / name, seed, torch.float32)
    return root


@pytest.fixture(scope="module")
def both_ways(families: Path) -> dict[tuple[str, bool], tuple[Answers, Answers]]:
    """Answers of the live candidate and of the written folder, by family and scaled or not."""
    live = {}
    for family in FAMILIES:
        folder = families / family
        plain = recipe_of(folder, ())
        candidate = LiveCandidate(Sources(plain.base, plain.experts))
        for scaled in (False, True):
            recipe = recipe_of(folder, random_path(family, scaled=scaled))
            candidate.materialise(recipe)
            live[family, scaled] = paths.answers(candidate.model)
            write_checkpoint(recipe, folder / f"out {scaled}")
    folders = {key: families / key[0] / f"out {key[1]}" for key in live}
    subprocess.run([sys.executable, paths.__file__, *map(str, folders.values())], check=True)
    return {key: (live[key], torch.load(folders[key] / paths.FILE)) for key in live}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_path_without_scales_is_the_same_model_live_and_on_disk(
    both_ways: dict[tuple[str, bool], tuple[Answers, Answers]], family: str
) -> None:
    (live, live_tokens), (folder, folder_tokens) = both_ways[family, False]
    assert torch.equal(live, folder)
    assert torch.equal(live_tokens, folder_tokens)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_path_with_scales_is_the_same_function_live_and_on_disk(
    both_ways: dict[tuple[str, bool], tuple[Answers, Answers]], family: str
) -> None:
    (live, live_tokens), (folder, folder_tokens) = both_ways[family, True]
    print(float((live - folder).abs().max() / live.abs().max()))
    assert (live - folder).abs().max() <= 1e-5 * live.abs().max()
    assert torch.equal(live_tokens, folder_tokens)
