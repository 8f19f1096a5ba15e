"""Processes that do work and may die: a pool that decodes, processes that train. Imports runtime and storage."""
