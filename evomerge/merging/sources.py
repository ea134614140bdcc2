"""The models a recipe draws from, opened and checked against one another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

from evomerge.errors import (
    CheckpointError,
    Fault,
    KeyPath,
    NonFiniteError,
    RecipeError,
    collected,
)
from evomerge.merging.aligned import open_aligned
from evomerge.merging.finite import count_elements
from evomerge.merging.lent_parts import LentParts, lent_parts
from evomerge.merging.prepared import PreparedTensors
from evomerge.merging.shared import SharedExpert, shared_expert
from evomerge.methods.prepared import Preparation
from evomerge.models.architecture import Architecture
from evomerge.models.checkpoint import Checkpoint, StoredTensor, is_one_tensor
from evomerge.models.expert import TensorSource, tensor_bytes
from evomerge.models.files import companion_files
from evomerge.models.merged_vocabulary import MergedVocabulary, OnMergedVocabulary
from evomerge.models.merging_vocabularies import merge_vocabularies
from evomerge.models.opening import OpenModel, open_model
from evomerge.models.parts import PartsChoice
from evomerge.models.reference import ModelRef
from evomerge.models.roles import TensorRole
from evomerge.models.spelling import OneSpelling
from evomerge.models.tokenizer_choice import TokenizerChoice
from evomerge.recipe.path import BASE
from evomerge.recipe.prompts import PromptFile
from evomerge.statistics.cache import Origin, StatisticsCache
from evomerge.statistics.collect import WholeModel
from evomerge.statistics.tensor import TensorStatistics

if TYPE_CHECKING:
    from evomerge.merging.observed import Observations

__all__ = ["NamedModels", "Sources"]


class NamedModels(Protocol):
    """What names the models of a merge: recipes, experiments' models, what workers start from."""

    @property
    def base(self) -> str | None:
        """See ``Sources``."""

    @property
    def experts(self) -> Mapping[str, ModelRef]:
        """See ``Sources``."""

    @property
    def prompts(self) -> PromptFile | None:
        """See ``Sources``."""

    @property
    def tokenizer(self) -> TokenizerChoice | None:
        """See ``Sources``."""

    @property
    def parts(self) -> PartsChoice | None:
        """See ``Sources``."""


class Sources:
    """Base and experts, memory-mapped, with their statistics.

    Opening reads headers only. Statistics are computed per tensor on first use and kept, here and
    in the cache on disk.

    Args:
        base: Model reference, or ``None`` for recipes without a base.
        experts: Model, adapter, delta or aligned model by name, in recipe order.
        shared: Folder where the tensors that experts compute are kept for all processes of
            this machine; ``None`` computes them at each use.
        open_full: Opens the full models; with ``peek_model``, no tensors can be read.
        prompts: What methods with data run the experts on (``Recipe.prompts``).
        tokenizer: Which vocabulary the models are brought to, where theirs differ.
        parts: Which model lends vision tower and projector (``Recipe.parts``).

    Raises:
        CheckpointError: Listing every model that is missing or does not fit the anchor.
    """

    def __init__(
        self,
        base: str | None,
        experts: Mapping[str, ModelRef],
        shared: Path | None = None,
        open_full: OpenModel = open_model,
        prompts: PromptFile | None = None,
        tokenizer: TokenizerChoice | None = None,
        parts: PartsChoice | None = None,
    ) -> None:
        faults: list[Fault] = []
        self._spelling = OneSpelling(open_full)
        self.base = None if base is None else _opened_base(base, self._spelling, faults)
        self.experts = _opened(experts, self.base, self._spelling, faults)
        if faults and self.base is None:
            raise CheckpointError(*faults)
        self.anchor = self.base or next(iter(self.experts.values())).layout
        companion_files(self.anchor.folder)  # refuses links out of it before anything reads them
        self.architecture = Architecture(self.anchor.config, self.anchor.names)
        self.lent = LentParts() if faults else self._lent(parts, faults)
        self.vocabulary = None if faults else self._one_vocabulary(tokenizer, faults)
        self._cache, self._prompts = StatisticsCache.default(), prompts
        self._statistics: dict[str, dict[str | None, TensorStatistics]] = {}
        self._whole_models: dict[str | None, WholeModel] = {}  # by what is prepared
        for name in self.experts:
            first = islice(self._misfits(name), 1)  # the others follow from it
            faults += [Fault(("experts", name), text) for text in first]
        if faults:
            raise CheckpointError(*faults)
        if shared is not None:
            self.experts = {name: shared_expert(e, shared) for name, e in self.experts.items()}
            if isinstance(self.base, OnMergedVocabulary):
                self.base = self.anchor = self.base.read_by(shared_expert(self.base, shared).tensor)

    @classmethod
    def of(
        cls, models: NamedModels, shared: Path | None = None, open_full: OpenModel = open_model
    ) -> Sources:
        """Open the models that a recipe, an experiment or a worker names, with all that goes along.

        Raises:
            CheckpointError: See ``Sources``.
        """
        prompts, tokenizer, parts = models.prompts, models.tokenizer, models.parts
        return cls(models.base, models.experts, shared, open_full, prompts, tokenizer, parts)

    def _lent(self, parts: PartsChoice | None, faults: list[Fault]) -> LentParts:
        """Find which parts are taken as they are."""
        roles = self.architecture.roles
        loaded = {n: roles[n] for n in self.anchor.names if self._spelling.is_loaded(n)}
        return lent_parts(self._named, loaded, parts, faults)

    @property
    def _named(self) -> dict[str, TensorSource]:
        base: dict[str, TensorSource] = {} if self.base is None else {BASE: self.base}
        return base | self.experts

    def _one_vocabulary(
        self, tokenizer: TokenizerChoice | None, faults: list[Fault]
    ) -> MergedVocabulary | None:
        """Bring the models to one vocabulary."""
        found = None
        with collected(faults):
            found = merge_vocabularies(self._named, self.architecture.vocabulary, tokenizer)
        if found is not None:
            self.experts = {name: found.view(name) for name in self.experts}
            self.base = None if self.base is None else found.view(BASE)
            self.anchor = self.base or next(iter(self.experts.values())).layout
        return found

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Tensors to merge: stored, floating, in every model, and of no part that is lent."""
        floating = (n for n in self.stored if self.anchor.dtype(n).is_floating_point)
        return tuple(n for n in floating if n not in self.lent.tensors and self._is_common(n))

    @cached_property
    def lent_names(self) -> tuple[str, ...]:
        """Tensors of a merge that one model lends, floating ones (``lent``)."""
        floating = (n for n in self.stored if self.anchor.dtype(n).is_floating_point)
        return tuple(n for n in floating if n in self.lent.tensors)

    @property
    def part_notes(self) -> tuple[str, ...]:
        """Where each part comes from, in one line; nothing of models that have but one."""
        kinds = Counter(self.architecture.roles[n].kind for n in (*self.names, *self.lent_names))
        return self.lent.notes(kinds)

    def lent_tensor(self, name: str) -> torch.Tensor:
        """Return a tensor that is not merged: of the model that lends it, else the anchor's."""
        lender = self.lent.tensors.get(name)
        return self.anchor.tensor(name) if lender is None else self._named[lender].tensor(name)

    @cached_property
    def live_names(self) -> tuple[str, ...]:
        """Tensors to merge that transformers loads."""
        return tuple(filter(self._spelling.is_loaded, self.names))

    @property
    def live_roles(self) -> dict[str, TensorRole]:
        """What each of them is."""
        return {name: self.architecture.roles[name] for name in self.live_names}

    @cached_property
    def stored(self) -> tuple[str, ...]:
        """Tensors of a merged checkpoint: the anchor's, of tied ones the first."""
        return tuple(name for name in self.anchor.names if name not in self.tied)

    @cached_property
    def tied(self) -> Mapping[str, str]:
        """Tensors that are one with another in all models, by name, with that other's name.

        Tied in the anchor's config is not enough: a model whose files hold both with other values,
        or an adapter that changes one of them, is untied, and so is a merge with it.
        """
        tied = self.architecture.tied
        is_tied = all(
            is_one_tensor(m, name, other) for m in self.models for name, other in tied.items()
        )
        return tied if is_tied else {}

    @property
    def is_untied(self) -> bool:
        """Whether merges have two tensors where the anchor's config says one."""
        return bool(self.architecture.tied) and not self.tied

    @property
    def models(self) -> tuple[TensorSource, ...]:
        """The base (if any), then the experts."""
        return (*([] if self.base is None else [self.base]), *self.experts.values())

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that a merge of these models depends on, each once."""
        return tuple(dict.fromkeys(file for model in self.models for file in model.files))

    def tensor(self, source: str, name: str) -> torch.Tensor:
        """Return one tensor of ``base`` or an expert."""
        if source != BASE:
            return self.experts[source].tensor(name)
        assert self.base is not None  # recipes without a base do not name it
        return self.base.tensor(name)

    def tensors(
        self, name: str, prepared: str | None = None
    ) -> tuple[torch.Tensor | None, tuple[torch.Tensor, ...]]:
        """Return one tensor of the base (if any) and of every expert.

        Args:
            name: Of the tensor.
            prepared: What takes the place of the experts' (``TensorPlan.prepared``).
        """
        base = None if self.base is None else self.base.tensor(name)
        if prepared is not None:
            return base, self._prepared.vectors(name, prepared)
        return base, tuple(expert.tensor(name) for expert in self.experts.values())

    def tensor_bytes(self, name: str) -> int:
        """Tell the size of one tensor in all models together, without reading it."""
        return sum(tensor_bytes(model, name) for model in self.models)

    def computed_bytes(self, name: str) -> int:
        """Tell how much of ``tensor_bytes`` is not mapped but computed at each use."""
        return sum(
            tensor_bytes(expert, name)
            for expert in self.experts.values()
            if not isinstance(expert, SharedExpert) and len(expert.parts(name)) > 1
        )

    def statistics(self, name: str, prepared: str | None = None) -> TensorStatistics:
        """Return the statistics of one tensor; of prepared task vectors, those have no base."""
        known = self._statistics.setdefault(name, {})
        if prepared not in known:
            known[prepared] = self._measured(name, prepared)
        return known[prepared]

    def prepare(self, name: str, wanted: Iterable[str]) -> None:
        """Prepare one tensor in every way that is among the names of statistics."""
        for prepared in filter(Preparation.parse, wanted):
            self._prepared.vectors(name, prepared)

    def forget(self, name: str) -> None:
        """Drop the statistics of one tensor, and what is prepared of it, from memory."""
        self._statistics.pop(name, None)
        if self.base is not None:
            self._prepared.forget(name)

    def check_finite(self, *names: str) -> None:
        """Read tensors and refuse NaN and infinity.

        Args:
            names: Which; none means all, those of lent parts, too.

        Raises:
            NonFiniteError: Naming each bad tensor, its model and file.
        """
        faults = [fault for name in names or self.names for fault in self.non_finite(name)]
        if faults := faults + ([] if names else [*self._non_finite_lent()]):
            raise NonFiniteError(*faults)

    def _non_finite_lent(self) -> Iterator[Fault]:
        for name in self.lent_names:
            lender = self.lent.tensors[name]
            if count_elements(self.lent_tensor(name)):
                path: KeyPath = (BASE,) if lender == BASE else ("experts", lender)
                texts = _non_finite_faults(self._named[lender].parts(name))
                yield from (Fault(path, text) for text in texts)

    def non_finite(self, name: str) -> Iterator[Fault]:
        """Read a tensor of all models and say which hold NaN or infinity."""
        statistics = self.statistics(name)
        bases: list[KeyPath] = [] if self.base is None else [(BASE,)]
        paths = [*bases, *(("experts", expert) for expert in self.experts)]
        for index, (path, model) in enumerate(zip(paths, self.models, strict=True)):
            if statistics.non_finite(index):
                yield from (Fault(path, text) for text in _non_finite_faults(model.parts(name)))

    @cached_property
    def observations(self) -> Observations:
        """What the experts compute on the prompts.

        Raises:
            RecipeError: There are no prompts, or others than the recipe names.
        """
        from evomerge.merging.observed import Observations  # which needs lm-eval

        if self._prompts is None:
            raise RecipeError("expected prompts to run the experts on, got none")
        return Observations(
            self.anchor,
            self.experts,
            self.live_roles,
            self._prompts,
            is_untied=self.is_untied,
        )

    @cached_property
    def _prepared(self) -> PreparedTensors:
        assert self.base is not None, "methods that prepare need one"
        experts = tuple(self.experts.values())
        return PreparedTensors.default(self.base, experts, self._digests, lambda: self.observations)

    def _digests(self, name: str) -> Sequence[str]:
        statistics = self.statistics(name)
        return [statistics.digest(i) for i in range(statistics.n_models)]

    def _measured(self, name: str, prepared: str | None) -> TensorStatistics:
        if prepared not in self._whole_models:
            of_tensor = partial(self.statistics, prepared=prepared)
            self._whole_models[prepared] = WholeModel(lambda: map(of_tensor, self.names))
        whole = self._whole_models[prepared]
        if prepared is not None:
            return TensorStatistics(
                None,
                [
                    partial(self._prepared.vector, name, prepared, i)
                    for i in range(len(self.experts))
                ],
                origins=self._prepared.origins(name, prepared),
                cache=self._cache,
                model=whole,
            )
        readers = [partial(model.tensor, name) for model in self.models]
        n_bases = len(readers) - len(self.experts)
        return TensorStatistics(
            readers[0] if n_bases else None,
            readers[n_bases:],
            origins=[_origin(model, name) for model in self.models],
            cache=self._cache,
            model=whole,
        )

    def _is_common(self, name: str) -> bool:
        """Tell whether all models have a tensor; they may differ in what none of them loads."""
        shape, layouts = self.anchor.shape(name), [m.layout for m in self.experts.values()]
        return all(name in layout and layout.shape(name) == shape for layout in layouts)

    def _misfits(self, name: str) -> Iterator[str]:
        expert, anchor = self.experts[name].layout, self.anchor
        folder = expert.folder
        loaded = filter(self._spelling.is_loaded, anchor.names)
        wanted = [n for n in loaded if n not in self.lent.tensors]
        missing = [n for n in wanted if n not in expert]
        extra = self._not_lent(expert, [n for n in expert.names if n not in anchor])
        for count, example in ((f"{len(missing)} less", missing), (f"{len(extra)} more", extra)):
            if example:
                yield (
                    f"expected the tensors of {anchor.folder}, got {count} in {folder}, e.g. "
                    f"{example[0]}; models must share their architecture"
                )
        for tensor in wanted:
            if tensor in expert and expert.shape(tensor) != anchor.shape(tensor):
                yield (
                    f"expected {tensor} of shape {anchor.shape(tensor)} as in "
                    f"{anchor.folder}, got {expert.shape(tensor)} in {folder}; models must share "
                    "their architecture and vocabulary"
                )
                return

    def _not_lent(self, expert: Checkpoint, names: list[str]) -> list[str]:
        """Leave out tensors of parts that a model may have in another form, being lent one."""
        if not names or not self.lent.lenders:
            return names
        roles = Architecture(expert.config, expert.names).roles
        return [name for name in names if roles[name].kind not in self.lent.lenders]


def _origin(model: TensorSource, name: str) -> Origin:
    parts = model.parts(name)
    if len(parts) == 1:
        return Origin((parts[0].file,), parts[0].name)
    names = " ".join(part.name for part in parts)  # of two tensors one may be shared
    return Origin(model.files, f"{model.computation} {names}".strip())


def _non_finite_faults(parts: tuple[StoredTensor, ...]) -> list[str]:
    counts = [(part, count_elements(part.tensor)) for part in parts]
    faults = [
        f"expected finite numbers, got {bad} NaN or infinite out of {part.tensor.numel()} in "
        f"tensor {part.name} of {part.file}"
        for part, bad in counts
        if bad
    ]
    files = ", ".join(dict.fromkeys(str(part.file) for part in parts))
    return faults or [
        f"expected numbers in the range of float32, got larger ones in tensor {parts[0].name}, "
        f"read or computed from {files}"
    ]


def _opened_base(reference: str, open_full: OpenModel, faults: list[Fault]) -> Checkpoint | None:
    with collected(faults, BASE):
        return open_full(reference)
    return None


def _opened(
    experts: Mapping[str, ModelRef],
    base: Checkpoint | None,
    open_full: OpenModel,
    faults: list[Fault],
) -> dict[str, TensorSource]:
    found: dict[str, TensorSource] = {}
    for name, reference in experts.items():
        with collected(faults, "experts", name):
            found[name] = open_aligned(reference, base, open_full)
    return found
