"""Studies as earlier versions left them; every later version must resume them.

make.py                  makes such a study: ``python -m tests.studies.make FOLDER``
before_schema_versions/  by the code before experiments had a schema version
schema_1/                by the code that brought it
defaults.json            what the keys of schema 1 are where an experiment does not say
"""
