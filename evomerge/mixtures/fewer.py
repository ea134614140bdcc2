"""A mixture with fewer experts: those that are used alike are merged (M-SMoE).

Source: Li et al. 2023, arXiv:2310.01334. Routers are those of the dominant experts alone: stock
transformers has none that sends several rows to one expert.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch

from evomerge.alignment.matching import Orders, matched
from evomerge.alignment.placing import placed
from evomerge.alignment.weights import weight_likeness
from evomerge.errors import ConfigError, Fault, collected
from evomerge.fingerprint import digest_of, fingerprint
from evomerge.merging.folder import SHARD_BYTES
from evomerge.merging.output import WRITTEN, ModelFolder, claim_folder, write_model
from evomerge.merging.watched import N_PROMPTS, watched
from evomerge.mixtures.groups import ExpertGroup, expert_groups
from evomerge.mixtures.routed import RoutedExperts, RoutedTensor
from evomerge.models.opening import open_model
from evomerge.models.reference import absolute_reference, relative_reference
from evomerge.models.writer import TensorForm
from evomerge.observation.examples import Example, read_examples
from evomerge.observation.routers import routing
from evomerge.schema import write_yaml

__all__ = ["FewerExperts", "FewerWritten", "write_fewer"]


@dataclass(frozen=True, kw_only=True)
class FewerExperts:
    """What is wanted.

    Attributes:
        model: The mixture.
        prompts: File of prompts on which its routers are watched (``read_examples``).
        experts: How many each layer shall have.
        limit: How many prompts are read, from the start.
    """

    model: str
    prompts: str
    experts: int
    limit: int = N_PROMPTS


@dataclass(frozen=True)
class FewerWritten:
    """What there is to say of the mixture on disk.

    Attributes:
        groups: Of each layer that has experts.
        n_before: Parameters of the mixture that was given.
        n_parameters: Of this one.
        is_louder: Whether chosen experts weigh more than before: weights come of a softmax over
            fewer of them, and are not made to add up to 1.
    """

    groups: tuple[tuple[ExpertGroup, ...], ...]
    n_before: int
    n_parameters: int
    is_louder: bool


def write_fewer(
    wanted: FewerExperts,
    out: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> FewerWritten:
    """Write a mixture with fewer experts as an ordinary Hugging Face folder.

    In each layer the most used experts stay, and each other one is merged into the one that routers
    score most alike. Memory: the model while it reads the prompts; then one stored tensor, and what
    the aligner takes. What was interrupted continues after its last complete file.

    Args:
        wanted: What is written.
        out: Folder; created if needed. An earlier merge in it is replaced.
        shard_bytes: Largest size of one safetensors file.
        progress: Called with (tensors done, tensors in all).

    Raises:
        ConfigError: There are no prompts, or experts cannot be as many.
        CheckpointError: The model is missing or no mixture that is known; or the folder cannot be
            written.
        NonFiniteError: A tensor holds NaN or infinity.
    """
    experts, examples = _opened(wanted)
    checkpoint, prompts = experts.checkpoint, Path(wanted.prompts)
    digest = digest_of("fewer experts", asdict(wanted), fingerprint(prompts))
    claim_folder(out, digest, checkpoint.files, shard_bytes)
    merged = _Merged(experts, _groups(experts, examples, wanted.experts))
    model = ModelFolder(
        merged.forms,
        merged.tensor,
        checkpoint.companions,
        experts.config(wanted.experts),
        _text(wanted, merged.groups, out),
        f"{wanted.model} holds them",
    )
    write_model(out, model, shard_bytes, progress)
    before = sum(math.prod(shape) for shape in checkpoint.shapes().values())
    n_parameters = sum(math.prod(form.shape) for form in merged.forms.values())
    is_louder = wanted.experts < experts.n and not experts.is_normed
    return FewerWritten(tuple(merged.groups.values()), before, n_parameters, is_louder)


def _opened(wanted: FewerExperts) -> tuple[RoutedExperts, tuple[Example, ...]]:
    faults: list[Fault] = []
    with collected(faults, "prompts"):
        examples = read_examples(Path(wanted.prompts), wanted.limit)
    with collected(faults, "model"):
        experts = RoutedExperts(open_model(wanted.model))
        if not experts.n_taken <= wanted.experts <= experts.n:
            text = f"expected from {experts.n_taken}, to which each token is sent, to the "
            text += f"{experts.n} that {wanted.model} has, got {wanted.experts}"
            faults.append(Fault(("experts",), text))
    if faults:
        raise ConfigError(*faults)
    return experts, examples


def _groups(
    experts: RoutedExperts, examples: tuple[Example, ...], n: int
) -> dict[str, tuple[ExpertGroup, ...]]:
    """Watch the routers, and group the experts of each layer."""
    checkpoint = experts.checkpoint
    found = routing(watched(checkpoint, checkpoint.names, examples, like=checkpoint))
    per_layer = zip(experts.layers, found.usage, found.likeness, strict=True)
    return {layer: expert_groups(usage, alike, n) for layer, usage, alike in per_layer}


@dataclass(frozen=True, eq=False)
class _Merged:
    """Hands out the tensors of the mixture with fewer experts."""

    experts: RoutedExperts
    groups: Mapping[str, tuple[ExpertGroup, ...]]

    @cached_property
    def forms(self) -> dict[str, TensorForm]:
        """Every tensor, layer by layer as in the files."""
        checkpoint = self.experts.checkpoint
        return {
            name: TensorForm(checkpoint.dtype(name), self._shape(name))
            for name in checkpoint.names
            if name not in self._routed or self._stays(self._routed[name])
        }

    def tensor(self, name: str) -> torch.Tensor:
        routed = self._routed.get(name)
        return self.experts.checkpoint.tensor(name) if routed is None else self._merged(routed)

    @property
    def _routed(self) -> Mapping[str, RoutedTensor]:
        return self.experts.tensors

    def _stays(self, tensor: RoutedTensor) -> bool:
        return tensor.expert is None or tensor.expert < len(self.groups[tensor.at])

    def _shape(self, name: str) -> tuple[int, ...]:
        shape, routed = self.experts.checkpoint.shape(name), self._routed.get(name)
        if routed is None or routed.expert is not None:
            return shape
        return (len(self.groups[routed.at]), *shape[1:])

    def _merged(self, tensor: RoutedTensor) -> torch.Tensor:
        groups = self.groups[tensor.at]
        if tensor.part is None:
            dominant = [group.dominant for group in groups]
            return self.experts.checkpoint.tensor(tensor.name)[dominant]
        if tensor.expert is not None:
            return self._average(tensor.at, groups[tensor.expert], tensor.part)
        return torch.stack([self._average(tensor.at, group, tensor.part) for group in groups])

    def _average(self, layer: str, group: ExpertGroup, part: str) -> torch.Tensor:
        """Average one matrix of a group's experts, their neurons where the dominant has its own."""
        units = self.experts.units(layer)
        own = self.experts.parts(layer, group.dominant)[part]
        total = own.to(dtype := torch.promote_types(own.dtype, torch.float32))
        total = total * group.shares[group.dominant]
        for expert, share in self._others(group):
            orders = self._orders(layer, group.dominant, expert)
            maps = [None if a is None else torch.from_numpy(orders[a]) for a in units.axes[part]]
            total += share * placed(self.experts.parts(layer, expert)[part].to(dtype), maps)
        return total.to(own.dtype)

    @staticmethod
    def _others(group: ExpertGroup) -> Iterator[tuple[int, float]]:
        return ((i, s) for i, s in group.shares.items() if s and i != group.dominant)

    def _orders(self, layer: str, dominant: int, expert: int) -> Orders:
        """Say which neuron of an expert goes where; found once for its matrices."""
        if (layer, expert) not in self._found:
            units = self.experts.units(layer)
            ours, theirs = (self.experts.parts(layer, i) for i in (dominant, expert))
            alike = weight_likeness(units, ours.__getitem__, theirs.__getitem__, units.sizes)
            self._found[layer, expert] = matched(units, units.groups, alike)
        return self._found[layer, expert]

    @cached_property
    def _found(self) -> dict[tuple[str, int], Orders]:
        return {}


def _text(wanted: FewerExperts, groups: Mapping[str, tuple[ExpertGroup, ...]], out: Path) -> str:
    """Write what was done, so that it can be done again."""
    places = (wanted.model, str(Path(wanted.prompts).absolute()))
    model, prompts = (relative_reference(absolute_reference(p, Path.cwd()), out) for p in places)
    merged = {
        layer.rstrip("."): [{"dominant": g.dominant, "experts": list(g.shares)} for g in own]
        for layer, own in groups.items()
    }
    content = {**asdict(wanted), "model": model, "prompts": prompts, "groups": merged}
    command = "evomerge fewer-experts MODEL --experts N --prompts FILE --out DIR"
    return write_yaml(content, f"{WRITTEN}\n{command}")
