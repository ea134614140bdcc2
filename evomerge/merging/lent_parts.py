"""Parts of a model of vision and language that are not merged but taken from one of its models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from evomerge.errors import Fault
from evomerge.models.expert import TensorSource
from evomerge.models.parts import OTHER_PARTS, OtherPart, PartsChoice
from evomerge.models.roles import LANGUAGE_KINDS, Kind, TensorRole

__all__ = ["LentParts", "lent_parts"]


@dataclass(frozen=True)
class LentParts:
    """Which model lends which tensors.

    Attributes:
        lenders: By part, the model's name.
        tensors: By tensor, the model's name.
        reasons: By part, why it is not merged.
    """

    lenders: Mapping[OtherPart, str] = field(default_factory=dict)
    tensors: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[OtherPart, str] = field(default_factory=dict)

    def notes(self, sizes: Mapping[Kind, int]) -> tuple[str, ...]:
        """Say what becomes of each part, in one line.

        Args:
            sizes: Tensors of a merge, by kind.

        Returns:
            Nothing for models that have no other part than a language tower.
        """
        language = sum(n for kind, n in sizes.items() if kind in LANGUAGE_KINDS)
        others = [part for part in OTHER_PARTS if sizes.get(part)]
        lines = [f"language: {language} tensors merged"] if others else []
        for part in others:
            lender = self.lenders.get(part)
            how = "merged" if lender is None else f"of {lender} ({self.reasons[part]})"
            lines.append(f"{part}: {sizes[part]} tensors {how}")
        return tuple(lines)


def lent_parts(
    models: Mapping[str, TensorSource],
    roles: Mapping[str, TensorRole],
    choice: PartsChoice | None,
    faults: list[Fault],
) -> LentParts:
    """Find what is taken as it is: what was asked for, and what some model has not.

    Args:
        models: The base under ``base``, if there is one, and the experts by name. The first has
            all tensors.
        roles: Of its tensors.
        choice: What is asked for.
        faults: Takes what is wrong with it.
    """
    choice = choice or PartsChoice()
    sizes = Counter(role.kind for role in roles.values())
    if wrong := [*choice.faults(tuple(models)), *_absent_faults(choice, sizes)]:
        faults += [fault.under("parts") for fault in wrong]
        return LentParts()
    if not any(sizes[part] for part in OTHER_PARTS):
        return LentParts()
    lenders: dict[OtherPart, str] = {}
    reasons: dict[OtherPart, str] = {}
    for part in filter(sizes.__getitem__, OTHER_PARTS):
        names = [name for name, role in roles.items() if role.kind == part]
        without = [name for name, m in models.items() if not any(n in m.layout for n in names)]
        lender = choice.donor(part) or (next(iter(models)) if without else None)
        if lender is None:
            continue
        lenders[part] = lender
        is_chosen = choice.donor(part) is not None
        reasons[part] = "as chosen" if is_chosen else f"{', '.join(without)} without"
        faults += [f.under("parts", part) for f in _lender_faults(models, lender, names)]
    tensors = {name: lenders[role.kind] for name, role in roles.items() if role.kind in lenders}
    return LentParts(lenders, tensors, reasons)


def _absent_faults(choice: PartsChoice, sizes: Mapping[str, int]) -> Iterator[Fault]:
    for part in choice.as_data():
        if not sizes[part]:
            yield Fault((part,), f"expected a model with a {part} part, got none that is known")


def _lender_faults(
    models: Mapping[str, TensorSource], lender: str, names: list[str]
) -> Iterator[Fault]:
    """Make sure that a model has a part in the form that the first model has it in."""
    anchor, layout = next(iter(models.values())).layout, models[lender].layout
    missing = [name for name in names if name not in layout]
    if missing:
        text = f"expected a model with {missing[0]}, got {lender}, which has it not"
        yield Fault((), text, "name a model of vision and language, or leave the key out")
        return
    for name in names:
        if layout.shape(name) != anchor.shape(name):
            text = f"expected {name} of shape {anchor.shape(name)}, got {layout.shape(name)} in "
            yield Fault((), f"{text}{lender}", "make that model the base")
            return
