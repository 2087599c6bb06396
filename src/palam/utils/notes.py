"""What a user should know of, though nothing is wrong enough to stop."""

import logging

LOGGER = logging.getLogger("palam")


def tell(note: str, notes: list[str] | None = None) -> None:
    """Pass a note on.

    Args:
        note: one line.
        notes: the caller's list, to which it is added; without one, it is logged as a warning of
            the logger `palam`, which Python shows on standard error unless told otherwise.
    """
    if notes is None:
        LOGGER.warning(note)
    else:
        notes.append(note)
