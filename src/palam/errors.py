"""The one error that a user's mistake raises: its message is one clear line."""


class PalamError(ValueError):
    """A mistake in what the user gave; the message says what was wrong and what would be right.

    The command prints the message on one line and exits with code 2.
    """
