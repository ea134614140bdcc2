"""What the files of models hold, so that a machine with others of the same names is noticed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from evomerge.errors import CheckpointError, Fault, KeyPath
from evomerge.fingerprint import fingerprint
from evomerge.merging.sources import Sources
from evomerge.models.companions import TOKENIZER_FILES
from evomerge.recipe.path import BASE

__all__ = [
    "FileContent",
    "ModelContents",
    "file_digest",
    "processor_files",
    "require_contents",
    "tokenizer_files",
]

_COMMIT = "commit "


@dataclass(frozen=True)
class FileContent:
    """A file that scores depend on.

    Attributes:
        of: ``base``, or the expert's name.
        name: Without its folder, which may differ from machine to machine.
        digest: See ``file_digest``.
    """

    of: str
    name: str
    digest: str


@dataclass(frozen=True)
class ModelContents:
    """What the files of a set of models hold.

    Attributes:
        files: Of all models, in their order.
        tokenizer: Of the base, with those of its processor.
    """

    files: tuple[FileContent, ...]
    tokenizer: tuple[FileContent, ...]

    @classmethod
    def of(cls, sources: Sources) -> ModelContents:
        """Look at the files on this machine; each is read once (``fingerprint``)."""
        folder = sources.anchor.companions
        tokenizer = [*tokenizer_files(folder), *processor_files(folder)]
        return cls(
            tuple(FileContent(of, file.name, file_digest(file)) for of, file in _files(sources)),
            tuple(FileContent(BASE, file.name, file_digest(file)) for file in tokenizer),
        )


def file_digest(file: Path) -> str:
    """Name what a file holds; of a Hub model that is not downloaded, the commit says it."""
    return fingerprint(file) if file.is_file() else _commit(file)


def tokenizer_files(folder: Path) -> list[Path]:
    """List the files of a model's tokenizer, and of how it generates; some match twice."""
    return _matching(folder, TOKENIZER_FILES)


def processor_files(folder: Path) -> list[Path]:
    """List the files that say how images become tokens; a model of text alone has none."""
    return _matching(folder, ("preprocessor_config.json", "processor_config.json"))


def _matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    files = sorted(file for pattern in patterns for file in folder.glob(pattern))
    return [file for file in files if file.is_file()]


def require_contents(sources: Sources, wanted: ModelContents) -> None:
    """Refuse files that hold something else than the driver's.

    Args:
        sources: The models as they are on this machine.
        wanted: The driver's.

    Raises:
        CheckpointError: Naming each file that differs.
    """
    pairs = zip_longest(_files(sources), wanted.files)
    faults = [fault for here, there in pairs for fault in _difference(here, there)]
    folder = sources.anchor.companions
    is_of_hub = folder.parent.name == "snapshots"  # where what nobody has read is not there
    for there in wanted.tokenizer:
        if (folder / there.name).is_file() or not is_of_hub:
            faults += _difference((BASE, folder / there.name), there)
    if faults:
        raise CheckpointError(*faults)


def _difference(here: tuple[str, Path] | None, there: FileContent | None) -> Iterator[Fault]:
    hint = "copy the driver's files, or name a folder that all machines share"
    if here is None:
        assert there is not None, "one of a pair is there"
        text = f"expected a file {there.name} as the driver has, got none"
        yield Fault(_path(there.of), text, hint)
    elif there is None:
        yield Fault(_path(here[0]), f"expected the driver's files, got {here[1]} as well", hint)
    elif not here[1].exists():
        yield Fault(_path(here[0]), f"expected {here[1]} as the driver has, got no such file", hint)
    elif FileContent(here[0], here[1].name, _digest_like(there, here[1])) != there:
        text = f"expected {here[1]} to hold what the driver's {there.name} does, got other content"
        yield Fault(_path(there.of), text, hint)


def _path(of: str) -> KeyPath:
    return (of,) if of == BASE else ("experts", of)


def _digest_like(there: FileContent, file: Path) -> str:
    """Look at a file as the driver did, which may know no more than its commit."""
    return _commit(file) if there.digest.startswith(_COMMIT) else file_digest(file)


def _files(sources: Sources) -> Iterator[tuple[str, Path]]:
    names = [*([] if sources.base is None else [BASE]), *sources.experts]
    for name, model in zip(names, sources.models, strict=True):
        yield from ((name, file) for file in model.files)


def _commit(file: Path) -> str:
    return f"{_COMMIT}{file.parent.name}"
