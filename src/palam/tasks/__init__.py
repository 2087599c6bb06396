"""Tasks: a registry of labelled multilingual data sets, and loading them or a user's own file."""
