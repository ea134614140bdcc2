"""Costs of a worker's candidates against brute force, on the embedded models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedModel

from evomerge.config.presets import Presets
from evomerge.evaluation.prepared import PreparedSuites
from evomerge.evaluation.scores import MetricValue
from evomerge.execution.protocol import Job, Scored, WorkerSpec
from evomerge.execution.worker import Worker
from evomerge.merging.candidate import load_model
from evomerge.merging.folder import write_checkpoint
from evomerge.models.reference import resolve_model
from evomerge.recipe.recipe import Recipe, Rule
from evomerge.runs.parts import load_suites

EXPERTS = {"math": "zoo:math", "list": "zoo:list"}
SUITES = tuple(replace(s, limit=8) for s in load_suites(["zoo"], Presets(), Path.cwd()))
COSTS = (
    *("parameters", "hops", "output_tokens", "truncated", "seconds_per_item"),
    *("distance", "distance:math", "kl", "kl:math"),
)


def mix(**coefficients: float) -> Recipe:
    of = {name: coefficients.get(name, 0.0) for name in EXPERTS}
    return Recipe(EXPERTS, (Rule("task_arithmetic", {"coefficient": of}),), base="zoo:base")


@pytest.fixture(scope="module")
def worker() -> Worker:
    return Worker(WorkerSpec("zoo:base", EXPERTS, SUITES, costs=COSTS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The candidate that is measured, as an ordinary checkpoint."""
    out = tmp_path_factory.mktemp("merge") / "model"
    write_checkpoint(mix(math=0.5, list=0.3), out)
    return out


@pytest.fixture(scope="module")
def merged(folder: Path) -> PreTrainedModel:
    return load_model(str(folder), "auto")


@pytest.fixture(scope="module")
def measured(worker: Worker) -> dict[str, MetricValue]:
    return costs(worker, mix(math=0.5, list=0.3))


def costs(worker: Worker, recipe: Recipe, split: str = "search") -> dict[str, MetricValue]:
    outcome = worker.run(Job(0, recipe, split))
    assert isinstance(outcome, Scored), outcome
    assert tuple(outcome.scores.metrics["cost"]) == COSTS
    return dict(outcome.scores.metrics["cost"])


def zoo(name: str) -> PreTrainedModel:
    return load_model(str(resolve_model(f"zoo:{name}")), "auto")


def test_size_is_that_of_the_exported_model(
    measured: dict[str, MetricValue], merged: PreTrainedModel
) -> None:
    assert measured["parameters"].value == merged.num_parameters()
    assert measured["hops"].value == merged.config.num_hidden_layers


@pytest.mark.parametrize(("metric", "reference"), [("distance", "base"), ("distance:math", "math")])
def test_distance_equals_brute_force(
    measured: dict[str, MetricValue], merged: PreTrainedModel, metric: str, reference: str
) -> None:
    ours, theirs = (
        torch.cat([p.detach().double().flatten() for p in model.parameters()])
        for model in (merged, zoo(reference))
    )
    expected = ((ours - theirs).norm() / theirs.norm()).item()
    assert expected > 0.001
    assert measured[metric].value == pytest.approx(expected, rel=1e-6)


def test_output_tokens_equal_a_count_of_the_answers(
    measured: dict[str, MetricValue], merged: PreTrainedModel, folder: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prepared = PreparedSuites.of(SUITES, "search", merged, tokenizer)
    prepared.score()
    answers = [
        request.resps[0]
        for task in prepared.tasks
        for request in task.task.instances
        if request.request_type == "generate_until"
    ]
    lengths = [len(tokenizer.encode(answer, add_special_tokens=False)) for answer in answers]
    assert len(set(lengths)) > 1
    assert measured["output_tokens"].n == len(lengths) == 16
    assert measured["output_tokens"].value == pytest.approx(sum(lengths) / len(lengths))
    assert measured["output_tokens"].stderr > 0


def test_cut_off_answers_are_those_without_an_end(
    measured: dict[str, MetricValue], merged: PreTrainedModel, folder: Path
) -> None:
    """Plain ``generate``, prompt by prompt: no end token and no stop string within the limit."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tasks = PreparedSuites.of(SUITES, "search", merged, tokenizer).tasks
    requests = [r for t in tasks for r in t.task.instances if r.request_type == "generate_until"]
    cut_off = []
    for request in requests:
        prompt, settings = request.args
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        said = merged.generate(ids, max_new_tokens=settings["max_gen_toks"], do_sample=False)
        text = tokenizer.decode(said[0, ids.shape[1] :])
        cut_off.append(not any(stop in text for stop in (*settings["until"], tokenizer.eos_token)))
    assert measured["truncated"].value == sum(cut_off) / len(cut_off)
    assert measured["truncated"].n == len(cut_off)


def test_seconds_are_per_item(measured: dict[str, MetricValue]) -> None:
    assert measured["seconds_per_item"].n == 24
    assert measured["seconds_per_item"].value > 0


def test_kl_equals_brute_force(
    measured: dict[str, MetricValue], merged: PreTrainedModel, folder: Path
) -> None:
    """All prompts are in the sample, since there are fewer than 64."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    reference = zoo("math")
    prompts = set()
    for task in PreparedSuites.of(SUITES, "search", merged, tokenizer).tasks:
        for item in task.items:
            prompts.add("".join(a for a in item.requests[0].args if isinstance(a, str)))
    each = []
    for prompt in prompts:
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        with torch.no_grad():
            p, q = (m(ids).logits[0, -4:].float().log_softmax(-1) for m in (reference, merged))
        each.append((p.exp() * (p - q)).sum(-1).mean().item())
    assert measured["kl:math"].n == len(each)
    # Batches of another size round bfloat16 sums otherwise.
    assert measured["kl:math"].value == pytest.approx(sum(each) / len(each), rel=0.05)
    assert measured["kl:math"].value != pytest.approx(measured["kl"].value, rel=0.05)


def test_a_reference_is_at_no_distance_from_itself(worker: Worker) -> None:
    base = costs(worker, mix())
    assert base["distance"].value == 0
    assert base["kl"].value == 0
    assert base["kl:math"].value > 0
    expert = Recipe(EXPERTS, (Rule("linear", {"coefficient": {"math": 1.0, "list": 0.0}}),))
    found = costs(worker, replace(expert, base="zoo:base"))
    assert found["distance:math"].value == 0
    assert found["kl:math"].value == 0


def test_costs_are_the_same_after_other_candidates(
    worker: Worker, measured: dict[str, MetricValue]
) -> None:
    again = costs(worker, mix(math=0.5, list=0.3))
    for name in set(COSTS) - {"seconds_per_item"}:
        assert again[name] == measured[name]


def test_held_out_splits_have_costs_of_their_own_items(worker: Worker) -> None:
    held_out = costs(worker, mix(math=0.5), "validation")
    assert held_out["kl"].value > 0
    assert held_out["output_tokens"].n == 16


def test_nothing_is_measured_unless_asked_for() -> None:
    plain = Worker(WorkerSpec("zoo:base", EXPERTS, SUITES))
    outcome = plain.run(Job(0, mix(math=1.0)))
    assert isinstance(outcome, Scored)
    assert "cost" not in outcome.scores.metrics
