"""`gapstone convert`: put another head on a trained model and measure the change in accuracy and cost."""
