"""Aligners: where an expert's neurons and heads have to go to stand where the base has their like.

An aligner says how much two units are alike (a ``Likeness``); which unit goes where follows from
that (``matching``). Members: ``weights`` compares what units are made of, ``activations`` what they
answer on prompts, ``transport`` spreads each unit over all that are like it. To add one: a file
here, its name in ``models.reference.Aligner`` and a case in ``merging.aligned``.
"""
