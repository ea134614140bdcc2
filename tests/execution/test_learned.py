"""Learned coefficients: the steps of a climb beside plain autograd over θ₀ + Σ c τ."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.func import functional_call
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.config.presets import Presets
from evomerge.execution.climb import drawn_items
from evomerge.execution.protocol import Climb, Job, Scored, WorkerSpec
from evomerge.execution.worker import Worker
from evomerge.models.zoo import zoo_path
from evomerge.runs.parts import build_space, load_suites
from evomerge.space.protocol import ModelSet

EXPERTS = {"math": "zoo:math", "list": "zoo:list"}
(ZOO,) = load_suites(["zoo"], Presets(), Path.cwd())
TASKS = Presets().names("evaluators")["zoo"].parent / "tasks"
Tensors = Mapping[str, torch.Tensor]


class Plain:
    """A merge and its losses with torch and transformers alone."""

    def __init__(self) -> None:
        self.model, *experts = map(self._model, ("base", *EXPERTS))
        self.base = {name: p.detach() for name, p in self.model.named_parameters()}
        self.task_vectors = [
            {name: p.detach() - self.base[name] for name, p in expert.named_parameters()}
            for expert in experts
        ]
        self.tokenizer = AutoTokenizer.from_pretrained(zoo_path("base"))
        self.docs = {
            task: [json.loads(line) for line in (TASKS / task / "search.jsonl").open()]
            for task in ("zoo_math", "zoo_list", "zoo_facts")
        }

    def _model(self, name: str) -> torch.nn.Module:
        model = AutoModelForCausalLM.from_pretrained(zoo_path(name), dtype=torch.float32)
        return model.eval()

    def merged(self, coefficient: Callable[[str, int], torch.Tensor]) -> Tensors:
        return {
            name: tensor
            + sum(coefficient(name, i) * own[name] for i, own in enumerate(self.task_vectors))
            for name, tensor in self.base.items()
        }

    def log_p(self, merged: Tensors, text: str) -> torch.Tensor:
        """(tokens, vocabulary) of what comes after each token."""
        ids = self.tokenizer(text, return_tensors="pt").input_ids
        return functional_call(self.model, merged, (ids,)).logits[0].log_softmax(-1)

    def choices(self, merged: Tensors, doc: Mapping[str, Any]) -> torch.Tensor:
        """Log-probabilities of the choices, among themselves."""
        n = len(self.tokenizer(doc["prompt"]).input_ids)
        found = []
        for choice in doc["choices"]:
            text = f"{doc['prompt']} {choice}"
            ids = self.tokenizer(text, return_tensors="pt").input_ids[0]
            log_p = self.log_p(merged, text)
            found.append(log_p[range(n - 1, len(ids) - 1), ids[n:]].sum())
        return torch.stack(found).log_softmax(-1)

    def entropy(self, merged: Tensors, task: str, row: int) -> torch.Tensor:
        """Of the prediction, which no label enters."""
        doc = self.docs[task][row]
        is_choice = task == "zoo_facts"
        p = self.choices(merged, doc) if is_choice else self.log_p(merged, doc["prompt"])[-1]
        return -(p.exp() * p).sum()

    def gold(self, merged: Tensors, task: str, row: int) -> torch.Tensor:
        """Generalised cross-entropy of the label, q = 0.3."""
        doc = self.docs[task][row]
        return (1 - self.choices(merged, doc)[doc["label"]].exp() ** 0.3) / 0.3


PLAIN = Plain()


def learned(
    request: Climb,
    tasks: tuple[str, ...],
    low: float,
    high: float,
    coefficient: Callable[[torch.Tensor, str, int], torch.Tensor],
) -> tuple[np.ndarray, list[tuple[float, ...]]]:
    """Take a climb's steps with autograd and torch's Adam.

    Args:
        request: What is asked.
        tasks: One objective each.
        low: Of every gene.
        high: Likewise.
        coefficient: From the genes (genes,), a tensor's name and an expert to a coefficient.

    Returns:
        Where it ends, and the losses before each step.
    """
    genes = torch.tensor([*request.params.values()], dtype=torch.float64)
    adam = torch.optim.Adam([genes], lr=1.0, betas=(0.8, 0.95), eps=1e-12)
    item_loss = {"entropy": PLAIN.entropy, "gold": PLAIN.gold}[request.loss]
    scales, losses = [0.0] * len(tasks), []
    for step in range(request.steps):
        before = genes.detach().clone()
        slopes, row_losses = torch.zeros_like(genes), []
        for k, task in enumerate(tasks):
            at = before.clone().requires_grad_()
            merged = PLAIN.merged(lambda name, i, at=at: coefficient(at, name, i).float())
            rows = drawn_items(request, step, k, len(PLAIN.docs[task]))
            loss = torch.stack([item_loss(merged, task, row) for row in rows]).mean()
            (own,) = torch.autograd.grad(loss, at)
            scales[k] = scales[k] or own.norm().item() * (high - low)
            share = request.weights[k] / sum(request.weights)
            slopes += share * own * (high - low) / scales[k]
            row_losses.append(loss.item())
        losses.append(tuple(row_losses))
        genes.grad = slopes / max(slopes.norm().item(), 1.0)
        adam.step()
        longest = request.step_size * (high - low) * (1 - step / request.steps)
        moved = longest * (genes.detach() - before).clamp(-1, 1)
        genes.data = (before + moved).clamp(low, high)
    return genes.detach().numpy(), losses


def ours(
    request: Climb, tasks: tuple[str, ...], space: Any
) -> tuple[np.ndarray, tuple[tuple[float, ...], ...]]:
    objectives = tuple((t, "acc" if t == "zoo_facts" else "exact_match") for t in tasks)
    suites = (replace(ZOO, tasks=tasks),)
    spec = WorkerSpec("zoo:base", EXPERTS, suites, "float32", space=space, objectives=objectives)
    outcome = Worker(spec).run(Job(0, space.recipe(request.params), climb=request))
    assert isinstance(outcome, Scored)
    assert outcome.climbed is not None, outcome.climb_error
    return np.array([*outcome.climbed.params.values()]), outcome.climbed.losses


def asked(space: Any, tasks: tuple[str, ...], **changes: Any) -> Climb:
    request = Climb(
        dict(space.defaults),
        weights=(1.0,) * len(tasks),
        steps=4,
        items=5,
        step_size=0.05,
        pull=0.0,
        seed=3,
    )
    return replace(request, **changes)


def test_adamerging_of_layers_takes_the_steps_of_autograd_without_a_label() -> None:
    space = build_space(
        {
            "method": "task_arithmetic",
            "depth": "per_layer",
            "genes": {"coefficient": {"range": [0.0, 1.0], "initial": 0.3}},
        },
        ModelSet("zoo:base", EXPERTS, n_layers=6),
    )
    tasks = ("zoo_math", "zoo_facts")
    request = asked(space, tasks, loss="entropy")
    names = [*space.distributions]

    def coefficient(genes: torch.Tensor, tensor: str, expert: int) -> torch.Tensor:
        layer = tensor.split(".")[2] if "layers" in tensor else 0 if "embed" in tensor else 5
        return genes[names.index(f"coefficient.{layer}.{[*EXPERTS][expert]}")]

    wanted, losses = learned(request, tasks, 0.0, 1.0, coefficient)
    found, own_losses = ours(request, tasks, space)
    assert np.array(own_losses) == pytest.approx(np.array(losses), rel=1e-3)
    assert found == pytest.approx(wanted, abs=2e-3)
    assert np.abs(found - 0.3).max() > 0.05
