"""Where a network's parameters and multiply-adds are, what sizes it takes, what other heads would cost on it."""
