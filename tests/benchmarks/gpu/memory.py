"""Peak memory against what ``check`` predicts: sources, live model, and a quarter to evaluate."""

from __future__ import annotations

import gc
import tempfile
from pathlib import Path

import torch
from transformers import AutoTokenizer

from evomerge.evaluation.prepared import PreparedSuites
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.residency import needed_bytes, residency_of
from tests.benchmarks.gpu.bench import Bench
from tests.benchmarks.gpu.evaluation import scored_suite
from tests.benchmarks.gpu.families import Family, saved_family

__all__ = ["run"]

_EXACT = 1.05  # times what is predicted; torch rounds pieces of memory up
_FOR_EVALUATION = 0.25  # of the device
_STAGES = 4 * (256 << 20)  # bytes that streaming may take: two stages, and what is in the making


def run(bench: Bench) -> None:
    """Load, merge and score one candidate."""
    with saved_family(bench) as family:
        with bench.part("resident"):
            _measure(bench, family)
        with bench.part("streamed"):
            _measure_streamed(bench, family)


def _measure(bench: Bench, family: Family) -> None:
    sources = family.sources()
    source_bytes, live_bytes = needed_bytes(sources, torch.bfloat16)
    where = residency_of(sources, torch.bfloat16, [bench.device], 1.0)
    _forget_peak(bench)
    candidate = LiveCandidate(sources, device=bench.device.type)
    held = {
        p.untyped_storage().data_ptr(): p.untyped_storage().nbytes()
        for p in candidate.model.parameters()
    }
    wrong = [] if sum(held.values()) == live_bytes else [f"{sum(held.values())} of {live_bytes}"]
    bench.checked("the live model takes what is predicted", wrong, 1)
    candidate.materialise(family.recipe(0.4))
    merged = _peak(bench)
    note = f"{where}: {source_bytes / 1e9:.2f} GB of sources, {live_bytes / 1e9:.2f} GB live"
    predicted = source_bytes + live_bytes
    bench.measured(
        "merging: peak, of the prediction", merged / predicted, at_most=_EXACT, note=note
    )
    with tempfile.TemporaryDirectory() as folder:
        for task in ("prefill", "decode"):
            suite = scored_suite(bench, task, Path(folder))
            tokenizer = AutoTokenizer.from_pretrained(family.base)
            PreparedSuites.of([suite], "search", candidate.model, tokenizer).score()
    beyond = (_peak(bench) - predicted) / _device_bytes(bench)
    bench.measured("scoring: peak beyond that, of the device", beyond, at_most=_FOR_EVALUATION)


def _measure_streamed(bench: Bench, family: Family) -> None:
    """A small share of the device lets sources stream."""
    sources = family.sources()
    source_bytes, live_bytes = needed_bytes(sources, torch.bfloat16)
    share = live_bytes / _device_bytes(bench)
    where = residency_of(sources, torch.bfloat16, [bench.device], share)
    _forget_peak(bench)
    before = _peak(bench)
    candidate = LiveCandidate(sources, device=bench.device.type, device_share=share)
    candidate.materialise(family.recipe(0.3))
    most = live_bytes + max(_STAGES, 3 * max(map(sources.tensor_bytes, sources.names)))
    note = f"{where}; {source_bytes / 1e9:.2f} GB of sources pass through"
    taken = _peak(bench) - before
    bench.measured(
        "streaming: peak, of live model and stages", taken / most, at_most=1.0, note=note
    )


def _forget_peak(bench: Bench) -> None:
    gc.collect()
    if not bench.is_dry:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak(bench: Bench) -> int:
    return 0 if bench.is_dry else torch.cuda.max_memory_allocated()


def _device_bytes(bench: Bench) -> int:
    return 1 << 30 if bench.is_dry else torch.cuda.mem_get_info()[1]
