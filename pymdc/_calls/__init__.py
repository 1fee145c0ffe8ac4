"""One call from its beginning to its end: workers, deadlines, cancellation, the value.

It knows nothing of HTTP, keys or files.
"""
