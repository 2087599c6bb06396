"""What is shown: layer weights by token, and the quickstart's page."""

from palam.report.layers import LayerView, check_path, layer_weights, save, table
from palam.report.quickstart import write_report

__all__ = ["LayerView", "check_path", "layer_weights", "save", "table", "write_report"]
