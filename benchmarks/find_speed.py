"""The speed of a search: replica-steps a second of LeNet-300-100 on the whole machine, batch 60, Adam, MNIST's shape.

Plain PyTorch and open_lth train one network a process, with all threads or with a process a thread, whichever is faster; the
stacked engine many at once; the device engine, which a search on a CPU takes, at each density of the paper's ladder. All are
timed in intervals of 100 steps and an evaluation on 5,000 samples, open_lth without one too, for by itself it evaluates more
seldom than the paper; in turns, so that a busy machine slows everyone; of CPU time besides, which depends less on what else
runs. The figure that counts is the whole ladder with its controls: 405 trainings of 50,000 steps.

    python -m benchmarks.find_speed [--data idx:DIR] [--open-lth PATH] [--rounds 10] [--threads N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks import find_rival
from benchmarks.circumstances import circumstances
from benchmarks.find_contenders import EVALUATED, INTERVAL, RECIPE, ROUNDS, STEPS, Contender, Crew, lenet_ladder

STACKS = (5, 20, 60)
SEEDS, REINITS = 5, 3  # of the paper
RESULT = Path(__file__).parent / "results" / "find_speed.json"
TURN_SECONDS = 0.2
UNEVALUATED = "open_lth without evaluations"


def contenders(threads: int, open_lth: Path | None) -> dict[str, Contender]:
    """Everyone who can take part on this machine, by name."""
    found = {
        f"PyTorch, 1 process of {threads} threads": Contender("PyTorch", threads=threads),
        f"PyTorch, {threads} processes of 1 thread": Contender("PyTorch", workers=threads),
        **{f"stacked, {n} replicas": Contender("stacked", n, threads=threads) for n in STACKS},
        f"stacked, {STACKS[1]} replicas, compiled": Contender("stacked", STACKS[1], threads=threads, compiled=True),
        "device": Contender("device", threads),
    }
    if open_lth is not None:
        for name, evaluated in (("open_lth", EVALUATED), (UNEVALUATED, 0)):
            lth = Contender("open_lth", path=open_lth, evaluated=evaluated)
            found[f"{name}, 1 process of {threads} threads"] = replace(lth, threads=threads)
            found[f"{name}, {threads} processes of 1 thread"] = replace(lth, workers=threads)
    if torch.cuda.is_available():
        found["PyTorch on CUDA"] = Contender("PyTorch", device="cuda")
        found |= {f"stacked on CUDA, {n} replicas": Contender("stacked", n, device="cuda") for n in STACKS}
        found |= {
            f"stacked on CUDA, {STACKS[-1]} replicas, compiled, {precision}": Contender(
                "stacked", STACKS[-1], device="cuda", precision=precision, compiled=True
            )
            for precision in ("32-true", "tf32", "bf16-mixed")
        }
    return found


@dataclass
class Timing:
    """One row: which interval of a crew it is, how many of them a turn takes, and of each turn the seconds an interval, by
    the clock and of CPU time."""

    crew: Crew
    which: int = 0
    block: int = 1
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def take_turn(self) -> None:
        began = time.perf_counter()
        cpu = sum(self.crew.interval(self.which) for _ in range(self.block))
        self.wall.append((time.perf_counter() - began) / self.block)
        self.cpu.append(cpu / self.block)

    def warm_up(self) -> None:
        self.take_turn()
        self.block = max(1, round(TURN_SECONDS / self.wall.pop()))
        self.cpu.clear()

    def rates(self, threads: int) -> dict[str, list[float]]:
        """Replica-steps a second in each turn: by the clock, and as if all threads had a core of their own."""
        contender = self.crew.contender
        steps = contender.replicas * contender.workers * INTERVAL
        found = {"wall": [steps / seconds for seconds in self.wall]}
        if contender.device == "cpu":
            found["cpu"] = [steps * threads / seconds for seconds in self.cpu]
        return found


def measure(source: str, rounds: int, threads: int, open_lth: Path | None) -> dict[str, Any]:
    """Starts everyone, times them in turns, and sums up; a JSON object."""
    timings: dict[str, Timing] = {}
    crews: list[Crew] = []
    before = circumstances()  # the load without our own
    try:
        for name, contender in contenders(threads, open_lth).items():
            crews.append(Crew(contender))
            crews[-1].start(source)
            rungs = range(ROUNDS + 1) if contender.kind == "device" else ()
            timings |= {_rung(number): Timing(crews[-1], number) for number in rungs} or {name: Timing(crews[-1])}
            print(f"find_speed: {name} is ready", file=sys.stderr)
        for timing in timings.values():
            timing.warm_up()
        for number in range(rounds):
            print(f"find_speed: round {number + 1}/{rounds}", file=sys.stderr)
            for timing in timings.values():
                timing.take_turn()
    finally:
        for crew in crews:
            crew.end()
    rates = {name: timing.rates(threads) for name, timing in timings.items()}
    return {
        "benchmark": "find_speed",
        "network": "lenet-300-100",
        "batch": RECIPE.batch,
        "interval": INTERVAL,
        "threads": threads,
        "rounds": rounds,
        "data": "MNIST" if source.startswith("idx:") else source,
        **before,
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else "not measured",
        "open_lth": "not measured" if open_lth is None else "measured",
        "densities": lenet_ladder().densities,
        "replica_steps_per_second": {
            name: {clock: _summary(values) for clock, values in by_clock.items()} for name, by_clock in rates.items()
        },
        "ladder": {
            clock: _ladder({name: by_clock[clock] for name, by_clock in rates.items() if clock in by_clock})
            for clock in ("wall", "cpu")
        },
    }


def _rung(number: int) -> str:
    return f"device, round {number}"


def _summary(rates: list[float]) -> dict[str, float]:
    return {"median": median(rates), "lowest": min(rates), "highest": max(rates)}


def _ladder(rates: Mapping[str, list[float]]) -> dict[str, Any]:
    """All its trainings over the time of all, in each turn: the harmonic mean of the rates, weighted by trainings. The ratios
    are to the faster way of a peer."""
    trainings = [SEEDS] + [SEEDS * (1 + REINITS)] * ROUNDS
    turns = range(len(rates[_rung(0)]))
    device = [
        sum(trainings) / sum(count / rates[_rung(number)][turn] for number, count in enumerate(trainings))
        for turn in turns
    ]
    ratios = {}
    for peer in ("PyTorch", "open_lth", UNEVALUATED):
        ways = {name: values for name, values in rates.items() if name.startswith(f"{peer}, ")}
        if ways:
            fastest = max(ways, key=lambda name: median(ways[name]))
            ratios[fastest] = _summary([device[turn] / ways[fastest][turn] for turn in turns])
    return {
        "trainings": sum(trainings),
        "replica_steps_per_second": median(device),
        "hours": sum(trainings) * STEPS / median(device) / 3600,
        "ratio": ratios,
    }


def print_table(result: dict[str, Any]) -> None:
    print(f"LeNet-300-100, batch {result['batch']}, {result['data']}, {result['threads']} threads; {result['device']}")
    print(
        "replica-steps a second, median [lowest, highest]: by the clock; by CPU time, as if every thread had a core\n"
    )
    for name, rates in result["replica_steps_per_second"].items():
        density = f" ({result['densities'][int(name.split()[-1])]:.1%})" if name.startswith("device") else ""
        print(f"  {name + density:<52}" + "   ".join(_as_text(rate, "8,.0f") for rate in rates.values()))
    for clock, ladder in result["ladder"].items():
        rate, hours = ladder["replica_steps_per_second"], ladder["hours"]
        print(
            f"\nthe whole ladder, {ladder['trainings']} trainings of {STEPS:,} steps, by {clock}: {rate:,.0f}, {hours:.1f} hours"
        )
        for name, ratio in ladder["ratio"].items():
            print(f"  over {name:<47}" + _as_text(ratio, "5.1f"))
    print(f"\nCUDA: {result['cuda']}; open_lth: {result['open_lth']}")


def _as_text(summary: dict[str, float], form: str) -> str:
    return f"{summary['median']:{form}} [{summary['lowest']:{form}}, {summary['highest']:{form}}]"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.find_speed", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", default="random", metavar="idx:DIR", help="MNIST's files (default: random samples)")
    parser.add_argument("--open-lth", type=Path, metavar="PATH", help="a checkout of it; needs torchvision")
    parser.add_argument("--rounds", type=int, default=10, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, default=RESULT, metavar="FILE", help="where the result goes (%(default)s)")
    arguments = parser.parse_args(argv)
    try:
        if arguments.open_lth:
            find_rival.check(arguments.open_lth)
    except find_rival.RivalError as error:
        print(f"{parser.prog}: error: --open-lth: {error}", file=sys.stderr)
        return 2
    result = measure(arguments.data, arguments.rounds, arguments.threads, arguments.open_lth)
    print_table(result)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
