"""The prompts that a recipe's experts are observed on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from evomerge.errors import RecipeError
from evomerge.fingerprint import fingerprint

__all__ = ["PromptFile"]


@dataclass(frozen=True)
class PromptFile:
    """Which prompts, and what is taken for their answers.

    Attributes:
        file: JSON lines with ``prompt`` and ``answer``, or plain text (``observation.examples``).
        digest: What the file holds, 32 hexadecimal digits; written by whoever reads a recipe.
        limit: How many of them, from the start.
        labels: What gradients are of: labels ``sampled`` from each model's own predictions, or the
            ``gold`` answers.
    """

    file: str
    digest: str | None = None
    limit: Annotated[int, Field(gt=0)] = 256
    labels: Literal["sampled", "gold"] = "sampled"

    __pydantic_config__ = ConfigDict(extra="forbid")

    def beside(self, folder: Path) -> PromptFile:
        """Name a file that was written relative to a folder by its whole path."""
        return replace(self, file=str((folder / Path(self.file).expanduser()).absolute()))

    def sealed(self) -> PromptFile:
        """Say what the file holds, or that it still does.

        Raises:
            RecipeError: It cannot be read, or holds something else.
        """
        try:
            digest = fingerprint(Path(self.file))
        except OSError as err:
            raise RecipeError(f"expected a file of prompts at {self.file}: {err.strerror}") from err
        if self.digest not in (None, digest):
            raise RecipeError(
                f"expected in {self.file} the prompts that the recipe was made with (digest "
                f"{self.digest}), got others ({digest}); restore the file, or leave digest out"
            )
        return replace(self, digest=digest)
