"""The seam between a search and what it may vary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from optuna import Trial
from optuna.distributions import BaseDistribution

from evomerge.methods.registry import method, method_names
from evomerge.models.architecture import Kind, TensorRole
from evomerge.models.parts import PartsChoice
from evomerge.models.reference import ModelRef
from evomerge.models.tokenizer_choice import TokenizerChoice
from evomerge.recipe.prompts import PromptFile
from evomerge.recipe.recipe import Dtype, Recipe, Rule

__all__ = ["GeneInfo", "ModelSet", "Params", "SearchSpace"]

Params = Mapping[str, float | int | str]


@dataclass(frozen=True)
class ModelSet:
    """The models a space mixes.

    Attributes:
        base: Model reference of the ancestor.
        experts: Model, adapter or delta by expert name, in recipe order.
        n_layers: Decoder layers of each; 0 if they could not be opened.
        dtype: Dtype of the candidates; ``None`` takes the base's.
        seed: Seed of the candidates' random masks.
        tensors: Role of each tensor to merge, by name; empty if they are not known.
        winners: Experts that are merges themselves, found by an earlier stage.
        prompts: What methods with data run the experts on.
        tokenizer: Which vocabulary they are brought to (``Recipe.tokenizer``).
        parts: Which of them lends vision tower and projector (``Recipe.parts``).
    """

    base: str
    experts: Mapping[str, ModelRef]
    n_layers: int
    dtype: Dtype | None = None
    seed: int = 0
    tensors: Mapping[str, TensorRole] = field(default_factory=dict)
    winners: tuple[str, ...] = ()
    prompts: PromptFile | None = None
    tokenizer: TokenizerChoice | None = None
    parts: PartsChoice | None = None

    @cached_property
    def roles(self) -> Mapping[str, TensorRole]:
        """Role by tensor name; of unknown tensors, one per layer and kind of a plain decoder."""
        if self.tensors:
            return self.tensors
        layered: tuple[Kind, ...] = ("attention", "mlp", "norm")
        assumed = [TensorRole(layer, kind) for layer in range(self.n_layers) for kind in layered]
        assumed += [TensorRole(0, "embedding"), TensorRole(self.n_layers - 1, "head")]
        return {f"layers.{role.layer}.{role.kind}": role for role in assumed}

    def recipe(self, rules: tuple[Rule, ...]) -> Recipe:
        """Make a recipe that mixes these models."""
        prompts = self.prompts if any(map(_has_data, rules)) else None
        return Recipe(
            self.experts,
            rules,
            base=self.base,
            dtype=self.dtype,
            seed=self.seed,
            prompts=prompts,
            tokenizer=self.tokenizer,
            parts=self.parts,
        )

    def are_mixed_by(self, recipe: Recipe) -> bool:
        """Tell whether a recipe merges these models, and selects tensors in ways known here."""
        if recipe.ensemble is not None:
            return False
        same = (recipe.base, [*recipe.experts.items()]) == (self.base, [*self.experts.items()])
        return same and (bool(self.tensors) or not any(rule.where.names for rule in recipe.rules))


def _has_data(rule: Rule) -> bool:
    return rule.method in method_names() and bool(method(rule.method).observations)


@dataclass(frozen=True)
class GeneInfo:
    """One gene, described for people.

    Attributes:
        name: Parameter name in the study.
        range: Its values, e.g. ``0 to 1`` or ``linear | ties``.
        initial: The neutral value.
        meaning: What it does.
    """

    name: str
    range: str
    initial: float | int | str
    meaning: str


class SearchSpace(Protocol):
    """What may vary, and how a trial's params become a recipe.

    Pure: no models are read. ``recipe`` is total on params that ``suggest`` can produce, and
    different active params give different recipes.
    """

    @property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """Every gene in a fixed order, conditional ones included."""

    @property
    def defaults(self) -> Params:
        """A neutral value for every gene."""

    @property
    def depths(self) -> Mapping[str, int]:
        """Say how deep genes sit: their depth group, control point, layer, or place in a path.

        Genes of the whole model are absent.
        """

    @property
    def statistics(self) -> tuple[str, ...]:
        """Name the statistics that its recipes may ask for (``Recipe.statistics``), sorted."""

    def suggest(self, trial: Trial) -> Params:
        """Draw the active genes of one trial."""

    def recipe(self, params: Params) -> Recipe:
        """Decode params; inactive genes may be absent."""

    def params(self, recipe: Recipe) -> Params | None:
        """Find params that decode to an equivalent recipe, or ``None`` if there are none."""

    def describe(self) -> list[GeneInfo]:
        """List the genes for people."""
