//! The writer's DescriptorProto: read with the `column_name` annotation (which `prost_types` drops), resolved, and held to the
//! rules of a self-contained proto2 message (write-api-grpc).

use std::collections::{HashMap, HashSet};

use prost::Message;

/// `google.protobuf.DescriptorProto`, as far as it matters here.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct DescriptorProto {
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    #[prost(message, repeated, tag = "2")]
    pub field: Vec<FieldProto>,
    #[prost(message, repeated, tag = "3")]
    pub nested_type: Vec<DescriptorProto>,
    #[prost(message, repeated, tag = "4")]
    pub enum_type: Vec<EnumProto>,
    #[prost(message, optional, tag = "7")]
    pub options: Option<MessageOptions>,
}

/// `google.protobuf.MessageOptions`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MessageOptions {
    #[prost(bool, optional, tag = "7")]
    pub map_entry: Option<bool>,
}

/// `google.protobuf.FieldDescriptorProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct FieldProto {
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    #[prost(int32, optional, tag = "3")]
    pub number: Option<i32>,
    #[prost(int32, optional, tag = "4")]
    pub label: Option<i32>,
    #[prost(int32, optional, tag = "5")]
    pub r#type: Option<i32>,
    #[prost(string, optional, tag = "6")]
    pub type_name: Option<String>,
    #[prost(string, optional, tag = "7")]
    pub default_value: Option<String>,
    #[prost(message, optional, tag = "8")]
    pub options: Option<FieldOptions>,
    #[prost(int32, optional, tag = "9")]
    pub oneof_index: Option<i32>,
    #[prost(bool, optional, tag = "17")]
    pub proto3_optional: Option<bool>,
}

/// `google.protobuf.FieldOptions` with BigQuery's extension (`annotations.proto`).
#[derive(Clone, PartialEq, Message)]
pub(crate) struct FieldOptions {
    #[prost(string, optional, tag = "454943157")]
    pub column_name: Option<String>,
}

/// `google.protobuf.EnumDescriptorProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct EnumProto {
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    #[prost(message, repeated, tag = "2")]
    pub value: Vec<EnumValueProto>,
}

/// `google.protobuf.EnumValueDescriptorProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct EnumValueProto {
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    #[prost(int32, optional, tag = "2")]
    pub number: Option<i32>,
}

/// `ProtoSchema`.
#[derive(Clone, PartialEq, Message)]
struct ProtoSchema {
    #[prost(message, optional, tag = "1")]
    proto_descriptor: Option<DescriptorProto>,
}

/// Numbers of `google.protobuf.FieldDescriptorProto.Type`.
pub(crate) mod proto_type {
    pub(crate) const DOUBLE: i32 = 1;
    pub(crate) const FLOAT: i32 = 2;
    pub(crate) const INT64: i32 = 3;
    pub(crate) const UINT64: i32 = 4;
    pub(crate) const INT32: i32 = 5;
    pub(crate) const BOOL: i32 = 8;
    pub(crate) const STRING: i32 = 9;
    pub(crate) const GROUP: i32 = 10;
    pub(crate) const MESSAGE: i32 = 11;
    pub(crate) const BYTES: i32 = 12;
    pub(crate) const UINT32: i32 = 13;
    pub(crate) const ENUM: i32 = 14;
}

pub(crate) const LABEL_REPEATED: i32 = 3;

/// What a field's type name means.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Named<'a> {
    Message(&'a DescriptorProto),
    Enum(&'a EnumProto),
}

/// A descriptor whose names are resolved.
#[derive(Debug)]
pub(crate) struct Descriptor {
    pub root: DescriptorProto,
}

/// All messages and enums by full name, from `.Root` on.
pub(crate) type Names<'a> = HashMap<String, Named<'a>>;

impl Descriptor {
    /// From a `ProtoSchema` in wire form. Errors are the service's words.
    pub(crate) fn parse(proto_schema: &[u8]) -> Result<Self, String> {
        let schema = ProtoSchema::decode(proto_schema).map_err(|e| format!("Invalid proto schema: {e}"))?;
        let root = schema.proto_descriptor.ok_or("Invalid proto schema: proto_descriptor is missing.")?;
        let descriptor = Self { root };
        let names = descriptor.names();
        check_message(&descriptor.root, &format!(".{}", descriptor.root.name()), &names)
            .map_err(|problem| format!("Invalid proto schema: BqMessage.proto: {problem}"))?;
        Ok(descriptor)
    }

    /// Every nested message and enum under its full name.
    pub(crate) fn names(&self) -> Names<'_> {
        let mut names = HashMap::new();
        collect(&self.root, String::new(), &mut names);
        names
    }
}

fn collect<'a>(message: &'a DescriptorProto, scope: String, names: &mut Names<'a>) {
    let full = format!("{scope}.{}", message.name());
    for inner in &message.enum_type {
        names.insert(format!("{full}.{}", inner.name()), Named::Enum(inner));
    }
    for inner in &message.nested_type {
        collect(inner, full.clone(), names);
    }
    names.insert(full, Named::Message(message));
}

/// protobuf's rule: a name with a leading dot is whole, others are sought from the innermost scope outwards. The full name and its meaning.
pub(crate) fn resolve<'n, 'a>(type_name: &str, scope: &str, names: &'n Names<'a>) -> Option<(&'n str, Named<'a>)> {
    if type_name.starts_with('.') {
        return names.get_key_value(type_name).map(|(k, v)| (k.as_str(), *v));
    }
    let mut scope = scope;
    loop {
        if let Some((k, v)) = names.get_key_value(&format!("{scope}.{type_name}")) {
            return Some((k.as_str(), *v));
        }
        scope = &scope[..scope.rfind('.')?];
    }
}

fn is_identifier(name: &str) -> bool {
    !name.is_empty() && !name.as_bytes()[0].is_ascii_digit() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn check_message(message: &DescriptorProto, full: &str, names: &Names<'_>) -> Result<(), String> {
    let shown = &full[1..];
    if !is_identifier(message.name()) {
        return Err(format!("{shown}: \"{}\" is not a valid identifier.", message.name()));
    }
    if message.options.as_ref().is_some_and(|options| options.map_entry()) {
        return Err(format!("{shown}: map_entry should not be set explicitly. Use map<KeyType, ValueType> instead."));
    }
    let (mut numbers, mut field_names) = (HashSet::new(), HashSet::new());
    for field in &message.field {
        let name = format!("{shown}.{}", field.name());
        if !is_identifier(field.name()) {
            return Err(format!("{name}: \"{}\" is not a valid identifier.", field.name()));
        }
        if !field_names.insert(field.name()) {
            return Err(format!("{name}: \"{}\" is already defined in \"{shown}\".", field.name()));
        }
        let number = field.number();
        if !(1..=536_870_911).contains(&number) || (19_000..=19_999).contains(&number) {
            return Err(format!("{name}: Field numbers must be positive integers, at most 536870911, not 19000 to 19999."));
        }
        if !numbers.insert(number) {
            return Err(format!("{name}: Field number {number} has already been used in \"{shown}\"."));
        }
        if field.proto3_optional() {
            return Err(format!("{name}: The [proto3_optional=true] option may only be set on proto3 fields, not {name}"));
        }
        if let Some(index) = field.oneof_index {
            return Err(format!("{name}: FieldDescriptorProto.oneof_index {index} is out of range for type \"{shown}\"."));
        }
        if !(1..=3).contains(&field.label()) {
            return Err(format!("{name}: Missing label."));
        }
        check_type(field, &name, full, names)?;
    }
    message.nested_type.iter().try_for_each(|inner| check_message(inner, &format!("{full}.{}", inner.name()), names))
}

fn check_type(field: &FieldProto, name: &str, scope: &str, names: &Names<'_>) -> Result<(), String> {
    let by_name = matches!(field.r#type(), 0 | proto_type::MESSAGE | proto_type::ENUM | proto_type::GROUP);
    match (by_name, field.type_name.as_deref()) {
        (true, Some(type_name)) => match (resolve(type_name, scope, names), field.r#type()) {
            (None, _) => Err(format!("{name}: \"{type_name}\" is not defined.")),
            (_, proto_type::GROUP) => Err(format!("{name}: groups are not supported.")),
            (Some((_, Named::Enum(_))), proto_type::MESSAGE) => Err(format!("{name}: \"{type_name}\" is not a message type.")),
            (Some((_, Named::Message(_))), proto_type::ENUM) => Err(format!("{name}: \"{type_name}\" is not an enum type.")),
            _ => Ok(()),
        },
        (true, None) => Err(format!("{name}: Field with message or enum type missing type_name.")),
        (false, Some(_)) => Err(format!("{name}: Field with primitive type has type_name.")),
        (false, None) if (1..=18).contains(&field.r#type()) => Ok(()),
        (false, None) => Err(format!("{name}: Field has an unknown type.")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn verdict(change: impl FnOnce(&mut DescriptorProto)) -> Result<(), String> {
        let field = |name: &str, number, kind| FieldProto {
            name: Some(name.to_owned()),
            number: Some(number),
            label: Some(1),
            r#type: Some(kind),
            ..Default::default()
        };
        let mut items = field("items", 2, proto_type::MESSAGE);
        items.type_name = Some("Items".to_owned());
        let nested =
            DescriptorProto { name: Some("Items".to_owned()), field: vec![field("sku", 1, proto_type::STRING)], ..Default::default() };
        let mut root = DescriptorProto {
            name: Some("Row".to_owned()),
            field: vec![field("id", 1, proto_type::INT64), items],
            nested_type: vec![nested],
            ..Default::default()
        };
        change(&mut root);
        Descriptor::parse(&ProtoSchema { proto_descriptor: Some(root) }.encode_to_vec()).map(drop)
    }

    #[test]
    fn what_is_refused() {
        assert_eq!(verdict(|_| {}), Ok(()));
        assert_eq!(verdict(|d| d.field[1].type_name = Some(".Row.Items".to_owned())), Ok(()));
        type Change = fn(&mut DescriptorProto);
        let bad: [(Change, &str); 9] = [
            (
                |d| d.field[1].type_name = Some(".p.Row.Items".to_owned()),
                "Invalid proto schema: BqMessage.proto: Row.items: \".p.Row.Items\" is not defined.",
            ),
            (|d| d.field[1].type_name = Some(".google.protobuf.Timestamp".to_owned()), "\".google.protobuf.Timestamp\" is not defined."),
            (|d| d.field[0].proto3_optional = Some(true), "proto3_optional"),
            (|d| d.field[0].oneof_index = Some(0), "oneof_index 0 is out of range"),
            (|d| d.field[0].number = Some(2), "already been used"),
            (|d| d.field[0].number = Some(19_000), "Field numbers"),
            (|d| d.field[0].name = Some("a b".to_owned()), "not a valid identifier"),
            (|d| d.field[0].name = Some("items".to_owned()), "already defined"),
            (|d| d.nested_type[0].options = Some(MessageOptions { map_entry: Some(true) }), "map_entry"),
        ];
        for (change, part) in bad {
            let problem = verdict(change).unwrap_err();
            assert!(problem.contains(part), "{problem}");
        }
    }
}
