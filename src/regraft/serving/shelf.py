"""The models that are served, by name: each once in memory, run on one thread of its own, and replaced
while requests go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regraft.errors import RegraftError, Unreadable, UsageError
from regraft.inference import Predictor
from regraft.modalities import modality_of
from regraft.model import Model
from regraft.prediction import Prediction
from regraft.recipe import read_recipe
from regraft.serving.batching import Batcher
from regraft.serving.bodies import Item
from regraft.serving.limits import Limits, Refused
from regraft.serving.metrics import Meter

Load = Callable[[Path, str], Model]  # a folder, and the name of an engine
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class How:
    """How items are to be answered; those that ask alike share a batch."""

    top: int | None = None
    precision: float | None = None


@dataclass
class Served:
    """One model and its thread. It ends once it is retired and nobody uses it any more."""

    name: str
    model: Model
    batcher: Batcher[Any, Any]
    users: int = 0
    retired: bool = False
    about: dict[str, Any] = field(default_factory=dict)

    @contextlib.contextmanager
    def used(self) -> Iterator[Served]:
        """Inside, it goes on answering, whatever replaces it."""
        self.users += 1
        try:
            yield self
        finally:
            self.users -= 1
            self._end()

    def retire(self) -> None:
        """No new request comes."""
        self.retired = True
        self._end()

    def _end(self) -> None:
        if self.retired and not self.users:
            self.batcher.close()


class Shelf:
    """The models by name; the first is the usual one. Everything but `load` happens on the event loop."""

    def __init__(
        self, places: dict[str, Path], load: Load, limits: Limits, meter: Meter, engine: str = "auto"
    ) -> None:
        self.places, self.load, self.limits, self.meter, self.engine = places, load, limits, meter, engine
        self.models = {name: self._loaded(name) for name in places}
        units = sorted({modality_of(model.modality).extent.unit for model in self.models.values()})
        if limits.most is not None and len(units) > 1:
            raise UsageError(
                f"--max-size {limits.most} would count {' and '.join(units)} of these models alike: leave it "
                "out, or serve them apart."
            )
        self.served: dict[str, Served] = {}
        self.readers = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="read")
        self.reloading = asyncio.Lock()

    def start(self) -> None:
        """Begin to answer; called on the event loop."""
        self.served = {name: self._serve(name, model) for name, model in self.models.items()}
        self.models = {}

    def stop(self) -> None:
        """End when all that was asked is answered."""
        for one in self.served.values():
            one.retire()
        self.readers.shutdown(wait=False, cancel_futures=True)

    @property
    def ready(self) -> bool:
        """Whether all models answer."""
        return bool(self.served) and all(one.batcher.alive for one in self.served.values())

    def named(self, name: str | None) -> Served:
        """The model of a name; the first where none is named. Raises Refused (404)."""
        if name is None:
            return next(iter(self.served.values()))
        if name not in self.served:
            raise Refused(404, f"there is no such model here; these are: {', '.join(self.served)}")
        return self.served[name]

    async def reload(self) -> None:
        """Read all models again, and put each in the place of the old one, which ends what it has begun.

        A model that cannot be read is left as it is, and standard error says why.
        """
        async with self.reloading:
            for name in self.places:
                try:
                    model = await asyncio.to_thread(self._loaded, name)
                except (RegraftError, OSError, ValueError, KeyError) as error:
                    self.meter.reloads.labels("failed").inc()
                    print(f"{name} was not read again and is served as before: {error}", file=sys.stderr)
                    continue
                old, self.served[name] = self.served[name], self._serve(name, model)
                old.retire()
                self.meter.reloads.labels("done").inc()
                print(f"{name} was read again", file=sys.stderr)

    def _loaded(self, name: str) -> Model:
        """The model of a name, by the engine asked for or else the one that its run settled on, and warm: what
        an engine compiles, it has compiled.
        """
        place = self.places[name]
        engine = settled(place) if self.engine == "auto" else self.engine
        try:
            model = self.load(place, engine)
        except UsageError:
            if engine == self.engine:
                raise
            model = self.load(place, self.engine)  # settled on another machine, with what is not here
        if model.note:
            print(f"{name}: {model.note}.", file=sys.stderr)
        with contextlib.suppress(Unreadable):  # what reads its items has to be installed
            model.backbone.preprocess.host(b"")
        runs = runner(model)
        for size in runs.shapes:
            runs.of_batch(model.backbone.preprocess.blank(size), size)
        return model

    def _serve(self, name: str, model: Model) -> Served:
        def heard(size: int, seconds: float) -> None:
            self.meter.batches.labels(name).observe(size)
            self.meter.passes.labels(name).observe(seconds)

        def work(how: How, raws: list[Any]) -> list[Any]:
            return model.answers(raws, how.top, how.precision)

        largest = max(runner(model).shapes)
        batcher: Batcher[Any, Any] = Batcher(work, largest, self.limits.wait, heard)
        return Served(name, model, batcher, about=self._about(name, model))

    def _about(self, name: str, model: Model) -> dict[str, Any]:
        modality = modality_of(model.modality)
        return {
            "name": name,
            "modality": modality.name,
            "noun": modality.noun,
            "task": model.task.kind,
            "question": model.task.question(),
            "classes": list(model.classes),
            "precisions": list(model.calibrated.promises or ()),
            "looks": model.task.spread == ("probability",),
            "unit": modality.extent.unit,
            "most": self.limits.most or modality.extent.usual,
            "note": model.note,
        }

    async def predict(
        self, served: Served, items: Sequence[Item], how: How, explain: bool, come: Callable[[], None]
    ) -> list[dict[str, Any]]:
        """One answer an item, in order: what `Prediction.to_dict` gives, or why it could not be read.

        `come` is told when the items are read. Raises UsageError for a precision that is not promised.
        """
        loop = asyncio.get_running_loop()
        reading = [loop.run_in_executor(self.readers, self._read, served, item.content) for item in items]
        raws = await asyncio.gather(*reading)
        readable = [raw for raw in raws if not isinstance(raw, Unreadable)]
        come()
        predictions = iter(await served.batcher.answer(how, readable))
        answers: list[dict[str, Any]] = []
        for item, raw in zip(items, raws, strict=True):
            if isinstance(raw, Unreadable):
                answers.append(Prediction(item.name, None, None, {}, told(str(raw))).to_dict())
            else:
                answers.append({**next(predictions).to_dict(), "source": item.name})
            if explain:
                answers[-1]["look"] = None if isinstance(raw, Unreadable) else await self._look(served, item)
        self.meter.items.labels(served.name, "answered").inc(len(readable))
        self.meter.items.labels(served.name, "unreadable").inc(len(raws) - len(readable))
        return answers

    def _read(self, served: Served, content: bytes) -> Any:
        """What the network sees of an item, or the Unreadable that it is. A reader that stumbles over what a
        stranger sent says as much of the item, not of the server.
        """
        preprocess, extent = served.model.backbone.preprocess, modality_of(served.model.modality).extent
        most = self.limits.most or extent.usual
        try:
            size = extent.of(content)
            if size > most:
                return Unreadable(f"too large: {size:,} {extent.unit}, and at most {most:,} are taken here")
            return preprocess.host(content)
        except Unreadable as error:
            return error
        except Exception as error:
            return Unreadable(f"cannot be read ({type(error).__name__})")

    async def _look(self, served: Served, item: Item) -> dict[str, Any] | None:
        """Where the model looked in an item."""
        look = await served.batcher.call(
            lambda: served.model.explain(item.content, runs=runner(served.model))
        )
        if look is None:
            return None
        return {
            "label": look.label,
            "probability": look.probability,
            "hidden": look.hidden,
            "picture": look.picture,
            "map": look.map,
        }


def runner(model: Model) -> Predictor:
    """What answers for a model."""
    return model.predictor() if model.engine == "auto" else model.predictor(engine=model.engine)


def settled(place: Path) -> str:
    """The engine that a run settled on; "auto" for a model's folder alone."""
    recipe = place / "recipe.yaml"
    return str(read_recipe(recipe).get("run", {}).get("engine", "auto")) if recipe.is_file() else "auto"


def told(reason: str) -> str:
    """A reason as a stranger may read it: one line, no path of this machine and no address in its memory."""
    line = (reason.splitlines() or [""])[0][:300]
    line = re.sub(r"(?<![\w.:/])/[\w.@+-]+(/[\w.@+-]*)+", "a file", line)
    line = re.sub(r"(?i)\b[a-z]:\\\S+", "a file", line)
    return re.sub(r"<[^<>]* at 0x[0-9a-f]+>", "it", line)


def places_of(runs: Sequence[str]) -> dict[str, Path]:
    """Folders by the names they are served under: RUN goes by its folder's name, NAME=RUN by NAME.

    Raises UsageError for a name twice, and for one that is none.
    """
    places: dict[str, Path] = {}
    for run in runs:
        given, equals, rest = run.partition("=")
        named = bool(equals) and not Path(run).exists()
        path = Path(rest if named else run)
        name = given if named else path.resolve().name
        if not NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} is no name for a model (letters, digits, "
                f". _ -, 100 at most): name it, as flowers={path}."
            )
        if name in places:
            raise UsageError(
                f"{places[name]} and {path} would both be served as {name!r}: name one, as other={path}."
            )
        places[name] = path
    return places
