"""Every method and modifier, in every dtype, on odd shapes: the device gives the CPU's bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from evomerge.kernels.choice import merge_all
from evomerge.kernels.cpu import merge_cpu
from evomerge.kernels.eager import merge_eager
from evomerge.kernels.gpu import merge_gpu
from evomerge.kernels.job import MergeJob
from evomerge.kernels.masks import hash24, keep_threshold
from evomerge.kernels.plan import RandomMask, RankedMask, Table, TensorPlan
from evomerge.kernels.structure import is_supported
from evomerge.methods.base import TensorContext
from evomerge.methods.modifiers import MODIFIERS, bind_modifiers
from evomerge.methods.registry import method, method_names
from evomerge.methods.slopes import Lowering
from evomerge.statistics.tensor import TensorStatistics
from tests.benchmarks.gpu.bench import Bench
from tests.kernels.comparing import same_bytes

__all__ = ["run"]

_Rule = tuple[tuple[str, ...], Lowering]

_EXPERTS = ("e0", "e1", "e2")
_SHAPES = ((1,), (7,), (3, 5), (257,), (4, 65), (2, 3, 4), (33, 129), (64, 128))
_DTYPES = (torch.bfloat16, torch.float32, torch.float16)
_KEYS = (1, (1 << 40) + 7, (1 << 63) - 1)
_CLOSE = 2e-2  # relative and absolute, of what plain torch computes on either device
_LONG = ((1 << 32) + 4099, (1 << 31) + 4099)  # elements
_TAIL = 1000  # elements whose masks are calculated by hand
_CHUNK = 1 << 28  # elements compared at a time
_SPARE_S = 25.0  # for long tensors and masks


def run(bench: Bench) -> None:
    """Check masks, then rules dtype by dtype, then tensors beyond 32-bit offsets."""
    with bench.part("masks"):
        _check_masks(bench)
    with bench.part("long tensors"):
        _check_long(bench)
    for dtype in _DTYPES:
        with bench.part(f"rules in {dtype}"):
            _check_rules(bench, dtype)


def _check_rules(bench: Bench, dtype: torch.dtype) -> None:
    name = str(dtype).removeprefix("torch.")
    mine = _rules()
    if bench.is_dry:  # each rule in one dtype, and few tensors: the interpreter is slow
        mine = {
            n: rule for i, (n, rule) in enumerate(mine.items()) if i % 3 == _DTYPES.index(dtype)
        }
    wrong: dict[str, list[str]] = {"compiled": [], "plain torch": []}
    n = 0
    for rule in bench.in_time(mine, 1.0):
        n += 1
        for kernel, fault in _faults(bench, mine[rule], dtype):
            wrong[kernel].append(f"{rule} {fault}")
    for kernel, faults in wrong.items():
        bench.checked(f"rules in {name}: {kernel} gives the CPU's bytes", faults, n)


def _rules() -> dict[str, _Rule]:
    """Every method, and every modifier of one, by name; with their experts' names."""
    found = {}
    for name in method_names():
        experts = _EXPERTS[: method(name).n_experts[1]]
        found[name] = (experts, Lowering(method(name).bind({}, experts)))
    plain = method("task_arithmetic").bind({}, _EXPERTS)
    for name in MODIFIERS:
        lowering = Lowering(plain, bind_modifiers({name: {}}, _EXPERTS))
        found[f"task_arithmetic with {name}"] = (_EXPERTS, lowering)
    return found


def _faults(bench: Bench, rule: _Rule, dtype: torch.dtype) -> Iterator[tuple[str, str]]:
    """Merge all shapes by one rule; yield which kernel fails in which way."""
    here = list(_jobs(rule, dtype, _SHAPES[4:5] if bench.is_dry else _SHAPES))
    for kernel, merge in (("compiled", _compiled), ("plain torch", _eager)):
        there = [_moved(job, bench.device) for job in here]
        try:
            merge(there)
            off = [job for job, moved in zip(here, there, strict=True) if not _is_equal(job, moved)]
        except Exception as err:
            yield kernel, f"raised {type(err).__name__}: {err}"
            continue
        if off:
            yield kernel, f"differs at {', '.join(str(tuple(job.out.shape)) for job in off)}"


def _jobs(rule: _Rule, dtype: torch.dtype, shapes: Iterable[tuple[int, ...]]) -> Iterator[MergeJob]:
    experts, lowering = rule
    for seed, shape in enumerate(shapes):
        random = torch.Generator().manual_seed(seed)
        base = torch.randn(shape, generator=random)
        tuned = [base + 0.3 * torch.randn(shape, generator=random) for _ in experts]
        base, *tuned = (tensor.to(dtype) for tensor in (base, *tuned))
        statistics = TensorStatistics(base, tuned)
        where = TensorContext(f"t{seed}", experts, statistics, seed=3, layer=1, n_layers=4)
        out = torch.full(shape, float("nan"), dtype=dtype)
        merge_eager(plan := lowering.plan(where), base, tuned, out)
        yield MergeJob(plan, base, tuned, out)


def _moved(job: MergeJob, device: torch.device) -> MergeJob:
    """Copy what is merged to the device, with an output that nothing was written to."""
    base = None if job.base is None else job.base.to(device)
    out = torch.full_like(job.out, float("nan"), device=device)
    return MergeJob(job.plan, base, [expert.to(device) for expert in job.experts], out)


def _compiled(jobs: list[MergeJob]) -> None:
    if jobs[0].out.device.type == "cuda":
        merge_all(jobs)
        return
    supported = [job for job in jobs if is_supported(job)]
    merge_gpu(supported, block=2048)  # in the interpreter
    _eager([job for job in jobs if job not in supported])


def _eager(jobs: list[MergeJob]) -> None:
    for job in jobs:
        merge_eager(job.plan, job.base, job.experts, job.out)


def _is_equal(job: MergeJob, moved: MergeJob) -> bool:
    ours = moved.out.cpu()
    if is_supported(job):
        return same_bytes(ours, job.out)
    return torch.allclose(ours.float(), job.out.float(), rtol=_CLOSE, atol=_CLOSE, equal_nan=True)


def _check_masks(bench: Bench) -> None:
    """Merging ones shows the masks: those of the device, of numba, and of numpy."""
    n = 1_003 if bench.is_dry else 1_000_003
    cases = {f"key {key}, keep {keep}": (key, keep) for key in _KEYS for keep in (0.1, 0.5, 0.999)}
    wrong = []
    for case, (key, keep) in cases.items():
        wanted = hash24(key, np.arange(n, dtype=np.uint64)) < keep_threshold(keep)
        plan = TensorPlan(
            (1.0,), delta=False, base_coefficient=0.0, sparse=(RandomMask(key, keep),)
        )
        ours, numba = _merged_ones(plan, n, bench.device)
        if not (np.array_equal(ours == 1, wanted) and np.array_equal(numba == 1, wanted)):
            wrong.append(case)
    bench.checked("random masks are those of numba and of numpy", wrong, len(cases))
    bench.checked("ranked masks are those of numba", *_ranked(bench, n))


def _merged_ones(plan: TensorPlan, n: int, device: torch.device) -> list[np.ndarray]:
    ones = torch.ones(n)
    job = MergeJob(plan, None, [ones], torch.full_like(ones, float("nan")))
    moved = _moved(job, device)
    _compiled([moved])
    merge_cpu([job])
    return [moved.out.cpu().numpy(), job.out.numpy()]


def _ranked(bench: Bench, n: int) -> tuple[list[str], int]:
    knots = Table(np.linspace(0, 3, 8, dtype=np.float32)[None])
    wrong = []
    for key in _KEYS:
        mask = RankedMask(key, 0.2, 0.9, knots, rescale=True)
        plan = TensorPlan((1.0,), delta=False, base_coefficient=0.0, sparse=(mask,))
        values = torch.randn(n, generator=torch.Generator().manual_seed(0))
        job = MergeJob(plan, None, [values], torch.full_like(values, float("nan")))
        moved = _moved(job, bench.device)
        _compiled([moved])
        merge_cpu([job])
        if not same_bytes(moved.out.cpu(), job.out):
            wrong.append(f"key {key}")
    return wrong, len(_KEYS)


def _check_long(bench: Bench) -> None:
    """One tensor of more elements than 32 bits count: plain torch, and by hand at the end."""
    n, key, keep, c = _longest(bench), (1 << 50) + 3, 0.4, 0.7
    base, expert, *outs = (
        torch.empty(n, dtype=torch.bfloat16, device=bench.device) for _ in range(4)
    )
    base.normal_(), expert.normal_()
    plan = TensorPlan((c,), sparse=(RandomMask(key, keep),))
    for out, merge in zip(outs, (_compiled, _eager), strict=True):
        merge([MergeJob(plan, base, [expert], out.fill_(float("nan")))])
    chunks = [tuple(t[i : i + _CHUNK] for t in outs) for i in range(0, n, _CHUNK)]
    wrong = [f"chunk {i}" for i, pair in enumerate(chunks) if not same_bytes(*pair)]
    bench.checked(f"{n} elements: compiled gives the bytes of plain torch", wrong, len(chunks))
    kept = hash24(key, np.arange(n - _TAIL, n, dtype=np.uint64)) < keep_threshold(keep)
    theta, tuned = (tensor[-_TAIL:].cpu().float() for tensor in (base, expert))
    by_hand = (theta + torch.from_numpy(kept) * ((tuned - theta) * c)).bfloat16()
    is_same = bool((outs[0][-_TAIL:].cpu() == by_hand).all())
    bench.checked(f"{n} elements: the last {_TAIL} are those by hand", [] if is_same else ["no"], 1)


def _longest(bench: Bench) -> int:
    if bench.is_dry:
        return 5003
    free, _ = torch.cuda.mem_get_info()
    return next((n for n in _LONG if 4 * 2 * n < 0.8 * free), _LONG[-1])
