"""A proxy that misbehaves on purpose, in front of a real S3 server: for tests of stores.

    client ──> FaultProxy on 127.0.0.1 ──> the real server
                 │ rules: which requests, how often, what goes wrong
                 ▼ log: what was asked, what was done to it
    faults.py    what can go wrong (Status, Slow, LostAnswer, ...), Rule, and who is hit
    proxy.py     the thread, its connections, one request and its answer
    wire.py      HTTP/1.1: heads, and bodies in pieces
    signing.py   AWS signature 4, for requests whose signed headers a fault takes away

    with FaultProxy(upstream="http://127.0.0.1:8333", seed=1, rules=[
        Rule(LostAnswer(), methods=("PUT",), path="/manifests/", times=1),
        Rule(Status(503), probability=0.01),
    ]) as proxy:
        store = open_store("s3://bucket/prefix", endpoint=proxy.endpoint)

By count: a rule leaves the first `after` matching requests alone and hits the next `times`.
By probability: what is drawn for a request follows from the seed, the rule, the request and how
often it has come, so the same work meets the same faults in whatever order its requests arrive.
Host and path are forwarded as the client sent them, because both are signed: the server must not
care what it is called, as SeaweedFS and MinIO do not. For a server that does (AWS), and for the
faults that take signed headers away, the proxy signs again: give it `credentials`, or have them in
the environment.

Standard library only; imports nothing of simdist but its errors. Bodies stream, whatever their
size; HTTP trailers are dropped, and bodies signed piece by piece (`STREAMING-...`) pass unchanged
but cannot be signed again.
"""

from simdist.testing.fault_proxy.faults import (
    Corrupt,
    Fault,
    Hold,
    IgnoreChecksums,
    IgnoreConditions,
    LostAnswer,
    ResetInBody,
    Rule,
    Seen,
    Slow,
    Status,
    Truncated,
)
from simdist.testing.fault_proxy.proxy import FaultProxy

__all__ = [
    "Corrupt",
    "Fault",
    "FaultProxy",
    "Hold",
    "IgnoreChecksums",
    "IgnoreConditions",
    "LostAnswer",
    "ResetInBody",
    "Rule",
    "Seen",
    "Slow",
    "Status",
    "Truncated",
]
