"""Files that outlive a run: written whole, checked when read, only where gapstone may write.

Imports console and runtime.
"""
