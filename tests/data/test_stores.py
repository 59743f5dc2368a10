"""Data in an object store, by the real client of S3 and a stand-in for the store on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import laid
from bucket import Bucket
from regraft.data import Source, audit_files
from regraft.data.inputs import inputs
from regraft.data.known import NewFile, content
from regraft.data.walker import Passed
from regraft.errors import DataError
from regraft.modalities import modality_of, read_source

pytest.importorskip("s3fs", reason="needs s3fs: pip install 'regraft[s3]'")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A bucket with every layout of the same images, which the client is told of."""
    import s3fs

    some = laid.items("image", tmp_path, each=2)
    laid.every_layout(str(tmp_path / "disk"), some, "image")
    root = tmp_path / "disk"
    files = {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}
    server = Bucket(files)
    for name, value in {
        "AWS_ENDPOINT_URL": server.address,
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    yield server
    s3fs.S3FileSystem.clear_instance_cache()
    server.close()


def told(source: Source) -> list[tuple[str, str]]:
    """(content id, label) of all that can be read, sorted."""
    audited = audit_files(source, lambda **_: None)
    return sorted((fact.id, row.label) for row, fact in zip(audited.rows, audited.facts, strict=True))


def test_a_bucket_is_read_as_a_folder_is(store: Bucket, tmp_path: Path) -> None:
    expected = told(read_source(tmp_path / "disk" / "folder"))
    for name in ("folder", "paths/all.csv", "plain.parquet", "struct.parquet", "shards", "labels/*.tar"):
        assert told(read_source(f"s3://bucket/{name}")) == expected, name
    found = inputs(["s3://bucket/shards/shards-{000..002}.tar"], (), modality_of("image"), Passed())
    assert sorted(content(item, 1 << 20) for item in found) == sorted(
        file.read_bytes() for file in (tmp_path / "disk" / "folder").rglob("*.png")
    )


def test_the_audit_reads_each_object_once(store: Bucket) -> None:
    told(read_source("s3://bucket/folder"))
    read = {key: count for (how, key), count in store.asked.items() if how == "GET" and key.endswith(".png")}
    assert len(read) == 6
    assert set(read.values()) == {1}
    assert sum(count for (how, key), count in store.asked.items() if key.endswith(".png")) == 6


def test_what_a_store_refuses_is_said(store: Bucket) -> None:
    key = next(key for key in store.objects if key.startswith("folder/red/"))
    store.closed.add(key)
    audited = audit_files(read_source("s3://bucket/folder"), lambda **_: None)
    (aside,) = audited.quarantined
    assert aside.source == key.removeprefix("folder/")
    assert "permission denied" in aside.reason
    with pytest.raises(DataError, match="s3://bucket/nothing does not exist"):
        read_source("s3://bucket/nothing")
    with pytest.raises(OSError, match="no such object"):
        NewFile("s3://bucket/folder/none.png").read()
