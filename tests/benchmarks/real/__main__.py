"""What searches do on SmolLM2-135M: ``make real``, and what takes longer.

    python -m tests.benchmarks.real [PART ...] [--trials N] [--limit N] [--seeds N] [--write-docs]

The models must be built (``make smollm2``). Parts:

- ``search``: the experiment ``smollm2``, its winner, parents and merges without search on the test
  items; the winner's export, scored by lm-eval alone.
- ``flow``: the experiment ``smollm2_flow`` from the front of ``search``; the same of its best path.
- ``composite``: the experiment ``smollm2_french_math``, some seeds.
- ``peers``: other searches at equal evaluations.
- ``clock``: the same searches at once, a process each, for as many seconds.
- ``seconds``: what a candidate costs, as here and by ``simple_evaluate``.
- ``profile``: where the seconds of a trial go.
- ``long``: where they go if answers are long, with and without prompts that join them.

Without a part, ``search`` and ``flow`` run. Studies are kept in ``runs/real`` and go on where they
were; tables are written there, too, and with ``--write-docs`` into ``docs/real.md``.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from evomerge.analysis.picking import pick
from evomerge.analysis.winners import best_merges
from evomerge.api.study import Study
from evomerge.evaluation.suite import BatchSize, Suite
from evomerge.origins import SEARCH, is_baseline
from evomerge.recipe.files import stored_recipe
from evomerge.recipe.path import MERGED
from evomerge.recipe.recipe import Recipe
from evomerge.recipe.rules import copy_rule, sum_rule
from evomerge.runs.loaded import Loaded
from evomerge.runs.reading import read_study
from evomerge.study.folder import StudyFolder
from evomerge.study.records import FinalRecord, StudyRecord, TrialRecord, merits
from tests.benchmarks.readme import replace_blocks
from tests.benchmarks.real.experiments import load
from tests.benchmarks.real.exported import export_and_check
from tests.benchmarks.real.held_out import held_out_table
from tests.benchmarks.real.known import known_merges, parents_and_average
from tests.benchmarks.real.peers import PEERS, search_peer, seconds_table, spread
from tests.benchmarks.real.profile import profile, profile_table
from tests.benchmarks.real.scoring import Scorer
from tests.benchmarks.results import Row, layout, setting
from tests.benchmarks.studies import run_study

TABLES = tuple(
    f"real-{name}"
    for name in (
        *("held-out", "export", "flow", "flow-export"),
        *("composite", "peers", "clock", "seconds", "profile", "profile-long"),
    )
)
OUT = Path("runs/real")
DOCS = Path("docs/real.md")
FLOW_TRIALS, FLOW_ITEMS = 25, 60  # what is left of half an hour for paths
# Batches that are decoded to their end, as large as a pass with all its logits; and the default.
LONG: dict[str, BatchSize] = {"batches of 48": 48, "`auto`": "auto"}


def search(chosen: argparse.Namespace) -> dict[str, str]:
    """Search, compare on the test items, export and check the export."""
    loaded = load(chosen, "smollm2", f"budget.trials={chosen.trials}")
    folder = searched(chosen)
    study = run_study(loaded.experiment, folder)
    print(f"report: {Study(folder).report()}", flush=True)
    with Scorer(loaded) as scorer:
        known = known_merges(loaded.models, scorer)
    found = {"best merge": stored(winner(study)), **known}
    with Scorer(load(chosen, "smollm2", items=chosen.test_limit)) as scorer:
        table = held_out_table(scorer, found, loaded.objectives)
    return {
        "real-held-out": f"{table}\n\n{caption(chosen)}; {counts(study)}.",
        "real-export": checked_export(folder, loaded, pick(study, "chosen")),
    }


def flow(chosen: argparse.Namespace) -> dict[str, str]:
    """Search paths through merged and experts' own layers from what ``search`` found."""
    before = searched(chosen)
    seeds = f"seeds.studies=[{before.root.resolve()}]"
    trials, items = f"budget.trials={FLOW_TRIALS}", min(chosen.limit, FLOW_ITEMS)
    loaded = load(chosen, "smollm2_flow", trials, seeds, items=items)
    folder = StudyFolder(OUT / f"flow-{chosen.trials}-{chosen.limit}")
    study = run_study(loaded.experiment, folder)
    print(f"report: {Study(folder).report()}", flush=True)
    path = best_path(study)
    found = {
        "best path": stored(path),
        "best merge": stored(winner(read_study(before))),
        **parents_and_average(loaded.models),
    }
    with Scorer(load(chosen, "smollm2_flow", items=chosen.test_limit)) as scorer:
        table = held_out_table(scorer, found, loaded.objectives)
    return {
        "real-flow": f"{table}\n\n{caption(chosen)}; {counts(study)}, {items} search items.",
        "real-flow-export": checked_export(folder, loaded, path),
    }


def composite(chosen: argparse.Namespace) -> dict[str, str]:
    """Search for what no parent does, and score it on the test items."""
    name, found = "smollm2_french_math", dict[str, Recipe]()
    for seed in range(chosen.seeds):
        loaded = load(chosen, name, f"budget.trials={chosen.trials}", f"seed={seed}")
        folder = StudyFolder(OUT / f"composite-{chosen.trials}-{chosen.limit}-{seed}")
        found[f"best merge, seed {seed}"] = stored(winner(run_study(loaded.experiment, folder)))
    found |= parents_and_average(loaded.models)
    with Scorer(load(chosen, name, items=chosen.test_limit)) as scorer:
        table = held_out_table(scorer, found, loaded.objectives)
    return {"real-composite": f"{table}\n\n{caption(chosen)}."}


def peers(chosen: argparse.Namespace) -> dict[str, str]:
    """Search as others do, and time what they pay for a candidate."""
    make, out = partial(load, chosen, "smollm2"), OUT / f"peers-{chosen.limit}"
    found = {
        name: [search_peer(make, name, seed, chosen.trials, out) for seed in range(chosen.seeds)]
        for name in PEERS
    }
    rows = f"{chosen.seeds} seeds, {chosen.trials} evaluations each"
    return {"real-peers": f"{_compared(chosen, found)}\n\n{rows}. {caption(chosen)}."}


def clock(chosen: argparse.Namespace) -> dict[str, str]:
    """Search as others do, all at once, for equal seconds."""
    make, out = partial(load, chosen, "smollm2"), OUT / f"clock-{chosen.limit}"
    found = {name: list[Recipe]() for name in PEERS}
    with ProcessPoolExecutor(len(PEERS), get_context("spawn")) as pool:
        for seed in range(chosen.seeds):
            args = (seed, chosen.trials, out, chosen.seconds)
            started = {name: pool.submit(search_peer, make, name, *args) for name in PEERS}
            for name, future in started.items():
                found[name].append(future.result())
    rows = f"{chosen.seeds} seeds, {chosen.seconds:g} seconds each, three processes at once"
    return {"real-clock": f"{_compared(chosen, found)}\n\n{rows}. {caption(chosen)}."}


def _compared(chosen: argparse.Namespace, found: dict[str, list[Recipe]]) -> str:
    cells = []
    with Scorer(load(chosen, "smollm2", items=chosen.test_limit)) as scorer:
        for name, recipes in found.items():
            scorer.score(recipes, "test")
            columns = zip(*(scorer.values(recipe, "test") for recipe in recipes), strict=True)
            means = [scorer.mean(recipe, "test") for recipe in recipes]
            cells.append([name, *map(spread, columns), spread(means)])
    tasks = [f"`{o.task}`" for o in load(chosen, "smollm2").objectives]
    return layout(["search", *tasks, "mean"], cells)


def seconds(chosen: argparse.Namespace) -> dict[str, str]:
    """Time a candidate, replayed and by ``simple_evaluate``."""
    return {"real-seconds": f"{seconds_table(load(chosen, 'smollm2'), 2)} {caption(chosen)}."}


def profiled(chosen: argparse.Namespace) -> dict[str, str]:
    """Say where the seconds of a trial go."""
    loaded = load(chosen, "smollm2")
    models = loaded.models
    math = models.recipe((copy_rule("math", tuple(models.experts)),))
    recipes = {"merge": parents_and_average(models)["uniform average"], "expert `math`": math}
    rows = profile(models, loaded.suites, recipes)
    return {"real-profile": f"{profile_table(rows)}\n\n{caption(chosen)}."}


def long_profiled(chosen: argparse.Namespace) -> dict[str, str]:
    """Say where they go if answers are long."""
    models, rows = load(chosen, "smollm2").models, list[Row]()
    near = models.recipe((sum_rule(dict.fromkeys(models.experts, 0.1)),))  # still talks as the base
    suite = Suite(
        "long",
        ("explained",),
        include_path=Path(__file__).parent / "tasks",
        splits={"search": "search"},
        limit=chosen.limit,
        apply_chat_template=True,
    )
    for name, size in LONG.items():
        suites = [replace(suite, batch_size=size)]
        rows += profile(models, suites, {f"merge, {name}": near})
    return {"real-profile-long": f"{profile_table(rows)}\n\n{caption(chosen)}."}


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, str]]] = {
    "search": search,
    "flow": flow,
    "composite": composite,
    "peers": peers,
    "clock": clock,
    "seconds": seconds,
    "profile": profiled,
    "long": long_profiled,
}


def searched(chosen: argparse.Namespace) -> StudyFolder:
    """Name the folder of what ``search`` searches."""
    return StudyFolder(OUT / f"search-{chosen.trials}-{chosen.limit}")


def winner(study: StudyRecord) -> TrialRecord:
    """Return the best merge by the validation items; without finals, by the search items."""
    finals = [f.number for f in study.finals if f.split == "test" and not is_baseline(f.origin)]
    merges = [t for t in study.trials if t.number in finals] or best_merges(study, 1)
    return merges[0]


def best_path(study: StudyRecord) -> TrialRecord:
    """Return the best that is more than a merge of every layer, by validation items.

    Where validation saw none of them, since merges it started from dominate them all: by the
    search items.
    """
    own = {t.number: t for t in study.trials if t.origin == SEARCH and is_path(stored(t))}
    held = [f for f in study.finals if f.split == "validation" and f.number in own]
    found: Sequence[FinalRecord | TrialRecord] = held or [t for t in own.values() if t.values]
    rated = zip(merits([f.values for f in found], study.objectives), found, strict=True)
    _, best = max(rated, key=lambda pair: pair[0])
    return own[best.number]


def is_path(recipe: Recipe) -> bool:
    """Tell whether a recipe visits layers that are not merged, or scales any."""
    return any(hop.source != MERGED or hop.scale != 1 for hop in recipe.path)


def stored(trial: TrialRecord) -> Recipe:
    """Read the recipe of a trial."""
    return stored_recipe(trial.recipe, trial.number)


def checked_export(folder: StudyFolder, loaded: Loaded, trial: TrialRecord) -> str:
    """Export a trial into its study's folder, and hold it against what lm-eval says of it."""
    return export_and_check(folder, loaded, trial, folder.root / "exports" / str(trial.number))


def counts(study: StudyRecord) -> str:
    """Say how many evaluations and trials a study has."""
    return f"{study.evaluations:.0f} evaluations, {len(study.trials)} trials"


def caption(chosen: argparse.Namespace) -> str:
    """Say on what a table was measured."""
    return (
        f"At most {chosen.limit} search and {chosen.test_limit} test items per task; "
        f"{chosen.workers} at a time on {setting()}; load average {os.getloadavg()[0]:.1f}"
    )


def _main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--limit", type=int, default=120, help="search items per task")
    parser.add_argument("--test-limit", type=int, default=240, help="test items per task")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=300, help="of each search of clock")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of the experiment")
    parser.add_argument("--write-docs", action="store_true", help="rewrite tables of docs/real.md")
    chosen = parser.parse_args()
    if unknown := set(chosen.parts) - PARTS.keys():
        parser.error(f"expected parts out of {', '.join(PARTS)}, got {', '.join(unknown)}")
    for part in chosen.parts or ["search", "flow"]:
        for name, table in PARTS[part](chosen).items():
            _keep(name, table, write_docs=chosen.write_docs)


def _keep(name: str, table: str, *, write_docs: bool) -> None:
    print(f"\n{name}\n\n{table}", flush=True)
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.md").write_text(table + "\n", encoding="utf-8")
    if write_docs:
        DOCS.write_text(replace_blocks(DOCS.read_text(encoding="utf-8"), {name: table}), "utf-8")


if __name__ == "__main__":
    _main()
