"""What the server counts, for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from palam.serving.observer import Observer

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
"""Seconds; quantiles are had from these with `histogram_quantile`."""
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)


class HttpMetrics:
    """Requests and their latency.

    Args:
        registry: where they are kept.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "palam_requests",
            "Requests by route and status.",
            ["route", "status"],
            registry=registry,
        )
        self._latency = Histogram(
            "palam_request_seconds",
            "Seconds from a request's head to the end of its reply.",
            ["route"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )

    def request_done(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(route, str(status)).inc()
        self._latency.labels(route).observe(seconds)


class PrometheusObserver(Observer):
    """Counts the engine's work.

    Args:
        registry: where it is kept.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._batches = Histogram(
            "palam_batch_size",
            "Rows of each batch that the models read.",
            ["kind"],
            buckets=BATCH_BUCKETS,
            registry=registry,
        )
        self._tokens = Counter("palam_tokens", "Tokens read and made.", ["kind"], registry=registry)
        self._failures = Counter(
            "palam_failed_batches",
            "Batches that failed and were tried in smaller ones.",
            ["kind", "error"],
            registry=registry,
        )

    def batch_read(self, kind: str, rows: int) -> None:
        """See [`Observer`]."""
        self._batches.labels(kind).observe(rows)

    def tokens_read(self, kind: str, count: int) -> None:
        """See [`Observer`]."""
        self._tokens.labels(kind).inc(count)

    def batch_failed(self, kind: str, error: BaseException) -> None:
        """See [`Observer`]."""
        self._failures.labels(kind, type(error).__name__).inc()


def add_gauge(
    registry: CollectorRegistry, name: str, description: str, value: Callable[[], float]
) -> None:
    """A number that is asked for when the metrics are."""
    Gauge(name, description, registry=registry).set_function(value)


def metrics_text(registry: CollectorRegistry) -> bytes:
    """All that is counted, in Prometheus' own form."""
    return generate_latest(registry)
