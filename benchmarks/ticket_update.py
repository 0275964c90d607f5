"""What an update of a ticket takes, and what it keeps of what users have taught the old one.

A server finds a ticket and trains it on the samples it has; users train that on their own; then the server has more samples, and
publishes new trained values of the same ticket as a delta. Of each user's held-out samples the right ones are counted with
the values shipped first, with the taught ones, with the update on top of these, with the server's new values alone, and with
these taught anew; and after one more epoch behind the update, with the optimizer's state kept and without. The server's new values come from going on with the old ones, or from the initial ones again.

    python -m benchmarks.ticket_update [--writers DIR --mnist DIR] [--users N] [--json FILE]

Without folders users are simulated: scikit-learn's digits, each user's turned by an angle of their own. With them they are writers of MNIST's
digits, whom the server has never seen, and the network is LeNet-300-100 at 3.6 %.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.circumstances import circumstances
from device_runtime import Data, Trainer, update
from device_runtime.simulator import Settings, simulate, split
from export.delta import to_delta_bytes
from export.layout import whole_values
from export.ticket import Ticket
from export.to_native import to_native_bytes, to_packed_bytes

RESULT = Path(__file__).parent / "results" / "ticket_update.json"
OPTIONS: dict[str, Any] = {"start": "trained", "batch": 10, "learning_rate": 0.001}
EPOCHS, SERVER_EPOCHS, SEED = 10, 10, 0
KINDS = ("before", "after", "updated", "updated and an epoch", "the same, optimizer anew", "replaced", "retaught")
DIGITS_USERS, DIGITS_EACH = 16, 50
FORMS: dict[str, Callable[[Ticket], bytes]] = {
    "plain": to_native_bytes,
    "packed, float32": lambda ticket: to_packed_bytes(ticket, trained=True),
    "packed, float16": lambda ticket: to_packed_bytes(ticket, "float16", trained=True),
}

Array = NDArray[Any]
Pair = tuple[Array, Array]


@dataclass(frozen=True)
class Study:
    """What the server has at first and later, what nobody has seen, and the users' own samples."""

    name: str
    model: str
    density: float
    first: Pair
    later: Pair
    test: Pair
    users: Data


def of_digits() -> Study:
    """Everybody's digits are others, turned by -60 to 60 degrees, which the server has never seen."""
    from scipy.ndimage import rotate
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.target))
    x, y = digits.images[order].astype(np.float32), digits.target[order]
    own = slice(len(y) - DIGITS_USERS * DIGITS_EACH, len(y))
    user = np.repeat(np.arange(DIGITS_USERS), DIGITS_EACH)
    angles = np.linspace(-60, 60, DIGITS_USERS)
    turned = [rotate(image, angles[who], reshape=False, order=1) for image, who in zip(x[own], user, strict=True)]
    data = Data(np.stack(turned), y[own], user)
    first, later, test = ((x[part], y[part]) for part in (slice(0, 200), slice(0, 600), slice(600, 800)))
    return Study("digits, turned", "lenet-300-100-digits", 0.2, first, later, test, data)


def of_writers(users: int, mnist: Path, writers: Path) -> Study:
    """The users are those who wrote most of the training part; the server has first 2,000, then 20,000 of the others' digits."""
    with gzip.open(mnist / "train-images-idx3-ubyte.gz") as file:
        x = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(mnist / "train-labels-idx1-ubyte.gz") as file:
        y = np.frombuffer(file.read(), np.uint8, offset=8).astype(np.int64)
    who = np.load(writers / "mnist_writers.npz")["train_writer"]
    names, counts = np.unique(who, return_counts=True)
    chosen = names[np.argsort(-counts, kind="stable")[:users]]
    own = np.isin(who, chosen)
    others = np.random.default_rng(SEED).permutation(np.flatnonzero(~own))
    first, later, test = ((x[rows], y[rows]) for rows in (others[:2000], others[:20000], others[20000:25000]))
    return Study("MNIST's writers", "lenet-300-100", 0.036, first, later, test, Data(x[own], y[own], who[own]))


def found(study: Study) -> Ticket:
    from server_side import find_ticket

    x, y = study.first
    with tempfile.TemporaryDirectory() as scratch:
        options: dict[str, Any] = {"method": "oneshot", "rounds": 1, "target_density": study.density, "seeds": 1}
        options |= {
            "validation": len(y) // 10,
            "reinits": 0,
            "shuffles": 0,
            "stability": False,
            "steps": "1500it",
            "engine": "device",
        }
        return find_ticket(study.model, (x, y), output_dir=Path(scratch) / "run", **options).ticket


def trained(ticket: Ticket, start: str, samples: Pair) -> Ticket:
    """The same ticket with the values of another training on the server."""
    with Trainer.open(to_native_bytes(ticket), start=start, seed=SEED) as trainer:
        trainer.fit(*samples, epochs=SERVER_EPOCHS)
        return replace(ticket, trained=whole_values(ticket.network, ticket.masks, trainer.values))


def pruned_further(ticket: Ticket) -> Ticket:
    """Without the fifth of each layer's live weights that was trained to the least magnitude."""
    assert ticket.trained is not None
    masks = {}
    for name, mask in ticket.masks.items():
        least = np.argsort(np.where(mask, np.abs(ticket.trained[name]), np.inf), axis=None, kind="stable")
        masks[name] = mask.copy()
        masks[name].ravel()[least[: int(mask.sum()) // 5]] = False
    init = {name: values * masks.get(name, np.float32(1)) for name, values in ticket.init.items()}
    return replace(ticket, masks=masks, init=init, trained=None)


def sizes(old: Ticket, new: Ticket) -> dict[str, dict[str, int]]:
    rows = {}
    for form, write in FORMS.items():
        before, after = write(old), write(new)
        rows[form] = {"artifact_bytes": len(after), "delta_bytes": len(to_delta_bytes(before, after, (old, new)))}
    return rows


def kept(study: Study, old: Ticket, new: Ticket) -> dict[str, Any]:
    """Accuracies by user, on held-out samples of theirs; and on those of others, by what the users' devices hold."""
    before, after = to_native_bytes(old), to_native_bytes(new)
    delta, settings = to_delta_bytes(before, after, (old, new)), Settings(epochs=EPOCHS, seed=SEED)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        users = simulate(before, study.users, settings, OPTIONS, delta=delta, output_dir=folder)["users"]
        again = simulate(after, study.users, settings, OPTIONS)["users"]
        for index, (user, anew) in enumerate(zip(users, again, strict=True)):
            device = folder / f"device-{index:04d}"
            user["retaught"] = anew["after"]
            user.update(of_others(study, device, before, after))
            user.update(an_epoch_later(own_samples(study, user["user"], index), device, before, after, delta))
    return {"users": users, "summary": summary(users)}


def of_others(study: Study, device: Path, before: bytes, after: bytes) -> dict[str, float]:
    """Accuracies on what nobody has seen, of one user's device."""
    rows = {}
    values = {"before": (before, None), "after": (before, "checkpoint.tkc"), "updated": (after, "updated.tkc")}
    for kind, (artifact, checkpoint) in (values | {"replaced": (after, None)}).items():
        with Trainer.open(artifact, **OPTIONS) as trainer:
            if checkpoint is not None:
                trainer.restore(device / checkpoint)
            rows[f"others_{kind}"] = trainer.evaluate(*study.test).accuracy
    return rows


def own_samples(study: Study, user: Any, index: int) -> tuple[Pair, Pair]:
    """What the simulator has this user's device train on, and what it holds out."""
    assert study.users.user is not None
    rows = np.flatnonzero(study.users.user == user)
    parts = split(study.users.labels[rows], Settings.held_out, np.random.default_rng([SEED, index]))
    own, apart = ((study.users.x[rows[part]], study.users.labels[rows[part]]) for part in parts)
    return own, apart


def an_epoch_later(
    samples: tuple[Pair, Pair], device: Path, before: bytes, after: bytes, delta: bytes
) -> dict[str, float]:
    """Accuracies after one more epoch behind the update, from the checkpoint and from the exported artifact."""
    own, apart = samples
    with Trainer.open(after, **OPTIONS) as trainer:
        trainer.restore(device / "updated.tkc")
        values = trainer.values
        trainer.fit(*own, epochs=EPOCHS + 1)
        kept_state = trainer.evaluate(*apart).accuracy
    with Trainer.open(update(device / "trained.tkt", delta, base=before, start="trained"), **OPTIONS) as trainer:
        assert trainer.values.tobytes() == values.tobytes()
        trainer.fit(*own, epochs=1)
        return dict(zip(KINDS[3:5], (kept_state, trainer.evaluate(*apart).accuracy), strict=True))


def summary(users: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over users with 95 % intervals (Student), and of the differences within each user."""
    figures = {kind: interval([user[kind] for user in users]) for kind in KINDS}
    others = [name for name in users[0] if name.startswith("others_")]
    figures |= {name: interval([user[name] for user in users]) for name in others}
    pairs = [("updated", "after"), ("updated", "replaced"), ("updated", "retaught"), ("updated", "before")]
    pairs += [(KINDS[3], "after"), (KINDS[3], KINDS[4])]
    return figures | {f"{a} - {b}": interval([user[a] - user[b] for user in users]) for a, b in pairs}


def interval(values: Sequence[float]) -> dict[str, float | None]:
    from server_side.significance import interval

    return dict(zip(("mean", "low", "high"), interval(values), strict=True))


def measure(study: Study) -> dict[str, Any]:
    old = found(study)
    old = trained(old, "init", study.first)
    ways = {}
    fewer = pruned_further(old)
    for way, start, ticket in (
        ("gone on with", "trained", old),
        ("trained again", "init", old),
        ("pruned by a fifth, trained again", "init", fewer),
    ):
        new = trained(ticket, start, study.later)
        ways[way] = {"sizes": sizes(old, new), **kept(study, old, new)}
    live = sum(int(old.masks[p.name].sum()) if p.name in old.masks else p.size for p in old.network.parameters)
    samples = [len(study.first[1]), len(study.later[1])]
    facts = {"study": study.name, "density": old.density, "live_values": live, "server_samples": samples}
    return {**facts, "ways": ways}


def print_study(result: dict[str, Any]) -> None:
    first, later = result["server_samples"]
    print(f"\n{result['study']}: density {result['density']:.1%}, server's samples {first:,}, then {later:,}")
    for way, found in result["ways"].items():
        print(f"\n  server's new values: {way}; {len(found['users'])} users")
        for form, row in found["sizes"].items():
            share = row["delta_bytes"] / row["artifact_bytes"]
            print(f"    {form:<16} delta {row['delta_bytes']:>8,} of {row['artifact_bytes']:>8,} bytes, {share:.0%}")
        for name, row in found["summary"].items():
            print(f"    {name:<50}{row['mean']:>9.2%}  [{row['low']:+.2%}, {row['high']:+.2%}]")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ticket_update", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--writers", type=Path, metavar="DIR", help="the folder of mnist_writers.npz")
    parser.add_argument("--mnist", type=Path, metavar="DIR", help="the folder of MNIST's idx files")
    parser.add_argument("--users", type=int, default=40, metavar="N", help="writers (%(default)s)")
    parser.add_argument("--json", type=Path, default=RESULT, metavar="FILE", help="where the result goes (%(default)s)")
    arguments = parser.parse_args(argv)
    if (arguments.writers is None) != (arguments.mnist is None):
        parser.error("--writers and --mnist belong together; give both or none")
    studies = [of_digits()]
    if arguments.writers is not None:
        studies.append(of_writers(arguments.users, arguments.mnist, arguments.writers))
    rows = [measure(study) for study in studies]
    for row in rows:
        print_study(row)
    result = {"benchmark": "ticket_update", **circumstances(), "options": OPTIONS, "epochs": EPOCHS, "studies": rows}
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
