"""Storage of files between runs: written completely, checked when read, and only where gapstone may write.

Imports console and runtime.
"""
