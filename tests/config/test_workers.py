"""How many workers run on this machine."""

from __future__ import annotations

import os

import pytest
import torch

from evomerge.config.experiment import ExecutionConfig
from evomerge.config.workers import worker_count


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system does not tell")
def test_one_worker_runs_per_core_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 5})
    assert worker_count(ExecutionConfig()) == 3


def test_where_the_system_does_not_tell_there_is_one_per_core(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert worker_count(ExecutionConfig()) == 8
