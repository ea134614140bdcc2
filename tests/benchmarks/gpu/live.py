"""A live candidate: its bytes, its time, and what it must not do: wait and take memory."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from evomerge.kernels.eager import merge_eager
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.lowering import PlannedTensor, lower
from evomerge.merging.sources import Sources
from evomerge.merging.streaming import StreamedFeed
from evomerge.recipe.recipe import Recipe, Rule
from tests.benchmarks.gpu.bench import Bench
from tests.benchmarks.gpu.decoding import measure_decoding
from tests.benchmarks.gpu.families import Family, saved_family
from tests.kernels.comparing import same_bytes
from tests.tiny import save_tiny_llama

__all__ = ["run"]

_SIZE = {False: (8, 512), True: (1, 8)}  # sequences and tokens of a forward pass
_TABLES = 0.02  # of the live model, that the numbers of a candidate may take on the device
_OF_LINK = 0.8
_PINNED_BYTES = 1 << 30
_WAITS = "called a synchronizing"  # how torch begins to say so
_METHODS = ("task_arithmetic", "ties", "dare_ties")


def run(bench: Bench) -> None:
    """Check tied and untied weights, then measure a model of 1.5B parameters."""
    with bench.part("tied and untied weights"):
        _check_ties(bench)
    with saved_family(bench) as family:
        sources = family.sources()
        candidate = LiveCandidate(sources, device=bench.device.type)
        with bench.part("time per candidate"):
            _measure(bench, family, candidate)
        with bench.part("waits and memory per candidate"):
            _count(bench, family, candidate)
        with bench.part("streamed"):
            _measure_streamed(bench, family, sources, candidate)
        with bench.part("decoding"):
            measure_decoding(bench, candidate.model)


def _check_ties(bench: Bench) -> None:
    """Tied: one storage; one untied expert: two. Either way the bytes of plain torch on a CPU."""
    wrong = []
    for name, (base_tied, expert_tied) in {"tied": (True, True), "untied": (True, False)}.items():
        with tempfile.TemporaryDirectory() as folder:
            base = save_tiny_llama(Path(folder) / "base", seed=0, tied=base_tied)
            save_tiny_llama(
                Path(folder) / "e", seed=1, near=base if expert_tied else None, tied=expert_tied
            )
            experts = {"e": f"{folder}/e"}
            sources = Sources(f"{folder}/base", experts)
            candidate = LiveCandidate(sources, device=bench.device.type)
            recipe = Recipe(experts, (Rule("dare_ties", {"coefficient": 0.7}),), f"{folder}/base")
            candidate.materialise(recipe)
            wrong += [f"{name} {fault}" for fault in _misfits(recipe, sources, candidate)]
            head, embedding = (
                candidate.model.lm_head.weight,
                candidate.model.model.embed_tokens.weight,
            )
            if (head.data_ptr() == embedding.data_ptr()) != expert_tied:
                wrong.append(f"{name}: head and embedding")
    bench.checked("tied and untied weights: the CPU's bytes", wrong, 2)


def _misfits(recipe: Recipe, sources: Sources, candidate: LiveCandidate) -> Iterator[str]:
    for name, plan in lower(recipe, sources):
        live = candidate.tensors[name]
        wanted = torch.empty(live.shape, dtype=live.dtype)
        merge_eager(plan, *sources.tensors(name), wanted)
        if not same_bytes(live.cpu().contiguous(), wanted):
            yield name


def _measure(bench: Bench, family: Family, candidate: LiveCandidate) -> None:
    model, shape = candidate.model, _SIZE[bench.is_dry]
    tokens = torch.ones(shape, dtype=torch.long, device=bench.device)
    size = sum(parameter.numel() for parameter in model.parameters())
    bench.measured("parameters", size / 1e9, "B")
    with torch.no_grad():
        forward_s = bench.wall_s(lambda: model(tokens))
    for method in _METHODS:
        merge = _merger(family, candidate, method)
        first_s = bench.wall_s(merge, repeats=1)
        note = f"the first one {first_s:.2f} s, with copies to the device, statistics, compiling"
        bench.measured(f"{method}: merge", 1000 * bench.wall_s(merge), "ms", note=note)
    bench.measured(f"forward pass of {shape[0]} x {shape[1]} tokens", 1000 * forward_s, "ms")


def _merger(family: Family, candidate: LiveCandidate, method: str) -> Callable[[], None]:
    """Make what merges another recipe at each call."""
    coefficients = iter(range(1, 10_000))
    return lambda: candidate.materialise(family.recipe(0.1 + 1e-4 * next(coefficients), method))


def _count(bench: Bench, family: Family, candidate: LiveCandidate) -> None:
    """Count what torch says it waits for, beside the wait in the end, and what memory is taken."""
    merge = _merger(family, candidate, "ties")
    merge()
    merge()
    with _watched(bench) as waits:
        merge()
    bench.measured("operations that wait, per candidate", len(waits), at_most=0, note=_few(waits))
    if bench.is_dry:
        return
    live = sum(parameter.nbytes for parameter in candidate.model.parameters())
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_stats()
    merge()
    after = torch.cuda.memory_stats()
    segments = after["segment.all.allocated"] - before["segment.all.allocated"]
    bench.measured("pieces of memory taken from the driver, per candidate", segments, at_most=0)
    taken = after["allocated_bytes.all.peak"] - before["allocated_bytes.all.current"]
    note = f"{taken / 1e6:.1f} MB of numbers, within what torch holds"
    bench.measured(
        "memory of a candidate, of the live model", taken / live, at_most=_TABLES, note=note
    )


@contextmanager
def _watched(bench: Bench) -> Iterator[list[str]]:
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if not bench.is_dry:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            if not bench.is_dry:
                torch.cuda.set_sync_debug_mode("default")
            found += [str(w.message) for w in caught if _WAITS in str(w.message)]


def _few(lines: list[str]) -> str:
    return "; ".join(dict.fromkeys(lines))[:200]


def _measure_streamed(
    bench: Bench, family: Family, sources: Sources, candidate: LiveCandidate
) -> None:
    """Merge from the files through pinned memory: bytes and speed, against the link's own."""
    recipe = family.recipe(0.4, "ties")
    candidate.materialise(recipe)
    outs = {name: torch.empty_like(tensor) for name, tensor in candidate.tensors.items()}
    plans = [PlannedTensor(name, plan, outs[name]) for name, plan in lower(recipe, sources)]
    feed = StreamedFeed(sources, bench.device)
    seconds = bench.wall_s(lambda: feed(plans), repeats=3)
    wrong = [name for name, out in outs.items() if not same_bytes(out, candidate.tensors[name])]
    bench.checked(
        "streamed: the bytes of the candidate whose sources are resident", wrong, len(outs)
    )
    rate, link = sum(map(sources.tensor_bytes, sources.names)) / seconds, _link_rate(bench)
    note = f"{rate / 1e9:.1f} of {link / 1e9:.1f} GB/s"
    bench.measured("streamed: of the host link", rate / link, at_least=_OF_LINK, note=note)


def _link_rate(bench: Bench) -> float:
    n_bytes = 1 << 20 if bench.is_dry else _PINNED_BYTES
    host = torch.ones(n_bytes, dtype=torch.uint8, pin_memory=not bench.is_dry)
    there = torch.empty(n_bytes, dtype=torch.uint8, device=bench.device)
    return n_bytes / bench.device_s(lambda: there.copy_(host, non_blocking=True))
