"""The process and the machine it runs on: environment, interrupts, timing, torch's private names.

Imports `console.formatting` alone.
"""
