"""mergekit-moe's YAML: a base, experts with prompts for routers, and how tokens are routed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict

from evomerge.errors import ConfigError, Fault
from evomerge.fingerprint import digest_of
from evomerge.models.reference import (
    ModelRef,
    absolute_reference,
    public_reference,
    reference_data,
    relative_reference,
)
from evomerge.plain_yaml import placed_in
from evomerge.recipe.foreign import is_mixture, refuse_foreign
from evomerge.recipe.recipe import Dtype
from evomerge.schema import parse, read_yaml, write_yaml

__all__ = [
    "GateMode",
    "MixtureExpert",
    "MixtureFile",
    "dump_mixture",
    "load_mixture",
    "public_mixture",
]

GateMode = Literal["hidden", "hidden_avg", "hidden_last", "cheap_embed", "random", "uniform_random"]
_DRAWN = ("random", "uniform_random")


def _whole(model: object) -> object:
    """Flatten ``{model: {path, revision}, lora: …}`` and ``MODEL+ADAPTER``, as mergekit writes."""
    if isinstance(model, Mapping) and "model" in model and set(model) <= {"model", "lora"}:
        adapter, whole = model.get("lora"), _whole(model["model"])
        return whole if adapter is None else {"adapter": _whole(adapter), "on": whole}
    if isinstance(model, Mapping) and "path" in model and set(model) <= {"path", "revision"}:
        revision = model.get("revision")
        return f"{model['path']}@{revision}" if revision else model["path"]
    if isinstance(model, str) and "+" in model and not Path(model).exists():
        whole, _, adapter = model.partition("+")
        return {"adapter": adapter, "on": whole}
    return model


def _or_empty(prompts: object) -> object:
    return () if prompts is None else prompts


_Source = Annotated[ModelRef, BeforeValidator(_whole)]
_Prompts = Annotated[tuple[str, ...], BeforeValidator(_or_empty)]


@dataclass(frozen=True)
class MixtureExpert:
    """One model whose feed-forward layers become an expert.

    Attributes:
        source_model: A model, or an adapter on one.
        positive_prompts: What it should be asked.
        negative_prompts: What it should not be asked.
        noise_scale: Standard deviation of normal noise added to its tensors, if any.
        residual_scale: What its output is multiplied by, if anything.
    """

    source_model: _Source
    positive_prompts: _Prompts = ()
    negative_prompts: _Prompts = ()
    noise_scale: float | None = None
    residual_scale: float | None = None

    __pydantic_config__ = ConfigDict(extra="forbid")

    @property
    def prompts(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What decides over its row in a router."""
        return self.positive_prompts, self.negative_prompts


@dataclass(frozen=True)
class MixtureFile:
    """The whole file, with mergekit-moe's keys and defaults.

    Attributes:
        base_model: Lends everything but the experts, and reads the prompts.
        experts: Those that routers choose from.
        gate_mode: What rows of routers are: ``hidden`` and ``hidden_last``, what the base's layers
            get at the last token of prompts; ``hidden_avg``, the mean over their tokens;
            ``cheap_embed``, of their embeddings, alike in all layers; ``random``, standard normal;
            ``uniform_random``, as a fresh linear layer.
        dtype: Of the mixture; absent: the base's.
        experts_per_token: How many experts each token is sent to.
        shared_experts: Those that every token is sent to, where the architecture has them.
        architecture: Of the mixture; absent: the first that fits.
        seed: Of all that is drawn; mergekit takes its own from the command line.
    """

    base_model: _Source
    experts: tuple[MixtureExpert, ...]
    gate_mode: GateMode = "hidden"
    dtype: Dtype | None = None
    experts_per_token: int = 2
    shared_experts: Annotated[tuple[MixtureExpert, ...], BeforeValidator(_or_empty)] = ()
    architecture: str | None = None
    seed: int = 0

    __pydantic_config__ = ConfigDict(extra="forbid")

    @property
    def is_drawn(self) -> bool:
        """Whether routers are drawn at random, so that prompts decide nothing."""
        return self.gate_mode in _DRAWN

    @property
    def everyone(self) -> tuple[MixtureExpert, ...]:
        """The experts, then the shared ones."""
        return (*self.experts, *self.shared_experts)

    @property
    def digest(self) -> str:
        """Name what the mixture is, by content."""
        return digest_of("mixture", self.as_data())

    def as_data(self) -> dict[str, Any]:
        """Return the keys as a file writes them; those that say nothing are left out."""
        content = {key: value for key, value in asdict(self).items() if value not in (None, ())}
        content["base_model"] = reference_data(self.base_model)
        for key in ("experts", "shared_experts"):
            if key in content:
                content[key] = [_expert_data(one) for one in getattr(self, key)]
        return content

    def faults(self) -> Iterator[Fault]:
        """Find what is wrong beyond single values."""
        n = len(self.experts)
        if not 1 <= self.experts_per_token <= n:
            text = f"expected from 1 to the {n} experts that there are"
            yield Fault(("experts_per_token",), f"{text}, got {self.experts_per_token}")
        if not isinstance(self.base_model, str):
            yield Fault(("base_model",), "expected a whole model, got an adapter or a difference")
        if self.is_drawn:
            return
        for key in ("experts", "shared_experts"):
            for i, expert in enumerate(getattr(self, key)):
                yield from (fault.under(key, i) for fault in self._prompt_faults(expert))
        if n > 1 and len({expert.prompts for expert in self.experts}) == 1:
            text = "expected prompts that tell the experts apart, got the same ones for all"
            yield Fault(("experts",), text, "routers would weigh all experts alike")

    def _prompt_faults(self, expert: MixtureExpert) -> Iterator[Fault]:
        if not expert.positive_prompts:
            text = f"expected positive_prompts, as gate_mode is {self.gate_mode}, got none"
            yield Fault((), text, "or set gate_mode: random and train the routers")
        for key in ("positive_prompts", "negative_prompts"):
            for i, prompt in enumerate(getattr(expert, key)):
                if not prompt.strip():
                    yield Fault((key, i), "expected a prompt, got an empty one")


def load_mixture(path: Path) -> MixtureFile:
    """Read a file of mergekit-moe; beyond its keys, ``seed`` is of all that is drawn.

    Args:
        path: YAML file; relative model folders start at its folder.

    Raises:
        ConfigError: Every fault, with its line.
    """
    content = read_yaml(path)
    if not is_mixture(content):
        refuse_foreign(content, path, wanted="a mixture of experts")
    with placed_in(path):
        file = parse(MixtureFile, content)
        if faults := list(file.faults()):
            raise ConfigError(*faults)
    return _with_models(file, lambda model: absolute_reference(model, path.parent))


def dump_mixture(file: MixtureFile, header: str, *, beside: Path | None = None) -> str:
    """Write a mixture as YAML; ``load_mixture`` of it gives an equal one.

    Args:
        file: What to write.
        header: Comment lines above it.
        beside: Folder of the file to be; model folders are named from there. Absent: absolute.
    """
    if beside is not None:
        file = _with_models(file, lambda model: relative_reference(model, beside))
    return write_yaml(file.as_data(), header)


def public_mixture(file: MixtureFile) -> MixtureFile:
    """Name the models without their place, for what others read."""
    return _with_models(file, public_reference)


def _expert_data(expert: MixtureExpert) -> dict[str, Any]:
    content = {key: value for key, value in asdict(expert).items() if value not in (None, ())}
    prompts = {key: list(content[key]) for key in content if key.endswith("_prompts")}
    return content | prompts | {"source_model": reference_data(expert.source_model)}


def _with_models(file: MixtureFile, change: Callable[[ModelRef], ModelRef]) -> MixtureFile:
    def changed(experts: tuple[MixtureExpert, ...]) -> tuple[MixtureExpert, ...]:
        return tuple(replace(e, source_model=change(e.source_model)) for e in experts)

    return replace(
        file,
        base_model=change(file.base_model),
        experts=changed(file.experts),
        shared_experts=changed(file.shared_experts),
    )
