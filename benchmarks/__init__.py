"""Measurements of what the project promises, each a command; the results stand in README.md."""
