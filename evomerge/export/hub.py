"""Exported folders on the Hub."""

from __future__ import annotations

from pathlib import Path

from evomerge.errors import ConfigError
from evomerge.recipe.files import RECIPE_FILE, dump_recipe, load_recipe, public_recipe

__all__ = ["open_repository", "push_folder"]


def open_repository(repository: str, *, is_public: bool) -> None:
    """Make sure of a repository on the Hub before the work begins; created if needed.

    Args:
        repository: ``owner/name``.
        is_public: Whether everybody may read it; else a public one is refused.

    Raises:
        ConfigError: It is public, and was not to be.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo(repository, private=not is_public, exist_ok=True)
    if not is_public and not api.repo_info(repository).private:
        raise ConfigError(f"{repository} exists and is public; add --public to publish there")


def push_folder(folder: Path, repository: str) -> str:
    """Upload an exported folder to the Hub, its recipe without the places of local models.

    Args:
        folder: As ``export_model`` wrote it.
        repository: ``owner/name``, which exists.

    Returns:
        Address of the commit.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    recipe = public_recipe(load_recipe(folder / RECIPE_FILE))
    api.upload_folder(repo_id=repository, folder_path=folder, ignore_patterns=[RECIPE_FILE])
    content = dump_recipe(recipe).encode()
    return str(
        api.upload_file(path_or_fileobj=content, path_in_repo=RECIPE_FILE, repo_id=repository)
    )
