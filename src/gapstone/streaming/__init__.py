"""The answer of a network for an image of any size, row by row, exactly and in bounded memory.

A forward pass on shapes alone is recorded at the image's size (`row_recorder`, by the rules of `row_rules`). Then bands
of full-width rows go through the recorded calls (`row_pass`): each window keeps the rows that its next one needs
(`row_buffer`), branches queue where they meet, and what is computed over all positions is summed up over the bands
(`position_sums`), with another pass over the image where calls before the head need its answer.
"""
