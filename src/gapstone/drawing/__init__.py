"""Maps as pictures: colours, overlays, sheets, SVG. Imports images and localisation, never maps."""
