"""A network is cut where its last map is made: `cut_head`, and what `swap_head` is made of.

Imports nets, heads, images, tracing, runtime and console.
"""
