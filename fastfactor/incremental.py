"""What a fitted model does with rows and entries that it has not seen: the methods of `Factorization` for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

if TYPE_CHECKING:
    from fastfactor.model import Factorization


class Incremental:
    """Methods of `Factorization` that take new data."""

    def transform(self: Any, X_new: Any, *, n_threads: int | None = None) -> NDArray[Any]:
        """Return the factors of new rows against the fitted V: what a fit would give them if no column moved.

        Parameters
        ----------
        X_new : array, scipy.sparse matrix, or (rows, cols, values)
            Shape (n_new, n_cols), read as the fit read X: what is not stored is unknown, 0, or a zero of small weight.
        n_threads : int, optional
            At most this many; by default all that the process may use. The result does not depend on it.

        Returns
        -------
        (n_new, rank) array
            Of the dtype of U. With biases they belong to the offset that `fold_in` gives beside them. Exact for the
            squared loss of real numbers without L1 penalty and signs, else by descent on the row's entries alone. Where
            the best factors are not unique the shortest; zeros for rows without entries.

        Raises
        ------
        TypeError, ValueError
            If X_new is bad, has another number of columns or values that the loss is not defined for; or the model is
            one of `posterior_samples`.

        Examples
        --------
        >>> import numpy as np, fastfactor as ff
        >>> A = np.outer([1.0, 2.0, 3.0], [1.0, 2.0])
        >>> model = ff.fit(A, rank=1, unobserved="zero", max_epochs=400)
        >>> bool(np.allclose(model.transform(A[1:2]) @ model.V.T, [[2, 4]], atol=0.05))
        True
        """
        return self.fold_in(X_new, n_threads=n_threads).U

    def fold_in(self: Any, X_new: Any, *, n_threads: int | None = None) -> Factorization:
        """Return a model of new rows beside the fitted columns: factors, offsets, predictions, recommendations.

        Parameters
        ----------
        X_new : array, scipy.sparse matrix, or (rows, cols, values)
            As for `transform`.
        n_threads : int, optional
            As for `transform`.

        Returns
        -------
        Factorization
            Of shape (n_new, n_cols); V, mean and col_bias are this model's, history and selection are empty.

        Raises
        ------
        TypeError, ValueError
            As for `transform`.
        """
        from fastfactor.folding import fold_in

        return fold_in(self, X_new, n_threads)

    def partial_fit(
        self: Any, X: Any, *, max_epochs: int | None = None, seed: int = 0, n_threads: int | None = None
    ) -> Factorization:
        """Return this model after some more epochs: with more entries, more rows, more columns.

        Loss, penalties, offsets, signs and units are those of the fit that made this model; nothing is chosen anew.

        Parameters
        ----------
        X : array, scipy.sparse matrix, or (rows, cols, values)
            With unobserved="missing" the new entries: those of before need not be there again, and rows and columns
            without an entry stay as they are. With "zero" and "weak", where what is not stored counts, the whole matrix
            as it is now. Positions go on from those of this model: rows and columns beyond its shape are new.
        max_epochs : int, optional
            By default 5, 20 for "zero", 3 for "weak". With "missing" the steps are small, so that entries of before are
            not forgotten; what is new moves a model of many entries little, and a fit of all entries is better.
        seed : int
            As for `fit`.
        n_threads : int, optional
            As for `fit`.

        Returns
        -------
        Factorization
            A new one, at least as large; this one stays as it is.

        Raises
        ------
        TypeError, ValueError
            If X is bad, or smaller than the model where it must be whole; or the model is one of `posterior_samples`.

        Examples
        --------
        >>> import numpy as np, fastfactor as ff
        >>> rng = np.random.default_rng(0)
        >>> A = rng.standard_normal((30, 2)) @ rng.standard_normal((2, 20))
        >>> model = ff.fit(A[:25], rank=2)
        >>> rows, cols = np.nonzero(A[25:])
        >>> model.partial_fit((rows + 25, cols, A[25:].ravel())).shape
        (30, 20)
        """
        from fastfactor.continuing import partial_fit

        return partial_fit(self, X, max_epochs, seed, n_threads)
