"""The memory of one training step: the native arena, exact beforehand, against PyTorch's and ONNX Runtime's peak.

Native is `tkt_arena_bytes`, which is all it ever takes; the artifact is read in place, from flash or a mapped file. PyTorch
is counted by its own profiler: parameters, optimizer state, and the highest sum of what a step allocates, the gradients
among it. ONNX Runtime tells no such figure: its is the growth of the process from before the model is loaded to the highest
point of five steps, arenas and kernels' scratch included. All three hold the same layers; only native ones are pruned.

    python -m benchmarks.device_memory [--peers NAME ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.circumstances import circumstances
from device_runtime.backends.silence import silent
from export.lower import lower
from export.ticket import Ticket
from export.to_native import to_native_bytes
from export.to_onnx import LOGITS, to_onnx
from tests.architectures import ARCHITECTURES

RESULT = Path(__file__).parent / "results" / "device_memory.json"
BATCHES = (1, 32)
OPTIMIZERS = ("sgd", "adam")
STEPS = 5


def lenet() -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))


NETWORKS: dict[str, tuple[Callable[[], Any], tuple[int, ...], float]] = {
    "LeNet-300-100": (lenet, (784,), 0.036),
    "ResNet-20": (ARCHITECTURES["resnet-20"].build, ARCHITECTURES["resnet-20"].input_shape, 0.1),
}


def ticket(name: str, density: float) -> Ticket:
    """The network at its initialisation, every prunable weight live with this probability; 1 prunes nothing."""
    build, shape, _ = NETWORKS[name]
    module = build()
    network = lower(module, shape)
    random = np.random.default_rng(0)
    masks = {p: random.random(network.parameter_shapes[p]) < density for p in network.prunable if density < 1}
    state = module.state_dict()
    init = {p.name: state[p.name].numpy() * masks.get(p.name, np.float32(1)) for p in network.parameters}
    recipe = {"optimizer": "sgd", "batch": 1, "learning_rate": 0.1, "momentum": 0.0, "weight_decay": 0.0}
    recipe |= {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "epochs": 1}
    card = {"task": "benchmark", "recipe": recipe, "input": {"mean": [0.0], "inverse_std": [1.0]}}
    return Ticket(network, init, masks, None, card)


def native(name: str, batch: int, optimizer: str) -> dict[str, Any]:
    """As it is by default; and what it takes with recomputation, and with half floats too."""
    from device_runtime import inspect

    artifact = to_native_bytes(ticket(name, NETWORKS[name][2]))
    facts = inspect(artifact, batch=batch, optimizer=optimizer)
    twice = inspect(artifact, batch=batch, optimizer=optimizer, recompute=True)
    least = inspect(artifact, batch=batch, optimizer=optimizer, recompute=True, half_activations=True)
    return {
        "bytes": facts["arena_bytes"],
        "by_part": facts["memory"],
        "artifact_bytes": len(artifact),
        "recomputed_bytes": twice["arena_bytes"],
        "recomputed_nodes": twice["recomputed_nodes"],
        "recomputed_half_bytes": least["arena_bytes"],
    }


def torch_eager(name: str, batch: int, optimizer: str) -> dict[str, Any]:
    import torch
    from torch.profiler import ProfilerActivity, profile

    torch.set_num_threads(1)
    build, shape, _ = NETWORKS[name]
    module = build()
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    optimizing = kinds[optimizer](module.parameters(), lr=0.01)
    x, y = torch.randn(batch, *shape), torch.zeros(batch, dtype=torch.long)

    def step() -> None:
        torch.nn.functional.cross_entropy(module(x), y).backward()  # type: ignore[no-untyped-call]
        optimizing.step()

    step()
    optimizing.zero_grad()
    with silent(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    assert profiler.profiler is not None
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    held = [*module.parameters(), *module.buffers(), x]
    held += [t for state in optimizing.state.values() for t in state.values() if torch.is_tensor(t)]
    return {"bytes": sum(t.numel() * t.element_size() for t in held) + peak}


def onnx_runtime(name: str, batch: int, optimizer: str) -> dict[str, Any]:
    """Its artifacts are made here, the step runs in a process of its own."""
    import onnx
    from onnxruntime.training import artifacts

    dense = ticket(name, 1.0)
    model = to_onnx(dense)
    del model.graph.output[1:], model.graph.node[-1]  # the probabilities, which the loss computes by itself
    assert model.graph.output[0].name == LOGITS
    kinds = {"sgd": artifacts.OptimType.SGD, "adam": artifacts.OptimType.AdamW}
    with tempfile.TemporaryDirectory() as folder, silent():
        artifacts.generate_artifacts(
            model,
            requires_grad=[p.name for p in dense.network.parameters if not p.state],
            loss=artifacts.LossType.CrossEntropyLoss,
            optimizer=kinds[optimizer],
            artifact_directory=folder,
        )
        for path in Path(folder).glob("*.onnx"):  # the tool writes a newer version than its own run time reads
            made = onnx.load(path)
            made.ir_version = min(made.ir_version, 10)
            onnx.save(made, path)
        shape = ",".join(map(str, (batch, *dense.network.input_shape)))
        command = [sys.executable, "-c", ORT_STEP, folder, shape, str(STEPS)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return {"bytes": int(done.stdout)}


# Prints by how many bytes the process has grown at its highest.
ORT_STEP = """
import sys
import numpy as np
import onnxruntime
from onnxruntime.training.api import CheckpointState, Module, Optimizer
folder, shape = sys.argv[1], tuple(map(int, sys.argv[2].split(",")))
x, y = np.ones(shape, np.float32), np.zeros(shape[0], np.int64)
def status(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
state = CheckpointState.load_checkpoint(folder + "/checkpoint")
module = Module(folder + "/training_model.onnx", state, folder + "/eval_model.onnx", session_options=options)
optimizer = Optimizer(folder + "/optimizer_model.onnx", module)
module.train()
for _ in range(int(sys.argv[3])):
    module(x, y)
    optimizer.step()
    module.lazy_reset_grad()
print(status("VmHWM") - before)
"""

CONTENDERS: dict[str, Callable[[str, int, str], dict[str, Any]]] = {
    "native": native,
    "torch eager": torch_eager,
    "onnxruntime": onnx_runtime,
}


def measure(peers: Sequence[str]) -> dict[str, Any]:
    rows = []
    for name, (_, _, density) in NETWORKS.items():
        for optimizer in OPTIMIZERS:
            for batch in BATCHES:
                row: dict[str, Any] = {"network": name, "density": density, "optimizer": optimizer, "batch": batch}
                for contender in ("native", *peers):
                    try:
                        row[contender] = CONTENDERS[contender](name, batch, optimizer)
                    except (ImportError, RuntimeError) as error:
                        row[contender] = {"missing": str(error)}
                rows.append(row)
    return {"benchmark": "device_memory", **circumstances(), "rows": rows}


def print_table(result: dict[str, Any], peers: Sequence[str]) -> None:
    print(f"{result['device']}; bytes of one training step, and how many times the native arena that is;")
    print("native by default, with recompute, and with half_activations too\n")
    print(
        f"  {'network':<15}{'density':>8}{'optimizer':>11}{'batch':>7}{'native':>13}{'recomputed':>13}{'+ half':>13}"
        + "".join(f"{p:>26}" for p in peers)
    )
    missing = set()
    for row in result["rows"]:
        mine = row["native"]["bytes"]
        line = f"  {row['network']:<15}{row['density']:>8.1%}{row['optimizer']:>11}{row['batch']:>7}{mine:>13,}"
        line += f"{row['native']['recomputed_bytes']:>13,}{row['native']['recomputed_half_bytes']:>13,}"
        for peer in peers:
            if "bytes" in row[peer]:
                line += f"{row[peer]['bytes']:>17,} ({row[peer]['bytes'] / mine:>5.1f})"
            else:
                line += f"{'not measured':>26}"
                missing.add(f"  {peer}: {row[peer]['missing']}")
        print(line)
    print("\n".join(sorted(missing)))


def main(argv: Sequence[str] | None = None) -> int:
    peers = [name for name in CONTENDERS if name != "native"]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.device_memory", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--peers", nargs="*", choices=peers, default=peers, help="(default: all)")
    parser.add_argument("--json", type=Path, default=RESULT, metavar="FILE", help="where the result goes (%(default)s)")
    arguments = parser.parse_args(argv)
    result = measure(arguments.peers)
    print_table(result, arguments.peers)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
