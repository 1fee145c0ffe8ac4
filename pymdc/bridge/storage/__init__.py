"""What the bridge stores: rows in a database, and the bytes of shards as objects.

This package knows nothing of HTTP requests, nor of who may do what.
"""
