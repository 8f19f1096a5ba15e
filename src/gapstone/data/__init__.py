"""Data sets of images: opening, scanning, near duplicates, splits, and the store of decoded images.

Imports images, workers and storage; imports no torch.
"""
