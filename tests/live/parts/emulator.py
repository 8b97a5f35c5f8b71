"""Starts local-bigquery 0.4.0 (the BigQuery emulator of tests/live) on duckdb 1.5.5, with DuckDB's extensions taken from their wheels.

Arguments are local-bigquery's own: --host, --port, --grpc-port, --project, --data-dir. $HOME should be a folder of its own: DuckDB keeps
its extensions there.
"""

import functools
import sys

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

cli.main(sys.argv[1:])
