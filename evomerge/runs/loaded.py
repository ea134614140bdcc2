"""Puts the parts of an experiment together, and finds every fault before any model is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evomerge.config.experiment import Experiment
from evomerge.errors import CheckpointError, ConfigError, Fault, collected
from evomerge.evaluation.engine_choice import argument_faults
from evomerge.evaluation.suite import REPORT_ONLY, SPLITS, Suite
from evomerge.execution.protocol import WorkerSpec
from evomerge.models.reference import split_hub_id
from evomerge.runs import checks
from evomerge.runs.goals import constraints_of, costs_of, objectives_of
from evomerge.runs.importance import with_boundaries
from evomerge.runs.observed import Observing, observing, prompt_file
from evomerge.runs.parts import build_space, make_suites, space_faults
from evomerge.runs.sampling import sampler_faults
from evomerge.runs.seed_models import make_seeds, resolve_seeds
from evomerge.runs.sloped import SlopedParts
from evomerge.schema import NO_GAPS, Gaps
from evomerge.space.baselines import Baseline, Seeds, baselines
from evomerge.space.protocol import ModelSet, SearchSpace
from evomerge.study.constraints import Constraint
from evomerge.study.records import Objective, make_objectives

if TYPE_CHECKING:
    from evomerge.evaluation.catalogue import TaskCatalogue
    from evomerge.evaluation.language_model import LanguageModel
    from evomerge.evaluation.requests import PromptedSuite
    from evomerge.merging.sources import Sources

__all__ = ["Loaded"]

_EXPERTS = ("models", "experts")
_WHICH = ("tasks", "include_path")  # keys of an evaluator that say which tasks there are


@dataclass(frozen=True)
class Loaded:
    """An experiment whose parts fit together.

    Attributes:
        experiment: The resolved experiment.
        models: What is mixed.
        space: What varies.
        suites: What candidates are scored on.
        objectives: What is traded off.
        constraints: What must be kept.
        seeds: What is evaluated before the search.
        report_only: What is measured after it, of tasks that it never sees.
        tasks: The suites' tasks, loaded.
        sloped: Which genes and objectives have slopes.
        observing: What running the experts on prompts takes; ``None`` where no method asks for it.
    """

    experiment: Experiment
    models: ModelSet
    space: SearchSpace
    suites: tuple[Suite, ...]
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    seeds: tuple[Baseline, ...]
    report_only: tuple[Objective, ...]
    tasks: TaskCatalogue
    sloped: SlopedParts
    observing: Observing | None = None

    @classmethod
    def of(
        cls, experiment: Experiment, tasks: TaskCatalogue | None = None, gaps: Gaps = NO_GAPS
    ) -> Loaded:
        """Build every part of a resolved experiment except its workers.

        Reads the headers of checkpoints and the data of tasks; loads no model.

        Args:
            experiment: As ``load_experiment`` returns it. That of the result has what only other
                files and the models know spelt out: seed recipes, groups of layers by importance.
            tasks: Loaded before; taken if they are those of the experiment's suites.
            gaps: What the experiment is without, being wrong: it is not loaded then, only looked
                at for faults that are not because of that.

        Raises:
            ConfigError: Every fault of every part, by the keys of the experiment.
        """
        parts = _Parts(experiment, tasks, gaps)
        if parts.faults or gaps.paths:
            raise ConfigError(*gaps.beside(parts.faults))
        experiment = parts.experiment
        assert parts.space is not None, "a missing space is a fault"
        assert parts.sloped is not None, "without faults it is known"
        found = baselines(parts.space, parts.models, parts.seeds)
        if faults := list(checks.unreached_faults(experiment, found)):
            raise ConfigError(*faults)
        return cls(
            experiment=experiment,
            models=parts.models,
            space=parts.space,
            suites=parts.suites,
            objectives=objectives_of(experiment),
            constraints=constraints_of(experiment),
            seeds=found,
            report_only=make_objectives(parts.tasks.report_only_measures),
            tasks=parts.tasks,
            sloped=parts.sloped,
            observing=parts.observing,
        )

    @property
    def worker(self) -> WorkerSpec:
        """What each worker loads."""
        return WorkerSpec(
            base=self.models.base,
            experts=self.models.experts,
            suites=self.suites,
            dtype=self.models.dtype,
            costs=costs_of(self.objectives, self.constraints),
            gates=self.experiment.gates,
            rungs=self.experiment.rungs,
            engine=self.experiment.engine,
            prompted=self._prompted,
            space=self.space,
            objectives=tuple((o.task, o.metric) for o in self.objectives),
            losses=None if self.sloped.steps is None else self.sloped.steps.settings,
            prompts=self.models.prompts,
            tokenizer=self.models.tokenizer,
            parts=self.models.parts,
        )

    @property
    def _prompted(self) -> dict[str, tuple[PromptedSuite, ...]]:
        """The prompts, for workers; code of a user's own folder cannot be sent to them."""
        if any(suite.allow_code for suite in self.suites):
            return {}
        found = {split: self.tasks.prompted(split) for split in (*SPLITS, REPORT_ONLY)}
        return {split: prompted for split, prompted in found.items() if prompted}


class _Parts:
    """The parts of an experiment, built one after the other, going on after faults.

    Args:
        experiment: Resolved.
        tasks: Loaded before.
        gaps: What is left out of it.
    """

    def __init__(self, experiment: Experiment, tasks: TaskCatalogue | None, gaps: Gaps) -> None:
        self.experiment, self._gaps = experiment, gaps
        self.faults: list[Fault] = []
        self.models = self._models()
        self.seeds = self._seeds()
        self.space = self._space()
        self.suites = make_suites(self.experiment)
        self.tasks = self._tasks(tasks)
        self.sloped: SlopedParts | None = None
        self.observing: Observing | None = None
        self._check()

    def _models(self) -> ModelSet:
        config = self.experiment.models
        lost = [path[2] for path in self._gaps.paths if path[:2] == _EXPERTS and len(path) > 2]
        sources = None if self._gaps.touch("models", "base") else self._sources()
        self._opened = sources
        roles = {} if sources is None else sources.architecture.roles
        return ModelSet(
            base=config.base,
            experts={**config.experts, **{str(name): "" for name in lost}},
            n_layers=0 if sources is None else sources.architecture.n_layers,
            dtype=config.dtype,
            seed=self.experiment.seed,
            tensors={} if sources is None else {name: roles[name] for name in sources.names},
            winners=tuple(config.winners),
            prompts=prompt_file(self.experiment),
            tokenizer=config.tokenizer,
            parts=config.parts,
        )

    def _sources(self) -> Sources | None:
        """Open the models; where that fails the base alone, which tells layers and tensors."""
        from evomerge.merging.sources import Sources
        from evomerge.models.opening import peek_model

        config = self.experiment.models
        with collected(self.faults, "models"):
            return Sources(
                config.base,
                config.experts,
                open_full=peek_model,
                tokenizer=config.tokenizer,
                parts=config.parts,
            )
        with suppress(CheckpointError):
            return Sources(config.base, {}, open_full=peek_model)
        return None

    @property
    def _are_named(self) -> bool:
        """Whether the names of all experts are known."""
        return not self._gaps.paths & {_EXPERTS, _EXPERTS[:1]}

    def _seeds(self) -> Seeds:
        """Read the seeds; spells out what only other files and the models know."""
        faults: list[Fault] = []
        config = resolve_seeds(self.experiment.seeds, faults)
        if config != self.experiment.seeds:
            self.experiment = self.experiment.model_copy(update={"seeds": config})
        if self._gaps.touch("models"):
            return Seeds()
        self.experiment = with_boundaries(self.experiment)
        seeds = make_seeds(config, self.models, faults)
        self.faults += [fault.under("seeds") for fault in faults]
        return seeds

    def _space(self) -> SearchSpace | None:
        content = self.experiment.search_space
        assert isinstance(content, dict), "load_experiment inlines presets"
        if self._gaps.touch("search_space"):
            return None
        faults = space_faults(content, self.models if self._are_named else None)
        self.faults += [fault.under("search_space") for fault in faults]
        is_sound = not faults and self.models.n_layers and not self._gaps.touch("models")
        return build_space(content, self.models) if is_sound else None

    def _tasks(self, tasks: TaskCatalogue | None) -> TaskCatalogue:
        from evomerge.evaluation.catalogue import TaskCatalogue

        whole = [
            suite
            for i, suite in enumerate(self.suites)
            if not any(self._gaps.touch(*self._gaps.written(("evaluators", i)), k) for k in _WHICH)
        ]
        tasks = None if tasks is None else tasks.only(whole)
        return TaskCatalogue(whole, self._reader()) if tasks is None else tasks

    def _reader(self) -> LanguageModel | None:
        if not self.models.n_layers:
            return None
        with collected(self.faults, "models", "base"):
            return _make_reader(self.models.base, self._opened, self._reading())
        return None

    def _reading(self) -> dict[str, object]:
        engine = self.experiment.engine
        return {} if any(argument_faults(engine)) else engine.reading

    def _check(self) -> None:
        experiment, experts = self.experiment, tuple(self.models.experts)
        self.faults += checks.task_faults(self.tasks, self.suites)
        self.faults += [
            fault
            for fault in checks.metric_faults(experiment, self.tasks, experts)
            if not self._is_about_gaps(str(fault.path[-1]))
        ]
        if self._are_named and not self._gaps.touch("seeds"):
            self.faults += checks.bound_faults(experiment, experts)
        if not self._gaps.touch("evaluators"):
            self.faults += checks.image_faults(experiment, self.tasks)
        candidates = checks.Candidates(self.space, self.seeds)
        self.faults += checks.seed_faults(candidates)
        self.faults += checks.distance_faults(experiment, candidates)
        self.faults += checks.placement_faults(experiment, candidates, self._opened)
        with collected(self.faults, "execution", "ray_address"):
            self.faults += checks.engine_faults(experiment, candidates, self._opened)
        if not self.faults and self.space is not None:
            models = self._opened
            self.observing = observing(experiment, self.space, self.tasks, models, self.faults)
        self.faults += checks.final_split_faults(experiment, self.suites)
        if not self.faults and not self._gaps.paths and self.space is not None:
            self.sloped = SlopedParts.of(experiment, self.space, self.tasks, self._opened)
        self.faults += [
            fault
            for fault in sampler_faults(experiment, self.space, self.sloped)
            if fault.path[1:] or not self._gaps.touch("objectives")  # it may be for so many
        ]

    def _is_about_gaps(self, key: str) -> bool:
        """Tell whether a key of a metric names what may be among the things left out."""
        if key == "cost":
            return not self._are_named
        lost = [path[2:3] for path in self._gaps.paths if path[:1] == ("evaluators",)]
        return key == "task" and any(not part or part[0] in _WHICH for part in lost)


def _make_reader(
    base: str, sources: Sources | None, reading: Mapping[str, object]
) -> LanguageModel:
    """Read prompts as candidates will: with their tokenizer and context, no parameters.

    Args:
        base: Its reference.
        sources: All models; ``None`` if they do not fit together.
        reading: See ``LanguageModel``.

    Raises:
        CheckpointError: The base is no causal language model, or has no tokenizer.
    """
    from transformers import AutoTokenizer

    from evomerge.evaluation.hygiene import clean_harness
    from evomerge.evaluation.language_model import LanguageModel
    from evomerge.models.opening import peek_model
    from evomerge.models.outline import load_tokenizer, plain_config, tokenizer_of
    from evomerge.models.structure import class_fault

    checkpoint = peek_model(base) if sources is None else sources.anchor
    folder = checkpoint.companions
    hub_id = split_hub_id(base) if folder == checkpoint.folder else None
    if reason := class_fault(checkpoint.config):
        raise CheckpointError(f"{base}: {reason}")
    config = plain_config(checkpoint.config)
    if config is None:
        raise CheckpointError(
            f"expected {base} to be of a type that transformers knows, got "
            f"{checkpoint.config.get('model_type')!r}; upgrade transformers"
        )
    with clean_harness():
        if hub_id is None:
            tokenizer = load_tokenizer(folder, base)
        else:  # the folder need not have its files yet
            with tokenizer_of(base):
                tokenizer = AutoTokenizer.from_pretrained(hub_id[0], revision=hub_id[1])
        return LanguageModel.without_parameters(tokenizer, config, reading)
