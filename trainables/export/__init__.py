"""Nets as files that other programs execute."""
