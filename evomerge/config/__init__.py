"""Experiments from YAML: presets, overrides, checks of every key.

Members:
    experiment: the keys of an experiment file.
    values: how their values are read.
    presets: files found by name or path.
    overrides: ``--set``.
    load: read and resolve.
    evolve: experiments from files of mergekit-evolve.
    places: where models are, which may change during a study.
"""
