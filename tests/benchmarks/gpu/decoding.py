"""Whether a CUDA graph decodes faster than launching every kernel of a step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import PreTrainedModel, StaticCache

from tests.benchmarks.gpu.bench import Bench

__all__ = ["measure_decoding"]

_ROOM = 256  # tokens of the cache
_BATCH = {False: 64, True: 2}
_GRAPH = "decoding from a CUDA graph is faster"
_WARM_UP = 3  # steps before a capture


def measure_decoding(bench: Bench, model: PreTrainedModel) -> None:
    """Time a step of greedy decoding, and on a GPU the same step replayed from a graph."""
    n = _BATCH[bench.is_dry]
    cache = StaticCache(config=model.config, max_cache_len=_ROOM)
    tokens = torch.ones((n, 1), dtype=torch.long, device=bench.device)

    @torch.no_grad()
    def step() -> None:
        chosen = model(tokens, past_key_values=cache, use_cache=True).logits[:, -1].argmax(-1)
        tokens.copy_(chosen[:, None])

    launched = bench.wall_s(step)
    bench.measured(f"decoding {n} sequences, kernels launched", n / launched, "tokens/s")
    if bench.is_dry:
        return
    try:
        replayed = bench.wall_s(_captured(step))
    except RuntimeError as err:
        bench.measured(f"{_GRAPH}: not captured", 0, note=str(err)[:200])
        return
    bench.measured(_GRAPH, launched / replayed, "times", note="worth having if well above 1")


def _captured(step: Callable[[], None]) -> Callable[[], None]:
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(_WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    replay: Callable[[], None] = graph.replay
    return replay
