"""How well a map finds its object: boxes, components, scores. Works on NumPy arrays alone."""
