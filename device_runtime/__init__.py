"""Pocket Ticket on a device: train, evaluate and predict with one sparse network on private data.

Needs numpy and the compiled core, nothing else; opens no socket and reads no environment variable.
"""

from device_runtime.artifact import ArtifactInfo, inspect
from device_runtime.data import Data, load_npz
from device_runtime.delta import apply_delta
from device_runtime.errors import (
    BudgetExceeded,
    CheckpointWarning,
    CorruptArtifact,
    CorruptCheckpoint,
    CorruptDelta,
    IncompatibleArtifact,
    IncompatibleDelta,
    InvalidInput,
    NonFiniteLoss,
    PocketTicketError,
    UnsupportedOp,
)
from device_runtime.generator import draw
from device_runtime.rebase import update
from device_runtime.results import Evaluation, FitReport, Progress
from device_runtime.trainer import Trainer

__all__ = [
    "ArtifactInfo",
    "BudgetExceeded",
    "CheckpointWarning",
    "CorruptArtifact",
    "CorruptCheckpoint",
    "CorruptDelta",
    "Data",
    "Evaluation",
    "FitReport",
    "IncompatibleArtifact",
    "IncompatibleDelta",
    "InvalidInput",
    "NonFiniteLoss",
    "PocketTicketError",
    "Progress",
    "Trainer",
    "UnsupportedOp",
    "apply_delta",
    "draw",
    "inspect",
    "load_npz",
    "update",
]
