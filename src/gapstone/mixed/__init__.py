"""Images of different sizes in one batch, each answered exactly as if it were alone."""
