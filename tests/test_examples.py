"""The files in examples/ are what the tools they are for would take, as far as that shows here."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pages import ROOT
from tests.test_docs import command_fault

FOLDER = ROOT / "examples" / "clusters"
SCRIPTS = sorted(FOLDER.glob("*.sh"))
# Of KubeRay's API (ray.io/v1), those fields of each object that this example may use.
KUBERAY = {
    "": {"apiVersion", "kind", "metadata", "spec"},
    "spec": {
        *("entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "submissionMode"),
        *("rayClusterSpec", "runtimeEnvYAML", "jobId", "ttlSecondsAfterFinished", "suspend"),
        *("entrypointNumCpus", "entrypointNumGpus", "activeDeadlineSeconds", "clusterSelector"),
    },
    "spec.rayClusterSpec": {
        *("rayVersion", "headGroupSpec", "workerGroupSpecs", "enableInTreeAutoscaling"),
        *("autoscalerOptions", "suspend", "gcsFaultToleranceOptions"),
    },
    "spec.rayClusterSpec.headGroupSpec": {"rayStartParams", "template", "serviceType"},
    "spec.rayClusterSpec.workerGroupSpecs": {
        *("groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"),
        *("numOfHosts", "scaleStrategy", "idleTimeoutSeconds"),
    },
}
POD = {"containers", "volumes", "nodeSelector", "tolerations"}
CONTAINER = {"name", "image", "resources", "env", "volumeMounts", "imagePullPolicy"}


def written(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def test_every_example_says_what_it_is_and_how_to_run_it() -> None:
    files = [*SCRIPTS, *FOLDER.glob("*.yaml")]
    assert len(files) == 5
    for file in files:
        head = [line for line in file.read_text().splitlines() if not line.startswith("#!")][:3]
        assert head[0].startswith("# "), file
        assert any(line.startswith("# Run it: ") for line in head), file


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda file: file.name)
def test_scripts_are_bash_and_their_commands_ours(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True, capture_output=True)
    if checker := shutil.which("shellcheck"):
        subprocess.run([checker, "--severity=warning", str(script)], check=True)
    text = re.sub(r"\\\n", " ", script.read_text())
    lines = [line.strip("() ") for line in re.findall(r"evomerge [^#\n]*", text)]
    commands = [line for line in lines if re.match(r"evomerge (run|resume) ", line)]
    assert len(commands) == 2, "one that starts, one that goes on"
    assert not [fault for line in commands if (fault := command_fault(line, whole=True))]


@pytest.mark.parametrize("script", [s for s in SCRIPTS if "slurm" in s.name], ids=lambda f: f.name)
def test_directives_of_slurm_come_before_any_command(script: Path) -> None:
    """sbatch reads no further than the first line that is neither a comment nor empty."""
    lines = script.read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert any(line.startswith("#SBATCH --signal=") for line in lines[:first])
    assert not any(line.startswith("#SBATCH") for line in lines[first:])


def test_ray_takes_the_cluster_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """By Ray's own schema, and its rules that go beyond it."""
    util = pytest.importorskip("ray.autoscaler._private.util")
    config = util.prepare_config(written("ray-up.yaml"))
    util.validate_config(config)
    wrong = {**config, "available_node_type": {}}
    with pytest.raises(Exception, match="available_node_type"):
        util.validate_config(wrong)
    mounted = written("ray-up.yaml")["file_mounts"]
    assert "search.sh" in mounted.values()


def test_every_field_of_the_ray_job_is_one() -> None:
    job = written("rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    for path, known in KUBERAY.items():
        for found in reached(job, path):
            assert found.keys() <= known, path
    cluster = job["spec"]["rayClusterSpec"]
    pods = [g["template"]["spec"] for g in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    for pod in pods:
        assert pod.keys() <= POD
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert container.keys() <= CONTAINER
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert all(isinstance(entry["value"], str) for entry in container["env"])


def reached(content: Any, path: str) -> list[dict[str, Any]]:
    """The objects at a path; each of a list."""
    for key in filter(None, path.split(".")):
        content = content[key]
    return content if isinstance(content, list) else [content]
