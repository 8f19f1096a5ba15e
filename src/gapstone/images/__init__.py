"""One image: read it right, whatever its format, and preprocess it.

Imports storage and runtime; imports no torch.
"""
