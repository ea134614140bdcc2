"""One merge with a mask per expert, and back: ``masks``, ``restore``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from evomerge.cli.terminal import console, print_table
from evomerge.errors import ConfigError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (masks, restore):
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


def restore(
    folder: Annotated[Path, typer.Argument(help="Folder of 'evomerge masks'.")],
    expert: Annotated[str, typer.Argument(help="Whose mask to take.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
) -> None:
    """Write the model of one expert of a merge with masks."""
    from evomerge.api.masking import restore
    from evomerge.progress import PassProgress, progress_bar

    with progress_bar() as bar:
        restore(folder, expert, out, writing=PassProgress(bar, "writing"))
    console.print(f"{expert} of {folder} written to {out}", soft_wrap=True)


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
