"""The frozen base models: encoder and LLM."""
