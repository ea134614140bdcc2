"""What ``zoo build`` builds, and where it goes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from evomerge.errors import ConfigError
from evomerge.models.zoo import smollm2_folder
from evomerge.models.zoo.build import build_zoo
from evomerge.models.zoo.smollm2.build import ADAPTERS, build_smollm2, train_smollm2

__all__ = ["FAMILIES", "build_family"]

FAMILIES = ("embedded", "smollm2")


def build_family(
    family: str,
    out: Path | None,
    *,
    train: bool,
    seed: int,
    progress: Callable[[str], None] | None = None,
) -> None:
    """Build one family of the zoo.

    Args:
        family: One of ``FAMILIES``; ``embedded`` is trained from nothing, always.
        out: Folder to write; ``None``: where ``zoo:smollm2`` is looked for.
        train: Whether the adapters of ``smollm2`` and the tasks are made again.
        seed: Names every random draw of a training.
        progress: Called with lines for people.

    Raises:
        ConfigError: No such family, or no folder for what is trained.
        CheckpointError: A package is missing.
    """
    if family not in FAMILIES:
        raise ConfigError(f"expected one of {', '.join(FAMILIES)}, got {family!r} (zoo build)")
    if out is None and (train or family == "embedded"):
        raise ConfigError("expected --out FOLDER for what is trained, got none (zoo build)")
    if out is not None and family == "embedded":
        build_zoo(out, seed=seed, progress=progress)
    elif out is not None and train:
        train_smollm2(out, seed=seed, progress=progress)
        build_smollm2(out, adapters=out / "adapters", progress=progress)
    else:
        build_smollm2(out or smollm2_folder(), adapters=ADAPTERS, progress=progress)
