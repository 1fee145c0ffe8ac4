"""Files up and down: what is read, the form it is sent in, shards, channels and part files.

It knows nothing of nonces, retries of requests or callbacks.
"""
