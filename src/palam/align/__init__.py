"""Aligning the encoder with the LLM on English text: the solved map, and a probe of layers and fusions."""

from palam.align.moments import STRENGTHS, Moments
from palam.align.pairs import Pairs, overlap_shares, token_pairs
from palam.align.sample import Sample, probe, search
from palam.align.solving import Solved, batches, solve

__all__ = ["STRENGTHS", "Moments", "Pairs", "Sample", "Solved", "batches", "overlap_shares", "probe", "search", "solve"]
__all__ += ["token_pairs"]
