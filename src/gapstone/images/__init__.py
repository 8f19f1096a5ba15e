"""Single images: decoding every format correctly, and preprocessing.

Imports storage and runtime; only `shift` imports torch.
"""
