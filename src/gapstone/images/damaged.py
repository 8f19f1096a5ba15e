"""DamagedError, apart from what raises it."""


class DamagedError(ValueError):
    """Something of the picture is missing, or in its place stands what does not belong there; the message says what."""
