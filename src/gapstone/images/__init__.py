"""Single images: decoding every format correctly, and preprocessing.

Imports storage and runtime; imports no torch.
"""
