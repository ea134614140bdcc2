"""Searches over models of vision and language: what is said, what is refused, what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForImageTextToText
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.ensembles.file import read_ensemble
from evomerge.ensembles.loading import LiveEnsemble
from evomerge.errors import CheckpointError, RecipeError
from evomerge.merging.candidate import load_model
from evomerge.merging.folder import write_checkpoint
from evomerge.merging.observed import read_by_experts
from evomerge.merging.sources import Sources
from evomerge.observation.examples import Example
from evomerge.recipe.mergekit import to_mergekit
from evomerge.recipe.recipe import Recipe, Rule
from evomerge.runs.checks import Candidates, engine_faults
from evomerge.runs.cost import experiment_facts
from evomerge.runs.loaded import Loaded
from evomerge.space.baselines import Seeds
from tests.vision_language import text_model, vlm


def written(folder: Path, **changes: Any) -> Path:
    experiment = {
        "models": {"base": "base", "experts": {"one": "one"}},
        "search_space": {
            "method": "task_arithmetic",
            "genes": {"coefficient": {}},
            "depth": {"groups": 2},
            "modules": "per_tensor",
        },
        "evaluators": ["zoo"],
        "objectives": [{"task": "zoo_math", "metric": "exact_match"}],
    }
    file = folder / "e.yaml"
    file.write_text(yaml.safe_dump(experiment | changes))
    return file


def checked(folder: Path, **models: Any) -> Loaded:
    models = {"base": "base", "experts": {"one": "one"}} | models
    return Loaded.of(load_experiment(written(folder, models=models), Presets()))


def test_check_says_where_every_part_is_from(tmp_path: Path) -> None:
    vlm(tmp_path / "base", "llava", 0)
    text_model(tmp_path / "one", "llava", 1)
    assert Sources(str(tmp_path / "base"), {"one": str(tmp_path / "one")}).part_notes == (
        "language: 30 tensors merged",
        "vision: 55 tensors of base (one without)",
        "projector: 4 tensors of base (one without)",
    )


def test_genes_of_the_language_tower_are_of_it_alone(tmp_path: Path) -> None:
    """CLIP's layers have modules of the same names, and there are as many."""
    for seed, name in enumerate(("base", "one")):
        vlm(tmp_path / name, "llava", seed)
    loaded = checked(tmp_path, parts={"projector": "one"})
    facts = dict(experiment_facts(loaded))["parts"].splitlines()
    assert [line.strip() for line in facts[1:]] == [
        "vision: 55 tensors merged",
        "projector: 4 tensors of one (as chosen)",
    ]
    genes = loaded.space.distributions
    assert "coefficient.self_attn_q_proj.1.one" in genes
    assert [gene for gene in genes if "vision" in gene] == ["coefficient.vision.0.one"]
    recipe = loaded.space.recipe({g: float(g == "coefficient.vision.0.one") for g in genes})
    rules = {
        name: recipe.rules[recipe.rule_for(name, role)]
        for name, role in loaded.models.tensors.items()
    }
    changed = {n for n, rule in rules.items() if rule.parameters["coefficient"] != {"one": 0.0}}
    assert changed == {n for n, role in loaded.models.tensors.items() if role.kind == "vision"}
    assert len(changed) == 55
    assert recipe.parts == loaded.models.parts


def test_a_search_says_of_unknown_families_what_works(tmp_path: Path) -> None:
    for name in ("base", "one"):
        (tmp_path / name).mkdir()
        config = CONFIG_MAPPING["pix2struct"]().to_dict()
        (tmp_path / name / "config.json").write_text(json.dumps(config, default=str))
    with pytest.raises(CheckpointError, match=r"another vision-language model \(pix2struct\)"):
        load_model(str(tmp_path / "base"), "auto")


def test_what_runs_text_alone_refuses_it(tmp_path: Path) -> None:
    vlm(tmp_path / "base", "llava", 0)
    text_model(tmp_path / "one", "llava", 1)
    base, experts = str(tmp_path / "base"), {"one": str(tmp_path / "one")}
    sources = Sources(base, experts)
    experiment = load_experiment(written(tmp_path, engine="vllm"), Presets())
    found = [*engine_faults(experiment, Candidates(None, Seeds()), sources)]
    assert any("models of vision and language, got vllm" in fault.text for fault in found)
    with pytest.raises(CheckpointError, match=r"of text alone, .* for methods with data"):
        read_by_experts([Example("a")], experts, sources.anchor)
    ensemble = read_ensemble({"ensemble": {"models": [base, base]}}, tmp_path)
    with pytest.raises(CheckpointError, match="of text alone, got one of vision"):
        LiveEnsemble(ensemble)
    recipe = Recipe(experts, (Rule("linear", {"coefficient": 1.0}),), base=base)
    with pytest.raises(RecipeError, match="of text alone, got one of vision"):
        to_mergekit(recipe)


@torch.no_grad()
def test_a_merge_finds_the_same_tensors_under_old_and_new_names(tmp_path: Path) -> None:
    """Processor files are the base's."""
    base = vlm(tmp_path / "base", "qwen2_5_vl", 0)
    expert = vlm(tmp_path / "one", "qwen2_5_vl", 1, original=False)
    processor = {"preprocessor_config.json": '{"size": 1}', "chat_template.json": "{}"}
    for name, content in processor.items():
        (tmp_path / "base" / name).write_text(content)
    recipe = Recipe(
        {"e": str(tmp_path / "one")},
        (Rule("linear", {"coefficient": 1.0}),),
        base=str(tmp_path / "base"),
    )
    write_checkpoint(recipe, tmp_path / "out")
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    tokens = torch.arange(3, 19)[None]
    assert torch.equal(merged(tokens).logits, expert(tokens).logits)
    assert not torch.equal(merged(tokens).logits, base(tokens).logits)
    assert {n: (tmp_path / "out" / n).read_text() for n in processor} == processor
