"""The searches that are compared: on some the rule of ``auto`` may be tuned, others judge it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from evomerge.config.presets import Presets
from tests.benchmarks.searches.pooled import EMBEDDED, POOLED

__all__ = ["CASES", "FOLDER", "Case", "Role"]

FOLDER = Path("runs/bench-search")
Role = Literal["tuned", "judged"]

_METRICS = {
    "zoo_math": "exact_match",
    "zoo_list": "exact_match",
    "zoo_facts": "acc",
    POOLED: "exact_match",
}


@dataclass(frozen=True)
class Case:
    """One search problem.

    Attributes:
        name: For tables.
        role: Whether samplers and the rule of ``auto`` may be tuned on it, or are judged by it.
        space: Search space preset, or YAML of a space.
        tasks: What is traded off; one objective each.
        trials: The budget, in evaluations.
        experts: What is merged.
        limit: Items per task and split; ``None``: all.
    """

    name: str
    role: Role
    space: str
    tasks: tuple[str, ...]
    trials: int
    experts: tuple[str, ...] = ("math", "list", "facts")
    limit: int | None = None

    def overrides(self, *, whole_model: bool = False) -> list[str]:
        """Write the case as changes of the quickstart.

        Args:
            whole_model: Whether all layers and modules share their genes.
        """
        parts: dict[str, Any] = {
            "models.experts": {name: f"zoo:{name}" for name in self.experts},
            "search_space": self._space(whole_model=whole_model),
            "evaluators": [self._suite],
            "objectives": [{"task": task, "metric": _METRICS[task]} for task in self.tasks],
            "budget.trials": self.trials,
            "execution.executor": "inline",
            "finalists": 0,
        }
        return [f"{key}={json.dumps(value)}" for key, value in parts.items()]

    @property
    def is_whole_model(self) -> bool:
        """Whether all layers and modules share their genes anyway."""
        return self._space(whole_model=False) == self._space(whole_model=True)

    @property
    def _suite(self) -> dict[str, Any]:
        folder = FOLDER / POOLED if POOLED in self.tasks else EMBEDDED
        return {
            "tasks": list(self.tasks),
            "include_path": str(folder.resolve()),
            "splits": {"search": "search", "test": "test"},
            "limit": self.limit,
        }

    def _space(self, *, whole_model: bool) -> dict[str, Any]:
        preset = Presets().names("search_spaces").get(self.space)
        space: dict[str, Any] = yaml.safe_load(preset.read_text() if preset else self.space)
        shared = ("depth", "modules") if whole_model else ()
        return {key: value for key, value in space.items() if key not in shared}


_PER_LAYER = """
method: task_arithmetic
depth: per_layer
modules: {attention: [attention], mlp: [mlp], other: [norm, embedding, head]}
genes: {coefficient: {range: [0.0, 1.2]}}
"""
_PER_TENSOR = """
method: task_arithmetic
depth: per_layer
modules:
  q: {names: q_proj}
  k: {names: k_proj}
  v: {names: v_proj}
  o: {names: o_proj}
  gate: {names: gate_proj}
  up: {names: up_proj}
  down: {names: down_proj}
  before_attention: {names: input_layernorm}
  before_mlp: {names: post_attention_layernorm}
  other: [attention, mlp, norm, embedding, head]
genes: {coefficient: {range: [0.0, 1.2]}}
"""
_ALL = ("zoo_math", "zoo_list", "zoo_facts")

CASES = (
    Case("global, 2 objectives", "tuned", "global_linear", _ALL[:2], 60),
    Case("layers, 3 objectives", "tuned", "layerwise_task_arithmetic", _ALL, 300),
    Case("layers, 1 objective", "tuned", "layerwise_task_arithmetic", (POOLED,), 200),
    Case("methods, 2 objectives", "tuned", "method_choice", _ALL[:2], 150),
    Case("tensors, 3 objectives", "judged", _PER_TENSOR, _ALL, 300),
    Case("every layer, 1 objective", "judged", _PER_LAYER, (POOLED,), 200),
    Case("TIES, 2 objectives", "judged", "layerwise_ties", _ALL[1:], 200),
    Case("data flow, 2 objectives", "judged", "dataflow_slots", _ALL[:2], 150, ("math", "list")),
)
