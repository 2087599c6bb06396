"""A process that answers: an engine that reads requests together, an API, a page."""
