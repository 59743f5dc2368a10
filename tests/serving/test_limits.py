"""What a server takes and from whom, asked of the application itself: its model is the test's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from asking import Said, asked, form

from regraft.errors import UsageError
from regraft.prediction import Prediction
from regraft.serving import Limits, checked_access, places_of
from regraft.serving.app import application
from regraft.serving.limits import Access
from regraft.serving.metrics import Meter
from regraft.serving.shelf import Shelf, told

pytest_plugins = ["served"]
TOKEN = "a token of the tests"


class Model:
    """Answers when `gate` is open; what it was asked together is in `batches`."""

    modality, classes, thresholds, engine = "image", ("a", "b"), {0.95: 0.7}, "auto"
    task = SimpleNamespace(kind="single", question=lambda: "Which is it?", spread=("value", "low", "high"))
    calibrated, note = SimpleNamespace(promises=None), ""

    def __init__(self) -> None:
        self.gate, self.batches = threading.Event(), []  # type: ignore[var-annotated]
        preprocess = SimpleNamespace(host=lambda content: np.frombuffer(content, np.uint8), blank=int)
        self.backbone = SimpleNamespace(preprocess=preprocess)

    def predictor(self) -> SimpleNamespace:
        return SimpleNamespace(shapes=(32,), of_batch=lambda *_: None)

    def answers(self, raws: list[Any], top: int | None, precision: float | None) -> list[Prediction]:
        self.gate.wait(30)
        self.batches.append(len(raws))
        return [Prediction(f"item {n}", "a", 1.0, {"a": 1.0}) for n in range(len(raws))]


def served(
    what: Callable[[Any, Model], Any], limits: Limits | None = None, access: Access | None = None
) -> Any:
    """What a conversation with an application comes to: `what(ask, model)` holds it, `ask` as `asked`."""

    async def hold() -> Any:
        model, meter = Model(), Meter()
        shelf = Shelf({"m": Path("m")}, lambda *_: model, limits or Limits(), meter)  # type: ignore[arg-type,return-value]
        app = application(shelf, limits or Limits(), access or Access(), meter)
        shelf.start()

        async def ask(*words: Any, **how: Any) -> Said:
            return await asked(app, *words, **how)

        try:
            return await what(ask, model)
        finally:
            model.gate.set()
            shelf.stop()

    return asyncio.run(hold())


@pytest.fixture
def two(red: bytes) -> tuple[bytes, dict[str, str]]:
    """A form with two files."""
    return form([("a.png", red), ("b.png", red)])


def test_a_full_queue_says_come_again(two: tuple[bytes, dict[str, str]]) -> None:
    body, headers = two

    async def talk(ask: Any, model: Model) -> list[Said]:
        first = asyncio.create_task(ask("POST", "/predict", body, headers))
        while "regraft_queue_items 2.0" not in (await ask("GET", "/metrics")).body.decode():
            await asyncio.sleep(0.001)
        second = await ask("POST", "/predict", body, headers)
        model.gate.set()
        return [await first, second, await ask("POST", "/predict", body, headers)]

    first, second, third = served(talk, Limits(queue=3))
    assert (first.status, second.status, third.status) == (200, 429, 200)
    assert second.headers["retry-after"] == "1"


def test_an_answer_that_does_not_come_in_time_is_given_up(two: tuple[bytes, dict[str, str]]) -> None:
    async def talk(ask: Any, model: Model) -> tuple[Said, bytes]:
        late = await ask("POST", "/predict", *two)
        return late, (await ask("GET", "/metrics")).body

    late, counted = served(talk, Limits(seconds=0.2))
    assert late.status == 503
    assert late.headers["retry-after"] == "1"
    assert b"regraft_queue_items 0.0" in counted


def test_requests_that_wait_together_are_one_batch(two: tuple[bytes, dict[str, str]]) -> None:
    async def talk(ask: Any, model: Model) -> tuple[list[Said], list[int]]:
        asking = [asyncio.create_task(ask("POST", "/predict", *two)) for _ in range(6)]
        while b"regraft_queue_items 12.0" not in (await ask("GET", "/metrics")).body:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.1)
        model.gate.set()
        return list(await asyncio.gather(*asking)), model.batches

    answers, batches = served(talk, Limits(wait=0.001))
    assert {answer.status for answer in answers} == {200}
    assert sum(batches) == 12
    assert len(batches) < 6


def test_memory_for_bodies_is_limited(two: tuple[bytes, dict[str, str]]) -> None:
    body, headers = two

    async def talk(ask: Any, model: Model) -> list[int]:
        asking = [asyncio.create_task(ask("POST", "/predict", body, headers)) for _ in range(10)]
        await asyncio.sleep(0.2)
        model.gate.set()
        return sorted(answer.status for answer in await asyncio.gather(*asking))

    assert served(talk, Limits(body=len(body))) == [200] * 8 + [429] * 2


def test_without_the_token_nothing_of_a_model_is_told(two: tuple[bytes, dict[str, str]]) -> None:
    async def talk(ask: Any, model: Model) -> dict[str, list[int]]:
        model.gate.set()
        ways = {
            "none": {},
            "wrong": {"Authorization": "Bearer x"},
            "basic": {"Authorization": f"Basic {TOKEN}"},
        }
        ways["right"] = {"Authorization": f"Bearer {TOKEN}"}
        statuses = {}
        for way, headers in ways.items():
            said = [await ask("GET", path, b"", headers) for path in ("/models", "/metrics")]
            said.append(await ask("POST", "/predict", two[0], {**two[1], **headers}))
            said += [await ask("GET", path, b"", headers) for path in ("/", "/healthz", "/readyz")]
            statuses[way] = [one.status for one in said]
        return statuses

    statuses = served(talk, access=checked_access("0.0.0.0", TOKEN, []))
    assert statuses.pop("right") == [200] * 6
    assert set(map(tuple, statuses.values())) == {(401, 401, 401, 200, 200, 200)}


def test_a_reader_that_stumbles_blames_the_item(two: tuple[bytes, dict[str, str]]) -> None:
    def stumble(content: bytes) -> None:
        raise KeyError("/secret/place")

    async def talk(ask: Any, model: Model) -> Said:
        model.gate.set()
        model.backbone.preprocess.host = stumble
        return await ask("POST", "/predict", *two)

    answer = served(talk)
    assert answer.status == 422
    assert answer.json["items"][0]["error"] == "cannot be read (KeyError)"


@pytest.mark.filterwarnings("ignore")
def test_a_fault_of_the_server_says_nothing_of_itself(two: tuple[bytes, dict[str, str]]) -> None:
    async def talk(ask: Any, model: Model) -> list[Said]:
        model.gate.set()
        model.answers = None  # type: ignore[method-assign,assignment]
        said: list[Said] = []
        try:
            await ask("POST", "/predict", *two)
        except TypeError:
            said.append(await ask("GET", "/readyz"))
        return said

    assert [answer.status for answer in served(talk)] == [200]


def test_an_open_address_wants_a_token() -> None:
    with pytest.raises(UsageError, match="--token"):
        checked_access("0.0.0.0", None, [])
    with pytest.raises(UsageError, match="--token"):
        checked_access("::", None, [])
    with pytest.raises(UsageError, match="at least 16"):
        checked_access("0.0.0.0", "short", [])
    assert checked_access("127.0.0.1", None, []).token is None
    assert checked_access("::1", None, []).token is None


def test_names_of_hosts_are_compared_without_port_and_case() -> None:
    access = checked_access("127.0.0.1", None, ["Models.example:80"])
    for host, allowed in {
        "models.example": True,
        "MODELS.EXAMPLE:8000": True,
        "192.168.0.7:8000": True,
        "[::1]:8000": True,
        "localhost": True,
        "": False,
        "models.example.evil": False,
        "localhost.evil": False,
        "evil:80:80": False,
    }.items():
        assert (access.refusal({b"host": host.encode()}, True) is None) == allowed, host


def test_a_run_goes_by_its_folder_or_by_the_name_given(tmp_path: Path) -> None:
    (tmp_path / "a=b").mkdir()
    assert places_of([str(tmp_path / "flowers"), "other=x"]) == {
        "flowers": tmp_path / "flowers",
        "other": Path("x"),
    }
    with pytest.raises(UsageError, match="both"):
        places_of(["x/flowers", "y/flowers"])
    with pytest.raises(UsageError, match="no name"):
        places_of([str(tmp_path / "a=b")])


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("cannot open /home/me/models/x.png: no", "cannot open a file: no"),
        ("C:\\Users\\me\\x.png is bad", "a file is bad"),
        ("<_io.BytesIO object at 0x7f01> is bad", "it is bad"),
        ("one\ntwo", "one"),
        ("convert it to PNG or JPEG, and/or ask", "convert it to PNG or JPEG, and/or ask"),
        ("", ""),
    ],
)
def test_a_reason_names_nothing_of_the_machine(reason: str, expected: str) -> None:
    assert told(reason) == expected
