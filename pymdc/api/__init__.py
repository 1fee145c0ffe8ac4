"""The resources of the bridge, each in the module of its name."""

from pymdc.api.buckets import Bucket, Buckets
from pymdc.api.files import Files
from pymdc.api.keys import Keys
from pymdc.api.users import Users

__all__ = ["Bucket", "Buckets", "Files", "Keys", "Users"]
