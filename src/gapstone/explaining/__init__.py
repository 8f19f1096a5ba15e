"""`explain`: which parts of each picture speak for and against which class, for one picture or many thousands.

inputs (which files) → looking (the network; resumable) → drawing (PNGs, thumbnails; resumable) → results, page, table
"""
