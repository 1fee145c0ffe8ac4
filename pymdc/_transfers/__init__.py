"""Uploads and downloads: sources, the body of an upload, shards, channels and part files.

This package knows nothing of nonces, retries of requests or callbacks.
"""
