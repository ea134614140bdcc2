"""A candidate inside vLLM: parity with transformers, and the time of taking it over in place."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from transformers import AutoTokenizer

from evomerge.evaluation.prepared import PreparedSuites
from evomerge.evaluation.scores import Scores
from evomerge.evaluation.vllm_engine import VllmEngine, VllmModel
from evomerge.merging.candidate import LiveCandidate
from tests.benchmarks.gpu.bench import Bench
from tests.benchmarks.gpu.evaluation import scored_suite
from tests.benchmarks.gpu.families import Family, saved_family

__all__ = ["run"]

_SHARE = 0.4  # of the device's memory, for vLLM
_CLOSE = 0.02  # of accuracies on a few hundred items, between two engines in bfloat16


def run(bench: Bench) -> None:
    """Start vLLM on a candidate, change the candidate, and compare answers before and after."""
    with saved_family(bench) as family:
        sources = family.sources()
        candidate = LiveCandidate(sources, device=bench.device.type, device_share=1 - _SHARE)
        candidate.materialise(family.recipe(0.4))
        vllm = VllmModel(sources.anchor.folder, candidate.model, candidate.tensors, _SHARE)
        candidate.materialise(family.recipe(0.9))
        bench.measured("update in place", 1000 * bench.wall_s(vllm.update), "ms")
        for task in ("prefill", "decode"):
            with bench.part(f"{task} inside vLLM"):
                _compare(bench, task, family, candidate, vllm)


def _compare(
    bench: Bench, task: str, family: Family, candidate: LiveCandidate, vllm: VllmModel
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(family.base)
    with tempfile.TemporaryDirectory() as folder:
        suite = scored_suite(bench, task, Path(folder))
        prepare = partial(PreparedSuites.of, [suite], "search", candidate.model, tokenizer)
        theirs, ours = prepare(), prepare(make_engine=partial(VllmEngine, vllm))
        off = abs(_first(ours.score()) - _first(theirs.score()))
        ours_s, theirs_s = (
            bench.wall_s(ours.score, repeats=3),
            bench.wall_s(theirs.score, repeats=3),
        )
    bench.measured(f"{task}: accuracy, off from transformers", off, at_most=_CLOSE)
    bench.measured(f"{task}: transformers takes", theirs_s / ours_s, "times")


def _first(scores: Scores) -> float:
    (metrics,) = scores.metrics.values()
    return next(iter(metrics.values())).value
