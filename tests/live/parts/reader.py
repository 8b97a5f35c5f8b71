"""Reads BigQuery back with Google's own client: a line of JSON in, a line of JSON out.

    reader.py [REST-ADDRESS]        without an address: the real BigQuery, with application default credentials

In:  {"project": ..., "sql": ...}, {"project": ..., "schema": "dataset.table"}, or {"project": ..., "create_dataset": ...} and the like.
Out: {"ok": ...} or {"error": ...}. Values that JSON lacks are written as text: NUMERIC in full, BYTES in base64, times as isoformat.
"""

import base64
import datetime
import decimal
import json
import sys

from google.api_core.client_options import ClientOptions
from google.api_core.exceptions import GoogleAPICallError
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery


def plain(value):
    """The value in JSON's types. Floats that JSON lacks (NaN, infinities) are their names."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    return value


def column(field):
    """A column as the tables API shows it."""
    return {"name": field.name, "type": field.field_type, "mode": field.mode, "description": field.description,
            "fields": [column(inner) for inner in field.fields]}


def answer(client, request):
    """Does one request."""
    if "sql" in request:
        return [{name: plain(value) for name, value in row.items()} for row in client.query_and_wait(request["sql"])]
    if "rows" in request:
        return [{name: plain(value) for name, value in row.items()} for row in client.list_rows(client.get_table(request["rows"]))]
    if "schema" in request:
        return [column(field) for field in client.get_table(request["schema"]).schema]
    if "create_dataset" in request:
        return client.create_dataset(request["create_dataset"]).dataset_id
    if "create_table" in request:
        schema = [bigquery.SchemaField.from_api_repr(field) for field in request["fields"]]
        return client.create_table(bigquery.Table(request["create_table"], schema)).table_id
    if "delete_table" in request:
        return client.delete_table(request["delete_table"], not_found_ok=True)
    raise ValueError(f"unknown request {sorted(request)}")


def main():
    """Serves standard input until it ends."""
    clients = {}
    for line in sys.stdin:
        request = json.loads(line)
        project = request["project"]
        if project not in clients:
            clients[project] = (
                bigquery.Client(project, AnonymousCredentials(), client_options=ClientOptions(api_endpoint=sys.argv[1]))
                if len(sys.argv) > 1
                else bigquery.Client(project)
            )
        try:
            out = {"ok": answer(clients[project], request)}
        except (GoogleAPICallError, ValueError) as error:
            out = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(out), flush=True)


main()
