"""Google's own clients against the embedded BigQuery: what must work, and what must be refused.

MILLRACE_REST_URL and MILLRACE_GRPC_URL name it (`millrace embedded` prints them). Exit code 1 when a check fails.
"""
import datetime as dt
import decimal
import gzip
import json
import os
import sys
import traceback
import urllib.error
import urllib.request
import uuid

import grpc
from google.api_core import exceptions
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from google.cloud.bigquery import SchemaField as S
from google.cloud.bigquery_storage_v1 import BigQueryWriteClient, types
from google.cloud.bigquery_storage_v1.services.big_query_write.transports import BigQueryWriteGrpcTransport

from proto_rows import brief, descriptor, ended, request, rows

REST, GRPC = os.environ["MILLRACE_REST_URL"], os.environ["MILLRACE_GRPC_URL"].removeprefix("http://")
PROJECT, DATASET = "test-project", "d" + uuid.uuid4().hex[:8]
bq = bigquery.Client(PROJECT, AnonymousCredentials(), client_options=ClientOptions(api_endpoint=REST))
LARGE = [("grpc.max_send_message_length", 32 << 20)]
writer = BigQueryWriteClient(transport=BigQueryWriteGrpcTransport(channel=grpc.insecure_channel(GRPC, options=LARGE)))
WriteStream = types.WriteStream
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def table(name, fields, **properties):
    made = bigquery.Table(f"{PROJECT}.{DATASET}.{name}", fields)
    for key, value in properties.items():
        setattr(made, key, value)
    return bq.create_table(made)


def path(name):
    return f"projects/{PROJECT}/datasets/{DATASET}/tables/{name}"


def default(name):
    return path(name) + "/streams/_default"


def append(*requests):
    return [brief(r) for r in writer.append_rows(iter(requests), retry=None, timeout=60)]


def append_ends(*requests):
    """The error that ends the RPC."""
    try:
        answers = append(*requests)
    except exceptions.GoogleAPICallError as error:
        return ended(error)
    raise AssertionError(f"the RPC did not end with an error: {answers}")


def refused(call, code, part):
    try:
        call()
    except exceptions.GoogleAPICallError as error:
        assert error.code == code and part in error.message, (error.code, error.message)
        return
    raise AssertionError(f"not refused: {part}")


def sql(text):
    return [tuple(r.values()) for r in bq.query_and_wait(text, retry=None)]


def count(name):
    return sql(f"SELECT COUNT(*) FROM `{PROJECT}.{DATASET}.{name}`")[0][0]


SIMPLE = [S("id", "INTEGER", "REQUIRED"), S("name", "STRING")]
ROW = descriptor([("id", "int64", ""), ("name", "string", "")])


@check
def datasets_and_tables():
    assert DATASET in [d.dataset_id for d in bq.list_datasets()]
    made = table("meta", [S("id", "INT64", description="the id"), S("ts", "TIMESTAMP"), S("r", "RECORD", fields=[S("x", "FLOAT64")])],
                 time_partitioning=bigquery.TimePartitioning(field="ts"), clustering_fields=["id"], labels={"a": "b"}, description="d")
    got = bq.get_table(made.reference)
    assert [f.field_type for f in got.schema] == ["INTEGER", "TIMESTAMP", "RECORD"], got.schema
    assert (got.time_partitioning.field, got.clustering_fields, got.labels, got.description) == ("ts", ["id"], {"a": "b"}, "d")
    assert got.schema[0].description == "the id" and got.etag and got.num_rows == 0
    assert "meta" in [t.table_id for t in bq.list_tables(DATASET)]
    refused(lambda: table("meta", SIMPLE), 409, "Already Exists: Table")
    refused(lambda: bq.get_table(f"{PROJECT}.{DATASET}.nosuch"), 404, "Not found: Table")
    refused(lambda: bq.create_table(bigquery.Table(f"{PROJECT}.nosuch.t", SIMPLE)), 404, "Not found: Dataset")


@check
def tables_that_are_refused():
    cases = [
        ([S("a", "INT64"), S("A", "INT64")], {}, "Duplicate"),
        ([S("a b!", "INT64")], {}, "Invalid field name"),
        ([S("_TABLE_x", "INT64")], {}, "_TABLE_"),
        ([S("n", "NUMERIC", precision=40)], {}, "precision"),
        ([S("ts", "STRING")], {"time_partitioning": bigquery.TimePartitioning(field="ts")}, "partitioning"),
        ([S("f", "FLOAT64")], {"clustering_fields": ["f"]}, "Clustering"),
    ]
    for i, (fields, properties, part) in enumerate(cases):
        refused(lambda: table(f"refused{i}", fields, **properties), 400, part)


@check
def patch_rules():
    made = table("patched", SIMPLE)
    raw = made.to_api_repr()
    raw["schema"]["fields"][1]["policyTags"] = {"names": ["projects/p/locations/us/taxonomies/1/policyTags/2"]}
    change = lambda fields, etag=None: bq._connection.api_request(
        "PATCH", "/" + path("patched"), data={"schema": {"fields": fields}}, headers={"If-Match": etag} if etag else None)
    fields = raw["schema"]["fields"]
    after = change([*fields, {"name": "extra", "type": "STRING"}], made.etag)
    assert [f["name"] for f in after["schema"]["fields"]] == ["id", "name", "extra"]
    assert after["schema"]["fields"][1]["policyTags"]["names"], "unknown properties survive"
    refused(lambda: change(fields, made.etag), 412, "Precondition")
    refused(lambda: change(fields), 400, "Field extra is missing in new schema")
    grown = after["schema"]["fields"]
    refused(lambda: change([*grown, {"name": "must", "type": "STRING", "mode": "REQUIRED"}]), 400, "Cannot add required fields")
    refused(lambda: change(grown), 403, "too many table update operations")


@check
def insert_all():
    t = table("inserted", [*SIMPLE, S("amount", "NUMERIC"), S("tags", "STRING", "REPEATED"), S("r", "RECORD", fields=[S("x", "INTEGER")])]).reference
    good = {"id": 1, "name": "a", "amount": "1.25", "tags": ["x", "y"], "r": {"x": 5}}
    assert bq.insert_rows_json(t, [good, {"id": 2}], row_ids=["r1", "r2"]) == []
    assert bq.insert_rows_json(t, [good], row_ids=["r1"]) == []
    assert count("inserted") == 2, "insertId"
    errors = bq.insert_rows_json(t, [{"id": 3}, {"id": "zzz"}, {"id": 4, "nosuch": 1}], row_ids=[None] * 3)
    assert [(e["index"], e["errors"][0]["reason"]) for e in errors] == [(0, "stopped"), (1, "invalid"), (2, "invalid")], errors
    assert errors[2]["errors"][0]["message"] == "no such field: nosuch."
    assert count("inserted") == 2
    errors = bq.insert_rows_json(t, [{"id": 3}, {"id": "zzz"}, {"name": "x"}], row_ids=[None] * 3, skip_invalid_rows=True)
    assert [e["index"] for e in errors] == [1, 2] and count("inserted") == 3
    assert bq.insert_rows_json(t, [{"id": 4, "nosuch": 1}], row_ids=[None], ignore_unknown_values=True) == []
    got = [tuple(r.values()) for r in bq.list_rows(t, max_results=1)]
    assert got == [(1, "a", decimal.Decimal("1.25"), ["x", "y"], {"x": 5})], got
    body = gzip.compress(json.dumps({"rows": [{"json": {"id": 9}}]}).encode())
    url = f"{REST}/bigquery/v2/{path('inserted')}/insertAll"
    call = urllib.request.Request(url, body, {"Content-Type": "application/json", "Content-Encoding": "gzip"})
    assert "insertErrors" not in json.load(urllib.request.urlopen(call)) and count("inserted") == 5
    try:
        urllib.request.urlopen(urllib.request.Request(url, b'{"rows": [' + b" " * (10 << 20) + b"]}"))
        raise AssertionError("a request above 10 MiB was taken")
    except urllib.error.HTTPError as error:
        assert error.code == 413 and json.load(error)["error"]["errors"][0]["reason"] == "requestTooLarge"


@check
def queries():
    t = table("queried", [S("id", "INTEGER"), S("at", "TIMESTAMP"), S("x", "FLOAT"), S("r", "RECORD", fields=[S("y", "INTEGER")])]).reference
    day = dt.datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=dt.timezone.utc)
    assert bq.insert_rows_json(t, [{"id": i, "at": day.isoformat(), "x": i / 2, "r": {"y": i * i}} for i in range(25)], row_ids=[None] * 25) == []
    name = f"`{PROJECT}.{DATASET}.queried`"
    assert sql(f"SELECT id, at, x, r FROM {name} WHERE id = 3") == [(3, day, 1.5, {"y": 9})]
    assert sql(f"SELECT id FROM {name} WHERE r.y > 400 AND NOT id IN (22) ORDER BY id DESC LIMIT 2") == [(24,), (23,)]
    assert sql(f"SELECT COUNT(*) AS n, MIN(id), MAX(x), SUM(id) FROM {name} WHERE at >= TIMESTAMP '2026-01-01'") == [(25, 0, 12.0, 300)]
    assert sql(f"SELECT COUNT(*) FROM {DATASET}.queried WHERE at = '2026-01-02T03:04:05.000600Z' AND id BETWEEN 5 AND 6") == [(2,)]
    assert len(list(bq.query(f"SELECT * FROM {name}").result(page_size=10))) == len(list(bq.list_rows(t, page_size=7))) == 25
    refused(lambda: sql(f"SELECT nosuch FROM {name}"), 400, "Unrecognized name: nosuch")
    refused(lambda: sql(f"SELECT id, COUNT(*) FROM {name} GROUP BY id"), 400, "GROUP BY is not supported")
    refused(lambda: bq.load_table_from_uri("gs://bucket/file.avro", t), 501, "not by load")
    refused(lambda: sql(f"DELETE FROM {name} WHERE id = 1"), 400, "not supported")


ALL = [S("b", "BOOLEAN"), S("i", "INTEGER"), S("f", "FLOAT"), S("n", "NUMERIC"), S("bn", "BIGNUMERIC"), S("s", "STRING"), S("y", "BYTES"), S("d", "DATE"),
       S("t", "TIME"), S("dtm", "DATETIME"), S("ts", "TIMESTAMP"), S("j", "JSON"), S("g", "GEOGRAPHY"), S("l", "INTEGER", "REPEATED"),
       S("r", "RECORD", fields=[S("x", "STRING")])]


@check
def every_type_by_append():
    table("types", ALL)
    message = descriptor([("b", "bool", ""), ("i", "int64", ""), ("f", "double", ""), ("n", "bytes", ""), ("bn", "string", ""), ("s", "string", ""),
                          ("y", "bytes", ""), ("d", "int32", ""), ("t", "int64", ""), ("dtm", "int64", ""), ("ts", "int64", ""), ("j", "string", ""),
                          ("g", "string", ""), ("l", "int64", "repeated"), ("r", [("x", "string", "")], "")])
    packed_time = (12 << 32) | (34 << 26) | (56 << 20) | 789
    value = dict(b=True, i=-5, f=1.5, n=(1_250_000_000).to_bytes(4, "little"), bn="-2.5", s="häh", y=b"\x00\xff", d=19_000, t=packed_time,
                 dtm=(2024 << 46) | (2 << 42) | (29 << 37) | packed_time, ts=1_700_000_000_000_001, j='{"a":[1]}', g="POINT(1 2)", l=[1, 2, 3], r={"x": "in"})
    assert append(request(default("types"), message, rows(message, value, {}))) == [("ok", None)]
    first, second = [tuple(r.values()) for r in bq.list_rows(f"{PROJECT}.{DATASET}.types")]
    time = dt.time(12, 34, 56, 789)
    expected = (True, -5, 1.5, decimal.Decimal("1.25"), decimal.Decimal("-2.5"), "häh", b"\x00\xff", dt.date(1970, 1, 1) + dt.timedelta(19_000), time,
                dt.datetime.combine(dt.date(2024, 2, 29), time), dt.datetime(2023, 11, 14, 22, 13, 20, 1, tzinfo=dt.timezone.utc), {"a": [1]},
                "POINT(1 2)", [1, 2, 3], {"x": "in"})
    assert first == expected, first
    assert second == (None,) * 13 + ([], None), second


@check
def values_that_are_refused():
    table("values", [S("id", "INTEGER", "REQUIRED"), S("s", "STRING", max_length=3), S("n", "NUMERIC"), S("d", "DATE"), S("t", "TIME"), S("ts", "TIMESTAMP"),
                     S("j", "JSON")])
    message = descriptor([("id", "int64", ""), ("s", "string", ""), ("n", "string", ""), ("d", "int32", ""), ("t", "int64", ""), ("ts", "int64", ""),
                          ("j", "string", "")])
    cases = [({}, "Required field id"), ({"id": 1, "s": "long!"}, "STRING(3) has maximum length 3 but got a value with length 5"), ({"id": 1, "n": "abc"}, "NUMERIC"),
             ({"id": 1, "n": "1e29"}, "NUMERIC"), ({"id": 1, "d": 2_932_897}, "DATE"), ({"id": 1, "t": 24 << 32}, "TIME"),
             ({"id": 1, "ts": 253_402_300_800_000_000}, "Timestamp field value is out of range: 253402300800000000 on field ts."), ({"id": 1, "j": "{"}, "JSON")]
    for value, part in cases:
        ((code, storage, text, errors),) = append(request(default("values"), message, rows(message, {"id": 0}, value)))
        assert (code, storage) == (3, 0) and "Errors found while processing rows" in text, text
        assert len(errors) == 1 and errors[0][0] == 1 and part in errors[0][1], (part, errors)
    ((code, _, _, errors),) = append(request(default("values"), message, [b"\xff\xff\xff"]))
    assert code == 3 and errors[0][0] == 0, "bytes that are no message"
    assert count("values") == 0, "nothing of a request with a bad row is stored"


@check
def descriptors_that_are_refused():
    table("described", SIMPLE)
    stream = default("described")
    extra = descriptor([("id", "int64", ""), ("nosuch", "string", "")])
    ((code, storage, text, _),) = append(request(stream, extra, rows(extra, {"id": 1})))
    assert (code, storage) == (3, 7) and "extra fields: 'nosuch'" in text, (code, storage, text)
    for fields, part in [([("id", "string", "")], "incompatible fields: 'id'"), ([("id", "int64", "repeated")], "incompatible fields: 'id'"),
                         ([("name", "string", "")], "missing in the proto message"), ([("id", "sint64", "")], "incompatible"), ([("id", "uint64", "")], "incompatible")]:
        message = descriptor(fields)
        ((code, storage, text, _),) = append(request(stream, message, [b"\x08\x01"]))
        assert (code, storage) == (3, 0) and part in text, (part, text)
    foreign = descriptor([("id", "int64", ""), ("name", [("x", "string", "")], "")])
    foreign.field[1].type_name = ".other.Type"
    code, _, text = append_ends(request(stream, foreign, [b"\x08\x01"]))
    assert code == 3 and '".other.Type" is not defined.' in text, text
    optional = descriptor([("id", "int64", ""), ("name", "string", "")])
    optional.field[1].proto3_optional = True
    assert append_ends(request(stream, optional, [b"\x08\x01"]))[0] == 3
    upper = descriptor([("ID", "int64", ""), ("Name", "string", "")])
    assert append(request(stream, upper, rows(upper, {"ID": 1}))) == [("ok", None)], "names ignore case"


@check
def connection_rules():
    table("a1", SIMPLE), table("a2", SIMPLE)
    one, two = default("a1"), default("a2")
    r = lambda n: rows(ROW, {"id": n})
    assert append(request(one, ROW, r(1)), request(None, None, r(2)), request(one, None, r(3))) == [("ok", None)] * 3
    assert append(request(one, ROW, r(4)), request(two, ROW, r(1)), request(one, ROW, r(5))) == [("ok", None)] * 3
    assert count("a1") == 5 and count("a2") == 1
    for requests, part in [((request(None, ROW, r(1)),), "write_stream"), ((request(one, None, r(1)),), "writer_schema"), ((request(one, ROW, []),), "Rows"),
                           ((request(one, ROW, r(1)), request(two, None, r(1))), "writer_schema"),
                           ((request(one, ROW, r(1)), request(two, ROW, r(1)), request(None, None, r(1))), "write_stream")]:
        code, _, text = append_ends(*requests)
        assert code == 3 and part in text, text
    ((code, _, text, _),) = append(request(one, ROW, r(1), offset=0))
    assert code == 3 and "ffset" in text, "no offsets on the default stream"
    code, storage, _ = append_ends(request(default("nosuch"), ROW, r(1)))
    assert (code, storage) == (5, 1), "TABLE_NOT_FOUND"
    big = rows(ROW, {"id": 1, "name": "x" * (10_485_760 - 200)})
    assert append(request(one, ROW, big)) == [("ok", None)]
    code, _, text = append_ends(request(one, ROW, rows(ROW, {"id": 1, "name": "x" * 10_485_760})))
    assert code == 3 and "AppendRows request too large" in text and "limit 10485760" in text, text


@check
def committed_stream():
    table("committed", SIMPLE)
    stream = writer.create_write_stream(parent=path("committed"), write_stream=WriteStream(type_=WriteStream.Type.COMMITTED)).name
    r = lambda *ids: rows(ROW, *({"id": i} for i in ids))
    answers = append(request(stream, ROW, r(0, 1), offset=0), request(None, None, r(0, 1), offset=0), request(None, None, r(9), offset=7), request(None, None, r(2), offset=2))
    assert answers[0] == ("ok", 0) and answers[3] == ("ok", 2), answers
    assert answers[1][:2] == (6, 8) and "The offset is within stream, expected offset 2, received 0" in answers[1][2], answers[1]
    assert answers[2][:2] == (11, 9) and "The offset is beyond stream, expected offset 2, received 7" in answers[2][2], answers[2]
    assert count("committed") == 3
    assert writer.get_write_stream(name=stream).type_ == WriteStream.Type.COMMITTED
    assert writer.finalize_write_stream(name=stream).row_count == 3
    ((code, storage, text, _),) = append(request(stream, ROW, r(3)))
    assert (code, storage) == (3, 6) and "Stream has been finalized" in text
    failed = writer.batch_commit_write_streams(types.BatchCommitWriteStreamsRequest(parent=path("committed"), write_streams=[stream]))
    assert not failed.commit_time and int(failed.stream_errors[0].code) == 4, "INVALID_STREAM_TYPE"
    other = default("committed")
    code, _, text = append_ends(request(other, ROW, r(5)), request(stream, ROW, r(6)))
    assert code == 3 and "default streams only" in text, text
    assert append_ends(request(path("committed") + "/streams/nosuch", ROW, r(1)))[:2] == (5, 3), "STREAM_NOT_FOUND"
    full = writer.get_write_stream(types.GetWriteStreamRequest(name=other, view=types.WriteStreamView.FULL))
    assert [f.name for f in full.table_schema.fields] == ["id", "name"]
    for call in (lambda: writer.finalize_write_stream(name=other), lambda: writer.flush_rows(write_stream=other)):
        refused(call, 400, "not supported on the default stream")


@check
def pending_and_buffered_streams():
    table("pending", SIMPLE)
    r = lambda *ids: rows(ROW, *({"id": i} for i in ids))
    make = lambda kind: writer.create_write_stream(parent=path("pending"), write_stream=WriteStream(type_=kind)).name
    commit = lambda *names: writer.batch_commit_write_streams(types.BatchCommitWriteStreamsRequest(parent=path("pending"), write_streams=list(names)))
    one, two = make(WriteStream.Type.PENDING), make(WriteStream.Type.PENDING)
    assert append(request(one, ROW, r(0, 1), offset=0)) == [("ok", 0)] and append(request(two, ROW, r(2))) == [("ok", 0)]
    assert count("pending") == 0
    assert int(commit(one).stream_errors[0].code) == 5, "INVALID_STREAM_STATE: not finalized"
    writer.finalize_write_stream(name=one)
    assert not commit(one, two).commit_time and count("pending") == 0, "atomic"
    writer.finalize_write_stream(name=two)
    assert commit(one, two).commit_time and count("pending") == 3
    assert int(commit(one).stream_errors[0].code) == 2, "STREAM_ALREADY_COMMITTED"
    buffered = make(WriteStream.Type.BUFFERED)
    assert append(request(buffered, ROW, r(10, 11, 12), offset=0)) == [("ok", 0)] and count("pending") == 3
    assert writer.flush_rows(types.FlushRowsRequest(write_stream=buffered, offset=1)).offset == 1
    assert count("pending") == 5
    refused(lambda: writer.flush_rows(types.FlushRowsRequest(write_stream=buffered, offset=3)), 400, "beyond the end")
    assert writer.flush_rows(types.FlushRowsRequest(write_stream=buffered, offset=2)).offset == 2 and count("pending") == 6


@check
def defaults_and_change_types():
    table("defaults", [S("id", "INTEGER", "REQUIRED"), S("name", "STRING", default_value_expression="'none'"), S("at", "TIMESTAMP", default_value_expression="CURRENT_TIMESTAMP()")])
    stream, ids = default("defaults"), descriptor([("id", "int64", "")])
    by_map = {"name": types.AppendRowsRequest.MissingValueInterpretation.DEFAULT_VALUE}
    assert append(request(stream, ids, rows(ids, {"id": 1}))) == [("ok", None)]
    assert append(request(stream, ROW, rows(ROW, {"id": 2}))) == [("ok", None)]
    assert append(request(stream, ROW, rows(ROW, {"id": 3}), missing_value_interpretations=by_map)) == [("ok", None)]
    got = sql(f"SELECT id, name FROM {DATASET}.defaults WHERE at IS NOT NULL ORDER BY id")
    assert got == [(1, "none"), (2, None), (3, "none")], got
    change = descriptor([("id", "int64", ""), ("_CHANGE_TYPE", "string", "")])
    ((code, storage, _, _),) = append(request(stream, change, rows(change, {"id": 1, "_CHANGE_TYPE": "UPSERT"})))
    assert (code, storage) == (3, 7), "no primary key: an extra field"


@check
def partition_bounds():
    table("bounded", [S("id", "INTEGER"), S("day", "DATE")], time_partitioning=bigquery.TimePartitioning(field="day"))
    message = descriptor([("id", "int64", ""), ("day", "int32", "")])
    today = (dt.datetime.now(dt.timezone.utc).date() - dt.date(1970, 1, 1)).days
    assert append(request(default("bounded"), message, rows(message, {"day": today}, {"day": today - 3649}, {"day": today + 364}, {}))) == [("ok", None)]
    for day in (today - 3660, today + 370):
        ((code, _, _, errors),) = append(request(default("bounded"), message, rows(message, {"day": day})))
        assert code == 3 and "outside the allowed bounds" in errors[0][1], errors


@check
def a_new_column_in_mid_stream():
    made = table("evolved", SIMPLE)
    def requests():
        yield request(default("evolved"), ROW, rows(ROW, {"id": 1}))
        made.schema = [*made.schema, S("extra", "STRING")]
        bq.update_table(made, ["schema"])
        yield request(None, None, rows(ROW, {"id": 2}))
    answers = list(writer.append_rows(requests(), timeout=60))
    assert [brief(a)[0] for a in answers] == ["ok", "ok"]
    assert [f.name for f in answers[1].updated_schema.fields] == ["id", "name", "extra"] and not answers[0].updated_schema.fields
    wider = descriptor([("id", "int64", ""), ("extra", "string", "")])
    assert append(request(default("evolved"), wider, rows(wider, {"id": 3, "extra": "e"}))) == [("ok", None)]
    assert sql(f"SELECT id, extra FROM {DATASET}.evolved ORDER BY id") == [(1, None), (2, None), (3, "e")]


def control(method, what, body=None):
    call = urllib.request.Request(f"{REST}/_control/{what}", None if body is None else json.dumps(body).encode(), method=method)
    return urllib.request.urlopen(call).read().decode()


@check
def faults_and_books():
    table("faulty", SIMPLE)
    control("POST", "faults", {"class": "lost_ack", "table": f"{DATASET}.faulty"})
    assert append_ends(request(default("faulty"), ROW, rows(ROW, {"id": 1}, {"id": 2})))[0] == 14
    assert count("faulty") == 2, "stored although the answer was lost"
    control("POST", "faults", {"class": "kms_service_error", "table": f"{DATASET}.faulty"})
    ((code, storage, _, _),) = append(request(default("faulty"), ROW, rows(ROW, {"id": 3})))
    assert (code, storage) == (14, 13) and count("faulty") == 2
    control("POST", "faults", {"class": "rest_quota_exceeded", "table": f"{DATASET}.faulty"})
    refused(lambda: bq.get_table(f"{PROJECT}.{DATASET}.faulty", retry=None), 403, "Quota exceeded")
    fired = json.loads(control("GET", "faults"))["fired"]
    assert fired["lost_ack"] >= 1 and fired["kms_service_error"] >= 1
    lines = control("GET", f"rows?table={PROJECT}.{DATASET}.faulty&columns=id,name").splitlines()
    assert [json.loads(line) for line in lines] == [[1, None], [2, None]]
    books = {b["table"]: b["rows"] for b in json.loads(control("GET", "books"))["tables"] if b["dataset"] == DATASET}
    assert books["faulty"] == 2


def main():
    bq.create_dataset(DATASET)
    failed = 0
    for function in CHECKS:
        try:
            function()
            print(f"ok      {function.__name__}", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED  {function.__name__}\n{traceback.format_exc()}", flush=True)
    print(f"{len(CHECKS) - failed} of {len(CHECKS)} checks passed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
