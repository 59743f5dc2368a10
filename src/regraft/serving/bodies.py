"""From the body of a request to items: the bytes of each, and what it is called. No URL is fetched, no
file is opened or written.
"""

from __future__ import annotations

import asyncio
import binascii
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request
from starlette.types import Receive

from regraft.serving.limits import Limits, Refused, Taken, too_busy

FIELDS = ("file", "text")  # of a form
NAME = 200  # characters of an item's name that are kept
DRAIN = 5.0  # seconds that a refused body is read on, so that its sender hears why it was refused


@dataclass(frozen=True)
class Item:
    """What is to be predicted: its bytes, and the caller's name for it."""

    name: str
    content: bytes = field(repr=False)


class Encoded(BaseModel):
    """An item as a file holds it, in base64."""

    model_config = ConfigDict(extra="forbid")
    data: Annotated[
        str,
        Field(
            min_length=4,
            description="the bytes of a file in base64 (RFC 4648, no line breaks)",
            json_schema_extra={"contentEncoding": "base64", "pattern": "^([A-Za-z0-9+/]{4})+$"},
        ),
    ]
    name: Annotated[str | None, Field(description="comes back as `source`")] = None


class Written(BaseModel):
    """An item that is a text."""

    model_config = ConfigDict(extra="forbid")
    text: Annotated[str, Field(min_length=1)]
    name: Annotated[str | None, Field(description="comes back as `source`")] = None


class Asked(BaseModel):
    """A request in JSON."""

    model_config = ConfigDict(extra="forbid")
    items: Annotated[list[Encoded | Written], Field(min_length=1)]


_asked = TypeAdapter(Asked)


class Incoming:
    """The body of one request, as it comes."""

    def __init__(self, receive: Receive) -> None:
        self.receive, self.ended = receive, False

    async def chunks(self) -> AsyncIterator[bytes]:
        """What has come, piece by piece. Raises Refused (400) where it breaks off."""
        while not self.ended:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise Refused(400, "the body broke off")
            self.ended = not message.get("more_body", False)
            yield message.get("body", b"")

    async def drained(self) -> bool:
        """Read on what nobody will look at, for a while; whether it came to an end. To close a connection on
        its sender at once would lose the answer.
        """

        async def rest() -> None:
            async for _ in self.chunks():
                pass

        try:
            await asyncio.wait_for(rest(), DRAIN)
        except (asyncio.TimeoutError, Refused):
            return False
        return True

    async def refuse(self, refused: Refused) -> NoReturn:
        """Raises the refusal, once its sender can hear it."""
        if not await self.drained():
            refused.headers["Connection"] = "close"
        raise refused


async def read_body(request: Request, limits: Limits, memory: Taken) -> bytes:
    """The whole body of a request. Raises Refused: 413 too large, 408 too slow, 429 no memory for it now,
    400 broken off, 415 compressed.
    """
    incoming = Incoming(request.receive)
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        await incoming.refuse(Refused(415, "a compressed body is not taken: send it as it is"))
    stated = request.headers.get("content-length", "")
    if stated.isdigit() and int(stated[:20]) > limits.body:
        if "expect" in request.headers:  # its sender waits for leave to begin
            raise Refused(413, _too_large(limits).reason, {"Connection": "close"})
        await incoming.refuse(_too_large(limits))
    try:
        return await asyncio.wait_for(_whole(incoming, limits, memory), limits.seconds)
    except asyncio.TimeoutError:
        reason = f"the body did not come within {limits.seconds:g} seconds"
        raise Refused(408, reason, {"Connection": "close"}) from None


async def _whole(incoming: Incoming, limits: Limits, memory: Taken) -> bytes:
    body = bytearray()
    async for chunk in incoming.chunks():
        if len(body) + len(chunk) > limits.body:
            body.clear()
            await incoming.refuse(_too_large(limits))
        if not memory.more(len(chunk)):
            body.clear()
            await incoming.refuse(too_busy("too many large requests at once"))
        body += chunk
    return bytes(body)


def _too_large(limits: Limits) -> Refused:
    return Refused(413, f"the body is larger than {limits.body:,} bytes, the limit here")


def items_in(content_type: str, body: bytes, limits: Limits) -> list[Item]:
    """The items of a request. Raises Refused: 415 for a type that is not taken, 400 for a body that is not
    of its type, 422 for a body without items, 413 for too many.
    """
    kind, options = parse_options_header(content_type)
    if kind == b"multipart/form-data":
        items = _of_form(options.get(b"boundary", b""), body, limits)
    elif kind == b"application/json":
        items = _of_json(body, limits)
    else:
        raise Refused(415, "send files as multipart/form-data, or base64 in application/json")
    if not items:
        raise Refused(422, "there is nothing to predict: send a form with at least one field named file")
    return items


def _of_json(body: bytes, limits: Limits) -> list[Item]:
    try:
        asked = _asked.validate_json(body, strict=True)
    except ValidationError as error:
        raise _invalid(error) from None
    if len(asked.items) > limits.files:
        raise _too_many(limits)
    return [_item(one, number) for number, one in enumerate(asked.items)]


def _item(asked: Encoded | Written, number: int) -> Item:
    name = tidy(asked.name or f"item {number}")
    if isinstance(asked, Written):
        return Item(name, asked.text.encode("utf-8"))
    try:
        return Item(name, binascii.a2b_base64(asked.data, strict_mode=True))
    except (ValueError, UnicodeEncodeError):
        raise Refused(
            422, f"items[{number}].data is no base64 (RFC 4648, without line breaks: base64 -w0 FILE)"
        ) from None


def _invalid(error: ValidationError) -> Refused:
    """400 where it is no JSON, 422 where it is not the JSON that is asked for."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return Refused(400, f"the body is no JSON: {first['msg'].removeprefix('Invalid JSON: ')}")
    return Refused(422, f"{where(first['loc'])}: {first['msg']}")


def where(place: Sequence[Any]) -> str:
    """A place in a body or a query as it is written: items[3].data."""
    steps = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in place]
    return tidy("".join(step for step in steps if step not in (".Encoded", ".Written")).lstrip(".") or "body")


def _too_many(limits: Limits) -> Refused:
    return Refused(413, f"more than {limits.files} items in one request, the limit here")


def _of_form(boundary: bytes, body: bytes, limits: Limits) -> list[Item]:
    if not boundary:
        raise Refused(400, "the Content-Type names no boundary")
    form = _Form(limits)
    try:
        parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise Refused(400, "the body is no form with this boundary") from None
    if not form.ended:
        raise Refused(400, "the form is cut off: its last boundary is missing")
    return form.items


class _Form:
    """Gathers the parts that a parser finds."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.items, self.ended = limits, [], False  # type: tuple[Limits, list[Item], bool]
        self.begin()

    def callbacks(self) -> dict[str, Any]:
        """What the parser calls."""
        return {
            "on_part_begin": self.begin,
            "on_header_field": lambda data, start, end: self.field.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self.value.extend(data[start:end]),
            "on_header_end": self.header,
            "on_part_data": lambda data, start, end: self.content.append(data[start:end]),
            "on_part_end": self.part,
            "on_end": self.end,
        }

    def begin(self) -> None:
        if len(self.items) >= self.limits.files:
            raise _too_many(self.limits)
        self.headers: dict[bytes, bytes] = {}
        self.field, self.value = bytearray(), bytearray()
        self.content: list[bytes] = []

    def header(self) -> None:
        self.headers[bytes(self.field).lower()] = bytes(self.value)
        self.field, self.value = bytearray(), bytearray()

    def part(self) -> None:
        # Names are sent as UTF-8; parse_options_header reads and writes them as Latin-1
        _, about = parse_options_header(self.headers.get(b"content-disposition", b"").decode("latin-1"))
        field_name = tidy(about.get(b"name", b"").decode("utf-8", "replace"))
        if field_name not in FIELDS:
            raise Refused(
                422,
                f"a field named {field_name!r}: items are named file or text, "
                "settings go into the URL (?top=3)",
            )
        name = about.get(b"filename", b"").decode("utf-8", "replace")
        self.items.append(Item(tidy(name) or f"item {len(self.items)}", b"".join(self.content)))

    def end(self) -> None:
        self.ended = True


def tidy(name: str) -> str:
    """A name without folders and control characters, and not endless."""
    last = re.split(r"[\\/]", name)[-1]
    return "".join(letter for letter in last if letter.isprintable())[:NAME]
