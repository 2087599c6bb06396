"""Fusions: from the encoder's L layers to one state a token. One file a fusion."""
