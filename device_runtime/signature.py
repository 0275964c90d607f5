"""Whether an artifact comes from whom it should: ECDSA over P-256 with SHA-256, checked before anything else reads it.

What is signed is the file itself, or of a folder the list of its files, a line `SHA-256  name` each, by name: so `openssl dgst`
and Android's `SHA256withECDSA` check the same. Needs the package cryptography (extra `sign`).
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from device_runtime.artifact import Source
from device_runtime.errors import CorruptArtifact, InvalidInput
from device_runtime.folder import Folder

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey


def checked(source: Source, public_key: Source, signature: Source | None = None) -> Source:
    """What was checked, as it was read: the artifact's bytes, or a Folder. It is read no second time.

    `public_key` is PEM or a file of it; `signature` the file beside the artifact, `NAME.tkt.sig`, unless given. Raises
    CorruptArtifact where it does not fit, InvalidInput for a key that is none, OSError.
    """
    if isinstance(source, bytes):
        if signature is None:
            raise InvalidInput("bytes have no file beside them; give their signature too")
    elif signature is None:
        signature = beside(source)
    content = _read(source)
    message = content if isinstance(content, bytes) else listing(content)
    _verify(_key(_bytes(public_key)), _bytes(signature), message)
    return content


def beside(path: str | os.PathLike[str]) -> Path:
    """Where an artifact's signature is."""
    return Path(f"{os.fspath(path).rstrip('/')}.sig")


def listing(folder: Folder) -> bytes:
    """What is signed of a folder."""
    lines = (f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in folder.contents.items())
    return "".join(lines).encode()


def _read(source: Source) -> bytes | Folder:
    if not isinstance(source, bytes) and Path(source).is_dir():
        return Folder.read(source)
    return _bytes(source)


def _bytes(source: Source) -> bytes:
    return source if isinstance(source, bytes) else Path(source).read_bytes()


def _key(pem: bytes) -> EllipticCurvePublicKey:
    try:
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError as error:
        raise InvalidInput(
            f"{error.name} is missing, which checks signatures; pip install 'pocket-ticket[sign]'"
        ) from error
    try:
        key = load_pem_public_key(pem)
    except ValueError as error:
        raise InvalidInput(
            "public_key is not a public key in PEM; give what `python -m export keygen` wrote"
        ) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidInput(
            "public_key is of another kind than ECDSA over P-256; give what `python -m export keygen` wrote"
        )
    return key


def _verify(key: EllipticCurvePublicKey, signature: bytes, message: bytes) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        key.verify(signature, message, ECDSA(SHA256()))
    except InvalidSignature as error:
        raise CorruptArtifact(
            "the signature does not fit: artifact or signature was changed, or another key signed it; do not use it"
        ) from error
