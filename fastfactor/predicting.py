"""What a fitted model says of single entries: the methods of `Factorization` that predict pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastfactor.kernels.predict import predict_pairs
from fastfactor.kernels.simd import Spec, Static
from fastfactor.kernels.update import Factors
from fastfactor.options import check_flag, check_real
from fastfactor.threads import launch


class Predicting:
    """Methods of `Factorization` that take pairs of positions."""

    def predict(self: Any, rows: ArrayLike, cols: ArrayLike, *, return_std: bool = False) -> Any:
        """Return the model's value at each pair (rows[i], cols[i]): the mean of the response, the link applied.

        Parameters
        ----------
        rows, cols : integers, broadcast against each other
            Positions, from 0.
        return_std : bool
            Also return the standard deviation of what an entry there would be, its noise included. For models of
            `fit(posterior_samples=N)`.

        Returns
        -------
        array of their common shape, of the dtype of U
            With `return_std` a pair of them.

        Raises
        ------
        TypeError
            If they are not integers.
        IndexError
            If one is outside the matrix; negative positions do not count from the end.
        ValueError
            If they do not broadcast, or `return_std` is asked of a model without samples.

        Examples
        --------
        >>> import numpy as np, fastfactor as ff
        >>> model = ff.fit(np.outer([1.0, 2.0, 3.0], [1.0, 2.0]), rank=1, unobserved="zero", max_epochs=200)
        >>> bool(abs(model.predict(2, 1) - 6) < 0.1)
        True
        """
        from fastfactor.posterior import check_sampled, predict_std

        if check_flag(return_std, "return_std"):
            check_sampled(self, "return_std")
        r, c, shape = self._broadcast(rows, cols)
        predictions = self._predict_pairs(r, c).reshape(shape)
        return (predictions, predict_std(self, r, c).reshape(shape)) if return_std else predictions

    def _predict_pairs(self: Any, rows: NDArray[Any], cols: NDArray[Any]) -> NDArray[Any]:
        out = np.empty(len(rows), self.U.dtype)
        lanes = next(n for n in (16, 8, 4, 2, 1) if self.rank % n == 0)
        factors = Factors(self.U, self.V, self.row_bias, self.col_bias)
        launch(predict_pairs, factors, rows, cols, out, Static(Spec(lanes, False, "squared", False)))
        # Here and not in the kernel, whose sums of single numbers have another order when it comes from the disk cache.
        out += self.row_bias[rows]
        out += self.col_bias[cols]
        out += self.mean
        return np.asarray(self._link(out))

    def predict_interval(
        self: Any, rows: ArrayLike, cols: ArrayLike, coverage: float = 0.8
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return an interval for each pair, which holds a new entry there with probability `coverage`.

        For models of `fit(posterior_samples=N)`: the prediction and as many standard deviations below and above as it
        took on entries held out of a second fit; matrices of fewer than a thousand entries get a normal distribution's.
        The intervals know nothing of bounds or steps that values may have.

        Parameters
        ----------
        rows, cols : integers, broadcast against each other
            Positions, from 0.
        coverage : float
            Above 0 and below 1.

        Returns
        -------
        lower, upper : arrays of their common shape, of the dtype of U

        Raises
        ------
        TypeError, IndexError
            As for `predict`.
        ValueError
            If `coverage` is not between 0 and 1, or the model has no samples.

        Examples
        --------
        >>> import numpy as np, fastfactor as ff
        >>> A = np.random.default_rng(0).standard_normal((30, 20))
        >>> lower, upper = ff.fit(A, rank=1, posterior_samples=10).predict_interval(0, range(20))
        >>> bool((lower < upper).all())
        True
        """
        from fastfactor.posterior import check_sampled, find_margins

        check_sampled(self, "predict_interval")
        coverage = check_real(coverage, "coverage", strict=True)
        if coverage >= 1:
            raise ValueError(f"coverage must be below 1, got {coverage}")
        predictions, std = self.predict(rows, cols, return_std=True)
        below, above = find_margins(self, coverage).astype(std.dtype)
        return predictions + std * below, predictions + std * above
