"""Keys, hashes and the contract: functions of bytes, shared by the client and the bridge.

This package knows nothing of the network.
"""
