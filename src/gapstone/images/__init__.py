"""Images: load one right, say what is in a folder, split it, keep it decoded. Importing this imports no torch."""
