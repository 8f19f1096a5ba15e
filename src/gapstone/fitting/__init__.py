"""Fit a head without training: one pass over the images, then a convex problem."""
