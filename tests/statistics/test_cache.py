from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from evomerge.statistics.cache import Origin, StatisticsCache
from evomerge.statistics.collect import STATISTICS
from evomerge.statistics.content import content_of
from evomerge.statistics.tensor import TensorStatistics
from tests.statistics.sets import model_set

MODELS = model_set(0, shape=(30, 20))


def refuse() -> torch.Tensor:
    raise RuntimeError("a tensor was read although the cache should know")


def cached(folder: Path, **changed: torch.Tensor) -> TensorStatistics:
    base = changed.get("base", MODELS.base)
    experts = [changed.get("expert", MODELS.experts[0]), *MODELS.experts[1:]]
    return TensorStatistics(base, experts, cache=StatisticsCache(folder))


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def measure_all(statistics: TensorStatistics) -> list[object]:
    scores = statistics.scores(0.01)
    return [
        *(measure(statistics) for measure in STATISTICS.values()),
        statistics.activity(1e-3),
        (scores.low, scores.top, scores.cut(0.2)),
    ]


def same(one: object, two: object) -> bool:
    if isinstance(one, (list, tuple)) and isinstance(two, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, np.ndarray):
        return isinstance(two, np.ndarray) and one.dtype == two.dtype and np.array_equal(one, two)
    if is_dataclass(one):
        names = [field.name for field in fields(one)]
        return all(same(getattr(one, name), getattr(two, name)) for name in names)
    return one == two


def test_a_hit_equals_what_was_measured(tmp_path: Path) -> None:
    plain = measure_all(TensorStatistics(MODELS.base, MODELS.experts))
    assert same(measure_all(cached(tmp_path)), plain)
    assert same(measure_all(cached(tmp_path)), plain)


def test_another_arithmetic_finds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = StatisticsCache(tmp_path)
    cache.store("magnitudes", ("a",), {"n": np.zeros(1)})
    assert cache.load("magnitudes", ("a",)) is not None
    monkeypatch.setattr("evomerge.statistics.cache._ARITHMETIC", 10_000)
    assert cache.load("magnitudes", ("a",)) is None


def test_a_second_process_reads_no_tensor(tmp_path: Path) -> None:
    files = [tmp_path / "base.safetensors", tmp_path / "expert.safetensors"]
    save_file({"t": MODELS.base}, files[0])
    save_file({"t": MODELS.experts[0]}, files[1])
    origins = [Origin((file,), "t") for file in files]
    base, expert = (load_file(file)["t"] for file in files)
    first = TensorStatistics(
        base, [expert], origins=origins, cache=StatisticsCache(tmp_path / "cache")
    )
    threshold = first.magnitudes(0).threshold(0.3)
    second = TensorStatistics(
        refuse, [refuse], origins=origins, cache=StatisticsCache(tmp_path / "cache")
    )
    assert second.magnitudes(0).threshold(0.3) == threshold
    with pytest.raises(RuntimeError, match="although"):
        second.task_gram  # noqa: B018  (not measured before)


def test_a_changed_file_is_hashed_again(tmp_path: Path) -> None:
    file, cache = tmp_path / "model.safetensors", tmp_path / "cache"
    origin = Origin((file,), "t")
    save_file({"t": torch.zeros(4)}, file)
    before = StatisticsCache(cache).content(origin, lambda: torch.zeros(4))
    save_file({"t": torch.ones(4)}, file)
    os.utime(file, ns=(1, 1))  # clocks may be too coarse for two writes
    assert StatisticsCache(cache).content(origin, lambda: torch.ones(4)) != before


@pytest.mark.parametrize("which", ["base", "expert"])
def test_other_content_is_measured_anew(tmp_path: Path, which: str) -> None:
    before = cached(tmp_path).magnitudes(0)
    changed = MODELS.base.clone()
    changed[3, 4] += 1.0
    other = cached(tmp_path, **{which: changed})
    fresh = TensorStatistics(
        changed if which == "base" else MODELS.base,
        [changed if which == "expert" else MODELS.experts[0]],
    )
    assert not same(other.magnitudes(0), before)
    assert same(other.magnitudes(0), fresh.magnitudes(0))


def test_statistics_of_an_expert_serve_every_set_that_holds_it(tmp_path: Path) -> None:
    cached(tmp_path).magnitudes(1)
    known = len(entries(tmp_path))
    alone = TensorStatistics(MODELS.base, [MODELS.experts[1]], cache=StatisticsCache(tmp_path))
    alone.magnitudes(0)
    assert len(entries(tmp_path)) == known


def test_a_model_and_a_task_vector_from_a_zero_base_are_told_apart(tmp_path: Path) -> None:
    tensor = MODELS.experts[0]
    cache = StatisticsCache(tmp_path)
    with_base = TensorStatistics(MODELS.base, [tensor], cache=cache).model_gram
    without = TensorStatistics(None, [MODELS.base, tensor], cache=cache)
    assert np.array_equal(with_base, without.model_gram)
    assert without.task_gram.shape == (2, 2)
    assert TensorStatistics(MODELS.base, [tensor], cache=cache).task_gram.shape == (1, 1)


def test_dtype_and_shape_are_part_of_the_content() -> None:
    zeros = torch.zeros(4, 4)
    digests = {content_of(t).digest for t in (zeros, zeros.int(), zeros.reshape(2, 8), zeros[:2])}
    assert len(digests) == 4
    assert content_of(zeros[:, :2]) == content_of(torch.zeros(4, 2))  # strides are not


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_numbers_that_are_not_finite_are_counted(dtype: torch.dtype) -> None:
    bad = torch.full((300_000,), torch.finfo(dtype).max, dtype=dtype)  # their sum is infinite
    assert content_of(bad).non_finite == 0
    bad[299_999], bad[7] = float("nan"), float("-inf")
    assert content_of(bad).non_finite == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: entry[:-3],
        lambda entry: entry[:20],
        lambda entry: b"",
        lambda entry: entry[:-1] + bytes([entry[-1] ^ 1]),
        lambda entry: b"something else altogether" * 20,
        lambda entry: entry + b"\0",
    ],
    ids=["cut off", "head only", "empty", "flipped bit", "foreign", "too long"],
)
def test_a_damaged_entry_is_rebuilt(tmp_path: Path, damage: object) -> None:
    measured = cached(tmp_path).magnitudes(0)
    (entry,) = entries(tmp_path)
    intact = entry.read_bytes()
    entry.write_bytes(damage(intact))  # type: ignore[operator]
    assert same(cached(tmp_path).magnitudes(0), measured)
    assert entry.read_bytes() == intact


def test_an_entry_under_another_name_is_rebuilt(tmp_path: Path) -> None:
    measured = cached(tmp_path).magnitudes(0)
    (first,) = entries(tmp_path)
    cached(tmp_path).moments(0)
    (second,) = set(entries(tmp_path)) - {first}
    first.write_bytes(second.read_bytes())
    assert same(cached(tmp_path).magnitudes(0), measured)


def test_a_damaged_index_of_contents_only_costs_time(tmp_path: Path) -> None:
    file, cache = tmp_path / "model.safetensors", tmp_path / "cache"
    save_file({"t": torch.zeros(4)}, file)
    origin = Origin((file,), "t")
    known = StatisticsCache(cache).content(origin, lambda: torch.zeros(4))
    (index,) = entries(cache)
    for damaged in (b"", b"\xff\xfe\0garbage", f"{known.digest} 0 t".encode(), b"ab 0 t\n\n \n"):
        index.write_bytes(damaged)
        assert StatisticsCache(cache).content(origin, lambda: torch.zeros(4)) == known


def test_a_folder_that_cannot_be_written_is_passed_over(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert cached(blocked / "cache").magnitudes(0).n == 600
    assert blocked.read_text() == "not a folder"


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("evomerge.statistics.cache.os.replace", full)
    assert cached(tmp_path).magnitudes(0).n == 600
    assert entries(tmp_path) == []


def test_the_environment_is_read_at_use_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def writes(**environment: str) -> list[Path]:
        for name in ("EVOMERGE_CACHE", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        before = set(entries(tmp_path))
        models = model_set(len(before) + 1, shape=(5,))
        statistics = TensorStatistics(None, models.experts, cache=StatisticsCache.default())
        statistics.magnitudes(0)
        return sorted(set(entries(tmp_path)) - before)

    assert writes(EVOMERGE_CACHE="off", XDG_CACHE_HOME=str(tmp_path)) == []
    (chosen,) = writes(EVOMERGE_CACHE=str(tmp_path / "mine"))
    assert chosen.is_relative_to(tmp_path / "mine")
    (by_xdg,) = writes(XDG_CACHE_HOME=str(tmp_path / "xdg"))
    assert by_xdg.is_relative_to(tmp_path / "xdg" / "evomerge" / "statistics")


WRITER = """
import sys
from pathlib import Path
import torch
from evomerge.statistics.cache import StatisticsCache
from evomerge.statistics.tensor import TensorStatistics

folder = Path(sys.argv[1])
for _ in range(60):
    models = [torch.linspace(0, step, 600) for step in (1, 2)]
    statistics = TensorStatistics(None, models, cache=StatisticsCache(folder))
    square_sum = statistics.moments(0).square_sum
    assert abs(statistics.task_gram[0, 1] - 2 * square_sum) < 1e-6 * square_sum
    assert statistics.magnitudes(1).n == 600
    for entry in folder.rglob("*"):
        if entry.is_file() and not entry.name.startswith("."):
            entry.unlink(missing_ok=True)
"""


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    assert not [path for path in entries(tmp_path) if path.name.startswith(".new-")]
