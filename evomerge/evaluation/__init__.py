"""A live model in, item scores out: lm-eval tasks, built once and replayed for every candidate.

    suite.py          what one evaluator file says; the three splits
    selection.py      which items make up a split
    task_files.py     task YAML of a user: paths and code in it
    index.py          finding tasks by name
    tasks.py          loading them, every fault at once
    examples.py       which examples items may be prompted with
    requests.py       the prompts of one split
    chat.py           what a suite says of chat templates fits the tokenizer
    generation.py     how a suite wants answers generated
    reasoning.py      tags of reasoning, and the answer after it
    rungs.py          a task cut into parts that are scored one after another
    racing.py         whether a trial goes on after a rung
    item_response.py  scores of some items completed to all, from the run's own complete trials
    benchmark_guard.py  public benchmarks are not searched by what they are reported by
    gates.py          when a broken candidate is given up before it is scored
    probe.py          how gates look at it
    aggregate.py      from responses to numbers
    catalogue.py      tasks loaded, prompted and checked once, without a model
    answers.py        how long the answers are, and how many are cut off
    divergence.py     how far the predictions are from a reference model's
    engine.py         the seam to what runs the model
    engine_choice.py  which engine, and what it is told
    kinds.py          requests by kind, as every engine answers them
    transformers_engine.py  the default engine
    batches.py        which requests go through the model together
    memory.py         fewer of them where memory runs out
    likelihood.py     its log-likelihoods
    shared_context.py  the same where choices share their prompt
    prefix.py         the same where all prompts of a task begin alike
    cached.py         keys and values of sequences that leave and join
    decoding.py       its answers, and of which models
    running.py        answers under way in one batch, which others join
    choosing.py       the next token: the likeliest, or drawn
    stops.py          when an answer is finished
    vllm_engine.py    vLLM, kept equal to the live model
    prepared.py       scoring a live model again and again
    scores.py         what scoring yields
    own_metrics.py    metrics of one's own: what the key says
    own_functions.py  those that are Python functions
    judge.py          those that ask a language model
    endpoint.py       how it is asked
    code_runs.py      those that run what models write
    confined.py       the program that runs it
    scored_items.py   what such metrics see, and what they say
    own_checks.py     what may be wrong with them
    own_values.py     their values of a task
    samples.py        an item for people: prompt, answer, gold
    smooth.py         metrics that move where accuracy stands still
    losses.py         smooth losses whose gradients flow into the live model
    item_losses.py    the formulas: from what is read off a model to a loss
    targets.py        what a model should say about each item
    right_answers.py  what a model should write where a task generates
    grader.py         which texts a task counts as right
    sloped_objectives.py  the items of an objective, or why it has no slope
    passes.py         how large a batch is at most
    step_memory.py    how much memory it takes, and a microbatch with its way back
    teacher_forcing.py  reading sequences with a graph behind, in microbatches
    store.py          item scores on disk
    content.py        what scores depend on beside the model's parameters
    score_cache.py    scores of recipes that were scored before
    bounded.py        a bound on the memory that templates take
    hygiene.py        lm-eval kept silent, reproducible and harmless
    harness.py        what touches lm-eval's tasks
    language_model.py  a live model as lm-eval sees it
    image_model.py    the same with images in prompts; no other file imports lm_eval
    images.py         which tasks have some, what stands in their way, what their pixels are

Members are imported on first use, so that importing this package loads neither torch nor lm_eval.
To add a task, put lm-eval YAML in a folder and name the folder as ``include_path``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge.evaluation.scores import ItemScore, MetricValue, Scores
from evomerge.evaluation.suite import DEFAULT_SPLITS, SPLITS, Suite

if TYPE_CHECKING:
    from evomerge.evaluation.catalogue import TaskCatalogue
    from evomerge.evaluation.prepared import PreparedSuites

__all__ = [
    "DEFAULT_SPLITS",
    "SPLITS",
    "ItemScore",
    "MetricValue",
    "PreparedSuites",
    "Scores",
    "Suite",
    "TaskCatalogue",
]


def __getattr__(name: str) -> object:
    if name == "PreparedSuites":
        from evomerge.evaluation.prepared import PreparedSuites

        return PreparedSuites
    if name == "TaskCatalogue":
        from evomerge.evaluation.catalogue import TaskCatalogue

        return TaskCatalogue
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
