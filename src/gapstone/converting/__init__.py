"""`gapstone convert`: another head on a trained model, and what that cost."""
