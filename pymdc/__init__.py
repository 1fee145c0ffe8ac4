"""The client of the Metadisk API: every method blocks, or takes a callback."""

from pymdc import api, keypair, rest, unirest
from pymdc._call import Call
from pymdc.client import Client
from pymdc.exceptions import BridgeError, Cancelled, PymdcError, unwrap
from pymdc.keypair import ECDSA

__version__ = "0.1.0"
__all__ = [
    "ECDSA",
    "BridgeError",
    "Call",
    "Cancelled",
    "Client",
    "PymdcError",
    "api",
    "keypair",
    "rest",
    "unirest",
    "unwrap",
]
