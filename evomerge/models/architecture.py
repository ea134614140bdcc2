"""What each tensor of a decoder is: its layer and its kind."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from evomerge.errors import CheckpointError
from evomerge.models.roles import KINDS, LANGUAGE_KINDS, Kind, TensorRole, roles_from_names

__all__ = ["KINDS", "LANGUAGE_KINDS", "Architecture", "Kind", "TensorRole"]


class Architecture:
    """Roles of all tensors of one checkpoint.

    They are read from the model that transformers builds for the config (without memory for its
    parameters), and from tensor names where transformers has no such model.

    Args:
        config: The checkpoint's ``config.json``.
        names: Tensor names.

    Attributes:
        n_layers: Decoder layers.
        roles: By tensor name.
        tied: Tensors that the config ties to another one of the checkpoint, by name, with that
            other's name: the live model has one parameter for both.
        vocabulary: Tensors with a row for each token: of embedding and head, in no layer.
        source: What the roles were read from.

    Raises:
        CheckpointError: The config describes no model, or no layers can be recognised.
    """

    n_layers: int
    roles: Mapping[str, TensorRole]
    tied: Mapping[str, str]
    vocabulary: tuple[str, ...]
    source: Literal["structure", "names"]

    def __init__(self, config: Mapping[str, Any], names: Iterable[str]) -> None:
        # torch and transformers are slow to import, and many import this file for its words only.
        from evomerge.models.structure import read_structure

        names = tuple(names)
        structure = read_structure(config, names)
        if structure is None:
            self.source, self.tied = "names", {}
            self.roles = _guessed(names, config.get("model_type"))
            self.n_layers = 1 + max(role.layer for role in self.roles.values())
            self.vocabulary = tuple(filter(self._is_of_tokens, names))
        else:
            self.source, self.tied = "structure", structure.tied
            self.n_layers, self.vocabulary = structure.n_layers, structure.vocabulary
            # Names that the model does not hold: of unused tensors, or such as loading takes apart.
            unread = [name for name in names if name not in structure.roles]
            self.roles = {**roles_from_names(unread, self.n_layers), **structure.roles}

    def _is_of_tokens(self, name: str) -> bool:
        role = self.roles[name]
        is_of_places = re.search(r"wpe|position", name)
        return not (role.in_layer or is_of_places) and role.kind in ("embedding", "head")


def _guessed(names: Sequence[str], model_type: str | None) -> dict[str, TensorRole]:
    roles = roles_from_names(names)
    if not any(role.in_layer for role in roles.values()):
        raise CheckpointError(
            "expected tensor names with a layer index such as 'model.layers.0.mlp…', found none in "
            f"a checkpoint of type {model_type!r}, and the installed transformers has no causal "
            "language model of this type to ask; upgrade transformers, or rename the tensors"
        )
    return roles
