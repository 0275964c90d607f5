"""`python -m export keygen` and `python -m export sign`: who made an artifact, so that a device can tell (device_runtime/signature.py).

ECDSA over P-256 with SHA-256, in a file `NAME.sig` beside the artifact: over the file itself, or of a folder over the list of its
files. The private key never leaves the file that keygen writes, which nobody but its owner can read.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from export.atomic import write_file
from export.errors import UsageError

PRIVATE, PUBLIC = "private.pem", "public.pem"


def keygen(arguments: Sequence[str]) -> str:
    """Makes a pair of keys; the line to print. Raises UsageError where there is one already."""
    from cryptography.hazmat.primitives import serialization as to
    from cryptography.hazmat.primitives.asymmetric import ec

    parser = argparse.ArgumentParser(
        prog="python -m export keygen", description="Make a pair of keys.", allow_abbrev=False
    )
    parser.add_argument("folder", type=Path, help=f"where {PRIVATE} and {PUBLIC} go")
    folder = parser.parse_args(arguments).folder
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(to.Encoding.PEM, to.PrivateFormat.PKCS8, to.NoEncryption())
    try:  # never over an older one: what it has signed could not be signed again
        handle = os.open(folder / PRIVATE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise UsageError(f"'{folder / PRIVATE}' is there already; name another folder") from error
    with open(handle, "wb") as file:
        file.write(private)
        file.flush()
        os.fsync(file.fileno())
    public = key.public_key().public_bytes(to.Encoding.PEM, to.PublicFormat.SubjectPublicKeyInfo)
    write_file(folder / PUBLIC, public)
    return f"{folder / PRIVATE}: keep it secret\n{folder / PUBLIC}: ships with the app"


def sign(arguments: Sequence[str]) -> str:
    """Writes the signature of an artifact beside it; the line to print. Raises UsageError for a bad key, OSError."""
    parser = argparse.ArgumentParser(prog="python -m export sign", description="Sign an artifact.", allow_abbrev=False)
    parser.add_argument("artifact", type=Path, help="a file or folder that python -m export wrote")
    parser.add_argument("--key", type=Path, required=True, help=f"the {PRIVATE} of python -m export keygen")
    options = parser.parse_args(arguments)
    path = Path(f"{os.fspath(options.artifact).rstrip('/')}.sig")
    write_file(path, signature(options.artifact, options.key.read_bytes()))
    return f"{path}: ship it beside '{options.artifact}'; Trainer.open(..., public_key=...) checks it"


def signature(artifact: Path, private_key: bytes) -> bytes:
    """DER, of what is there now."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(private_key, None)
    except (ValueError, TypeError) as error:
        raise UsageError("key: not a private key in PEM without a password; give what keygen wrote") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UsageError("key: not of ECDSA over P-256; give what keygen wrote")
    return key.sign(signed(artifact), ec.ECDSA(SHA256()))


def signed(artifact: Path) -> bytes:
    """The bytes that are signed."""
    if not artifact.is_dir():
        return artifact.read_bytes()
    files = {path.relative_to(artifact).as_posix(): path for path in artifact.rglob("*") if path.is_file()}
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n" for name, path in sorted(files.items())]
    return "".join(lines).encode()
