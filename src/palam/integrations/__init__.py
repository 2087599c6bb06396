"""Palam in other libraries."""
