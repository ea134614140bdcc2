"""Memory of two workers on the same experts, of one that scores, and of a disk merge.

Run with ``python -m tests.benchmarks.memory``: about a minute, 2 GB of disk. Linux only.
"""

from __future__ import annotations

import multiprocessing
import re
import resource
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from evomerge.execution.protocol import Job, Outcome, Scored, WorkerSpec
from evomerge.execution.worker import Worker
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.folder import write_checkpoint
from evomerge.merging.residency import needed_on
from evomerge.merging.sources import Sources
from evomerge.models.opening import peek_model
from evomerge.models.writer import TensorForm, write_safetensors
from evomerge.recipe.recipe import Recipe, Rule
from evomerge.runs.cost import device_plans
from tests.architectures import tiny_model
from tests.runs.whole_texts import on_whole_texts

__all__ = [
    "DiskMergeMemory",
    "ScoringMemory",
    "WorkerMemory",
    "peak_of",
    "resident_peak_of",
    "run_disk_merge",
    "run_scoring",
    "run_workers",
]

_MB = 1e6
_SHARD_BYTES = 64 << 20
_CONFIG = LlamaConfig(
    vocab_size=32768,
    hidden_size=768,
    intermediate_size=2048,
    num_hidden_layers=12,
    num_attention_heads=12,
    tie_word_embeddings=True,
    dtype="bfloat16",
)


@dataclass(frozen=True)
class WorkerMemory:
    """Proportional set size of workers: pages that several share count once.

    Attributes:
        n_workers: How many run at once.
        model_bytes: Size of one model.
        file_bytes: Size of base and experts on disk.
        mapped_bytes: What all workers together hold of these files.
        own_bytes: What one worker holds besides, its live model included, less what the process
            held before it opened any model.
    """

    n_workers: int
    model_bytes: int
    file_bytes: int
    mapped_bytes: int
    own_bytes: int


@dataclass(frozen=True)
class DiskMergeMemory:
    """Peak memory of a disk merge above the mapped files.

    Attributes:
        method: What was merged.
        peak_bytes: Anonymous memory at the peak, less what the process held before the merge.
        shard_bytes: Size of the largest shard.
    """

    method: str
    peak_bytes: int
    shard_bytes: int

    @property
    def ratio(self) -> float:
        """Peak in shards."""
        return self.peak_bytes / self.shard_bytes


@dataclass(frozen=True)
class ScoringMemory:
    """Peak memory of a worker's process that merges and scores one candidate.

    Attributes:
        planned_bytes: What ``check`` says.
        own_bytes: Anonymous memory, which is the process's own.
        resident_bytes: All of it, with pages of files that others may share.
    """

    planned_bytes: int
    own_bytes: int
    resident_bytes: int


def run_scoring(folder: Path, n_items: int = 8, n_words: int = 256) -> ScoringMemory:
    """Score a candidate on whole texts in a process of its own.

    Args:
        folder: With the models ``base`` and ``math``.
        n_items: Texts.
        n_words: Of each.
    """
    loaded = on_whole_texts(folder, n_items, n_words, "auto")
    (plan,) = device_plans(loaded, Sources.of(loaded.models, open_full=peek_model))
    recipe = loaded.space.recipe(loaded.space.defaults)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return ScoringMemory(plan.total, *pool.apply(_watched_scoring, (loaded.worker, recipe)))


def _watched_scoring(spec: WorkerSpec, recipe: Recipe) -> tuple[int, int]:
    torch.set_num_threads(1)
    before = _anonymous()
    peak = peak_of(lambda: _require_scored(Worker(spec).run(Job(0, recipe))))
    return before + peak, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _require_scored(outcome: Outcome) -> None:
    assert isinstance(outcome, Scored), outcome


def run_workers(recipe: Recipe, n_workers: int = 2) -> WorkerMemory:
    """Start workers that merge, and read what the system says of each when all are done."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(n_workers)]
    workers = [context.Process(target=_work, args=(recipe, theirs)) for _, theirs in pipes]
    for worker in workers:
        worker.start()
    before = [ours.recv() for ours, _ in pipes]  # all have merged, and hold on
    after = [_memory_of(worker.pid) for worker in workers]
    for (ours, _), worker in zip(pipes, workers, strict=True):
        ours.send("done")
        worker.join()
    sources = Sources(recipe.base, recipe.experts)
    file_bytes = sum(file.stat().st_size for file in sources.files)
    return WorkerMemory(
        n_workers=n_workers,
        model_bytes=file_bytes // len(sources.models),
        file_bytes=file_bytes,
        mapped_bytes=sum(mapped for mapped, _ in after),
        own_bytes=max(own - b for (_, own), b in zip(after, before, strict=True)),
    )


def run_disk_merge(recipe: Recipe) -> DiskMergeMemory:
    """Merge to disk in a process of its own and watch its anonymous memory."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        peak, largest = pool.apply(_watched_merge, (recipe,))
    return DiskMergeMemory(recipe.rules[0].method, peak, largest)


def _work(recipe: Recipe, pipe: Connection) -> None:
    torch.set_num_threads(1)
    _, before = _memory_of(None)
    candidate = LiveCandidate(Sources(recipe.base, recipe.experts))
    candidate.materialise(recipe)
    pipe.send(before)
    pipe.recv()


def _memory_of(pid: int | None) -> tuple[int, int]:
    """Read the proportional set size of a process: of mapped model files, and of all else.

    transformers maps the live model from the base's file, too; what a merge has overwritten of it
    is the process's own.
    """
    mapped, own, is_model = 0, 0, False
    for line in Path(f"/proc/{pid or 'self'}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            is_model = line.endswith(".safetensors")
        elif line.startswith("Pss:"):
            size = 1024 * int(line.split()[1])
            mapped, own = (mapped + size, own) if is_model else (mapped, own + size)
        elif line.startswith("Anonymous:") and is_model:
            size = 1024 * int(line.split()[1])
            mapped, own = mapped - size, own + size
    return mapped, own


def _watched_merge(recipe: Recipe) -> tuple[int, int]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        _warm_up(recipe, Path(folder, "warm"))
        peak = peak_of(
            lambda: write_checkpoint(recipe, Path(folder, "out"), shard_bytes=_SHARD_BYTES)
        )
        files = Path(folder, "out").glob("*.safetensors")
        return peak, max(file.stat().st_size for file in files)


def _warm_up(recipe: Recipe, out: Path) -> None:
    """Import and compile what a merge needs: that memory is the program's, not the merge's."""
    experts = dict.fromkeys(recipe.experts, "zoo:math")
    write_checkpoint(Recipe(experts, recipe.rules, base="zoo:base"), out)


def resident_peak_of(work: Callable[[], None]) -> int:
    """Return the most bytes this process has in memory while it works, less those before.

    The system keeps count, so that no peak is too short; pages of files that the work is the first
    to read are in it. Linux only.
    """
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what is held now: proc(5)
    before = _status("VmHWM")
    work()
    return _status("VmHWM") - before


def peak_of(work: Callable[[], None]) -> int:
    """Return the most anonymous bytes this process holds while it works, less those before.

    Looks a thousand times a second, or as often as a busy machine lets it: a peak of milliseconds
    may be missed.
    """
    before, peak, done = _anonymous(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, _anonymous())
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return peak - before


def _anonymous() -> int:
    return _status("RssAnon")


def _status(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{field}:")[1].split()[0])


def _write_family(folder: Path) -> Recipe:
    """Write a base and three experts with random numbers."""
    with torch.device("meta"):
        shapes = {n: tuple(p.shape) for n, p in LlamaForCausalLM(_CONFIG).named_parameters()}
    forms = {name: TensorForm(torch.bfloat16, shape) for name, shape in shapes.items()}
    for seed, name in enumerate(("base", "one", "two", "three")):
        _CONFIG.save_pretrained(folder / name)
        generator = torch.Generator().manual_seed(seed)
        write_safetensors(
            folder / name / "model.safetensors",
            forms,
            lambda n: (0.02 * torch.randn(shapes[n], generator=generator)).bfloat16(),  # noqa: B023
        )
    experts = {name: str(folder / name) for name in ("one", "two", "three")}
    return Recipe(experts, (Rule("ties", {"density": 0.5}),), base=str(folder / "base"))


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = _write_family(Path(folder))
        w = run_workers(recipe)
        (planned,) = needed_on(Sources(recipe.base, recipe.experts), torch.bfloat16, 1)
        print(
            f"{w.n_workers} workers, base and {len(recipe.experts)} experts of "
            f"{w.model_bytes / _MB:.0f} MB each ({w.file_bytes / _MB:.0f} MB of files):\n"
            f"  mapped files, all workers together  {w.mapped_bytes / _MB:6.0f} MB\n"
            f"  live model and the rest, per worker {w.own_bytes / _MB:6.0f} MB\n"
            f"  of it planned for the live model    {planned.live_bytes / _MB:6.0f} MB"
        )
        tokens = {"vocab_size": 32768, "max_position_embeddings": 2048}
        for seed, name in enumerate(("base", "math")):
            tiny_model("llama", Path(folder, "wide", name), seed, torch.float32, **tokens)
        s = run_scoring(Path(folder, "wide"))
        print(
            f"a worker that scores, {s.own_bytes / _MB:.0f} MB of its own at the peak "
            f"({s.resident_bytes / _MB:.0f} MB with files), {s.planned_bytes / _MB:.0f} MB planned"
        )
        for method in ("linear", "ties", "dare_ties"):
            rules = (Rule(method),)
            d = run_disk_merge(Recipe(recipe.experts, rules, base=recipe.base))
            print(
                f"disk merge, {method:9} peak {d.peak_bytes / _MB:4.0f} MB above the mapped files, "
                f"{d.ratio:.2f} of the largest shard ({d.shard_bytes / _MB:.0f} MB)"
            )


if __name__ == "__main__":
    main()
