"""The params of a trial, stored whole or not at all.

A journal file takes all that an ask stores in one write, see ``together``. A database takes one
param at a time; there all that was drawn is first stored as one attribute of the trial. A driver
that was killed before has left no param, and one that was killed after finds all of them there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial

from evomerge.optuna_internals import fix_params, trial_id
from evomerge.study.storage import writes_together

__all__ = ["is_proposed", "propose"]

T = TypeVar("T")
_PROPOSAL = "proposal"  # trial user attribute: the params as they were drawn


def is_proposed(trial: Trial | FrozenTrial) -> bool:
    """Tell whether all params of a trial were drawn and stored as one attribute."""
    return _PROPOSAL in trial.user_attrs


def propose(trial: Trial, suggest: Callable[[Trial], T]) -> T:
    """Draw the params of a trial, unless they were drawn before; store them whole.

    Args:
        trial: Just asked, or found half-stored; inside a block of ``together``.
        suggest: Suggests every param to a trial.

    Returns:
        What ``suggest`` returned.
    """
    storage = trial.storage
    if writes_together(storage):
        return suggest(trial)
    if _PROPOSAL in trial.user_attrs:
        fix_params(trial, trial.user_attrs[_PROPOSAL])
        return suggest(trial)
    drawn = _Drawn(storage)
    trial.storage = drawn  # type: ignore[assignment]
    try:
        suggested = suggest(trial)
    finally:
        trial.storage = storage
    trial.set_user_attr(_PROPOSAL, trial.params)
    for name, value, distribution in drawn.params:
        storage.set_trial_param(trial_id(trial), name, value, distribution)
    return suggested


class _Drawn:
    """Stands in for the storage of one trial while its params are drawn, and keeps them."""

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage
        self.params: list[tuple[str, float, BaseDistribution]] = []

    def set_trial_param(
        self, trial_id: int, name: str, value: float, distribution: BaseDistribution
    ) -> None:
        self.params.append((name, value, distribution))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)
