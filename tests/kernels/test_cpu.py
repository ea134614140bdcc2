"""The compiled CPU kernel gives the bytes of the eager kernel.

Compiling takes a second per structure, so the whole contract is covered by test_formula, and here
only what the loop around the formula adds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from numba.core.caching import IndexDataCacheFile

from evomerge.kernels.cpu import merge_cpu
from evomerge.kernels.cpu.arithmetic import (
    decode_float16,
    encode_bfloat16,
    encode_float16,
    hash24,
    high_word_salt,
)
from evomerge.kernels.cpu.compiling import compiled_loop
from evomerge.kernels.cpu.merging import _parts
from evomerge.kernels.eager import merge_eager
from evomerge.kernels.job import MergeJob
from evomerge.kernels.masks import hash24 as numpy_hash24
from evomerge.kernels.plan import (
    Band,
    Elect,
    RandomMask,
    RankedMask,
    RowBand,
    Table,
    TensorPlan,
)
from evomerge.kernels.structure import Structure, is_supported
from tests.kernels.comparing import same_bytes
from tests.kernels.plans import Case, cases

BASE, *EXPERTS = torch.randn(3, 700, 300, generator=torch.Generator().manual_seed(0))
ROWS = Table(np.linspace(0.1, 1.0, 700, dtype=np.float32))
COLUMNS = Table(np.linspace(-1.0, 1.0, 300, dtype=np.float32))
KNOTS = Table(np.tile(np.linspace(0, 3, 5, dtype=np.float32), (700, 1)))
PLAN = TensorPlan((0.4, 0.7))
PLAIN = TensorPlan((0.4, 0.7), offset=0.5)
PLANS = {
    "masks": replace(PLAN, sparse=(RandomMask(1 << 62, 0.3), RandomMask(2, 0.9)), combine=Elect()),
    "rows": replace(
        PLAN,
        sparse=(RowBand(ROWS, ROWS), RankedMask(7, 0.2, 0.8, KNOTS, rescale=True)),
        row_scale=(None, ROWS),
        column_scale=(COLUMNS, None),
    ),
}


def merged(plan: TensorPlan, dtype: torch.dtype, out_dtype: torch.dtype) -> list[torch.Tensor]:
    base, experts = BASE.to(dtype), [expert.to(dtype) for expert in EXPERTS]
    outs = [torch.full(BASE.shape, float("nan"), dtype=out_dtype) for _ in range(2)]
    merge_cpu([MergeJob(plan, base, experts, outs[0])])
    merge_eager(plan, base, experts, outs[1])
    return outs


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_and_vectors_do_not_change_a_byte(plan: TensorPlan, threads: int) -> None:
    torch.set_num_threads(threads)
    ours, theirs = merged(plan, torch.bfloat16, torch.bfloat16)
    torch.set_num_threads(1)
    assert same_bytes(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_reads_and_writes_every_dtype(dtype: torch.dtype) -> None:
    other = torch.float32 if dtype == torch.bfloat16 else torch.bfloat16
    for ours, theirs in (merged(PLAN, dtype, other), merged(PLAN, other, dtype)):
        assert same_bytes(ours, theirs)


@settings(
    max_examples=5,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.filter_too_much],
)
@given(case=cases())
def test_has_the_bytes_of_eager_on_any_plan_shape_and_dtype(case: Case) -> None:
    assume(is_supported(case.job()))
    ours, theirs = case.buffer(), case.buffer()
    merge_cpu([case.job(ours)])
    merge_eager(case.plan, case.base, case.experts, theirs)
    assert same_bytes(ours, theirs)


def test_float16_is_read_and_rounded_as_torch_does() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16)
    expected = torch.from_numpy(halves.view(np.float16)).float().numpy()
    assert np.array_equal([decode_float16(h) for h in halves], expected, equal_nan=True)
    numbers = torch.randn(20_000) * torch.logspace(-9, 6, 20_000)
    rounded = np.array([encode_float16(x) for x in numbers.numpy()], np.uint16)
    assert np.array_equal(rounded.view(np.float16), numbers.half().numpy())


def test_nan_and_infinity_survive_rounding() -> None:
    for encode, dtype in ((encode_bfloat16, torch.bfloat16), (encode_float16, torch.float16)):
        bits = [int(encode(np.float32(x))) for x in ("nan", "inf", "-inf", 3.4e38)]
        values = torch.tensor(bits, dtype=torch.int32).to(torch.int16).view(dtype).float()
        assert values[0].isnan()
        assert values[1:].tolist() == [float("inf"), -float("inf"), float("inf")]


@pytest.mark.parametrize("start", [0, (1 << 32) - 5, 3 << 32])
def test_masks_are_those_of_numpy_even_past_32_bit_indices(start: int) -> None:
    key, index = 0x1234_5678_9ABC_DEF0, np.arange(start, start + 10, dtype=np.uint64)
    low, high = np.uint32(key & 0xFFFFFFFF), np.uint32(key >> 32)
    ours = [hash24(np.uint32(i & 0xFFFFFFFF), low, high_word_salt(high, int(i))) for i in index]
    assert ours == numpy_hash24(key, index).tolist()


def test_parts_cover_every_element_once_and_stay_within_a_word() -> None:
    n = (1 << 33) + 12345
    parts = list(_parts(n, threads=3))
    assert [start for start, _ in parts] == [0, *[stop for _, stop in parts[:-1]]]
    assert parts[-1][1] == n
    assert all(start >> 32 == (stop - 1) >> 32 for start, stop in parts)


def test_coefficients_densities_and_keys_do_not_shape_the_code() -> None:
    def structure(c: float, density: float, key: int) -> Structure:
        masks = (RandomMask(key, density), None if density == 1 else RandomMask(key + 1, density))
        return structure_of(TensorPlan((c, 1.0), sparse=masks, scale=c))

    assert structure(0.5, 0.2, 1) == structure(-1.0, 1.0, 7)
    one = structure_of(TensorPlan((1.0, 1.0), sparse=(Band(0.1), None)))
    assert one == structure_of(TensorPlan((1.0, 1.0), sparse=(Band(0.0), Band(3.0))))


def structure_of(plan: TensorPlan) -> Structure:
    return Structure.of(MergeJob(plan, BASE, EXPERTS, BASE))


@pytest.mark.skipif(os.name == "nt", reason="permissions")
def test_runs_without_a_folder_for_machine_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOMERGE_CACHE", "/dev/null/nowhere")
    plan = TensorPlan((0.5, 0.5), offset=1.0)
    ours, theirs = merged(plan, torch.bfloat16, torch.bfloat16)
    assert same_bytes(ours, theirs)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache with the machine code of one loop; what the process holds of it is forgotten."""
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path))
    compiled_loop.cache_clear()
    merged(PLAIN, torch.bfloat16, torch.bfloat16)
    compiled_loop.cache_clear()
    yield tmp_path / "kernels"
    compiled_loop.cache_clear()


def test_machine_code_is_loaded_and_not_written_again(kept: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in kept.rglob("*.nb?")}
    assert {file.suffix for file in before} == {".nbi", ".nbc"}
    ours, theirs = merged(PLAIN, torch.bfloat16, torch.bfloat16)
    assert same_bytes(ours, theirs)
    assert {file: file.stat().st_mtime_ns for file in kept.rglob("*.nb?")} == before


@pytest.mark.parametrize("suffix", [".nbi", ".nbc", ".py"])
def test_damaged_machine_code_is_made_again(suffix: str, kept: Path) -> None:
    (file,) = (f for f in kept.rglob(f"*{suffix}"))
    whole = file.read_bytes()
    middle = len(whole) // 2
    file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :])
    ours, theirs = merged(PLAIN, torch.bfloat16, torch.bfloat16)
    assert same_bytes(ours, theirs)


def test_a_disk_that_fails_the_compiler_only_costs_time(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for file in kept.rglob("*.nb?"):
        file.unlink()
    monkeypatch.setattr(IndexDataCacheFile, "_save_data", full)
    ours, theirs = merged(PLAIN, torch.bfloat16, torch.bfloat16)
    assert same_bytes(ours, theirs)
