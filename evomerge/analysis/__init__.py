"""What a study found: its front, its error bars, its report. Reads records, never models.

Members:
    front: the non-dominated trials and their hypervolume.
    picking: the knee, and `pick` by name.
    winners: which merges go on to the finals or the next stage.
    intervals: estimates with standard errors; Wilson intervals.
    paired: the best merge against base and experts, item by item.
    gain: whether the best merge is better than what was there before it, and what to try.
    silence: objectives in which base and experts do not differ.
    gene_shares: how much of the scores follows from each gene by itself.
    held_out: held-out scores with intervals, and relative to base and best expert.
    forgetting: what merging did to tasks that the search never saw.
    once: what is computed once for each record.
    calibration: what a metric can tell apart, before a search.
    interference: how the experts' task vectors get in one another's way, before a merge.
    retrieval: which experts of a pool suit which task, by their answers on prompts.
    seeded: what average and sums scored, and what follows for the method.
    status: how far a study is, and where its time goes.
    report: one self-contained HTML page.

Add an analysis as one file of functions from `StudyRecord` (or its parts) to a plain result; show
it in the report by a figure in ``report/figures.py`` or a table in ``report/tables.py``.

Submodules are imported by name, so that a caller that needs intervals does not load plotly.
"""

__all__: list[str] = []
