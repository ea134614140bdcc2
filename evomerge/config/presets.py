"""Presets: search spaces, evaluators and experiments that ship with the package, or beside it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal, get_args

from evomerge.errors import ConfigError, did_you_mean
from evomerge.schema import read_yaml

__all__ = ["PRESET_KINDS", "PresetKind", "Presets", "copy_preset", "purpose"]

PresetKind = Literal["search_spaces", "evaluators", "experiments"]
PRESET_KINDS: tuple[PresetKind, ...] = get_args(PresetKind)


class Presets:
    """Finds YAML by name or by path.

    Args:
        extra: A user's folder with any of the three sub-folders; it wins over what ships.
    """

    def __init__(self, extra: Path | None = None) -> None:
        self._roots = [*([extra] if extra else []), _shipped_root()]

    def names(self, kind: PresetKind) -> dict[str, Path]:
        """List the presets of one kind by name."""
        found: dict[str, Path] = {}
        for root in self._roots:
            for file in sorted((root / kind).glob("*.yaml")):
                found.setdefault(file.stem, file)
        return found

    def find(self, kind: PresetKind, name: str, beside: Path) -> Path:
        """Find a preset by name, or a file by its path.

        Args:
            kind: Which family.
            name: Preset name, or a path to a YAML file.
            beside: Folder that relative paths start at.

        Raises:
            ConfigError: Neither exists; names the nearest preset.
        """
        if name.endswith((".yaml", ".yml")):
            file = beside / Path(name).expanduser()
            if file.is_file():
                return file
            raise ConfigError(f"expected a file at {file}, found none")
        names = self.names(kind)
        if name in names:
            return names[name]
        raise ConfigError(
            f"expected one of the {kind} {', '.join(names)}, or a path ending in .yaml, "
            f"got {name!r}{did_you_mean(name, names)}"
        )


def purpose(file: Path) -> str:
    """Read what a preset is for: its first comment line."""
    with file.open(encoding="utf-8") as lines:
        first = lines.readline()
    return first.lstrip("# ").strip() if first.startswith("#") else ""


def copy_preset(file: Path, to: Path) -> Path:
    """Copy a preset, and the task files that it includes, for a user to edit.

    Args:
        file: The preset.
        to: Folder; created if needed.

    Returns:
        The copy.

    Raises:
        ConfigError: A file of that name is there already.
    """
    included = read_yaml(file).get("include_path")
    parts = [file.name, *([included] if included else [])]
    for name in parts:
        if (to / name).exists():
            raise ConfigError(
                f"expected no {name} in {to.resolve()}, got one, which may be edited; move it "
                "away, or name another folder"
            )
    to.mkdir(parents=True, exist_ok=True)
    if included:
        shutil.copytree(file.parent / included, to / included)
    return Path(shutil.copy(file, to))


def _shipped_root() -> Path:
    package = Path(__file__).parents[1]
    installed = package / "presets"
    return installed if installed.is_dir() else package.parent
