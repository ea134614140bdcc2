"""What is kept of experts beside a merge, and back: ``masks``, ``twins``, ``restore``.

And a mask that they share: ``learn-mask``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from evomerge.cli.options import ExperimentFile, Overrides, PresetFolder, load
from evomerge.cli.terminal import console, print_table
from evomerge.errors import ConfigError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (masks, twins, restore, learn_mask):
        app.command()(command)


def masks(
    recipe: Annotated[Path, typer.Argument(help="Recipe YAML, ours or mergekit's.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    by: Annotated[
        Literal["tall", "emr"] | None,
        typer.Option(help="Kind of masks; default: emr for merges by method emr, else tall."),
    ] = None,
    mask_ratio: Annotated[
        list[str] | None,
        typer.Option(help="Of tall: 0.4 (default) for all, or EXPERT=0.3; repeatable."),
    ] = None,
) -> None:
    """Merge a recipe, and keep a mask per expert from which each comes back."""
    from evomerge.api.masking import mask
    from evomerge.progress import PassProgress, progress_bar
    from evomerge.runs.units import bytes_text

    with progress_bar() as bar:
        written = mask(
            recipe,
            out,
            by=by,
            mask_ratio=_ratios(mask_ratio or []),
            measuring=PassProgress(bar, "statistics"),
            merging=PassProgress(bar, "merging"),
            masking=PassProgress(bar, "masks"),
        )
    found = written.masks.experts.items()
    rows = [(name, f"{one.density:.1%}", f"{one.rescale:.3f}") for name, one in found]
    print_table(f"{written.masks.by} masks", ["expert", "elements kept", "changes times"], rows)
    console.print(
        f"{out}: a merge of {bytes_text(written.merge_bytes)} with {len(rows)} masks of "
        f"{bytes_text(written.mask_bytes)} each, {bytes_text(written.total_bytes)} in all; the "
        f"experts take {bytes_text(written.experts_bytes)}. The base is needed, too",
        soft_wrap=True,
    )


def twins(
    recipe: Annotated[Path, typer.Argument(help="Recipe YAML, ours or mergekit's.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    rank_share: Annotated[
        float, typer.Option(help="Share of a matrix's rank that differences keep.")
    ] = 0.1,
    prompts: Annotated[
        Path | None,
        typer.Option(help="Fit a router: .jsonl, lines with prompt and expert."),
    ] = None,
) -> None:
    """Merge a recipe, and keep a low-rank difference per expert: Twin-Merging."""
    from evomerge.api.masking import merge_twins
    from evomerge.progress import PassProgress, progress_bar
    from evomerge.twins.file import TWINS

    with progress_bar() as bar:
        written = merge_twins(
            recipe,
            out,
            rank_share=rank_share,
            prompts=prompts,
            measuring=PassProgress(bar, "statistics"),
            merging=PassProgress(bar, "merging"),
            comparing=PassProgress(bar, "differences"),
        )
    console.print(
        f"{out}: a merge of {written.n_merge:,} parameters with {len(written.experts)} differences "
        f"of {written.n_difference:,} each, {written.n_held:,} in all; the experts have "
        f"{len(written.experts) * written.n_merge:,}",
        soft_wrap=True,
    )
    if written.accuracy is not None:
        console.print(
            f"the router finds the expert of {written.accuracy:.1%} of its own prompts; score with "
            f"it: evomerge evaluate {out / TWINS}",
            soft_wrap=True,
        )


def restore(
    folder: Annotated[Path, typer.Argument(help="Of 'evomerge masks' or 'evomerge twins'.")],
    expert: Annotated[
        str, typer.Argument(help="Whose mask or difference; of twins also math=0.6,list=0.4.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
) -> None:
    """Write the model of one expert of a merge with masks or differences."""
    from evomerge.api.masking import restore
    from evomerge.progress import PassProgress, progress_bar

    with progress_bar() as bar:
        restore(folder, _weights(expert), out, writing=PassProgress(bar, "writing"))
    console.print(f"{expert} of {folder} written to {out}", soft_wrap=True)


def learn_mask(  # noqa: PLR0913, PLR0917  a command has as many as it has options
    experiment: ExperimentFile,
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    steps: Annotated[int, typer.Option(help="Of Adam.")] = 2000,
    rate: Annotated[float, typer.Option(help="Learning rate of the mask.")] = 1e-3,
    items: Annotated[int, typer.Option(help="Items per objective and step.")] = 16,
    coefficient: Annotated[float, typer.Option(help="Of every masked task vector.")] = 0.3,
    inner_rate: Annotated[
        float, typer.Option(help="Of a step of the coefficients before each of the mask; 0: none.")
    ] = 0.0,
    temperature: Annotated[float, typer.Option(help="Lower: masks closer to 0 and 1.")] = 0.5,
    loss: Annotated[
        Literal["entropy", "gold"], typer.Option(help="Without labels, or with them.")
    ] = "entropy",
    final: Annotated[
        Literal["continuous", "discrete"], typer.Option(help="How the final mask is drawn.")
    ] = "continuous",
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 0,
    set_: Overrides = None,
    presets: PresetFolder = None,
) -> None:
    """Learn a mask that all experts share, on search items: Concrete Subspace Learning."""
    from evomerge.concrete.settings import MaskSettings
    from evomerge.progress import PassProgress, progress_bar
    from evomerge.runs.learned_mask import learn_mask as learn

    settings = MaskSettings(
        steps=steps,
        rate=rate,
        items=items,
        coefficient=coefficient,
        inner_rate=inner_rate,
        temperature=temperature,
        loss=loss,
        final=final,
        seed=seed,
    )
    first, *_ = load(experiment, set_, presets)
    with progress_bar() as bar:
        found = learn(
            first,
            settings,
            out,
            learning=PassProgress(bar, "learning"),
            writing=PassProgress(bar, "writing"),
        )
    before, after = found.ends
    console.print(
        f"loss from {before:.3f} in the first tenth of the steps to {after:.3f} in the last; "
        f"experts under the mask are in {out}, merge them: evomerge merge {out / 'recipe.yaml'}",
        soft_wrap=True,
    )


def _weights(expert: str) -> str | dict[str, float]:
    """Read the name of an expert, or weights by name."""
    if "=" not in expert:
        return expert
    parts = [part.rpartition("=") for part in expert.split(",")]
    try:
        weights = {name.strip(): float(number) for name, _, number in parts}
    except ValueError as err:
        raise ConfigError(f"expected EXPERT, or EXPERT=0.6,EXPERT=0.4, got {expert!r}") from err
    if len(weights) < len(parts):
        raise ConfigError(f"expected one weight for each expert, got {expert!r}")
    return weights


def _ratios(given: list[str]) -> float | dict[str, float]:
    """Read ratios: one for all, or by expert."""
    named = [text.rpartition("=") for text in given]
    if len(named) == 1 and not named[0][1]:
        return _number(named[0][2])
    if any(not equals for _, equals, _ in named):
        raise ConfigError(f"expected --mask-ratio once, or each with EXPERT=, got {given}")
    return {name: _number(number) for name, _, number in named}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as err:
        raise ConfigError(f"expected --mask-ratio as 0.4 or EXPERT=0.4, got {text!r}") from err
