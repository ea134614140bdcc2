"""The command line: parse, call, print.

Members:
    main: the application and its exit codes.
    searching: check, run, resume.
    calibrating: calibrate.
    reading: status, front, report, export, dashboard.
    models: merge, evaluate.
    catalogue: presets, methods, samplers, zoo.
    progress: the progress bar of a search.
    terminal: tables, errors, JSON.
"""
