"""Measures how well maps localise objects: boxes, components, scores. Works on NumPy arrays only."""
