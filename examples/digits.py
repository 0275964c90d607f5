"""The whole way on real data in a minute: find a ticket on a server's digits, export it, train it on three devices.

A quarter of scikit-learn's digits is kept from the server and dealt out to the devices; each trains the ticket from its
initial weights on its own samples and is tested on some it held out. Even untrained the ticket is far above chance: what
the search learned is in the choice of the weights (Zhou et al. 2019, "Deconstructing Lottery Tickets").
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits


def run(*command: str) -> dict[str, Any]:
    """Runs `python -m COMMAND --json`; its progress stays on stderr. Code 3: no ticket matched, told below."""
    print(f"$ python -m {' '.join(command)}", file=sys.stderr)
    done = subprocess.run([sys.executable, "-m", *command, "--json"], check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode not in (0, 3):
        sys.exit(done.returncode)
    return dict(json.loads(done.stdout))


def main(folder: Path = Path("demo")) -> None:
    """Everything it makes is in `folder`; run again, it goes on with what is there."""
    folder.mkdir(exist_ok=True)
    digits = load_digits()
    mine = np.random.default_rng(0).permutation(len(digits.target)) % 4 == 0
    np.savez(folder / "server.npz", x=digits.images[~mine], y=digits.target[~mine])
    users = np.arange(mine.sum()) % 3
    np.savez(folder / "devices.npz", x=digits.images[mine], y=digits.target[mine], user=users)

    data, model = f"npz:{folder}/server.npz", "lenet-300-100-digits"
    found = run("server_side.find", "--data", data, "--model", model, "--output-dir", f"{folder}/run")
    exported = run("export", found["ticket"])
    files = {file["format"]: file for file in exported["artifacts"]}
    limits = ["--batch", "16", "--budget-bytes", "1000000", "--interruptions", "2"]
    devices = ["--data", f"npz:{folder}/devices.npz", *limits]
    simulated = run("device_runtime", "simulate", files["native"]["path"], *devices)

    judged = found["verdict"]
    verdict = "winning" if judged["winning"] else "matching" if judged["matching"] else "not matching"
    print(f"\n{verdict} ticket, {found['density']:.1%} of the weights; test accuracy over {judged['seeds']} seeds:")
    for name in ("dense", "ticket_at_density", "reinit", "shuffle"):
        print(f"  {name:<18} {found[name]['accuracy']:.2%}")
    for name, file in files.items():
        print(f"{name} artifact {file['bytes']:,} bytes, dense checkpoint {exported['dense_bytes']:,}: {file['path']}")
    for user in simulated["users"]:
        line = "device {user}: held-out accuracy {before:.1%} untrained, {after:.1%} after {steps} steps on {samples} samples"
        print((line + ", {interruptions} deaths, {arena_bytes:,} bytes of memory").format_map(user))
    print(f"report: {found['report']}")


if __name__ == "__main__":
    main()
