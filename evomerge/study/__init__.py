"""The study: an Optuna study in a folder, and the loop that fills it.

Members:
    records: what a study knows, as plain records.
    constraints: what a merge must keep.
    folder: the files of a study and their lock.
    json_files: its JSON files, read with care.
    identity: who drives a study that is in a database.
    storage: the Optuna storage of a study.
    trial_journal: Optuna's storage interface over a journal file.
    journal_content: what its records have made of the study so far.
    journal: the file: records, a line each, written together.
    gene_table: params as the journal stores them.
    early_journal: journals of earlier versions, read.
    packed: recipes as they are stored.
    collecting: Python's search for garbage, put off.
    database: a database, which drivers share.
    ledger: what is kept with each trial, written and read.
    evaluations: what trials cost, counted against the budget.
    proposals: the params of a trial, stored whole or not at all.
    drivers: which trials are whose, where several drivers share a study.
    timing: seconds per phase.
    log: what happened when, a line each.
    search: ask, run, tell.
    baseline_queue: baselines, queued before the search and again where constraints need them.
    outcomes: what comes back from workers, checked.
    rivals: what new trials race against.
    finals: held-out scores of the best.
    finals_file: the same as JSON.
"""
