"""What gapstone prints and shows: text, numbers, progress, the terminal. Imports nothing else of gapstone."""
