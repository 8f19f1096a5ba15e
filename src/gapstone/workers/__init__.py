"""Processes that do work and may die: one pool decodes images, another runs training jobs.

Imports runtime and storage.
"""
