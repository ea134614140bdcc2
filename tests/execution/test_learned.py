"""Learned coefficients: the steps of a climb beside plain autograd over θ₀ + Σ c τ."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.func import functional_call
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.execution.climb import drawn_items
from evomerge.execution.protocol import Climb, Job, Scored, WorkerSpec
from evomerge.execution.worker import Worker
from evomerge.merging.sources import Sources
from evomerge.models.zoo import zoo_path
from evomerge.runs.parts import build_space, load_suites
from evomerge.space.protocol import ModelSet, SearchSpace

EXPERTS = {"math": "zoo:math", "list": "zoo:list", "facts": "zoo:facts"}
N_LAYERS = 6
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

    def merged(self, coefficients: Callable[[str], Sequence[torch.Tensor]]) -> Tensors:
        return {
            name: tensor
            + sum(
                c.float() * own[name]
                for c, own in zip(coefficients(name), self.task_vectors, strict=True)
            )
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
    bounds: torch.Tensor,
    coefficients: Callable[[Mapping[str, torch.Tensor], str], Sequence[torch.Tensor]],
) -> tuple[np.ndarray, list[tuple[float, ...]]]:
    """Take a climb's steps with autograd and torch's Adam.

    Args:
        request: What is asked.
        tasks: One objective each.
        bounds: (2, genes).
        coefficients: From the genes by name and a tensor's name to a coefficient per expert.

    Returns:
        Where it ends, and the losses before each step.
    """
    low, high = bounds
    genes = torch.tensor([*request.params.values()], dtype=torch.float64)
    adam = torch.optim.Adam([genes], lr=1.0, betas=(0.8, 0.95), eps=1e-12)
    item_loss = {"entropy": PLAIN.entropy, "gold": PLAIN.gold}[request.loss]
    scales, alone, losses = [0.0] * len(tasks), True, []
    for step in range(request.steps):
        before = genes.detach().clone()
        slopes, row_losses = torch.zeros_like(genes), []
        for k, task in enumerate(tasks):
            at = before.clone().requires_grad_()
            named = dict(zip(request.params, at, strict=True))
            merged = PLAIN.merged(functools.partial(coefficients, named))
            rows = drawn_items(request, step, k, len(PLAIN.docs[task]))
            loss = torch.stack([item_loss(merged, task, row) for row in rows]).mean()
            (own,) = torch.autograd.grad(loss, at)
            own *= high - low  # along the sides of the unit cube
            scales[k] = max(scales[k], own.norm().item()) if alone else scales[k]
            slopes += request.voices[k] / sum(request.voices) * own / scales[k]
            row_losses.append(loss.item())
        losses.append(tuple(row_losses))
        steepness = slopes.norm().item()
        alone = not alone and steepness > 2  # the sum has outgrown the scales
        genes.grad = slopes / max(steepness, 1.0)
        adam.step()
        longest = request.step_size * (high - low) * (1 - step / request.steps)
        moved = longest * (genes.detach() - before).clamp(-1, 1)
        genes.data = (before + moved).maximum(low).minimum(high)
    return genes.detach().numpy(), losses


def ours(
    request: Climb, tasks: tuple[str, ...], space: SearchSpace
) -> tuple[np.ndarray, tuple[tuple[float, ...], ...]]:
    objectives = tuple((t, "acc" if t == "zoo_facts" else "exact_match") for t in tasks)
    suites = (replace(ZOO, tasks=tasks),)
    spec = WorkerSpec("zoo:base", EXPERTS, suites, "float32", space=space, objectives=objectives)
    outcome = Worker(spec).run(Job(0, space.recipe(request.params), climb=request))
    assert isinstance(outcome, Scored)
    assert outcome.climbed is not None, outcome.climb_error
    return np.array([*outcome.climbed.params.values()]), outcome.climbed.losses


Genes = Mapping[str, torch.Tensor]


def of_experts(genes: Genes, tensor: str) -> list[torch.Tensor]:
    return [genes[f"coefficient.{expert}"] for expert in EXPERTS]


def of_tensors(genes: Genes, tensor: str) -> list[torch.Tensor]:
    within = re.fullmatch(r"model\.layers\.(\d)\.(.*)\.weight", tensor)
    ends = {"embed_tokens": "model_embed_tokens.0", "norm": "model_norm.5"}
    place = f"{within[2].replace('.', '_')}.{within[1]}" if within else ends[tensor.split(".")[1]]
    return [genes[f"coefficient.{place}.{expert}"] for expert in EXPERTS]


def of_shares(genes: Genes, tensor: str) -> list[torch.Tensor]:
    """A stick of length 1 is broken twice; uniform breaks give uniform shares."""
    rest = (1 - genes["coefficient.math"]).sqrt()  # quantiles of the least of two uniform numbers
    list_ = rest * genes["coefficient.list"]
    return [genes["lambda"] * share for share in (1 - rest, list_, rest - list_)]


@pytest.mark.parametrize(
    ("preset", "coefficients", "tasks"),
    [
        ("adamerging", of_tensors, ("zoo_math", "zoo_facts")),
        ("adamerging_taskwise", of_experts, ("zoo_list", "zoo_facts")),
        ("atlas", of_tensors, ("zoo_facts",)),
        ("self_positioning", of_shares, ("zoo_facts",)),
    ],
)
def test_a_learned_method_takes_the_steps_of_plain_autograd(
    preset: str, coefficients: Callable[..., Sequence[torch.Tensor]], tasks: tuple[str, ...]
) -> None:
    experiment = load_experiment(Presets().names("experiments")[preset], Presets())
    options = experiment.sampler.options
    roles = Sources("zoo:base", EXPERTS).architecture.roles
    tensors = {name: roles[name] for name in PLAIN.base}
    models = ModelSet("zoo:base", EXPERTS, N_LAYERS, "float32", tensors=tensors)
    space = build_space(experiment.search_space, models)
    request = Climb(
        dict(space.defaults),
        voices=(1.0, 0.5)[: len(tasks)],
        steps=4,
        items=5,
        step_size=float(options.get("step_size", 0.15)),
        pull=0.0,
        seed=3,
        loss=options.get("loss", "gold"),
    )
    bounds = np.array([(d.low, d.high) for d in space.distributions.values()]).T
    wanted, losses = learned(request, tasks, torch.tensor(bounds), coefficients)
    found, own_losses = ours(request, tasks, space)
    start = np.array([*request.params.values()])
    unit = request.step_size * (bounds[1] - bounds[0])
    assert np.array(own_losses) == pytest.approx(np.array(losses), rel=1e-3)
    assert (found - start) / unit == pytest.approx((wanted - start) / unit, abs=0.02)
    assert np.abs((found - start) / unit).max() > 1
