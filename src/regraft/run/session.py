"""What one call of a verb has at hand: the recipe asked for, the cache, who listens, when it began."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.artifacts import Events, Listener
from regraft.crew import Crew
from regraft.data.addresses import require_here
from regraft.data.answers import Wanted
from regraft.data.patterns import braced
from regraft.data.sources import Source
from regraft.modalities import read_source
from regraft.recipe import Recipe
from regraft.run.asked import asked
from regraft.runtime import NO_HOME, cache_folder, quiet_libraries
from regraft.settings import user_settings
from regraft.tracking import tracked

if TYPE_CHECKING:  # torch takes seconds to import; what is wrong with the data is said before
    from regraft.data import Examples
    from regraft.steps.context import Context


@dataclass(frozen=True)
class Session:
    """Shared by all that one verb does. `cache` is the folder of features (None: they are kept nowhere);
    `started` is the time of `time.monotonic` from which a budget counts; `crew` are the workers that were
    asked for.
    """

    recipe: Recipe
    cache: Path | None
    listeners: tuple[Listener, ...]
    started: float
    crew: Crew | None = None

    @classmethod
    def open(
        cls,
        recipe: dict[str, Any] | None = None,
        cache: str | Path | None = None,
        listeners: Sequence[Listener] = (),
    ) -> Session:
        """Begin: check the settings, quiet the libraries, find the cache ("auto": the usual one). Where
        `recipe` says nothing, the user's settings file holds.

        Raises RecipeError that names all faults of the settings.
        """
        started = time.monotonic()
        settings = asked(user_settings().layer(), recipe or {})
        quiet_libraries()
        place = cache_folder() if cache == "auto" else None if cache is None else Path(cache)
        session = cls(settings, place, tuple(listeners), started)
        if cache == "auto" and place is None:
            session.events.note(NO_HOME)
        return session

    def source(self, data: str | Path) -> Source:
        """What a place holds, its answers read as the recipe asks. Raises DataError; UsageError where the
        network must not be touched, and the data lie there.
        """
        offline = self.recipe.run.offline
        if offline:
            require_here(braced(str(data)))
        source = read_source(data, Wanted.of(self.recipe.data))
        if offline:
            require_here(row.source for row in source.rows)
        return source

    @property
    def events(self) -> Events:
        """Events that the listeners hear and no file keeps."""
        return Events(None, self.listeners)

    @contextlib.contextmanager
    def tracked(self, names: Sequence[str]) -> Iterator[Session]:
        """The same session, heard by the trackers named too.

        Raises UsageError for a tracker that cannot be used.
        """
        with tracked(names, self.recipe.run.offline, self.listeners) as listeners:
            yield replace(self, listeners=listeners)

    def context(self, examples: Examples) -> Context:
        """What steps use that are taken outside a run. Raises UsageError where the device cannot be used."""
        from regraft.modalities import modality_of
        from regraft.steps.context import Context

        modality = modality_of(examples.modality)
        return Context.begin(self.recipe, self.cache, self.events, modality, crew=self.crew)
