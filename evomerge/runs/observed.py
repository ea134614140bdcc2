"""The prompts that a study's methods with data run the experts on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.config.experiment import Experiment
from evomerge.errors import EvomergeError, Fault
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
    "observation_fact",
    "observation_faults",
    "observed_kinds",
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


def observation_faults(
    experiment: Experiment, space: SearchSpace, tasks: TaskCatalogue, sources: Sources | None
) -> Iterator[Fault]:
    """What stands in the way of running the experts on prompts, if the space asks for it."""
    kinds = observed_kinds(space)
    if not kinds or sources is None:
        return
    if is_on_cluster(experiment.execution):
        text = "expected local for methods with data, which run the experts on this machine, got "
        yield Fault(("execution", "ray_address"), f"{text}{experiment.execution.ray_address}")
    from evomerge.merging.observed import peak_bytes, read_by_experts

    try:
        examples = _examples(experiment, tasks)
        read_by = read_by_experts(examples, sources.experts, sources.anchor)
    except EvomergeError as err:
        yield from (fault.under("prompts") for fault in err.faults)
        return
    needed = peak_bytes(sources.anchor, sources.live_names, kinds, read_by)
    if needed > machine_bytes():
        text = f"expected {bytes_text(needed)} of memory to run an expert on the prompts"
        hint = "use shorter prompts, a larger machine, or methods without data"
        yield Fault(("prompts",), f"{text}, this machine has {bytes_text(machine_bytes())}", hint)


def observation_fact(loaded: Loaded, sources: Sources) -> str:
    """Say what observing the experts takes; nothing if the space has no methods with data."""
    kinds = observed_kinds(loaded.space)
    if not kinds:
        return ""
    from evomerge.merging.observed import disk_bytes, peak_bytes, read_by_experts

    base, names = sources.anchor, sources.live_names
    examples = _examples(loaded.experiment, loaded.tasks)
    read_by = read_by_experts(examples, sources.experts, base)
    kept = disk_bytes(base, names, kinds) * len(sources.experts)
    needed = peak_bytes(base, names, kinds, read_by)
    return (
        f"{', '.join(kinds)} of each expert on {len(examples)} prompts, once: "
        f"{bytes_text(needed)} of memory, {bytes_text(kept)} of disk"
    )


def _examples(experiment: Experiment, tasks: TaskCatalogue) -> tuple[Example, ...]:
    from evomerge.observation.examples import gold_examples, read_examples

    own = experiment.prompts
    if own.file is not None:
        return read_examples(Path(own.file), own.limit)
    return gold_examples(tasks.prompted("search"), own.limit)
