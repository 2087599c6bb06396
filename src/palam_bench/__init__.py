"""Experiments: what a run will need, methods × seeds × tasks from a recipe, paired tests of what they found.

A package beside `palam`: it uses the library as any user could, and nothing in the library needs it but the command,
which offers `palam plan`, `palam bench` and `palam report`.
"""
