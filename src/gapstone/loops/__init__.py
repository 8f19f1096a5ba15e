"""HOW: the same definitions run by one loop per language. Loops know pools and boxes, never region classes."""
