"""`gapstone bench`: the pools networks run all day, against torch on this machine."""
