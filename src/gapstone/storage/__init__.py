"""What gapstone keeps on disk between runs: read only where it is as it was written, written only where it may be."""
