"""A study in its folder, running or finished: read, drawn, exported."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal, SupportsIndex, get_args

from evomerge.analysis.picking import pick as pick_trial
from evomerge.config.experiment import Experiment
from evomerge.errors import ConfigError, StudyError
from evomerge.runs.optuna_study import find_study
from evomerge.runs.reading import (
    Results,
    experiment_data,
    is_finished,
    latest_results,
    latest_study,
    package_versions,
)
from evomerge.runs.stored import read_experiment
from evomerge.study.folder import StudyFolder
from evomerge.study.records import StudyRecord, TrialRecord

if TYPE_CHECKING:
    import optuna
    import pandas as pd

    from evomerge.analysis.report.figures import Figure
    from evomerge.export.model import CheckpointForm
    from evomerge.export.rescored import Rescored

__all__ = ["RecipeFormat", "Study", "TrialChoice"]

_HEAD = 4096  # bytes of a file that show whose it is
_RECIPES, _LIVE_RECIPES = 150, 30  # of trials that can be looked at one by one; they take time

RecipeFormat = Literal["recipe", "mergekit"]
"""What a recipe is written as."""

TrialChoice = str | SupportsIndex | TrialRecord
"""A trial: its number, what ``export --pick`` calls it (``knee``, ``best:NAME``), or itself."""


class Study:
    """A study in its folder; every call reads what is there now, also while it runs.

    Of an experiment with stages it is the last stage that has begun.

    Args:
        folder: Where it is, or will be.
    """

    def __init__(self, folder: StudyFolder) -> None:
        self._run = folder

    @classmethod
    def open(cls, dir: str | PathLike[str]) -> Study:
        """Open the study in a folder.

        Raises:
            StudyError: No study here.
        """
        return cls(StudyFolder(Path(dir)).require())

    @property
    def dir(self) -> Path:
        """Its folder."""
        return self._run.root

    @property
    def experiment(self) -> Experiment:
        """The resolved experiment."""
        return read_experiment(self._folder)

    @property
    def results(self) -> Results:
        """Its record and the scores of its items, as they are now."""
        return latest_results(self._run)

    @property
    def record(self) -> StudyRecord:
        """All that is known of it: objectives, trials, held-out scores."""
        return self.results.study

    @property
    def trials(self) -> tuple[TrialRecord, ...]:
        """Every trial, by number."""
        return self.record.trials

    @property
    def is_finished(self) -> bool:
        """Whether its search and finals are done."""
        return is_finished(self._run)

    @property
    def optuna(self) -> optuna.Study:
        """The plain Optuna study, for Optuna's own plots and importances.

        Raises:
            StudyError: It has no trial yet.
        """
        found = find_study(self._folder, self.experiment)
        if found is None:
            raise StudyError(f"expected a study with trials in {self.dir}, found none yet")
        return found

    @property
    def _folder(self) -> StudyFolder:
        return latest_study(self._run)

    def front(self) -> pd.DataFrame:
        """Tabulate the non-dominated trials; see ``api.tables.front_table``."""
        from evomerge.api.tables import front_table

        return front_table(self.record)

    def trials_dataframe(self) -> pd.DataFrame:
        """Tabulate every trial; see ``api.tables.trials_table``."""
        from evomerge.api.tables import trials_table

        return trials_table(self.record)

    def finals(self) -> pd.DataFrame:
        """Tabulate the scores on held-out items; see ``api.tables.finals_table``."""
        from evomerge.api.tables import finals_table

        return finals_table(self.record)

    def best(self, pick: TrialChoice = "knee") -> TrialRecord:
        """Choose a trial.

        Args:
            pick: ``knee``, ``chosen`` (by the finals), ``best:OBJECTIVE``, ``best:mean``,
                ``prefer:A=0.7,B=0.3``, ``trial:N``, or a number.

        Raises:
            StudyError: Unknown choice, or no such complete trial.
        """
        if isinstance(pick, TrialRecord):
            return pick
        return pick_trial(self.record, pick if isinstance(pick, str) else f"trial:{pick}")

    def items(self, trial: TrialChoice, split: str = "search") -> pd.DataFrame:
        """Let the model of a trial answer the items of a split again.

        It is merged in memory, which takes about as long as the trial did. The scores that are
        stored are in ``item_scores``.

        Args:
            trial: Which.
            split: ``search``, ``validation`` or ``test``.

        Returns:
            A row per item: ``task, item, prompt, answer, gold``, and a column per metric.
        """
        from evomerge.api.answers import answered_items

        return answered_items(self._folder, self.best(trial), split)

    def item_scores(self) -> pd.DataFrame:
        """Tabulate the stored score of every item that was scored; see ``ItemStore.read``."""
        return self.results.items

    def plot_front(self) -> Figure:
        """Draw the front: of one objective its progress, of three or more a line per trial."""
        from evomerge.analysis.report.figures import front_figure

        return front_figure(self.record)

    def report(
        self, out: str | PathLike[str] | None = None, *, reload_s: int | None = None
    ) -> Path:
        """Write the report, one self-contained HTML file.

        Args:
            out: The file; ``report.html`` in the study's folder.
            reload_s: Of a run that goes on: seconds after which the page loads itself again. Such
                a page has the recipes of fewer trials.

        Returns:
            The file.

        Raises:
            ConfigError: Something else is in its place.
        """
        from evomerge.analysis.report import REPORT_MARK, About, write_report
        from evomerge.runs.compare import read_comparison

        found, file = self.results, self._run.report if out is None else Path(out)
        if out is not None:
            _check_replaceable(file, REPORT_MARK, "the report")
        return write_report(
            found.study,
            file,
            items=found.items,
            comparison=read_comparison(found.folder.comparison),
            about=About(experiment_data(found.folder), package_versions(), str(self.dir)),
            n_recipes=_LIVE_RECIPES if reload_s else _RECIPES,
            reload_s=reload_s,
        )

    def export(
        self, pick: TrialChoice, out: str | PathLike[str], form: CheckpointForm | None = None
    ) -> Rescored:
        """Write a trial as a Hugging Face folder with recipe and model card, and score it again.

        Args:
            pick: Which; see ``best``.
            out: Folder to write.
            form: Dtype, sizes of files, and whether NaN and infinity are written.

        Returns:
            The scores of the folder beside those of the trial; ``equal`` says whether they agree.

        Raises:
            EvomergeError: No such trial, or the folder cannot be written.
        """
        from evomerge.export.model import export_model
        from evomerge.runs.parts import make_suites

        found, trial = self.results, self.best(pick)
        experiment = read_experiment(found.folder)
        return export_model(
            found.study,
            trial,
            Path(out),
            make_suites(experiment),
            rungs=experiment.rungs,
            items=found.items,
            engine=experiment.engine,
            form=form,
        )

    def export_adapter(self, pick: TrialChoice, out: str | PathLike[str]) -> int:
        """Write the merge of LoRA adapters as one adapter; see ``export.adapter.write_adapter``.

        Returns:
            Its rank.
        """
        from evomerge.export.adapter import write_adapter
        from evomerge.recipe.files import stored_recipe

        trial = self.best(pick)
        return write_adapter(stored_recipe(trial.recipe, trial.number), Path(out))

    def export_recipe(
        self,
        pick: TrialChoice,
        out: str | PathLike[str],
        format: RecipeFormat = "recipe",
    ) -> Path:
        """Write a trial as YAML that ``merge`` reads.

        Args:
            pick: Which; see ``best``.
            out: The file.
            format: ``recipe``, or ``mergekit``.

        Returns:
            The file.

        Raises:
            EvomergeError: No such trial, something else is there, or mergekit cannot express its
                recipe.
        """
        from evomerge.export.model import export_text

        file, trial = Path(out), self.best(pick)
        if format not in get_args(RecipeFormat):
            raise ConfigError(f"expected format recipe or mergekit, got {format!r}")
        text = export_text(trial, format, file)
        _check_replaceable(file, text.partition("\n")[0], f"format {format}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    def __repr__(self) -> str:
        from evomerge.api.page import study_line

        return f"<Study {study_line(self.record)}>"

    def _repr_html_(self) -> str:
        from evomerge.api.page import study_html

        return study_html(self.record)


def _check_replaceable(file: Path, mark: str, what: str) -> None:
    """Refuse a place that is taken by anything but what would be written anew.

    Args:
        file: The place.
        mark: What such a file has near its beginning.
        what: In words.
    """
    if file.is_dir():
        raise ConfigError(f"expected a file for {what}, got the folder {file}")
    if file.exists() and mark.encode() not in file.read_bytes()[:_HEAD]:
        raise ConfigError(f"expected a new file for {what}, {file} is there already")
