"""What a Hugging Face Trainer has saved of one run, and what it measured at those steps."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from evomerge.errors import CheckpointError
from evomerge.models.files import read_json

__all__ = ["SavedStep", "saved_steps"]

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_STATE = "trainer_state.json"
_MODEL, _ADAPTER = "config.json", "adapter_config.json"


@dataclass(frozen=True)
class SavedStep:
    """One ``checkpoint-N`` folder.

    Attributes:
        step: Its N, steps of the optimiser.
        folder: Where it lies.
    """

    step: int
    folder: Path

    @property
    def base(self) -> str | None:
        """The model that its adapter was trained on; ``None``: it is a full model.

        Raises:
            CheckpointError: It holds neither.
        """
        if (self.folder / _MODEL).is_file():
            return None
        if not (self.folder / _ADAPTER).is_file():
            raise CheckpointError(
                f"expected {_MODEL} or {_ADAPTER} in {self.folder}, found neither; a checkpoint "
                "that was not written to its end is removed or left out with --last"
            )
        return str(read_json(self.folder / _ADAPTER).get("base_model_name_or_path") or "")

    def measured(self, metric: str) -> float:
        """Tell what was logged at the step of this checkpoint; ``step`` is the step itself.

        Raises:
            CheckpointError: Nothing of that name was logged at it.
        """
        if metric == "step":
            return float(self.step)
        logged = [entry for entry in self._log if entry.get("step") == self.step]
        found = [entry[metric] for entry in logged if isinstance(entry.get(metric), int | float)]
        if not found:
            names = sorted({key for entry in logged for key in entry} - {"step", "epoch"})
            raise CheckpointError(
                f"expected {metric} of step {self.step} in {self.folder / _STATE}, got "
                f"{', '.join(names) or 'nothing logged at that step'}; log as often as you save, "
                "or name another with --metric"
            )
        return float(found[-1])

    @cached_property
    def _log(self) -> list[dict[str, Any]]:
        history = read_json(self.folder / _STATE).get("log_history")
        entries = history if isinstance(history, list) else []
        return [entry for entry in entries if isinstance(entry, dict)]


def saved_steps(run: Path) -> tuple[SavedStep, ...]:
    """List the checkpoints of a run, earliest first.

    Args:
        run: ``output_dir`` of the Trainer.

    Raises:
        CheckpointError: There are none.
    """
    folders = run.iterdir() if run.is_dir() else ()
    named = ((_CHECKPOINT.fullmatch(folder.name), folder) for folder in folders if folder.is_dir())
    found = [SavedStep(int(match[1]), folder) for match, folder in named if match]
    if not found:
        raise CheckpointError(
            f"expected checkpoint-N folders of a Hugging Face Trainer in {run}, found none; give "
            "its output_dir, and save more than the last (save_strategy, save_total_limit)"
        )
    return tuple(sorted(found, key=lambda saved: saved.step))
