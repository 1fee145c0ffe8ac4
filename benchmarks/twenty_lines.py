"""What somebody would write without pymdc: a pool of threads, urllib3 and a signer.

This code has none of pymdc's guarantees: nothing is sent again, no deadline covers a whole call,
nothing can be cancelled, two nonces may be equal, and forks and the end of the program are not
handled.
"""

import json
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import urllib3

from pymdc import ECDSA


class TwentyLines:
    """Signed GETs of *path* on *workers* threads, each with a connection that is kept alive."""

    def __init__(self, host: str, port: int, path: str, workers: int) -> None:
        self.pool = urllib3.HTTPConnectionPool(host, port, maxsize=workers, retries=False)
        self.executor = ThreadPoolExecutor(workers)
        self.path = path
        self.key_pair = ECDSA()
        self.public_key = self.key_pair.get_public_key()

    def submit(self) -> Future[Any]:
        return self.executor.submit(self.get)

    def get(self) -> Any:
        query = f"__nonce={time.time() * 1000:.3f}"
        signature = self.key_pair.sign(f"GET\n{self.path}\n{query}")
        headers = {"x-pubkey": self.public_key, "x-signature": signature}
        answer = self.pool.urlopen("GET", f"{self.path}?{query}", headers=headers)
        return json.loads(answer.data)

    def close(self) -> None:
        self.executor.shutdown()
        self.pool.close()
