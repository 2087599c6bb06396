"""Benchmarks: methods × seeds × tasks from a recipe, and paired tests of what they found."""
