"""Sets of images: list, scan, split, store. Imports images, workers and storage; imports no torch."""
