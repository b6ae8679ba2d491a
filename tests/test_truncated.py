"""Files that end too early, at every byte of their headers and footers: each time an error that names the file.

Where the end of a file says whether it is whole, a file is also cut and its end put back, so that readers go on to what
is missing. (Matrix Market files: test_found_by_campaigns.py. Files cut anywhere: test_hostile_files.py.)
"""

import hashlib
import json
import zipfile

import numpy as np
import pytest
from test_storage import forge

import fastfactor as ff
from fastfactor.folders import read_folder
from fastfactor.manifest import CHECKPOINT, MANIFEST

pytest.importorskip("pyarrow")
from hostile_files import PLAIN, Shelf

HEADER = 128  # bytes of the header of a .npy file


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    return Shelf(tmp_path_factory.mktemp("files") / "good")


@pytest.fixture
def readers(shelf):
    """What opens each kind of folder."""
    return {
        "model": ff.load,
        "grid": ff.io.open_grid,
        "half": lambda path: ff.fit(shelf.X, 3, **PLAIN, checkpoint=path),
    }


def must_refuse(read, path, named, what):
    """Require an error that names the file."""
    with pytest.raises((ValueError, OSError)) as caught:
        read(path)
    assert str(named) in str(caught.value), what


def open_checkpoint(path):
    read_folder(path, CHECKPOINT, verify=True)


@pytest.mark.parametrize("kind", ["model", "grid", "half"])
def test_manifests(shelf, readers, tmp_path, kind):
    path = shelf.copy(kind, tmp_path)
    manifest = path / MANIFEST
    content = manifest.read_bytes().rstrip()
    for length in range(len(content)):
        manifest.write_bytes(content[:length])
        # A fit looks at its arguments first, which takes longer than all else here.
        read = open_checkpoint if kind == "half" and length % 50 else readers[kind]
        must_refuse(read, path, manifest, f"cut to {length} bytes")


@pytest.mark.parametrize("kind", ["model", "grid", "half"])
def test_arrays_of_folders(shelf, readers, tmp_path, kind):
    """With a manifest that fits: what it says of size, checksum and shape is what is there."""
    path = shelf.copy(kind, tmp_path)
    name, entry = next(iter(json.loads((path / MANIFEST).read_text())["arrays"].items()))
    content = (path / entry["file"]).read_bytes()
    for length in range(HEADER):
        digest = hashlib.sha256(content[:length]).hexdigest()
        file = path / f"fastfactor-{digest[:32]}.npy"
        file.write_bytes(content[:length])
        changes = {"file": file.name, "sha256": digest, "size": length, "shape": [0]}
        forge(path, lambda record, changes=changes: record["arrays"][name].update(changes))
        must_refuse(readers[kind], path, file, f"cut to {length} bytes")


def build(path):
    ff.io.build_grid(path, path.parent / "built")


@pytest.mark.parametrize("read", [ff.io.read, build])
def test_npy(shelf, tmp_path, read):
    path = shelf.copy("dense.npy", tmp_path)
    content = path.read_bytes()
    for length in range(HEADER + 9):
        path.write_bytes(content[:length])
        must_refuse(read, path, path, f"cut to {length} bytes")


@pytest.mark.parametrize("read", [ff.io.read, build])
@pytest.mark.parametrize("name", ["csr.npz", "coo.npz"])
def test_members_of_npz(shelf, tmp_path, name, read):
    path = shelf.copy(name, tmp_path)
    with zipfile.ZipFile(path) as archive:
        parts = {part: archive.read(part) for part in archive.namelist()}
    for part, content in parts.items():
        for length in range(HEADER):
            with zipfile.ZipFile(path, "w") as archive:
                for each, whole in parts.items():
                    archive.writestr(each, content[:length] if each == part else whole)
            must_refuse(read, path, path, f"{part} cut to {length} bytes")


MAGIC = {"table.parquet": b"PAR1", "table.arrow": b"ARROW1"}


@pytest.mark.parametrize("name", MAGIC)
def test_footers_of_tables(shelf, tmp_path, name):
    path = shelf.copy(name, tmp_path)
    content, magic = path.read_bytes(), MAGIC[name]
    assert content.endswith(magic)
    end = len(content) - len(magic) - 4
    size = int.from_bytes(content[end : end + 4], "little")
    footer = content[end - size : end]
    for length in range(size):
        path.write_bytes(content[: end - size + length])
        must_refuse(ff.io.read, path, path, f"ending after {length} bytes of its footer")
        whole = content[: end - size] + footer[:length] + length.to_bytes(4, "little") + magic
        path.write_bytes(whole)
        must_refuse(ff.io.read, path, path, f"with {length} bytes of its footer")
    for length in range(end, len(content)):
        path.write_bytes(content[:length])
        must_refuse(ff.io.read, path, path, f"cut to {length} bytes")


def test_what_was_cut_is_read_when_it_is_whole(shelf, readers, tmp_path):
    for kind, read in readers.items():
        read(shelf.copy(kind, tmp_path))
    for name in ("dense.npy", "csr.npz", "coo.npz", *MAGIC):
        assert np.prod(ff.io.read(shelf.copy(name, tmp_path)).shape) == 600
