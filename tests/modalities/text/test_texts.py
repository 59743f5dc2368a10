from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import texts
from regraft.errors import DataError, Unreadable
from regraft.modalities import modality_of, read_source
from regraft.modalities.text import inspect_text, read_text
from regraft.modalities.text.inspect import is_card
from regraft.modalities.text.language import language_of
from regraft.modalities.text.same import minhash, simhash, similarity, vectors


@pytest.mark.parametrize(
    ("content", "text", "encoding"),
    [
        (b"plain", "plain", "utf-8"),
        ("naïve €".encode(), "naïve €", "utf-8"),
        ("\ufeffmarked".encode(), "marked", "utf-8"),
        ("naïve €".encode("utf-16"), "naïve €", "utf-16"),
        ("naïve €".encode("utf-32"), "naïve €", "utf-32"),
        ("naïve €".encode("cp1252"), "naïve €", "cp1252"),
        (b"a\0" + 200 * b"b", "a " + 200 * "b", "utf-8"),
    ],
)
def test_bytes_are_decoded_by_what_they_are(content: bytes, text: str, encoding: str, tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_bytes(content)
    for item in (content, tmp_path / "some.txt", str(tmp_path / "some.txt")):
        read = read_text(item)
        assert (read.text, read.encoding) == (text, encoding)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("", "empty"),
        (" \n\t\u3000", "empty"),
        (b"\0\1\0\2binary", "NUL"),
        (Path("nowhere.txt"), "cannot be opened"),
        ("nowhere.txt", "cannot be opened"),
        (17, "no text but int"),
    ],
)
def test_what_is_no_text_says_so(item: object, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        inspect_text(item)


def test_a_str_is_the_text_itself() -> None:
    assert read_text("see notes.txt").text == "see notes.txt"
    assert read_text("a\ud800b").text == "a?b"


def test_identity_knows_no_case_unicode_form_nor_blanks() -> None:
    forms = ("Café ﬁne", "cafe\u0301   FINE", "CAFÉ\nfine ")
    assert len({inspect_text(form).identity for form in forms}) == 1
    assert inspect_text("Cafe fine").identity != inspect_text("Café fine").identity
    assert modality_of("text").digest("Café ﬁne") == inspect_text(forms[0]).identity


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=400) | st.binary(max_size=400))
def test_anything_is_a_text_or_unreadable(item: str | bytes) -> None:
    try:
        facts = inspect_text(item)
    except Unreadable:
        return
    assert len(facts.identity) == 32
    assert len(facts.simhash) == 16
    assert modality_of("text").table([facts]).num_rows == 1


def test_a_megabyte_and_a_gigantic_word_are_looked_at_in_a_moment() -> None:
    for text in ("word " * 200_000, "x" * 1_000_000, "a@" * 500_000, "1 2" * 300_000, "<b " * 300_000):
        assert inspect_text(text).characters > 800_000


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("what is the name of the river that you have in your town", "English"),
        ("der Hund und die Katze sind nicht mit uns auf dem Weg", "German"),
        ("el perro y los gatos que no están en la casa por muy poco", "Spanish"),
        ("собака и кошка", "Cyrillic"),
        ("犬と猫がいます", "Japanese"),
        ("42 17", ""),
        ("xyzzy plugh", ""),
    ],
)
def test_languages_are_guessed_where_words_tell(text: str, language: str) -> None:
    assert language_of(text.lower().split()) == language


def test_signs_of_what_is_wrong_or_personal() -> None:
    for text, sign in (
        ("the cafÃ© was closed", "garbled"),
        ("first<br />second", "markup"),
        ("it&amp;s #39; here", "markup"),
        ("write to jane.doe@example.org", "e-mail address"),
        ("card 4111 1111 1111 1111 please", "card number"),
    ):
        assert sign in inspect_text(text).signs, text
    assert inspect_text("call 4111 1111 1111 1112, 3 < 5 & 7 > 2, £5 é").signs == ()
    assert not is_card("0000000000000000")


def test_near_duplicates_share_most_pieces_and_others_do_not() -> None:
    text = texts.sentence("weather", 1, 40)
    changed, other = text.replace(" the ", " one ", 1), texts.sentence("kitchen", 2, 40)
    prints = [minhash(each) for each in (text, changed, other)]
    first, near, far = (np.asarray(each)[None] for each in prints)
    assert similarity(first, near)[0] > 0.8
    assert similarity(first, far)[0] == 0
    facts = modality_of("text").table([inspect_text(each) for each in (text, changed, other)])
    cosines = vectors(facts)[:, 0] @ vectors(facts)[0, 0]
    assert cosines[0] == pytest.approx(1)
    assert cosines[1] > 0.5 > cosines[2]
    assert simhash("") != simhash("a")


def test_tables_and_folders_of_texts_are_told_by_what_they_hold(tmp_path: Path) -> None:
    table = texts.write_table(tmp_path / "t" / "all.csv", texts.labelled(4))
    source = read_source(table)
    assert source.kind.name == "text"
    assert [row.source for row in source.rows[:2]] == ["all.csv#text:2", "all.csv#text:3"]
    for number, (text, label) in enumerate(texts.labelled(4)):
        place = tmp_path / "f" / label / f"{number}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    folder = read_source(tmp_path / "f")
    assert (folder.kind.name, len(folder.rows)) == ("text", 12)


def test_a_mixed_folder_is_an_error_that_says_what_was_found(tmp_path: Path) -> None:
    from PIL import Image

    for number in range(4):
        for label in ("cat", "dog"):
            (tmp_path / label).mkdir(exist_ok=True)
            Image.new("RGB", (8, 8)).save(tmp_path / label / f"{number}.png")
            (tmp_path / label / f"{number}.txt").write_text("a caption")
    assert read_source(tmp_path).kind.name == "image"  # each text tells of the picture it is called as
    for number in range(4):
        (tmp_path / "cat" / f"other {number}.txt").write_text("a text of its own")
        (tmp_path / "dog" / f"more {number}.txt").write_text("a text of its own")
    with pytest.raises(DataError, match="8 images and 8 texts"):
        read_source(tmp_path)


def test_tables_of_splits_tell_what_they_hold_whatever_lies_beside_them(tmp_path: Path) -> None:
    from PIL import Image

    texts.write_table(tmp_path / "t" / "train.csv", texts.labelled(4))
    (tmp_path / "t" / "drawings").mkdir()
    for number in range(8):
        Image.new("RGB", (8, 8)).save(tmp_path / "t" / "drawings" / f"{number}.png")
    assert read_source(tmp_path / "t").kind.name == "text"
    pictures = "path,label,comment\n" + "".join(f"drawings/{n}.png,{n % 2},one\n" for n in range(8))
    (tmp_path / "t" / "train.csv").write_text(pictures)
    (tmp_path / "t" / "notes.txt").write_text("what this is")
    assert read_source(tmp_path / "t").kind.name == "image"
    (tmp_path / "t" / "train.csv").write_text(pictures.replace(".png", ""))
    assert read_source(tmp_path / "t").kind.name == "image"


def test_a_row_that_changes_is_told_and_one_whose_table_was_only_touched_is_not(tmp_path: Path) -> None:
    from regraft.data import KnownFile
    from regraft.data.known import content_id
    from regraft.errors import ChangedError

    rows = texts.labelled(2)
    table = texts.write_table(tmp_path / "all.csv", rows)
    item = KnownFile(f"{table}#text:3", content_id(rows[1][0].encode()))
    assert item.read().decode() == rows[1][0]
    texts.write_table(table, [rows[0], rows[1], ("another", "kitchen")])
    assert item.read().decode() == rows[1][0]
    texts.write_table(table, [rows[0], ("another text", "kitchen")])
    with pytest.raises(ChangedError, match="another one"):
        item.read()
    texts.write_table(table, [rows[0]])
    with pytest.raises(ChangedError, match="gone"):
        item.read()
