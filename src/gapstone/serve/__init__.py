"""`gapstone serve MODEL`: a web page that shows the prediction and the maps of a model for uploaded pictures."""
