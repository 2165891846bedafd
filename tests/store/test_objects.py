"""objects.py: the real API of S3, and a folder."""

import os

import pytest

from millhand.core.errors import MillhandError, ObjectMissingError, ObjectStoreError
from millhand.store.objects import FolderStore, open_store
from tests.support.object_storage import BUCKET, files


@pytest.fixture(params=["folder", "s3"])
def objects(request, tmp_path):
    """A store of each kind that we can have here."""
    if request.param == "folder":
        return open_store(f"file://{tmp_path}/ob%20jects", {})
    server = request.getfixturevalue("s3_environment")
    return open_store(f"s3://{BUCKET}/a/prefix", server.environment)


async def test_what_is_written_is_read(objects):
    """An object comes back to the byte, the last writing counts, and the check leaves nothing behind."""
    await objects.check()
    await objects.put("logs/x/1.txt", b"old")
    await objects.put("logs/x/1.txt", "nëw 😀\0".encode())

    assert await objects.get("logs/x/1.txt") == "nëw 😀\0".encode()
    with pytest.raises(ObjectMissingError, match="MILLHAND_OBJECT_STORE"):
        await objects.get("millhand.check")


async def test_deleting_is_thorough(objects):
    """Objects that are gone already keep none of the others from being deleted."""
    keys = [f"logs/x/{i}.txt" for i in range(5)]
    for key in keys[1::2]:
        await objects.put(key, b"x")

    await objects.delete(keys)
    for key in keys:
        with pytest.raises(ObjectMissingError):
            await objects.get(key)


async def test_a_folder_keeps_no_rubbish(tmp_path):
    """With the last object its folders go, and so does what a crash left half-written under its name."""
    objects = FolderStore(tmp_path)
    await objects.put("logs/day/job/1.txt", b"x")
    (tmp_path / "logs/day/job/2.txt#1").write_bytes(b"half")

    await objects.delete(["logs/day/job/1.txt", "logs/day/job/2.txt"])
    assert files(tmp_path) == []


async def test_an_endpoint_that_is_away_is_an_error_of_ours(s3_environment):
    """Whoever asks hears that object storage can't be used, not the library's words with hosts and buckets in them."""
    objects = open_store(f"s3://no-such-bucket-{os.getpid()}", s3_environment.environment)

    with pytest.raises(ObjectStoreError) as raised:
        await objects.put("x", b"x")
    assert "bucket" not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["", "logs", "/var/logs", "https://x/y", "s3://", "file://", "memory:///", "s3:bucket", "az://onlyaccount"]
)
def test_a_url_that_names_no_store_is_refused(url):
    """The error names the setting and the forms that can be used."""
    with pytest.raises(MillhandError, match=r"MILLHAND_OBJECT_STORE.*s3://BUCKET"):
        open_store(url, {})


def test_a_folder_is_closed_to_others(tmp_path):
    """A new folder is made for us alone; one that others can look into is refused: jobs would read each other's logs."""
    open_store(f"file://{tmp_path}/new", {})
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700

    (tmp_path / "new").chmod(0o755)
    with pytest.raises(MillhandError, match="chmod 700"):
        open_store(f"file://{tmp_path}/new", {})


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    """Where a file is in the way, the error says so."""
    (tmp_path / "file").touch()
    with pytest.raises(MillhandError, match="can't use the folder"):
        open_store(f"file://{tmp_path}/file/x", {})
