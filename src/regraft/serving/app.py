"""The application: its addresses, what each takes and gives, and how it says no."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from regraft._version import __version__
from regraft.errors import UsageError
from regraft.serving.bodies import items_in, read_body, where
from regraft.serving.guard import Guard, answer_to
from regraft.serving.limits import SHARE, Access, Budget, Limits, Refused, Taken, too_busy
from regraft.serving.metrics import CONTENT_TYPE, Meter
from regraft.serving.page import PAGE
from regraft.serving.schemas import BODY, Answers, Models, Settings, State, described, refusals
from regraft.serving.shelf import How, Served, Shelf, told

LOOK = 16  # an item that is explained counts as so many in the queue: it takes some fifty passes
PATHS = ("/", "/predict", "/models", "/healthz", "/readyz", "/metrics", "/openapi.json")


class Desk:
    """Takes requests for predictions, within the limits."""

    def __init__(self, shelf: Shelf, limits: Limits) -> None:
        self.shelf, self.limits = shelf, limits
        self.queue, self.memory = Budget(limits.queue), Budget(limits.body * SHARE)

    async def answer(self, request: Request, settings: Settings) -> JSONResponse:
        """The answer to one request. Raises Refused, UsageError."""
        served = self.shelf.named(settings.model)
        if settings.precision is not None and settings.precision not in served.about["precisions"]:
            promised = ", ".join(map(str, served.about["precisions"])) or "none"
            raise Refused(
                422, f"precision {settings.precision} is not promised by this model; these are: {promised}"
            )
        memory, places = Taken(self.memory), Taken(self.queue)
        with served.used(), served.batcher.on_its_way() as come, memory.kept(), places.kept():
            body = await read_body(request, self.limits, memory)
            kind = request.headers.get("content-type", "")
            items = await asyncio.to_thread(items_in, kind, body, self.limits)
            if not places.more(len(items) * (LOOK if settings.explain else 1)):
                raise too_busy("the queue is full")
            how = How(settings.top, settings.precision)
            work = self.shelf.predict(served, items, how, settings.explain, come)
            try:
                answers = await asyncio.wait_for(work, self.limits.seconds)
            except asyncio.TimeoutError:
                raise Refused(
                    503, f"it took longer than {self.limits.seconds:g} seconds", {"Retry-After": "1"}
                ) from None
        return _sent(served, answers)


def _sent(served: Served, answers: list[dict[str, Any]]) -> JSONResponse:
    """Answers as they are sent: 422 where no item could be read."""
    wrong = [one for one in answers if one["error"] is not None]
    if len(wrong) == len(answers):
        many = f"none of the {len(wrong)} items could be read; the first: " if len(wrong) > 1 else ""
        return answer_to(Refused(422, many + wrong[0]["error"]), {"items": wrong})
    return JSONResponse({"model": served.name, "predictions": answers})


def application(shelf: Shelf, limits: Limits, access: Access, meter: Meter) -> ASGIApp:
    """The application for these models."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        shelf.start()
        yield
        shelf.stop()

    app = FastAPI(
        title="regraft",
        version=__version__,
        description="Predictions of models that regraft fitted.",
        docs_url=None,  # those pages fetch their scripts from elsewhere
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
    )
    desk = Desk(shelf, limits)
    meter.queue.set_function(lambda: desk.queue.taken)
    _refusing(app)
    _watched(app, shelf, meter)

    @app.post(
        "/predict",
        responses=refusals(400, 401, 404, 408, 413, 415, 422, 429, 503),
        response_model=Answers,
        openapi_extra={"requestBody": BODY},
    )
    async def predict(request: Request, settings: Annotated[Settings, Query()]) -> Response:
        """Predict items: one answer for each, in order. One that cannot be read says so in its place."""
        return await desk.answer(request, settings)

    @app.get("/models", response_model=Models, responses=refusals(401))
    async def models() -> Response:
        """The models, and what they take and say."""
        return JSONResponse({"models": [one.about for one in shelf.served.values()]})

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        """The page for people."""
        return Response(
            PAGE.content, media_type="text/html", headers={"Content-Security-Policy": PAGE.policy}
        )

    description = described(app.openapi(), access)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        """This description."""
        return JSONResponse(description)

    return Guard(app, access, meter, frozenset(PATHS))


def _watched(app: FastAPI, shelf: Shelf, meter: Meter) -> None:
    """The addresses for those who watch over the server."""

    @app.get("/healthz", response_model=State, responses=refusals())
    async def health() -> Response:
        """Whether the process is alive."""
        return JSONResponse({"status": "alive"})

    @app.get("/readyz", response_model=State, responses=refusals(503))
    async def ready() -> Response:
        """Whether all models answer."""
        if not shelf.ready:
            return answer_to(Refused(503, "a model does not answer", {"Retry-After": "1"}))
        return JSONResponse({"status": "ready"})

    @app.get(
        "/metrics",
        response_class=PlainTextResponse,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **refusals(401)},
    )
    async def metrics() -> Response:
        """Counters, for Prometheus."""
        return Response(meter.text(), media_type=CONTENT_TYPE)


def _refusing(app: FastAPI) -> None:
    """Every refusal is JSON with a reason."""

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return answer_to(error)

    @app.exception_handler(UsageError)
    async def wrong(_: Request, error: UsageError) -> Response:
        return answer_to(Refused(422, told(str(error))))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return answer_to(Refused(422, f"{where(first['loc'][1:])}: {first['msg']}"))

    @app.exception_handler(HTTPException)
    async def elsewhere(_: Request, error: HTTPException) -> Response:
        return answer_to(Refused(error.status_code, str(error.detail).lower(), dict(error.headers or {})))

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        return answer_to(Refused(500, "the server failed, and its log says why"))
