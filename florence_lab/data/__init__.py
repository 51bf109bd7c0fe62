"""Datasets: readers for each format, and the validation that turns their rows into examples."""
