"""A server as its callers meet it: answers, and what it says to those that do not play fair."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from asking import Caller, form
from served import Running, png, running

import regraft
from conftest import Fitted

pytest_plugins = ["served"]
JSON = {"Content-Type": "application/json"}


def test_a_file_gets_the_answer_that_python_gets(caller: Caller, fitted: Fitted) -> None:
    paths = [fitted.data / name / "0.png" for name in ("red", "green", "blue")]
    answer = caller.files(*[(path.name, path.read_bytes()) for path in paths])
    assert answer.status == 200
    ours = [one.to_dict() for one in regraft.load(fitted.run).predict([str(path) for path in paths])]
    said = answer.json["predictions"]
    assert answer.json["model"] == "colours"
    assert [one["source"] for one in said] == ["0.png"] * 3
    assert [one["label"] for one in said] == ["red", "green", "blue"]
    for one, own in zip(said, ours, strict=True):
        assert one.keys() - {"look"} == own.keys()
        assert one["probabilities"] == pytest.approx(own["probabilities"], abs=1e-5)


def test_base64_in_json_says_the_same(caller: Caller, red: bytes) -> None:
    encoded = base64.b64encode(red).decode()
    answer = caller.json({"items": [{"data": encoded, "name": "a.png"}, {"data": encoded}]}, "?top=1")
    assert answer.status == 200
    first, second = answer.json["predictions"]
    assert (first["source"], second["source"]) == ("a.png", "item 1")
    assert first["label"] == second["label"] == "red"
    assert list(first["probabilities"]) == ["red"]


def test_one_bad_file_does_not_spoil_the_others(caller: Caller, red: bytes) -> None:
    good, bad = caller.files(("good.png", red), ("bad.png", b"no picture")).json["predictions"]
    assert (good["label"], good["error"]) == ("red", None)
    assert (bad["label"], bad["error"]) == (None, "not an image Pillow can read (a text)")


def test_what_the_model_looked_at_comes_when_asked_for(caller: Caller, red: bytes) -> None:
    assert "look" not in caller.files(("a.png", red)).json["predictions"][0]
    look = caller.files(("a.png", red), query="?explain=true").json["predictions"][0]["look"]
    assert look["label"] == "red"
    assert look["picture"].startswith("data:image/jpeg;base64,")
    assert look["map"].startswith("data:image/jpeg;base64,")


def test_the_models_and_the_states_are_told(caller: Caller) -> None:
    (about,) = caller.get("/models").json["models"]
    assert (about["name"], about["modality"], about["classes"]) == (
        "colours",
        "image",
        ["blue", "green", "red"],
    )
    assert (about["unit"], about["most"], about["looks"]) == ("pixels", 1_000_000, True)
    assert caller.get("/healthz").json == {"status": "alive"}
    assert caller.get("/readyz").json == {"status": "ready"}


def test_what_was_answered_is_counted(caller: Caller, red: bytes) -> None:
    caller.files(("a.png", red))
    text = caller.get("/metrics").body.decode()
    assert 'regraft_items_total{model="colours",outcome="answered"}' in text
    assert 'regraft_requests_total{path="/predict",status="200"}' in text
    caller.get("/etc/passwd")
    assert "passwd" not in caller.get("/metrics").body.decode()


def test_each_answer_forbids_a_browser_what_it_should_not_do(caller: Caller) -> None:
    for path in ("/", "/models", "/nothing"):
        headers = caller.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "server" not in headers


def bomb(side: int) -> bytes:
    """A PNG that says it has side x side pixels, in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def hostile() -> dict[str, tuple[bytes, str]]:
    """Files of strangers, and what is said of each."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    jpeg = png(noise, "JPEG")
    return {
        "a bomb beyond Pillow's own limit": (bomb(60_000), "absurdly large"),
        "more pixels than are taken here": (bomb(1_001), "1,002,001 pixels"),
        "a bomb of zeros that does not fill its pixels": (bomb(900), "damaged"),
        "a JPEG cut off": (jpeg[: len(jpeg) // 2], "truncated"),
        "nothing": (b"", "empty"),
        "a web page with a picture's name": (b"<!doctype html><script>alert(1)</script>", "HTML"),
        "a script that calls itself a GIF": (b"GIF89a=1;alert(1)//", "not an image"),
        "PostScript": (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
            "PostScript",
        ),
        "a zip": (b"PK\x03\x04" + bytes(100), "zip"),
        "SVG with a file of this machine": (b'<svg><image href="file:///etc/passwd"/></svg>', "SVG"),
    }


@pytest.mark.parametrize("what", hostile())
def test_what_is_no_picture_is_told_so(caller: Caller, what: str) -> None:
    content, reason = hostile()[what]
    answer = caller.files(("../../x.png", content))
    assert answer.status == 422
    assert reason in answer.json["error"]
    assert answer.json["items"][0]["source"] == "x.png"


def test_a_polyglot_is_read_as_what_it_begins_with(caller: Caller, red: bytes) -> None:
    answer = caller.files(("both.png", red + b"PK\x03\x04<script>alert(1)</script>"), kind="text/html")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"


def wrong_bodies() -> dict[str, tuple[bytes, dict[str, str], int]]:
    """Bodies that are none, the headers they come with, and the status each gets."""
    body, headers = form([("a.png", b"x")])
    base = b'{"items": [{"data": "%s"}]}'
    return {
        "no JSON": (b"{", JSON, 400),
        "deep JSON": (b'{"items":' + b"[" * 100_000 + b"]" * 100_000 + b"}", JSON, 400),
        "NaN": (b'{"items": NaN}', JSON, 422),
        "a number of a million digits": (b'{"items": ' + b"9" * 500_000 + b"}", JSON, 400),
        "half a surrogate": (b'{"items": [{"text": "\\ud800"}]}', JSON, 400),
        "not base64": (base % b"????", JSON, 422),
        "base64 with a tail": (base % b"QUJD=QUJD", JSON, 422),
        "a URL": (b'{"items": [{"url": "http://127.0.0.1/"}]}', JSON, 422),
        "a name of a file": (b'{"items": ["/etc/passwd"]}', JSON, 422),
        "an empty list": (b'{"items": []}', JSON, 422),
        "too many": (b'{"items": [' + b",".join([b'{"data": "QUJD"}'] * 6) + b"]}", JSON, 413),
        "JSON that says it is a form": (b"{}", headers, 400),
        "a form without its end": (body[:-10], headers, 400),
        "a form without a boundary": (body, {"Content-Type": "multipart/form-data"}, 400),
        "an endless boundary": (body, {"Content-Type": "multipart/form-data; boundary=" + "x" * 9000}, 400),
        "a form without files": (b"--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}, 422),
        "a setting as a field": (*form([("", b"3")], field="top"), 422),
        "too many files": (*form([("a", b"x")] * 6), 413),
        "a header of a part without end": (
            b'--x\r\nContent-Disposition: form-data; name="file' + b"a" * 100_000,
            {"Content-Type": "multipart/form-data; boundary=x"},
            400,
        ),
        "no type": (b"abc", {}, 415),
        "a picture as it is": (b"abc", {"Content-Type": "image/png"}, 415),
        "compressed": (zlib.compress(b"{}"), {**JSON, "Content-Encoding": "deflate"}, 415),
        "too large": (bytes(1_000_001), JSON, 413),
        "huge base64": (base % (b"QUJD" * 300_000), JSON, 413),
    }


@pytest.mark.parametrize("what", wrong_bodies())
def test_a_body_that_is_none_is_refused_with_a_reason(caller: Caller, what: str) -> None:
    body, headers, status = wrong_bodies()[what]
    answer = caller.ask("POST", "/predict", body, headers)
    assert (answer.status, next(iter(answer.json))) == (status, "error")
    assert 5 < len(answer.json["error"]) < 300


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("?top=0", 422),
        ("?top=x", 422),
        ("?precision=nan", 422),
        ("?precision=0.123", 422),
        ("?precision=1e999", 422),
        ("?topp=3", 422),
        ("?explain=perhaps", 422),
        ("?model=other", 404),
        ("?model=../../etc/passwd", 404),
        ("?%ff=%00", 422),
    ],
)
def test_a_wrong_setting_is_refused_with_a_reason(
    caller: Caller, red: bytes, query: str, status: int
) -> None:
    answer = caller.files(("a.png", red), query=query)
    assert (answer.status, list(answer.json)) == (status, ["error"])


def test_chunks_without_a_length_are_limited_too(caller: Caller) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(40):
            yield bytes(65536)

    answer = caller.ask("POST", "/predict", endless(), JSON, encode_chunked=True)
    assert answer.status == 413
    assert "1,000,000 bytes" in answer.json["error"]


def test_other_methods_and_addresses(caller: Caller) -> None:
    assert caller.get("/predict").status == 405
    assert caller.ask("DELETE", "/models").status == 405
    assert caller.get("/../../etc/passwd").status == 404
    assert caller.get("/docs").status == 404


def test_a_name_that_leads_here_is_not_enough(caller: Caller, red: bytes) -> None:
    assert caller.get("/models", Host="rebound.example").status == 421
    assert caller.get("/", Host="rebound.example:80").status == 421
    assert caller.get("/models", Host="localhost:1").status == 200
    assert caller.get("/models", Host="[::1]:80").status == 200
    assert caller.get("/models", Host="127.0.0.1.rebound.example").status == 421
    body, headers = form([("a.png", red)])
    assert caller.ask("POST", "/predict", body, {**headers, "Origin": "http://evil.example"}).status == 403
    own = f"http://127.0.0.1:{caller.port}"
    assert caller.ask("POST", "/predict", body, {**headers, "Origin": own}).status == 200
    assert caller.ask("POST", "/predict", body, {**headers, "Origin": "null"}).status == 403


def test_who_never_ends_is_let_go(caller: Caller) -> None:
    said: dict[str, bytes] = {}

    def ask(what: str, *pieces: bytes) -> None:
        said[what] = caller.raw(*pieces)

    slow = [
        ("silent",),
        ("headers", b"GET /models HTTP/1.1\r\nHost: localhost\r\nX: "),
        ("again", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET /healthz HTTP/1.1\r\nX: "),
        ("body", b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc"),
    ]
    threads = [threading.Thread(target=ask, args=one) for one in slow]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said["silent"] == said["headers"] == b""
    assert said["again"].count(b"HTTP/1.1 200") == 1
    assert said["body"].startswith(b"HTTP/1.1 408")
    assert caller.get("/readyz").status == 200


def test_what_is_no_http_is_answered_and_forgotten(caller: Caller) -> None:
    assert caller.raw(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert b" 400 " in caller.raw(b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n")
    smuggled = (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    )
    assert (
        b" 200 "
        not in caller.raw(
            smuggled + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )[:20]
    )
    assert caller.get("/readyz").status == 200


def test_no_path_of_the_machine_is_told(caller: Caller, server: Running, fitted: Fitted, red: bytes) -> None:
    said = [caller.get(path) for path in ("/", "/models", "/metrics", "/openapi.json", "/nothing")]
    said += [caller.files(("a.png", content)) for content, _ in hostile().values()]
    said += [caller.ask("POST", "/predict", body, headers) for body, headers, _ in wrong_bodies().values()]
    said += [
        caller.files(("a.png", red), query=query) for query in ("?explain=1", "?model=x", "?precision=0.5")
    ]
    for answer in said:
        text = answer.body.decode() + json.dumps(answer.headers)
        for secret in (str(fitted.run), str(Path.home()), regraft.__path__[0], "site-packages", "Traceback"):
            assert secret not in text
    assert not any(answer.status >= 500 for answer in said)
    assert server.complaints.count("Traceback") == 0


def test_models_are_read_again_while_requests_go_on(fitted: Fitted, tmp_path: Path, red: bytes) -> None:
    run = tmp_path / "run"
    shutil.copytree(fitted.run / "model", run)
    with running("one=run", f"two={fitted.run}", cwd=tmp_path) as server:
        statuses: list[int] = []
        done = threading.Event()

        def go_on() -> None:
            while not done.is_set():
                statuses.append(server.caller.files(("a.png", red)).status)

        threads = [threading.Thread(target=go_on) for _ in range(3)]
        for thread in threads:
            thread.start()
        about = json.loads((run / "regraft.json").read_text())
        names = {"red": "rouge", "green": "vert", "blue": "bleu"}
        about["classes"] = [names[name] for name in about["classes"]]
        (run / "regraft.json").write_text(json.dumps(about))
        server.hang_up()
        wait_for(lambda: server.complaints.count("was read again") == 2)
        assert server.caller.files(("a.png", red)).json["predictions"][0]["label"] == "rouge"
        assert (
            server.caller.files(("a.png", red), query="?model=two").json["predictions"][0]["label"] == "red"
        )
        (run / "regraft.json").unlink()
        server.hang_up()
        wait_for(lambda: "one was not read again" in server.complaints)
        assert server.caller.files(("a.png", red)).json["predictions"][0]["label"] == "rouge"
        done.set()
        for thread in threads:
            thread.join()
        assert len(statuses) > 3
        assert set(statuses) == {200}


def test_a_stop_ends_what_was_begun(fitted: Fitted, tmp_path: Path, red: bytes) -> None:
    with running(fitted.run, cwd=tmp_path) as server:
        answers: list[int] = []
        body, headers = form([("a.png", red)] * 20)

        def ask() -> None:
            answers.append(server.caller.ask("POST", "/predict", slowly(body), headers).status)

        halfway = threading.Event()

        def slowly(content: bytes) -> Iterator[bytes]:
            yield content[:1000]
            halfway.set()
            wait_for(lambda: "stopping" in server.complaints)
            yield content[1000:]

        thread = threading.Thread(target=ask)
        thread.start()
        halfway.wait()
        wait_for(lambda: server.caller.get("/readyz").status == 200)
        server.process.send_signal(signal.SIGTERM)
        thread.join()
        assert answers == [200]
        assert server.process.wait() == 0


def wait_for(truth: object, seconds: float = 60) -> None:
    """Wait until it is so."""
    until = time.monotonic() + seconds
    while not truth():  # type: ignore[operator]
        assert time.monotonic() < until
        time.sleep(0.02)
