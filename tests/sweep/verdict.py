"""One type of model, merged as people would: what holds of it, and what does not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from evomerge.errors import CheckpointError, EvomergeError, RecipeError
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.folder import write_checkpoint
from evomerge.merging.sources import Sources
from evomerge.recipe.path import Hop
from evomerge.recipe.recipe import Recipe
from evomerge.runs.parts import build_space
from evomerge.space.protocol import ModelSet
from tests.sweep.configs import sweep_config
from tests.tiny import save_tokenizer

__all__ = ["Verdict", "verdict"]

EXPERTS = ("one", "two")
TOKENS = torch.arange(2, 26).reshape(2, 12)
_SPACE = {
    "method": "task_arithmetic",
    "depth": "per_layer",
    "modules": {"layers": ["attention", "mlp", "norm"], "ends": ["embedding", "head"]},
    "genes": {"coefficient": {"range": [0.0, 1.0]}},
}
_LAYER = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True)
class Verdict:
    """What holds of one type.

    Attributes:
        model_type: As in ``config.json``.
        refused: Why nothing can be merged; empty where it can.
        is_equal: Whether folder, live model and plain arithmetic are the same model.
        layers: What is wrong with genes by depth; empty where each layer has its own.
        path: Why paths are refused; empty where layers can be moved.
    """

    model_type: str
    refused: str = ""
    layers: str = ""
    path: str = ""


def verdict(model_type: str, folder: Path) -> Verdict:
    """Build base and experts of a type, merge them, and look.

    Args:
        model_type: One of ``TYPES``.
        folder: An empty one, for the models.

    Raises:
        AssertionError: A merge is wrong: neither refused nor right.
    """
    _save_models(model_type, folder)
    models = {name: str(folder / name) for name in EXPERTS}
    try:
        sources = Sources(str(folder / "base"), models)
        candidate = LiveCandidate(sources)
    except EvomergeError as error:
        return Verdict(model_type, refused=str(error))
    roles = {name: sources.architecture.roles[name] for name in sources.names}
    n_layers = sources.architecture.n_layers
    space = build_space(_SPACE, ModelSet(str(folder / "base"), models, n_layers, tensors=roles))
    params = {gene: (1 + i) / 100 for i, gene in enumerate(space.distributions)}
    recipe = space.recipe(params)
    candidate.materialise(recipe)
    live = {name: tensor.clone() for name, tensor in candidate.model.state_dict().items()}
    wanted = logits(candidate.model)
    write_checkpoint(recipe, folder / "merged")
    merged = _loaded(folder / "merged")
    _assert_same(merged.state_dict(), live)
    assert torch.equal(logits(merged), wanted), "the folder answers otherwise"
    faults = list(_arithmetic(folder, live, params, n_layers))
    layers = "" if sources.architecture.source == "structure" else "read from names"
    layers = "; ".join([layers] * bool(layers) + faults[:1])
    return Verdict(model_type, "", layers, _path(candidate, sources, recipe, folder))


def _save_models(model_type: str, folder: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(sweep_config(model_type)).float()
    for name in ("base", *EXPERTS):
        with torch.no_grad():
            for tensor in {id(t): t for t in model.state_dict().values()}.values():
                if tensor.is_floating_point():
                    tensor.add_(0.02 * torch.randn_like(tensor))
        model.save_pretrained(folder / name)
    save_tokenizer(folder / "base")


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    """Answer two sequences of twelve tokens."""
    found: torch.Tensor = model(TOKENS, use_cache=False).logits
    return found


def _loaded(folder: Path) -> PreTrainedModel:
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    found: PreTrainedModel = model.eval()
    return found


def _assert_same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different, f"folder and live model differ in {different[:3]}"


def _arithmetic(
    folder: Path, live: Mapping[str, torch.Tensor], params: Mapping[str, float], n_layers: int
) -> Iterator[str]:
    """Compare with plain arithmetic on what plain transformers loads; say which layers are off."""
    base, *experts = (_loaded(folder / name).state_dict() for name in ("base", *EXPERTS))
    last = n_layers - 1
    for name, tensor in live.items():
        if not tensor.is_floating_point():
            continue
        number = _LAYER.search(name)
        places = [("ends", 0), ("ends", last), ("layers", last), *(("layers", i) for i in range(n_layers))]
        fitting = [
            place
            for place in places
            if _is_merged(tensor, base[name], [e[name] for e in experts], params, place)
        ]
        assert fitting, f"{name} is no merge of its like"
        if number and int(number[1]) < n_layers and ("layers", int(number[1])) not in fitting:
            yield f"{name} has the genes of {fitting[0]}"


def _is_merged(merged, base, experts, params, place) -> bool:
    module, depth = place
    wanted = base.double()
    for name, expert in zip(EXPERTS, experts, strict=True):
        gene = f"coefficient.{module}.{depth}.{name}"
        if gene not in params:
            return False
        wanted = wanted + params[gene] * (expert.double() - base.double())
    return torch.allclose(merged.double(), wanted, rtol=1e-6, atol=1e-7)


def _path(candidate: LiveCandidate, sources: Sources, recipe: Recipe, folder: Path) -> str:
    """Run layers of the merge, some twice, some elsewhere; say why that is refused."""
    from dataclasses import replace

    n_layers = sources.architecture.n_layers
    hops = [*range(n_layers), *range(1, n_layers)]
    pathed = replace(recipe, path=tuple(Hop("merged", layer, 1.0) for layer in hops))
    try:
        candidate.materialise(pathed)
        write_checkpoint(pathed, folder / "path")
    except (RecipeError, CheckpointError) as error:
        return str(error)
    assert torch.equal(logits(_loaded(folder / "path")), logits(candidate.model)), "paths differ"
    return ""
