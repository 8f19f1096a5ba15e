"""One command of the command line per file: its options, and a few lines over the library. Imports anything."""
