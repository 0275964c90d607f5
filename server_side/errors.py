"""The one error a user can mend: bad options, data or models, a training that diverges. The command prints it as one line
and exits 2."""


class UsageError(ValueError):
    """Names the thing, the value and the remedy."""
