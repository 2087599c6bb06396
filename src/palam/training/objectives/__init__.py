"""What can be learned from raw English text: a file an objective."""
