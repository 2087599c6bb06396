"""Training a bridge on English alone."""
