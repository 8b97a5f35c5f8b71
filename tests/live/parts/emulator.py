"""Starts local-bigquery 0.4.0 (the BigQuery emulator of tests/live) on duckdb 1.5.5, with DuckDB's extensions taken from their wheels.

Arguments are local-bigquery's own: --host, --port, --grpc-port, --project, --data-dir. $HOME should be a folder of its own: DuckDB keeps
its extensions there.
"""

import collections
import functools
import sys
import threading

import duckdb
import grpc
from duckdb_extensions import import_extension

for extension in ("icu", "ducklake", "spatial"):
    import_extension(extension)  # copies the file that the wheel carries to $HOME/.duckdb

_connect = duckdb.connect


def connect(database=":memory:", read_only=False, config=None):
    """Never look for an extension on the network."""
    return _connect(database, read_only, {**(config or {}), "autoinstall_known_extensions": "false"})


duckdb.connect = connect

# The stock server keeps gRPC's 4 MiB message limit; BigQuery's own limit is larger.
grpc.server = functools.partial(
    grpc.server,
    options=[("grpc.max_receive_message_length", 20 << 20), ("grpc.max_send_message_length", 20 << 20)],
)

from local_bigquery import cli  # noqa: E402  (after the steps above)
from local_bigquery.grpc import write  # noqa: E402

# The stock finalize answers with a row count while an append to the same stream is still being inserted, which then lands behind the stream's
# end and is in no count. Exactly once rests on the real service not doing that (docs/durability.md, an assumption until tests/cloud has shown it), so
# here the two exclude each other. Everything else is the emulator's own.
_append, _finalize = write._append, write.finalize
_turns = collections.defaultdict(threading.Lock)


def append(stream, rows, offset):
    if stream.name.endswith("/_default"):
        return _append(stream, rows, offset)
    with _turns[stream.name]:
        return _append(stream, rows, offset)


def finalize(request):
    with _turns[request.name]:
        return _finalize(request)


write._append, write.finalize = append, finalize

cli.main(sys.argv[1:])
