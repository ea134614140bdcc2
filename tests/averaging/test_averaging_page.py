"""docs/averaging.md: its recipes do what torch's optimisers do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

import evomerge
from evomerge.averaging.callback import AveragingCallback
from tests.averaging.runs import arrays
from tests.averaging.test_average import assert_equal
from tests.pages import DOCS, run_page
from tests.tiny import save_tiny_llama

PAGE = DOCS / "averaging.md"


def save(folder: Path, seed: int, near: LlamaForCausalLM | None = None) -> LlamaForCausalLM:
    return save_tiny_llama(folder, seed=seed, near=near, dtype=torch.float32, n_layers=1)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    assert isinstance(run_page(PAGE, tmp_path)["mean"], AveragingCallback)
    return tmp_path


def test_federated_averaging_counts_examples(here: Path) -> None:
    for seed, name in enumerate(("clinic", "lab")):
        save(here / name, seed)
    evomerge.merge(here / "fedavg.yaml", here / "server")
    clinic, lab = arrays(here / "clinic"), arrays(here / "lab")
    assert_equal(arrays(here / "server"), {n: 0.8 * clinic[n] + 0.2 * lab[n] for n in clinic})


def test_two_rounds_of_the_outer_step_are_those_of_nesterov_in_torch(here: Path) -> None:
    model = save(here / "start", 0)
    shutil.copytree(here / "start", here / "step_before")
    named = dict(model.named_parameters())
    outer = torch.optim.SGD(named.values(), lr=0.7, momentum=0.9, nesterov=True)
    for turn in range(2):
        workers = [save(here / name, 3 * turn + seed, model) for seed, name in WORKERS]
        for name, parameter in named.items():
            found = [dict(worker.named_parameters())[name] for worker in workers]
            parameter.grad = parameter.detach() - sum(found).detach() / 2  # type: ignore[union-attr]
        outer.step()
        evomerge.merge(here / "step.yaml", here / "step")
        evomerge.merge(here / "momentum.yaml", here / "after")
        expected = {name: p.detach().double().numpy() for name, p in named.items()}
        assert_equal(arrays(here / "after"), expected)
        shutil.rmtree(here / "step_before")
        (here / "step").rename(here / "step_before")
        shutil.rmtree(here / "start")
        (here / "after").rename(here / "start")


WORKERS = ((1, "one"), (2, "two"))
