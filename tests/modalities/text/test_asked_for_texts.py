"""What a call of predict names where an item may be a text that is written there: files stay files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import texts
from regraft.backbones import make_base, obtain_weights
from regraft.data import Passed, inputs
from regraft.errors import DataError, Unreadable
from regraft.modalities import modality_of
from regraft.modalities.text import TextPreprocess, read_text

WRITTEN = "The café is open — for 5 €, not more"
STORED = {  # as files hold it
    "utf-8.txt": WRITTEN.encode(),
    "marked.txt": WRITTEN.encode("utf-8-sig"),
    "sixteen.txt": WRITTEN.encode("utf-16"),
    "other.txt": b"\xfe\xff" + WRITTEN.encode("utf-16-be"),
    "thirty-two.txt": WRITTEN.encode("utf-32"),
    "windows.txt": WRITTEN.encode("cp1252"),
    "nul.txt": f"one\0two {WRITTEN * 4}".encode(),
    "odd.txt": b"\xff\xfeabc",  # marked as UTF-16, and none
    "binary.txt": bytes(range(256)) * 8 + bytes(200),
    "blank.txt": b" \n\t",
    "empty.txt": b"",
}


def asked(*names: str | Path, lines: tuple[str, ...] = ()) -> list[str]:
    """What is read for these names, or why not."""

    def said(item: object) -> str:
        try:
            return read_text(item).text
        except Unreadable as error:
            return f"no: {error}"

    return [said(item) for item in inputs([str(n) for n in names], lines, modality_of("text"), Passed())]


def test_a_file_of_any_ending_is_read_and_not_taken_for_its_name(tmp_path: Path) -> None:
    (tmp_path / "note.md").write_text("what the note says")
    (tmp_path / "list.csv").write_text("path\nnote.md\nnone.md\n")
    assert asked(tmp_path / "note.md") == ["what the note says"]
    assert asked(tmp_path / "list.csv") == [
        "what the note says",
        "no: cannot be opened: No such file or directory",
    ]
    assert asked("what is a note.md ?") == ["what is a note.md ?"]


def test_a_line_that_is_called_like_a_folder_is_a_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "news").mkdir()
    (tmp_path / "news" / "one.txt").write_text("from the folder")
    (tmp_path / "two.txt").write_text("from a file")
    lines = ("news\n", "two.txt\n", "none.txt\n", "who\0 is it\n")
    assert asked("-", lines=lines) == [
        "news",
        "from a file",
        "no: cannot be opened: No such file or directory",
        "who  is it",
    ]
    assert asked("news") == ["from the folder"]


def test_a_table_that_is_not_there_is_no_text() -> None:
    with pytest.raises(DataError, match="no such table"):
        asked("reviews.csv")


def test_a_server_counts_characters_and_not_bytes() -> None:
    extent = modality_of("text").extent
    assert extent.of("äöü".encode()) == 3
    assert extent.of("漢字".encode("utf-16")) == 2


@pytest.fixture(scope="module")
def preprocess(tmp_path_factory: pytest.TempPathFactory) -> TextPreprocess:
    folder = texts.tiny_encoder(tmp_path_factory.mktemp("encoder") / "bert")
    made, _ = modality_of("text").preprocess(
        obtain_weights(f"path:{folder}", modality="text").config, 62, None, None, True
    )
    return made


def test_the_program_beside_an_export_reads_files_as_the_model_does(
    preprocess: TextPreprocess, tmp_path: Path
) -> None:
    pytest.importorskip("tokenizers", reason="pip install 'regraft[text]'")
    intake = preprocess.intake()
    (tmp_path / "tokenizer.json").write_text(preprocess.tokenizer)
    names = {"np": np, "Path": Path, "SETTINGS": intake.settings, "__file__": str(tmp_path / "predict.py")}
    exec(intake.reading, names)  # as the program has it, with what stands around it there
    seen = set()
    for name, content in STORED.items():
        (tmp_path / name).write_bytes(content)
        try:
            ours = [number for number in preprocess.host(tmp_path / name).tolist() if number >= 0]
        except Unreadable as error:
            with pytest.raises(ValueError, match=str(error)):
                names["read"](tmp_path / name)
            continue
        theirs = names["read"](tmp_path / name)
        assert theirs["ids"][0][theirs["mask"][0] == 1].tolist() == ours, name
        seen.add(tuple(ours))
    assert len(seen) == 3  # the same text in six forms, and two others


def test_a_network_without_a_loss_is_not_asked_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Converters look at every attribute; the library answers this one with a warning to the user."""
    import transformers.modeling_utils as library

    told: list[str] = []
    monkeypatch.setattr(library.logger, "warning_once", lambda text, *rest: told.append(text))
    obtained = obtain_weights(f"path:{texts.tiny_encoder(tmp_path / 'bert')}", modality="text")
    made, _ = modality_of("text").preprocess(obtained.config, 62, None, None, True)
    module = make_base(obtained, made).module
    for part in module.modules():
        for name in dir(type(part)):
            getattr(part, name, None)
    assert told == []
