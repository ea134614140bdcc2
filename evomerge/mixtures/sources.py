"""Base and experts of a mixture, and which tensor of theirs each of its own is."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch

from evomerge.errors import CheckpointError, Fault, collected
from evomerge.mixtures.file import MixtureFile
from evomerge.mixtures.kinds import PROJECTIONS, MixtureKind, kind_for
from evomerge.models.checkpoint import Checkpoint, is_one_tensor, model_dtype
from evomerge.models.expert import TensorSource, open_expert
from evomerge.models.loading import Loading, read_loading
from evomerge.models.opening import OpenModel, open_model
from evomerge.models.spelling import OneSpelling
from evomerge.models.writer import TensorForm

__all__ = ["Lent", "MixtureSources"]

_FEED_FORWARD = re.compile(rf"model\.layers\.(\d+)\.mlp\.({'|'.join(PROJECTIONS)})\.weight")


@dataclass(frozen=True)
class Lent:
    """A stored tensor of a mixture that a model of its own lends.

    Attributes:
        name: The lender's name for it.
        expert: Position among all experts, the shared ones last; ``None``: the base.
        is_output: Whether it writes an expert's output.
    """

    name: str
    expert: int | None = None
    is_output: bool = False


class MixtureSources:
    """The models of a mixture, opened; headers are read only.

    Vocabularies may differ: the base's is used.

    Args:
        file: Which they are.
        open_full: Opens the full models.

    Raises:
        ConfigError: No architecture of mixtures is made of such models.
        CheckpointError: Listing every model that is missing or does not fit the base.
    """

    def __init__(self, file: MixtureFile, open_full: OpenModel = open_model) -> None:
        faults: list[Fault] = []
        spelling, self.file = OneSpelling(open_full), file
        with collected(faults, "base_model"):
            self.base = spelling(str(file.base_model))
        if faults:
            raise CheckpointError(*faults)
        self.kind: MixtureKind = kind_for(file, str(self.base.config.get("model_type")))
        self.experts: list[TensorSource] = []
        for key in ("experts", "shared_experts"):
            for i, expert in enumerate(getattr(file, key)):
                with collected(faults, key, i, "source_model"):
                    found = open_expert(expert.source_model, self.base, spelling)
                    self._check(found.layout)
                    self.experts.append(found)
        faults += self._unheld()
        if faults:
            raise CheckpointError(*faults)

    @cached_property
    def live(self) -> Mapping[str, str]:
        """The base's name of each tensor that its live model has, of tied ones the first."""
        return {n: own for n, own in self._own.items() if not (self.is_tied and n in self._tied)}

    @cached_property
    def is_tied(self) -> bool:
        """Whether head and embedding are one tensor, by the base's config and in its files."""
        is_said = bool(self.base.config.get("tie_word_embeddings", False))
        return is_said and all(
            is_one_tensor(self.base, self._own[one], self._own[other])
            for one, other in self._tied.items()
        )

    @cached_property
    def feed_forward(self) -> Mapping[tuple[int, str], str]:
        """The base's name of each matrix that experts have in its place, by layer and kind."""
        found = {live: match for live in self.live if (match := _FEED_FORWARD.fullmatch(live))}
        return {(int(m[1]), m[2]): self.live[live] for live, m in found.items()}

    @property
    def n_layers(self) -> int:
        """How many layers have experts: all."""
        return 1 + max(layer for layer, _ in self.feed_forward)

    @property
    def has_bias(self) -> bool:
        """Whether projections of attention have biases."""
        return any(name.endswith("_proj.bias") for name in self.live)

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""
        return self.base.shape(self.feed_forward[0, "up_proj"])[1]

    @property
    def dtype(self) -> torch.dtype:
        """Of the mixture: the one that is named, else that of the base."""
        if self.file.dtype is not None:
            named: torch.dtype = getattr(torch, self.file.dtype)
            return named
        return model_dtype(self.base, self.live.values())

    @cached_property
    def parts(self) -> Mapping[str, Lent]:
        """What is lent, by the mixture's name, layer by layer; routers are nobody's."""
        replaced = set(self.feed_forward.values())
        found = {n: Lent(own) for n, own in self.live.items() if own not in replaced}
        for (layer, projection), name in self.feed_forward.items():
            is_output = projection == PROJECTIONS[-1]
            for i in range(len(self.file.experts)):
                found[self.kind.expert(layer, i, projection)] = Lent(name, i, is_output)
            for i in range(len(self.file.experts), len(self.experts)):
                found[self.kind.shared(layer, projection)] = Lent(name, i, is_output)
        return found

    @cached_property
    def router_forms(self) -> Mapping[str, TensorForm]:
        """Routers by name: (experts, hidden), and (1, hidden) of a shared expert."""
        rows = {self.kind.router: len(self.file.experts)}
        if self.kind.n_shared:
            rows[self.kind.shared_gate] = self.kind.n_shared
        return {
            name_of(layer): TensorForm(self.dtype, (n, self.hidden_size))
            for layer in range(self.n_layers)
            for name_of, n in rows.items()
        }

    @cached_property
    def forms(self) -> Mapping[str, TensorForm]:
        """Every tensor of the mixture."""
        shapes = {name: self.base.shape(part.name) for name, part in self.parts.items()}
        lent = {name: TensorForm(self.dtype, shape) for name, shape in shapes.items()}
        return lent | dict(self.router_forms)

    @property
    def n_parameters(self) -> tuple[int, int]:
        """How many parameters there are, and how many of them a token meets."""
        sizes = {name: math.prod(form.shape) for name, form in self.forms.items()}
        n, taken = len(self.file.experts), self.file.experts_per_token
        chosen = sum(sizes[name] for name, p in self.parts.items() if p.expert in range(n))
        total = sum(sizes.values())
        return total, total - chosen + chosen // n * taken

    @cached_property
    def _loading(self) -> Loading:
        loading = read_loading(self.base.config, self.base.names)
        assert loading is not None, "transformers knows what mixtures are made of"
        return loading

    @cached_property
    def _own(self) -> Mapping[str, str]:
        return {live: name for name, live in self._loading.live.items()}

    @cached_property
    def _tied(self) -> Mapping[str, str]:
        pairs = self._loading.tied.items()
        return {name: other for name, other in pairs if {name, other} <= self._own.keys()}

    def _check(self, layout: Checkpoint) -> None:
        """Make sure that a model's feed-forward layers can stand in for the base's."""
        for key in ("model_type", "hidden_act", "num_hidden_layers"):
            wanted, got = (model.config.get(key) for model in (self.base, layout))
            if wanted != got:
                raise CheckpointError(
                    f"expected {key} {wanted} as in {self.base.folder}, got {got} in "
                    f"{layout.folder}; models must share their architecture"
                )
        for name in self.feed_forward.values():
            wanted = self.base.shape(name)
            got = layout.shape(name) if name in layout else "no such tensor"
            if got != wanted:
                raise CheckpointError(
                    f"expected {name} of shape {wanted} as in {self.base.folder}, got {got} in "
                    f"{layout.folder}; models must share their architecture"
                )

    def _unheld(self) -> Iterator[Fault]:
        biases = [name for name in self.live if name.endswith(".bias")]
        unheld = [name for name in biases if not self.kind.holds_bias(name)]
        if unheld:
            text = f"expected a model without biases that {self.kind.name} has no place for"
            yield Fault(("base_model",), f"{text}, got {len(unheld)}, e.g. {unheld[0]}")
        if self.base.config.get("use_sliding_window") and not self.kind.mixes_windows:
            text = f"expected a model without sliding windows for {self.kind.name}"
            yield Fault(("base_model",), f"{text}, got use_sliding_window: true")
