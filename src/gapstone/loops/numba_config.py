"""Numba is set by the environment (NUMBA_CPU_NAME, …), never by a `.numba_config.yaml` in the working folder.

Such a file could switch on a debugger, or name the folder that compiled code is loaded from. Where a user's own program
has imported Numba before gapstone, it has what Numba found.
"""

import os
import sys

from gapstone.working_folder import import_without

if "numba" not in sys.modules:
    config = import_without(".numba_config.yaml", "numba.core.config")
    config._config_fname = os.devnull  # type: ignore[attr-defined]  # Numba looks again before it compiles
