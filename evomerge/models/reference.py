"""Where a model comes from: ``zoo:NAME``, a local folder, or a Hub id with an optional revision."""

from __future__ import annotations

import re
from pathlib import Path

from evomerge.errors import CheckpointError
from evomerge.models.zoo import zoo_path

__all__ = ["absolute_reference", "resolve_model"]

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?$")
_NEEDED_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


def absolute_reference(reference: str, beside: Path) -> str:
    """Make a reference independent of the file that mentions it.

    Args:
        reference: As the user wrote it.
        beside: Folder of the file that mentions it; relative folders start there.

    Returns:
        ``zoo:`` and Hub references unchanged; folders as absolute paths.
    """
    if reference.startswith("zoo:"):
        return reference
    folder = (beside / Path(reference).expanduser()).resolve()
    is_hub_id = _HUB_ID.match(reference) and not folder.exists()
    return reference if is_hub_id else str(folder)


def resolve_model(reference: str) -> Path:
    """Find the folder of a model, downloading it when it is a Hub id.

    Args:
        reference: ``zoo:NAME``, an existing folder, or ``owner/name[@revision]``.

    Returns:
        A folder that holds ``config.json``.

    Raises:
        CheckpointError: No such zoo model, folder or Hub repository.
    """
    if reference.startswith("zoo:"):
        return zoo_path(reference.removeprefix("zoo:"))
    folder = Path(reference)
    if folder.is_dir():
        return _checked_folder(folder)
    if _HUB_ID.match(reference):
        return _download(reference)
    raise CheckpointError(
        f"expected zoo:NAME, an existing folder or a Hub id owner/name[@revision], got "
        f"{reference!r}, which is none of them; check the path (relative paths start at the file "
        "that mentions them)"
    )


def _checked_folder(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"expected a model folder with config.json, found none in {folder}")
    return folder


def _download(reference: str) -> Path:
    from huggingface_hub import snapshot_download

    repository, _, revision = reference.partition("@")
    try:
        return Path(
            snapshot_download(
                repository, revision=revision or None, allow_patterns=list(_NEEDED_FILES)
            )
        )
    except Exception as err:  # the hub raises a dozen unrelated types for "not there"
        reason = str(err).splitlines()[0]
        raise CheckpointError(
            f"{reference!r} is no existing folder, and the Hub gave no such model ({reason}); "
            "check the name and the network, or give a folder"
        ) from err
