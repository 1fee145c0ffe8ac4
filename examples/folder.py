"""A folder goes up, many files at a time, and comes back with its subfolders.

    .venv/bin/python examples/folder.py [FOLDER]

It starts a bridge of its own, and exits with 0 only if the folder that came back is the same. On a
terminal it draws a progress bar for each file.

A bucket has no folders, so the paths are kept in a file of their own, a manifest.
"""

import io
import json
import sys
import tempfile
from pathlib import Path

import pymdc
from pymdc.bridge import Bridge

MANIFEST = "manifest.json"


def upload_folder(files: pymdc.api.Files, folder: Path) -> str:
    """Upload the files in *folder* and their manifest; return the hash of the manifest."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    calls = [
        files.upload(path, callback=lambda entry: None, progress=pymdc.progress_bar)
        for path in paths
    ]
    hashes = {
        path.relative_to(folder).as_posix(): pymdc.unwrap(call.result())["hash"]
        for path, call in zip(paths, calls, strict=True)
    }
    manifest = bytearray(json.dumps(hashes).encode())
    return str(pymdc.unwrap(files.upload(manifest, name=MANIFEST))["hash"])


def download_folder(files: pymdc.api.Files, manifest_hash: str, folder: Path) -> int:
    """Download the files of a manifest into *folder*; return their number."""
    manifest = io.BytesIO()
    pymdc.unwrap(files.download(manifest_hash, to=manifest))
    calls = []
    for name, file_hash in json.loads(manifest.getvalue()).items():
        target = folder / name
        if not target.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{name!r} leads out of {folder}")
        target.parent.mkdir(parents=True, exist_ok=True)
        calls.append(
            files.download(
                file_hash, to=target, callback=lambda answer: None, progress=pymdc.progress_bar
            )
        )
    for call in calls:
        pymdc.unwrap(call.result())
    return len(calls)


def make_folder(folder: Path) -> Path:
    """Fill *folder* with a few files, two of them with the same content."""
    for number, name in enumerate(["notes.txt", "photos/one.jpg", "photos/2026/two.jpg"]):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number]) * 1_000_000)
    (folder / "copy of notes.txt").write_bytes((folder / "notes.txt").read_bytes())
    return folder


def contents(folder: Path) -> dict[Path, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder): path.read_bytes() for path in files}


def make_bucket(bridge: Bridge, client: pymdc.Client) -> pymdc.api.Bucket:
    user = pymdc.api.Users("you@example.com", "a good password", client=client)
    user.register()
    user.activate(bridge.activation_key(user.username))  # usually the token comes by mail
    keys = pymdc.api.Keys(user)
    keys.create()
    made = pymdc.api.Buckets(keys.key_pairs[0], client=client).create("folder", 10, 30, [])
    return pymdc.api.Bucket(made["id"], keys.key_pairs[0], client=client)


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary, Bridge() as bridge:
        given = Path(sys.argv[1]) if len(sys.argv) > 1 else make_folder(Path(temporary, "given"))
        if not given.is_dir():
            sys.exit(f"There is no folder {given}")
        back = Path(temporary, "back")
        with pymdc.Client(bridge.endpoint, raises=True) as client:
            files = make_bucket(bridge, client).files
            try:
                manifest_hash = upload_folder(files, given)
                count = download_folder(files, manifest_hash, back)
            except (pymdc.PymdcError, OSError) as error:
                sys.exit(f"It ends here: {error}")
        if contents(back) != contents(given):
            sys.exit("What came back is not what went up.")
        print(f"Success: {count} files went up and came back, byte for byte.")


if __name__ == "__main__":
    main()
