"""Commands on single models.

``merge``, ``average``, ``moe``, ``fewer-experts``, ``transplant``, ``evaluate``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from evomerge.cli.options import AllowNonFinite, Json, PresetFolder
from evomerge.cli.terminal import console, print_json, print_table, value_text
from evomerge.errors import ConfigError

if TYPE_CHECKING:
    from evomerge.recipe.recipe import Recipe

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (merge, average, moe, fewer_experts, transplant, evaluate):
        app.command()(command)


def merge(
    recipe: Annotated[Path, typer.Argument(help="Recipe YAML, ours or mergekit's.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    allow_non_finite: AllowNonFinite = False,
) -> None:
    """Materialise one recipe as a checkpoint."""
    from evomerge.api.merging import recipe_of

    _merge_into(recipe_of(recipe), out, allow_non_finite=allow_non_finite)


def average(  # noqa: PLR0913, PLR0917  a command has as many as it has options
    run: Annotated[Path, typer.Argument(help="output_dir of a Hugging Face Trainer.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    last: Annotated[
        int | None, typer.Option(min=1, help="How many checkpoints, from the end; default: all.")
    ] = None,
    every: Annotated[
        int, typer.Option(min=1, help="Take each so many, counted from the last.")
    ] = 1,
    ema: Annotated[float | None, typer.Option(help="Decay of a moving average, as 0.99.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="One per checkpoint, earliest first, as 1,2,3.")
    ] = None,
    by: Annotated[
        Literal["power", "softmax"] | None,
        typer.Option(help="Weigh by --metric: by a power of it, or a softmax over it."),
    ] = None,
    alpha: Annotated[float, typer.Option(min=0, help="Exponent of --by.")] = 1.0,
    metric: Annotated[
        str, typer.Option(help="Of trainer_state.json, or step; less is better of a loss.")
    ] = "eval_loss",
    base: Annotated[
        str | None,
        typer.Option(help="What LoRA checkpoints were trained on; default: as they say."),
    ] = None,
    lora: Annotated[
        bool, typer.Option("--lora", help="Write LoRA checkpoints' average as an adapter.")
    ] = False,
    allow_non_finite: AllowNonFinite = False,
) -> None:
    """Average the checkpoints of one training run: SWA, LaWA, EMA, weights by loss."""
    from evomerge.averaging.averaging import Averaging

    chosen = Averaging(
        last=last,
        every=every,
        ema=ema,
        weights=None if weights is None else _numbers(weights),
        by=by,
        alpha=alpha,
        metric=metric,
        base=base,
    )
    recipe = chosen.recipe(run)
    if lora and recipe.base is None:
        raise ConfigError(f"expected LoRA checkpoints with --lora, got full models in {run}")
    print_table("", ["checkpoint", "share"], [(n, f"{s:.4f}") for n, s in _mix(recipe).items()])
    if not lora:
        _merge_into(recipe, out, allow_non_finite=allow_non_finite)
        return
    from evomerge.export.adapter import write_adapter

    console.print(f"an adapter of rank {write_adapter(recipe, out)}: {out}", soft_wrap=True)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as err:
        raise ConfigError(f"expected --weights as numbers, 1,2,3, got {text!r}") from err


def _mix(recipe: Recipe) -> dict[str, float]:
    mix = recipe.rules[0].parameters["coefficient"]
    assert isinstance(mix, dict), "of an average, one per checkpoint"
    return mix


def _merge_into(recipe: Recipe, out: Path, *, allow_non_finite: bool) -> None:
    from evomerge.api.merging import export_merge
    from evomerge.progress import PassProgress, progress_bar

    with progress_bar() as bar:
        found = export_merge(
            recipe,
            out,
            allow_non_finite=allow_non_finite,
            measuring=PassProgress(bar, "statistics"),
            merging=PassProgress(bar, "merging"),
        )
    console.print(f"recipe {recipe.digest} merged to {out}", soft_wrap=True)
    if found:
        console.print(f"warning: it holds {found}", soft_wrap=True)


def moe(
    file: Annotated[Path, typer.Argument(help="YAML of mergekit-moe.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
) -> None:
    """Put models side by side as the experts of one mixture."""
    from evomerge.export.mixture import export_mixture
    from evomerge.mixtures.file import load_mixture
    from evomerge.progress import PassProgress, progress_bar

    loaded = load_mixture(file)
    with progress_bar() as bar:
        written = export_mixture(loaded, out, progress=PassProgress(bar, "writing"))
    console.print(
        f"{written.name} of {len(loaded.experts)} experts written to {out}: "
        f"{written.n_parameters:,} parameters, {written.n_active:,} for each token",
        soft_wrap=True,
    )
    if written.alike:
        console.print(
            f"warning: routers of {len(written.alike)} layers hardly tell the experts apart; "
            "choose prompts that differ more, or train the routers",
            soft_wrap=True,
        )


def fewer_experts(
    model: Annotated[str, typer.Argument(help="A mixture of experts: folder or Hub id.")],
    experts: Annotated[int, typer.Option(min=1, help="How many each layer shall have.")],
    prompts: Annotated[
        Path, typer.Option(help="What its routers are watched on: text, or .jsonl with prompt.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    limit: Annotated[
        int | None, typer.Option(min=1, help="Prompts read, from the start; default: 256.")
    ] = None,
) -> None:
    """Merge the experts of a mixture that its routers use alike."""
    from evomerge.api.shrinking import fewer_experts
    from evomerge.progress import PassProgress, progress_bar

    with progress_bar() as bar:
        written = fewer_experts(
            model,
            out,
            experts=experts,
            prompts=prompts,
            limit=limit,
            writing=PassProgress(bar, "writing"),
        )
    console.print(
        f"{model} with {experts} experts in {len(written.groups)} layers written to {out}: "
        f"{written.n_parameters:,} of {written.n_before:,} parameters",
        soft_wrap=True,
    )
    if written.is_louder:
        console.print(
            "warning: its config has norm_topk_prob: false, so that chosen experts weigh more the "
            "fewer there are; score it before it is used",
            soft_wrap=True,
        )


def transplant(
    donor: Annotated[str, typer.Argument(help="Whose tokens: zoo:NAME, folder or Hub id.")],
    model: Annotated[str, typer.Argument(help="The model that gets them.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    approximation_method: Annotated[
        Literal["omp", "common_interpolation"],
        typer.Option(
            "--approximation-method",
            "-a",
            help="Missing tokens: orthogonal matching pursuit, or the nearest shared ones.",
        ),
    ] = "omp",
    k: Annotated[
        int, typer.Option("--k", "-k", min=1, help="Shared tokens that make one missing, at most.")
    ] = 64,
    chat_template: Annotated[
        Literal["donor", "model"],
        typer.Option(help="Whose chat template, special tokens and generation settings it has."),
    ] = "donor",
    device: Annotated[str, typer.Option(help="Where it is computed: cpu, cuda, …")] = "cpu",
) -> None:
    """Give a model the vocabulary of another one, without training."""
    from evomerge.api.transplanting import transplant
    from evomerge.progress import PassProgress, progress_bar

    with progress_bar() as bar:
        written = transplant(
            donor,
            model,
            out,
            approximation_method=approximation_method,
            k=k,
            chat_template=chat_template,
            device=device,
            approximating=PassProgress(bar, "approximating"),
            writing=PassProgress(bar, "writing"),
        )
    console.print(f"{model} with the tokens of {donor} written to {out}", soft_wrap=True)
    console.print(f"{written}; chat template of the {chat_template}", soft_wrap=True)


def evaluate(
    model: Annotated[
        str, typer.Argument(help="zoo:NAME, folder, Hub id, or an ensemble's or twins' YAML.")
    ],
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
    """Score a model on a task suite, or several that answer together."""
    from dataclasses import asdict

    from evomerge.api.evaluating import (
        ensemble_file,
        ensemble_scores,
        model_scores,
        wanted_suites,
    )
    from evomerge.config.presets import Presets

    names = [name.strip() for name in (tasks or "").split(",") if name.strip()]
    suites = wanted_suites(names, evaluator or [], include_path, split, presets=Presets(presets))
    costs, file = None, ensemble_file(model)
    if file is None:
        scores = model_scores(model, suites, split)
    else:
        scores, costs = ensemble_scores(file, suites, split)
    if json:
        results = {
            task: {m: {"value": v.value, "stderr": v.stderr, "n": v.n} for m, v in metrics.items()}
            for task, metrics in scores.metrics.items()
        }
        print_json({"results": results, **({"costs": asdict(costs)} if costs else {})})
        return
    rows = [
        (task, metric, value_text(value.value, value.stderr), str(value.n))
        for task, metrics in scores.metrics.items()
        for metric, value in metrics.items()
    ]
    print_table(f"{model} on {split} items", ["task", "metric", "value", "items"], rows)
    if costs is not None:
        console.print(
            f"{costs.parameters:,} parameters held, {costs.active_parameters:,} met by each token, "
            f"{costs.forwards} forward passes per token",
            soft_wrap=True,
        )
