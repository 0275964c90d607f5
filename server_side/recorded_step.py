"""A step that differs from the last one only in numbers within tensors, recorded once and replayed: a GPU then works through it
without the host, whose work for a step of small networks takes longer than the GPU's.

A recording is used only if its first replay gives the very bits of the step itself. Where it does not, or where nothing can be
recorded, the training goes on without, and a warning says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence

import torch

Step = Callable[[], None]
Recorder = Callable[[Step], Step]  # it may make the step; what it gives makes it again, by replaying


class RecordedStep:
    """Makes `step` at every call: at first as it is, for that is when optimizers and libraries take their memory, then once
    more to know what a recording has to give, from then on by replaying what `record` has made of it.

    `step` reads and writes tensors that stay where they are, and whatever Python does in it is done at the recording and
    never again. `state`: all that it writes and a later step reads.
    """

    def __init__(self, step: Step, state: Callable[[], Iterable[torch.Tensor]], record: Recorder) -> None:
        self._plain, self._state, self._record = step, state, record
        self._next: Step = self._first

    def __call__(self) -> None:
        self._next()

    def _first(self) -> None:
        self._plain()
        self._next = self._second

    def _second(self) -> None:
        tensors = list(self._state())
        before = _kept(tensors)
        self._plain()
        wanted = _kept(tensors)
        self._next = self._plain
        try:
            replay = self._record(self._plain)
            _put_back(tensors, before)
            replay()
        except RuntimeError as error:
            _put_back(tensors, wanted)
            _warn(" ".join(str(error).split())[:200])
            return
        if all(_same_bits(found, right) for found, right in zip(_kept(tensors), wanted, strict=True)):
            self._next = replay
        else:
            _put_back(tensors, wanted)
            _warn("its replay gave other bits")


def cuda_graph(step: Step) -> Step:
    """Records `step` as a CUDA graph of the current device, after one more call that warms up the stream it is recorded on."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        step()

    def replay() -> None:
        graph.replay()

    return replay


def recorder_of(device: torch.device) -> Recorder | None:
    """None where steps are not recorded."""
    return cuda_graph if device.type == "cuda" else None


def _kept(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Copies in the host's memory: of a GPU's there may be little left."""
    return [tensor.detach().to("cpu", copy=True) for tensor in tensors]


def _put_back(tensors: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
    with torch.no_grad():
        for tensor, value in zip(tensors, values, strict=True):
            tensor.copy_(value)


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """NaN, of a control that has diverged, is the same as itself."""
    return torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))


def _warn(reason: str) -> None:
    warnings.warn(
        f"a training step could not be recorded, so training goes on without, slower: {reason}",
        RuntimeWarning,
        stacklevel=4,
    )
