"""What crosses between the driver and its workers, and the seam both sides keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from evomerge.evaluation.engine_choice import EngineChoice
from evomerge.evaluation.gates import Gates
from evomerge.evaluation.racing import Race
from evomerge.evaluation.scores import ItemScore, MetricValue, Scores, Verdict
from evomerge.evaluation.suite import REPORT_ONLY, Suite
from evomerge.models.parts import PartsChoice
from evomerge.models.reference import ModelRef
from evomerge.models.tokenizer_choice import TokenizerChoice
from evomerge.pareto import along
from evomerge.recipe.prompts import PromptFile
from evomerge.recipe.recipe import Dtype, Recipe
from evomerge.recipe.rules import copy_rule

if TYPE_CHECKING:
    from evomerge.evaluation.item_losses import LossKind, LossSettings
    from evomerge.evaluation.requests import PromptedSuite
    from evomerge.execution.contents import ModelContents
    from evomerge.space.protocol import SearchSpace

__all__ = [
    "Climb",
    "Climbed",
    "Executor",
    "Failed",
    "Goal",
    "Job",
    "Outcome",
    "Pruned",
    "Scored",
    "WorkerSpec",
]

_ROUNDING = 1e-9  # how much farther is no farther


@dataclass(frozen=True)
class WorkerSpec:
    """Everything a worker needs to start.

    Attributes:
        base: Model reference of the ancestor.
        experts: Model, adapter or delta by name, in recipe order.
        suites: What candidates are scored on.
        dtype: Dtype of the live model; ``None`` takes the base's.
        device: ``cpu`` or ``cuda``.
        device_share: Which part of the device's memory is for one worker.
        n_devices: Over how many devices the layers of its live model are spread.
        costs: Metrics of the task ``cost`` to measure, ``NAME`` or ``NAME:REFERENCE``.
        gates: When a candidate is given up before it is scored; ``None``: never.
        rungs: Shares of the search items after which a job with a race may be dropped.
        engine: What answers the requests of the suites.
        prompted: The suites with prompts that are built already, by split of a job; a worker builds
            the others itself.
        space: Decodes the genes of climbs; ``None``: no job asks for one.
        objectives: Task and metric of each objective of the study, in order, for climbs.
        losses: How the losses of climbs are run, whatever they look at; ``None``: as by default.
        prompts: What methods with data run the experts on.
        tokenizer: Which vocabulary the models are brought to (``Recipe.tokenizer``).
        parts: Which model lends vision tower and projector (``Recipe.parts``).
        contents: What the files of the models must hold; ``None``: it is not looked at.
        tasks: What the tasks that a worker builds must be, by split and task (``task_digests``);
            those of a split that is not named are not looked at.
    """

    base: str
    experts: Mapping[str, ModelRef]
    suites: tuple[Suite, ...]
    dtype: Dtype | None = None
    device: str = "cpu"
    device_share: float = 1.0
    n_devices: int = 1
    costs: tuple[str, ...] = ()
    gates: Gates | None = None
    rungs: tuple[float, ...] = ()
    engine: EngineChoice = field(default_factory=EngineChoice)
    prompted: Mapping[str, tuple[PromptedSuite, ...]] = field(default_factory=dict)
    space: SearchSpace | None = None
    objectives: tuple[tuple[str, str], ...] = ()
    losses: LossSettings | None = None
    prompts: PromptFile | None = None
    tokenizer: TokenizerChoice | None = None
    parts: PartsChoice | None = None
    contents: ModelContents | None = None
    tasks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def merging_share(self) -> float:
        """Which part of the device's memory is for experts and live model; vLLM has the rest."""
        if self.engine.name != "vllm":
            return self.device_share
        return (
            self.device_share * 0.5
            if (share := self.engine.memory_share) is None
            else self.device_share - share
        )

    def parent_recipe(self, parent: str) -> Recipe:
        """Write the base or one expert, value for value, as a recipe over all of them.

        Args:
            parent: ``base`` or an expert's name.
        """
        rules = (copy_rule(parent, self.experts),)
        return Recipe(
            experts=self.experts,
            rules=rules,
            base=self.base,
            dtype=self.dtype,
            tokenizer=self.tokenizer,
            parts=self.parts,
        )


@dataclass(frozen=True)
class Goal:
    """How far a candidate must get beyond what its chain had reached.

    Attributes:
        zeros: (objectives,) value at no progress.
        units: (objectives,) of a value per progress, negative where it is minimised.
        preference: (objectives,) in which direction.
        reached: How far along (``pareto.along``) the chain is.
    """

    zeros: tuple[float, ...]
    units: tuple[float, ...]
    preference: tuple[float, ...]
    reached: float

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Goal:
        """Read the fields, as JSON has them."""
        zeros, units = tuple(data["zeros"]), tuple(data["units"])
        return cls(zeros, units, tuple(data["preference"]), data["reached"])

    def is_exceeded(self, values: Sequence[float]) -> bool:
        """Tell whether values (objectives,) get farther."""
        progress = (np.array(values) - self.zeros) / self.units
        return along(progress, np.array(self.preference)) > self.reached + _ROUNDING


@dataclass(frozen=True)
class Climb:
    """Steps along slopes that a job takes once its candidate is scored; see ``execution.climb``.

    Attributes:
        params: Where it starts: a value for every gene, active or not.
        voices: How much each objective of the study counts, 0 or more; 0: it is left out.
        steps: How many.
        items: Items per objective and step, drawn anew.
        step_size: Longest first step along any gene, as a share of its range; later ones shrink.
        pull: How strongly genes are drawn to what those at other depths have.
        seed: Names the items.
        loss: What losses look at, as ``LossSettings.kind``.
        goal: What the scores must exceed for any step to be taken; ``None``: whatever they are.
    """

    params: Mapping[str, float | int | str]
    voices: tuple[float, ...]
    steps: int
    items: int
    step_size: float
    pull: float
    seed: int
    loss: LossKind = "gold"
    goal: Goal | None = None

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Climb:
        """Read what a sampler stored: the fields, as JSON has them; voices had another name."""
        voices = tuple(data["voices"] if "voices" in data else data["weights"])
        goal = None if (stored := data.get("goal")) is None else Goal.read(stored)
        rest = {name: value for name, value in data.items() if name != "weights"}
        return cls(**{**rest, "voices": voices, "goal": goal})

    def is_wanted(self, values: Sequence[float]) -> bool:
        """Tell whether steps are to be taken after these values (objectives,)."""
        return self.goal is None or self.goal.is_exceeded(values)

    @property
    def n_items(self) -> int:
        """Items that go forward and backward, at most."""
        return self.steps * self.items * sum(voice > 0 for voice in self.voices)


@dataclass(frozen=True)
class Climbed:
    """Where a climb ended.

    Attributes:
        params: There.
        losses: Per step, of every objective that was not left out: the mean loss of its items.
        n_items: Items that went forward and backward, over all objectives and steps.
    """

    params: Mapping[str, float | int | str]
    losses: tuple[tuple[float, ...], ...]
    n_items: int


@dataclass(frozen=True)
class Job:
    """Score one recipe on one split.

    Attributes:
        trial: Trial number; names the outcome.
        recipe: Over the base and experts of the worker.
        split: ``search``, ``validation`` or ``test``; ``report_only`` for the suites that are only
            reported, which no other split holds, without costs.
        is_gated: Whether the worker may give it up early.
        race: What it is up against; ``None``: it is scored on all items.
        wants_samples: Whether an item of each task is to be shown.
        climb: Steps to take once it is scored in full, if its goal is exceeded; ``None``: none.
    """

    trial: int
    recipe: Recipe
    split: str = "search"
    is_gated: bool = False
    race: Race | None = None
    wants_samples: bool = False
    climb: Climb | None = None

    @property
    def is_report_only(self) -> bool:
        """Whether only scores are wanted: costs are about what is searched."""
        return self.split == REPORT_ONLY


@dataclass(frozen=True)
class Scored:
    """A job that succeeded.

    Attributes:
        job: The job.
        scores: Metrics and item scores.
        seconds: Time of the phases ``merge``, ``evaluate`` and, of a climb, ``slopes``.
        device: What the model ran on, by its name: ``cpu``, or that of a GPU.
        climbed: Where the climb of the job ended; ``None`` if it has none, its goal was not
            exceeded, or it failed.
        climb_error: Why it failed, in one line; scores do not depend on it.
    """

    job: Job
    scores: Scores
    seconds: Mapping[str, float] = field(default_factory=dict)
    device: str = "cpu"
    climbed: Climbed | None = None
    climb_error: str | None = None


@dataclass(frozen=True)
class Failed:
    """A job that did not.

    Attributes:
        job: The job.
        error: What happened, in one line.
        traceback: Where, for debugging.
    """

    job: Job
    error: str
    traceback: str = ""


@dataclass(frozen=True)
class Pruned:
    """A job that was given up before it was scored in full.

    Attributes:
        job: The job.
        reason: Why, in one line.
        seconds: Time of the phases ``merge`` and ``evaluate``.
        estimates: One per contest of the job's race; empty if it was given up before the first.
        items: Scores of the items it was scored on.
        verdicts: What judges said of them.
    """

    job: Job
    reason: str
    seconds: Mapping[str, float] = field(default_factory=dict)
    estimates: tuple[MetricValue, ...] = ()
    items: tuple[ItemScore, ...] = ()
    verdicts: tuple[Verdict, ...] = ()


Outcome = Scored | Failed | Pruned


class Executor(Protocol):
    """Runs jobs on workers; used by one driver thread.

    Outcomes come in any order. A job whose worker dies is run again elsewhere, so jobs must be
    (and are) idempotent; after repeated deaths it comes back as ``Failed``.
    """

    def load(self, spec: WorkerSpec) -> None:
        """Let every worker load its models and tasks, and wait for it; once, before any job.

        Raises:
            EvomergeError: What only a worker can see: a bad checkpoint, an unreadable task.
        """

    @property
    def n_workers(self) -> int:
        """How many jobs run at once; it may change at any ``next_outcome``."""

    def submit(self, job: Job) -> None:
        """Start a job; call only while fewer than ``n_workers`` are in flight."""

    def next_outcome(self) -> Outcome | None:
        """Wait for the next job to finish; call only while some are in flight.

        Returns:
            ``None`` where none has finished, but there are more workers now.
        """

    def close(self) -> None:
        """Stop the workers; jobs in flight are dropped."""
