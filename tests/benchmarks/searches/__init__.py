"""Whole searches of the embedded models, by our samplers and as other tools search, compared."""
