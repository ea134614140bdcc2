"""Code that Triton makes for a GPU, which needs no GPU to be made."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

# In a process of its own: the interpreter that test_gpu.py switches on compiles nothing.
SCRIPT = """
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from evomerge.kernels.gpu import merging, slopes
from evomerge.kernels.job import MergeJob, SlopeJob
from evomerge.kernels.plan import Band, Elect, RandomMask, TensorPlan
from evomerge.kernels.structure import Structure

tensor = torch.zeros(16, 16, dtype=torch.bfloat16)
sparse = (Band(0.1), RandomMask(1, 0.5))
plan = TensorPlan((0.5, 0.5), sparse=sparse, combine=Elect(), normalize_by_mask=True)
structures = {
    "merge": Structure.of(MergeJob(plan, tensor, [tensor, tensor], tensor)),
    "slopes": Structure.of_slopes(SlopeJob(plan, tensor, [tensor, tensor], tensor)),
}
pointers = ["i32", "i32", "i64", "i64", "fp32", "fp32", "i64"]
names = ["tensor_of_block", "first_block", "sizes", "addresses", "each", "shared", "keys"]
signature = {name: f"*{kind}" for name, kind in zip(names, pointers)}
if "KERNEL" == "slopes":
    signature = {"sums": "*fp32", **signature}
source = ASTSource(
    fn={"merge": merging, "slopes": slopes}["KERNEL"]._kernel(structures["KERNEL"]),
    signature={**signature, "BLOCK": "constexpr", "ALIGNED": "constexpr"},
    constexprs={"BLOCK": 2048, "ALIGNED": True},
)
options = {"num_warps": 8, "enable_fp_fusion": False}
print(triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"])
"""
STREAMS = {"merge": (3, 1), "slopes": (4, 0)}  # base, two experts, and the gradient


@pytest.mark.parametrize("kernel", STREAMS)
def test_streams_are_wide_and_arithmetic_is_exact(kernel: str, tmp_path: Path) -> None:
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("KERNEL", kernel)],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    loads, stores = (len(re.findall(rf"{x}\.global\.v4\.b32", run.stdout)) for x in ("ld", "st"))
    assert (loads, stores) == STREAMS[kernel]
    assert "fma.rn.f32" not in run.stdout
    assert "div.full" not in run.stdout
