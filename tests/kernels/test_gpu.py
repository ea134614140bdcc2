"""The Triton kernel in Triton's interpreter, against the eager kernel.

The interpreter is switched on by an environment variable that Triton reads when its functions are
defined; on a machine with a GPU the same tests run compiled.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"
triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")

from evomerge.kernels.eager import merge_eager, slopes_eager  # noqa: E402
from evomerge.kernels.gpu import merge_gpu, slopes_gpu  # noqa: E402
from evomerge.kernels.gpu.arithmetic import hash24, high_word_salt  # noqa: E402
from evomerge.kernels.gpu.segments import Segments  # noqa: E402
from evomerge.kernels.job import MergeJob, SlopeJob  # noqa: E402
from evomerge.kernels.masks import hash24 as numpy_hash24  # noqa: E402
from evomerge.kernels.plan import Band, Elect, RandomMask, TensorPlan  # noqa: E402
from evomerge.kernels.structure import (  # noqa: E402
    Structure,
    has_compiled_slopes,
    is_supported,
)
from tests.kernels.comparing import same_bytes  # noqa: E402
from tests.kernels.plans import Case, cases  # noqa: E402
from tests.kernels.slopes import assert_close, slope_jobs  # noqa: E402


def on_device(case: Case) -> MergeJob:
    base = None if case.base is None else case.base.to(DEVICE)
    experts = [expert.to(DEVICE) for expert in case.experts]
    return MergeJob(case.plan, base, experts, case.buffer().to(DEVICE))


@settings(max_examples=50, deadline=None)
@given(case=cases())
def test_has_the_bytes_of_eager_on_any_plan_shape_and_dtype(case: Case) -> None:
    assume(is_supported(case.job()))
    job, expected = on_device(case), case.buffer()
    merge_gpu([job])
    merge_eager(case.plan, case.base, case.experts, expected)
    assert same_bytes(job.out.cpu(), expected), (job.out, expected)


@settings(max_examples=5, deadline=None)
@given(drawn=st.lists(cases(shapes=[(3, 100), (257,), (64,), (0,)]), min_size=2, max_size=3))
def test_one_launch_merges_many_tensors_in_many_blocks(drawn: list[Case]) -> None:
    drawn = [case for case in drawn if is_supported(case.job())]
    jobs = [on_device(case) for case in drawn]
    merge_gpu(jobs, block=128)
    for case, job in zip(drawn, jobs, strict=True):
        expected = case.buffer()
        merge_eager(case.plan, case.base, case.experts, expected)
        assert same_bytes(job.out.cpu(), expected)


@settings(
    max_examples=3,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.filter_too_much],
)
@given(drawn=st.lists(slope_jobs([(3, 100), (257,), (64,)]), min_size=2, max_size=3))
def test_one_launch_finds_the_slopes_of_many_tensors(drawn: list[SlopeJob]) -> None:
    drawn = [job for job in drawn if has_compiled_slopes(job)]
    there = [
        SlopeJob(
            job.plan,
            None if job.base is None else job.base.to(DEVICE),
            [expert.to(DEVICE) for expert in job.experts],
            job.gradient.to(DEVICE),
        )
        for job in drawn
    ]
    for job, slopes in zip(drawn, slopes_gpu(there, block=128), strict=True):
        assert_close(slopes, slopes_eager(job), job, 1e-5)


@pytest.mark.parametrize("n", [1 << 17, 100_003])
def test_large_bfloat16_tensors_have_the_bytes_of_eager(n: int) -> None:
    torch.manual_seed(0)
    base, *experts = torch.randn(4, n).bfloat16()
    sparse = (Band(0.5), RandomMask(key=1 << 60, keep=0.4), None)
    plan = TensorPlan((0.3, 0.5, 0.9), sparse=sparse, combine=Elect(), normalize_by_mask=True)
    expected, out = torch.empty_like(base), torch.empty_like(base, device=DEVICE)
    merge_eager(plan, base, experts, expected)
    job = MergeJob(plan, base.to(DEVICE), [expert.to(DEVICE) for expert in experts], out)
    merge_gpu([job], block=1 << 16)
    assert same_bytes(out.cpu(), expected)


def test_tensors_in_a_stage_are_read_where_they_are() -> None:
    """Views into one flat buffer, as experts that stream have, give the bytes without a copy."""
    torch.manual_seed(0)
    sources = torch.randn(4, 3, 257).bfloat16()
    size, step = sources[0].nbytes, 2048
    stage = torch.zeros(4 * step, dtype=torch.uint8, device=DEVICE)
    staged = []
    for i, source in enumerate(sources):
        part = stage[i * step : i * step + size]
        part.copy_(source.reshape(-1).view(torch.uint8))
        staged.append(part.view(torch.bfloat16).view(3, 257))
    plan = TensorPlan((0.3, 0.5, 0.9), sparse=(Band(0.5), RandomMask(7, 0.4), None))
    job = MergeJob(plan, staged[0], staged[1:], torch.empty_like(staged[0]))
    segments = Segments.of([job], Structure.of(job), block=128)
    assert [t.data_ptr() for t in segments.buffers[1:]] == [t.data_ptr() for t in staged]
    merge_gpu([job], block=128)
    expected = torch.empty_like(sources[0])
    merge_eager(plan, sources[0], list(sources[1:]), expected)
    assert same_bytes(job.out.cpu(), expected)


def test_the_block_table_is_made_once_for_all_candidates_of_the_same_sizes() -> None:
    tensors = [torch.randn(n, device=DEVICE) for n in (300, 64, 129)]
    tables = []
    for coefficient in (0.2, 0.7):
        plan = TensorPlan((coefficient,))
        jobs = [MergeJob(plan, t, [t], torch.empty_like(t)) for t in tensors]
        tables.append(Segments.of(jobs, Structure.of(jobs[0]), block=128).arguments)
    assert tables[0][0] is tables[1][0]
    assert tables[0][0].tolist() == [0, 0, 0, 1, 2, 2]
    assert tables[0][1].tolist() == [0, 3, 4]


@triton.jit
def _hashes(out, start, low_key, high_key, BLOCK: tl.constexpr):
    begin = tl.load(start)
    position = begin + tl.arange(0, BLOCK)
    salt = high_word_salt(tl.load(high_key), begin)
    hashed = hash24(position.to(tl.uint32), tl.load(low_key).to(tl.uint32), salt)
    tl.store(out + tl.arange(0, BLOCK), hashed.to(tl.int64))


@settings(max_examples=20, deadline=None)
@given(key=st.integers(0, 2**63 - 1), block=st.integers(0, 2**31))
def test_masks_are_those_of_numpy_even_past_32_bit_indices(key: int, block: int) -> None:
    start = block * 256
    out = torch.zeros(256, dtype=torch.int64, device=DEVICE)
    words = [torch.tensor([w], device=DEVICE) for w in (start, key & 0xFFFFFFFF, key >> 32)]
    _hashes[(1,)](out, *words, BLOCK=256)
    expected = numpy_hash24(key, np.arange(start, start + 256, dtype=np.uint64))
    assert np.array_equal(out.cpu().numpy(), expected.astype(np.int64))
