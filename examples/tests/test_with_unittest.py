"""Tests with unittest: the class ``BridgeTestCase`` is all the set-up."""

import unittest

from pymdc.testing import BridgeTestCase


class UploadTest(BridgeTestCase):
    def test_file_comes_back(self):
        self.bucket.files.upload(bytearray(b"meow"), name="cat.txt")
        [file] = self.bucket.files.list()
        self.assertEqual(file["size"], 4)

    def test_token_expires(self):
        token = self.bucket.files.token("PUSH")["token"]
        self.bridge.clock.advance(301)
        answer = self.bucket.files.upload(bytearray(b"meow"), token, name="cat.txt")
        self.assertEqual(answer, {"error": "Invalid or expired token"})


if __name__ == "__main__":
    unittest.main()
