"""The command line: parse, call, print.

Members:
    main: the application and its exit codes.
    options: arguments and options that several commands share.
    starting: init.
    searching: check, run, resume.
    importing: import.
    calibrating: calibrate.
    comparing: compare.
    reading: status, front, report, dashboard.
    exporting: export.
    models: merge, average, moe, fewer-experts, transplant, evaluate.
    masking: masks, twins, restore, learn-mask.
    catalogue: presets, methods, samplers, zoo.
    genes: the genes of a space as a short table.
    results: what a study found, as tables.
    terminal: tables, errors, JSON.
"""
