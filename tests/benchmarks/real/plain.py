"""Score a folder with transformers and lm-eval alone, in a process that knows no evomerge.

python -m tests.benchmarks.real.plain FOLDER TASKS SPLIT NAME=ROWS... ; prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

__all__ = ["configs", "key", "score"]


def configs(tasks: Path, names: list[str], split: str) -> list[dict[str, object]]:
    """Read task files as lm-eval wants them: data by absolute path, the split to be scored."""
    import yaml

    found = []
    for name in names:
        folder = tasks / name
        config = yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))
        files = config["dataset_kwargs"]["data_files"]
        config["dataset_kwargs"]["data_files"] = {k: str(folder / v) for k, v in files.items()}
        found.append({**config, "test_split": split})
    return found


def key(metric: str) -> str:
    """Name a metric as lm-eval's results do, with its filter."""
    return metric if "," in metric else f"{metric},none"


def score(lm: object, tasks: list[dict[str, object]], samples: dict[str, list[int]]) -> dict:
    """Run ``simple_evaluate`` on some rows of each task; returns its results."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    return lm_eval.simple_evaluate(  # type: ignore[no-any-return]
        model=lm,
        tasks=tasks,
        samples=samples,
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
    )["results"]


def _main() -> None:
    import torch
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    folder, tasks, split, samples = sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    rows = json.loads(samples)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=64, device="cpu")
    results = score(lm, configs(tasks, list(rows), split), rows)
    assert "evomerge" not in sys.modules
    numbers = {t: {k: v for k, v in r.items() if isinstance(v, float)} for t, r in results.items()}
    print(json.dumps(numbers))


if __name__ == "__main__":
    _main()
