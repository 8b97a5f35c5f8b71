//! The wire form of an AppendRows request around rows that are in wire form already.

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// Fields of `AppendRowsRequest` (storage.proto).
const WRITE_STREAM: u32 = 1;
const OFFSET: u32 = 2;
const PROTO_ROWS: u32 = 4;
const TRACE_ID: u32 = 6;
/// Fields of `AppendRowsRequest.ProtoData`.
const WRITER_SCHEMA: u32 = 1;
const ROWS: u32 = 2;
/// The field of `google.protobuf.Int64Value`.
const INT64_VALUE: u32 = 1;
/// The field of `ProtoSchema`.
const PROTO_DESCRIPTOR: u32 = 1;

/// What comes before the rows in a request.
pub(super) struct Head<'a> {
    /// The stream's name: in every request, since connections are shared by tables.
    pub(super) write_stream: &'a str,
    /// Where in the stream the first row must land; created streams only.
    pub(super) offset: Option<u64>,
    /// The rows' descriptor: in the first request and whenever the table or its layout changes.
    pub(super) descriptor: Option<&'a Bytes>,
    /// Who we are: counts in a connection's first request only.
    pub(super) trace_id: Option<&'a str>,
}

/// gRPC's frame head and all of the request up to the rows, whose bytes must follow directly.
pub(super) fn encode_head(head: &Head<'_>, rows_len: usize) -> Bytes {
    let schema_len = head.descriptor.map(|d| delimited_len(d.len()));
    let data_len = schema_len.map_or(0, delimited_len) + delimited_len(rows_len);
    // A zero is present, too: as an empty message.
    let offset_len = |offset: u64| if offset == 0 { 0 } else { 1 + encoded_len_varint(offset) };
    let message_len = delimited_len(head.write_stream.len())
        + head.offset.map_or(0, |offset| delimited_len(offset_len(offset)))
        + head.trace_id.map_or(0, |id| delimited_len(id.len()))
        + delimited_len(data_len);
    let mut out = BytesMut::with_capacity(5 + message_len - rows_len);
    // gRPC: not compressed, then the length. A request is at most 9 MiB, far below 4 GiB.
    out.put_u8(0);
    out.put_u32(u32::try_from(message_len).unwrap_or(u32::MAX));
    put_delimited(&mut out, WRITE_STREAM, head.write_stream.as_bytes());
    if let Some(offset) = head.offset {
        put_key(&mut out, OFFSET, offset_len(offset));
        if offset > 0 {
            encode_key(INT64_VALUE, WireType::Varint, &mut out);
            encode_varint(offset, &mut out);
        }
    }
    if let Some(trace_id) = head.trace_id {
        put_delimited(&mut out, TRACE_ID, trace_id.as_bytes());
    }
    put_key(&mut out, PROTO_ROWS, data_len);
    if let (Some(descriptor), Some(schema_len)) = (head.descriptor, schema_len) {
        put_key(&mut out, WRITER_SCHEMA, schema_len);
        put_delimited(&mut out, PROTO_DESCRIPTOR, descriptor);
    }
    put_key(&mut out, ROWS, rows_len);
    out.freeze()
}

/// The length of a length-delimited field with a number below 16.
fn delimited_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

fn put_key(out: &mut BytesMut, field: u32, len: usize) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
}

fn put_delimited(out: &mut BytesMut, field: u32, bytes: &[u8]) {
    put_key(out, field, bytes.len());
    out.put_slice(bytes);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1 as storage;
    use prost::Message;
    use storage::append_rows_request::Rows;

    use super::*;

    fn decode(head: Bytes, rows: &[u8]) -> storage::AppendRowsRequest {
        let mut bytes = head.to_vec();
        bytes.extend_from_slice(rows);
        assert_eq!(bytes[0], 0);
        assert_eq!(u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize, bytes.len() - 5);
        storage::AppendRowsRequest::decode(&bytes[5..]).unwrap()
    }

    #[test]
    fn a_request_is_what_prost_reads() {
        let descriptor: Bytes = prost_types::DescriptorProto { name: Some("Row".into()), ..Default::default() }.encode_to_vec().into();
        let mut rows = Vec::new();
        for row in [vec![1_u8; 3], vec![2; 300], vec![]] {
            put_varint(&mut rows, &row);
        }
        let full = Head { write_stream: "projects/p/_default", offset: None, descriptor: Some(&descriptor), trace_id: Some("millrace:1") };
        let request = decode(encode_head(&full, rows.len()), &rows);
        assert_eq!((request.write_stream.as_str(), request.trace_id.as_str()), ("projects/p/_default", "millrace:1"));
        let Some(Rows::ProtoRows(data)) = request.rows else { panic!("no rows") };
        assert_eq!(data.writer_schema.unwrap().proto_descriptor.unwrap().name(), "Row");
        let lengths: Vec<usize> = data.rows.unwrap().serialized_rows.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [3, 300, 0]);

        for offset in [0, 1, 127, 128, 70_000_000_000] {
            let placed = Head { write_stream: "s", offset: Some(offset), descriptor: None, trace_id: None };
            let request = decode(encode_head(&placed, rows.len()), &rows);
            assert_eq!(request.offset, Some(i64::try_from(offset).unwrap()));
        }
        let short = Head { write_stream: "s", offset: None, descriptor: None, trace_id: None };
        let request = decode(encode_head(&short, rows.len()), &rows);
        assert_eq!(request.offset, None);
        let Some(Rows::ProtoRows(data)) = request.rows else { panic!("no rows") };
        assert!(data.writer_schema.is_none() && request.trace_id.is_empty());
        assert_eq!(data.rows.unwrap().serialized_rows.len(), 3);
    }

    fn put_varint(rows: &mut Vec<u8>, row: &[u8]) {
        rows.push(0x0A);
        encode_varint(row.len() as u64, rows);
        rows.extend_from_slice(row);
    }
}
