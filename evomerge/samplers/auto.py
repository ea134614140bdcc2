"""The rule behind ``sampler: auto``."""


def choose(space, *, n_objectives, n_trials):
    return "tpe", ""
