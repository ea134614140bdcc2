"""Time per candidate: merge and replay, against bare forward passes and ``simple_evaluate``.

One thread. Run on the embedded models and on random ones of 110M parameters.
"""

from __future__ import annotations

import dataclasses
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path

import lm_eval
import torch
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from evomerge.config.presets import Presets
from evomerge.evaluation.prepared import PreparedSuites
from evomerge.evaluation.suite import Suite
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.sources import Sources
from evomerge.models.reference import resolve_model
from evomerge.recipe.recipe import Recipe, Rule
from evomerge.runs.parts import load_suites
from tests.benchmarks.real.plain import configs
from tests.benchmarks.shapes import HIDDEN, LAYERS, MLP, VOCABULARY

_REPEATS = 3
_LM_EVAL_BATCH = 64
_ZOO = {name: f"zoo:{name}" for name in ("math", "list", "facts")}


def run() -> str:
    """Measure both; returns one line each."""
    torch.set_num_threads(1)
    (suite,) = load_suites(["zoo"], Presets(), Path.cwd())
    lines = [_line("zoo", "zoo:base", _ZOO, suite)]
    with tempfile.TemporaryDirectory() as folder:
        names = ["base", "a", "b"]
        base, *experts = (random_model(Path(folder) / n, i) for i, n in enumerate(names))
        by_name = dict(zip(names[1:], experts, strict=True))
        lines.append(_line("110M", base, by_name, dataclasses.replace(suite, limit=32)))
        lines.append(_examples_line(base, by_name, Path(folder)))
    return "\n".join(lines)


def _line(name: str, base: str, experts: dict[str, str], suite: Suite) -> str:
    sources = Sources(base, experts)
    candidate = LiveCandidate(sources)
    tokenizer = AutoTokenizer.from_pretrained(sources.anchor.folder)
    prepared = PreparedSuites.of([suite], "search", candidate.model, tokenizer)
    samples = {one.name: [item.row for item in one.items] for one in prepared.tasks}
    lm = HFLM(pretrained=candidate.model, tokenizer=tokenizer, batch_size=_LM_EVAL_BATCH)
    assert suite.include_path is not None
    tasks = configs(suite.include_path, list(samples), "search")
    index = TaskManager(include_defaults=False)  # the default one takes seconds, once
    bare: list[float] = []

    def replayed(recipe: Recipe) -> None:
        candidate.materialise(recipe)
        with _timed_forward(candidate.model) as seconds:
            prepared.score()
        bare.append(sum(seconds))

    def rebuilt(recipe: Recipe) -> None:
        candidate.materialise(recipe)
        with redirect_stderr(StringIO()):
            lm_eval.simple_evaluate(
                model=lm, tasks=tasks, samples=samples, task_manager=index, bootstrap_iters=0
            )

    ours = _seconds(replayed, base, experts)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    theirs = _seconds(rebuilt, base, experts)
    ratios = [wall / forward for wall, forward in zip(ours, bare[1:], strict=True)]
    mine, other = statistics.median(ours), statistics.median(theirs)
    return (
        f"candidate on {name}, {sum(map(len, samples.values()))} items: {mine:.2f} s, "
        f"{statistics.median(ratios):.2f} x its forward passes; in-memory merge and "
        f"simple_evaluate {other:.2f} s, ratio {other / mine:.1f}; worker peak {peak:.0f} MB"
    )


def _examples_line(base: str, experts: dict[str, str], folder: Path) -> str:
    """Choices after five examples: the same for all items, against drawn anew for each."""
    sources = Sources(base, experts)
    candidate = LiveCandidate(sources)
    tokenizer = AutoTokenizer.from_pretrained(sources.anchor.folder)
    medians = []
    for name, sampler in (("fixed", "first_n"), ("drawn", "default")):
        prepared = PreparedSuites.of(
            [_five_shot(folder, name, sampler)], "search", candidate.model, tokenizer
        )

        def scored(recipe: Recipe, prepared: PreparedSuites = prepared) -> None:
            candidate.materialise(recipe)
            prepared.score()

        medians.append(statistics.median(_seconds(scored, base, experts)))
    request = prepared.tasks[0].items[0].requests[0]
    length = len(tokenizer("".join(request.args))["input_ids"])
    fixed, drawn = medians
    return (
        f"candidate on 110M, {len(prepared.tasks[0].items)} items with five examples, about "
        f"{length} tokens each: examples fixed {fixed:.2f} s, drawn {drawn:.2f} s, ratio "
        f"{drawn / fixed:.1f}; load {os.getloadavg()[0]:.1f}"
    )


def _five_shot(folder: Path, name: str, sampler: str) -> Suite:
    """Write a task with questions as long as those of usual benchmarks."""
    zoo = Presets().names("evaluators")["zoo"].parent / "tasks"
    (config,) = configs(zoo, ["zoo_facts"], "search")
    config |= {
        "task": name,
        "doc_to_text": "{{(prompt + ' ') * 16}}",
        "num_fewshot": 5,
        "fewshot_split": "validation",
        "fewshot_config": {"sampler": sampler},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    return Suite(name, (name,), include_path=folder, splits={"search": "search"}, limit=16)


@contextmanager
def _timed_forward(model: PreTrainedModel) -> Iterator[list[float]]:
    """Collect the seconds of every forward pass."""
    started: list[float] = []
    seconds: list[float] = []
    handles = [
        model.register_forward_pre_hook(lambda *_: started.append(time.perf_counter())),
        model.register_forward_hook(lambda *_: seconds.append(time.perf_counter() - started.pop())),
    ]
    yield seconds
    for handle in handles:
        handle.remove()


def _seconds(score: Callable[[Recipe], None], base: str, experts: dict[str, str]) -> list[float]:
    seconds = []
    for i in range(_REPEATS + 1):
        rule = Rule("task_arithmetic", {"coefficient": 0.1 + 0.02 * i})
        start = time.perf_counter()
        score(Recipe(experts, (rule,), base=base))
        seconds.append(time.perf_counter() - start)
    return seconds[1:]  # the first one warms up


def random_model(folder: Path, seed: int) -> str:
    """Write a Llama of 110M random parameters with the embedded models' tokenizer."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=MLP,
        num_hidden_layers=LAYERS,
        num_attention_heads=HIDDEN // 64,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
        dtype=torch.bfloat16,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    for file in resolve_model("zoo:base").glob("*token*"):
        shutil.copy(file, folder)
    return str(folder)


if __name__ == "__main__":
    print(run())
