"""Recipes: complete descriptions of merged models.

Members:
    recipe: ``Recipe``, ``Rule``, ``Selector``, the digest.
    files: YAML in and out.
    mergekit: mergekit YAML in and out.
"""
