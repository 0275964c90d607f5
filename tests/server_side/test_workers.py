"""Several workers find the ticket of one, bit for bit, whichever of them is lost; nobody else gets into their directory."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from server_side import workers
from server_side.errors import UsageError
from server_side.find import prepare
from server_side.options import Options
from server_side.training import Interrupted, Job
from server_side.workers import Claim, Team, Unit, Worker
from tests.server_side.searches import Watcher, options, run_worker, search

ROOT = Path(__file__).parents[2]
TINY = [
    *("--data", "tests.server_side.searches:blobs", "--model", "tests.server_side.searches:Tiny", "--seeds", "2"),
    *("--rounds", "3", "--reinits", "1", "--evaluate-every", "20it", "--batch", "16", "--validation", "0.2"),
    *("--threads", "1", "--accuracy-tolerance", "0"),
]
ENGINES = {
    "device": ["--engine", "device", "--steps", "8000it"],
    "stacked": ["--engine", "stacked", "--stack-size", "2", "--steps", "120it"],
}
NO_MATCH = 3
CONTEXT = multiprocessing.get_context("forkserver")  # imports torch once
CONTEXT.set_forkserver_preload(
    ["server_side.figures", "server_side.search", "server_side.device_engine", "torch._dynamo"]
)
Process = multiprocessing.context.ForkServerProcess


def arguments(engine: str, path: Path, *more: str) -> list[str]:
    return [*TINY, *ENGINES[engine], "--output-dir", str(path), *more]


def start(engine: str, path: Path, rank: int | None) -> Process:
    """A worker of two as started by hand, or one alone; what it says goes to `path`.RANK."""
    environment = {}
    if rank is not None:
        numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": 29999}
        environment = {**{name: str(number) for name, number in numbers.items()}, "MASTER_ADDR": "127.0.0.1"}
    told = path.with_name(f"{path.name}.{rank}")
    process = CONTEXT.Process(target=run_worker, args=(arguments(engine, path), environment, str(told)))
    process.start()
    return process


def start_both(engine: str, path: Path) -> list[Process]:
    return [start(engine, path, rank) for rank in (0, 1)]


def ended(process: Process) -> int | None:
    process.join(60)
    return process.exitcode


def told(path: Path, rank: int | None) -> str:
    return path.with_name(f"{path.name}.{rank}").read_text()


def wait_for_round(path: Path, number: int) -> None:
    """Until a training of this round is finished."""
    until = time.monotonic() + 60
    while not any(file.name[0] != "." for file in path.glob(f"rounds/{number:02d}/*.npz")):
        assert time.monotonic() < until
        time.sleep(0.01)


def written(path: Path) -> dict[str, int]:
    """The finished trainings, and when they were written."""
    files = [file for file in path.glob("rounds/*/[a-z]*.npz") if "partial" not in file.name]
    return {f"{file.parent.name}/{file.name}": file.stat().st_mtime_ns for file in files}


def ticket(path: Path) -> bytes:
    return (path / "ticket/ticket.json").read_bytes()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The ticket of one worker, by engine."""
    paths = {engine: tmp_path_factory.mktemp(engine) / "run" for engine in ENGINES}
    for engine, path in paths.items():
        assert ended(start(engine, path, None)) == NO_MATCH, told(path, None)
        assert not [there.name for there in path.rglob("*") if there.suffix in (".claim", ".pt")]
    return {engine: ticket(path) for engine, path in paths.items()}


def torchrun(engine: str, path: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *options]
    command += ["-m", "server_side.find", *arguments(engine, path, "--json")]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_two_workers_of_torchrun_find_the_ticket_of_one(tmp_path: Path, alone: dict[str, bytes], engine: str) -> None:
    process = torchrun(engine, tmp_path)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr  # though no ticket matches
    assert ticket(tmp_path) == alone[engine]
    result = json.loads(stdout)  # of one of them
    assert result["complete"]
    assert result == json.loads((tmp_path / "results.json").read_text())
    assert len(list((tmp_path / "rounds").rglob("*.npz"))) == 2 + 3 * 6 + 2
    assert not list((tmp_path / "rounds").rglob("*.claim"))


@pytest.mark.slow
def test_a_group_that_torchrun_restarts_goes_on(tmp_path: Path, alone: dict[str, bytes]) -> None:
    process = torchrun("device", tmp_path, "--max-restarts", "1")
    wait_for_round(tmp_path, 1)
    finished = written(tmp_path)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert json.loads(stdout)["complete"]
    assert ticket(tmp_path) == alone["device"]
    assert finished.items() <= written(tmp_path).items()


@pytest.mark.parametrize(("engine", "lost"), [("device", 0), ("stacked", 1)])
def test_what_a_killed_worker_had_under_way_is_trained_by_the_other(
    tmp_path: Path, alone: dict[str, bytes], engine: str, lost: int
) -> None:
    path = tmp_path / "run"
    both = start_both(engine, path)
    wait_for_round(path, 1)
    both[lost].kill()
    assert ended(both[lost]) == -signal.SIGKILL
    assert ended(both[1 - lost]) == NO_MATCH, told(path, 1 - lost)
    assert ticket(path) == alone[engine]
    assert ("no matching ticket" in told(path, 1 - lost)) == (lost == 1)  # rank 0 speaks for all


@pytest.mark.parametrize("engine", ENGINES)
def test_a_launch_killed_and_started_again_loses_nothing(tmp_path: Path, alone: dict[str, bytes], engine: str) -> None:
    path = tmp_path / "run"
    both = start_both(engine, path)
    wait_for_round(path, 1)
    for process in both:
        process.kill()
    assert [ended(process) for process in both] == [-signal.SIGKILL] * 2
    finished = written(path)
    assert [ended(process) for process in start_both(engine, path)] == [NO_MATCH] * 2, told(path, 0)
    assert ticket(path) == alone[engine]
    again = finished.items() - written(path).items()
    assert len(again) <= (
        0 if engine == "device" else 2
    )  # of a stack of two both are written again where one was missing


@pytest.mark.parametrize("engine", ENGINES)
def test_a_signal_at_one_worker_stops_all(tmp_path: Path, alone: dict[str, bytes], engine: str) -> None:
    path = tmp_path / "run"
    both = start_both(engine, path)
    wait_for_round(path, 1)
    both[1].terminate()
    assert [ended(process) for process in both] == [130, 130], told(path, 0)
    assert "interrupted; the same command goes on" in told(path, 0)
    assert not (path / "ticket").exists()
    assert [ended(process) for process in start_both(engine, path)] == [NO_MATCH] * 2, told(path, 0)
    assert ticket(path) == alone[engine]


class Jobs:
    """Units that are done once a file of theirs is there, and who has trained them how often."""

    def __init__(self, path: Path, count: int) -> None:
        self.units = [Unit((), path / f"{number}.pt", 10) for number in range(count)]
        self.trained: list[tuple[str, str]] = []

    def is_done(self, unit: Unit) -> bool:
        return unit.checkpoint.with_suffix(".npz").exists()

    def trained_by(self, who: str, step: Callable[[], None]) -> Callable[[list[Unit], Claim], None]:
        def train(units: list[Unit], claim: Claim) -> None:
            for unit in units:
                with claim(unit) as watch:
                    if watch is not None:
                        for _ in range(2):
                            step()
                            if watch.stop_requested():
                                raise Interrupted
                            watch.advanced(5, 0.0, 0.0)
                        self.trained.append((who, unit.checkpoint.name))
                        unit.checkpoint.with_suffix(".npz").touch()

        return train

    def work_off(self, team: Team, who: str, step: Callable[[], None] = lambda: None) -> None:
        team.work_off(self.units, self.is_done, self.trained_by(who, step))


def team_of_two(path: Path, rank: int, watch: Watcher | None = None) -> Team:
    return Team(path, Worker("launch", rank, 2, rank, 2), watch or Watcher())


@contextlib.contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join(60)
        assert not thread.is_alive()


def test_each_unit_is_trained_once_and_the_first_worker_sees_every_step(tmp_path: Path) -> None:
    jobs, seen = Jobs(tmp_path, 20), Watcher()
    with meanwhile(lambda: jobs.work_off(team_of_two(tmp_path, 1), "other", lambda: time.sleep(0.01))):
        jobs.work_off(team_of_two(tmp_path, 0, seen), "first", lambda: time.sleep(0.01))
    assert sorted(name for _, name in jobs.trained) == sorted(unit.checkpoint.name for unit in jobs.units)
    assert {who for who, _ in jobs.trained} == {"first", "other"}
    assert seen.replica_steps == 200
    assert not list(tmp_path.glob("*.claim"))


def test_a_worker_waits_for_what_another_has_claimed_and_sees_how_far_it_is(tmp_path: Path) -> None:
    jobs, seen = Jobs(tmp_path, 1), Watcher()
    claimed, go_on = threading.Event(), threading.Event()

    def step() -> None:
        if claimed.is_set():
            assert go_on.wait(60)
        claimed.set()

    with meanwhile(lambda: jobs.work_off(team_of_two(tmp_path, 1), "other", step)):
        assert claimed.wait(60)
        with meanwhile(lambda: jobs.work_off(team_of_two(tmp_path, 0, seen), "first")):
            until = time.monotonic() + 60
            while seen.replica_steps != 5:  # of another, which is in its second step
                assert time.monotonic() < until
                time.sleep(0.01)
            go_on.set()
    assert jobs.trained == [("other", "0.pt")]
    assert seen.replica_steps == 10


def test_what_a_failed_worker_leaves_is_taken_up(tmp_path: Path) -> None:
    jobs, seen = Jobs(tmp_path, 1), Watcher()
    claimed, fail = threading.Event(), threading.Event()

    def failing() -> None:
        claimed.set()
        assert fail.wait(60)
        raise OSError("no disk")

    def other() -> None:
        with pytest.raises(OSError, match="no disk"):
            jobs.work_off(team_of_two(tmp_path, 1), "other", failing)

    with meanwhile(other):
        assert claimed.wait(60)
        with meanwhile(lambda: jobs.work_off(team_of_two(tmp_path, 0, seen), "first")):
            fail.set()
    assert jobs.trained == [("first", "0.pt")]
    assert seen.replica_steps == 10


def test_a_worker_that_waits_hears_that_another_was_asked_to_stop(tmp_path: Path) -> None:
    jobs, claimed = Jobs(tmp_path, 1), threading.Event()
    ending = Watcher()

    def ask() -> None:
        claimed.set()
        time.sleep(0.1)
        ending.stop_after = 0

    def other() -> None:
        with pytest.raises(Interrupted):
            jobs.work_off(team_of_two(tmp_path, 1, ending), "other", ask)

    def steps() -> None:  # it may have been left the unit before it heard
        time.sleep(1)

    with meanwhile(other):
        assert claimed.wait(60)
        with pytest.raises(Interrupted):
            jobs.work_off(team_of_two(tmp_path, 0), "first", steps)
    assert jobs.trained == []


def test_a_claim_on_a_file_that_was_removed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening and locking, the other worker ends its claim and a third makes a new file."""
    jobs, path = Jobs(tmp_path, 1), tmp_path / "0.claim"
    lock = workers.lock
    given: list[Any] = []

    def train(units: list[Unit], claim: Claim) -> None:
        with claim(units[0]) as watch:
            given.append(watch)
        if watch is not None:
            units[0].checkpoint.with_suffix(".npz").touch()

    def late(file: Any, *, shared: bool = False) -> bool:
        monkeypatch.setattr(workers, "lock", lock)
        path.unlink()
        path.touch()
        return lock(file, shared=shared)

    monkeypatch.setattr(workers, "lock", late)
    team_of_two(tmp_path, 0).work_off(jobs.units, jobs.is_done, train)
    assert given[0] is None
    assert given[1] is not None


LAUNCH = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
PLACE = {"MASTER_ADDR": "head", "MASTER_PORT": "29500"}


def test_who_a_worker_is_comes_from_its_environment() -> None:
    worker = Worker.of_environment({**LAUNCH, **PLACE})
    assert (worker.rank, worker.size, worker.local_rank, worker.local_size) == (1, 4, 1, 2)
    assert not worker.is_watched
    assert Worker.of_environment({**LAUNCH, **PLACE, "RANK": "3"}).launch == worker.launch
    assert Worker.of_environment({**LAUNCH, **PLACE, "TORCHELASTIC_RUN_ID": "x"}).is_watched
    for other in ({"MASTER_PORT": "1"}, {"MASTER_ADDR": "x"}, {"TORCHELASTIC_RUN_ID": "x"}, {"WORLD_SIZE": "2"}):
        assert Worker.of_environment({**LAUNCH, **PLACE, **other}).launch != worker.launch
    assert Worker.of_environment({"WORLD_SIZE": "4"}) == Worker.alone()


@pytest.mark.parametrize(
    "changed",
    [
        {"WORLD_SIZE": ""},
        {"LOCAL_RANK": "one"},
        {"RANK": "-1"},
        {"RANK": "4"},
        {"LOCAL_RANK": "2"},
        {"MASTER_ADDR": ""},
    ],
)
def test_half_an_environment_is_refused(changed: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=f"environment .*{next(iter(changed))}"):
        Worker.of_environment({**LAUNCH, **PLACE, **changed})


def test_a_directory_lets_in_one_launch(tmp_path: Path) -> None:
    small = search(tmp_path)
    left = [
        tmp_path / name for name in (".config.json-0123456789abcdef", ".stop", ".concluded", "rounds/01/seed0.claim")
    ]
    (tmp_path / "rounds/01").mkdir(parents=True)
    for path in left:
        path.touch()
    with small.directory.locked("a"):
        assert not any(path.exists() for path in left)
        left[0].touch()
        with small.directory.locked("a"):  # another worker
            assert left[0].exists()  # the first may be writing it
        with pytest.raises(UsageError, match="in use by another command"), small.directory.locked("b"):
            pass
    with small.directory.locked("b"):
        assert not left[0].exists()


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = search(tmp_path)

    def refusing(file: Any, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refusing)
    with pytest.raises(UsageError, match="file system cannot lock"), small.directory.locked("a"):
        pass


def test_workers_that_begin_at_once_make_one_directory(tmp_path: Path) -> None:
    """The second had found no config.json when it looked; it is checked against that of the first."""
    one, same, other = (prepare(options(tmp_path, steps=s), Watcher()).directory for s in ("40it", "40it", "50it"))
    refused = pytest.raises(UsageError, match="holds a run with steps '40it', not '50it'")
    with one.locked("a"), same.locked("a"), refused, other.locked("a"):
        pass


def test_workers_of_a_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert [Options().settled({}, False, sharing).threads for sharing in (1, 2, 3, 16)] == [8, 4, 2, 1]
    assert Options(threads=5).settled({}, False, 2).threads == 5


def test_stacks_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    names = []
    for rank, count in ((0, 1), (0, 4), (3, 4)):
        small = prepare(options(tmp_path, seeds=7, stack_size=4), Watcher(), worker=Worker("launch", rank, count, 0, 1))
        jobs = [Job(seed, "dense", 0, {}, {}) for seed in small.seeds]
        names.append(
            [[job.name for job in stack] for stack in small.stage(small.directory.round_folder(0))._stacks(jobs)]
        )
    assert [len(stack) for stack in names[0]] == [4, 3]
    assert names[0] == names[1] == names[2]


def test_a_stack_size_is_for_stacks(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="stack_size 4 with engine device"):
        search(tmp_path, engine="device", stack_size=4)
    moving = search(tmp_path / "moving", engine="device", method="gradual", stack_size=4)
    assert moving.options.stack_size == 4


def test_workers_with_nothing_to_do_are_told(tmp_path: Path) -> None:
    def told_to(count: int, **changes: Any) -> str:
        worker = Worker("launch", 0, count, 0, 1)
        return " ".join(prepare(options(tmp_path, **changes), Watcher(), worker=worker).warnings())

    assert "2 workers share about 1 programs a round" in told_to(2)
    assert "--stack-size 3 gives them more" in told_to(2)
    assert told_to(2, stack_size=3) == ""
    assert told_to(1) == ""
    assert "7 workers share about 6 programs" in told_to(7, engine="device")
