//! Row buffers: the wire form of `ProtoRows`, origins, and what a failed record leaves behind.

use super::*;

#[test]
fn rows_of_all_lengths_come_back_as_they_were() {
    let schema = field_schema(r#""string""#);
    let (plan, layout) = own_plan(&schema, &options("")).unwrap();
    let mut buffer = RowBuffer::new(layout.clone());
    let (mut expected, mut sizes) = (Vec::new(), 0);
    for len in [0usize, 3, 124, 125, 126, 127, 128, 16_379, 16_380, 16_381, 5, 70_000, 0] {
        let payload = bytes("x".repeat(len));
        sizes += buffer.push(&plan, &payload, &record(), NOW_US, RowOrigin { slot: 9, offset: len as i64 }).unwrap();
        let bad = buffer.push(&plan, &payload[..payload.len() - 1], &record(), NOW_US, RowOrigin { slot: 0, offset: 0 });
        assert!(bad.is_err() && buffer.len_bytes() == sizes, "a bad record leaves nothing");
        let mut alone = Vec::new();
        plan.decode(&payload, &record(), NOW_US, &mut alone).unwrap();
        expected.push(alone);
    }
    assert_eq!(buffer.len_rows(), expected.len());
    let next = buffer.take(layout.clone());
    assert!(buffer.is_empty() && buffer.len_bytes() == 0);
    assert_eq!(next.rows.len(), sizes);
    let proto: Vec<Vec<u8>> = split_rows(&next.rows).map(|r| next.rows[r].to_vec()).collect();
    assert_eq!(proto, expected);
    assert_eq!(next.origins.get(2), Some(RowOrigin { slot: 9, offset: 124 }));
    assert_eq!(next.origins.iter().len(), expected.len());
    let odd = filter_rows(&next.rows, |i| i % 2 == 1);
    let kept: Vec<Vec<u8>> = split_rows(&odd).map(|r| odd[r].to_vec()).collect();
    assert_eq!(kept, expected.iter().skip(1).step_by(2).cloned().collect::<Vec<_>>());
}

#[test]
fn malformed_rows_end_the_splitting() {
    for bad in [&[0x0a_u8, 5, 1][..], &[0x0a], &[9, 1, 1], &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]] {
        assert_eq!(split_rows(bad).count(), 0);
    }
}

#[test]
fn texts_of_every_length_come_whole_whatever_record_was_before() {
    let schema = field_schema(r#""string""#);
    let (plan, layout) = own_plan(&schema, &options("")).unwrap();
    let mut buffer = RowBuffer::new(layout);
    let text = |len: usize| (0..len).map(|i| char::from(b'a' + (i * 7 % 26) as u8)).collect::<String>();
    // Up and down: what a longer record left behind is not read as a shorter one's.
    let lengths: Vec<usize> = (0..300).chain((0..300).rev()).chain([4095, 4096, 4097, 31, 5000]).collect();
    for len in &lengths {
        buffer.push(&plan, &bytes(text(*len)), &record(), NOW_US, RowOrigin { slot: 0, offset: 0 }).unwrap();
    }
    let rows = buffer.close().rows;
    for (range, len) in split_rows(&rows).zip(&lengths) {
        let mut expected = Vec::new();
        prost::encoding::string::encode(1, &text(*len), &mut expected);
        assert_eq!(rows[range], expected, "{len}");
    }
    assert_eq!(split_rows(&rows).count(), lengths.len());
}
