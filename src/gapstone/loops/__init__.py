"""HOW: the same definitions run by one loop per language. Loops know pools and boxes, never region classes."""

from gapstone.loops import numba_config as numba_config  # before any of the files here imports Numba
