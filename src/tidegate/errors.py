"""One tree for everything tidegate says no to.

    TidegateError                  exit code
    ├── UsageError                 2   wrong usage or an invalid definition
    │   ├── ConfigError                configuration or environment variables
    │   ├── DefinitionError            a component or pipeline that cannot be read, traced or run here
    │   ├── ParameterError             a run parameter: unknown, missing, of a wrong type, or looser than the policy
    │   ├── PolicyError                a policy.toml that says something we do not know
    │   └── NotFound                   a run, model, version, alias or key that does not exist
    ├── Refused                    1   the run or the gate said no
    │   ├── StepFailed                 a step of a run failed
    │   ├── GateRefused                the evidence does not meet the policy
    │   ├── CodeMismatch               the code in the image is not the code the pipeline was compiled from
    │   └── ModelRefused               a model that may not be served, or whose bytes are not the registered ones
    └── Trouble                    3   store, cluster or network
        ├── StoreError                 the store cannot be reached, is full, or gave an unknown outcome
        ├── Damaged                    stored bytes are not what was written
        ├── Conflict                   somebody else wrote first
        ├── ClusterError               a cluster cannot be reached, does not let us, or refuses an object
        │   └── WatchLost              a run goes on in a cluster that can no longer be watched
        └── ServerError                a server of ours or a peer's: port in use, unreachable

Every message has three parts: what was found, what is allowed, what to type next.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class TidegateError(Exception):
    """Root of the tree: a message in three parts, a stable code and an exit code.

    Args:
        found: what was found, one sentence, naming the thing and its value.
        allowed: what would have been accepted.
        hint: what to type next.
        code: a more precise stable code than the class's own, in kebab-case.
    """

    code: str = "error"
    exit_code: ClassVar[int] = 2

    def __init__(self, found: str, *, allowed: str = "", hint: str = "", code: str = "") -> None:
        super().__init__(found)
        self.found, self.allowed, self.hint = found, allowed, hint
        self.code = code or type(self).code

    def __str__(self) -> str:
        return "\n".join(filter(None, [self.found, self.allowed, self.hint]))

    def as_json(self) -> dict[str, Any]:
        """The error as the ``error`` member of ``--json`` output."""
        parts = {"allowed": self.allowed, "hint": self.hint}
        return {"code": self.code, "message": self.found, **{k: v for k, v in parts.items() if v}}


class UsageError(TidegateError):
    """Wrong usage or an invalid definition."""

    code = "usage"


class ConfigError(UsageError):
    """Configuration or an environment variable is wrong."""

    code = "config-invalid"


class DefinitionError(UsageError):
    """A component or pipeline cannot be read, traced, or run on this engine."""

    code = "definition-invalid"


class ParameterError(UsageError):
    """A run parameter is unknown, missing, of a wrong type, or looser than the policy."""

    code = "parameter-invalid"


class PolicyError(UsageError):
    """A policy.toml says something we do not know."""

    code = "policy-invalid"


class NotFound(UsageError):
    """A run, model, version, alias or key does not exist."""

    code = "not-found"


class Refused(TidegateError):
    """The run or the gate said no."""

    code = "refused"
    exit_code = 1


class StepFailed(Refused):
    """A step of a run failed.

    Args:
        found: see ``TidegateError``.
        shown: what else its report shows: the user's own ``frames``, the ``tail`` of a log.
        parts: see ``TidegateError``.
    """

    code = "step-failed"

    def __init__(self, found: str, *, shown: Mapping[str, Any] | None = None, **parts: str) -> None:
        super().__init__(found, **parts)
        self._shown = dict(shown or {})

    def as_json(self) -> dict[str, Any]:
        """See ``TidegateError``."""
        return super().as_json() | self._shown


class GateRefused(Refused):
    """The evidence does not meet the policy."""

    code = "gate-refused"


class CodeMismatch(Refused):
    """The code in the image is not the code the pipeline was compiled from."""

    code = "code-mismatch"


class ModelRefused(Refused):
    """A model may not be served, or its bytes are not the registered ones."""

    code = "model-refused"


class Trouble(TidegateError):
    """Store, cluster or network trouble."""

    code = "trouble"
    exit_code = 3


class StoreError(Trouble):
    """The store cannot be reached, is full, or gave an unknown outcome."""

    code = "store-error"


class Damaged(Trouble):
    """Stored bytes are not what was written."""

    code = "store-damaged"


class Conflict(Trouble):
    """Somebody else wrote first."""

    code = "conflict"


class ClusterError(Trouble):
    """A cluster cannot be reached, does not let us, or refuses an object."""

    code = "cluster-error"


class WatchLost(ClusterError):
    """A run goes on in a cluster that can no longer be watched."""

    code = "watch-lost"


class ServerError(Trouble):
    """A server of ours or a peer's cannot be used."""

    code = "server-error"
