"""The experiment file: its keys and their types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationInfo,
    field_validator,
    model_validator,
)

from evomerge.analysis.winners import Choice
from evomerge.config.values import (
    AutoOrCount,
    BoundText,
    Duration,
    ExpertName,
    MetricName,
    RandomSeed,
    Reasoning,
    TimeLimit,
    better,
    by_name,
    cost_as_metric,
    named,
    switch,
)
from evomerge.evaluation.engine_choice import EngineChoice
from evomerge.evaluation.gates import Gates
from evomerge.evaluation.generation import Generation
from evomerge.evaluation.own_metrics import OwnMetric
from evomerge.evaluation.racing import RaceRules
from evomerge.models.parts import PartsChoice
from evomerge.models.reference import ModelRef
from evomerge.models.tokenizer_choice import TokenizerChoice
from evomerge.recipe.path import BASE
from evomerge.recipe.recipe import Dtype

__all__ = [
    "BudgetConfig",
    "ConstraintConfig",
    "EvaluatorConfig",
    "ExecutionConfig",
    "Experiment",
    "ModelsConfig",
    "ObjectiveConfig",
    "PromptsConfig",
    "SamplerConfig",
    "SeedRecipe",
    "SeedsConfig",
    "StageConfig",
]

# Raise when a key gets another meaning or default: studies keep neither. New keys whose default is
# how studies ran before them need nothing.
_SCHEMA_VERSION = 1

_RACES: dict[bool | str, object] = {
    "off": None,
    False: None,  # what YAML takes ``off`` for
    "careful": {},
    "fast": {"error_rate": 0.1, "tolerance": 0.005, "estimates": True},
}
# Beyond these a number is a slip. A million trials are two gigabytes of journal, and five in
# the memory of every driver; one machine has some 16 GPUs; a winner is one more expert to merge.
_MOST_TRIALS, _MOST_ITEMS, _MOST_EXAMPLES, _MOST_GPUS, _MOST_WINNERS = 10**6, 10**9, 1000, 1024, 100
_MOST_PREFERRED, _MOST_REPEATS = 10**6, 10_000


def _race(value: object) -> object:
    """Read ``off``, ``careful`` or ``fast``."""
    return named(value, _RACES)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelsConfig(_Section):
    """What is mixed.

    Attributes:
        base: Model reference of the common ancestor.
        experts: Model, adapter or delta by expert name.
        dtype: Dtype of candidates and exports; absent: the base's.
        tokenizer: Which vocabulary the models are brought to; absent: the base's, where theirs
            differ.
        parts: Which model lends vision tower and projector; absent: merged where every model has
            them, else the base's.
        winners: Which experts are merges that earlier stages handed on; written by stages. Such a
            merge may win again, an original expert is only ever a baseline.
    """

    base: str
    experts: dict[ExpertName, ModelRef] = Field(min_length=1)
    dtype: Dtype | None = None
    tokenizer: TokenizerChoice | None = None
    parts: PartsChoice | None = None
    winners: list[str] = []

    @model_validator(mode="after")
    def _winners_are_experts(self) -> ModelsConfig:
        if unknown := [name for name in self.winners if name not in self.experts]:
            raise ValueError(f"expected winners out of the experts, got {', '.join(unknown)}")
        return self

    def located(self) -> dict[str, ModelRef]:
        """Say where the base and every expert are, by name."""
        return {BASE: self.base, **self.experts}


class EvaluatorConfig(_Section):
    """A task suite; see ``evaluation.suite.Suite`` for the meaning of the keys.

    With ``report_only`` its tasks are scored once, after the search, to see what was forgotten.
    """

    tasks: list[str] = Field(min_length=1)
    include_path: str | None = None
    splits: dict[Literal["search", "validation", "test"], str | float] | None = None
    limit: int | None = Field(default=None, gt=0, le=_MOST_ITEMS)
    num_fewshot: int | None = Field(default=None, ge=0, le=_MOST_EXAMPLES)
    batch_size: AutoOrCount = "auto"
    apply_chat_template: bool = False
    chat_template_args: dict[str, JsonValue] = {}
    reasoning: Reasoning = "auto"
    generation_kwargs: Generation = Generation()
    repeats: int | None = Field(default=None, gt=0, le=_MOST_REPEATS)
    fewshot_as_multiturn: bool = False
    system_instruction: str | None = None
    allow_code: bool = False
    report_only: bool = False
    seed: RandomSeed = 0
    metrics: dict[str, OwnMetric] = {}


class _Metric(_Section):
    """One metric of one task; ``cost: NAME`` stands for a metric of the task ``cost``."""

    task: str
    metric: MetricName

    @model_validator(mode="before")
    @classmethod
    def _read_cost(cls, value: object) -> object:
        return cost_as_metric(value)


class ObjectiveConfig(_Metric):
    """What to search for.

    Attributes:
        direction: ``maximize`` unless less is better by definition.
        preference: How much it counts beside the others wherever they are summed: in means, in the
            choice of the best, and in samplers that follow one number (``pycma``, ``catcma``):
            theirs is then this sum. Absent everywhere: all count alike, and such samplers draw
            preferences to find the whole front.
    """

    direction: Literal["maximize", "minimize"] = Field(default_factory=better)
    preference: float | None = Field(default=None, gt=0, le=_MOST_PREFERRED)


class ConstraintConfig(_Metric):
    """What a merge must keep.

    Attributes:
        at_least: Lower bound: a number, or a baseline's own score as in ``base - 0.01``.
        at_most: Upper bound.
    """

    at_least: BoundText | None = None
    at_most: BoundText | None = None

    @model_validator(mode="after")
    def _has_a_bound(self) -> ConstraintConfig:
        if self.at_least is None and self.at_most is None:
            raise ValueError("expected at_least or at_most, got neither")
        return self


class SamplerConfig(BaseModel):
    """A sampler by name; the other keys are its options."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = "auto"

    @property
    def options(self) -> dict[str, float | int | str | bool]:
        """The sampler's own options."""
        return dict(self.model_extra or {})


class PromptsConfig(_Section):
    """What methods with data run the experts on.

    Attributes:
        file: JSON lines or text; absent: the items that are searched, with their gold answers.
        digest: What the file holds; written when a study starts.
        limit: Most prompts.
        labels: What gradients are of: ``sampled`` from each expert's predictions, or ``gold``.
    """

    file: str | None = None
    digest: str | None = None
    limit: int = Field(default=256, gt=0, le=_MOST_ITEMS)
    labels: Literal["sampled", "gold"] = "sampled"


class BudgetConfig(_Section):
    """When the search ends."""

    trials: int = Field(default=100, gt=0, le=_MOST_TRIALS)
    wall_clock: Duration | None = None


class SeedRecipe(_Section):
    """A recipe to start from, as resolved experiments hold it.

    Attributes:
        origin: ``recipe:NAME`` or ``study:NAME#TRIAL``.
        recipe: As ``Recipe.as_data`` gives it.
    """

    origin: str
    recipe: dict[str, Any]


class SeedsConfig(_Section):
    """Models that are evaluated before the search, and told to the sampler where possible.

    Attributes:
        parents: The base and every expert.
        averages: The uniform average of the experts.
        task_arithmetic: Coefficients of the sum of all task vectors, e.g. ``[0.3, 0.5, 0.7, 1.0]``.
        recipes: Recipe files, ours or mergekit's, over the same models.
        studies: Folders of earlier studies over the same models; the merges on their fronts.
        slopes: So many trials of the sampler ``slopes``, whose climbs are short here, before the
            experiment's own sampler.
    """

    parents: bool = True
    averages: bool = True
    task_arithmetic: list[float] = []
    recipes: list[str | SeedRecipe] = []
    studies: list[str] = []
    slopes: int = Field(default=0, ge=0, le=_MOST_TRIALS)


class StageConfig(_Section):
    """One search of an experiment that chains spaces; the winners join the next one's experts.

    Attributes:
        search_space: Preset name, path, or the space itself.
        sampler: Absent: the experiment's.
        budget: Absent: the experiment's.
        keep: How many merges are handed on; without effect in the last stage.
        keep_by: How they are chosen; see ``analysis.winners``.
    """

    search_space: str | dict[str, Any]
    sampler: Annotated[SamplerConfig | None, BeforeValidator(by_name)] = None
    budget: BudgetConfig | None = None
    keep: int = Field(default=1, gt=0, le=_MOST_WINNERS)
    keep_by: Choice = "knee"


class ExecutionConfig(_Section):
    """Where candidates run.

    Attributes:
        executor: ``ray`` or ``inline``.
        workers: Number of workers; ``auto``: one per GPU, else one per core.
        gpus_per_worker: Where there are GPUs: a share of one, or several over which the layers of a
            candidate are spread.
        ray_address: ``local``, or the address of a running cluster.
        trial_timeout: How long a trial may take before its worker is replaced; ``auto``: much
            longer than those that have finished; ``off``: for ever.
    """

    executor: Literal["ray", "inline"] = "ray"
    workers: AutoOrCount = "auto"
    gpus_per_worker: float = Field(default=1, ge=0, le=_MOST_GPUS)
    ray_address: str = "local"
    trial_timeout: TimeLimit = "auto"


class Experiment(_Section):
    """An experiment as written in YAML.

    Attributes:
        models: What is mixed.
        search_space: Preset name, path, or the space itself.
        stages: Instead of one search space, several in a chain.
        evaluators: Preset names, paths, or the suites themselves.
        objectives: What the search trades off; at least one.
        constraints: What a merge must keep to count.
        prompts: What methods with data run the experts on.
        seeds: What is evaluated before the search.
        sampler: How it searches.
        budget: When it ends.
        execution: Where it runs.
        engine: What answers the prompts: ``transformers``, or ``vllm`` on GPUs; with arguments of
            its own, ``{name: vllm, gpu_memory_utilization: 0.4}``.
        gates: When a broken candidate is given up early: ``on``, ``off``, or settings.
        race: When a trial that will hardly improve the front is dropped: ``off``, ``careful``,
            ``fast``, or settings.
        allow_test_split: Search items by which public benchmarks are reported; the model card says
            that their scores mean nothing.
        finalists: How many front members (of one objective: best merges) are scored again on
            ``validation``; 0 skips the finals.
        loggers: Experiment trackers that hear of every trial.
        storage: Database URL for studies shared by several machines; absent: a journal file.
        seed: Names every random draw.
        schema_version: Of the keys and what they default to; written into the files of studies.
    """

    models: ModelsConfig
    search_space: str | dict[str, Any] | None = None
    stages: list[StageConfig] = Field(default=[], validate_default=True)
    evaluators: list[str | EvaluatorConfig] = Field(min_length=1)
    objectives: list[ObjectiveConfig] = Field(min_length=1)
    constraints: list[ConstraintConfig] = []
    prompts: PromptsConfig = PromptsConfig()
    seeds: SeedsConfig = SeedsConfig()
    sampler: Annotated[SamplerConfig, BeforeValidator(by_name)] = SamplerConfig()
    budget: BudgetConfig = BudgetConfig()
    execution: ExecutionConfig = ExecutionConfig()
    engine: Annotated[EngineChoice, BeforeValidator(by_name)] = EngineChoice()
    gates: Annotated[Gates | None, BeforeValidator(switch)] = Gates()
    race: Annotated[RaceRules | None, BeforeValidator(_race)] = None
    allow_test_split: bool = False
    finalists: int = Field(default=8, ge=0, le=_MOST_TRIALS)
    loggers: list[Literal["mlflow", "wandb", "tensorboard"]] = []
    storage: str | None = None
    seed: RandomSeed = 0
    schema_version: int = _SCHEMA_VERSION

    @classmethod
    def load(cls, path_or_preset: str | PathLike[str], set: Sequence[str] = ()) -> Experiment:
        """Read an experiment, and resolve it: the result depends on no other YAML file.

        Args:
            path_or_preset: A YAML file, or the name of a preset (``evomerge presets list``).
            set: ``KEY=VALUE`` changes, as the command line's ``--set``.

        Raises:
            ConfigError: Every fault of the file.
        """
        from evomerge.config.load import draft_of

        return draft_of(path_or_preset, set).complete()

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], set: Sequence[str] = ()) -> Experiment:
        """Resolve an experiment in plain data, the keys of an experiment file.

        Args:
            content: Its keys; presets go by name, relative paths start at the current folder.
            set: ``KEY=VALUE`` changes, as the command line's ``--set``.

        Raises:
            ConfigError: Every fault.
        """
        from evomerge.config.load import draft_of

        return draft_of(content, set).complete()

    @field_validator("schema_version")
    @classmethod
    def _is_known(cls, value: int) -> int:
        if value != _SCHEMA_VERSION:
            raise ValueError(
                f"expected {_SCHEMA_VERSION}, got {value}: another version of evomerge wrote this"
            )
        return value

    @field_validator("stages")
    @classmethod
    def _has_a_space(cls, stages: list[StageConfig], info: ValidationInfo) -> list[StageConfig]:
        if "search_space" in info.data and (info.data["search_space"] is None) == (not stages):
            raise ValueError("expected either search_space or stages")
        return stages

    @field_validator("storage")
    @classmethod
    def _is_alone(cls, storage: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("stages") and storage is not None:
            raise ValueError("expected no storage beside stages: each keeps its own journal file")
        return storage

    @property
    def rungs(self) -> tuple[float, ...]:
        """Shares of the search items after which a race may drop a trial; none without races."""
        return () if self.race is None else self.race.rungs
