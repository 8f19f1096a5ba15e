"""DecodeError, apart from what raises it."""


class DecodeError(ValueError):
    """Something of the picture is missing, or what stands there cannot be it, or is not supported; the message says
    what, and begins with "truncated" or "not supported" where it is not damage.
    """
