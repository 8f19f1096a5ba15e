"""A model's answer, and its maps, for one image of any size, in a memory budget: what `gs.stream` does.

The image comes in bands of rows (`given_image`), of as many rows as the budget allows (`plan_bands`), and is played by
`gapstone.streaming`; a small image of the same remainders is tried whole first (`self_check`). The last map, which is
small, is kept and explained by `gs.explain` through the calls after it (`recorded_head`).
"""
