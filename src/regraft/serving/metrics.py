"""What a server counts, for Prometheus; on a registry of its own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Meter:
    """The counters of one server. Labels are paths that exist, statuses, and names of models: bounded."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)

        def named(kind: type, name: str, what: str, labels: tuple[str, ...] = (), **more: object) -> object:
            return kind(f"regraft_{name}", what, labels, registry=self.registry, **more)

        self.requests: Counter = named(Counter, "requests", "requests answered", ("path", "status"))
        self.seconds: Histogram = named(
            Histogram, "request_seconds", "from headers to answer", ("path",), buckets=SECONDS
        )
        self.items: Counter = named(Counter, "items", "items answered", ("model", "outcome"))
        self.batches: Histogram = named(Histogram, "batch_items", "items a batch", ("model",), buckets=SIZES)
        self.passes: Histogram = named(
            Histogram, "batch_seconds", "seconds a batch", ("model",), buckets=SECONDS
        )
        self.reloads: Counter = named(Counter, "reloads", "models read again", ("outcome",))
        self.queue: Gauge = named(Gauge, "queue_items", "items that are read or wait for a model")

    def text(self) -> bytes:
        """All of it as Prometheus reads it."""
        return bytes(generate_latest(self.registry))
