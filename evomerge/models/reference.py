"""Where a model comes from: it is full, an adapter on one, two models' difference, or aligned."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from glob import escape
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, overload

from pydantic import BeforeValidator

from evomerge.errors import CheckpointError, brief, quotes_hint
from evomerge.models.files import COMPANIONS, SINGLE, TEMPLATES, read_json, weight_files
from evomerge.models.zoo import zoo_path

__all__ = [
    "AdapterRef",
    "AlignedRef",
    "Aligner",
    "DeltaRef",
    "ModelRef",
    "absolute_reference",
    "cached_snapshot",
    "hub_fault",
    "mentioned_models",
    "public_reference",
    "reference_data",
    "relative_reference",
    "resolve_adapter",
    "resolve_config",
    "resolve_model",
    "split_hub_id",
]

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?$")
_MODEL, _ADAPTER = "config.json", "adapter_config.json"  # tell the two kinds of folder apart
_ADAPTER_FILES = (_ADAPTER, "adapter_model.safetensors")


@dataclass(frozen=True)
class AdapterRef:
    """A LoRA adapter and the model it was trained on; together they are one expert.

    Attributes:
        adapter: ``zoo:NAME``, PEFT folder, or Hub id with an optional revision.
        on: ``zoo:NAME``, folder, or Hub id with an optional revision.
    """

    adapter: str
    on: str

    def __str__(self) -> str:
        return f"{self.adapter} on {self.on}"


@dataclass(frozen=True)
class DeltaRef:
    """A task vector that is the difference of two models, e.g. a chat vector.

    It is added to the recipe's base, which need be neither of the two.

    Attributes:
        model: What is subtracted from, e.g. an instruct model; written like any full model.
        minus: What is subtracted, e.g. the base it was trained from.
    """

    model: str
    minus: str

    def __str__(self) -> str:
        return f"{self.model} minus {self.minus}"


Aligner = Literal["weights", "weights_and_stream", "activations", "transport"]
"""How an expert's units are matched with the base's (``evomerge.alignment``)."""


@dataclass(frozen=True)
class AlignedRef:
    """A full model whose units (neurons, heads) are put where the recipe's base has theirs.

    Attributes:
        model: What is aligned; written like any full model.
        align: How units are matched.
        prompts: File of prompts that both models are run on, for ``activations`` alone.
    """

    model: str
    align: Aligner
    prompts: str | None = None

    def __str__(self) -> str:
        return f"{self.model} aligned by {self.align}"


def _read(value: object) -> object:
    """Read the mappings that files have for the classes."""
    if isinstance(value, str | AdapterRef | DeltaRef | AlignedRef):
        return value
    if isinstance(value, Mapping) and all(isinstance(part, str) for part in value.values()):
        if value.keys() == {"adapter", "on"}:
            return AdapterRef(**value)
        if value.keys() == {"model", "minus"}:
            return DeltaRef(**value)
        if {"model", "align"} <= value.keys() <= {"model", "align", "prompts"}:
            return _aligned(AlignedRef(**value))
    hint = quotes_hint(value)
    raise ValueError(
        "expected zoo:NAME, a folder, a Hub id, {adapter: FOLDER, on: MODEL}, "
        f"{{model: MODEL, minus: MODEL}} or {{model: MODEL, align: {get_args(Aligner)[0]}}}, got "
        f"{brief(value)}{hint and f'; {hint}'}"
    )


def _aligned(reference: AlignedRef) -> AlignedRef:
    known = get_args(Aligner)
    if reference.align not in known:
        raise ValueError(f"expected align to be one of {', '.join(known)}, got {reference.align}")
    if (reference.align == "activations") != (reference.prompts is not None):
        state = "none" if reference.prompts is None else f"some for {reference.align}"
        raise ValueError(
            "expected prompts: FILE beside align: activations, which runs the models, and nowhere "
            f"else, got {state}"
        )
    return reference


ModelRef = Annotated[str | AdapterRef | DeltaRef | AlignedRef, BeforeValidator(_read)]


def reference_data(reference: ModelRef) -> str | dict[str, str]:
    """Return a reference as plain data, the way files write it."""
    if isinstance(reference, str):
        return reference
    return {key: part for key, part in asdict(reference).items() if part is not None}


def mentioned_models(reference: ModelRef) -> tuple[str, ...]:
    """List the models and adapters that a reference is made of."""
    if isinstance(reference, str):
        return (reference,)
    return tuple(part for key, part in _places(reference).items() if key != "prompts")


def _places(reference: AdapterRef | DeltaRef | AlignedRef) -> dict[str, str]:
    """Take the parts of a reference that say where something is."""
    parts = asdict(reference).items()
    return {key: part for key, part in parts if key != "align" and part is not None}


@overload
def absolute_reference(reference: str, beside: Path) -> str: ...
@overload
def absolute_reference(reference: ModelRef, beside: Path) -> ModelRef: ...
def absolute_reference(reference: ModelRef, beside: Path) -> ModelRef:
    """Make a reference independent of the file that mentions it.

    Args:
        reference: As the user wrote it.
        beside: Folder of the file that mentions it; relative folders start there.

    Returns:
        ``zoo:`` and Hub references unchanged; folders as absolute paths.
    """
    if not isinstance(reference, str):
        places = _places(reference).items()
        moved = {key: absolute_reference(place, beside) for key, place in places}
        return replace(reference, **moved)  # type: ignore[arg-type]
    if reference.startswith("zoo:"):
        return reference
    folder = (beside / Path(reference).expanduser()).resolve()
    is_hub_id = _HUB_ID.match(reference) and not folder.exists()
    return reference if is_hub_id else str(folder)


@overload
def relative_reference(reference: str, beside: Path) -> str: ...
@overload
def relative_reference(reference: ModelRef, beside: Path) -> ModelRef: ...
def relative_reference(reference: ModelRef, beside: Path) -> ModelRef:
    """Undo ``absolute_reference``: name folders from where the file lies that mentions them.

    Args:
        reference: With absolute folders.
        beside: Folder of the file.

    Returns:
        ``zoo:`` and Hub references unchanged; folders beginning with ``./`` or ``../``.
    """

    def relative(folder: str) -> str:
        path = os.path.relpath(folder, beside.resolve())
        return path if path.startswith("..") else f"./{path}"

    return _with_folders(reference, relative)


@overload
def public_reference(reference: str) -> str: ...
@overload
def public_reference(reference: ModelRef) -> ModelRef: ...
def public_reference(reference: ModelRef) -> ModelRef:
    """Name a model for others: a folder without its place, ``zoo:`` and Hub models as they are."""
    return _with_folders(reference, lambda folder: Path(folder).name)


def _with_folders(reference: ModelRef, change: Callable[[str], str]) -> ModelRef:
    """Change the absolute paths in a reference."""

    def changed(model: str) -> str:
        return change(model) if Path(model).is_absolute() else model

    if isinstance(reference, str):
        return changed(reference)
    parts: dict[str, Any] = {key: changed(part) for key, part in _places(reference).items()}
    return replace(reference, **parts)


def resolve_model(reference: str) -> Path:
    """Find the folder of a full model, downloading it when it is a Hub id.

    Args:
        reference: ``zoo:NAME``, an existing folder, or ``owner/name[@revision]``.

    Returns:
        A folder that holds ``config.json``.

    Raises:
        CheckpointError: No such zoo model, folder or Hub repository.
    """
    expected = "zoo:NAME, an existing folder or a Hub id owner/name[@revision]"
    folder = _folder(reference, expected, _download_model)
    if (folder / _MODEL).is_file():
        return folder
    if (folder / _ADAPTER).is_file():
        raise CheckpointError(
            f"expected a full model, got the adapter {reference}; as an expert, write "
            f"{{adapter: {reference}, on: MODEL}} with the model it was trained on"
        )
    raise CheckpointError(f"expected a model folder with {_MODEL}, found none in {folder}")


def resolve_config(reference: str) -> Path:
    """Find a folder with the config of a full model; of a Hub id nothing else is downloaded.

    Raises:
        CheckpointError: See ``resolve_model``.
    """
    hub = split_hub_id(reference)
    if hub is None:
        return resolve_model(reference)
    try:
        return _snapshot(*hub, [_MODEL])
    except Exception as err:  # the hub raises a dozen unrelated types for "not there"
        raise hub_fault(reference, err) from err


def resolve_adapter(reference: str) -> Path:
    """Find the folder of a LoRA adapter, downloading it when it is a Hub id.

    Args:
        reference: ``zoo:NAME``, an existing folder, or ``owner/name[@revision]``.

    Returns:
        A folder that holds ``adapter_config.json``.

    Raises:
        CheckpointError: No such zoo adapter, folder or Hub repository, or no adapter in it.
    """
    expected = "zoo:NAME, an adapter folder or a Hub id owner/name[@revision]"
    folder = _folder(reference, expected, _download_adapter)
    if not (folder / _ADAPTER).is_file():
        raise CheckpointError(f"expected a PEFT folder with {_ADAPTER}, found none in {folder}")
    return folder


_Download = Callable[[str, str | None], Path]
"""Fetches what belongs to a model or an adapter, of a repository and a revision."""


def _folder(reference: str, expected: str, download: _Download) -> Path:
    if reference.startswith("zoo:"):
        return zoo_path(reference.removeprefix("zoo:"))
    folder = Path(reference)
    if folder.is_dir():
        return folder
    if _HUB_ID.match(reference):
        repository, _, revision = reference.partition("@")
        try:
            return download(repository, revision or None)
        except CheckpointError:
            raise
        except Exception as err:  # the hub raises a dozen unrelated types for "not there"
            raise hub_fault(reference, err) from err
    raise CheckpointError(
        f"expected {expected}, got {reference!r}, which is none of them; check the path (relative "
        "paths start at the file that mentions them)"
    )


def split_hub_id(reference: str) -> tuple[str, str | None] | None:
    """Read ``owner/name[@revision]``: repository and revision; ``None`` if it is no Hub id."""
    if reference.startswith("zoo:") or Path(reference).is_dir() or not _HUB_ID.match(reference):
        return None
    repository, _, revision = reference.partition("@")
    return repository, revision or None


def cached_snapshot(repository: str, revision: str | None) -> Path | None:
    """Find what was downloaded of a Hub repository before, whole or not, without the network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def hub_fault(reference: str, err: Exception) -> CheckpointError:
    """Say that the Hub did not give a model, in one line."""
    reason = str(err).splitlines()[0]
    return CheckpointError(
        f"{reference!r} is no existing folder, and the Hub gave no such model ({reason}); "
        "check the name and the network, or give a folder"
    )


def _download_model(repository: str, revision: str | None) -> Path:
    """Fetch config, tokenizer and, of all tensors, those that transformers would load."""
    folder = _snapshot(repository, revision, [*COMPANIONS, SINGLE], ignored="*/*")
    if not (folder / _MODEL).is_file():
        return folder
    at_once = partial(_snapshot, repository, folder.name)  # the commit that this one is of
    config = read_json(folder / _MODEL)
    if "transformers_weights" in config:
        at_once([escape(str(config["transformers_weights"]))])
    files = [file.relative_to(folder).as_posix() for file in weight_files(folder, config)]
    return at_once([TEMPLATES, *map(escape, files)])


def _download_adapter(repository: str, revision: str | None) -> Path:
    return _snapshot(repository, revision, _ADAPTER_FILES)


def _snapshot(
    repository: str, revision: str | None, patterns: Iterable[str], ignored: str | None = None
) -> Path:
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            repository, revision=revision, allow_patterns=list(patterns), ignore_patterns=ignored
        )
    )
