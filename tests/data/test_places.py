"""Large data: addresses, tables with bytes in a column, and shards are the same examples as a folder is."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import laid
from regraft.data import Source, audit_files
from regraft.data.addresses import Address, below, is_remote, place_of
from regraft.data.cells import _GROUPS
from regraft.data.inputs import inputs
from regraft.data.known import KnownFile, NewFile, content
from regraft.data.patterns import braced
from regraft.data.walker import Passed
from regraft.errors import DataError, Unreadable, UsageError
from regraft.modalities import modality_of, read_source


@pytest.fixture
def memory() -> Iterator[str]:
    """An address in memory, empty."""
    yield "memory://bucket"
    fsspec.filesystem("memory").store.clear()


def told(source: Source) -> list[tuple[str, str]]:
    """(content id, label) of all that can be read, sorted."""
    audited = audit_files(source, lambda **_: None)
    assert not audited.quarantined
    return sorted((fact.id, row.label) for row, fact in zip(audited.rows, audited.facts, strict=True))


@pytest.mark.parametrize("modality", ["image", "text", "audio"])
def test_each_layout_is_the_same_examples_on_disk_in_memory_and_by_file_addresses(
    modality: str, tmp_path: Path, memory: str
) -> None:
    some = laid.items(modality, tmp_path, each=3)
    expected = told(read_source(laid.as_folder(str(tmp_path / "plain"), some, laid.ENDINGS[modality])))
    assert len(expected) == len(some)
    for root in (str(tmp_path / "disk"), memory):
        for name, place in laid.every_layout(root, some, modality).items():
            source = read_source(place)
            assert source.kind.name == modality, name
            assert told(source) == expected, name
    assert told(read_source(f"file://{tmp_path}/disk/folder")) == expected
    assert told(read_source(f"file://{tmp_path}/disk/shards/*.tar")) == expected
    assert told(read_source(tmp_path / "disk" / "shards")) == expected  # a folder of shards
    assert told(read_source(f"{memory}/shards")) == expected


@pytest.mark.parametrize("modality", ["image", "text", "audio"])
def test_what_is_to_be_answered_comes_from_the_same_places(
    modality: str, tmp_path: Path, memory: str
) -> None:
    kind, some = modality_of(modality), laid.items(modality, tmp_path, each=2)
    for root in (str(tmp_path / "disk"), memory):
        places = laid.every_layout(root, some, modality)
        for name in ("folder", "bytes", "struct", "shards") if modality == "text" else places:
            found = list(inputs([places[name]], (), kind, Passed()))
            read = sorted(content(item, 1 << 20) for item in found)
            labels = [one.label.encode() for one in some] if modality == "text" and name == "shards" else []
            assert read == sorted(one.content for one in some), (name, labels)


def test_an_item_is_a_small_text_that_any_process_opens(tmp_path: Path, memory: str) -> None:
    some = laid.items("image", tmp_path, each=2)
    for place in laid.every_layout(memory, some, "image").values():
        source = read_source(place)
        audited = audit_files(source, lambda **_: None)
        item = KnownFile(below(str(source.root), audited.rows[0].source), audited.facts[0].id)
        sent = pickle.dumps(item)
        assert len(sent) < 400
        assert pickle.loads(sent) == item
        assert pickle.loads(sent).read() in {one.content for one in some}


def test_a_shard_that_is_cut_short_gives_what_is_whole_and_says_what_is_not(tmp_path: Path) -> None:
    some = laid.items("image", tmp_path, each=4)
    members = []
    for n, one in enumerate(some):
        members += [(f"{n:03}.cls", one.label.encode()), (f"{n:03}.png", one.content)]
    whole = laid.tar(members)
    with tarfile.open(fileobj=io.BytesIO(whole)) as file:
        cut, start = file.getmember("007.png").offset_data + 100, file.getmember("004.png").offset
    (tmp_path / "photos.tar").write_bytes(whole[:cut])
    audited = audit_files(read_source(tmp_path / "photos.tar"), lambda **_: None)
    assert len(audited.rows) == 7
    (aside,) = audited.quarantined
    assert aside.source == "photos.tar#007.png"
    assert "cut short" in aside.reason
    (tmp_path / "photos.tar").write_bytes(whole[:start] + b"\xff" * 600 + whole[start + 600 :])
    audited = audit_files(read_source(tmp_path / "photos.tar"), lambda **_: None)
    assert 0 < len(audited.rows) < len(some)
    assert any("damaged" in one.reason or "cannot" in one.reason for one in audited.quarantined)
    (tmp_path / "photos.tar").write_bytes(b"\x1f\x8b" + whole)
    with pytest.raises(DataError, match=r"photos.tar: no tar file: it is packed with gzip"):
        read_source(tmp_path / "photos.tar")


def test_members_that_lead_out_of_a_shard_are_not_read(tmp_path: Path) -> None:
    some = laid.items("image", tmp_path, each=2)
    members: list[tuple[str, Any]] = [
        pair
        for n, one in enumerate(some)
        for pair in ((f"{n}.png", one.content), (f"{n}.cls", one.label.encode()))
    ]
    link, hard = tarfile.TarInfo("link.png"), tarfile.TarInfo("hard.png")
    link.type, link.linkname, hard.type, hard.linkname = (
        tarfile.SYMTYPE,
        "/etc/passwd",
        tarfile.LNKTYPE,
        "0.png",
    )
    members += [
        ("../../out.png", some[0].content),
        ("/root.png", some[0].content),
        ("link", link),
        ("hard", hard),
    ]
    (tmp_path / "s.tar").write_bytes(laid.tar(members))
    source = read_source(tmp_path / "s.tar")
    assert len(source.rows) == len(some)
    (note,) = [note for note in source.notes if note.kind == "shard members"]
    assert note.message.startswith("4 members of shards are links")
    passed = Passed()
    assert len(list(inputs([str(tmp_path / "s.tar")], (), modality_of("image"), passed))) == len(some)
    assert not list(tmp_path.parent.glob("out.png"))


def test_labels_and_splits_in_shards(tmp_path: Path) -> None:
    some = laid.items("image", tmp_path, each=2)
    said = b'{"class": "x", "split": "val", "group": 7, "weight": 2}'
    (tmp_path / "train-000.tar").write_bytes(laid.tar([("a.png", some[0].content), ("a.json", said)]))
    (tmp_path / "train-001.tar").write_bytes(laid.tar([("b.png", some[1].content), ("b.cls", b"3\n")]))
    (tmp_path / "test-000.tar").write_bytes(laid.tar([("c.png", some[2].content), ("c.txt", b"x")]))
    rows = {row.source.split("#")[1][0]: row for row in read_source(tmp_path).rows}
    assert (rows["a"].label, rows["a"].split, rows["a"].group, rows["a"].weight) == ("x", "val", "7", 2.0)
    assert (rows["b"].label, rows["b"].split) == ("3", "train")
    assert (rows["c"].label, rows["c"].split) == ("x", "test")
    (tmp_path / "one.tar").write_bytes(
        laid.tar([("red/a.png", some[0].content), ("blue/a.png", some[1].content)])
    )
    assert sorted(row.label for row in read_source(tmp_path / "one.tar").rows) == ["blue", "red"]
    (tmp_path / "one.tar").write_bytes(
        laid.tar([("a.png", some[0].content), ("b.png", some[1].content), ("b.cls", b"x")])
    )
    (aside,) = read_source(tmp_path / "one.tar").aside
    assert "tells its label" in aside.reason
    (tmp_path / "one.tar").write_bytes(laid.tar([("a.png", some[0].content)]))
    with pytest.raises(DataError, match=r"tell no labels(.|\n)*layout of WebDataset"):
        read_source(tmp_path / "one.tar")


def test_answers_of_several_kinds_are_told_in_shards(tmp_path: Path) -> None:
    from regraft.data.answers import Wanted

    some = laid.items("image", tmp_path, each=2)
    members = [
        pair
        for n, one in enumerate(some)
        for pair in ((f"{n}.png", one.content), (f"{n}.json", b'{"labels": ["a", "b"]}'))
    ]
    (tmp_path / "s.tar").write_bytes(laid.tar(members))
    assert read_source(tmp_path / "s.tar").labels == "names"
    members = [
        pair
        for n, one in enumerate(some)
        for pair in ((f"{n}.png", one.content), (f"{n}.json", b'{"height": %d.5}' % n))
    ]
    (tmp_path / "s.tar").write_bytes(laid.tar(members))
    source = read_source(tmp_path / "s.tar", Wanted("regression", targets=("height",)))
    assert source.labels == "number"
    assert len(source.rows) == len(some)


def test_a_table_at_an_address_names_nothing_of_this_machine(memory: str, tmp_path: Path) -> None:
    for name in ("/etc/hostname", f"file://{tmp_path}/a.png"):
        laid.put(f"{memory}/all.csv", f"path,label\n{name},a\nb.png,b\n".encode())
        with pytest.raises(DataError, match=r"row 2: .* a file of this machine"):
            read_source(f"{memory}/all.csv")
    assert below("s3://b/data", "../c/x.png") == "s3://b/c/x.png"
    assert below("s3://b/data", "gs://other/x.png") == "gs://other/x.png"
    assert below("/data", "s3://b/x.png") == "s3://b/x.png"


def test_row_groups_are_read_one_at_a_time_and_few_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, rows = 1 << 16, 40
    monkeypatch.setattr("regraft.data.cells.HELD", held)
    _GROUPS.kept.clear()
    body = [bytes([n]) * (held // 16) for n in range(rows)]
    pq.write_table(pa.table({"image": body}), tmp_path / "t.parquet", row_group_size=2, compression="zstd")
    for n in (0, 1, 39, 2, 17):
        assert NewFile(f"{tmp_path}/t.parquet#image:{n + 1}").read() == body[n]
    for n in range(rows):
        NewFile(f"{tmp_path}/t.parquet#image:{n + 1}").read()
        assert sum(cells.nbytes for cells in _GROUPS.kept.values()) <= held
        assert _GROUPS.kept
    _GROUPS.kept.clear()
    with pytest.raises(OSError, match="no such row"):
        NewFile(f"{tmp_path}/t.parquet#image:41").read()
    with pytest.raises(OSError, match="no column"):
        NewFile(f"{tmp_path}/t.parquet#other:1").read()


def test_what_is_wrong_at_an_address_is_said(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="memory://bucket/none does not exist"):
        read_source(f"{memory}/none")
    with pytest.raises(DataError, match="nothing matches"):
        read_source(f"{memory}/*.tar")
    laid.put(f"{memory}/s-0.tar", laid.tar([("a.png", b"x"), ("a.cls", b"y")]))
    with pytest.raises(
        DataError, match=r"1 of 2 shards cannot be read(.|\n)*s-1.tar: there is no such object"
    ):
        read_source(f"{memory}/s-{{0..1}}.tar")
    laid.put(f"{memory}/all.csv", b"path,label\ngone.png,a\nhere.png,b\n")
    laid.put(f"{memory}/here.png", laid.items("image", tmp_path, 1)[0].content)
    audited = audit_files(read_source(f"{memory}/all.csv"), lambda **_: None)
    assert [(q.source, q.reason) for q in audited.quarantined] == [
        ("gone.png", "cannot be opened: there is no such object")
    ]
    with pytest.raises(Unreadable, match="too large"):
        content(f"{memory}/here.png", 10)

    def refused(*_: Any, **__: Any) -> Any:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "ls", refused)
    with pytest.raises(DataError, match=r"permission denied \(Access Denied\)"):
        read_source(f"{memory}")
    with pytest.raises(UsageError, match="nosuch://bucket"):
        read_source("nosuch://bucket/x")


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> Any:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(UsageError, match="pip install s3fs"):
        read_source("s3://bucket/photos")


def test_offline_no_store_is_asked(tmp_path: Path, memory: str) -> None:
    from regraft.run.session import Session

    session = Session.open({"run": {"offline": True}})
    with pytest.raises(UsageError, match="--offline: s3://bucket/photos is reached by a network"):
        session.source("s3://bucket/photos")
    with pytest.raises(UsageError, match=r"--offline: s3://bucket/a\.tar is reached by a network"):
        session.source("{here.tar,s3://bucket/a.tar}")
    (tmp_path / "all.csv").write_text("path,label\ngs://bucket/a.png,a\nb.png,b\n")
    with pytest.raises(UsageError, match=r"gs://bucket/a.png is reached by a network"):
        session.source(tmp_path / "all.csv")
    some = laid.items("image", tmp_path, each=1)
    assert len(session.source(laid.as_folder(f"{memory}/photos", some, ".png")).rows) == len(some)


def test_a_cell_of_a_table_here_does_not_lead_to_the_network(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from regraft.data.cells import read_cell

    (tmp_path / "a.png").write_bytes(b"here")
    cells = [{"bytes": None, "path": "a.png"}, {"bytes": None, "path": "s3://bucket/a.png"}]
    table = str(tmp_path / "all.parquet")
    pq.write_table(pa.table({"image": cells}), table)
    assert read_cell(table, "image", 0) == b"here"
    with pytest.raises(OSError, match="its cell names a file on the network"):
        read_cell(table, "image", 1)


def test_an_address_that_is_a_text_is_not_fetched_and_one_that_was_named_is(memory: str) -> None:
    from regraft.modalities.text import read_text

    laid.put(f"{memory}/a.txt", b"what the file says")
    assert read_text(f"{memory}/a.txt").text == f"{memory}/a.txt"
    (named,) = inputs([f"{memory}/a.txt"], (), modality_of("text"), Passed())
    assert read_text(named).text == "what the file says"
    (page,) = inputs(["https://example.com/a"], (), modality_of("text"), Passed())
    assert read_text(page).text == "https://example.com/a"


def test_addresses_as_paths() -> None:
    place = Address("s3://bucket/a/b.tar")
    assert (place.name, place.stem, place.suffix, str(place.parent)) == (
        "b.tar",
        "b",
        ".tar",
        "s3://bucket/a",
    )
    assert str(place.parent / "../c.csv") == "s3://bucket/c.csv"
    assert place_of("file:///a/b") == Path("/a/b")
    assert place_of("S3://bucket/a/") == Address("s3://bucket/a")
    assert [is_remote(text) for text in ("s3://a", "memory://a", "file:///a", "/a", "a b")] == [
        True,
        *[False] * 4,
    ]
    assert braced("a{08..11}.{x,y}")[:3] == ["a08.x", "a08.y", "a09.x"]
    assert braced("{a}-{1..2}") == ["{a}-1", "{a}-2"]
