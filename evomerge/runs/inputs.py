"""What a study's scores depend on outside its folder: models, tokenizer, items.

A study keeps digests of their content. A resumed one goes on only with the same content, wherever
that is now; on a machine that has seen the files before, they are not read (``fingerprint``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.config.experiment import Experiment
from evomerge.errors import StudyError
from evomerge.evaluation.suite import REPORT_ONLY, SPLITS
from evomerge.fingerprint import digest_of
from evomerge.runs.loaded import Loaded
from evomerge.runs.workers import is_on_cluster

if TYPE_CHECKING:
    from evomerge.execution.protocol import WorkerSpec
    from evomerge.merging.sources import Sources
    from evomerge.models.expert import TensorSource

__all__ = ["input_digests", "model_digests", "require_same", "with_contents"]


def input_digests(loaded: Loaded) -> dict[str, str]:
    """Look at all that the scores of a study depend on.

    Returns:
        Digests by what they are of, in words.

    Raises:
        CheckpointError: A model cannot be opened.
    """
    from evomerge.evaluation.content import item_digests, metric_digests

    experiment = loaded.experiment
    splits = SPLITS if experiment.finalists else SPLITS[:1]
    items = item_digests(loaded.tasks, splits)
    metrics = metric_digests(loaded.tasks, splits)
    scored = {f"items of {name}": one for name, one in items.items()}
    if loaded.tasks.images is not None:
        scored["processor of base"] = _processor_digest(experiment)
    return model_digests(experiment) | scored | {f"metric {k}": one for k, one in metrics.items()}


def model_digests(experiment: Experiment) -> dict[str, str]:
    """Look at the models and the tokenizer alone; see ``input_digests``."""
    from evomerge.execution.contents import file_digest, tokenizer_files

    sources = _sources(experiment)
    found: dict[str, str] = {}
    for name, model in zip(experiment.models.located(), sources.models, strict=True):
        found |= {f"{kind} of {name}": digest for kind, digest in _digests(model)}
    files = tokenizer_files(sources.anchor.companions)
    found["tokenizer of base"] = digest_of([[f.name, file_digest(f)] for f in files])
    return found


def _processor_digest(experiment: Experiment) -> str:
    from evomerge.execution.contents import file_digest, processor_files

    files = processor_files(_sources(experiment).anchor.companions)
    return digest_of([[file.name, file_digest(file)] for file in files])


def with_contents(worker: WorkerSpec, loaded: Loaded) -> WorkerSpec:
    """Tell workers what they must find, so that nothing changes while a study runs.

    That is what model files hold, on other machines; and tasks and metrics, where their code cannot
    be sent and each worker reads the files when it starts.
    """
    from evomerge.evaluation.content import task_digests
    from evomerge.execution.contents import ModelContents

    if is_on_cluster(loaded.experiment.execution):
        worker = replace(worker, contents=ModelContents.of(_sources(loaded.experiment)))
    read = [split for split in (*SPLITS, REPORT_ONLY) if split not in worker.prompted]
    tasks = {split: task_digests(loaded.tasks.prompted(split)) for split in read}
    return replace(worker, tasks=tasks)


def _sources(experiment: Experiment) -> Sources:
    """Open the models; those of workers elsewhere need not have their tensors here."""
    from evomerge.merging.sources import Sources
    from evomerge.models.opening import open_model, peek_model

    models = experiment.models
    open_full = peek_model if is_on_cluster(experiment.execution) else open_model
    return Sources(
        models.base,
        models.experts,
        open_full=open_full,
        tokenizer=models.tokenizer,
        parts=models.parts,
    )


def require_same(before: Mapping[str, str], now: Mapping[str, str], where: Path) -> None:
    """Refuse to go on with other models or items than those of the trials before.

    Args:
        before: Digests that the study keeps.
        now: Digests by the same words; those of which it keeps none are not compared.
        where: The study, for the message.

    Raises:
        StudyError: Naming all that changed.
    """
    changed = [what for what, digest in now.items() if before.get(what, digest) != digest]
    if changed:
        raise StudyError(
            f"expected what the trials in {where} were scored with, got other "
            f"{', '.join(changed)}; restore the files, say where they are now (--set "
            "models.experts.NAME=PATH), or start a new study; --accept-changes goes on although "
            "trials before and after cannot be compared"
        )


def _digests(model: TensorSource) -> Iterator[tuple[str, str]]:
    """Digest configs and tensors apart: to a person they are different things."""
    from evomerge.execution.contents import file_digest

    configs = [file for file in model.files if file.suffix == ".json"]
    tensors = [file for file in model.files if file.suffix != ".json"]
    yield "config", digest_of(list(map(file_digest, configs)))
    yield "weights", digest_of(list(map(file_digest, tensors)))
