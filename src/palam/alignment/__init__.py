"""The encoder aligned with the LLM on English text, in closed form."""
