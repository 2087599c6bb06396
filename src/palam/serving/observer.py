"""What the engine tells of its work, to be counted."""


class Observer:
    """Counts nothing; see [`PrometheusObserver`] for one that does."""

    def batch_read(self, kind: str, rows: int) -> None:
        """A batch was read: of `prefill`, `decode` or `classify`, with so many rows."""

    def tokens_read(self, kind: str, count: int) -> None:
        """So many tokens were read (`prompt`, `classify`) or made (`completion`)."""

    def batch_failed(self, kind: str, error: BaseException) -> None:
        """A batch failed; its rows are tried in smaller ones."""
