"""A model with the vocabulary of another one, as a folder that plain transformers loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from evomerge.errors import CheckpointError, ConfigError, Fault, collected
from evomerge.fingerprint import digest_of
from evomerge.merging.folder import SHARD_BYTES
from evomerge.merging.output import WRITTEN, ModelFolder, claim_folder, write_model
from evomerge.models.companions import Companions
from evomerge.models.opening import open_model
from evomerge.models.reference import absolute_reference, relative_reference
from evomerge.models.writer import TensorForm
from evomerge.schema import write_yaml
from evomerge.transplants.tables import ApproximationMethod, NewTables, VocabularyTables
from evomerge.transplants.tokens import TokenMatch

__all__ = ["Transplant", "Transplanted", "write_transplant"]

_Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Transplant:
    """Which model gets which tokens, and how.

    Attributes:
        donor: The model whose vocabulary is taken.
        model: The model that gets it.
        approximation_method: How tokens that the model lacks are made of shared ones: ``omp``,
            orthogonal matching pursuit; ``common_interpolation``, the nearest ones.
        k: Of how many shared tokens, at most.
        chat_template: Whose chat template, special tokens and generation settings it has.
    """

    donor: str
    model: str
    approximation_method: ApproximationMethod = "omp"
    k: int = 64
    chat_template: Literal["donor", "model"] = "donor"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"expected k of at least 1, got {self.k}")


@dataclass(frozen=True)
class Transplanted:
    """What there is to say of a transplant.

    Attributes:
        match: Which rows are which.
        errors: See ``NewTables``; empty where no token is missing, or an earlier run made them.
    """

    match: TokenMatch
    errors: Mapping[str, float]

    def __str__(self) -> str:
        match = self.match
        parts = [f"{match.n_rows} rows", f"{match.shared.shape[1]} of shared tokens as they are"]
        if match.roles:
            pairs = ", ".join(f"{own} for {token}" for token, own in match.roles.items())
            parts.append(f"{len(match.roles)} by role ({pairs})")
        if n := len(match.missing):
            errors = ", ".join(f"{error:.3f} in {name}" for name, error in self.errors.items())
            parts.append(f"{n} approximated" + (f" (mean relative error {errors})" * bool(errors)))
        if n := len(match.padding):
            parts.append(f"{n} of padding")
        return ", ".join(parts)


def write_transplant(
    transplant: Transplant,
    out: Path,
    *,
    device: str = "cpu",
    shard_bytes: int = SHARD_BYTES,
    approximating: _Progress = lambda done, total: None,
    writing: _Progress = lambda done, total: None,
) -> Transplanted:
    """Write a model with the vocabulary of another one as an ordinary Hugging Face folder.

    Memory: the donor's and the model's shared rows, the new ones, and half a GB beside. What was
    interrupted continues after its last complete shard.

    Args:
        transplant: What to write.
        out: Folder; created if needed. An earlier merge in it is replaced.
        device: Where missing tokens are approximated, as torch names it.
        shard_bytes: Largest size of one safetensors file.
        approximating: Called with (tokens done, tokens in all), for each of the donor's tables.
        writing: Called with (tensors done, tensors in all).

    Raises:
        CheckpointError: A model is missing or has no tokens that can be read; the two have none in
            common; or the folder cannot be written.
        NonFiniteError: A tensor holds NaN or infinity.
    """
    _check(device)
    tables = _opened(transplant)
    donor, model = tables["donor"], tables["model"]
    new = NewTables(
        donor,
        model,
        method=transplant.approximation_method,
        k=transplant.k,
        device=device,
        progress=approximating,
    )
    written = _Written(transplant, donor, model, new)
    files = dict.fromkeys([*donor.files, *model.files])
    companions, config = written.described()
    claim_folder(out, digest_of("transplant", asdict(transplant)), files, shard_bytes)
    folder = ModelFolder(
        written.forms,
        written.tensor,
        companions,
        config,
        _text(transplant, out),
        f"they are in {model.model.folder}, or in rows made of those of {donor.model.folder}",
    )
    write_model(out, folder, shard_bytes, writing)
    return Transplanted(new.match, new.errors)


def _check(device: str) -> None:
    try:
        torch.empty(1, device=device).item()
    except (RuntimeError, AssertionError) as err:  # unknown, or not on this machine
        reason = str(err).partition("\n")[0]
        raise ConfigError(
            f"expected a device that torch has here, got {device!r}: {reason}"
        ) from err


def _opened(transplant: Transplant) -> dict[str, VocabularyTables]:
    faults: list[Fault] = []
    found = {}
    for key in ("donor", "model"):
        with collected(faults, key):
            found[key] = VocabularyTables(open_model(getattr(transplant, key)))
    if faults:
        raise CheckpointError(*faults)
    return found


@dataclass(frozen=True)
class _Written:
    """What the folder holds."""

    transplant: Transplant
    donor: VocabularyTables
    model: VocabularyTables
    new: NewTables

    @property
    def forms(self) -> dict[str, TensorForm]:
        checkpoint = self.model.model
        return {
            name: TensorForm(
                checkpoint.dtype(name),
                self.new.shape(name) if name in self.model.kinds else checkpoint.shape(name),
            )
            for name in checkpoint.names
        }

    def tensor(self, name: str) -> torch.Tensor:
        is_new = name in self.model.kinds
        return self.new.table(name) if is_new else self.model.model.tensor(name)

    def described(self) -> tuple[Path, dict[str, Any]]:
        """Return a folder with the tokenizer and what goes with it, and the config."""
        tokens, n = self.donor.vocabulary.tokens, self.donor.n_rows
        try:
            config = self._companions.config(self.model.model.config, tokens, n)
            return self._companions.folder(tokens), config
        except CheckpointError as err:
            hint = "choose a donor that has it"
            if self.transplant.chat_template == "model":
                hint = "take the chat template of the donor, if it has one"
            faults = (replace(fault, path=("chat_template",), hint=hint) for fault in err.faults)
            raise CheckpointError(*faults) from err

    @property
    def _companions(self) -> Companions:
        own, donor = self.model.model.companions, self.donor.model.companions
        return Companions(
            own, donor, (), donor if self.transplant.chat_template == "donor" else own
        )


def _text(transplant: Transplant, out: Path) -> str:
    """Write what was done, so that it can be done again."""
    names = (str(absolute_reference(m, Path.cwd())) for m in (transplant.donor, transplant.model))
    donor, model = (relative_reference(name, out) for name in names)
    content = {**asdict(transplant), "donor": donor, "model": model}
    return write_yaml(content, f"{WRITTEN}\nevomerge transplant DONOR MODEL --out DIR")
