"""Fusions by name. A new one is a module like its neighbours here, and one line below."""

from palam.fusion.base import Fusion
from palam.fusion.global_softmax import GlobalSoftmax
from palam.fusion.last import LastLayer
from palam.fusion.mean import Mean
from palam.fusion.transformer_softmax import TransformerSoftmax

FUSIONS: dict[str, type[Fusion]] = {
    "last": LastLayer,
    "mean": Mean,
    "global_softmax": GlobalSoftmax,
    "transformer_softmax": TransformerSoftmax,
}

__all__ = ["FUSIONS", "Fusion", "GlobalSoftmax", "LastLayer", "Mean", "TransformerSoftmax"]
