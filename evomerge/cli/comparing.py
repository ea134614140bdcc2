"""The command that compares experts before a search: ``compare``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.options import ExperimentFile, Json, Overrides, PresetFolder, resolve
from evomerge.cli.terminal import console, print_json, print_table

if TYPE_CHECKING:
    from evomerge.analysis.interference import Comparison, ExpertPair, Interference
    from evomerge.analysis.retrieval import Retrieval
    from evomerge.runs.barriers import Barrier

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(compare)


def compare(
    experiment: ExperimentFile,
    set_: Overrides = None,
    presets: PresetFolder = None,
    study: Annotated[
        Path | None, typer.Option(help="Study whose seeds are quoted; default: runs/NAME.")
    ] = None,
    barrier: Annotated[
        bool, typer.Option("--barrier", help="Run the models between every two, on search items.")
    ] = False,
    answers: Annotated[
        bool, typer.Option("--answers", help="Run base and experts, and rank them by answers.")
    ] = False,
    json: Json = False,
) -> None:
    """Measure how far the experts moved, and how much they get in one another's way."""
    from evomerge.api.comparing import compare as compare_models
    from evomerge.api.comparing import compare_answers, compare_losses, measured_advice
    from evomerge.progress import PassProgress, progress_bar

    resolved = resolve(experiment, set_, presets)
    advice = measured_advice(resolved, study or Path("runs") / Path(experiment).stem)
    with progress_bar() as bar:
        comparison = compare_models(resolved, progress=PassProgress(bar, "comparing the experts"))
        running = PassProgress(bar, "running what lies between them")
        found = compare_losses(resolved, progress=running) if barrier else ()
        asking = PassProgress(bar, "asking base and experts")
        retrieval = compare_answers(resolved, progress=asking) if answers else None
    if json:
        barriers = [{**asdict(one), "height": one.height} for one in found]
        said = None if retrieval is None else asdict(retrieval)
        shown = {**asdict(comparison), "measured": advice, "barriers": barriers, "answers": said}
        print_json(shown)
        return
    _print(comparison, advice or comparison.hint)
    if found:
        _print_barriers(found)
    if retrieval is not None:
        _print_answers(retrieval)


def _print_barriers(found: Sequence[Barrier]) -> None:
    """Show a matrix of all pairs."""
    names = list(dict.fromkeys(name for one in found for name in one.models))
    heights = {frozenset(one.models): f"{one.height:.3f}" for one in found}
    rows = [(a, *(heights.get(frozenset((a, b)), "–") for b in names)) for a in names]
    console.print()
    print_table("Barriers: loss above the straight line, nats per token", ["", *names], rows)


def _print_answers(found: Retrieval) -> None:
    """Show who suits which task, whom to take, and who knows the same."""
    names = list(found.tasks[0].fits)
    rows = [(t.task, *(f"{t.fits[name]:.3f}" for name in names), t.best) for t in found.tasks]
    console.print()
    print_table("Answers: how near they lie to the right ones", ["task", *names, "best"], rows)
    console.print()
    order = [(str(i), one.expert, f"{one.adds:+.3f}") for i, one in enumerate(found.order, 1)]
    print_table("Whom to take from the pool", ["", "expert", "adds"], order)
    if found.pairs:
        console.print()
        alike = [(" and ".join(pair.experts), f"{pair.cosine:.3f}") for pair in found.pairs]
        print_table("How alike they changed the base's answers", ["experts", "cosine"], alike)
    console.print(
        "\nnear: cosine of the probabilities given and the right answers, 1 is right and sure; "
        "adds: probability of right answers over those before, if each prompt went to whoever "
        "knows it best; cosine: 1 the same knowledge, 0 apart. Of search items: no held-out scores",
        soft_wrap=True,
        markup=False,
    )


def _print(comparison: Comparison, advice: str) -> None:
    from evomerge.analysis.interference import TOP

    model, top = comparison.model, f"top {TOP:.0%}"
    experts = [
        (e.name, f"{e.norm:.4g}", f"{e.relative_norm:.2%}", f"{e.top_mass:.0%}")
        for e in model.experts
    ]
    print_table("Task vectors", ["expert", "norm", "of base", f"mass in {top}"], experts)
    if model.pairs:
        console.print()
        rows = [_pair_row(pair) for pair in model.pairs]
        columns = ["experts", "cosine", "signs opposed", f"in {top}"]
        print_table("Pairs, where both change", columns, rows)
    console.print()
    moved = [expert.name for expert in model.experts]
    columns = ["part", *moved, "cosine", "contested", f"in {top}", "rank"]
    rows = [_row(part) for part in (*comparison.parts, model)]
    print_table(
        "Parts of the model: how far each expert moved, and how they agree",
        columns,
        rows,
        bold=len(rows) - 1,
    )
    console.print(
        "\ncontested: raised by one expert and lowered by another; rank: independent directions\n"
        f"\n{advice}",
        soft_wrap=True,
        markup=False,
    )


def _pair_row(pair: ExpertPair) -> tuple[str, ...]:
    shares = (_percent(pair.conflict), _percent(pair.top_conflict))
    return " and ".join(pair.experts), f"{pair.cosine:.3f}", *shares


def _row(part: Interference) -> tuple[str, ...]:
    cosines = [pair.cosine for pair in part.pairs]
    return (
        part.name,
        *(f"{expert.relative_norm:.2%}" for expert in part.experts),
        f"{sum(cosines) / len(cosines):.3f}" if cosines else "–",
        _percent(part.contested),
        _percent(part.top_contested),
        f"{part.effective_rank:.2f}",
    )


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{share:.0%}"
