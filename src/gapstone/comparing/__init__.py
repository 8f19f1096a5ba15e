"""Train one backbone under several heads with several seeds, measure everything, compare with honest statistics."""
