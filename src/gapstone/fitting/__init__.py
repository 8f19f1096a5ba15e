"""A head without training: one pass over the images, then a solved problem."""
