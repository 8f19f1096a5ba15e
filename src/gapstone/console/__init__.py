"""What a person reads on a terminal: text, progress, options. Imports nothing of gapstone but itself."""
