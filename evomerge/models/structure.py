"""Layer and kind of tensors read from the model that transformers builds for a config."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from evomerge.errors import CheckpointError
from evomerge.models.asked import asked_once
from evomerge.models.parameters import live_views, tied_names
from evomerge.models.parts import parts_families, parts_of
from evomerge.models.roles import Kind, TensorRole
from evomerge.models.transformers_internals import dtype_plan

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "ModelStructure",
    "auto_class",
    "class_fault",
    "decoder_layers",
    "empty_model",
    "full_config",
    "live_dtypes",
    "read_structure",
    "text_only_fault",
]

_CLASSES: tuple[tuple[Mapping[str, Any], Any], ...] = (
    (MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, AutoModelForCausalLM),
    (MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES, AutoModelForImageTextToText),
)


def auto_class(config: Mapping[str, Any]) -> Any:
    """Choose the class of transformers that loads all of a model that writes text.

    Args:
        config: A checkpoint's ``config.json``.

    Returns:
        ``None`` where there is none for its type.
    """
    if parts_of(config) is not None:
        return AutoModelForImageTextToText
    model_type = str(config.get("model_type"))
    return next((auto for names, auto in _CLASSES if model_type in names), None)


def class_fault(config: Mapping[str, Any]) -> str | None:
    """Say why no model of a config that transformers knows can be run as a language model.

    Args:
        config: A checkpoint's ``config.json``.

    Returns:
        ``None`` where it can, or where transformers does not know the type at all.
    """
    model_type = str(config.get("model_type"))
    if model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or model_type not in CONFIG_MAPPING:
        return None
    if parts_of(config) is not None:
        return None
    if model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return (
            "expected a causal language model, or one of vision and language out of "
            f"{', '.join(parts_families())}, got another vision-language model ({model_type}); "
            "'evomerge merge' works on it as it is, a search needs its language model as a "
            "checkpoint of its own"
        )
    return (
        f"expected a causal language model, got a {model_type} model, which transformers does not "
        "run as one; 'evomerge merge' works on it, a search does not"
    )


def text_only_fault(config: Mapping[str, Any]) -> str | None:
    """Say why a model cannot be run as one of text alone, if so.

    Args:
        config: A checkpoint's ``config.json``.
    """
    if parts_of(config) is not None:
        return (
            "expected a model of text alone, got one of vision and language "
            f"({config.get('model_type')})"
        )
    return class_fault(config)


def empty_model(
    config: Mapping[str, Any], dtype: torch.dtype = torch.float32
) -> PreTrainedModel | None:
    """Build a language model on the meta device: all modules, no memory, no remote code.

    A type that has no causal language model may have one of vision and language, which holds one.

    Args:
        config: A checkpoint's ``config.json``.
        dtype: Of the parameters that do not ask for one of their own.

    Returns:
        The model, or ``None`` where transformers knows no such model of this type, or needs a
        package for it that is not installed.

    Raises:
        CheckpointError: The type is known, and the rest of the config does not fit it.
    """
    model_type, auto = str(config.get("model_type")), auto_class(config)
    if auto is None or model_type not in CONFIG_MAPPING:
        return None
    try:
        with torch.device("meta"):
            model: PreTrainedModel = auto.from_config(
                full_config(config), attn_implementation="eager", dtype=dtype
            )
    except ImportError:  # a merge on disk needs no such package
        return None
    except Exception as err:  # each model class has its own ways to refuse a config
        reason = " ".join(str(err).split())
        raise CheckpointError(
            f"expected a config.json that transformers can build a {model_type} model from, got "
            f"one it refuses: {reason}"
        ) from err
    return model


def full_config(config: Mapping[str, Any]) -> Any:
    """Read a config for its modules; stored ones may ask for packages that are not there.

    Returns:
        A config of transformers, or ``None`` where it does not know the type.
    """
    model_type = str(config.get("model_type"))
    if model_type not in CONFIG_MAPPING:
        return None
    skipped = ("quantization_config", "attn_implementation", "_attn_implementation")
    settings = {key: value for key, value in config.items() if key not in skipped}
    return CONFIG_MAPPING[model_type].from_dict(settings)


@dataclass(frozen=True)
class ModelStructure:
    """What the model says about the tensors of a checkpoint.

    Attributes:
        n_layers: Decoder layers.
        roles: By tensor name, for all tensors that the model holds in a form it can be asked about.
        tied: As in ``Architecture``.
        vocabulary: Likewise.
    """

    n_layers: int
    roles: Mapping[str, TensorRole]
    tied: Mapping[str, str]
    vocabulary: tuple[str, ...] = ()


def read_structure(config: Mapping[str, Any], names: Iterable[str]) -> ModelStructure | None:
    """Read layers and kinds from the model of a config.

    Args:
        config: The checkpoint's ``config.json``.
        names: Tensor names.

    Returns:
        ``None`` where transformers has no such model, or one without a list of decoder layers, or
        one that holds none of these tensors.

    Raises:
        CheckpointError: The type is known, and the rest of the config does not fit it.
    """
    names = tuple(names)
    return asked_once(ModelStructure, lambda: _asked(config, names), config, names)


def _asked(config: Mapping[str, Any], names: Iterable[str]) -> ModelStructure | None:
    model = empty_model(config)
    if model is None:
        return None
    modules = _Modules(model)
    found = live_views(model, names)
    if not found or not modules.n_layers:
        return None
    roles = {name: modules.role(view.parameter) for name, view in found.items()}
    ends = [name for name, view in found.items() if modules.is_end(view.parameter)]
    return ModelStructure(modules.n_layers, roles, tied_names(found), tuple(ends))


def live_dtypes(
    config: Mapping[str, Any], names: Iterable[str], dtype: torch.dtype
) -> dict[str, torch.dtype]:
    """Tell which dtype each tensor has in a model that transformers loads.

    Some parameters stay in float32 whatever the model's dtype, e.g. the router of some mixtures.

    Args:
        config: The checkpoint's ``config.json``.
        names: Tensor names.
        dtype: That the model is loaded in.

    Returns:
        By name; left out are tensors that the model does not hold.
    """
    model = empty_model(config, dtype)
    if model is None:
        return {}
    kept = {
        re.compile(pattern.replace("*", ".*")): own
        for pattern, own in dtype_plan(model, dtype).items()
    }
    return {
        name: next((own for p, own in kept.items() if p.search(view.parameter)), view.tensor.dtype)
        for name, view in live_views(model, names).items()
    }


class _Modules:
    """The modules of a model, and which of them are its decoder layers."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._by_path = dict(model.named_modules())
        self._head = model.get_output_embeddings()
        self._ends = (model.get_input_embeddings(), self._head)
        self._parts = parts_of({"model_type": model.config.model_type})
        self._layers, self.n_layers = decoder_layers(model)

    def role(self, parameter: str) -> TensorRole:
        if self._parts is not None and (part := self._parts.other_part(parameter)):
            return TensorRole(0, part, in_layer=False)
        layer = self._layer(parameter)
        kind = self._kind(parameter, in_layer=layer is not None)
        if layer is not None:
            return TensorRole(layer, kind)
        nearest = 0 if kind == "embedding" else self.n_layers - 1
        return TensorRole(nearest, kind, in_layer=False)

    def is_end(self, parameter: str) -> bool:
        """Tell whether the rows of a parameter are tokens."""
        module = self._by_path[parameter.rpartition(".")[0]]
        return any(module is end for end in self._ends)

    def _layer(self, parameter: str) -> int | None:
        inside = parameter.removeprefix(f"{self._layers}.")
        return None if inside == parameter else int(inside.partition(".")[0])

    def _kind(self, parameter: str, *, in_layer: bool) -> Kind:
        path = parameter.rpartition(".")[0]
        module = self._by_path[path]
        if module is self._head:
            return "head"
        if "norm" in type(module).__name__.lower():
            return "norm"
        if in_layer:
            return "attention" if self._in_attention(path) else "mlp"
        return "embedding" if isinstance(module, nn.Embedding) else "mlp"

    def _in_attention(self, path: str) -> bool:
        """Look at a module of a layer and all around it, up to the layer, for one named so."""
        depth = self._layers.count(".") + 2  # components of a layer's own path
        parts = path.split(".")
        names = parts[depth:]
        around = [".".join(parts[:end]) for end in range(depth + 1, len(parts) + 1)]
        classes = [type(self._by_path[module]).__name__ for module in around]
        # An AttentionDecoderLayer within a layer, as hybrids have, holds an mlp too.
        names += [name for name in classes if not name.endswith(("Layer", "Block"))]
        return any(word in name.lower() for name in names for word in ("attn", "attention"))


def decoder_layers(model: PreTrainedModel) -> tuple[str, int]:
    """Find the path and length of the list of layers: of those as long, the one that holds most."""
    n_layers = getattr(model.config.get_text_config(), "num_hidden_layers", 0)
    parts = parts_of({"model_type": model.config.model_type})
    sizes = {
        path: sum(parameter.numel() for parameter in module.parameters())
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == n_layers
        if parts is None or parts.other_part(path) is None
    }
    return (max(sizes, key=lambda path: sizes[path]), n_layers) if sizes else ("", 0)
