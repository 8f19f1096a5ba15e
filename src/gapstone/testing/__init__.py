"""Checks for pools of your own: `check_pool`. May import pooling and what is below it."""

from gapstone.testing.check_pool import PoolReport, check_pool

__all__ = ["PoolReport", "check_pool"]
