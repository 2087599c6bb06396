"""Comparing methods: recipes, baselines, statistics, reports."""
