"""What transformers loads of a checkpoint: by which names, and which tensors the config ties.

Files of one model may spell its names in several ways: with the prefix of the bare decoder or
without it, as an older version of transformers did, or as the model's authors did. Loading renames
them all; the rules for that are those of the installed transformers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from evomerge.models.asked import asked_once
from evomerge.models.checkpoint import Checkpoint

__all__ = ["Loading", "read_loading", "same_tensors"]

_NO_MATTER = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")


@dataclass(frozen=True)
class Loading:
    """What transformers does with the tensors of a checkpoint.

    Attributes:
        live: By stored name, the live one (see ``live_names``). Left out is what the model never
            loads: stored masks, rotary frequencies, parts of other tools.
        tied: Live names of tensors that the config makes one, e.g. the embedding by the head. If
            both are stored, loading ties them only where they are equal.
        ends: Live names of embedding and head, where the model could tie them.
    """

    live: Mapping[str, str]
    tied: Mapping[str, str]
    ends: tuple[str, ...]


def read_loading(config: Mapping[str, Any], names: Iterable[str]) -> Loading | None:
    """Ask the model of a config.

    Args:
        config: The checkpoint's ``config.json``.
        names: Its tensor names.

    Returns:
        ``None`` where transformers has no such model.

    Raises:
        CheckpointError: See ``empty_model``.
    """
    matters = {key: value for key, value in config.items() if key not in _NO_MATTER}
    return _read(json.dumps(matters, sort_keys=True), tuple(names))


def same_tensors(checkpoint: Checkpoint, names: Iterable[str]) -> dict[str, str]:
    """Find tensors of a checkpoint by names in any spelling that its model can load.

    Returns:
        The checkpoint's names by those given; left out are those it does not have.
    """
    names, given = tuple(names), {own: name for name, own in checkpoint.own_names.items()}
    stored, wanted = (read_loading(checkpoint.config, n) for n in (given, names))
    if stored is None or wanted is None:
        return {name: name for name in names if name in checkpoint}
    own = {live: given[name] for name, live in stored.live.items()}
    return {name: own[live] for name, live in wanted.live.items() if live in own}


@lru_cache(maxsize=64)  # models of one family ask the same, and every worker opens them all
def _read(config: str, names: tuple[str, ...]) -> Loading | None:
    return asked_once(Loading, lambda: _asked(json.loads(config), names), config, names)


def _asked(config: Mapping[str, Any], names: tuple[str, ...]) -> Loading | None:
    # Slow to import, and not needed where the answer is known.
    from evomerge.models.parameters import live_names
    from evomerge.models.structure import empty_model
    from evomerge.models.transformers_internals import tied_patterns

    model = empty_model(config)
    if model is None:
        return None
    ties = tied_patterns(model)
    ends = tuple(name for name in model.state_dict() if name in {*ties, *ties.values()})
    return Loading(live_names(model, names), dict(model.all_tied_weights_keys), ends)
