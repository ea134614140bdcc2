"""What is done with an experiment: it is loaded once, run, continued, read.

Members:
    loaded: every part of an experiment, with every fault of the parts at once.
    parts: search space and task suites from their keys.
    goals: objectives and constraints.
    checks: faults that show only where parts meet.
    importance: layers grouped by the experts' task vectors.
    observed: the prompts that methods with data run the experts on.
    seed_models: what a search starts from, read from recipes and earlier studies.
    sampling: the sampler, and what it may see of single items.
    sloped: which genes and objectives have slopes.
    fitted_steps: how steps along slopes fit into a worker's memory, or that they do not.
    workers: how many, on what.
    events: how a run tells what is happening.
    run: start a study, change its budget, continue it.
    stages: the same for experiments that chain several search spaces.
    stored: the resolved experiment in a study's folder.
    optuna_study: the Optuna study there, or in a database.
    inputs: the models, tokenizer and items of a study, known again by content.
    wholeness: whether the files of a study belong together.
    reading: a study as records, and its item scores beside them.
    cost: what an experiment comes to, printed by ``check``.
    pace: how long trials take, measured before a search.
    calibrate: what objectives can tell apart, measured before a search.
    memory_plan: what each device of a worker holds.
    units: sizes as people read them.
    learned_mask: a mask over task vectors, learned on the search items.
    compare: how the experts' task vectors relate.
    barriers: how the loss rises between models.
    retrieval: what base and experts answer on search items, to choose among the experts.
"""
