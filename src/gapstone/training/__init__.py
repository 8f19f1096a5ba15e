"""From DATA to a trained network: settings, decoded images, one training loop.

Imports models, data and what is below them.
"""
