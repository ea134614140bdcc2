"""The seam of loggers, and which there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol, cast, runtime_checkable

from evomerge.api.study import Study
from evomerge.errors import Fault
from evomerge.study.records import StudyRecord, TrialRecord

__all__ = ["Logger", "logger_faults", "make_logger"]


@runtime_checkable
class Logger(Protocol):
    """A callback that also hears when a study begins and when a run ends.

    All in the driver's thread. What it raises is a warning, after which it hears no more: a
    tracker that cannot be reached does not end a search.
    """

    def begin(self, study: Study, record: StudyRecord) -> None:
        """Follow a study from where earlier drivers left it; of a run with stages each in turn."""

    def __call__(self, study: Study, trial: TrialRecord) -> None:
        """Hear of a finished trial; numbers come in any order."""

    def end(self, study: Study) -> None:
        """Hear that the run ends, be it done, stopped or broken; only after ``begin``."""


@dataclass(frozen=True)
class _Kind:
    """Where a logger is, and what it needs: a module, and how to get it."""

    home: str
    needs: str
    install: str


_KINDS = {
    "mlflow": _Kind("mlflow:MlflowLogger", "mlflow", "mlflow-skinny>=3.1"),
    "wandb": _Kind("wandb:WandbLogger", "wandb", "wandb>=0.20"),
    "tensorboard": _Kind("tensorboard:TensorboardLogger", "tensorboard", "tensorboard>=2.16"),
}


def logger_faults(names: Sequence[str]) -> Iterator[Fault]:
    """Name the loggers whose library is not installed, by the key ``loggers``."""
    for i, name in enumerate(names):
        if find_spec(_KINDS[name].needs) is None:
            text = f"expected {_KINDS[name].needs} to be installed, found it nowhere"
            yield Fault(("loggers", i), text, f"pip install '{_KINDS[name].install}'")


def make_logger(name: str) -> Logger:
    """Make a logger by its name in the key ``loggers``; its library is installed."""
    module, _, attribute = _KINDS[name].home.partition(":")
    found = getattr(import_module(f"evomerge.api.loggers.{module}"), attribute)
    return cast("Logger", found())
