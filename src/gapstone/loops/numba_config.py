"""Numba is set by the environment (NUMBA_CPU_NAME, …), never by a `.numba_config.yaml` in the working folder.

Such a file could switch on a debugger, or name the folder that compiled code is loaded from. Where a user's own program
has imported Numba before gapstone, it has what Numba found.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from gapstone.runtime.working_folder import around_import, hidden


@contextlib.contextmanager
def _unconfigured() -> Iterator[None]:
    with hidden(".numba_config.yaml"):
        yield
    config: Any = sys.modules["numba.core.config"]
    if hasattr(config, "_config_fname"):  # private: Numba looks for that file again before it compiles
        config._config_fname = os.devnull


around_import("numba", _unconfigured)
