"""Other searches on the same models, tasks and items: held-out results, seconds per candidate.

- ``mergekit-evolve``: CMA-ES on the mean, set up as that one is (see ``tests.benchmarks.evolve``).
- ``NSGA-II``: one coefficient per expert for the whole model, as in Mergenetic's examples.
- ``simple_evaluate``: what either pays for a candidate: the merge in memory, then lm-eval from the
  start, while ours replays prompts that it prepared once. Quality is not compared by it: scores are
  lm-eval's either way, so that all searches are scored by ours.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, suppress
from io import StringIO
from pathlib import Path

import torch
from lm_eval.models.huggingface import HFLM
from transformers import AutoTokenizer

from evomerge.analysis.intervals import Estimate
from evomerge.analysis.winners import best_merges
from evomerge.config.experiment import Experiment
from evomerge.evaluation.prepared import PreparedSuites
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.sources import Sources
from evomerge.recipe.files import stored_recipe
from evomerge.recipe.recipe import Recipe
from evomerge.recipe.rules import sum_rule
from evomerge.runs.loaded import Loaded
from evomerge.samplers import GeneSpace
from evomerge.space.protocol import Params
from evomerge.study.folder import StudyFolder
from tests.benchmarks.evolve import evolve
from tests.benchmarks.real.plain import configs, key, score
from tests.benchmarks.real.scoring import Scorer
from tests.benchmarks.results import layout
from tests.benchmarks.studies import run_study

__all__ = ["PEERS", "search_peer", "seconds_table", "spread"]

PEERS = {
    "evomerge, `sampler: auto`": {},
    "mergekit-evolve's CMA-ES, one weighted sum": None,
    "NSGA-II, whole-model coefficients": {"search_space": "global_linear", "sampler": "nsga2"},
}


def search_peer(
    load: Callable[..., Loaded],
    name: str,
    seed: int,
    trials: int,
    folder: Path,
    seconds: float | None = None,
) -> Recipe:
    """Search as one of ``PEERS`` does, and return the merge with the best mean on search items.

    Args:
        load: Makes the experiment with ``KEY=VALUE`` changes.
        name: Which.
        seed: Of the search.
        trials: Evaluations, those of the models that it starts from included.
        folder: Where studies are kept; finished ones are read.
        seconds: By the clock; no evaluation begins later.
    """
    changes = PEERS[name]
    if changes is None:
        return _evolved(load(f"seed={seed}"), trials, seed, seconds)
    overrides = [f"{key}={value}" for key, value in changes.items()]
    budget = [f"seed={seed}", f"budget.trials={trials}", "finalists=0"]
    if seconds is not None:
        budget.append(f"budget.wall_clock={seconds}s")
    experiment: Experiment = load(*overrides, *budget).experiment
    kind = "auto" if not changes else "nsga2"
    study = run_study(experiment, StudyFolder(folder / f"{kind}-{trials}-{seed}"))
    (best,) = best_merges(study, 1)
    return stored_recipe(best.recipe, best.number)


class _OutOfTimeError(Exception):
    pass


def _evolved(loaded: Loaded, trials: int, seed: int, seconds: float | None) -> Recipe:
    space = loaded.space
    seen: dict[float, Recipe] = {}
    with Scorer(loaded) as scorer:
        end = time.monotonic() + (math.inf if seconds is None else seconds)

        def mean(params: Params) -> float:
            if seen and time.monotonic() > end:
                raise _OutOfTimeError
            recipe = space.recipe(params)
            value = scorer.mean(recipe, "search").value
            seen.setdefault(value, recipe)
            return value

        genes = GeneSpace(space.distributions, space.defaults, space.depths)
        with suppress(_OutOfTimeError):
            evolve(genes, mean, trials, seed)
    return seen[max(seen)]


def seconds_table(loaded: Loaded, n: int) -> str:
    """Time candidates with prompts that are replayed, and with ``simple_evaluate``, by turns.

    Args:
        loaded: The experiment.
        n: Candidates; a first one warms up.

    Returns:
        Markdown: medians of the processor's seconds on one thread, the ratio, and how many scores
        differ.
    """
    torch.set_num_threads(1)
    sources = Sources(loaded.models.base, loaded.models.experts)
    candidate = LiveCandidate(sources)
    tokenizer = AutoTokenizer.from_pretrained(sources.anchor.folder)
    prepared = PreparedSuites.of(loaded.suites, "search", candidate.model, tokenizer)
    rows = {one.name: [item.row for item in one.items] for one in prepared.tasks}
    (suite,) = loaded.suites
    assert suite.include_path is not None
    tasks = configs(suite.include_path, list(rows), "search")
    lm = HFLM(pretrained=candidate.model, tokenizer=tokenizer, batch_size=64, device="cpu")
    ours, theirs, differ = [], [], 0
    for i in range(n + 1):
        share = 0.2 + 0.5 * i / (n + 1)
        recipe = loaded.models.recipe((sum_rule(dict.fromkeys(loaded.models.experts, share)),))
        start = time.process_time()
        candidate.materialise(recipe)
        found = prepared.score().metrics
        ours.append(time.process_time() - start)
        start = time.process_time()
        candidate.materialise(recipe)
        with redirect_stderr(StringIO()):
            again = score(lm, tasks, rows)
        theirs.append(time.process_time() - start)
        differ += sum(
            found[o.task][o.metric].value != again[o.task][key(o.metric)] for o in loaded.objectives
        )
    mine, other = statistics.median(ours[1:]), statistics.median(theirs[1:])
    cells = [
        ["evomerge: one pass, prepared prompts", f"{mine:.1f} s", ""],
        ["merge in memory, then `simple_evaluate`", f"{other:.1f} s", f"{other / mine:.1f}"],
    ]
    n_items = sum(map(len, rows.values()))
    n_scores = len(loaded.objectives) * (n + 1)
    table = layout([f"candidate, {n_items} items", "seconds of one core", "ratio"], cells)
    return f"{table}\n\nMedians of {n}. Of {n_scores} scores, {differ} differ."


def spread(values: Sequence[Estimate]) -> str:
    """Write the mean over seeds and its standard error."""
    found = [v.value for v in values]
    if len(found) == 1:
        return f"{found[0]:.3f}"
    return f"{statistics.mean(found):.3f} ± {statistics.stdev(found) / len(found) ** 0.5:.3f}"
