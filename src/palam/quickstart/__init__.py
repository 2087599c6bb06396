"""The quickstart: from nothing to a report."""
