"""Keeping libraries quiet that report on their own."""


def silence_libraries() -> None:
    """Silence what the libraries print on their own, their progress bars too."""
    from huggingface_hub.utils.tqdm import disable_progress_bars
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    disable_progress_bars()
