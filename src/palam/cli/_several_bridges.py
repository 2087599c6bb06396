"""Bridges that answer together: what is looked at before any of their models is loaded."""

from collections.abc import Sequence


def check_bridges_alike(
    checkpoints: Sequence[str],
    column: str | None,
    *,
    same_labels: bool = True,
    advice: str = "",
) -> None:
    """Refuse bridges that cannot answer together about the rows of a file.

    Args:
        checkpoints: folders or hub ids.
        column: of the text, where the user names it.
        same_labels: whether their labels are those that they were trained on.
        advice: what helps beside bridges of the same labels, for the message.

    Raises:
        PalamError: a bridge that is not there, or two that have other labels or read other columns.
    """
    from palam.inference.ensemble import check_same_form, check_same_labels
    from palam.models.checkpoint import load_bridge

    configs = []
    for checkpoint in checkpoints:
        config = load_bridge(checkpoint).config
        config.name_or_path = checkpoint
        configs.append(config)
    if same_labels:
        check_same_labels(configs, advice=advice)
    check_same_form(configs, column)
