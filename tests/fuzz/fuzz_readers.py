"""Coverage-guided fuzzing of the readers, for atheris (not among the extras): pip install atheris, then

    python tests/fuzz/fuzz_readers.py FOLDER -max_total_time=300

FOLDER collects inputs that reach new code. A crash, a hang or an undocumented error ends the run and leaves its input.
"""

import json
import os
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fastfactor", "scipy.io", "scipy.sparse._matrix_io", "numpy.lib", "zipfile"]):
    import numpy as np
    import scipy.sparse as sp
    from scipy.io import mmwrite

    import fastfactor as ff
    from fastfactor import manifest as manifests
    from fastfactor.folders import read_folder
    from fastfactor.storage import as_model

KINDS = ("X.mtx", "X.npy", "X.npz", "X.csv", "X.tsv", "X.arrow", "X.parquet", "manifest", "array")
DOCUMENTED = (ValueError, TypeError, MemoryError, OSError)
folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
warnings.simplefilter("ignore")


def make_model():
    rng = np.random.default_rng(0)
    model = ff.model.Factorization(
        U=rng.random((3, 2), np.float32),
        V=rng.random((2, 2), np.float32),
        mean=np.float32(1),
        row_bias=np.zeros(3, np.float32),
        col_bias=np.zeros(2, np.float32),
        history={"epoch": np.arange(2)},
        selection={"tried": [(0.1, float("inf"))]},
    )
    model.save(folder / "model")


def try_manifest(data):
    """The fields and arrays of a manifest, under a checksum that fits."""
    body = json.loads(data)
    if not isinstance(body, dict):
        return
    parts = {name: body.get(name) or {} for name in ("fields", "arrays")}
    head = {"format": "fastfactor-model", "format_version": 1, "checksum": manifests._checksum(parts)}
    (folder / "model" / manifests.MANIFEST).write_text(json.dumps({**head, **parts}))
    fields = read_folder(folder / "model", manifests.MODEL, False)
    as_model(fields, folder / "model" / manifests.MANIFEST)


def try_array(data):
    """The file of an array, under a manifest that says what it is."""
    path = folder / "model" / state["array"]["file"]
    path.write_bytes(data)
    record = json.loads(state["manifest"])
    for entry in record["arrays"].values():
        if entry["file"] == path.name:
            entry["size"] = len(data)
    record["checksum"] = manifests._checksum({name: record[name] for name in ("fields", "arrays")})
    (folder / "model" / manifests.MANIFEST).write_text(json.dumps(record))
    ff.load(folder / "model")


def try_one(data):
    if len(data) < 2:
        return
    kind, content = KINDS[data[0] % len(KINDS)], data[1:]
    try:
        if kind == "manifest":
            try_manifest(content)
        elif kind == "array":
            try_array(content)
        else:
            (folder / kind).write_bytes(content)
            found = ff.io.read(folder / kind)
            if found.n_entries < 10**6 and max(found.shape) < 10**6:
                found.to_csr()
    except DOCUMENTED:
        pass


def seed(corpus):
    """Write one good input of each kind."""
    corpus.mkdir(parents=True, exist_ok=True)
    X = sp.coo_array(np.array([[1.5, 0], [0, -2], [3, 4]]))
    mmwrite(folder / "X.mtx", X)
    np.save(folder / "X.npy", X.toarray())
    sp.save_npz(folder / "X.npz", X, compressed=False)
    lines = "a,b,c\nann,x,1\nbob,y,2.5\n"
    (folder / "X.csv").write_text(lines)
    (folder / "X.tsv").write_text(lines.replace(",", "\t"))
    import pyarrow as pa
    import pyarrow.feather
    import pyarrow.parquet

    table = pa.table({"a": ["ann", "bob"], "b": [1, 2], "c": [1.0, 2.5]})
    pyarrow.feather.write_feather(table, folder / "X.arrow", compression="uncompressed")
    pyarrow.parquet.write_table(table, folder / "X.parquet")
    for i, kind in enumerate(KINDS):
        if kind == "manifest":
            content = state["manifest"]
        elif kind == "array":
            content = (folder / "model" / state["array"]["file"]).read_bytes()
        else:
            content = (folder / kind).read_bytes()
        (corpus / f"seed-{kind}").write_bytes(bytes([i]) + content)


if __name__ == "__main__":
    make_model()
    text = (folder / "model" / manifests.MANIFEST).read_bytes()
    state = {"manifest": text, "array": json.loads(text)["arrays"]["U"]}
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit("name a folder for the inputs")
    seed(Path(sys.argv[1]))
    atheris.Setup(sys.argv, try_one)
    atheris.Fuzz()
