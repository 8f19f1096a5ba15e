"""A trained classifier and its one safe file: save, load, open by name.

Imports heads, nets, images and what is below them.
"""
