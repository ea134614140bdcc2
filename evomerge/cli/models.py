"""Commands on single models: ``merge``, ``evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.options import AllowNonFinite, Json, PresetFolder
from evomerge.cli.terminal import console, print_json, print_table, value_text
from evomerge.errors import ConfigError

if TYPE_CHECKING:
    from evomerge.evaluation.suite import Suite

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (merge, evaluate):
        app.command()(command)


def merge(
    recipe: Annotated[Path, typer.Argument(help="Recipe YAML, ours or mergekit's.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    allow_non_finite: AllowNonFinite = False,
) -> None:
    """Materialise one recipe as a checkpoint."""
    from evomerge.cache import cache_folder
    from evomerge.cli.progress import PassProgress, progress_bar
    from evomerge.merging.folder import write_checkpoint
    from evomerge.merging.measuring import measure_models
    from evomerge.merging.sources import Sources
    from evomerge.recipe.files import load_recipe

    loaded = load_recipe(recipe)
    with progress_bar() as bar:
        if cache_folder("statistics") is not None:
            sources = Sources(loaded.base, loaded.experts)
            measure_models(sources, loaded.statistics, PassProgress(bar, "statistics"))
        found = write_checkpoint(
            loaded,
            out,
            progress=PassProgress(bar, "merging"),
            allow_non_finite=allow_non_finite,
        )
    console.print(f"recipe {loaded.digest} merged to {out}", soft_wrap=True)
    if found:
        console.print(f"warning: it holds {found}", soft_wrap=True)


def evaluate(
    model: Annotated[str, typer.Argument(help="zoo:NAME, folder or Hub id.")],
    evaluator: Annotated[
        list[str] | None, typer.Option(help="Evaluator preset or file; repeatable.")
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(help="lm-eval tasks or groups, as NAME,NAME; their own split.")
    ] = None,
    include_path: Annotated[
        Path | None, typer.Option(help="Folder of task YAML, for --tasks.")
    ] = None,
    split: Annotated[str, typer.Option(help="search, validation or test.")] = "test",
    json: Json = False,
    presets: PresetFolder = None,
) -> None:
    """Score a model on a task suite."""
    from evomerge.config.presets import Presets
    from evomerge.export.rescore import score_folder
    from evomerge.models.reference import absolute_reference, resolve_model
    from evomerge.runs.parts import load_suites

    if evaluator:
        if tasks is not None or include_path is not None:
            raise ConfigError("expected --evaluator, or --tasks with --include-path; got both")
        suites = load_suites(evaluator, Presets(presets), Path.cwd())
    else:
        suites = (_suite(tasks, include_path, split),)
    folder = resolve_model(absolute_reference(model, Path.cwd()))
    scores = score_folder(folder, suites, split).scores
    if json:
        results = {
            task: {m: {"value": v.value, "stderr": v.stderr, "n": v.n} for m, v in metrics.items()}
            for task, metrics in scores.metrics.items()
        }
        print_json({"results": results})
        return
    rows = [
        (task, metric, value_text(value.value, value.stderr), str(value.n))
        for task, metrics in scores.metrics.items()
        for metric, value in metrics.items()
    ]
    print_table(f"{model} on {split} items", ["task", "metric", "value", "items"], rows)


def _suite(tasks: str | None, include_path: Path | None, split: str) -> Suite:
    """Read tasks as lm-eval's command line does: all items of the split each task is scored on."""
    from evomerge.evaluation.suite import Suite

    names = [name.strip() for name in (tasks or "").split(",") if name.strip()]
    if not names:
        raise ConfigError("expected --tasks NAME,NAME or --evaluator NAME, got neither")
    folder = None if include_path is None else include_path.resolve()
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"expected a folder of task YAML for --include-path, got {include_path}")
    return Suite("--tasks", tuple(names), folder, splits={split: 1.0})
