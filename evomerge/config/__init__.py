"""Experiments from YAML: presets, overrides, checks; puts the parts together.

Members:
    experiment: the keys of an experiment file.
    presets: files found by name or path.
    overrides: ``--set``.
    load: read and resolve.
    spaces: search spaces by kind.
    importance: layers grouped by the experts' task vectors.
    seeds: what a search starts from, read from recipes and earlier studies.
    assemble: every part of an experiment, every fault at once.
    calibrate: what objectives can tell apart, measured before a search.
    stored: the resolved experiment in a study's folder.
    runs: start, continue and read a study in its folder.
    stages: the same for experiments that chain several search spaces.
"""
