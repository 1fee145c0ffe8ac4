"""One call from beginning to end: workers, deadlines, cancellation, the value.

This package knows nothing of HTTP, keys or files.
"""
