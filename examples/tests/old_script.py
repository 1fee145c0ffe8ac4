"""A script as in 2016: it names no bridge, and prints what its callbacks get."""

from pymdc.api import Bucket, Buckets
from pymdc.keypair import ECDSA

with open("my.key") as file:
    key_pair = ECDSA(None, file.read())


def show(answer):
    print(answer["name"])


thread = Buckets(key_pair).create("holiday", 10, 30, [], show)
thread.join()
bucket = Bucket(Buckets(key_pair).list()[0]["id"], key_pair)
print(bucket.files.upload("my.key", bucket.files.token("PUSH")["token"])["filename"])
