"""Signatures: export makes them, device_runtime checks them before anything else reads the artifact, and no changed bit passes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from device_runtime import CorruptArtifact, InvalidInput, Trainer
from device_runtime.__main__ import main as device
from device_runtime.folder import Folder
from device_runtime.signature import beside, checked, listing
from export.__main__ import main as export
from export.sign import signed
from export.to_native import to_native_bytes
from tests.export.tickets import small_ticket

pytest.importorskip("cryptography")
CONTENT = to_native_bytes(small_ticket())


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    assert export(["keygen", str(tmp_path / "keys")]) == 0
    return tmp_path / "keys"


@pytest.fixture
def artifact(tmp_path: Path, keys: Path) -> Path:
    path = tmp_path / "ticket.tkt"
    path.write_bytes(CONTENT)
    assert export(["sign", str(path), "--key", str(keys / "private.pem")]) == 0
    return path


@pytest.fixture
def folder(tmp_path: Path, keys: Path) -> Path:
    path = tmp_path / "ticket.ort"
    (path / "sub").mkdir(parents=True)
    for name in ("model", "checkpoint", "sub/more"):
        (path / name).write_bytes(name.encode() * 10)
    assert export(["sign", f"{path}/", "--key", str(keys / "private.pem")]) == 0
    return path


def test_a_signed_artifact_opens(artifact: Path, keys: Path) -> None:
    with Trainer.open(artifact, public_key=keys / "public.pem") as trainer:
        assert trainer.info.ticket_hash == small_ticket().hash
    public, proof = (keys / "public.pem").read_bytes(), beside(artifact).read_bytes()
    Trainer.open(CONTENT, public_key=public, signature=proof).close()


def test_no_changed_bit_passes(artifact: Path, keys: Path) -> None:
    public, proof = (keys / "public.pem").read_bytes(), beside(artifact).read_bytes()
    for content, other, of_artifact in ((CONTENT, proof, True), (proof, CONTENT, False)):
        for bit in range(0, 8 * len(content), 7 if of_artifact else 1):
            damaged = bytearray(content)
            damaged[bit // 8] ^= 1 << bit % 8
            pair = (bytes(damaged), other) if of_artifact else (other, bytes(damaged))
            with pytest.raises(CorruptArtifact, match="the signature does not fit"):
                checked(pair[0], public, pair[1])
    for cut in (b"", proof[:-1], proof + b"\0"):
        with pytest.raises(CorruptArtifact):
            checked(CONTENT, public, cut)


def test_another_keys_signature_is_refused(artifact: Path, keys: Path, tmp_path: Path) -> None:
    export(["keygen", str(tmp_path / "theirs")])
    assert export(["sign", str(artifact), "--key", str(tmp_path / "theirs/private.pem")]) == 0
    with pytest.raises(CorruptArtifact, match="another key signed it"):
        Trainer.open(artifact, public_key=keys / "public.pem")


def test_nothing_is_parsed_before_the_signature(artifact: Path, keys: Path) -> None:
    artifact.write_bytes(b"no artifact at all")
    with pytest.raises(CorruptArtifact, match="signature"):
        Trainer.open(artifact, public_key=keys / "public.pem")


def test_what_was_checked_is_what_is_opened(artifact: Path, keys: Path) -> None:
    """A file that changes between the two looks changes nothing."""
    content = checked(artifact, keys / "public.pem")
    artifact.write_bytes(b"changed")
    assert content == CONTENT


def test_of_a_folder_too(folder: Path, keys: Path) -> None:
    read = checked(folder, keys / "public.pem")
    shutil.rmtree(folder)
    assert isinstance(read, Folder)
    assert dict(read.contents) == {name: name.encode() * 10 for name in ("checkpoint", "model", "sub/more")}


def test_a_folder_is_signed_file_by_file(folder: Path, keys: Path) -> None:
    assert checked(folder, keys / "public.pem") == Folder.read(folder)
    assert signed(folder) == listing(Folder.read(folder))

    def refused(change: Any) -> None:
        shutil.copytree(folder, folder.parent / "copy")
        copy = folder.parent / "copy"
        change(copy)
        with pytest.raises(CorruptArtifact):
            checked(copy, keys / "public.pem", beside(folder))
        shutil.rmtree(copy)

    refused(lambda copy: (copy / "model").write_bytes(b"other"))
    refused(lambda copy: (copy / "model").unlink())
    refused(lambda copy: (copy / "new").write_bytes(b""))
    refused(lambda copy: (copy / "model").rename(copy / "elsewhere"))
    refused(lambda copy: (copy / "link").symlink_to(copy / "model"))


def test_keys_of_other_kinds_are_named(artifact: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as to
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    for key in (ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()):
        pem = key.public_key().public_bytes(to.Encoding.PEM, to.PublicFormat.SubjectPublicKeyInfo)
        with pytest.raises(InvalidInput, match="of another kind than ECDSA over P-256"):
            checked(artifact, pem)
    with pytest.raises(InvalidInput, match="not a public key in PEM"):
        checked(artifact, b"none")
    with pytest.raises(InvalidInput, match="give their signature too"):
        checked(CONTENT, b"")
    with pytest.raises(InvalidInput, match="without public_key is not checked"):
        Trainer.open(artifact, signature=b"")


def test_a_private_key_is_its_owners_alone_and_never_replaced(keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (keys / "private.pem").stat().st_mode & 0o777 == 0o600
    before = (keys / "private.pem").read_bytes()
    assert export(["keygen", str(keys)]) == 2
    assert "private.pem' is there already; name another folder" in capsys.readouterr().err
    assert (keys / "private.pem").read_bytes() == before


def test_the_commands_say_what_is_wrong(
    artifact: Path, keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(["sign", str(artifact), "--key", str(keys / "public.pem")]) == 2
    assert "key: not a private key in PEM" in capsys.readouterr().err
    assert export(["sign", str(tmp_path / "none"), "--key", str(keys / "private.pem")]) == 2
    assert "none" in capsys.readouterr().err
    assert device(["inspect", str(artifact), "--public-key", str(keys / "public.pem")]) == 0
    beside(artifact).unlink()
    assert device(["inspect", str(artifact), "--public-key", str(keys / "public.pem")]) == 2
    assert "ticket.tkt.sig" in capsys.readouterr().err


def test_a_message_names_the_file_that_was_checked(
    keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "net.pte"
    program.write_bytes(b"\0\0\0\0ET12" + bytes(10_000))
    assert export(["sign", str(program), "--key", str(keys / "private.pem")]) == 0
    capsys.readouterr()
    assert device(["inspect", str(program), "--public-key", str(keys / "public.pem")]) == 2
    assert (
        capsys.readouterr()
        .err.strip()
        .endswith(f"'{program}' is for executorch; inspect takes a native artifact alone")
    )


def test_openssl_checks_the_same(artifact: Path, keys: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    command = ["openssl", "dgst", "-sha256", "-verify", str(keys / "public.pem"), "-signature", str(beside(artifact))]
    done = subprocess.run([*command, str(artifact)], check=False, capture_output=True, text=True)
    assert done.stdout.strip() == "Verified OK", done.stderr
