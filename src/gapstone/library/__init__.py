"""The front door of Python: `gs.compare` and what it returns, over the same work as the commands.

Imports the rooms of that work.
"""
