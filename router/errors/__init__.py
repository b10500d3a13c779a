"""All errors that the product raises on purpose, as one tree. They import nothing of ours and must not know who raises them.

StepdownError
├── BadPlan                the planning tier's output is no valid plan; costs a repair, never a request
├── BadInput               a command got input that it cannot use (exit code 2)
│   └── BadConfig          the YAML file, or a file that it names
└── RequestFailed          an HTTP request gets OpenAI's error body
    ├── BadRequest         400  malformed JSON or fields
    │   ├── ContextTooLong 400  no tier's window holds the prompt
    │   ├── NoTierFits     400  no tier has the features that the request needs
    │   ├── Unsupported    400  a part of a protocol that is not offered here
    │   ├── NoPreviousResponse 400  the response that a request continues is not kept
    │   ├── NoThread       400  only the newest messages of a thread, which is not kept
    │   ├── ToolNameConflict 400  a client's function has a reserved name
    │   └── UnsupportedTool 400  the request demands a tool that only its vendor can run
    ├── BadKey             401
    ├── NotAllowed         403  the key may not use this tier, target or page
    ├── ForeignRequest     403  no key is asked for, and a web page from elsewhere could have sent it
    ├── NotFound           404  no such path
    │   ├── UnknownModel   404
    │   ├── NoService      404  no service of that kind, or of that name
    │   └── WrongKind      404  a service is asked for a chat, or a tier for embeddings
    ├── WrongMethod        405
    ├── TooSlow            408  the body did not arrive in time
    ├── TooLarge           413
    ├── UnknownEncoding    415  the body is compressed in a way that we do not read
    ├── NotJson            415  no key is asked for, and the body is not said to be JSON
    ├── NoWebSocket        426
    ├── HeadersTooLarge    431
    ├── DelegationFailed   502  no subtask succeeded, and no direct answer is possible
    ├── DeadlineExceeded   504
    ├── BudgetExceeded     429  the client's own cost limit
    ├── RateLimited        429  the key's requests or tokens a minute, with Retry-After
    ├── BudgetSpent        429  the key's budget for the day or month, with Retry-After
    ├── LedgerDown         503  the ledger cannot be written, with Retry-After
    ├── ServerStopping     503  with Retry-After
    ├── TierFailed         502, or 400 or 422 where the tier says that the request is wrong
    │   ├── TierSilent     504  its stream fell silent
    │   ├── WindowExceeded 400  the tier says that its window does not hold the request; a wider one may answer
    │   └── TierMisconfigured 502  the upstream refuses this server's key, account, address or model
    ├── TierCold           503  the tier was scaled to zero; a replica is starting, with Retry-After
    ├── Overloaded         503  every tier that may answer is full, with Retry-After
    └── NoReplica          503  with Retry-After
        └── TierBusy       503  the tier is full, or asked to be left alone for a while; no failure, with Retry-After
"""

from router.errors.base import BadConfig, BadInput, BadPlan, RequestFailed, StepdownError
from router.errors.bodies import (
    BadRequest,
    ContextTooLong,
    NoPreviousResponse,
    NoThread,
    NoTierFits,
    ToolNameConflict,
    Unsupported,
    UnsupportedTool,
)
from router.errors.http import (
    ForeignRequest,
    HeadersTooLarge,
    NoService,
    NotFound,
    NotJson,
    NoWebSocket,
    ServerStopping,
    TooLarge,
    TooSlow,
    UnknownEncoding,
    UnknownModel,
    WrongKind,
    WrongMethod,
)
from router.errors.keys import BadKey, BudgetExceeded, BudgetSpent, LedgerDown, NotAllowed, RateLimited
from router.errors.tiers import (
    REQUESTS_OWN,
    DeadlineExceeded,
    DelegationFailed,
    NoReplica,
    Overloaded,
    TierBusy,
    TierCold,
    TierFailed,
    TierMisconfigured,
    TierSilent,
    WindowExceeded,
)

__all__ = [
    "BadConfig",
    "BadInput",
    "BadKey",
    "BadPlan",
    "BadRequest",
    "BudgetExceeded",
    "BudgetSpent",
    "ContextTooLong",
    "DeadlineExceeded",
    "DelegationFailed",
    "ForeignRequest",
    "HeadersTooLarge",
    "LedgerDown",
    "NoPreviousResponse",
    "NoReplica",
    "NoService",
    "NoThread",
    "NoTierFits",
    "NoWebSocket",
    "NotAllowed",
    "NotFound",
    "NotJson",
    "Overloaded",
    "REQUESTS_OWN",
    "RateLimited",
    "RequestFailed",
    "ServerStopping",
    "StepdownError",
    "TierBusy",
    "TierCold",
    "TierFailed",
    "TierMisconfigured",
    "TierSilent",
    "TooLarge",
    "TooSlow",
    "ToolNameConflict",
    "UnknownEncoding",
    "UnknownModel",
    "Unsupported",
    "UnsupportedTool",
    "WindowExceeded",
    "WrongKind",
    "WrongMethod",
]
