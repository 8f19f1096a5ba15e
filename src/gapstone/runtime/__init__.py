"""The process and its machine: environment, interrupts, timing, torch's private names, working folder.

Imports only `console.formatting`.
"""
