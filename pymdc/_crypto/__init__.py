"""Keys, hashes and the contract: functions of bytes, shared by the client and the bridge.

It knows nothing of the network.
"""
