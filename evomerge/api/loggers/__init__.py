"""Loggers: what a run says to experiment trackers, each a thin callback of its own.

Members:
    base: the seam, and which there are.
    followed: what is said of a study and of a trial, the same to every tracker.
    mlflow: MLflow.
    wandb: Weights & Biases.
    tensorboard: TensorBoard.

Add one as a class of ``begin``, a call and ``end``, and a line in ``base``. Where a tracker keeps
what it is told is said to itself, by its environment variables: nothing of it is kept in a study.
"""
