"""Draws maps: colours, overlays, contact sheets, SVG. Imports images and localisation, never maps."""
