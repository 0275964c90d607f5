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

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey


def checked(source: Source, public_key: Source, signature: Source | None = None) -> Source:
    """What was checked: the artifact's bytes, or its path where it is a folder.

    `public_key` is PEM or a file of it; `signature` the file beside the artifact, `NAME.tkt.sig`, unless given. Raises
    CorruptArtifact where it does not fit, InvalidInput for a key that is none, OSError.
    """
    if isinstance(source, bytes):
        if signature is None:
            raise InvalidInput("bytes have no file beside them; give their signature too")
    elif signature is None:
        signature = beside(source)
    is_folder = not isinstance(source, bytes) and Path(source).is_dir()
    content = source if is_folder else _bytes(source)
    message = content if isinstance(content, bytes) else listing(Path(content))
    _verify(_key(_bytes(public_key)), _bytes(signature), message)
    return content


def beside(path: str | os.PathLike[str]) -> Path:
    """Where an artifact's signature is."""
    return Path(f"{os.fspath(path).rstrip('/')}.sig")


def listing(folder: Path) -> bytes:
    """What is signed of a folder. A name with a line break could pass for another file, so it is refused."""
    lines = []
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or "\n" in name:
            raise CorruptArtifact(f"'{name}' in '{folder}' is a link or has a line break in its name; export it again")
        if path.is_file():
            lines.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n")
    return "".join(lines).encode()


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
