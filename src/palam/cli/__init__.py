"""The command `palam`."""
