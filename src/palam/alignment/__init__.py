"""Aligning the encoder with the LLM on English text, in closed form."""
