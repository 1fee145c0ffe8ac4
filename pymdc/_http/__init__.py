"""One HTTP request: encoded once, signed for each sending, sent again where that is right.

It knows nothing of buckets, shards or callbacks.
"""
