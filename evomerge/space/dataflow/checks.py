"""What can be wrong with a path spec, found before any model is loaded."""

from __future__ import annotations

from collections.abc import Iterator

from evomerge.recipe.path import LARGEST_SCALE
from evomerge.space.dataflow.genes import PathGenes, initial_path
from evomerge.space.dataflow.slots import Slots, sources_of
from evomerge.space.dataflow.spec import PathSpec, Run, ScaleSpec

__all__ = ["path_faults"]


def path_faults(
    spec: PathSpec, *, known: tuple[str, ...], default: tuple[str, ...], n_layers: int
) -> list[str]:
    """List every fault of a path, one line each; empty if all is well.

    Args:
        spec: The path.
        known: Every source there is.
        default: Sources if the spec names none.
        n_layers: Layers of the models.
    """
    sources = spec.named_sources(default)
    faults = [*_name_faults("sources", sources, known)]
    faults += _name_faults("owner", spec.owner, known)
    if isinstance(spec.encoding, Slots) and spec.encoding.choices:
        faults += _choice_faults(spec.encoding, sources)
    least = spec.least_limit(default)
    if spec.max_hops is not None and spec.max_hops < least:
        faults.append(
            f"max_hops: expected at least {least} (the first and the last layer, and the most "
            f"between them that belong together), got {spec.max_hops}"
        )
    if spec.scale is not None:
        faults += _scale_faults(spec.scale)
    if not faults and spec.initial:
        faults += _run_faults(spec.initial, known) or _initial_faults(spec, default, n_layers)
    return faults


def _name_faults(where: str, names: tuple[str, ...], known: tuple[str, ...]) -> Iterator[str]:
    for name in dict.fromkeys(names):
        if name not in known:
            yield f"{where}: expected names out of {', '.join(known)}, got {name!r}"
        if names.count(name) > 1:
            yield f"{where}: expected each name once, got {name!r} {names.count(name)} times"


def _choice_faults(options: Slots, sources: tuple[str, ...]) -> Iterator[str]:
    where = "encoding.choices"
    choices = options.all_choices(sources)
    meanings = [sources_of(choice) for choice in choices]
    for choice, visited in zip(choices, meanings, strict=True):
        if strange := [name for name in visited if name not in sources]:
            yield (
                f"{where}: expected 'skip' or names joined by '>' out of {', '.join(sources)}, "
                f"got {strange[0]!r} in {choice!r}"
            )
        if meanings.count(visited) > 1:
            yield f"{where}: expected each choice once, got {choice!r} more often"


def _scale_faults(scale: ScaleSpec) -> Iterator[str]:
    low, high = scale.range
    if not 0 < low <= 1 <= high or low == high:
        yield (
            "scale.range: expected [low, high] with 0 < low <= 1 <= high, as 1 leaves a layer as "
            f"it is, got [{low:g}, {high:g}]; 'scale: null' has no scales"
        )
    if not 1 < scale.limit <= LARGEST_SCALE:
        yield f"scale.limit: expected more than 1, at most {LARGEST_SCALE:g}, got {scale.limit:g}"


def _run_faults(runs: tuple[Run, ...], known: tuple[str, ...]) -> list[str]:
    faults = []
    for i, run in enumerate(runs):
        start, stop = run.layers
        if not 0 <= start < stop <= 1:
            faults.append(
                f"initial.{i}.layers: expected two shares of the depth, 0 <= first < last <= 1, "
                f"got [{start:g}, {stop:g}]"
            )
        if run.source is not None:
            faults += _name_faults(f"initial.{i}.source", (run.source,), known)
    return faults


def _initial_faults(spec: PathSpec, default: tuple[str, ...], n_layers: int) -> Iterator[str]:
    owner = spec.owners(default)[0]
    path = initial_path(spec.initial, owner, n_layers)
    ends = [(path[i].source, path[i].layer) for i in (0, -1)] if path else []
    if ends != [(owner, 0), (owner, n_layers - 1)]:
        yield f"initial: expected runs from the first to the last layer of the owner {owner!r}"
    elif PathGenes(spec, default, n_layers).values(owner, path) is None:
        yield (
            f"initial: expected a path that the encoding {spec.encoding.name!r} and max_hops "
            f"allow, got one of {len(path)} layers that they do not"
        )
