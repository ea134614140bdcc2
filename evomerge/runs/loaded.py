"""Puts the parts of an experiment together, and finds every fault before any model is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from evomerge.config.experiment import Experiment
from evomerge.errors import CheckpointError, ConfigError
from evomerge.evaluation.suite import REPORT_ONLY, SPLITS, Suite
from evomerge.execution.protocol import WorkerSpec
from evomerge.models.architecture import TensorRole
from evomerge.models.reference import split_hub_id
from evomerge.runs import checks
from evomerge.runs.importance import with_boundaries
from evomerge.runs.parts import build_space, constraints_of, costs_of, make_suites, objectives_of
from evomerge.runs.sampling import sampler_faults
from evomerge.runs.seeds import make_seeds, resolve_seeds
from evomerge.runs.sloped import SlopedParts
from evomerge.space.baselines import Baseline, baselines
from evomerge.space.protocol import ModelSet, SearchSpace
from evomerge.study.constraints import Constraint
from evomerge.study.records import Objective, make_objectives

if TYPE_CHECKING:
    from evomerge.evaluation.catalogue import TaskCatalogue
    from evomerge.evaluation.harness import LanguageModel
    from evomerge.evaluation.requests import PromptedSuite

__all__ = ["Loaded"]


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

    @classmethod
    def of(cls, experiment: Experiment, where: str, tasks: TaskCatalogue | None = None) -> Loaded:
        """Build every part of a resolved experiment except its workers.

        Reads the headers of checkpoints and the data of tasks; loads no model.

        Args:
            experiment: As ``load_experiment`` returns it. That of the result has what only other
                files and the models know spelt out: seed recipes, groups of layers by importance.
            where: Named in faults.
            tasks: Loaded before; taken if they are those of the experiment's suites.

        Raises:
            ConfigError: Listing every fault of every part, one line each.
        """
        from evomerge.evaluation.catalogue import TaskCatalogue

        faults: list[str] = []
        models = _models(experiment, where, faults)
        models_are_known = not faults
        experiment = _spelt_out(experiment, f"{where}: seeds", faults)
        seeds = make_seeds(experiment.seeds, models, f"{where}: seeds", faults)
        space = _space(experiment, models, where, faults, models_are_known=models_are_known)
        suites, objectives = make_suites(experiment), objectives_of(experiment)
        constraints = constraints_of(experiment)
        tasks = None if tasks is None else tasks.only(suites)
        if tasks is None:
            reader = _reader(models.base, where, faults) if models_are_known else None
            tasks = TaskCatalogue(suites, reader)
        faults += checks.metric_faults(objectives, constraints, tasks, models, where)
        faults += checks.bound_faults(constraints, experiment, where)
        faults += checks.distance_faults(space, costs_of(objectives, constraints), where)
        faults += checks.engine_faults(experiment, space, where)
        faults += checks.final_split_faults(experiment, suites, where)
        sloped = None if faults or space is None else SlopedParts.of(experiment, space, tasks)
        faults += sampler_faults(experiment, space, sloped, where)
        if faults:
            raise ConfigError(*faults)
        assert space is not None, "a missing space is a fault"
        assert sloped is not None, "without faults it is known"
        found = baselines(space, models, seeds)
        n_trials = experiment.budget.trials
        if faults := list(checks.unreached_faults(constraints, found, n_trials, where)):
            raise ConfigError(*faults)
        return cls(
            experiment=experiment,
            models=models,
            space=space,
            suites=suites,
            objectives=objectives,
            constraints=constraints,
            seeds=found,
            report_only=make_objectives(tasks.report_only_measures),
            tasks=tasks,
            sloped=sloped,
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
        )

    @property
    def _prompted(self) -> dict[str, tuple[PromptedSuite, ...]]:
        """The prompts, for workers; code of a user's own folder cannot be sent to them."""
        if any(suite.allow_code for suite in self.suites):
            return {}
        found = {split: self.tasks.prompted(split) for split in (*SPLITS, REPORT_ONLY)}
        return {split: prompted for split, prompted in found.items() if prompted}


def _models(experiment: Experiment, where: str, faults: list[str]) -> ModelSet:
    from evomerge.merging.sources import Sources
    from evomerge.models.opening import peek_model

    config, n_layers = experiment.models, 1
    tensors: dict[str, TensorRole] = {}
    try:
        sources = Sources(config.base, config.experts, open_full=peek_model)
        n_layers = sources.architecture.n_layers
        tensors = {name: sources.architecture.roles[name] for name in sources.names}
    except CheckpointError as err:
        faults += [f"{where}: models: {line}" for line in str(err).splitlines()]
    return ModelSet(
        base=config.base,
        experts=config.experts,
        n_layers=n_layers,
        dtype=config.dtype,
        seed=experiment.seed,
        tensors=tensors,
        winners=tuple(config.winners),
    )


def _make_reader(base: str) -> LanguageModel:
    """Read prompts as candidates will: with the base's tokenizer and its context, no parameters.

    Raises:
        CheckpointError: The base is no causal language model.
        OSError, ValueError: It has no tokenizer.
    """
    from transformers import AutoConfig, AutoTokenizer

    from evomerge.evaluation.harness import LanguageModel
    from evomerge.evaluation.hygiene import clean_harness
    from evomerge.models.opening import peek_model
    from evomerge.models.structure import class_fault

    checkpoint, hub_id = peek_model(base), split_hub_id(base)
    folder = checkpoint.folder
    if fault := class_fault(checkpoint.config):
        raise CheckpointError(f"{base}: {fault}")
    name, revision = (str(folder), None) if hub_id is None else hub_id
    with clean_harness():
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
        return LanguageModel.without_parameters(tokenizer, AutoConfig.from_pretrained(folder))


def _reader(base: str, where: str, faults: list[str]) -> LanguageModel | None:
    try:
        return _make_reader(base)
    except CheckpointError as err:
        faults.append(f"{where}: models.base: {err}")
    except (OSError, ValueError) as err:
        reason = " ".join(str(err).split())
        faults.append(f"{where}: models.base: expected {base} to have a tokenizer: {reason}")
    return None


def _spelt_out(experiment: Experiment, where: str, faults: list[str]) -> Experiment:
    seeds = resolve_seeds(experiment.seeds, where, faults)
    if seeds != experiment.seeds:
        experiment = experiment.model_copy(update={"seeds": seeds})
    return with_boundaries(experiment)


def _space(
    experiment: Experiment,
    models: ModelSet,
    where: str,
    faults: list[str],
    *,
    models_are_known: bool,
) -> SearchSpace | None:
    assert isinstance(experiment.search_space, dict), "load_experiment inlines presets"
    try:
        return build_space(experiment.search_space, models, f"{where}: search_space")
    except ConfigError as err:
        # Without models the number of layers is unknown, and faults about it would mislead.
        about_layers = ("depth.", "initial: ", "(the models' layers)")
        faults += [
            f for f in err.faults if models_are_known or not any(a in f for a in about_layers)
        ]
        return None
