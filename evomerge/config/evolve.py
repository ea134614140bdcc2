"""mergekit-evolve's files as experiments.

The meaning of its keys was checked against version 0.1.5. What searches alike is written so, what
cannot be is an error or a line at the head of the experiment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from evomerge.config.values import RESERVED
from evomerge.errors import ConfigError, Fault, collected
from evomerge.models.configs import n_layers
from evomerge.models.reference import (
    AdapterRef,
    ModelRef,
    absolute_reference,
    mentioned_models,
    reference_data,
    relative_reference,
    resolve_config,
)
from evomerge.plain_yaml import placed_in
from evomerge.recipe.mergekit.heads import expert_names
from evomerge.schema import fit, read_yaml, write_yaml

__all__ = ["EvolveFile", "EvolveTask", "Genome", "experiment_from_evolve"]

_TRIALS = 100  # mergekit-evolve's --max-fevals
_RANGE = 1.2  # CMA-ES starts at 1/n with sigma 1/6 and has no bounds: this leaves room around it
_MOST = 10**6  # a weight beyond is a slip
_SPLITS = {"search": 0.6, "validation": 0.2, "test": 0.2}
_BY_TASK_VECTORS = ("task_arithmetic", "ties", "dare_ties")
_ON_ITS_OWN_TERMS = """\
To search as mergekit-evolve does, take "sampler: {name: pycma}" and give every objective a
preference: CMA-ES on the weighted sum.
Its scores are of all items of a task, by which it also chooses; here some are held out."""


def _model(value: object) -> object:
    """Read a model as mergekit writes it: ``path@revision+adapter``, or the parts by name."""
    if not isinstance(value, Mapping):
        model, _, adapter = str(value).partition("+")
        return AdapterRef(adapter=adapter, on=model) if adapter else value
    parts = {key: _path(part) for key, part in value.items()}
    if set(parts) <= {"model", "lora"} and "model" in parts:
        lora = parts.get("lora")
        return AdapterRef(adapter=lora, on=parts["model"]) if lora else parts["model"]
    return _path(value)


def _path(value: object) -> Any:
    """Flatten ``{path, revision}``."""
    if isinstance(value, Mapping) and "path" in value and set(value) <= {"path", "revision"}:
        revision = value.get("revision")
        return f"{value['path']}@{revision}" if revision else value["path"]
    return value


def _task(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


EvolveModel = Annotated[ModelRef, BeforeValidator(_model)]


@dataclass(frozen=True)
class Genome:
    """The parameter space of a file, with mergekit-evolve's names and defaults."""

    models: Annotated[tuple[EvolveModel, ...], Field(min_length=1)]
    merge_method: Literal["linear", "task_arithmetic", "ties", "dare_ties", "slerp"]
    base_model: EvolveModel | None = None
    tokenizer_source: str | None = None
    layer_granularity: int = 0
    normalize: bool | None = None
    allow_negative_weights: bool = False
    filters: tuple[str, ...] | None = None
    smooth: bool = False

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class EvolveTask:
    """One term of the sum that is searched for."""

    name: str
    weight: Annotated[float, Field(ge=-_MOST, le=_MOST, allow_inf_nan=False)] = 1.0
    metric: str = "acc,none"

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class EvolveFile:
    """The whole file."""

    genome: Genome
    tasks: Annotated[tuple[Annotated[EvolveTask, BeforeValidator(_task)], ...], Field(min_length=1)]
    limit: Annotated[int, Field(gt=0)] | None = None
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    shuffle: bool = False
    random_init: bool = False
    apply_chat_template: bool = True
    fewshot_as_multiturn: bool = True

    __pydantic_config__ = ConfigDict(extra="forbid")


def experiment_from_evolve(
    path: Path, *, out: Path, include_path: Path | None = None, trials: int | None = None
) -> str:
    """Write the experiment that searches what a file of mergekit-evolve searches.

    Opens the config of its first model where layers are grouped, for their number.

    Args:
        path: The file; relative model folders start at its folder.
        out: Where the experiment will lie; its folders are relative to there.
        include_path: Folder of task YAML, its ``--task-search-path``.
        trials: The budget, its ``--max-fevals``; absent: 100, as there.

    Returns:
        YAML with comments.

    Raises:
        ConfigError: Every fault of the file; what it means has no counterpart.
        CheckpointError: The first model's config cannot be read.
    """
    content = read_yaml(path)
    if "genome" not in content:
        raise ConfigError(
            Fault(("genome",), f"expected a file of mergekit-evolve, got none in {path}")
        )
    if include_path is not None and not include_path.is_dir():
        raise ConfigError(f"expected a folder of task YAML at --include-path, got {include_path}")
    with placed_in(path):
        fitted = fit(EvolveFile, content)
        if fitted.value is None:
            raise ConfigError(*fitted.faults)
        written = _Import(fitted.value, path.parent, out.parent)
        found = list(written.faults())
        faults = [one for one in found if not fitted.gaps.touch(*one.path)]
        if not found:
            with collected(faults):
                experiment = written.experiment(include_path, trials or _TRIALS)
        if faults := [*fitted.faults, *faults]:
            raise ConfigError(*faults)
    return write_yaml(experiment, "\n".join([f"From {path.name}.", *written.notes()]))


@dataclass(frozen=True)
class _Import:
    """One file on its way.

    Attributes:
        file: Its content.
        beside: Folder that its models are relative to.
        to: Folder of the experiment.
    """

    file: EvolveFile
    beside: Path
    to: Path

    @property
    def _genome(self) -> Genome:
        return self.file.genome

    @cached_property
    def _merged(self) -> tuple[ModelRef, ...]:
        """What has genes: the models, without the base where it is what changes are taken from."""
        genome = self._genome
        if genome.merge_method in _BY_TASK_VECTORS or self._is_an_arc:
            return tuple(model for model in genome.models if model != self._base)
        return genome.models

    @property
    def _is_an_arc(self) -> bool:
        return self._genome.merge_method == "slerp" and len(self._genome.models) == 2

    @property
    def _base(self) -> ModelRef:
        return self._genome.base_model or self._genome.models[0]

    @cached_property
    def _names(self) -> dict[str, str]:
        return {
            model: _expert_name(name)
            for model, name in expert_names(map(_told, self._merged), RESERVED).items()
        }

    def faults(self) -> Iterator[Fault]:
        """Find what mergekit-evolve refuses, too, and what has no counterpart."""
        genome, at = self._genome, ("genome",)
        if not isinstance(self._base, str):
            yield Fault(
                (*at, "base_model" if genome.base_model else "models"),
                f"expected a whole model as base, got {self._base}",
                "merge the adapter into it first ('evomerge merge') and name the folder",
            )
        if genome.merge_method in _BY_TASK_VECTORS and genome.base_model is None:
            yield Fault((*at, "base_model"), f"expected one for {genome.merge_method}, got none")
        if not self._merged:
            yield Fault((*at, "models"), "expected a model besides the base, got none")
        if genome.merge_method == "slerp":
            for key in ("smooth", "filters"):
                if getattr(genome, key):
                    yield Fault((*at, key), "expected none for slerp, as in mergekit-evolve")
        if len(set(map(_told, genome.models))) < len(genome.models):
            yield Fault((*at, "models"), "expected each model once")
        for position, task in enumerate(self.file.tasks):
            if (task.name, task.metric) in {(t.name, t.metric) for t in self.file.tasks[:position]}:
                text = f"{task.name} with {task.metric} is there already"
                yield Fault(("tasks", position), text, "add its weight to the first")
            if task.weight == 0:
                hint = "leave it out, or add it as an evaluator with report_only"
                yield Fault(("tasks", position, "weight"), "expected one other than 0", hint)

    def experiment(self, include_path: Path | None, trials: int) -> dict[str, Any]:
        """Write the experiment as plain data."""
        return {
            "models": {
                "base": self._placed(self._base),
                "experts": {self._names[_told(m)]: self._placed(m) for m in self._merged},
                "dtype": "bfloat16",
                **({} if self._tokenizer is None else {"tokenizer": {"source": self._tokenizer}}),
            },
            "search_space": self._space(),
            "evaluators": [self._evaluator(include_path)],
            "objectives": list(self._objectives()),
            "sampler": "auto",
            "budget": {"trials": trials},
            "seed": 0,
        }

    def _placed(self, model: ModelRef) -> str | dict[str, str]:
        absolute = absolute_reference(model, self.beside)
        is_placed = all(Path(part).is_absolute() for part in mentioned_models(model))
        return reference_data(absolute if is_placed else relative_reference(absolute, self.to))

    def _space(self) -> dict[str, Any]:
        genome = self._genome
        return {
            "method": "linear" if self._is_a_choice_of_two else genome.merge_method,
            "depth": self._depth(),
            **({"modules": _modules(genome.filters)} if genome.filters else {}),
            "genes": self._genes(),
            **({} if self._is_an_arc else {"fixed": {"normalize": self._normalize}}),
        }

    @property
    def _is_a_choice_of_two(self) -> bool:
        return self._genome.merge_method == "slerp" and not self._is_an_arc

    @property
    def _normalize(self) -> bool:
        default = self._genome.merge_method != "task_arithmetic"
        return default if self._genome.normalize is None else self._genome.normalize

    def _depth(self) -> str | dict[str, int]:
        size = self._genome.layer_granularity
        if size < 1:
            return "global"
        first = self._genome.models[0]
        model = absolute_reference(
            first.on if isinstance(first, AdapterRef) else str(first), self.beside
        )
        layers = n_layers(resolve_config(model))
        if layers % size:
            text = f"expected a divisor of the {layers} layers of {model}, got {size}"
            raise ConfigError(Fault(("genome", "layer_granularity"), text))
        groups = layers // size
        return {"control_points" if self._genome.smooth and groups > 1 else "groups": groups}

    def _genes(self) -> dict[str, Any]:
        if self._is_an_arc:
            return {"t": {"range": [0.0, 1.0], "initial": 0.5}}
        low = -_RANGE if self._genome.allow_negative_weights else 0.0
        start = round(1 / len(self._merged), 4)
        coefficient: dict[str, Any] = {"range": [low, _RANGE], "initial": start}
        if self._is_a_choice_of_two:
            coefficient |= {"range": [0.05, _RANGE], "max_active": 2}
        sparse = self._genome.merge_method in ("ties", "dare_ties")
        density = {"density": {"range": [0.05, 1.0], "initial": 1.0}} if sparse else {}
        return {"coefficient": coefficient, **density}

    def _evaluator(self, include_path: Path | None) -> dict[str, Any]:
        file = self.file
        suite: dict[str, Any] = {"tasks": list(dict.fromkeys(task.name for task in file.tasks))}
        if include_path is not None:
            suite["include_path"] = relative_reference(str(include_path.resolve()), self.to)
        suite["splits"] = dict(_SPLITS)
        given = {"limit": file.limit, "num_fewshot": file.num_fewshot}
        suite |= {key: value for key, value in given.items() if value is not None}
        for key in ("apply_chat_template", "fewshot_as_multiturn"):
            suite[key] = getattr(file, key)
        return suite

    def _objectives(self) -> Iterator[dict[str, Any]]:
        uneven = len({abs(task.weight) for task in self.file.tasks}) > 1
        for task in self.file.tasks:
            objective: dict[str, Any] = {"task": task.name, "metric": _metric(task.metric)}
            if task.weight < 0:
                objective["direction"] = "minimize"
            if uneven:
                objective["preference"] = abs(task.weight)
            yield objective

    @property
    def _tokenizer(self) -> str | None:
        """Say which tokenizer is asked for, as experiments do; ``None``: none that is known."""
        source = self._genome.tokenizer_source
        if source in ("base", "union"):
            return source
        if source == _told(self._base):
            return "base"
        return f"model:{self._names[source]}" if source in self._names else None

    def notes(self) -> Iterator[str]:
        """Say what is not as it was."""
        genome = self._genome
        if self._is_a_choice_of_two:
            yield "slerp, there between the two models with the largest genes, is linear between"
            yield "two here: between models of one ancestor the arc is as good as straight."
        if len(self._merged) < len(genome.models) and not self._is_an_arc:
            yield "The base among the models had genes without effect; it has none here."
        if genome.tokenizer_source is not None and self._tokenizer is None:
            yield f"tokenizer_source {genome.tokenizer_source} is none of the models; left out."
        if self.file.random_init:
            yield "random_init: samplers here begin with the models and their average."
        yield from _ON_ITS_OWN_TERMS.splitlines()


def _told(model: ModelRef) -> str:
    """Write a model as mergekit does."""
    return f"{model.on}+{model.adapter}" if isinstance(model, AdapterRef) else str(model)


def _expert_name(name: str) -> str:
    """Make a name that experts may have."""
    name = re.sub(r"[^A-Za-z0-9_-]", "-", name)
    return name if name[:1].isalpha() else f"m-{name}"


def _modules(filters: Sequence[str]) -> dict[str, Any]:
    """Write filters as groups of modules; the first that a tensor's name contains has it."""
    groups: dict[str, Any] = {}
    for position, text in enumerate(filters):
        name = re.sub(r"\W+", "_", text).strip("_") or f"filter_{position}"
        groups[name if name not in groups else f"{name}_{position}"] = {"names": re.escape(text)}
    return {**groups, "other": ["attention", "mlp", "norm", "embedding", "head"]}


def _metric(metric: str) -> str:
    return metric.removesuffix(",none")
