"""`gapstone evaluate`: models as they are on labelled images."""
