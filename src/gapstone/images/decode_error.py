"""The error of all decoders."""


class DecodeError(ValueError):
    """Part of an image is missing, damaged or not supported.

    The message says what; it begins with "truncated" or "not supported" unless the image is damaged.
    """
