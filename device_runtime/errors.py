"""The kinds of failure, one class each, the same names in Python, Java and C (`tkt_status`).

Every text is one line that names the thing, the value and the remedy. Failures of the disk stay OSError.
"""

from __future__ import annotations


class PocketTicketError(Exception):
    """Whatever this package raises by itself."""


class CorruptArtifact(PocketTicketError):
    """Not an artifact, cut short, or damaged."""


class IncompatibleArtifact(PocketTicketError):
    """An artifact of a version that this runtime does not know."""


class UnsupportedOp(PocketTicketError):
    """An operator, loss or optimizer that this runtime does not know."""


class CorruptCheckpoint(PocketTicketError):
    """Not a checkpoint, cut short, damaged, or made from another ticket."""


class CorruptDelta(PocketTicketError):
    """Not a delta, cut short, or damaged."""


class IncompatibleDelta(PocketTicketError):
    """A delta of another artifact, or of a version that this runtime does not know."""


class BudgetExceeded(PocketTicketError):
    """More memory is needed than `budget_bytes` allows, or than there is."""


class NonFiniteLoss(PocketTicketError):
    """The loss is NaN or infinite; the weights were not touched."""


class InvalidInput(PocketTicketError, ValueError):
    """Samples, labels or an option that cannot be worked with, or a trainer that is closed or busy."""


class CheckpointWarning(UserWarning):
    """The newest checkpoint could not be used; the one before it was."""


BY_STATUS: dict[int, type[PocketTicketError]] = {
    1: CorruptArtifact,
    2: IncompatibleArtifact,
    3: UnsupportedOp,
    4: CorruptCheckpoint,
    5: BudgetExceeded,
    6: NonFiniteLoss,
    7: InvalidInput,
}
