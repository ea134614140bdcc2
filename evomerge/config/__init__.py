"""Experiments from YAML: presets, overrides, checks; puts the parts together.

Members:
    experiment: the keys of an experiment file.
    values: how their values are read.
    presets: files found by name or path.
    overrides: ``--set``.
    load: read and resolve.
    spaces: search spaces by kind.
    importance: layers grouped by the experts' task vectors.
    suites: what candidates are scored on.
    objectives: what is traded off, what must be kept.
    sampling: the sampler of an experiment.
    item_scores: what samplers may see of single items.
    seeds: what a search starts from, read from recipes and earlier studies.
    checks: faults that show only where the parts meet.
    assemble: every part of an experiment, every fault at once.
    workers: how many, on what.
    cost: what an experiment comes to, printed by ``check``.
    calibrate: what objectives can tell apart, measured before a search.
    compare: how the experts' task vectors relate.
    stored: the resolved experiment in a study's folder.
    places: where an experiment's models are.
    inputs: what scores depend on outside that folder, compared on resume.
    optuna_study: the Optuna study there, or in a database.
    reading: a study as records.
    wholeness: whether the files of a study belong together.
    runs: start a study, change its budget, continue it.
    stages: the same for experiments that chain several search spaces.
"""
