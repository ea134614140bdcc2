"""The list of differences beside a merge."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from pydantic import ConfigDict

from evomerge.errors import CheckpointError, ConfigError, Fault
from evomerge.masked.listed import load_list, require_listed
from evomerge.models.checkpoint import Checkpoint
from evomerge.models.expert import content_digest
from evomerge.models.files import file_in
from evomerge.schema import write_yaml
from evomerge.twins.differences import Differences

__all__ = ["TWINS", "TwinFile", "Twins", "load_twins", "twins_text"]

TWINS = "twins.yaml"


@dataclass(frozen=True)
class TwinFile:
    """What the file says.

    Attributes:
        rank_share: Share of a matrix's rank that its differences keep.
        merge_digest: What the merge holds.
        experts: File of the differences beside the merge, by expert.
        router: Likewise; ``None``: there is none.
    """

    rank_share: float
    merge_digest: str
    experts: Mapping[str, str]
    router: str | None = None

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Twins:
    """A merge with differences, on disk.

    Attributes:
        folder: Holds it.
        file: What is beside it.
    """

    folder: Path
    file: TwinFile

    @cached_property
    def merge(self) -> Checkpoint:
        """The merge.

        Raises:
            CheckpointError: It is another than when the differences were made.
        """
        found = Checkpoint(self.folder)
        if content_digest(found) != self.file.merge_digest:
            text = "expected the merge that the differences are from, got another in"
            raise CheckpointError(
                Fault((), f"{text} {self.folder}", "make them again: evomerge twins")
            )
        return found

    @cached_property
    def differences(self) -> Mapping[str, Differences]:
        """Those of every expert."""
        return {name: Differences(self.path(file)) for name, file in self.file.experts.items()}

    def path(self, file: str) -> Path:
        """Return the place of a file beside the merge."""
        return file_in(self.folder, file)

    def require(self, weights: Mapping[str, float]) -> None:
        """Make sure that there are differences of the experts that have weights.

        Raises:
            ConfigError: Of some there are none, or a weight is not finite.
        """
        known = self.file.experts
        for name, weight in weights.items():
            require_listed(name, known, self.folder, what="differences")
            if not math.isfinite(weight):
                raise ConfigError(f"expected a finite weight for {name}, got {weight}")


def load_twins(folder: Path) -> Twins:
    """Read the differences of a merge.

    Raises:
        ConfigError: There are none, or the file is damaged.
    """
    file = load_list(TwinFile, folder / TWINS, what="differences", command="twins")
    return Twins(folder, file)


def twins_text(file: TwinFile) -> str:
    """Write it as YAML."""
    return write_yaml(
        asdict(file), "Differences of experts to the merge in this folder: evomerge restore"
    )
