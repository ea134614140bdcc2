"""The parts of Optuna that are not public, used nowhere else: what an upgrade may break."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.study._constrained_optimization import _CONSTRAINTS_KEY
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, Trial

__all__ = [
    "CONSTRAINTS_KEY",
    "FrozenStudy",
    "UnreadTrial",
    "contains",
    "fix_params",
    "frozen_study",
    "generation_key",
    "storage_of",
    "study_id",
    "trial_id",
    "without_sampler",
]

CONSTRAINTS_KEY: str = _CONSTRAINTS_KEY
"""System attribute of a trial where Optuna's samplers look for its constraints."""


def contains(distribution: BaseDistribution, value: float | int | str) -> bool:
    """Tell whether a distribution can give a value."""
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except ValueError:  # not a choice, not a number
        return False


def frozen_study(
    number: int,
    name: str,
    directions: Sequence[StudyDirection],
    user_attrs: dict[str, Any],
    system_attrs: dict[str, Any],
) -> FrozenStudy:
    """Make what a storage lists its studies as."""
    return FrozenStudy(name, None, user_attrs, system_attrs, number, directions=directions)


class UnreadTrial(FrozenTrial):
    """A trial whose params may be read later, when somebody looks; of many trials few are."""

    def read_later(self, read: Callable[[], tuple[dict[str, Any], dict[str, Any]]]) -> None:
        """Take params and distributions from ``read``, called when they are first wanted."""
        self._params, self._distributions = {}, {}
        del self._params, self._distributions  # by name: to touch ``__dict__`` makes one
        self._read = read

    def __getattr__(self, name: str) -> Any:
        if name not in ("_params", "_distributions") or "_read" not in self.__dict__:
            raise AttributeError(name)
        self._params, self._distributions = self._read()
        del self._read
        return self.__dict__[name]

    def __getstate__(self) -> dict[str, Any]:
        _ = self._params
        return self.__dict__

    def __eq__(self, other: object) -> bool:
        for trial in (self, other):
            _ = trial.params if isinstance(trial, FrozenTrial) else None
        return bool(super().__eq__(other))

    def __hash__(self) -> int:
        _ = self._params
        return int(super().__hash__())


def storage_of(study: Study) -> BaseStorage:
    """Return where a study is stored."""
    return study._storage


def study_id(study: Study) -> int:
    """Return what its storage knows a study by."""
    return study._study_id


def trial_id(trial: Trial | FrozenTrial) -> int:
    """Return what its storage knows a trial by."""
    return trial._trial_id


def without_sampler(study: Study) -> Study:
    """Return a study in whose trials all params are known, so that its sampler is asked nothing."""
    settled = copy.copy(study)
    settled.sampler = RandomSampler(seed=0)
    return settled


def fix_params(trial: Trial, params: Mapping[str, Any]) -> None:
    """Let a trial suggest these params, whatever the sampler says; others it asks for."""
    trial._fixed_params = dict(params)


def generation_key(sampler: type[BaseSampler]) -> str:
    """Return the system attribute that a genetic sampler marks its generations with."""
    return str(sampler._get_generation_key())  # type: ignore[attr-defined]
