"""Descriptors and rows for the Storage Write API, made at run time; requests and answers in short form."""
from google.cloud.bigquery_storage_v1 import types
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.rpc import status_pb2

F = descriptor_pb2.FieldDescriptorProto
TYPES = {
    "int64": F.TYPE_INT64, "int32": F.TYPE_INT32, "uint64": F.TYPE_UINT64, "uint32": F.TYPE_UINT32, "sint64": F.TYPE_SINT64,
    "fixed64": F.TYPE_FIXED64, "double": F.TYPE_DOUBLE, "float": F.TYPE_FLOAT, "bool": F.TYPE_BOOL, "string": F.TYPE_STRING, "bytes": F.TYPE_BYTES,
}


def descriptor(fields, name="Row"):
    """fields: [(name, type or [nested fields], 'repeated' or '')]; field numbers count from 1."""
    message = descriptor_pb2.DescriptorProto(name=name)
    for number, (field_name, kind, label) in enumerate(fields, 1):
        field = message.field.add(name=field_name, number=number, label=F.LABEL_REPEATED if label == "repeated" else F.LABEL_OPTIONAL)
        if isinstance(kind, list):
            nested = field_name.capitalize()
            field.type, field.type_name = F.TYPE_MESSAGE, nested
            message.nested_type.add().CopyFrom(descriptor(kind, nested))
        else:
            field.type = TYPES[kind]
    return message


def row_class(message):
    """A Python class for the rows of a descriptor."""
    pool = descriptor_pool.DescriptorPool()
    file = descriptor_pb2.FileDescriptorProto(name="row.proto", package="p")
    file.message_type.add().CopyFrom(message)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("p." + message.name))


def rows(message, *values):
    """Serialized rows of dicts."""
    cls = row_class(message)
    return [cls(**value).SerializeToString() for value in values]


def request(stream, message, serialized, offset=None, **more):
    """An AppendRowsRequest; stream and message may be None, as in later requests."""
    data = types.AppendRowsRequest.ProtoData(rows=types.ProtoRows(serialized_rows=serialized))
    if message is not None:
        data.writer_schema = types.ProtoSchema(proto_descriptor=message)
    result = types.AppendRowsRequest(proto_rows=data, **more)
    if stream is not None:
        result.write_stream = stream
    if offset is not None:
        result.offset = offset
    return result


def storage_code(details):
    """The StorageError code among the details of a google.rpc.Status, or 0."""
    for detail in details:
        if detail.type_url == "type.googleapis.com/google.cloud.bigquery.storage.v1.StorageError":
            return int(types.StorageError.deserialize(detail.value).code)
    return 0


def brief(response):
    """('ok', offset) or (gRPC code, StorageError code, message, [(row, message)])."""
    if response.error.code:
        errors = [(int(e.index), e.message) for e in response.row_errors]
        return (response.error.code, storage_code(response.error.details), response.error.message, errors)
    return ("ok", response.append_result.offset if "offset" in response.append_result else None)


def ended(error):
    """(gRPC code, StorageError code, message) of an RPC that ended with an error (google.api_core)."""
    call = error.errors[0] if error.errors else None
    code, details = error.grpc_status_code.value[0], []
    for key, value in (call.trailing_metadata() or ()) if call is not None else ():
        if key == "grpc-status-details-bin":
            details = status_pb2.Status.FromString(value).details
    return (code, storage_code(details), error.message)
