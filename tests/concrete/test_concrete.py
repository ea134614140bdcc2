"""Concrete Subspace Learning beside plain autograd, with torch's own relaxed Bernoulli."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch.distributions.relaxed_bernoulli import LogitRelaxedBernoulli, RelaxedBernoulli
from typer.testing import CliRunner

from evomerge.api.masking import learn_mask
from evomerge.cli.main import app
from evomerge.concrete.relaxed import (
    discrete,
    logistic_noise,
    logit_slopes,
    relaxed,
    rescaled,
)
from evomerge.concrete.settings import MaskSettings
from evomerge.errors import EvomergeError
from evomerge.models.zoo import zoo_path
from evomerge.seeds import seed_for
from tests.execution.test_learned import EXPERTS, PLAIN

SETTINGS = MaskSettings(steps=3, rate=0.05, items=3, seed=7)
TASKS = ("zoo_math", "zoo_facts")


def experiment(**others: object) -> dict[str, object]:
    objectives = [
        {"task": "zoo_math", "metric": "exact_match"},
        {"task": "zoo_facts", "metric": "acc"},
    ]
    return {
        "models": {"base": "zoo:base", "experts": EXPERTS, "dtype": "float32"},
        "search_space": "global_linear",
        "evaluators": ["zoo"],
        "objectives": objectives,
        "sampler": "random",
        "budget": {"trials": 2},
        **others,
    }


def test_masks_and_slopes_are_those_of_a_relaxed_bernoulli() -> None:
    logits = torch.linspace(-3, 3, 40, dtype=torch.float64).reshape(5, 8).requires_grad_()
    noise = logistic_noise((5, 8), 3, "x").double()
    mask = relaxed(logits.detach(), noise, 0.5)
    # The density of torch's own at what was drawn, by a change of variables from the logistic's.
    torch.testing.assert_close(
        LogitRelaxedBernoulli(torch.tensor(0.5).double(), logits=logits).log_prob(mask.logit()),
        -noise - 2 * torch.nn.functional.softplus(-noise) + np.log(0.5),
    )
    found = relaxed(logits, noise, 0.5)
    wanted = torch.sigmoid((logits + noise) / 0.5)
    along = torch.randn(5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ((wanted / wanted.mean()) * along).sum().backward()
    assert torch.equal(found, wanted)
    torch.testing.assert_close(logit_slopes(mask, along, 0.5), logits.grad)
    assert rescaled(mask).mean().item() == pytest.approx(1)
    assert torch.equal(rescaled(torch.zeros(3)), torch.zeros(3))


def test_draws_have_the_distribution_of_their_logits() -> None:
    noise = logistic_noise((200_000,), 0, "x")
    for logit in (-1.0, 0.0, 2.0):
        share = discrete(torch.full((200_000,), logit), noise).mean().item()
        assert share == pytest.approx(1 / (1 + np.exp(-logit)), abs=0.005)
    torch.manual_seed(0)
    own = RelaxedBernoulli(torch.tensor(0.5), logits=torch.ones(200_000)).sample().sort().values
    assert (relaxed(torch.ones(200_000), noise, 0.5).sort().values - own).abs().max() < 0.01


def noise_of(settings: MaskSettings, name: str, *labels: str | int) -> torch.Tensor:
    return logistic_noise(tuple(PLAIN.base[name].shape), settings.seed, *labels, name)


def rows(settings: MaskSettings, what: str, step: int, k: int) -> list[int]:
    draws = np.random.default_rng(seed_for(settings.seed, "items", what, step, k))
    return sorted(draws.choice(len(PLAIN.docs[TASKS[k]]), settings.items, replace=False).tolist())


def plain_loss(settings: MaskSettings, what: str, step: int, merged: object) -> torch.Tensor:
    """The sum over tasks of the mean entropy over items."""
    return sum(
        torch.stack(
            [PLAIN.entropy(merged, task, row) for row in rows(settings, what, step, k)]  # type: ignore[arg-type]
        ).mean()
        for k, task in enumerate(TASKS)
    )  # type: ignore[return-value]


def masked(
    masks: Mapping[str, torch.Tensor], coefficients: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    return {
        name: base
        + masks[name]
        / masks[name].mean()
        * sum(c * own[name] for c, own in zip(coefficients[name], PLAIN.task_vectors, strict=True))
        for name, base in PLAIN.base.items()
    }


def plain_learned(settings: MaskSettings) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Logits and losses by torch's autograd and Adam."""
    logits = {n: torch.zeros_like(t).requires_grad_() for n, t in PLAIN.base.items()}
    adam = torch.optim.Adam(logits.values(), lr=settings.rate)
    losses = []
    for step in range(settings.steps):
        masks = {
            name: torch.sigmoid((x + noise_of(settings, name, "mask", step)) / settings.temperature)
            for name, x in logits.items()
        }
        start = {n: torch.full((3,), settings.coefficient).requires_grad_() for n in logits}
        coefficients: dict[str, torch.Tensor] = start
        if settings.inner_rate:
            fixed = {name: mask.detach() for name, mask in masks.items()}
            inner = plain_loss(settings, "inner", step, masked(fixed, start))
            slopes = torch.autograd.grad(inner, [*start.values()])
            coefficients = {
                n: (c - settings.inner_rate * slope).detach()
                for (n, c), slope in zip(start.items(), slopes, strict=True)
            }
        loss = plain_loss(settings, "mask", step, masked(masks, coefficients))
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    return {name: x.detach() for name, x in logits.items()}, losses


@pytest.mark.parametrize("inner_rate", [0.0, 0.5])
def test_a_mask_takes_the_steps_of_plain_autograd(inner_rate: float, tmp_path: Path) -> None:
    settings = replace(SETTINGS, inner_rate=inner_rate)
    found = learn_mask(experiment(), tmp_path, settings)
    logits, losses = plain_learned(settings)
    assert found.losses == pytest.approx(losses, rel=1e-4)
    stored = load_file(tmp_path / "mask.safetensors")
    assert stored.keys() == logits.keys()
    for name, x in logits.items():
        noise = noise_of(settings, name, "final")
        wanted = torch.sigmoid((x + noise) / 0.5)
        difference = (stored[name] - wanted / wanted.mean()).abs()
        # Adam's first steps are signs: where a slope is about zero, rounding decides.
        assert (difference > 1e-3).float().mean() < 0.02
        unmoved = torch.sigmoid(noise / 0.5)
        moved = (stored[name] - unmoved / unmoved.mean()).abs().mean()
        has_changed = any(own[name].any() for own in PLAIN.task_vectors)
        assert (moved > 1e-2) == has_changed
    for i, (name, vectors) in enumerate(zip(EXPERTS, PLAIN.task_vectors, strict=True)):
        expert = load_file(tmp_path / name / "model.safetensors")
        for tensor in list(expert)[i::3]:
            wanted = PLAIN.base[tensor] + stored[tensor] * vectors[tensor]
            assert torch.allclose(expert[tensor].float(), wanted, rtol=2**-8, atol=1e-6)


def test_what_was_learned_is_kept_by_content(tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=1, items=1, loss="gold", final="discrete")
    learned: list[int] = []
    found = learn_mask(experiment(), tmp_path, settings, learning=lambda i, n: learned.append(i))
    mask = load_file(tmp_path / "mask.safetensors")["model.norm.weight"]
    assert len(mask.unique()) == 2
    again = learn_mask(experiment(), tmp_path, settings, learning=lambda i, n: learned.append(i))
    assert again == found
    assert learned == [1]
    other = replace(settings, seed=8)
    shutil.copytree(tmp_path / "math", tmp_path / "earlier")  # under a mask, no expert any more
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "recipe.yaml").write_text("# mine")
    assert learn_mask(experiment(), tmp_path, other).digest != found.digest
    assert not (tmp_path / "earlier").exists()
    assert (tmp_path / "mine" / "recipe.yaml").read_text() == "# mine"


def test_the_command_writes_experts_that_merge(tmp_path: Path) -> None:
    file, out = tmp_path / "e.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(experiment()))
    how = ["--steps", "2", "--items", "1", "--rate", "0.1"]
    done = CliRunner().invoke(app, ["learn-mask", str(file), "--out", str(out), *how])
    assert done.exit_code == 0, done.output
    assert "in the first tenth of the steps to" in " ".join(done.output.split())
    merged = str(tmp_path / "merged")
    done = CliRunner().invoke(app, ["merge", str(out / "recipe.yaml"), "--out", merged])
    assert done.exit_code == 0, done.output
    mask = load_file(out / "mask.safetensors")["model.norm.weight"]
    found = load_file(tmp_path / "merged" / "model.safetensors")["model.norm.weight"]
    change = sum(own["model.norm.weight"] for own in PLAIN.task_vectors)
    wanted = PLAIN.base["model.norm.weight"] + 0.3 * mask * change
    assert torch.allclose(found.float(), wanted, rtol=2**-7)


def test_what_cannot_be_learned_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("mine")
    wrong = MaskSettings(steps=0, rate=-1.0, temperature=0.0, inner_rate=-1.0)
    with pytest.raises(EvomergeError) as error:
        learn_mask(experiment(), tmp_path, wrong)
    said = str(error.value)
    for name in ("steps: expected at least 1, got 0", "rate: expected a number above 0, got -1.0"):
        assert name in said
    assert "out: expected an empty folder, or one with mask.yaml" in said
    bad = tmp_path / "bad"
    shutil.copytree(zoo_path("math"), bad)
    tensors = load_file(bad / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, bad / "model.safetensors", metadata={"format": "pt"})
    broken = experiment(models={"base": "zoo:base", "experts": {"math": str(bad)}})
    with pytest.raises(EvomergeError, match="got 1 NaN or infinite out of 96 in tensor model"):
        learn_mask(broken, tmp_path / "out", SETTINGS)
    costs = experiment(objectives=[{"cost": "parameters"}])
    with pytest.raises(EvomergeError, match="objectives: expected one of a task"):
        learn_mask(costs, tmp_path / "out")
