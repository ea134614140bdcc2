"""One type of model, merged as people would: what holds of it, and what does not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from evomerge.errors import EvomergeError, RecipeError
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.folder import write_checkpoint
from evomerge.merging.sources import Sources
from evomerge.recipe.path import Hop
from evomerge.recipe.recipe import Recipe
from evomerge.runs.parts import build_space
from evomerge.space.protocol import ModelSet
from tests.sweep.configs import sweep_config
from tests.sweep.scoring import scoring_fault
from tests.tiny import save_tokenizer

__all__ = ["Verdict", "verdict"]

_EXPERTS = ("one", "two")
_TOKENS = torch.arange(2, 26).reshape(2, 12)
_SPACE = {
    "method": "task_arithmetic",
    "depth": "per_layer",
    "modules": {"layers": ["attention", "mlp", "norm"], "ends": ["embedding", "head"]},
    "genes": {"coefficient": {"range": [0.0, 1.0]}},
}
_LAYER = re.compile(r"\.(?:layers|h|blocks|layer)\.(\d+)\.")
_State = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Verdict:
    """What holds of one type.

    Attributes:
        model_type: As in ``config.json``.
        refused: Why nothing can be merged; empty where it can.
        layers: What is wrong with genes by depth; empty where each layer has its own.
        path: Why paths are refused; empty where layers can be moved.
        parts: Of a mixture of experts, those that it has.
        scoring: What the engine scores otherwise than plain transformers; empty where nothing.
    """

    model_type: str
    refused: str = ""
    layers: str = ""
    path: str = ""
    parts: tuple[str, ...] = ()
    scoring: str = ""


def verdict(model_type: str, folder: Path) -> Verdict:
    """Build base and experts of a type, merge them, and look.

    Args:
        model_type: One of ``TYPES``.
        folder: An empty one, for the models.

    Raises:
        AssertionError: A merge is wrong: neither refused nor right.
    """
    found = _look(model_type, folder / "stored", is_original=True)
    if "save_original_format" in found.refused:
        own = _look(model_type, folder / "own", is_original=False)
        return replace(
            found, refused=found.refused + ("" if own.refused else ". Saved so, it works")
        )
    return found


def _look(model_type: str, folder: Path, *, is_original: bool) -> Verdict:
    _save_models(model_type, folder, is_original=is_original)
    models = {name: str(folder / name) for name in _EXPERTS}
    try:
        sources = Sources(str(folder / "base"), models)
        candidate = LiveCandidate(sources)
    except EvomergeError as error:
        return Verdict(model_type, refused=str(error).replace(f"{folder}/", ""))
    roles = {name: sources.architecture.roles[name] for name in sources.names}
    n_layers = sources.architecture.n_layers
    space = build_space(_SPACE, ModelSet(str(folder / "base"), models, n_layers, tensors=roles))
    params = {gene: (1 + i) / 100 for i, gene in enumerate(space.distributions)}
    recipe = space.recipe(params)
    candidate.materialise(recipe)
    write_checkpoint(recipe, folder / "merged")
    _assert_same(_loaded(folder / "merged"), candidate.model)
    off = list(_arithmetic(folder, candidate.model.state_dict(), params, n_layers))
    scoring = scoring_fault(candidate.model, folder / "base")
    path = _path(candidate, n_layers, recipe, folder / "path")
    named = [] if sources.architecture.source == "structure" else ["read from names"]
    parts = tuple(sorted({role.part for role in roles.values() if role.part}))
    return Verdict(model_type, "", "; ".join(named + off[:1]), path, parts, scoring)


def _save_models(model_type: str, folder: Path, *, is_original: bool) -> None:
    """Write base and experts, all tensors random, as they are after transformers loaded them."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(sweep_config(model_type)).float()
    for name in ("base", *_EXPERTS):
        with torch.no_grad():
            for tensor in {id(t): t for t in model.state_dict().values()}.values():
                if tensor.is_floating_point():
                    tensor.add_(0.02 * torch.randn_like(tensor))
        model.save_pretrained(folder / name, save_original_format=is_original)
        model = _loaded(folder / name)  # some types set what they load, e.g. rows of padding
        model.save_pretrained(folder / name, save_original_format=is_original)
    save_tokenizer(folder / "base")


@torch.no_grad()
def _logits(model: PreTrainedModel) -> torch.Tensor:
    found: torch.Tensor = model(_TOKENS, use_cache=False).logits
    return found


def _loaded(folder: Path) -> PreTrainedModel:
    model, found = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(found[key] for key in ("missing_keys", "unexpected_keys")), found
    plain: PreTrainedModel = model.eval()
    return plain


def _assert_same(folder: PreTrainedModel, live: PreTrainedModel) -> None:
    one, other = folder.state_dict(), live.state_dict()
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different, f"folder and live model differ in {different[:3]}"
    # Tensors lie elsewhere in memory, which some kernels round by.
    torch.testing.assert_close(_logits(folder), _logits(live), rtol=1e-5, atol=1e-5)


def _arithmetic(
    folder: Path, live: _State, params: Mapping[str, float], n_layers: int
) -> Iterator[str]:
    """Compare with plain arithmetic on what plain transformers loads; say which layers are off."""
    base, *experts = (_loaded(folder / name).state_dict() for name in ("base", *_EXPERTS))
    last = n_layers - 1
    outside = [("layers", last), ("ends", 0), ("ends", last)]
    for name, tensor in live.items():
        if not tensor.is_floating_point():
            continue
        number = _LAYER.search(name)
        own = [("layers", int(number[1]))] if number else outside
        rest = [("layers", layer) for layer in range(n_layers)]
        vectors = [expert[name].double() - base[name].double() for expert in experts]
        fitting = [
            place
            for place in (*own, *outside, *rest)
            if _is_merged(tensor, base[name], vectors, params, place)
        ]
        assert fitting, f"{name} is no merge of its like"
        if fitting[0] not in own:
            yield f"{name} has the genes of layer {fitting[0][1]}"


def _is_merged(
    merged: torch.Tensor,
    base: torch.Tensor,
    vectors: list[torch.Tensor],
    params: Mapping[str, float],
    place: tuple[str, int],
) -> bool:
    genes = [f"coefficient.{place[0]}.{place[1]}.{name}" for name in _EXPERTS]
    if not params.keys() >= {*genes}:
        return False
    mix = zip(genes, vectors, strict=True)
    wanted = base.double() + sum(params[gene] * vector for gene, vector in mix)
    return torch.allclose(merged.double(), wanted, rtol=1e-6, atol=1e-7)


def _path(candidate: LiveCandidate, n_layers: int, recipe: Recipe, out: Path) -> str:
    """Run layers of the merge, all but the first twice; say why that is refused."""
    hops = tuple(Hop("merged", layer) for layer in (*range(n_layers), *range(1, n_layers)))
    pathed = replace(recipe, path=hops)
    try:
        candidate.materialise(pathed)
    except RecipeError as error:
        reason = str(error).partition(" model: ")[2] or str(error)
        return reason.removesuffix("; leave out the path")
    write_checkpoint(pathed, out)
    torch.testing.assert_close(
        _logits(_loaded(out)), _logits(candidate.model), rtol=1e-5, atol=1e-5
    )
    return ""
