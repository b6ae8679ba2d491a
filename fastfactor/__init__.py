"""Low-rank matrix factorization by stochastic gradient descent, compiled with Numba."""
