"""Shared fixtures: everything offline, tiny random models with a real tokenizer."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("EVOMERGE_CACHE", "off")  # tests of caches choose their own
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_worker_niceness", "0")  # else they wait for the tests beside them

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.tiny import save_tiny_llama

# How fast a machine is decides no test.
settings.register_profile("any", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any")


@pytest.fixture(scope="session")
def tiny_family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base and three experts: random Llamas with 4 layers, experts near the base."""
    root = tmp_path_factory.mktemp("tiny")
    folders = {"base": root / "base"}
    base = save_tiny_llama(folders["base"], seed=0)
    for seed, name in enumerate(("one", "two", "three"), start=1):
        folders[name] = root / name
        save_tiny_llama(folders[name], seed=seed, near=base)
    return folders


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
