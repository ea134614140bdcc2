"""What people call from Python; the command line calls the same.

Members:
    study: a study in its folder, read, drawn and exported.
    running: run and resume, with callbacks.
    callbacks: who hears of a run, and what becomes of it when one raises.
    loggers: MLflow, Weights & Biases, TensorBoard.
    merging: one recipe as a live model or a folder.
    transplanting: a model with the vocabulary of another one, as a folder.
    shrinking: a mixture of experts with fewer of them, as a folder.
    masking: one merge with something kept per expert, and back; one mask for all experts.
    evaluating: scores of a live model or a folder.
    comparing: how far experts moved, and what is known of mixing them.
    starting: a first experiment that fits experts, tasks and time.
    answers: what a trial's model answers, item by item.
    tables: a study as data frames.
    page: a study as a piece of a notebook.

``import evomerge`` lists the names that stay as they are; each is loaded when it is first used.
"""
