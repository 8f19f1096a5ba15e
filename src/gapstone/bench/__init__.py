"""`gapstone bench` and `gapstone doctor`: gapstone's pools against torch on this machine; which loop runs when."""
