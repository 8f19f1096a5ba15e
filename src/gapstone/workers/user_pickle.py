"""What is the user's own, on its way to another process, also where its class stands in a script or a notebook.

A module of the user's is imported there anew; that it was edited meanwhile, whoever opens the pickle can tell by
`code_digest`, and says with `changed`.
"""

import os
import sys
from dataclasses import dataclass, field
from typing import Any

import cloudpickle

from gapstone.console.formatting import display


@dataclass(frozen=True)
class UserPickle:
    """Bytes of cloudpickle, and where modules of the user's are looked for.

    pickled = UserPickle.of(dataset, "augmented=", "or open them in __getitem__")
    pickled.load()                                          # in the other process
    """

    content: bytes = field(repr=False)
    folders: tuple[str, ...]
    """After all others: no file there takes the place of a module of Python's."""

    @classmethod
    def of(cls, value: object, what: str, instead: str) -> "UserPickle":
        """Of a value that messages call `what`. Raises ValueError if it cannot be pickled; says what to do."""
        try:
            content = cloudpickle.dumps(value)
        except Exception as error:  # whatever the user's objects raise
            raise ValueError(
                f"{what} cannot be sent to the processes that train ({type(error).__name__}: {display(str(error))}): "
                f"keep open files, locks and generators out of it, {instead}."
            ) from error
        return cls(content, tuple(os.path.abspath(entry) for entry in sys.path))

    def load(self) -> Any:
        """The value, made anew."""
        sys.path += [folder for folder in self.folders if folder not in sys.path]
        return cloudpickle.loads(self.content)


def changed(what: str) -> ValueError:
    """The error where it is another than what was pickled."""
    return ValueError(f"the code of {what} has changed since the comparison began: start it again.")
