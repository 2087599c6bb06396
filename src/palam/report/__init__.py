"""What is shown: layer weights by token, the probe of layers and fusions, and the quickstart's page."""

from palam.report.layers import LayerView, check_path, layer_weights, save, table
from palam.report.probe import probe_table, write_probe
from palam.report.quickstart import write_report

__all__ = ["LayerView", "check_path", "layer_weights", "probe_table", "save", "table", "write_probe", "write_report"]
