"""The statistics pass: once, with progress, and then nobody reads a model for statistics again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from evomerge.errors import CheckpointError
from evomerge.merging.lowering import lower
from evomerge.merging.measuring import measure_models
from evomerge.merging.sources import Sources
from evomerge.methods.registry import method, method_names
from evomerge.recipe.prompts import PromptFile
from evomerge.recipe.recipe import Recipe, Rule
from evomerge.statistics.reading import TensorReader
from tests.tiny import save_tiny_llama

Family = dict[str, Path]

MODIFIED = Rule("task_arithmetic", modifiers={"outlier_band": {"scope": "row"}, "lines": {}})
MODEL_WIDE = Rule("ties", {"scope": "global"})


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def recipe(family: Family, rule: Rule) -> Recipe:
    most, has_data = 3, False
    if rule.method in method_names():
        kind = method(rule.method)
        most, has_data = kind.n_experts[1] or 3, bool(kind.observations)
    names = ("one", "two", "three")[:most]
    prompts = family["base"].with_name("prompts.txt")
    prompts.write_text("w1 w2 w3\nw4 w5\n")
    return Recipe(
        {n: str(family[n]) for n in names},
        (rule,),
        base=str(family["base"]),
        prompts=PromptFile(str(prompts)) if has_data else None,
    )


def opened(wanted: Recipe) -> Sources:
    return Sources(wanted.base, wanted.experts, prompts=wanted.prompts)


def kept(cache: Path) -> set[Path]:
    """What is in the cache but for fingerprints, which new files get when they are old enough."""
    return {file for file in cache.rglob("*") if "fingerprints" not in file.parts}


def measured(wanted: Recipe) -> list[tuple[int, int]]:
    progress: list[tuple[int, int]] = []
    measure_models(opened(wanted), wanted.statistics, lambda *counts: progress.append(counts))
    return progress


def refuse_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a tensor was read although the cache should know")

    monkeypatch.setattr(TensorReader, "_flat", refuse)
    monkeypatch.setattr("evomerge.statistics.cache.content_of", refuse)


def test_progress_counts_elements_up_to_all(tiny_family: Family, cache: Path) -> None:
    wanted = recipe(tiny_family, MODEL_WIDE)
    progress = measured(wanted)
    sources = Sources(wanted.base, wanted.experts)
    assert len(progress) == len(sources.names)
    done = [count for count, _ in progress]
    assert done == sorted(done)
    assert {total for _, total in progress} == {done[-1]}
    assert done[-1] == sum(sources.anchor.tensor(name).numel() for name in sources.names)


def test_a_second_pass_reads_nothing(
    tiny_family: Family, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = recipe(tiny_family, MODEL_WIDE)
    first = measured(wanted)
    refuse_to_read(monkeypatch)
    assert measured(wanted) == first


@pytest.mark.parametrize(
    "rule", [*map(Rule, method_names()), MODIFIED, MODEL_WIDE], ids=lambda rule: rule.method
)
def test_workers_find_all_statistics_in_the_cache(
    rule: Rule, tiny_family: Family, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = recipe(tiny_family, rule)
    measured(wanted)
    entries = kept(cache)
    refuse_to_read(monkeypatch)
    assert dict(lower(wanted, opened(wanted)))
    assert kept(cache) == entries


def test_every_tensor_that_is_not_finite_is_named_with_its_file(
    tiny_family: Family, cache: Path, tmp_path: Path
) -> None:
    save_tiny_llama(tmp_path / "bad", seed=0)
    file = tmp_path / "bad" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"][3] = float("nan")
    tensors["model.layers.0.input_layernorm.weight"][:2] = -torch.inf
    save_file(tensors, file, metadata={"format": "pt"})
    wanted = Recipe({"bad": str(tmp_path / "bad")}, (Rule("ties"),), base=str(tiny_family["base"]))
    for _ in range(2):  # the second time from the cache
        with pytest.raises(CheckpointError) as caught:
            measured(wanted)
        first, second = sorted(str(caught.value).splitlines())
        assert "1 NaN or infinite" in first
        assert "model.norm.weight" in first
        assert "2 NaN or infinite" in second
        assert "layers.0.input_layernorm" in second
        assert str(file) in first
        assert str(file) in second
