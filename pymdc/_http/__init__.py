"""One HTTP request: encoded once, signed for each attempt, retried where that is safe.

This package knows nothing of buckets, shards or callbacks.
"""
