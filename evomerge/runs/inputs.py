"""What a study's scores depend on outside its folder: models, tokenizer, items.

A study keeps digests of their content. A resumed one goes on only with the same content, wherever
that is now; on a machine that has seen the files before, they are not read (``fingerprint``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.config.experiment import Experiment
from evomerge.errors import StudyError
from evomerge.evaluation.suite import SPLITS
from evomerge.fingerprint import digest_of, fingerprint
from evomerge.runs.loaded import Loaded

if TYPE_CHECKING:
    from evomerge.models.expert import TensorSource

__all__ = ["input_digests", "model_digests", "require_same"]

_TOKENIZER = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "chat_template*"),
    *("vocab*", "merges.txt", "*.model", "*.tiktoken", "generation_config.json"),
)


def input_digests(loaded: Loaded) -> dict[str, str]:
    """Look at all that the scores of a study depend on.

    Returns:
        Digests by what they are of, in words.

    Raises:
        CheckpointError: A model cannot be opened.
    """
    from evomerge.evaluation.content import item_digests

    experiment = loaded.experiment
    splits = SPLITS if experiment.finalists else SPLITS[:1]
    items = item_digests(loaded.tasks, splits)
    return model_digests(experiment) | {f"items of {name}": one for name, one in items.items()}


def model_digests(experiment: Experiment) -> dict[str, str]:
    """Look at the models and the tokenizer alone; see ``input_digests``."""
    from evomerge.merging.sources import Sources
    from evomerge.models.opening import open_model, peek_model

    is_remote, models = experiment.execution.ray_address != "local", experiment.models
    open_full = peek_model if is_remote else open_model
    sources = Sources(models.base, models.experts, open_full=open_full)
    found: dict[str, str] = {}
    for name, model in zip(models.located(), sources.models, strict=True):
        found |= {f"{kind} of {name}": digest for kind, digest in _digests(model)}
    files = sorted(f for pattern in _TOKENIZER for f in sources.anchor.folder.glob(pattern))
    found["tokenizer of base"] = digest_of([[f.name, _digest(f)] for f in files if f.is_file()])
    return found


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
    configs = [file for file in model.files if file.suffix == ".json"]
    tensors = [file for file in model.files if file.suffix != ".json"]
    yield "config", digest_of(list(map(_digest, configs)))
    yield "weights", digest_of(list(map(_digest, tensors)))


def _digest(file: Path) -> str:
    """Of a Hub model that only the workers download, the commit says what it holds."""
    return fingerprint(file) if file.is_file() else f"commit {file.parent.name}"
