"""``pymdc sync``: a folder and a bucket are made equal, in one direction.

The bridge has one entry for each content, under one name without folders. The paths are in the
manifest, a file in the bucket. It knows nothing of click.
"""
