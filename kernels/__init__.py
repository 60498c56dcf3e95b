"""Losses over all pairs of rows, exact and linear in memory. Imported as `graph2mlp.kernels`."""
