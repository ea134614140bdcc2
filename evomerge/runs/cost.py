"""What an experiment comes to: size, memory, disk, sampler, kernel; printed by ``check``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch

from evomerge.cache import cache_folder
from evomerge.config.experiment import ExecutionConfig
from evomerge.evaluation.batches import batch_tokens
from evomerge.evaluation.engine_choice import EngineChoice
from evomerge.evaluation.own_metrics import OwnMetric
from evomerge.evaluation.step_memory import answers_at_once
from evomerge.evaluation.suite import REPORT_ONLY
from evomerge.execution.costs import COST, COSTS, Cost
from evomerge.execution.protocol import WorkerSpec
from evomerge.kernels.choice import kernel_choice
from evomerge.merging.candidate import output_dtype
from evomerge.merging.prepared import PREPARED, prepared_bytes
from evomerge.merging.quantized import QUANTIZATIONS
from evomerge.merging.residency import needed_bytes, needed_on, residency_of
from evomerge.merging.size import n_parameters
from evomerge.merging.sources import Sources
from evomerge.merging.spread import devices_of
from evomerge.merging.streaming import stage_size
from evomerge.methods.prepared import Preparation
from evomerge.methods.regression import regression_bytes
from evomerge.models.companions import chat_template
from evomerge.models.opening import peek_model
from evomerge.models.outline import model_outline
from evomerge.models.parts import parts_of
from evomerge.runs.fitted_steps import FittedSteps
from evomerge.runs.loaded import Loaded
from evomerge.runs.memory_plan import DevicePlan, memory_plan
from evomerge.runs.sampling import sampler_choice
from evomerge.runs.units import bytes_text
from evomerge.runs.workers import (
    is_on_cluster,
    on_device,
    require_room,
    worker_bytes,
    worker_count,
)
from evomerge.schema import write_yaml
from evomerge.study.evaluations import climb_evaluations
from evomerge.study.records import Objective

__all__ = ["device_plans", "example_recipe", "experiment_facts", "gpu_note"]

_RACE_OFF = "off: every trial is scored on all items"
_MOST_RULES = 3  # that an example shows
_YOUNG = (
    "merging on a GPU is young: docs/gpu.md says what has run on one. To compare, run a few trials "
    "with EVOMERGE_KERNEL=eager EVOMERGE_CACHE=off in the environment, in a folder of their own: "
    "plain torch merges the same bytes, so that the same seed gives the same scores"
)
_UNTRIED = "not run on a GPU by its authors, so each worker first compares it with transformers"
_GRAMS = {"input_gram", "propagated_gram"}  # second moments of inputs, as large as these squared
_RUN_BY = (  # keys of a config that change what the same parameters answer
    *("model_type", "hidden_act", "hidden_activation", "rms_norm_eps", "layer_norm_eps"),
    *("rope_parameters", "rope_theta", "rope_scaling", "partial_rotary_factor", "sliding_window"),
    *("num_attention_heads", "num_key_value_heads", "num_experts_per_tok"),
)


def experiment_facts(loaded: Loaded) -> list[tuple[str, str]]:
    """Describe an experiment in lines of (name, value).

    Args:
        loaded: A checked experiment.

    Raises:
        EvomergeError: There is no room for its workers, or no such cluster.
    """
    require_room(loaded.experiment.execution)
    experiment, models = loaded.experiment, loaded.models
    sources = Sources.of(models, open_full=peek_model)
    parameters = n_parameters(tuple(range(models.n_layers)), sources)
    dtype = output_dtype(sources, models.dtype)
    candidate_bytes = parameters * dtype.itemsize
    live = bytes_text((_n_together(loaded) + 1) * candidate_bytes)
    worker = on_device(loaded.worker, experiment.execution)
    name, reason = sampler_choice(experiment, loaded.space, loaded.sloped)
    objectives = ", ".join(map(_objective, loaded.objectives))
    optional = {
        "constraints": ", ".join(constraint.name for constraint in loaded.constraints),
        "costs": ", ".join(map(_cost, loaded.worker.costs)),
        "configs": _other_configs(sources),
        "parts": _parts(sources),
        "vocabulary": _vocabulary(sources),
        "images": _images(loaded),
        "report only": _report_only(loaded),
        "judges": "; ".join(_judges(loaded)),
        "runs code": "; ".join(_code(loaded)),
        "engine": _engine(worker.engine),
        "observed": "" if loaded.observing is None else str(loaded.observing),
        "prepared": _prepared(loaded, sources),
    }
    n_workers = worker_count(experiment.execution)
    return [
        ("models", f"{parameters / 1e6:.2f}M parameters, {models.n_layers} layers, {dtype}"),
        ("objectives", objectives),
        *((name, text) for name, text in optional.items() if text),
        ("seeds", _seeds(loaded)),
        ("sampler", f"{name}: {reason}"),
        ("slopes", _slopes(loaded)),
        ("budget", _budget(loaded)),
        ("gates", "off" if experiment.gates is None else experiment.gates.summary),
        ("race", _RACE_OFF if experiment.race is None else experiment.race.summary),
        ("workers", f"{n_workers} on {worker.device}, {_where(experiment.execution)}"),
        ("kernel", ": ".join(kernel_choice(worker.device))),
        ("experts", _experts(sources, dtype, worker)),
        ("memory", f"{live} of live model for each of {n_workers} workers"),
        *_plan(loaded, sources),
        ("disk", _disk(sources, candidate_bytes)),
    ]


def gpu_note(loaded: Loaded) -> str | None:
    """Say what to know before merging on a GPU; ``None`` if no worker does."""
    worker = on_device(loaded.worker, loaded.experiment.execution)
    return _YOUNG if worker.device == "cuda" else None


def example_recipe(loaded: Loaded) -> str:
    """Decode a space's neutral genes, as YAML: the first rules, and the path if there is one."""
    recipe = loaded.space.recipe(loaded.space.defaults).as_data()
    rules = recipe["rules"]
    more = len(rules) - _MOST_RULES
    path = {"path": recipe["path"]} if "path" in recipe else {}
    text = write_yaml({"rules": rules[:_MOST_RULES], **path})
    return f"{text}# and {more} more rules\n" if more > 0 else text


def _where(execution: ExecutionConfig) -> str:
    """Name what runs the workers; how many a cluster has room for changes with its machines."""
    if not is_on_cluster(execution):
        return execution.executor
    joins = ", more as machines join" if execution.workers == "auto" else ""
    return f"the Ray cluster at {execution.ray_address}{joins}"


def _objective(objective: Objective) -> str:
    metric = "" if objective.task == COST else f" {objective.metric}"
    return f"{objective.direction} {objective.name}{metric}"


def _cost(metric: str) -> str:
    return f"{metric} ({COSTS[Cost.of(metric).name]})"


def _vocabulary(sources: Sources) -> str:
    """Say how models are brought to one vocabulary, a line each, or whose files exports carry."""
    if sources.vocabulary is not None:
        return f"\n{'':12}".join(sources.vocabulary.notes)
    owner = "base" if sources.base is not None else next(iter(sources.experts))
    own = chat_template(sources.anchor.companions)
    others = [n for n, e in sources.experts.items() if chat_template(e.layout.companions) != own]
    found = f"of {owner}, with its chat template, special tokens and generation settings"
    if not others:
        return found
    return f"{found}; another chat template have {', '.join(others)} (tokenizer.chat_template)"


def _parts(sources: Sources) -> str:
    """Say where the parts of models of vision and language come from, a line each."""
    return f"\n{'':12}".join(sources.part_notes)


def _other_configs(sources: Sources) -> str:
    """Name experts that were trained to be run in another way than the base, whose way wins."""
    base, found = _run_by(sources.anchor.config), []
    for name, expert in sources.experts.items():
        own = _run_by(expert.layout.config)
        keys = [key for key in base if key in own and base[key] != own[key]]
        if keys:
            found.append(f"{name} has another {', '.join(keys)}")
    if not found:
        return ""
    return f"{'; '.join(found)}: merges, and the expert itself, are run as the base"


def _run_by(config: Mapping[str, Any]) -> dict[str, Any]:
    """Read what the language model of a config is run by."""
    tower = parts_of(config)
    settings = {**config, **(config.get("text_config") or {})} if tower else config
    found = {key: settings[key] for key in _RUN_BY if key in settings}
    if tower:
        found.pop("model_type", None)  # has a name of its own within a model of two parts
    if isinstance(rope := found.get("rope_parameters"), Mapping):  # sections are for images
        found["rope_parameters"] = {k: v for k, v in rope.items() if "mrope" not in k}
    return found


def _seeds(loaded: Loaded) -> str:
    inside = [seed for seed in loaded.seeds if seed.params is not None]
    names = ", ".join(seed.origin for seed in loaded.seeds) or "none"
    return f"{names} ({len(inside)} of {len(loaded.seeds)} are points of the space)"


def _judges(loaded: Loaded) -> Iterator[str]:
    """Say who judges, and how much: a question is an answer, seen once."""
    for metric, own, n in _own(loaded):
        if (judge := own.judge) is not None:
            key = f", with the key in {judge.api_key_env}" if judge.api_key_env else ""
            questions = f"up to {n * judge.samples} questions a trial"
            yield f"{metric}: {judge.model} at {judge.url}{key}, {questions}"


def _code(loaded: Loaded) -> Iterator[str]:
    """Say what the code of answers is kept from."""
    for metric, own, n in _own(loaded):
        if (runs := own.runs) is not None:
            limits = f"{runs.seconds:g} s of CPU and {runs.memory_mb} MB each"
            kept = {
                "full": "no network, no other processes, no writing outside a folder of its own",
                "limits": "nothing else keeps it from network and files",
            }[runs.confine]
            yield f"{metric}: up to {n} answers a trial, {limits}; {kept}"


def _own(loaded: Loaded) -> Iterator[tuple[str, OwnMetric, int]]:
    """List each metric of one's own that is searched, and for how many answers at most."""
    from evomerge.evaluation.harness import most_texts

    for suite in loaded.tasks.prompted("search"):
        for name, own in suite.suite.metrics.items():
            having = [one for one in suite.tasks if name in one.own]
            yield name, own, sum(len(one.items) * most_texts(one.task) for one in having)


def _images(loaded: Loaded) -> str:
    """Say who answers prompts with images, and what the memory plan leaves out."""
    if (found := loaded.tasks.images) is None:
        return ""
    return (
        f"{found.n} in the prompts of {', '.join(found.tasks)}, answered by lm-eval's "
        "hf-multimodal; gates, kl and climbs look at other tasks alone; beside the memory below, "
        f"each worker holds {bytes_text(found.n_bytes)} of them and what the vision tower takes"
    )


def _report_only(loaded: Loaded) -> str:
    """Name the tasks that the search never sees, and what scoring them comes to."""
    if not loaded.report_only:
        return ""
    tasks = ", ".join(dict.fromkeys(measure.task for measure in loaded.report_only))
    n, n_models = loaded.tasks.n_items(REPORT_ONLY), len(loaded.models.experts) + 3
    trials = n * n_models / loaded.tasks.n_items("search")
    return (
        f"{tasks}: {n} items, never searched; after the search base, experts, uniform average and "
        f"the best candidate are scored on them, which takes about as long as {trials:.2g} trials"
    )


def _engine(engine: EngineChoice) -> str:
    """Say what answers and what it is told; nothing for plain transformers."""
    told = ", ".join(f"{key}: {value}" for key, value in engine.arguments.items())
    named = f"{engine.name} with {told}" if told else ""
    if engine.quantize is not None:
        how = QUANTIZATIONS[engine.quantize].summary
        return f"{named}: candidates are scored with {how}; climbs and exports are not quantized"
    return f"{named or 'vllm'}; {_UNTRIED}" if engine.name == "vllm" else named


def _experts(sources: Sources, dtype: torch.dtype, worker: WorkerSpec) -> str:
    size = bytes_text(needed_bytes(sources, dtype)[0])
    devices = devices_of(worker.device, worker.n_devices)
    match residency_of(sources, dtype, devices, worker.merging_share, worker.engine.quantize):
        case "mapped":
            return f"mapped: {size} of files with the base, one copy for all workers of a machine"
        case "resident":
            return f"resident: {size} with the base, on the device of each worker"
        case "streamed":
            stage = bytes_text(stage_size(sources))
            return (
                f"streamed: {size} with the base pass through the device for each candidate, by "
                f"two buffers of {stage}, there and pinned in memory, for each worker"
            )


def _plan(loaded: Loaded, sources: Sources) -> Iterator[tuple[str, str]]:
    """Say what each device of a worker holds, a line each; nothing of models nobody knows here."""
    worker = on_device(loaded.worker, loaded.experiment.execution)
    plans = list(device_plans(loaded, sources))
    devices = devices_of(worker.device, worker.n_devices)
    if plans:
        lines = [f"{device} {plan}" for device, plan in zip(devices, plans, strict=True)]
        yield "of a worker", f"\n{'':12}".join(lines)


def device_plans(loaded: Loaded, sources: Sources) -> Iterator[DevicePlan]:
    """Reckon what each device of a worker holds; none for models that nobody knows here.

    Args:
        loaded: A checked experiment.
        sources: Its models.
    """
    worker, dtype = on_device(loaded.worker, loaded.experiment.execution), loaded.models.dtype
    own_dtype = output_dtype(sources, dtype)
    room = worker_bytes(loaded.experiment.execution)
    model = model_outline(sources.anchor.config, own_dtype, worker.engine.attention)
    if room is None or model is None:
        return
    steps, vocabulary = loaded.sloped.steps, model.config.get_text_config().vocab_size
    gpu_bytes = None if worker.device == "cpu" else int(room / worker.device_share)
    full = batch_tokens(vocabulary, own_dtype.itemsize, gpu_bytes)
    needed = needed_on(sources, own_dtype, worker.n_devices, worker.engine.quantize)
    together = _n_together(loaded)
    for needs in needed:
        needs.live_bytes *= together + 1
        needs.n_layers *= max(1, together)
    yield from memory_plan(
        model,
        needed,
        device_type=worker.device,
        stage_bytes=stage_size(sources),
        room=room,
        passes=loaded.tasks.largest_passes(full, partial(answers_at_once, model, full)),
        step_bytes=0 if steps is None else steps.n_bytes,
    )


def _n_together(loaded: Loaded) -> int:
    """Count the models that answer together, copies beside what is merged into; 0 of merges."""
    mix = loaded.space.recipe(loaded.space.defaults).ensemble
    return 0 if mix is None else len(mix.weights)


def _disk(sources: Sources, candidate_bytes: int) -> str:
    export = f"{bytes_text(candidate_bytes)} per export; nothing per trial but item scores"
    computed = sum(map(sources.computed_bytes, sources.names))
    if not computed:
        return export
    folder = cache_folder("experts")
    if folder is None:
        return f"{export}; adapters and deltas are computed for each candidate, the cache is off"
    return f"{bytes_text(computed)} of computed adapters and deltas in {folder}, once; {export}"


def _prepared(loaded: Loaded, sources: Sources) -> str:
    """Name the methods whose task vectors are prepared, and what that takes."""
    found = [*filter(None, map(Preparation.parse, loaded.space.statistics))]
    wanted = [preparation.method for preparation in found]
    if not wanted:
        return ""
    shapes = {name: sources.anchor.shape(name) for name in sources.names}
    kept, largest = prepared_bytes(shapes, len(sources.experts))
    most = 4 * largest
    if any(_GRAMS & {*preparation.observations} for preparation in found):
        matrices = [shape for shape in shapes.values() if len(shape) == 2]
        most = max([most, *(regression_bytes(m, len(sources.experts)) for m in matrices)])
    methods, folder = ", ".join(dict.fromkeys(wanted)), cache_folder(PREPARED)
    place = "of memory in each worker, the cache is off" if folder is None else f"in {folder}, once"
    return (
        f"{methods}: {bytes_text(kept * len(wanted))} {place}; about {bytes_text(most)} of "
        "memory while the largest tensor is prepared"
    )


def _budget(loaded: Loaded) -> str:
    budget = loaded.experiment.budget
    limit = "" if budget.wall_clock is None else f", at most {budget.wall_clock:.0f} s"
    return f"{budget.trials} trials{limit}"


def _slopes(loaded: Loaded) -> str:
    """Name what has slopes, and say what climbing along them comes to.

    What has none is in the line of sampler ``auto``, which had to do without.
    """
    sloped, n_genes = loaded.sloped, len(loaded.space.distributions)
    is_auto = loaded.experiment.sampler.name == "auto" and sloped.genes
    lacking = "" if is_auto else sloped.without(loaded.experiment)
    n_with, n = sloped.reasons.count(None), len(sloped.reasons)
    of = "" if n_with == n else f", for {n_with} of {n} objectives"
    genes = f"along {len(sloped.genes)} of {n_genes} genes{of}"
    without = f"; {lacking}" if lacking else ""
    if not sloped.genes or all(sloped.reasons):
        return f"{genes}{without}"
    part = climb_evaluations(100, loaded.tasks.n_items("search"))
    cost = f"100 items of a climb count as {part:.2g} evaluations"
    return f"{genes}{without}; {cost}{_step(sloped.steps)}"


def _step(steps: FittedSteps | None) -> str:
    """Say what memory a step takes, and what makes it small enough."""
    if steps is None:
        return ""
    if steps.obstacle is not None:
        return f", but {steps.obstacle}: {steps.hint}"
    again = ", with layers run again on the way back" if steps.settings.checkpointing else ""
    return f", and a step takes at most {bytes_text(steps.n_bytes)} per worker{again}"
