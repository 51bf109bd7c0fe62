"""Reviewing labels: a grid of uncertain objects in a notebook, and the same by methods."""
