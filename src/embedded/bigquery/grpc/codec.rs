//! The AppendRows codec: the request is kept in wire form as far as possible, so that rows cost nothing to receive and the
//! descriptor's annotations survive.

use std::collections::HashMap;

use bytes::{Buf, Bytes};
use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1 as pb;
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

/// `AppendRowsRequest`, nested messages unread.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct AppendMessage {
    #[prost(string, tag = "1")]
    pub write_stream: String,
    #[prost(message, optional, tag = "2")]
    pub offset: Option<i64>,
    #[prost(message, optional, tag = "4")]
    pub proto_rows: Option<ProtoData>,
    #[prost(bytes = "bytes", optional, tag = "5")]
    pub arrow_rows: Option<Bytes>,
    #[prost(map = "string, int32", tag = "7")]
    pub missing_value_interpretations: HashMap<String, i32>,
    #[prost(int32, tag = "8")]
    pub default_missing_value_interpretation: i32,
}

/// `AppendRowsRequest.ProtoData`: a `ProtoSchema` and `ProtoRows` in wire form.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ProtoData {
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub writer_schema: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub rows: Option<Bytes>,
}

/// A request with the size of its whole message.
#[derive(Debug)]
pub(crate) struct SizedAppend {
    pub message: AppendMessage,
    pub size: usize,
}

/// Reads [`SizedAppend`], writes `AppendRowsResponse`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AppendCodec;

impl Codec for AppendCodec {
    type Encode = pb::AppendRowsResponse;
    type Decode = SizedAppend;
    type Encoder = ProstEncoder<pb::AppendRowsResponse>;
    type Decoder = AppendDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        AppendDecoder
    }
}

/// See [`AppendCodec`].
#[derive(Debug)]
pub(crate) struct AppendDecoder;

impl Decoder for AppendDecoder {
    type Item = SizedAppend;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<SizedAppend>, Status> {
        let size = source.remaining();
        let whole = source.copy_to_bytes(size);
        let message = AppendMessage::decode(whole).map_err(|e| Status::internal(format!("failed to decode the request: {e}")))?;
        Ok(Some(SizedAppend { message, size }))
    }
}
