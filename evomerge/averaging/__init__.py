"""Averages over one training run, of its checkpoints or while it trains.

Members:
    checkpoints: what a Hugging Face Trainer has saved, in the order of steps, and what it measured.
    shares: how much of an average each of them is: windows, moving averages, weights by loss.
    averaging: such an average as an ordinary recipe.
    callback: a callback of the Trainer that keeps an average in memory, and writes it at the end.
"""
