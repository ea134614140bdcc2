"""The prompts that a study's methods with data run the experts on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.config.experiment import Experiment
from evomerge.errors import Fault, collected
from evomerge.fingerprint import fingerprint
from evomerge.methods.prepared import Preparation
from evomerge.recipe.prompts import PromptFile
from evomerge.runs.units import bytes_text
from evomerge.runs.workers import is_on_cluster, machine_bytes
from evomerge.space.protocol import SearchSpace
from evomerge.study.folder import StudyFolder, write_atomically

if TYPE_CHECKING:
    from evomerge.evaluation.catalogue import TaskCatalogue
    from evomerge.merging.sources import Sources
    from evomerge.observation.examples import Example
    from evomerge.runs.loaded import Loaded

__all__ = [
    "Observing",
    "observed_kinds",
    "observing",
    "prompt_file",
    "with_prompts",
]


def prompt_file(experiment: Experiment) -> PromptFile:
    """Name the prompts of an experiment; before its study starts the file need not be there."""
    own = experiment.prompts
    return PromptFile(own.file or "prompts.jsonl", own.digest, own.limit, own.labels)


def observed_kinds(space: SearchSpace) -> tuple[str, ...]:
    """Name what must be observed of the experts for the recipes of a space, sorted."""
    preparations = filter(None, map(Preparation.parse, space.statistics))
    return tuple(sorted({kind for one in preparations for kind in one.observations}))


def with_prompts(loaded: Loaded, folder: StudyFolder) -> Experiment:
    """Keep the prompts in a study's folder, if its space has methods with data.

    Args:
        loaded: The experiment.
        folder: Exists.

    Returns:
        The experiment, naming that file and what it holds.
    """
    experiment = loaded.experiment
    if not observed_kinds(loaded.space):
        return experiment
    from evomerge.observation.examples import examples_text

    write_atomically(folder.prompts, examples_text(_examples(experiment, loaded.tasks)))
    file = folder.prompts.resolve()
    kept = {"file": str(file), "digest": fingerprint(file)}
    prompts = experiment.prompts.model_copy(update=kept)
    return experiment.model_copy(update={"prompts": prompts})


@dataclass(frozen=True)
class Observing:
    """What running the experts on prompts comes to.

    Attributes:
        kinds: What is observed.
        n_prompts: How many prompts there are.
        memory: Bytes at the peak.
        disk: Bytes that are kept, of all experts.
    """

    kinds: tuple[str, ...]
    n_prompts: int
    memory: int
    disk: int

    def __str__(self) -> str:
        """Say it in one line."""
        return (
            f"{', '.join(self.kinds)} of each expert on {self.n_prompts} prompts, once: "
            f"{bytes_text(self.memory)} of memory, {bytes_text(self.disk)} of disk"
        )

    def faults(self) -> Iterator[Fault]:
        """Tell whether this machine is too small."""
        if self.memory > machine_bytes():
            text = f"expected {bytes_text(self.memory)} of memory to run an expert on the prompts"
            hint = "use shorter prompts, a larger machine, or methods without data"
            found = f"{text}, this machine has {bytes_text(machine_bytes())}"
            yield Fault(("prompts",), found, hint)


def observing(
    experiment: Experiment,
    space: SearchSpace,
    tasks: TaskCatalogue,
    sources: Sources | None,
    faults: list[Fault],
) -> Observing | None:
    """Read the prompts that the experts are run on, and reckon what that takes.

    Args:
        experiment: Names them.
        space: Tells what must be observed.
        tasks: Prompted.
        sources: The models; ``None`` if they do not fit together.
        faults: What stands in the way is added.

    Returns:
        ``None`` if nothing is observed, or nothing is known of it.
    """
    kinds = observed_kinds(space)
    if not kinds or sources is None:
        return None
    if is_on_cluster(experiment.execution):
        text = "expected local for methods with data, which run the experts on this machine, got "
        address = experiment.execution.ray_address
        faults.append(Fault(("execution", "ray_address"), f"{text}{address}"))
    from evomerge.merging.observed import disk_bytes, peak_bytes, read_by_experts

    base, roles = sources.anchor, sources.live_roles
    with collected(faults, "prompts"):
        examples = _examples(experiment, tasks)
        read_by = read_by_experts(examples, sources.experts, base)
        kept = disk_bytes(base, roles, kinds) * len(sources.experts)
        found = Observing(kinds, len(examples), peak_bytes(base, roles, kinds, read_by), kept)
        faults += found.faults()
        return found
    return None


def _examples(experiment: Experiment, tasks: TaskCatalogue) -> tuple[Example, ...]:
    from evomerge.observation.examples import gold_examples, read_examples

    own = experiment.prompts
    if own.file is not None:
        return read_examples(Path(own.file), own.limit)
    return gold_examples(tasks.prompted("search"), own.limit)
