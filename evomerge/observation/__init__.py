"""What a model computes on prompts, observed once: what merge methods with data are made of.

Members:
    examples: prompts with or without answers, from a file or from prepared suites.
    reading: examples as the tokens that a model reads.
    labels: what the answers are taken to be, and their log-likelihood with a graph behind.
    observer: one live model and the examples that it reads.
    squares: diagonals of the Fisher information.
    grams: second moments of what goes into linear layers, and of the gradients that come back.
    moments: means and sizes of what goes into linear layers.
    routers: which experts of a mixture tokens are sent to.
    kinds: all of these by name, with the sizes of what they yield.
    blocks: as many tensors at once as memory allows.
    memory: how much that is, before a model is loaded.

To add one, write a function from an ``Observer`` and tensor names to tensors in a file of its own,
and a row in ``kinds.OBSERVATIONS``.
"""
