"""mergekit's settings evaluated: which parameters merge one tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from evomerge.errors import RecipeError
from evomerge.methods.base import ParameterValue, Scalar
from evomerge.methods.registry import method
from evomerge.models.architecture import TensorRole
from evomerge.recipe.mergekit.file import MergekitFile, Settings, Slice
from evomerge.recipe.mergekit.keys import COUNTERPARTS, Key
from evomerge.recipe.recipe import Rule

__all__ = ["evaluate_settings", "value_for"]


def evaluate_settings(
    file: MergekitFile,
    slices: Mapping[range, Slice],
    experts: Mapping[str, str],
    roles: Mapping[str, TensorRole],
) -> dict[str, Rule]:
    """Evaluate the settings of a file for every tensor.

    Args:
        file: The file.
        slices: Its slices by the layers they are for; together all layers.
        experts: Expert name by mergekit's model name.
        roles: By tensor name.

    Returns:
        A rule without selector by tensor name.

    Raises:
        RecipeError: A parameter that mergekit requires has no value for some tensor.
    """
    rules = {}
    for name, role in roles.items():
        layers, piece = next((ls, piece) for ls, piece in slices.items() if role.layer in ls)
        # Tensors outside the layers take the start of a gradient, a slice of one layer its end.
        t = (role.layer - layers.start) / (len(layers) - 1) if len(layers) > 1 else 1.0
        rules[name] = _rule(file, piece, experts, name, t if role.in_layer else 0.0)
    return rules


def _rule(
    file: MergekitFile, piece: Slice, experts: Mapping[str, str], name: str, t: float
) -> Rule:
    """Evaluate all parameters for one tensor."""
    counterpart = COUNTERPARTS[file.merge_method]
    declared = method(counterpart.ours).parameters()
    shared = (piece.parameters, file.parameters)
    own = {source.model: source.parameters for source in piece.sources}
    parameters: dict[str, ParameterValue] = {}
    for ours, key in counterpart.keys.items():
        default = declared[ours].default if key.default is None else key.default
        if declared[ours].per_expert:
            parameters[ours] = {
                expert: value_for((own[model], *shared), key, name, t, default)
                if model in own
                else _absent(key, default)
                for model, expert in experts.items()
            }
        else:
            value = key.ours(value_for(shared, key, name, t, default))
            if value != declared[ours].default:
                parameters[ours] = value
    return Rule(counterpart.ours, counterpart.imported(parameters))


def _absent(key: Key, default: Scalar) -> Scalar:
    """The value of a model that a slice does not list: it takes no part."""
    return 0.0 if key.name == "weight" else default


def value_for(scopes: Iterable[Settings], key: Key, name: str, t: float, default: Scalar) -> Scalar:
    """Evaluate one setting for one tensor.

    Args:
        scopes: Where it may be set; the first one has the highest precedence.
        key: The parameter.
        name: The tensor; the first entry that is for it counts.
        t: Position in gradients, in [0, 1].
        default: The value if there is no entry, unless mergekit has no default.

    Raises:
        RecipeError: No entry, and no default.
    """
    cases = (case for settings in scopes for case in settings.get(key.name, ()))
    start = None if key.required else default
    value = next((case.at(t) for case in cases if case.matches(name)), start)
    if value is None:
        raise RecipeError(
            f"expected a value of {key.name} for tensor {name} of every model, "
            "found none; mergekit has no default for it"
        )
    # Beyond [0, 1], mergekit's sparsifiers do what they do at the ends.
    return min(max(float(value), 0.0), 1.0) if key.name == "density" else value
