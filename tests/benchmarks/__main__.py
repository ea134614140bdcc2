"""``make bench``: run every benchmark and print its figures."""

from __future__ import annotations

import platform

import torch

from tests.benchmarks import kernels, memory, peer, replay, samplers

if __name__ == "__main__":
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"\n{replay.run()}\n")
    kernels.main()
    print("\nAgainst mergekit:")
    print("\n".join(peer.run()))
    print("\nMemory:")
    memory.main()
    print("\nThe search itself:")
    samplers.main()
