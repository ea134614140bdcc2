"""The Optuna study in a study's folder, or in the database that its experiment names."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import optuna
from optuna.samplers import BaseSampler

from evomerge.config.experiment import Experiment
from evomerge.config.load import experiment_digest
from evomerge.errors import StudyError
from evomerge.evaluation.store import ItemStore
from evomerge.optuna_internals import storage_of
from evomerge.runs.goals import constraints_of, objectives_of
from evomerge.runs.stored import early_digest, read_experiment
from evomerge.study.folder import StudyFolder
from evomerge.study.identity import shared_name
from evomerge.study.ledger import Ledger
from evomerge.study.storage import open_storage, repair_journal

__all__ = [
    "find_study",
    "keep_inputs",
    "ledger_of",
    "open_study",
    "serve_dashboard",
    "store_name",
    "stored_inputs",
]

_STUDY_NAME = "evomerge"
_INPUTS = "inputs"  # study attribute: what models, tokenizers and items hold
_DIGEST = "experiment"  # study attribute: which experiment the trials belong to


def open_study(
    folder: StudyFolder,
    experiment: Experiment,
    sampler: BaseSampler,
    found: optuna.Study | None = None,
) -> optuna.Study:
    """Open the study to run it, after making it or repairing what a killed driver left.

    Call only under the folder's lock.

    Args:
        folder: Where it is, or will be.
        experiment: What it is about.
        sampler: Asks its trials.
        found: It, if this process has found it: what was read of its journal is not read again.

    Raises:
        StudyError: The study belongs to another experiment.
    """
    _quiet_optuna()
    if experiment.storage is None:
        repair_journal(folder.journal)
    storage = storage_of(found) if found else open_storage(folder.journal, experiment.storage)
    study = optuna.create_study(
        storage=storage,
        study_name=_study_name(folder, experiment),
        directions=[o.direction for o in experiment.objectives],
        sampler=sampler,
        load_if_exists=True,
    )
    digest = experiment_digest(experiment)
    if study.user_attrs.get(_DIGEST) not in (None, digest, early_digest(folder)):
        raise StudyError(
            f"the study in {folder.root} was started with another experiment than its "
            "experiment.yaml says now; restore that file"
        )
    study.set_user_attr(_DIGEST, digest)
    return study


def ledger_of(study: optuna.Study, folder: StudyFolder, experiment: Experiment) -> Ledger:
    """Open what is kept with the trials of a study."""
    return Ledger(
        study,
        objectives_of(experiment),
        ItemStore(folder.items),
        constraints_of(experiment),
        experiment.models.located(),
    )


def stored_inputs(study: optuna.Study | None) -> dict[str, str]:
    """Read what the files held that a study's trials were scored with; see ``config.inputs``.

    Returns:
        Digests by what they are of; empty without a study, for one without trials, or of before
        this was kept.
    """
    found = {} if study is None or not study.get_trials(deepcopy=False) else study.user_attrs
    return dict(found.get(_INPUTS, {}))


def keep_inputs(study: optuna.Study, digests: Mapping[str, str]) -> None:
    """Store what the files hold that trials are scored with from now on."""
    if study.user_attrs.get(_INPUTS) != digests:
        study.set_user_attr(_INPUTS, dict(digests))


def find_study(folder: StudyFolder, experiment: Experiment) -> optuna.Study | None:
    """Find the study to read it; ``None`` if no driver has made it yet."""
    if experiment.storage is None and not folder.journal.is_file():
        return None
    _quiet_optuna()
    storage = open_storage(folder.journal, experiment.storage)
    name = _study_name(folder, experiment)
    names = [study.study_name for study in storage.get_all_studies()]
    return optuna.load_study(study_name=name, storage=storage) if name in names else None


def serve_dashboard(folder: StudyFolder, port: int, serving: Callable[[str], None]) -> None:
    """Serve optuna-dashboard on a study until interrupted.

    Args:
        folder: Of the study.
        port: On this machine.
        serving: Called with the address when all is ready.

    Raises:
        StudyError: No study here, or optuna-dashboard is not installed.
    """
    experiment = read_experiment(folder)
    try:
        from optuna_dashboard import run_server
    except ImportError:
        raise StudyError(
            "optuna-dashboard is not installed; pip install 'optuna-dashboard>=0.20'"
        ) from None
    storage = open_storage(folder.journal, experiment.storage)
    serving(f"http://127.0.0.1:{port}")
    run_server(storage, host="127.0.0.1", port=port)


def store_name(folder: StudyFolder, experiment: Experiment) -> str:
    """Name where the trials of a study are kept, for people."""
    return str(folder.journal) if experiment.storage is None else "the database"


def _study_name(folder: StudyFolder, experiment: Experiment) -> str:
    """A database may hold many studies, a journal file just one."""
    return _STUDY_NAME if experiment.storage is None else shared_name(folder)


def _quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
