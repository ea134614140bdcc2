"""What ``check`` prints."""

from __future__ import annotations

import json
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from evomerge.cache import cache_folder
from evomerge.cli import main as cli
from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.kernels import choice
from evomerge.merging.sources import Sources
from evomerge.models.checkpoint import Checkpoint
from evomerge.models.reference import AdapterRef
from evomerge.models.zoo import zoo_path
from evomerge.runs.cost import example_recipe, experiment_facts
from evomerge.runs.loaded import Loaded
from evomerge.runs.units import bytes_text

GPU = 8_000_000  # bytes; holds the three models, the live one and what is left for evaluation
EXPERIMENT = """
models:
  base: zoo:base
  experts: {math: zoo:math, code: %s}
search_space: global_linear
evaluators: [zoo]
objectives: [{task: zoo_math, metric: exact_match}]
execution: %s
"""


def facts(
    tmp_path: Path, expert: str = "zoo:list", execution: str = "{}", gpu_bytes: int = 0
) -> dict[str, str]:
    """Describe an experiment on a machine without a GPU, or with one that has some free memory."""
    file = tmp_path / "e.yaml"
    file.write_text(EXPERIMENT % (expert, execution))
    loaded = Loaded.of(load_experiment(file, Presets(None)))
    with pytest.MonkeyPatch.context() as patch:
        set_gpu(patch, gpu_bytes)
        return dict(experiment_facts(loaded))


def set_gpu(patch: pytest.MonkeyPatch, n_bytes: int) -> None:
    patch.setattr(torch.cuda, "is_available", lambda: n_bytes > 0)
    patch.setattr(torch.cuda, "device_count", lambda: int(n_bytes > 0))
    patch.setattr(torch.cuda, "mem_get_info", lambda *_: (n_bytes, n_bytes))


def save_adapter(folder: Path) -> Path:
    """Write a rank-2 adapter of one module of the embedded base."""
    module = "model.layers.0.mlp.up_proj"
    rows, columns = Checkpoint(zoo_path("base")).shape(f"{module}.weight")
    shapes = {"lora_A": (2, columns), "lora_B": (rows, 2)}
    factors = {f"base_model.model.{module}.{s}.weight": torch.ones(n) for s, n in shapes.items()}
    folder.mkdir()
    save_file(factors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_on_cpu_experts_are_mapped_and_the_compiled_kernel_runs(tmp_path: Path) -> None:
    found = facts(tmp_path)
    assert found["experts"].startswith("mapped: 4.08 MB")
    assert found["kernel"].startswith("numba")
    assert "on cpu" in found["workers"]


def test_a_kernel_that_is_missing_is_named_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "find_spec", lambda _: None)
    assert "install numba" in facts(tmp_path)["kernel"]


def test_on_a_gpu_experts_are_resident_if_they_fit(tmp_path: Path) -> None:
    found = facts(tmp_path, gpu_bytes=GPU)
    assert found["experts"].startswith("resident: 4.08 MB")
    assert found["kernel"].startswith("triton" if find_spec("triton") else "eager")
    assert "1 on cuda" in found["workers"]


@pytest.mark.parametrize(("gpu_bytes", "times"), [(GPU, 1), (0, 0)])
def test_on_a_gpu_check_says_once_how_to_compare_with_plain_torch(
    gpu_bytes: int,
    times: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "e.yaml"
    stage = "{search_space: global_linear, budget: {trials: 9}}"
    text = (EXPERIMENT % ("zoo:list", "{}")).replace("search_space: global_linear\n", "")
    file.write_text(f"{text}stages: [{stage}, {stage}]\n")
    set_gpu(monkeypatch, gpu_bytes)
    monkeypatch.setattr("sys.argv", ["evomerge", "check", str(file)])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    said = capsys.readouterr().out
    assert not exit_.value.code
    assert said.count("stage ") >= 2
    assert said.count("EVOMERGE_KERNEL=eager") == times


def test_workers_that_share_a_gpu_share_its_memory(tmp_path: Path) -> None:
    found = facts(tmp_path, execution="{gpus_per_worker: 0.5}", gpu_bytes=GPU)
    assert found["experts"].startswith("streamed: 4.08 MB")
    # Two stages, one after the other filled; all tensors of the three models fit into one.
    models = [Checkpoint(zoo_path(name)) for name in ("base", "math", "list")]
    sources = Sources("zoo:base", {"math": "zoo:math", "code": "zoo:list"})
    size = sum(m.tensor(name).nbytes + 256 for m in models for name in sources.names)
    assert f"two buffers of {bytes_text(size)}, there and pinned" in found["experts"]
    assert "2 on cuda" in found["workers"]


def held_bytes(line: str) -> tuple[float, float]:
    """Read what a device holds of the candidate, and of base and experts."""
    form = r"([\d.]+) ([kM])B live, ([\d.]+) ([kM])B base and experts, .* of scoring"
    match = re.search(form, line)
    assert match, line
    factors = {"k": 1e3, "M": 1e6}
    return float(match[1]) * factors[match[2]], float(match[3]) * factors[match[4]]


def test_what_each_gpu_of_a_worker_holds_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_gpu(monkeypatch, GPU)
    monkeypatch.setattr("evomerge.runs.workers._n_gpus", lambda: 2)
    found = facts(tmp_path, execution="{gpus_per_worker: 2}", gpu_bytes=GPU)
    assert found["workers"].startswith("1 on cuda")
    first, second = found["of a worker"].split("\n")
    live, sources = zip(*map(held_bytes, (first, second)), strict=True)
    assert sum(live) == pytest.approx(1e6 * float(found["memory"].split()[0]), rel=0.02)
    assert sources == pytest.approx([3 * one for one in live], rel=0.02)
    assert first.startswith("cuda:0 ")
    assert second.strip().startswith("cuda:1 ")


def test_workers_without_a_share_of_a_gpu_run_on_cpu(tmp_path: Path) -> None:
    assert "on cpu" in facts(tmp_path, execution="{gpus_per_worker: 0}", gpu_bytes=GPU)["workers"]


def test_computed_experts_are_counted_with_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = save_adapter(tmp_path / "lora")
    expert = f"{{adapter: {adapter}, on: zoo:base}}"
    assert "the cache is off" in facts(tmp_path, expert)["disk"]
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path / "cache"))
    disk = facts(tmp_path, expert)["disk"]
    assert f"adapters and deltas in {tmp_path}/cache/experts, once" in disk
    base = zoo_path("base")
    experts = {"code": AdapterRef(str(adapter), on=str(base))}
    Sources(str(base), experts, shared=cache_folder("experts"))
    (file,) = (tmp_path / "cache" / "experts").glob("*.safetensors")
    (promised,) = re.findall(r"^([\d.]+) kB of computed", disk)
    assert float(promised) * 1000 == pytest.approx(file.stat().st_size, rel=0.01)


def test_what_ends_a_candidate_early_is_said_with_its_thresholds(tmp_path: Path) -> None:
    found = facts(tmp_path, execution="{}\ngates: {perplexity_factor: 7}\nrace: fast")
    assert "exceeds 7 times the worst parent's" in found["gates"]
    assert "75% more of its greedy answers" in found["gates"]
    assert found["race"].startswith("after 10%, 20%, 40%, 60% of the items, at least 20 of each")
    assert "item-response model) give it a probability of at most 0.1" in found["race"]
    assert found["race"].endswith("to improve the front by more than 0.50% of its hypervolume")


def test_gates_and_races_that_are_off_are_said_to_be(tmp_path: Path) -> None:
    found = facts(tmp_path, execution="{}\ngates: off")
    assert found["gates"] == "off"
    assert found["race"] == "off: every trial is scored on all items"


def test_the_example_of_a_path_space_shows_the_path() -> None:
    path = Presets().names("experiments")["hybrid_zoo"]
    example = example_recipe(Loaded.of(load_experiment(path, Presets())))
    assert "coefficient: {math: 0.75, list: 0.75, facts: 0.75}" in example
    assert "path:\n- source: merged\n  layers: [0, 6]" in example


def test_an_expert_that_would_be_run_in_another_way_than_the_base_is_named(tmp_path: Path) -> None:
    assert "configs" not in facts(tmp_path)
    other = tmp_path / "other"
    shutil.copytree(zoo_path("list"), other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    assert facts(tmp_path, str(other))["configs"] == (
        "code has another rms_norm_eps: merges, and the expert itself, are run as the base"
    )


def test_prepared_task_vectors_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = """
  method: {choice: [tsv_m, iso_c, task_arithmetic]}
  genes: {coefficient: {range: [0, 1]}}
"""
    file = tmp_path / "e.yaml"
    written = EXPERIMENT % ("zoo:list", "{}")
    file.write_text(written.replace("search_space: global_linear", f"search_space:{space}"))
    loaded = Loaded.of(load_experiment(file, Presets(None)))
    base = Checkpoint(zoo_path("base"))
    sizes = [4 * 2 * base.tensor(name).numel() for name in Sources("zoo:base", {}).names]
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path))
    wanted = f"{bytes_text(2 * sum(sizes))} in {cache_folder('prepared')}, once"
    line = dict(experiment_facts(loaded))["prepared"]
    assert line.startswith(f"iso_c, tsv_m: {wanted}")
    assert f"about {bytes_text(4 * max(sizes))} of memory" in line
    monkeypatch.setenv("EVOMERGE_CACHE", "off")
    assert "of memory in each worker" in dict(experiment_facts(loaded))["prepared"]
    assert "prepared" not in facts(tmp_path)
