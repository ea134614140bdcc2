"""Differences to a merge, and a router that weighs them: made and written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from evomerge.errors import ConfigError, Fault, RecipeError
from evomerge.masked.folder import part_faults
from evomerge.merging.output import put
from evomerge.merging.sources import Sources
from evomerge.models.checkpoint import Checkpoint
from evomerge.models.expert import content_digest
from evomerge.models.writer import TensorForm, write_safetensors
from evomerge.observation.examples import Example
from evomerge.recipe.recipe import Recipe
from evomerge.twins.differences import difference_forms, factors
from evomerge.twins.file import TWINS, TwinFile, Twins, twins_text
from evomerge.twins.router import fitted_router

__all__ = ["RANK_SHARE", "WrittenTwins", "check_twins", "write_twins"]

RANK_SHARE = 0.1
"""What the authors' code keeps of a matrix's rank where nobody says otherwise."""


@dataclass(frozen=True)
class WrittenTwins:
    """What there is to say of a merge with differences.

    Attributes:
        experts: Their names.
        n_merge: Parameters of the merge.
        n_difference: Of the differences of one expert.
        accuracy: Share of the router's own prompts for whose expert it has the largest weight;
            ``None``: there is no router.
    """

    experts: tuple[str, ...]
    n_merge: int
    n_difference: int
    accuracy: float | None

    @property
    def n_held(self) -> int:
        """Parameters of the merge with all differences."""
        return self.n_merge + len(self.experts) * self.n_difference


def check_twins(
    recipe: Recipe, sources: Sources, rank_share: float, prompts: Sequence[Example]
) -> None:
    """Make sure that differences and router can be made, before anything is merged.

    Raises:
        RecipeError: It is an ensemble, has a path, or a part that is not the expert's own.
        ConfigError: The share is none, or prompts are not of the experts; everything that is wrong.
    """
    recipe.require_merge()
    if faults := list(part_faults(recipe, sources)):
        raise RecipeError(*faults)
    faults = [] if not prompts else [*_prompt_faults(recipe, prompts)]
    if not 0 < rank_share <= 1:
        text = f"expected a share above 0, up to 1, got {rank_share}"
        faults.append(Fault(("rank_share",), text))
    if faults:
        raise ConfigError(*faults)


def _prompt_faults(recipe: Recipe, prompts: Sequence[Example]) -> Iterator[Fault]:
    """A router learns from prompts what each expert is for: they must say it."""
    found = dict.fromkeys(one.expert for one in prompts)
    names = ", ".join(recipe.experts)
    if None in found:
        text = f"expected 'expert' in every line, one of {names}, got a prompt without"
        yield Fault(("prompts",), text)
    if unknown := [name for name in found if name not in (None, *recipe.experts)]:
        yield Fault(("prompts",), f"expected prompts for {names}, got some for {unknown[0]!r}")
    if without := [name for name in recipe.experts if name not in found]:
        text = f"expected prompts for every expert, got none for {', '.join(without)}"
        yield Fault(("prompts",), text)


def write_twins(
    recipe: Recipe,
    folder: Path,
    *,
    rank_share: float,
    prompts: Sequence[Example],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> WrittenTwins:
    """Write differences beside a merge, and a router where there are prompts.

    Memory: one tensor of each model with its decomposition; for the router the merge itself.

    Args:
        recipe: What was merged, checked (``check_twins``).
        folder: Holds the merge, as ``write_checkpoint`` writes it.
        rank_share: See ``differences.kept_rank``.
        prompts: Of the router; each says which expert it is for.
        progress: Called with (tensors done, tensors in all), over all experts.

    Raises:
        EvomergeError: A model cannot be opened or run, or a file cannot be written.
    """
    sources, merge = Sources.of(recipe), Checkpoint(folder)
    (folder / "twins").mkdir(exist_ok=True)  # apart: some load all there is beside a model
    made = {name: _Made(sources, merge, name, rank_share) for name in recipe.experts}
    files = {name: f"twins/{i:03d}.safetensors" for i, name in enumerate(made)}
    total = len(made) * len(sources.names)
    for i, (name, differences) in enumerate(made.items()):
        write_safetensors(folder / files[name], differences.forms, differences.tensor)
        progress((i + 1) * len(sources.names), total)
    router = "twins/router.safetensors" if prompts else None
    file = TwinFile(rank_share, content_digest(merge), files, router)
    accuracy = None
    if router is not None:
        fitted, accuracy = fitted_router(Twins(folder, file), prompts)
        fitted.write(folder / router)
    put(folder / TWINS, twins_text(file).encode())
    n_difference = _n_elements(next(iter(made.values())).forms.values())
    n_merge = sum(map(math.prod, merge.shapes().values()))
    return WrittenTwins(tuple(recipe.experts), n_merge, n_difference, accuracy)


def _n_elements(forms: Iterable[TensorForm]) -> int:
    return sum(math.prod(form.shape) for form in forms)


class _Made:
    """Makes the differences of one expert, and keeps those of one tensor until they are written."""

    def __init__(self, sources: Sources, merge: Checkpoint, expert: str, rank_share: float) -> None:
        self._sources, self._merge, self._expert = sources, merge, expert
        self._share = rank_share
        self._owner: dict[str, str] = {}
        self.forms: dict[str, TensorForm] = {}
        for name in sources.names:
            form = TensorForm(merge.dtype(name), merge.shape(name))
            own = difference_forms(name, form, rank_share)
            self.forms |= own
            self._owner |= dict.fromkeys(own, name)
        self._waiting: dict[str, torch.Tensor] = {}

    def tensor(self, part: str) -> torch.Tensor:
        """Return what the file holds by a name; both factors of a tensor are made at once."""
        if part not in self._waiting:
            name = self._owner[part]
            merge, own = self._merge.tensor(name), self._sources.tensor(self._expert, name)
            self._waiting |= factors(name, merge, own, self._share)
        return self._waiting.pop(part)
