"""What the machine is and has, asked without loading anything into this process."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

__all__ = ["describe", "gpu_fault"]

_PACKAGES = (
    *("torch", "triton", "numba", "numpy", "xxhash", "transformers", "safetensors", "pydantic"),
    *("lm_eval", "vllm"),
)
_ASK = """
import json, torch
p = torch.cuda.get_device_properties(0)
print(json.dumps({"gpu": p.name, "gpu_bytes": p.total_memory, "cuda": torch.version.cuda}))
"""


def describe() -> dict[str, object]:
    """Describe processor, memory and versions, and the GPU if torch sees one."""
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "host_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "versions": {name: _version(name) for name in _PACKAGES},
    }


def gpu_fault(machine: dict[str, object]) -> str | None:
    """Ask torch, in a process of its own, for the GPU; add it to ``machine`` or say what is wrong.

    Args:
        machine: From ``describe``; takes name, memory and CUDA version of the first GPU.
    """
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _ASK], capture_output=True, text=True, timeout=90, check=False
        )
    except subprocess.TimeoutExpired:
        return "torch did not find out about the GPU within 90 s"
    if asked.returncode:
        return f"torch sees no GPU: {(asked.stderr.strip().splitlines() or ['it died'])[-1]}"
    machine.update(json.loads(asked.stdout))
    return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
