"""Each encoding by example."""

from __future__ import annotations

from typing import Any

import optuna

from evomerge.space.protocol import Params
from tests.space.dataflow.spaces import SPACES, space


def path(content: dict[str, Any], **changes: float | str) -> list[str]:
    """Decode the defaults with some changes, e.g. ``slot_2="skip"`` for the gene ``slot.2``."""
    found = space(content)
    changed = {name.replace("_", "."): value for name, value in changes.items()}
    params = {**found.defaults, **changed}
    assert set(changed) <= set(found.defaults)
    return [f"{hop.source} {hop.layer}" for hop in found.recipe(params).path]


def suggested(content: dict[str, Any], **changes: float | str) -> Params:
    found = space(content)
    changed = {name.replace("_", "."): value for name, value in changes.items()}
    return found.suggest(optuna.trial.FixedTrial({**found.defaults, **changed}))  # type: ignore[arg-type]


def test_a_slot_visits_its_sources_in_order_or_nobody() -> None:
    got = path(SPACES["slots"], slot_1="math>list", slot_2="skip", slot_3="list")
    assert got == ["math 0", "math 1", "math 2", "list 2", "list 4", "math 5"]


def test_slots_without_pairs_visit_one_source_or_nobody() -> None:
    found = space(SPACES["slots"] | {"encoding": {"name": "slots", "pairs": False}})
    assert found.distributions["slot.0"].choices == ("math", "list", "skip")  # type: ignore[attr-defined]


def test_scales_of_slots_that_are_off_are_inactive() -> None:
    params = suggested(SPACES["slots"], slot_1="math>list", slot_2="skip")
    scales = [name for name in params if name.startswith("scale")]
    assert scales == [f"scale.{at}" for at in ("first", "1.0", "2.0", "2.1", "4.0", "last")]


def test_slots_beyond_the_cap_are_inactive() -> None:
    content = SPACES["slots"] | {"max_hops": 5}
    params = suggested(content, slot_0="math>list")
    assert [name for name in params if name.startswith("slot")] == ["slot.0"]


def test_scales_by_position_follow_the_path() -> None:
    content = SPACES["slots"] | {"scale": {"per": "hop"}}
    params = suggested(content, slot_0="skip", slot_1="skip")
    assert [n for n in params if n.startswith("scale")] == [f"scale.{i}" for i in range(4)]


def test_neighbouring_layers_of_a_slot_stay_together() -> None:
    content = SPACES["slots"] | {"encoding": {"name": "slots", "layers_per_slot": 2}}
    got = path(content, slot_0="math>list", slot_1="skip")
    assert got == ["math 0", "math 1", "math 2", "list 1", "list 2", "math 5"]


def test_a_threshold_visits_what_is_positive_in_the_order_of_the_layout() -> None:
    off = {f"include_0_math_{layer}": -1.0 for layer in range(6)}
    on = {"include_1_math_2": 0.1, "include_0_list_5": 0.2, "include_0_math_0": 0.3}
    got = path(SPACES["threshold"], **{**off, **on})
    assert got == ["math 0", "math 0", "list 5", "math 2", "math 5"]


def test_a_full_threshold_path_keeps_the_strongest_indicators() -> None:
    changes = {"include_0_list_1": 0.9, "include_0_list_3": 0.8, "include_2_list_3": 0.7}
    got = path(SPACES["threshold, tight"], **changes)
    assert got == ["math 0", "list 1", "list 3", "list 3", "math 5"]


def test_the_paper_has_one_indicator_per_repeated_layer() -> None:
    genes = space(SPACES["threshold"]).distributions
    assert sum(name.startswith("include") for name in genes) == 2 * 2 * 6


def test_a_permutation_orders_what_is_included() -> None:
    content = SPACES["permutation"]
    both = {"include_0_list": "on", "include_0_math": "on", "include_1_list": "off"}
    rest = ["list 3", "list 4", "list 5"]
    assert path(content, **both, order_0_2="1>2") == ["list 0", "math 1", "list 1", *rest]
    assert path(content, **both, order_0_2="2>1") == ["list 0", "list 1", "math 1", *rest]


def test_the_order_of_a_single_source_is_inactive() -> None:
    assert "order.0.2" not in suggested(SPACES["permutation"])


def test_slices_run_through_layers_and_end_with_their_model() -> None:
    content = SPACES["slices"]
    got = path(content, length_0=2, length_1=3, first_1=4, source_1="list")
    assert got == ["math 0", "math 1", "math 2", "list 4", "list 5", "math 5"]


def test_a_slice_without_layers_has_no_other_genes() -> None:
    params = suggested(SPACES["slices"], length_0=0)
    assert "first.0" not in params
    assert "source.0" not in params


def test_depth_upscaling_starts_at_overlapping_halves() -> None:
    content = SPACES["slices"] | {
        "scale": None,
        "initial": [
            {"layers": [0, 0.5]},
            {"layers": [0.5, 1.0], "source": "list"},
            {"layers": [0.5, 1.0]},
        ],
    }
    assert path(content) == [
        *("math 0", "math 1", "math 2"),
        *("list 3", "list 4", "list 5"),
        *("math 3", "math 4", "math 5"),
    ]
