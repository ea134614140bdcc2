"""The recipe: a complete description of one merged model, independent of any search."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from evomerge.errors import Fault, RecipeError
from evomerge.methods.base import Method, ParameterValue
from evomerge.methods.modifiers import bind_modifiers, modifier_faults
from evomerge.methods.registry import method
from evomerge.models.architecture import Kind, TensorRole
from evomerge.models.parts import PartsChoice
from evomerge.models.reference import ModelRef, mentioned_models, reference_data
from evomerge.models.tokenizer_choice import TokenizerChoice
from evomerge.recipe.ensemble import OutputMix
from evomerge.recipe.path import BASE, Hops, path_data, path_faults
from evomerge.recipe.prompts import PromptFile

__all__ = ["Dtype", "Recipe", "Rule", "Selector"]

Dtype = Literal["bfloat16", "float16", "float32"]


@dataclass(frozen=True)
class Selector:
    """Which tensors a rule is for; an absent criterion matches everything.

    Attributes:
        layers: Half-open range [first, end) of decoder layers. Embeddings count as the first
            layer, final norm and head as the last.
        kinds: Kinds of module.
        names: Regular expression searched in the tensor name.
    """

    layers: tuple[int, int] | None = None
    kinds: tuple[Kind, ...] | None = None
    names: str | None = None

    __pydantic_config__ = ConfigDict(extra="forbid")

    def matches(self, name: str, role: TensorRole) -> bool:
        """Tell whether one tensor is selected."""
        return (
            (self.layers is None or self.layers[0] <= role.layer < self.layers[1])
            and (self.kinds is None or role.kind in self.kinds)
            and (self.names is None or re.search(self.names, name) is not None)
        )


@dataclass(frozen=True)
class Rule:
    """How the selected tensors are merged.

    Attributes:
        method: Method name.
        parameters: By parameter name: one value, or one per expert; absent ones take the
            method's default.
        where: Which tensors; by default all.
        modifiers: Changes to the method's pass (``methods.modifiers``), in order of application:
            parameters by modifier name.
    """

    method: str
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)
    where: Selector = Selector()
    modifiers: Mapping[str, Mapping[str, ParameterValue]] = field(default_factory=dict)

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Recipe:
    """One merged model. For each tensor the first rule that selects it applies.

    Attributes:
        experts: Model, adapter, delta or aligned model by name; their order is that of summation.
        rules: At least one; every tensor must be selected by some rule. None of an ensemble.
        base: Model reference of the common ancestor; may be absent for methods without one.
        dtype: Dtype of the result; ``None`` takes that of the base (or first expert).
        seed: Names the random masks of this recipe.
        path: The layers that the model runs, in order; empty for those of the base (or first
            expert) as they are.
        prompts: What methods with data run the experts on.
        tokenizer: Which vocabulary the models are brought to; ``None``: the base's, where theirs
            differ.
        parts: Which model lends what it has beside its language tower; ``None``: merged where all
            models have it, else the base's.
        ensemble: How the models answer together; ``None``: they are merged.
    """

    experts: Mapping[str, ModelRef]
    rules: tuple[Rule, ...]
    base: str | None = None
    dtype: Dtype | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] = 0
    path: Hops = ()
    prompts: PromptFile | None = None
    tokenizer: TokenizerChoice | None = None
    parts: PartsChoice | None = None
    ensemble: OutputMix | None = None

    __pydantic_config__ = ConfigDict(extra="forbid")

    @property
    def anchor(self) -> str:
        """The model that config, tokenizer and tensor names come from."""
        if self.base is not None:
            return self.base
        return mentioned_models(next(iter(self.experts.values())))[-1]  # what an adapter is on

    @cached_property
    def bound_methods(self) -> tuple[Method, ...]:
        """The method of each rule with its parameters bound.

        Raises:
            RecipeError: Every fault; or it is an ensemble.
        """
        self.require_merge()
        names = tuple(self.experts)
        faults = self.faults()
        if faults:
            raise RecipeError(*faults)
        return tuple(method(rule.method).bind(rule.parameters, names) for rule in self.rules)

    def require_merge(self) -> None:
        """Refuse an ensemble where one model is wanted.

        Raises:
            RecipeError: It is one; with what to do instead.
        """
        if self.ensemble is not None:
            raise RecipeError(
                "expected a merge, got an ensemble, whose models answer together and which no one "
                f"checkpoint holds; 'evomerge evaluate FILE' scores it, with {self.together} in "
                "FILE"
            )

    @property
    def together(self) -> str:
        """What a file says whose models answer together as those of this ensemble do."""
        assert self.ensemble is not None, "only of ensembles"
        shares = self.ensemble.shares
        places = {BASE: self.base, **{n: reference_data(r) for n, r in self.experts.items()}}
        models = ", ".join(str(places[name]) for name in shares)
        weights = ", ".join(f"{share:.6g}" for share in shares.values())
        return f"ensemble: {{models: [{models}], by: {self.ensemble.by}, weights: [{weights}]}}"

    @property
    def statistics(self) -> tuple[str, ...]:
        """Name the statistics that lowering asks for (``Method.statistics_used``), sorted.

        Raises:
            RecipeError: Every fault.
        """
        names = {name for bound in self.bound_methods for name in bound.statistics_used()}
        for rule in self.rules:
            for modifier in bind_modifiers(rule.modifiers, tuple(self.experts)):
                names.update(modifier.statistics_used())
        return tuple(sorted(names))

    def faults(self) -> list[Fault]:
        """List what is wrong with this recipe; empty if all is well."""
        wanted = {"experts": self.experts, "rules": self.rules or self.ensemble}
        found = [
            Fault((key,), "expected at least one, got none")
            for key, value in wanted.items()
            if not value
        ]
        found += self._ensemble_faults()
        for position, rule in enumerate(self.rules):
            found += [fault.under("rules", position) for fault in self._rule_faults(rule)]
        if self.tokenizer is not None:
            found += [f.under("tokenizer") for f in self.tokenizer.faults(self.experts)]
        if self.parts is not None:
            models = (*([] if self.base is None else [BASE]), *self.experts)
            found += [f.under("parts") for f in self.parts.faults(models)]
        return found + path_faults(self.path, self.experts, has_base=self.base is not None)

    def _ensemble_faults(self) -> Iterator[Fault]:
        if self.ensemble is None:
            return
        models = (*([] if self.base is None else [BASE]), *self.experts)
        yield from (fault.under("ensemble") for fault in self.ensemble.faults(models))
        if self.rules or self.path:
            text = "expected no rules and no path beside it: its models are not merged"
            yield Fault(("ensemble",), text, "leave out one or the other")

    def _rule_faults(self, rule: Rule) -> Iterator[Fault]:
        names = tuple(self.experts)
        try:
            kind = method(rule.method)
        except RecipeError as err:
            yield from (fault.under("method") for fault in err.faults)
            return
        if self.base is None and kind.requires_base(len(names)):
            yield Fault(("method",), f"{rule.method} needs a base, the recipe has none")
        if self.prompts is None and kind.observations:
            text = f"{rule.method} needs prompts to run the experts on, the recipe has none"
            yield Fault(("method",), text, "add prompts: {file: FILE} beside the rules")
        for fault in kind.faults(rule.parameters, names):
            yield fault.under("parameters" if fault.path else "method")
        yield from modifier_faults(rule.modifiers, names)

    def hops(self, n_layers: int) -> int:
        """Count the layers that the model runs.

        Args:
            n_layers: Layers of each source.
        """
        return len(self.path) or n_layers

    def rule_for(self, name: str, role: TensorRole) -> int:
        """Find the position of the rule that merges one tensor.

        Raises:
            RecipeError: No rule selects the tensor.
        """
        for position, rule in enumerate(self.rules):
            if rule.where.matches(name, role):
                return position
        raise RecipeError(
            f"no rule selects tensor {name} (layer {role.layer}, {role.kind}); end the recipe with "
            "a rule without 'where'"
        )

    def as_data(self) -> dict[str, Any]:
        """Return plain data that YAML and JSON can hold, leaving out what is absent."""
        rules = [_rule_data(rule) for rule in self.rules]
        experts = {name: reference_data(reference) for name, reference in self.experts.items()}
        head = _present({"base": self.base, "experts": experts, "dtype": self.dtype})
        tail: dict[str, Any] = {"path": path_data(self.path)} if self.path else {}
        if self.prompts is not None:
            tail["prompts"] = _present(asdict(self.prompts))
        if self.tokenizer is not None:
            tail["tokenizer"] = self.tokenizer.as_data()
        if self.parts is not None:
            tail["parts"] = self.parts.as_data()
        if self.ensemble is not None:
            tail["ensemble"] = {"by": self.ensemble.by, "weights": dict(self.ensemble.weights)}
        return {**head, "seed": self.seed, "rules": rules, **tail}

    @cached_property
    def digest(self) -> str:
        """16 hex digits that name this recipe; equal content has equal digests."""
        content = self.as_data()
        content["experts"] = list(content["experts"].items())
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _rule_data(rule: Rule) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if where := _present(asdict(rule.where)):
        content["where"] = where
    content |= {"method": rule.method, "parameters": _plain(rule.parameters)}
    if rule.modifiers:
        content["modifiers"] = {name: _plain(values) for name, values in rule.modifiers.items()}
    return content


def _plain(values: Mapping[str, ParameterValue]) -> dict[str, Any]:
    return {k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items()}


def _present(content: dict[str, Any]) -> dict[str, Any]:
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in content.items()
        if value is not None
    }
