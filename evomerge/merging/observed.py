"""What the experts compute on prompts: observed once per machine, mapped by every process."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from evomerge.cache import cache_folder, hold, say_unusable
from evomerge.errors import CheckpointError, RecipeError
from evomerge.fingerprint import digest_of, fingerprint
from evomerge.merging.propagated import PROPAGATED, Propagation, largest_stage, stage_of
from evomerge.merging.shared import mapped, only_one
from evomerge.merging.spread import to_gpu
from evomerge.methods.regression import regression_bytes
from evomerge.models.checkpoint import Checkpoint, model_dtype
from evomerge.models.expert import TensorSource, content_digest
from evomerge.models.merged_vocabulary import fit_vocabulary
from evomerge.models.parameters import live_tensors, untie
from evomerge.models.roles import TensorRole
from evomerge.models.structure import empty_model, text_only_fault
from evomerge.models.writer import TensorForm
from evomerge.observation.blocks import in_blocks
from evomerge.observation.examples import Example, read_examples
from evomerge.observation.kinds import OBSERVATIONS
from evomerge.observation.memory import kept_bytes, observation_bytes
from evomerge.observation.observer import Observer
from evomerge.observation.reading import Tokenised, tokenised
from evomerge.recipe.prompts import PromptFile

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from evomerge.methods.prepared import Preparation, TaskVectors

__all__ = ["OBSERVED", "Observations", "disk_bytes", "peak_bytes", "read_by_experts"]

OBSERVED = "observed"
"""Room of the user's cache where observations are kept."""
_ARITHMETIC = 1  # raise when the same models on the same prompts yield other values


class Observations:
    """Runs experts on prompts when something of them is asked for that is not kept yet.

    One model is in memory at a time, and only while files are written. Disk: per expert as much as
    ``ObservationKind.forms`` says; where nothing can be kept, in a folder that goes with this
    object.

    Args:
        base: Whose config, tokenizer and tensor names all share.
        experts: By name, in recipe order.
        roles: Tensors that the live model holds, by name.
        prompts: What they are run on.
        is_untied: Whether head and embedding are two tensors where the base's config says one.

    Raises:
        RecipeError: The file of prompts is gone, or holds others.
    """

    def __init__(
        self,
        base: Checkpoint,
        experts: Mapping[str, TensorSource],
        roles: Mapping[str, TensorRole],
        prompts: PromptFile,
        *,
        is_untied: bool = False,
    ) -> None:
        self._base, self._experts, self._is_untied = base, experts, is_untied
        self._roles, self._names = roles, tuple(roles)
        self._prompts = prompts.sealed()
        self._dtype = model_dtype(base, self._names)
        self._files: dict[str, list[Any]] = {}
        self._held = ExitStack()
        self._digests: dict[tuple[str, int], str] = {}  # asked for with every tensor

    @cached_property
    def _read_by(self) -> tuple[Tokenised, ...]:
        """What each expert reads; nothing is loaded before that is known."""
        examples = read_examples(Path(self._prompts.file), self._prompts.limit)
        return read_by_experts(examples, self._experts, self._base)

    def digest(self, kind: str) -> str:
        """Name all that an observation depends on, of all experts."""
        return digest_of([self._digest(kind, i) for i in range(len(self._experts))])

    def readers(
        self,
        kind: str,
        name: str,
        preparation: Preparation,
        task_vectors: Callable[[str], TaskVectors],
    ) -> Sequence[Callable[[], torch.Tensor | None]]:
        """Say how to read what was observed of one tensor.

        Args:
            kind: What.
            name: Of the tensor.
            preparation: What it is for, where merged layers are run.
            task_vectors: Returns those of any tensor, likewise.

        Returns:
            Per expert: returns a tensor that is backed by a file, never to be written into;
            ``None`` if nothing of this kind is observed of such a tensor.
        """
        if kind != PROPAGATED:
            return [partial(self._read, kind, i, name) for i in range(len(self._experts))]
        propagated = partial(self._read_propagated, name, preparation, task_vectors)
        return [partial(propagated, i) for i in range(len(self._experts))]

    def _read(self, kind: str, expert: int, name: str) -> torch.Tensor | None:
        if kind not in self._files:
            self._files[kind] = self._observed(kind)
        return _tensor(self._files[kind][expert], name)

    def _read_propagated(
        self,
        name: str,
        preparation: Preparation,
        task_vectors: Callable[[str], TaskVectors],
        expert: int,
    ) -> torch.Tensor | None:
        if (key := str(preparation)) not in self._files:
            self._files[key] = self._propagated(preparation, task_vectors)
        n_layers = len(self._files[key]) - 2
        stage = stage_of(self._roles[name], n_layers)
        return _tensor(self._files[key][stage], f"{expert} {name}")

    def _digest(self, kind: str, expert: int) -> str:
        if (kind, expert) not in self._digests:
            self._digests[kind, expert] = self._digest_of(kind, expert)
        return self._digests[kind, expert]

    def _digest_of(self, kind: str, expert: int) -> str:
        source = list(self._experts.values())[expert]
        read = self._read_by[expert]
        labels = self._prompts.labels if OBSERVATIONS[_run_as(kind)].needs_labels else None
        tokens = [[reading.context, reading.continuation] for reading in read.readings]
        models = [content_digest(source), self._names, str(self._dtype), self._is_untied]
        return digest_of(_ARITHMETIC, kind, models, tokens, read.max_length, labels)

    def _observed(self, kind: str) -> list[Any]:
        """Open every expert's file; those that are not there are written, one after another."""
        forms, live = self._forms(kind), _Live(self._loaded)
        return [self._of_expert(kind, i, forms, live) for i in range(len(self._experts))]

    def _of_expert(self, kind: str, i: int, forms: Mapping[str, TensorForm], live: _Live) -> Any:
        expert = list(self._experts.values())[i]

        def observer() -> Observer:
            live.fill(expert)
            return self._observer(live.model, i)

        tensor_of = in_blocks(observer, OBSERVATIONS[_run_as(kind)], forms)
        return self._kept(self._digest(kind, i), forms, tensor_of)

    def _observer(self, model: PreTrainedModel, expert: int) -> Observer:
        read, labels = self._read_by[expert], self._prompts.labels
        return Observer(model, self._names, read.readings, read.max_length, labels)

    def _propagated(
        self, preparation: Preparation, task_vectors: Callable[[str], TaskVectors]
    ) -> list[Any]:
        """Open the files of all stages; a missing one is written once those before are there."""
        live, experts = _Live(self._loaded), list(self._experts.values())
        files: list[Any] = []
        walk = Propagation(
            self._base,
            experts,
            self._roles,
            preparation,
            task_vectors,
            live=lambda: (live.model, live.tensors),
            observer=self._observer,
            grams=lambda stage, key: _tensor(files[stage], key),
        )
        models = [fingerprint(*self._base.files), self.digest(PROPAGATED), str(preparation)]
        sizes = self._forms(PROPAGATED)
        for stage in range(walk.n_stages):
            names = [name for name in walk.names(stage) if name in sizes]
            forms = {f"{i} {name}": sizes[name] for i in range(len(experts)) for name in names}
            made = partial(walk.gram, stage)
            files.append(self._kept(digest_of(models, stage), forms, made))
        return files

    def _forms(self, kind: str) -> dict[str, TensorForm]:
        model = empty_model(self._base.config, self._dtype)
        assert model is not None, "what is tokenised for can be built"
        return OBSERVATIONS[_run_as(kind)].forms(model, self._names)

    def _loaded(self) -> tuple[PreTrainedModel, dict[str, torch.Tensor]]:
        from evomerge.merging.candidate import load_model  # which needs the sources of this room

        model = load_model(str(self._base.folder), self._dtype)
        fit_vocabulary(model, self._base)
        if self._is_untied:
            untie(model)
        to_gpu(model)
        return model, live_tensors(model, self._names)

    def _kept(
        self,
        digest: str,
        forms: Mapping[str, TensorForm],
        tensor_of: Callable[[str], torch.Tensor],
    ) -> Any:
        """Open a file of observations; one that is not there is written."""
        if (folder := cache_folder(OBSERVED)) is not None:
            try:
                return self._mapped(folder, digest, forms, tensor_of)
            except (OSError, CheckpointError) as err:
                say_unusable(folder, err)
        own = Path(self._held.enter_context(TemporaryDirectory(prefix="evomerge-")))
        return self._mapped(own, digest, forms, tensor_of)

    def _mapped(
        self,
        folder: Path,
        digest: str,
        forms: Mapping[str, TensorForm],
        tensor_of: Callable[[str], torch.Tensor],
    ) -> Any:
        file = folder / digest[:2] / f"{digest}.safetensors"
        with only_one(file) as note:
            found = mapped(file, note, forms, tensor_of)
            self._held.enter_context(hold(file))
            return found


def read_by_experts(
    examples: Sequence[Example], experts: Collection[str], base: Checkpoint
) -> tuple[Tokenised, ...]:
    """Tokenise what each expert reads: what is for it alone, and what is for all.

    Args:
        examples: The prompts.
        experts: Names, in recipe order.
        base: Whose tokenizer and config all share.

    Raises:
        EvomergeError: The prompts, or the model that would read them, are not what they must be.
    """
    if reason := text_only_fault(base.config):
        raise CheckpointError(f"{base.folder}: {reason}, for methods with data")
    unknown = {one.expert for one in examples if one.expert not in (None, *experts)}
    if unknown:
        raise RecipeError(
            f"expected prompts for {', '.join(experts)} or, without an expert, for all, got some "
            f"for {', '.join(sorted(map(str, unknown)))}"
        )
    own = {name: [one for one in examples if one.expert in (None, name)] for name in experts}
    if without := [name for name, some in own.items() if not some]:
        raise RecipeError(f"expected prompts for every expert, got none for {', '.join(without)}")
    return tuple(tokenised(some, base) for some in own.values())


def peak_bytes(
    base: Checkpoint,
    roles: Mapping[str, TensorRole],
    kinds: Collection[str],
    read_by: Sequence[Tokenised],
) -> int:
    """Reckon the memory that observing takes; see ``observation_bytes``.

    Args:
        base: Whose config all share.
        roles: Tensors that the live model holds, by name.
        kinds: What is observed.
        read_by: What each expert reads.
    """
    readings = [reading for one in read_by for reading in one.readings]
    dtype = model_dtype(base, roles)
    cut = {_run_as(kind) for kind in kinds if kind != PROPAGATED}
    model = empty_model(base.config, dtype)
    if PROPAGATED not in kinds or model is None:
        return observation_bytes(base, dtype, cut, readings)
    n, forms = len(read_by), OBSERVATIONS[_run_as(PROPAGATED)].forms(model, tuple(roles))
    live = sum(parameter.nbytes for parameter in model.parameters())
    merging = max(regression_bytes(base.shape(name), n) for name in forms)
    held = n * largest_stage(forms, roles)
    return max(live + merging, observation_bytes(base, dtype, cut, readings, held))


def disk_bytes(base: Checkpoint, names: Collection[str], kinds: Collection[str]) -> int:
    """Tell what is kept of one expert; of merged layers' outputs, each time they differ."""
    dtype = model_dtype(base, names)
    return sum(kept_bytes(base, dtype, [_run_as(kind)]) for kind in kinds)


class _Live:
    """A live model that is loaded when first needed, and filled with one expert at a time."""

    def __init__(self, make: Callable[[], tuple[PreTrainedModel, dict[str, torch.Tensor]]]) -> None:
        self._make = make
        self._holds: TensorSource | None = None

    @cached_property
    def _made(self) -> tuple[PreTrainedModel, dict[str, torch.Tensor]]:
        return self._make()

    @property
    def model(self) -> PreTrainedModel:
        return self._made[0]

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        return self._made[1]

    @torch.no_grad()
    def fill(self, expert: TensorSource) -> None:
        if self._holds is not expert:
            for name, view in self.tensors.items():
                view.copy_(expert.tensor(name))
            self._holds = expert


def _run_as(kind: str) -> Any:
    """Name what a pass accumulates for a kind."""
    return "input_gram" if kind == PROPAGATED else kind


def _tensor(file: Any, name: str) -> torch.Tensor | None:
    return file.get_tensor(name) if name in file.keys() else None  # noqa: SIM118
