"""The resources of the bridge, one module for each."""

from pymdc.api.buckets import Bucket, Buckets
from pymdc.api.files import Files
from pymdc.api.keys import Keys
from pymdc.api.users import Users
from pymdc.keypair import ECDSA
from pymdc.rest import REST

__all__ = ["ECDSA", "REST", "Bucket", "Buckets", "Files", "Keys", "Users"]
