"""``make bench``: run every benchmark and print its figures."""

from __future__ import annotations

import platform

import torch

from tests.benchmarks import replay

if __name__ == "__main__":
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(replay.run())
