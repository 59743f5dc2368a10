"""One Ray on this machine for all tests of workers: it takes seconds to begin."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from regraft.crew import Crew
from regraft.scale import Cluster, crew_of


@pytest.fixture(scope="session")
def told() -> list[str]:
    """What was said of the workers so far."""
    return []


@pytest.fixture(scope="session")
def joined(told: list[str]) -> Iterator[Crew]:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'regraft[ray]'")
    with crew_of(Cluster(2), told.append) as crew:
        assert crew is not None
        yield crew


@pytest.fixture
def crew(joined: Crew, request: pytest.FixtureRequest) -> Crew:
    """Two workers of one thread, for a test whose module workers cannot import."""
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[request.module.__name__])
    return joined
