"""What the bridge keeps: rows in a database, and the bytes of shards as objects.

It knows nothing of HTTP, and not who may ask for what.
"""
