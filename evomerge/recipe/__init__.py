"""Recipes: complete descriptions of merged models.

Members:
    recipe: ``Recipe``, ``Rule``, ``Selector``, the digest.
    rules: a copy of one model, and the base plus a mix of task vectors, as rules.
    prompts: ``PromptFile``: what methods with data run the experts on.
    path: ``Hop``: which layers the model runs, and in what order.
    ensemble: ``OutputMix``: how models answer together instead of being merged.
    slopes: ``RecipeSlopes``: an objective's slopes along the numbers of a recipe.
    files: YAML in and out.
    foreign: files that are no recipe, known by their keys.
    mergekit: mergekit YAML in and out.
"""
