"""Which kernel runs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings

from evomerge.errors import ConfigError
from evomerge.kernels import choice
from evomerge.kernels.choice import kernel_choice, merge_all, slopes_all
from evomerge.kernels.eager import merge_eager
from evomerge.kernels.job import MergeJob, SlopeJob
from evomerge.kernels.plan import ScoreMean, TensorPlan
from tests.kernels.comparing import same_bytes
from tests.kernels.plans import Case, cases


@settings(max_examples=30, deadline=None)
@given(case=cases())
def test_small_work_of_any_plan_is_merged_without_compiling(case: Case) -> None:
    ours, theirs = case.buffer(), case.buffer()
    merge_all([MergeJob(case.plan, case.base, case.experts, ours)])
    merge_eager(case.plan, case.base, case.experts, theirs)
    assert same_bytes(ours, theirs)


@pytest.fixture
def kernels_run(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernels that run, with a structure worth compiling from 100 elements on."""
    from evomerge.kernels import cpu

    ran: list[str] = []

    monkeypatch.setattr(choice, "_elements", choice.Counter())
    monkeypatch.setattr(choice, "_WORTH_COMPILING", 100)
    monkeypatch.setattr(choice, "merge_eager", lambda *_: ran.append("eager"))
    monkeypatch.setattr(cpu, "merge_cpu", lambda jobs: ran.extend("cpu" for _ in jobs))
    choice._compiled.cache_clear()
    yield ran
    choice._compiled.cache_clear()


def test_a_structure_is_compiled_once_it_has_met_enough_elements(kernels_run: list[str]) -> None:
    expert, out = torch.ones(2, 40)
    for coefficient in (0.1, 0.2, 0.3):
        merge_all([MergeJob(TensorPlan((coefficient,)), expert, [expert], out)])
    assert kernels_run == ["eager", "eager", "cpu"]


def test_eager_runs_what_compiled_kernels_leave_out(kernels_run: list[str]) -> None:
    large = torch.ones(1000)
    scores = ScoreMean(low=(0.0,), high=(1.0,), cut=(0.0,), top=(1.0,))
    merge_all([MergeJob(TensorPlan((1.0,), combine=scores), large, [large], large.clone())])
    merge_all([MergeJob(TensorPlan((1.0,)), large.double(), [large], large.clone())])
    assert kernels_run == ["eager", "eager"]


@pytest.fixture
def eager_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOMERGE_KERNEL", "eager")


@pytest.mark.usefixtures("eager_wanted")
def test_the_environment_keeps_plans_out_of_compiled_kernels(kernels_run: list[str]) -> None:
    large = torch.ones(1000)
    merge_all([MergeJob(TensorPlan((1.0,)), large, [large], large.clone())])
    assert kernels_run == ["eager"]
    assert kernel_choice("cuda")[0] == kernel_choice("cpu")[0] == "eager"


@pytest.mark.usefixtures("eager_wanted")
def test_the_environment_keeps_slopes_out_of_compiled_kernels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    large = torch.ones(1 << 13)
    monkeypatch.setattr(choice, "slopes_eager", lambda _: "eager")
    assert slopes_all([SlopeJob(TensorPlan((1.0,)), large, [large], large)]) == ["eager"]


def test_a_kernel_that_is_not_there_to_choose_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOMERGE_KERNEL", "cuda")
    with pytest.raises(
        ConfigError, match=r"expected eager or nothing .* EVOMERGE_KERNEL, got 'cuda'"
    ):
        kernel_choice("cuda")
