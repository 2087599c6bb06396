"""How much each encoder layer counts for each token: by weight, and by weight × norm, since norms differ by layer."""

import io
import json
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unicodedata import bidirectional

import torch
from rich.table import Table
from rich.text import Text
from tokenizers.decoders import ByteLevel
from torch import Tensor

from palam.errors import PalamError
from palam.models.modeling import PalamModel
from palam.models.processing import clean
from palam.utils.files import atomic_file
from palam.utils.languages import find_language
from palam.utils.templating import render

SUFFIXES = (".png", ".html", ".json")


@dataclass(frozen=True, eq=False)
class LayerView:
    """One text, the encoder's tokens of it, their layer weights and the norms of what was weighted [tokens, L]."""

    text: str
    tokens: list[str]
    weights: Tensor
    norms: Tensor
    language: str | None = None

    @classmethod
    def of(cls, model: PalamModel, text: str, language: str | None = None) -> "LayerView":
        """Read a text with a model (see [`layer_weights`])."""
        tokens, weights, norms = layer_weights(model, text, language)
        tokenizer = model.processor.encoder_tokenizer
        if isinstance(
            getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None), ByteLevel
        ):
            tokens = [
                tokenizer.convert_tokens_to_string([token]).replace(" ", "▁") for token in tokens
            ]
        return cls(clean(text), tokens, weights, norms, language)

    @property
    def shares(self) -> Tensor:
        """Weight × norm, as a share of the token's sum [tokens, L]."""
        product = self.weights * self.norms
        return product / product.sum(-1, keepdim=True).clamp(min=1e-12)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        numbers = {"weights": self.weights.tolist(), "norms": self.norms.tolist()}
        return {"text": self.text, "language": self.language, "tokens": self.tokens} | numbers

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "LayerView":
        """From the JSON form."""
        weights, norms = (
            torch.tensor(data[key], dtype=torch.float32) for key in ("weights", "norms")
        )
        return cls(data["text"], data["tokens"], weights, norms, data.get("language"))


@torch.no_grad()
def layer_weights(
    model: PalamModel, text: str, language: str | None = None
) -> tuple[list[str], Tensor, Tensor]:
    """How much each layer counts for each token of a text.

    Returns:
        The encoder's tokens, their layer weights [tokens, L] (one-hot on the last layer for `last`), and the norms
        [tokens, L] of the states that were weighted; weight × norm is what a layer contributes.
    """
    batch = model.processor([text], languages=[language])
    states = model.encode(batch["encoder_input_ids"], batch["encoder_attention_mask"])
    with model.evaluating():
        _, weights = model.bridge(states)
    norms = torch.stack(
        [model.bridge.fusion.prepare(state).float().norm(dim=-1) for state in states], -1
    )
    if weights is None:
        weights = torch.zeros_like(norms)
        weights[:, -1] = 1
    tokens = model.processor.encoder_tokenizer.convert_ids_to_tokens(
        batch["encoder_input_ids"][0].tolist()
    )
    return tokens, weights.float().cpu(), norms.cpu()


def language_tag(code: str | None) -> str | None:
    """The BCP 47 tag of a language code (`sin_Sinh`: `si-Sinh`), or None if the language is unknown."""
    language = find_language(code) if code else None
    return f"{language.iso1 or language.iso3}-{language.code[4:]}" if language else None


def percent(share: float) -> str:
    """A share as a percentage of at most three characters and a point."""
    return f"{100 * share:.1f}" if share < 0.0995 else f"{100 * share:.0f}"


def table(view: LayerView) -> Table:
    """For the terminal: tokens down, layers across; weight × norm as a percentage of the token's sum."""
    result = Table(
        title="weight × norm, % of each token's sum",
        box=None,
        padding=(0, 1, 0, 0),
        show_footer=True,
    )
    result.add_column("token", footer="mean weight × norm\nmean weight", no_wrap=True, min_width=18)
    for layer, (share, weight) in enumerate(
        torch.stack([view.shares.mean(0), view.weights.mean(0)], 1).tolist(), 1
    ):
        foot = f"{percent(share)}\n{percent(weight)}"
        result.add_column(str(layer), footer=foot, justify="right", no_wrap=True, min_width=3)
    for token, row in zip(view.tokens, view.shares.tolist(), strict=True):
        result.add_row(Text(token), *map(percent, row))
    return result


def panel(title: str, view: LayerView, values: Tensor, top: float | None = None) -> dict[str, Any]:
    """What the heat map's template takes; the colour is full at `top`, by default the largest value."""
    return {
        "title": title,
        "tag": language_tag(view.language),
        "rows": list(zip(view.tokens, values.tolist(), strict=True)),
        "foot": values.mean(0).tolist(),
        "top": max(values.max().item() if top is None else top, 1e-12),
    }


def check_path(path: str | os.PathLike[str]) -> str:
    """The file's suffix; raises now what `save` would raise after the model's work.

    Raises:
        PalamError: a suffix that is none of `.png`, `.html`, `.json`, or a picture without matplotlib.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise PalamError(
            f"{path}: a layer view is saved as {', '.join(SUFFIXES)}; give a file name that ends so"
        )
    if suffix == ".png" and find_spec("matplotlib") is None:
        raise PalamError('a picture needs matplotlib: pip install "palam[plot]"')
    return suffix


def save(view: LayerView, path: str | os.PathLike[str]) -> None:
    """Write a view as a picture (`.png`), a page (`.html`) or data (`.json`), whole or not at all.

    Raises:
        PalamError: see `check_path`; or a file that cannot be written.
    """
    suffix = check_path(path)
    if suffix == ".png":
        data = _picture(view)
    elif suffix == ".json":
        data = (json.dumps(view.to_dict(), ensure_ascii=False) + "\n").encode()
    else:
        panels = [panel("Weight", view, view.weights), panel("Weight × norm", view, view.shares)]
        data = render("layers.html.j2", view=view, panels=panels, percent=percent).encode(
            errors="replace"
        )
    with atomic_file(path) as file:
        file.write(data)


def _picture(view: LayerView) -> bytes:
    """Two heat maps side by side as PNG, through matplotlib's objects alone: no global state is touched."""
    from matplotlib.figure import Figure
    from matplotlib.font_manager import findfont
    from matplotlib.ft2font import FT2Font

    characters: Any = FT2Font(findfont("DejaVu Sans")).get_charmap()
    tokens, layers = view.weights.shape
    # The font has few scripts, and older releases order nothing from right to left.
    named = [
        all(ord(c) in characters and bidirectional(c) not in ("R", "AL") for c in token)
        for token in view.tokens
    ]
    labels = [
        f"{i}  {t}" if ok else f"{i}"
        for i, (t, ok) in enumerate(zip(view.tokens, named, strict=True), start=1)
    ]
    figure = Figure(
        figsize=(3.6 + 0.5 * layers, max(3.0, 1.4 + 0.22 * tokens)), dpi=150, layout="constrained"
    )
    axes = figure.subplots(1, 2, sharey=True)
    for axis, title, values in zip(
        axes, ("weight", "weight × norm"), (view.weights, view.shares), strict=True
    ):
        image = axis.imshow(
            100 * values.numpy(), cmap="YlGnBu", vmin=0, aspect="auto", interpolation="nearest"
        )
        axis.set_title(f"{title}, % of each token", fontsize=10)
        axis.set_xticks(range(layers), [str(layer) for layer in range(1, layers + 1)], fontsize=8)
        axis.set_xlabel("layer", fontsize=9)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        figure.colorbar(image, ax=axis, fraction=0.04, pad=0.02, aspect=40).ax.tick_params(
            labelsize=8
        )
    axes[0].set_yticks(range(tokens), labels, fontsize=8, parse_math=False, family="DejaVu Sans")
    caption = "Each token's layers sum to 100 %."
    if not all(named):
        caption += "\nA number without a token: its script is not in this picture's font; the .html form shows it."
    figure.supxlabel(caption, fontsize=8, color="0.35")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": "Palam"})
    return buffer.getvalue()
