"""Files that were cut short, changed, forged or made to hurt, and what comes of reading them.

For test_hostile_files.py.

As a program: `hostile_files.py FIRST COUNT PROGRESS` (see campaign.py).
"""

import contextlib
import io
import json
import os
import pickle
import re
import shutil
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from bad_matrices import pick
from campaign import work_off
from process_status import read_status
from scipy.io import mmwrite

import fastfactor as ff
from fastfactor import manifest as manifests

PLAIN = {"max_epochs": 2, "regularization": 0.1, "validation": False}
MANIFEST = manifests.MANIFEST
ROOM = 3 << 30  # bytes of address space beyond those that the process has when it begins
REFUSED = (ValueError, OSError, KeyError, IndexError)
# Words that may stand in place of the file's path, of what a damaged array inside leads to when it is used.
USED = re.compile(r"checkpoint|X|A |ids|source|duplicates|model|grid|recipe|history|diverg|not in the model|row|column")


def make_matrix():
    rng = np.random.default_rng(4)
    X = sp.random_array((30, 20), density=0.3, rng=rng, format="csr")
    X.data += 0.5
    return X


class Shelf:
    """Good files, made once; each case spoils a copy."""

    def __init__(self, folder):
        self.folder, self.X = folder, make_matrix()
        folder.mkdir()
        X, coo = self.X, self.X.tocoo()
        labelled = ff.io.label(X, [f"r{i}" for i in range(30)], range(20))
        ff.fit(labelled, 3, **PLAIN).save(folder / "model")
        ff.fit(X, 3, **PLAIN, checkpoint=folder / "checkpoint")
        halves = folder / "half"
        with contextlib.suppress(ZeroDivisionError):
            ff.fit(X, 3, **PLAIN, checkpoint=halves, callback=lambda e: 1 / 0)
        ff.io.build_grid(labelled, folder / "grid")
        sp.save_npz(folder / "csr.npz", X)
        sp.save_npz(folder / "coo.npz", coo, compressed=False)
        sp.save_npz(folder / "dia.npz", sp.dia_array(np.tri(30, 20) - np.tri(30, 20, -3)))
        sp.save_npz(folder / "bsr.npz", X.tobsr((2, 2)))
        np.save(folder / "dense.npy", X.toarray())
        mmwrite(folder / "sparse.mtx", coo)
        mmwrite(folder / "array.mtx", X.toarray())
        lines = [f"r{r},c{c},{v}" for r, c, v in zip(*coo.coords, coo.data, strict=True)]
        (folder / "table.csv").write_text("\n".join(["row,col,value", *lines]) + "\n")
        self.make_arrow(coo)

    def make_arrow(self, coo):
        import pyarrow as pa
        import pyarrow.feather
        import pyarrow.parquet

        rows = pa.array([f"r{r}" for r in coo.row]).dictionary_encode()
        table = pa.table({"row": rows, "col": pa.array(coo.col), "value": pa.array(coo.data)})
        pyarrow.parquet.write_table(table, self.folder / "table.parquet")
        pyarrow.feather.write_feather(table, self.folder / "table.arrow", compression="uncompressed")

    def copy(self, name, to):
        source = self.folder / name
        target = to / name
        if target.is_dir():
            shutil.rmtree(target)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
        return target


def spoil_bytes(rng, path):
    """Cut short, change, double or swap; half of the time near the beginning, where headers are."""
    content = bytearray(path.read_bytes())
    n = len(content)
    at = int(rng.integers(min(n, 400) if rng.random() < 0.5 else n)) if n else 0
    ways = "cut", "cut", "bit", "bit", "bit", "byte", "run", "insert", "double", "grow", "digits", "empty", "noise"
    how = pick(rng, ways)
    if how == "cut":
        content = content[:at]
    elif how == "bit":
        for _ in range(int(rng.integers(1, 4))):
            content[int(rng.integers(n)) if rng.random() < 0.5 else at] ^= 1 << int(rng.integers(8))
    elif how == "byte":
        content[at] = pick(rng, (0, 1, 0x7F, 0x80, 0xFF))
    elif how == "run":
        content[at : at + 8] = pick(rng, (b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7, b"\xff" * 7 + b"\x7f"))
    elif how == "insert":
        content[at:at] = rng.bytes(int(rng.integers(1, 20)))
    elif how == "double":
        content = content + content
    elif how == "grow":
        content += bytes(int(rng.integers(1, 5000)))
    elif how == "digits":  # a length that is larger than what follows
        places = [m.span() for m in re.finditer(rb"[0-9]+", bytes(content[:2000]))]
        if places:
            start, stop = places[int(rng.integers(len(places)))]
            content[start:stop] = pick(rng, (b"99999999999", b"1000000", b"-1", b"0", b"4294967297", b"1e9", b"nan"))
    elif how == "empty":
        content = bytearray()
    else:
        content = bytearray(rng.bytes(n))
    path.write_bytes(content)
    return how


class Opened:
    """What a pickle would do."""

    def __reduce__(self):
        return os.system, ("touch /tmp/fastfactor-was-executed",)


def write_npy(shape, dtype, content=b""):
    out = io.BytesIO()
    descr = dtype if isinstance(dtype, str) else np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(out, {"descr": descr, "fortran_order": False, "shape": shape})
    return out.getvalue() + content


def spoil_archive(rng, path):
    """Members that are missing, doubled, pickled, lead out of the archive, or claim to be large."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = pick(rng, sorted(parts))
    how = pick(rng, ("missing", "pickle", "object", "bomb", "claim", "traversal", "huge shape", "other type", "scalar"))
    if how == "missing":
        del parts[name]
    elif how == "pickle":
        parts[name] = pickle.dumps(Opened())
    elif how == "object":
        parts[name] = write_npy((1,), "|O", pickle.dumps(Opened()))
    elif how == "bomb":
        parts[name] = write_npy((1 << 29,), "<f8") + bytes(1 << 24)
    elif how == "claim":
        parts[name] = write_npy((1 << int(rng.integers(30, 62)),), pick(rng, ("<f8", "<i4")), bytes(64))
    elif how == "traversal":
        parts["../../" + name] = parts.pop(name)
    elif how == "huge shape":
        parts["shape.npy"] = write_npy((2,), "<i8", np.array([1 << 40, 1 << int(rng.integers(20, 62))]).tobytes())
    elif how == "other type":
        parts[name] = write_npy((3,), pick(rng, ("<U5", "<c16", "<M8[s]", "|b1")), bytes(60))
    else:
        parts[name] = write_npy((), "<i8", bytes(8))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for each, content in parts.items():
            archive.writestr(each, content)
    return how


NUMBERS = None, True, -1, 0, 3, 1 << 40, 1 << 62, 1 << 70, 0.5, 1e308
TAGS = (
    {"$type": "array", "name": "U"},
    {"$type": "array", "name": "?"},
    {"$type": "tuple", "value": [1]},
    {"$type": "tuple", "value": 3},
    {"$type": "scalar", "dtype": "<f8", "value": "x"},
    {"$type": "float", "value": "nan"},
    {"$type": "ids", "kind": "text", "value": []},
    {"$type": "dict", "value": [[[], 1]]},
    {"$type": "no such"},
)
STRANGE = (*NUMBERS, "", "x", "../../etc/passwd", "/etc/passwd", "squared", [], [1], {}, *TAGS)


def spoil_manifest(rng, folder):
    """Change a value somewhere, with a checksum that fits: what somebody could have written on purpose."""
    path = folder / MANIFEST
    record = json.loads(path.read_text())
    places = []

    def walk(value):
        for key in value if isinstance(value, dict) else range(len(value)):
            places.append((value, key))
            if isinstance(value[key], dict | list):
                walk(value[key])

    walk(record)
    for _ in range(int(rng.integers(1, 3))):
        container, key = places[int(rng.integers(len(places)))]
        if rng.random() < 0.2 and isinstance(container, dict):
            container.pop(key, None)
        elif rng.random() < 0.3:
            other, name = places[int(rng.integers(len(places)))]
            if json.dumps(container).find(json.dumps(other)) < 0:
                container[key] = json.loads(json.dumps(other.get(name) if isinstance(other, dict) else other))
        else:
            container[key] = json.loads(json.dumps(pick(rng, STRANGE)))
    body = {"fields": record.get("fields"), "arrays": record.get("arrays")}
    record["checksum"] = manifests._checksum(body)
    path.write_text(json.dumps(record))
    return "forged"


def spoil_array(rng, folder):
    """Change the inside of an array, with names and checksums that fit."""
    record = json.loads((folder / MANIFEST).read_text())
    names = sorted(record["arrays"])
    name = pick(rng, names)
    old = folder / record["arrays"][name]["file"]
    if not old.is_file():  # two arrays of one content
        return "forged array"
    array = np.load(old)
    if array.size:
        raw = array.reshape(-1).view(np.uint8).copy()
        for _ in range(int(rng.integers(1, 9))):
            raw[int(rng.integers(len(raw)))] = pick(rng, (0, 1, 0x7F, 0x80, 0xFF))
        array = raw.view(array.dtype).reshape(array.shape)
    from fastfactor.folders import write_array

    entry = write_array(folder, array)
    record["arrays"][name].update(file=entry.file, sha256=entry.sha256, size=entry.size)
    record["checksum"] = manifests._checksum({"fields": record["fields"], "arrays": record["arrays"]})
    (folder / MANIFEST).write_text(json.dumps(record))
    return "forged array"


def spoil_folder(rng, folder):
    how = pick(rng, ("manifest", "forge", "forge", "array", "array bytes", "swap", "link", "directory"))
    arrays = sorted(path for path in folder.iterdir() if path.suffix == ".npy")
    chosen = arrays[int(rng.integers(len(arrays)))]
    if how == "manifest":
        return spoil_bytes(rng, folder / MANIFEST)
    if how == "forge":
        return spoil_manifest(rng, folder)
    if how == "array":
        return spoil_array(rng, folder)
    if how == "array bytes":
        return spoil_bytes(rng, chosen)
    content = arrays[int(rng.integers(len(arrays)))].read_bytes()
    chosen.unlink()
    if how == "swap":
        chosen.write_bytes(content)
    elif how == "link":
        chosen.symlink_to("/dev/zero")
    elif how == "directory":
        chosen.mkdir()
    return how


def use_model(path, verify):
    model = ff.load(path, verify=verify)
    with np.errstate(all="ignore"):  # damaged numbers are numbers
        model.predict([0, model.shape[0] - 1], [0, model.shape[1] - 1])
        model.recommend([0], 3)
        model.similar_rows([0], 2)
        model.reconstruct([0])
        if model.row_ids is not None:
            model.rows_of(model.row_ids[:1])
        model.fold_in(make_matrix())
        repr(model)


def use_grid(path, verify):
    grid = ff.io.open_grid(path, verify=verify)
    with np.errstate(all="ignore"):
        ff.fit(grid, 3, **PLAIN)
        ff.fit(grid, 3, **(PLAIN | {"validation": 0.2}), dtype="float64")
        ff.svd(grid, 2)


def use_file(path, verify):
    if verify and path.suffix in (".npz", ".csv", ".parquet"):
        ff.io.build_grid(path, path.parent / "built")
        return
    X = ff.io.read(path)
    if max(X.shape) < 10**6 and X.n_entries < 10**6:
        ff.fit(X, 3, duplicates="mean", **PLAIN)


def use(shelf, name, path, verify):
    if name == "model":
        use_model(path, verify)
    elif name in ("checkpoint", "half"):
        ff.fit(shelf.X, 3, **PLAIN, checkpoint=path)
    elif name == "grid":
        use_grid(path, verify)
    else:
        use_file(path, verify)


def spoil(rng, name, path):
    if path.is_dir():
        return spoil_folder(rng, path)
    if path.suffix == ".npz" and rng.random() < 0.5:
        return spoil_archive(rng, path)
    return spoil_bytes(rng, path)


FOLDERS = "model", "model", "grid", "grid", "checkpoint", "half"
FILES = "csr.npz", "coo.npz", "dia.npz", "bsr.npz", "dense.npy", "sparse.mtx", "array.mtx"
TABLES = "table.csv", "table.parquet", "table.arrow"
shelves = {}
forbidden = []


def listen(event, args):
    """What no reader has to do. (Numba's own cache holds pickles of these modules.)"""
    own = event == "pickle.find_class" and args[0].split(".")[0] in ("numba", "numpy", "copyreg", "fastfactor")
    own = own or (event == "pickle.find_class" and args == ("builtins", "object"))
    if not own and event in (
        "pickle.find_class",
        "os.system",
        "subprocess.Popen",
        "socket.connect",
        "os.exec",
        "os.posix_spawn",
    ):
        forbidden.append(f"{event} {args!r}")


def try_case(number, folder):
    """Return what came of a case, and the fault if there is one."""
    if folder not in shelves:
        shelves[folder] = Shelf(folder / "good")
        limit_memory()
        sys.addaudithook(listen)
    rng, shelf = np.random.default_rng(number), shelves[folder]
    name = pick(rng, FOLDERS + FILES + TABLES)
    path = shelf.copy(name, folder)
    how = spoil(rng, name, path)
    told = {"file": name, "how": how}
    forbidden.clear()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            use(shelf, name, path, bool(rng.random() < 0.3))
        outcome = "used"
    except MemoryError as error:
        outcome = "MemoryError"
        if "needs" not in str(error) and how != "huge shape":  # so many rows need so many offsets
            return "fault", {**told, "fault": f"memory was taken before it was looked at: {error!r}"}
    except (*REFUSED, TypeError, ArithmeticError) as error:
        outcome = type(error).__name__
        if name not in str(error) and str(folder) not in str(error) and not USED.search(str(error)):
            return "fault", {**told, "fault": f"names no file: {error!r}"}
    except Exception as error:
        return "fault", {**told, "fault": f"undocumented {error!r}"}
    finally:
        shutil.rmtree(folder / "built", ignore_errors=True)
    if forbidden or Path("/tmp/fastfactor-was-executed").exists():
        return "fault", {**told, "fault": f"did {forbidden}"}
    return f"{name}: {outcome}", None


def limit_memory():
    import resource

    room = read_status("VmSize") + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (room, room))


if __name__ == "__main__":
    first, count, progress = sys.argv[1:]
    work_off(try_case, int(first), int(count), progress)
