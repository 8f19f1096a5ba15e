"""From results.json and pictures.npz: a table for the terminal, and one page of HTML that needs nothing else."""
