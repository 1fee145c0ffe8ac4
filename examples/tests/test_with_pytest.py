"""Tests with pytest: the fixture ``bucket`` is all the set-up."""


def thumbnail(bucket, name):
    """Upload a thumbnail of a photo; say whether that worked."""
    answer = bucket.files.upload(bytearray(b"tiny"), name=f"small-{name}")
    return "error" not in answer


def test_thumbnail_is_uploaded(bucket):
    assert thumbnail(bucket, "cat.jpg")
    assert [file["filename"] for file in bucket.files.list()] == ["small-cat.jpg"]


def test_full_bridge_is_noticed(bucket, bridge):
    bridge.fail(507, route="PUT /buckets/{id}/files")
    assert not thumbnail(bucket, "cat.jpg")
    assert bucket.files.list() == []


def test_nothing_is_asked_twice(bucket, bridge):
    thumbnail(bucket, "cat.jpg")
    assert [(request.method, request.status) for request in bridge.requests] == [
        ("POST", 200),  # the token
        ("PUT", 200),
    ]
