"""What the server counts, in the text format of Prometheus. No text, and nothing of one, is in it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.05, 0.1, 0.2, 0.3, 0.45, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        # Not the library's global registry, which refuses a name that a second server here repeats.
        registry = CollectorRegistry()
        self._registry = registry
        self.requests = Counter(
            "triage_requests", "Requests to decide, by HTTP status", ["status"], registry=registry
        )
        self.decisions = Counter(
            "triage_decisions", "Decisions by label", ["label"], registry=registry
        )
        self.seconds = Histogram(
            "triage_decision_seconds", "Time to a decision", buckets=SECONDS, registry=registry
        )
        self.waiting = Gauge(
            "triage_waiting_texts", "Texts that wait for a decision", registry=registry
        )

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self._registry)
