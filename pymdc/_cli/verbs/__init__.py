"""The verbs: one module for those that belong together; the table is in ``program.py``."""
