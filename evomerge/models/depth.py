"""Models with other layers than their config says: repeated, left out, in another order.

Settings that have one value per layer move with their layers. Whether that makes a layer at another
position the layer that it was is not assumed but looked up, in the modules transformers builds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from evomerge.errors import CheckpointError
from evomerge.models.structure import class_fault, decoder_layers, empty_model

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["LayerSettings", "config_along", "layer_settings", "movement_fault", "source_fault"]

_Nature = dict[str, object]


@dataclass(frozen=True)
class LayerSettings:
    """What a config says layer by layer.

    Attributes:
        n_layers: Layers of the model.
        lists: Settings with one value per layer.
        dense: In mixtures that keep some layers dense, those layers; else ``None``.
    """

    n_layers: int
    lists: Mapping[str, tuple[object, ...]]
    dense: frozenset[int] | None

    def along(self, layers: Sequence[int]) -> dict[str, object]:
        """Write the settings of a model that runs these layers, in this order."""
        moved: dict[str, object] = {
            name: [values[layer] for layer in layers] for name, values in self.lists.items()
        }
        if self.dense is not None:
            dense = [t for t, layer in enumerate(layers) if layer in self.dense]
            moved |= {"mlp_only_layers": dense, "decoder_sparse_step": 1}
        return {"num_hidden_layers": len(layers), **moved}


def layer_settings(config: PretrainedConfig) -> LayerSettings:
    """Read what a config says layer by layer, defaults included."""
    content = config.get_text_config().to_dict()
    n_layers = int(config.get_text_config().num_hidden_layers)
    lists = {
        name: tuple(values)
        for name, values in content.items()
        if "layer" in name and isinstance(values, list) and len(values) == n_layers
    }
    if "mlp_only_layers" not in content:
        return LayerSettings(n_layers, lists, None)
    lists.pop("mlp_only_layers", None)  # positions, whatever their number
    only, step = content["mlp_only_layers"] or [], content["decoder_sparse_step"]
    dense = frozenset(n for n in range(n_layers) if n in only or (n + 1) % step)
    return LayerSettings(n_layers, lists, dense)


def config_along(config: Mapping[str, Any], layers: Sequence[int]) -> dict[str, Any]:
    """Write the ``config.json`` of a model that runs these layers of another.

    Args:
        config: ``config.json`` of that other, of a type that transformers knows.
        layers: In the order in which they run.
    """
    return _along(config, _model(config), layers)


def movement_fault(config: Mapping[str, Any]) -> str | None:
    """Say why a model's layers cannot be put at other positions, if so.

    Every layer is built one position before its own, the first one at the end, and twice there.

    Args:
        config: The model's ``config.json``.
    """
    model = empty_model(config)
    if model is None or class_fault(config):
        return "the installed transformers has no causal language model of this type to ask"
    said = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    if decoder_layers(model)[1] != said:
        return "its model has no list of as many layers as its config says"
    plain = _natures(model)
    layers = [*range(1, len(plain)), 0, 0]
    try:
        moved = _natures(_model(_along(config, model, layers)))
    except CheckpointError as error:
        return f"no config says so: {error}"
    if len(moved) != len(layers):
        return "its config says the number of its layers in more than one place"
    return _moved_fault(plain, moved, layers)


def _moved_fault(
    plain: Sequence[_Nature], moved: Sequence[_Nature], layers: Sequence[int]
) -> str | None:
    """Say which layer is another one at another position, or depends on the table of its own."""
    for layer, nature in enumerate(plain):
        if key := next((k for k, value in nature.items() if _is_of_positions(value)), None):
            return f"layer {layer} looks up its position in {key}"
    for position, layer in enumerate(layers):
        if key := _difference(plain[layer], moved[position]):
            return (
                f"layer {layer} has {key} {plain[layer].get(key)!r} at its own position and "
                f"{moved[position].get(key)!r} at position {position}"
            )
    return None


def source_fault(config: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Say why layers of one model mean something else within another, if so.

    Args:
        config: ``config.json`` of the model that layers are put into.
        other: That of the model they are from; has the same tensors.
    """
    if config == other:
        return None
    here, there = _model(config), _model(other)
    pairs = [(_rotary(here), _rotary(there)), *zip(_natures(here), _natures(there), strict=True)]
    for wanted, found in pairs:
        if key := _difference(wanted, found):
            return f"{key} is {found.get(key)!r} rather than {wanted.get(key)!r}"
    return None


def _model(config: Mapping[str, Any]) -> PreTrainedModel:
    model = empty_model(config)
    assert model is not None  # of a type that transformers knows
    return model


def _along(
    config: Mapping[str, Any], model: PreTrainedModel, layers: Sequence[int]
) -> dict[str, Any]:
    text = model.config.get_text_config()
    settings = layer_settings(model.config).along(layers)
    named = {text.attribute_map.get(name, name): value for name, value in settings.items()}
    if "text_config" in config:
        return {**config, "text_config": {**config["text_config"], **named}}
    return {**config, **named}


def _rotary(model: PreTrainedModel) -> _Nature:
    """Read the settings of the embeddings that layers get from the model around them."""
    content = model.config.get_text_config().to_dict()
    return {name: value for name, value in content.items() if "rope" in name}


def _natures(model: PreTrainedModel) -> list[_Nature]:
    """Describe every layer but for its position: classes, plain attributes, parameters' shapes."""
    path, _ = decoder_layers(model)
    return [dict(_facts(layer)) for layer in model.get_submodule(path).children()]


def _facts(layer: nn.Module) -> Iterator[tuple[str, object]]:
    for path, module in layer.named_modules():
        prefix = f"{path}." if path else ""
        yield f"{prefix}class", type(module).__name__
        for name, value in vars(module).items():
            plain = isinstance(value, bool | int | float | str | dict | None)
            if plain and not name.startswith("_") and name != "layer_idx":
                yield prefix + name, value
    for name, parameter in layer.named_parameters():
        yield f"{name} of shape", tuple(parameter.shape)


def _is_of_positions(value: object) -> bool:
    """Tell a table by number, where a shared module finds what is its own at each position."""
    return isinstance(value, dict) and any(isinstance(key, int) for key in value)


def _difference(one: _Nature, other: _Nature) -> str | None:
    keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    return keys[0] if keys else None
