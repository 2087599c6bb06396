"""Importing this registers the model `palam` with lm-evaluation-harness (`palam_bench/harness.py` has it)."""

from palam_bench.harness import PalamLM, harness_tasks, run_harness

__all__ = ["PalamLM", "harness_tasks", "run_harness"]
