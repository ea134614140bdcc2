"""Files that are written by hand: experiments, recipes, mergekit's files, genomes."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from evomerge.config.evolve import experiment_from_evolve
from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.recipe.files import load_recipe
from evomerge.runs.parts import build_space
from evomerge.space.protocol import ModelSet
from tests.fuzz.guard import Fuzzed
from tests.fuzz.mutations import damage_bytes, damage_data, damage_text

__all__ = ["YAML_KINDS"]

_TASKS = Presets().names("evaluators")["zoo"].parent / "tasks"
_EXPERIMENT = """\
models: {base: zoo:base, experts: {math: zoo:math, list: zoo:list}}
search_space:
  method: ties
  depth: {groups: 3}
  genes:
    coefficient: {range: [0.0, 1.5], per: [depth, expert]}
  fixed: {density: 0.4}
evaluators: [{tasks: [zoo_math], include_path: TASKS, limit: 20, seed: 1}]
objectives: [{task: zoo_math, metric: exact_match}]
constraints: [{task: zoo_math, metric: exact_match, at_least: base - 0.1}]
seeds: {parents: true, task_arithmetic: [0.3, 1e-1]}
sampler: {name: pycma, sigma0: 0.2}
budget: {trials: 10, wall_clock: 1h 30m}
execution: {executor: inline, workers: auto}
race: careful
seed: 7
""".replace("TASKS", str(_TASKS))
_PATHS = _EXPERIMENT.replace(
    _EXPERIMENT[_EXPERIMENT.index("  method") : _EXPERIMENT.index("evaluators")],
    """\
  kind: dataflow
  encoding: {name: threshold, repeats: 3}
  max_hops: 9
  scale: {range: [0.5, 2.0], per: slot}
""",
)
_RECIPE = """\
base: zoo:base
experts: {math: zoo:math, list: zoo:list}
seed: 3
dtype: float32
rules:
- where: {layers: [0, 3], kinds: [mlp], names: "layers"}
  method: dare_ties
  parameters: {coefficient: {math: 0.5, list: 0.5}, density: 0.4}
- method: linear
  parameters: {coefficient: 0.5}
"""
_MERGEKIT = """\
merge_method: ties
base_model: zoo:base
slices:
- sources:
  - {model: zoo:math, layer_range: [0, 6], parameters: {weight: [0.1, 0.9], density: 0.5}}
  - {model: zoo:list, layer_range: [0, 6], parameters: {weight: 0.4}}
  - {model: zoo:base, layer_range: [0, 6]}
parameters: {normalize: true, int8_mask: true}
dtype: float32
"""
_GENOME = """\
genome:
  models: [zoo:math, zoo:list]
  base_model: zoo:base
  merge_method: ties
  layer_granularity: 2
  filters: [self_attn, mlp]
tasks: [{name: zoo_math, metric: "exact_match,none", weight: 0.5}]
limit: 8
num_fewshot: 0
shuffle: true
"""


def _as_experiment(path: Path) -> None:
    experiment = load_experiment(path, Presets())
    assert isinstance(experiment.search_space, dict)
    found = experiment.models
    models = ModelSet(found.base, found.experts, n_layers=6, dtype=found.dtype)
    build_space(experiment.search_space, models).describe()


def _as_genome(path: Path) -> None:
    """Import it; what comes of it must be an experiment."""
    text = experiment_from_evolve(path, out=path.with_name("e.yaml"), include_path=_TASKS)
    path.with_name("e.yaml").write_text(text, encoding="utf-8")
    load_experiment(path.with_name("e.yaml"), Presets())


def _kind(text: str, read: Callable[[Path], object]) -> Fuzzed:
    content = yaml.safe_load(text)

    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / "x.yaml").write_text(text)

    def damage(folder: Path, rng: random.Random) -> None:
        (folder / "x.yaml").write_bytes(_damaged(text, content, rng))

    return Fuzzed(make, damage, lambda folder: read(folder / "x.yaml"))


def _damaged(text: str, content: Any, rng: random.Random) -> bytes:
    kind = rng.random()
    if kind < 0.5:
        return damage_text(text, rng).encode()
    if kind < 0.95:
        return yaml.dump(damage_data(content, rng), allow_unicode=True).encode(errors="replace")
    return damage_bytes(text.encode(), rng)


YAML_KINDS = {
    "experiment": _kind(_EXPERIMENT, _as_experiment),
    "experiment of paths": _kind(_PATHS, _as_experiment),
    "recipe": _kind(_RECIPE, load_recipe),
    "mergekit": _kind(_MERGEKIT, load_recipe),
    "genome": _kind(_GENOME, _as_genome),
}
