"""The commands of an operator: ``python -m pymdc.bridge admin``, also while a bridge runs.

This package knows nothing of HTTP: it works on what the bridge stores, as the bridge does.
"""
