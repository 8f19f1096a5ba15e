"""Compare accuracies on the same test images: differences, intervals, verdicts, and what would decide."""
