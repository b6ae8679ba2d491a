"""One sweep of the kernels equals one of the oracle: each dtype, layout, problem and width."""

import numpy as np
import pytest
import reference
import scipy.sparse as sp
from sweeping import assert_equal_to_oracle, check_dense, check_stored, make_dense, make_triplets

from fastfactor.matrix.grid import DenseGrid, Making, build_grid
from fastfactor.matrix.inputs import as_observations

DTYPES = ["float32", "float64", "complex64", "complex128"]
SHAPE = (37, 29)


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_stored_entries(dtype, biases):
    triplets = make_triplets(dtype)
    check_stored(triplets, triplets, 16, dtype, biases, shape=SHAPE)


@pytest.mark.parametrize("shape", [SHAPE, (83, 75)])  # blocks of less and of more than 8 rows and columns
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_entry(dtype, shape):
    A = make_dense(dtype, shape)
    check_dense(A, A, 16, dtype, biases=False)


def test_every_entry_with_biases():
    A = make_dense("float32")
    check_dense(A, A, 16, "float32", biases=True)


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_rows_walked_in_chunks(dtype):
    triplets = make_triplets(dtype)
    check_stored(triplets, triplets, 144, dtype, True, shape=SHAPE)
    A = make_dense(dtype)
    check_dense(A, A, 144, dtype, biases=False)


@pytest.mark.parametrize("rank", [1, 8, 13])
def test_padded_ranks(rank):
    triplets = make_triplets("float32")
    check_stored(triplets, triplets, rank, "float32", True, shape=SHAPE)


@pytest.mark.parametrize("problem", ["missing", "zero"])
def test_a_penalty_for_each_row_and_column(problem):
    reg = np.linspace(0, 5, SHAPE[0]), np.linspace(3, 0, SHAPE[1])
    if problem == "missing":
        triplets = make_triplets("float64")
        grid = build_grid(as_observations(triplets, shape=SHAPE), Making(0.0, 1.0, np.dtype("float64"), 5))
        places = grid.row_order, grid.col_order, grid.blocks.row_starts, grid.blocks.col_starts
        visits = reference.visit_stored(*triplets, places, np.arange(grid.n_stripes))
    else:
        A = make_dense("float64")
        grid = DenseGrid.of(A)
        visits = reference.visit_dense(A, grid.row_starts, grid.col_starts, np.arange(grid.n_stripes))
    biases = problem == "missing"
    assert_equal_to_oracle(grid, visits, 16, "float64", biases, np.arange(grid.n_stripes), reg)


def strided(M):
    larger = np.zeros((2 * M.shape[0], 3 * M.shape[1]), M.dtype)
    larger[::2, ::3] = M
    return larger[::2, ::3]


LAYOUTS = {
    "triplets": lambda t: t,
    "shuffled triplets": lambda t: tuple(x[np.random.default_rng(2).permutation(len(t[0]))] for x in t),
    "csr_array": lambda t: sp.csr_array((t[2], t[:2]), shape=SHAPE),
    "csr_matrix": lambda t: sp.csr_matrix((t[2], t[:2]), shape=SHAPE),
    "csc_array": lambda t: sp.csc_array((t[2], t[:2]), shape=SHAPE),
    "csc_matrix": lambda t: sp.csc_matrix((t[2], t[:2]), shape=SHAPE),
    "coo_array": lambda t: sp.coo_array((t[2], t[:2]), shape=SHAPE),
    "coo_matrix": lambda t: sp.coo_matrix((t[2], t[:2]), shape=SHAPE),
    "lil_array": lambda t: sp.lil_array(sp.csr_array((t[2], t[:2]), shape=SHAPE)),
    "dok_array": lambda t: sp.dok_array(sp.csr_array((t[2], t[:2]), shape=SHAPE)),
    "bsr_array": lambda t: sp.bsr_array(sp.csr_array((t[2], t[:2]), shape=SHAPE), blocksize=(1, 1)),
    "dense with NaN": lambda t: dense_with_gaps(t),
    "dense with NaN, F order": lambda t: np.asfortranarray(dense_with_gaps(t)),
    "dense with NaN, strided": lambda t: strided(dense_with_gaps(t)),
}


def dense_with_gaps(triplets):
    A = np.full(SHAPE, np.nan, triplets[2].dtype)
    A[triplets[:2]] = triplets[2]
    return A


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_stored_entries(layout):
    triplets = make_triplets("float32")
    if layout in ("lil_array", "dok_array"):
        triplets[2][3] = 0.5  # these formats drop zeros when they are filled
    X = LAYOUTS[layout](triplets)
    if layout == "shuffled triplets":  # a row's entries are visited in the order given
        order = np.argsort(X[0], kind="stable")
        triplets = tuple(x[order] for x in X)
    check_stored(X, triplets, 16, "float32", True, shape=SHAPE if isinstance(X, tuple) else None)


@pytest.mark.parametrize("index_dtype", ["int32", "int64", "uint16"])
def test_index_dtypes(index_dtype):
    rows, cols, values = make_triplets("float32")
    X = rows.astype(index_dtype), cols.astype(index_dtype), values
    check_stored(X, (rows, cols, values), 16, "float32", True, shape=SHAPE)
    matrix = sp.csr_array((values, (rows, cols)), shape=SHAPE)
    if index_dtype == "int64":
        matrix.indices, matrix.indptr = matrix.indices.astype(np.int64), matrix.indptr.astype(np.int64)
        check_stored(matrix, (rows, cols, values), 16, "float32", True)


@pytest.mark.parametrize("convert", [np.asfortranarray, strided, sp.csr_array, sp.csc_matrix, sp.coo_array])
def test_layouts_of_every_entry(convert):
    A = make_dense("float32")
    A[A < -0.5] = 0
    check_dense(convert(A), A, 16, "float32", biases=False)


def test_wide_matrix_with_32_bit_positions():
    """More than 2**16 columns in a stripe: positions within blocks no longer fit 16 bits."""
    shape = (3, 3 * (1 << 16) + 30)
    cols = np.linspace(0, shape[1] - 1, 50).astype(np.int64)
    triplets = np.arange(50) * 3 // 50, cols, np.linspace(-1, 1, 50).astype("float32")
    grid = build_grid(as_observations(triplets, shape=shape), Making(0.0, 1.0, np.dtype("float32"), 5))
    assert grid.blocks.entries.dtype["col"] == np.uint32
    places = grid.row_order, grid.col_order, grid.blocks.row_starts, grid.blocks.col_starts
    diagonals = np.arange(grid.n_stripes)
    visits = reference.visit_stored(*triplets, places, diagonals)
    assert_equal_to_oracle(grid, visits, 8, "float32", True, diagonals)
