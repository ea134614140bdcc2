"""Prepared task vectors in merges: once for all processes, in exports, slopes and modifiers."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from evomerge.cache import trim_cache
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.feeding import make_supply
from evomerge.merging.folder import write_checkpoint
from evomerge.merging.lowering import PlannedTensor, lower_tensor
from evomerge.merging.prepared import PREPARED
from evomerge.merging.sources import Sources
from evomerge.methods.prepared import Preparation
from evomerge.models.reference import AdapterRef
from evomerge.recipe.recipe import Recipe, Rule
from tests.merging.test_experts import UP, save_adapter

Family = dict[str, Path]
COEFFICIENTS = {"one": 0.3, "two": 0.9}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / PREPARED


def recipe(family: Family, rule: Rule | None = None) -> Recipe:
    rule = rule or Rule("tsv_m", {"coefficient": COEFFICIENTS, "lambda": 0.5})
    experts = {name: str(family[name]) for name in ("one", "two")}
    return Recipe(experts, (rule,), base=str(family["base"]), dtype="float32")


def opened(wanted: Recipe) -> Sources:
    return Sources(wanted.base, wanted.experts)


def live(wanted: Recipe) -> dict[str, torch.Tensor]:
    candidate = LiveCandidate(opened(wanted), "float32")
    candidate.materialise(wanted)
    return {name: tensor.clone() for name, tensor in candidate.tensors.items()}


def plain(family: Family, name: str) -> torch.Tensor:
    """TSV-M of two experts with the coefficients above, as the paper writes it."""
    base, one, two = (
        load_file(family[n] / "model.safetensors")[name].double() for n in ("base", "one", "two")
    )
    taus = [one - base, two - base]
    if base.ndim != 2:
        return base + 0.5 * (0.3 * taus[0] + 0.9 * taus[1]) / 2
    rank = min(base.shape) // 2
    parts = [torch.linalg.svd(tau, full_matrices=False) for tau in taus]
    u, _, v = torch.linalg.svd(torch.cat([p[0][:, :rank] for p in parts], 1), full_matrices=False)
    left = u @ v
    u, _, v = torch.linalg.svd(torch.cat([p[2][:rank] for p in parts]), full_matrices=False)
    values = torch.cat([c * p[1][:rank] for c, p in zip((0.3, 0.9), parts, strict=True)])
    return base + 0.5 * left @ torch.diag(values) @ u @ v


def files(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.safetensors"))


def refuse_to_prepare(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("prepared although it is on disk")

    monkeypatch.setattr(Preparation, "run", refuse)


def test_a_live_merge_is_the_formula(tiny_family: Family, cache: Path) -> None:
    for name, tensor in live(recipe(tiny_family)).items():
        expected = plain(tiny_family, name).float()
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-5)


def test_another_process_finds_them_on_disk_and_other_coefficients_need_no_other(
    tiny_family: Family, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = recipe(tiny_family)
    before = live(wanted)
    kept = files(cache)
    assert 0 < len(kept) <= len(opened(wanted).names)  # tensors that are alike share one
    refuse_to_prepare(monkeypatch)
    assert all(torch.equal(before[n], t) for n, t in live(wanted).items())
    live(recipe(tiny_family, Rule("tsv_m", {"coefficient": 0.1})))
    assert files(cache) == kept


def test_other_experts_and_other_values_are_prepared_anew(tiny_family: Family, cache: Path) -> None:
    live(recipe(tiny_family))
    n = len(files(cache))
    half = live(recipe(tiny_family, Rule("tsv_m", {"rank_share": 0.5})))
    assert len(files(cache)) == 2 * n
    whole = live(recipe(tiny_family, Rule("tsv_m")))
    assert not torch.equal(half[UP], whole[UP])
    experts = {name: str(tiny_family[name]) for name in ("one", "three")}
    live(Recipe(experts, (Rule("tsv_m"),), base=str(tiny_family["base"])))
    assert len(files(cache)) > 2.9 * n  # tensors that are alike share one


def test_a_damaged_file_is_prepared_again(tiny_family: Family, cache: Path) -> None:
    before = live(recipe(tiny_family))
    for file in files(cache):
        file.write_bytes(file.read_bytes()[:-4] + b"oops")
    assert all(torch.equal(before[n], t) for n, t in live(recipe(tiny_family)).items())


def test_files_in_use_are_not_trimmed(
    tiny_family: Family, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOMERGE_CACHE_LIMIT", "0")
    wanted = recipe(tiny_family)
    candidate = LiveCandidate(opened(wanted), "float32")
    candidate.materialise(wanted)
    found = files(cache)
    assert found
    trim_cache(PREPARED)
    assert files(cache) == found
    del candidate
    gc.collect()
    trim_cache(PREPARED)
    assert files(cache) == []


def test_without_a_cache_or_a_disk_they_are_in_memory(
    tiny_family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = recipe(tiny_family)
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path / "cache"))
    before = live(wanted)
    monkeypatch.setenv("EVOMERGE_CACHE", "off")
    assert all(torch.equal(before[n], t) for n, t in live(wanted).items())
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path / "file"))
    assert all(torch.equal(before[n], t) for n, t in live(wanted).items())


def test_an_export_is_the_live_merge(tiny_family: Family, cache: Path, tmp_path: Path) -> None:
    wanted = recipe(tiny_family)
    write_checkpoint(wanted, tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in live(wanted).items())


@pytest.mark.parametrize("residency", ["mapped", "resident"])
def test_every_supply_feeds_them(residency: str, tiny_family: Family, cache: Path) -> None:
    wanted = recipe(tiny_family)
    sources, out = opened(wanted), torch.empty(40, 16)
    supply = make_supply(sources, (torch.device("cpu"),), residency)  # type: ignore[arg-type]
    supply.feed([PlannedTensor(UP, lower_tensor(wanted, sources, UP), out)])
    assert torch.equal(out, live(wanted)[UP])


def test_a_recipe_may_change_its_method_and_back(tiny_family: Family, cache: Path) -> None:
    sources = opened(recipe(tiny_family))
    candidate = LiveCandidate(sources, "float32")
    for rule in ("tsv_m", "iso_c", "task_arithmetic", "tsv_m"):
        wanted = recipe(tiny_family, Rule(rule, {"coefficient": 0.4}))
        candidate.materialise(wanted)
        for name, tensor in live(wanted).items():
            assert torch.equal(candidate.tensors[name], tensor), rule


def test_slopes_are_gradients_times_what_is_prepared(tiny_family: Family, cache: Path) -> None:
    wanted = recipe(tiny_family)
    sources = opened(wanted)
    candidate = LiveCandidate(sources, "float32")
    candidate.materialise(wanted)
    tokens = torch.tensor([[1, 5, 2, 7]])
    with candidate.slopes() as slopes:
        candidate.model(tokens, labels=tokens).loss.backward()
    ours = slopes.along_recipe().tensors[UP]
    parameter = candidate.model.get_parameter(UP)
    candidate.model(tokens, labels=tokens).loss.backward()
    _, vectors = sources.tensors(UP, lower_tensor(wanted, sources, UP).prepared)
    expected = [0.5 * float((parameter.grad * vector).sum()) for vector in vectors]
    assert ours["coefficient"] == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_modifiers_see_what_is_prepared(tiny_family: Family, cache: Path) -> None:
    """A trim keeps the largest of the prepared changes, not of the experts' own."""
    rule = Rule("tsv_m", {}, modifiers={"magnitude": {"density": 0.25}})
    wanted = recipe(tiny_family, rule)
    sources = opened(wanted)
    base, vectors = sources.tensors(UP, lower_tensor(wanted, sources, UP).prepared)
    expected = base.double()
    for vector in vectors:
        least = vector.abs().flatten().sort(descending=True).values[vector.numel() // 4 - 1]
        expected = expected + torch.where(vector.abs() >= least, vector, 0)
    off = (live(wanted)[UP] - expected).abs() > 1e-5
    assert off.float().mean() < 0.02  # thresholds are those of a histogram


def test_adapters_are_prepared_from_their_factors(
    tiny_family: Family, tmp_path: Path, cache: Path
) -> None:
    base = str(tiny_family["base"])
    folders = [save_adapter(tmp_path / f"lora{i}", seed=i) for i in range(2)]
    experts = {f"e{i}": AdapterRef(str(folder), on=base) for i, folder in enumerate(folders)}
    wanted = Recipe(experts, (Rule("tsv_m"),), base=base, dtype="float32")
    for shared in (None, tmp_path / "experts"):
        sources = Sources(base, experts, shared)
        _, vectors = sources.tensors(UP, lower_tensor(wanted, sources, UP).prepared)
        ranks = [int(torch.linalg.matrix_rank(v.double(), rtol=1e-5)) for v in vectors]
        assert ranks == [2, 2]  # subtracting bases would leave the noise of rounding
