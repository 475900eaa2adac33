//! serde over the tree: a scalar is the text written until a type asks for something else, and positions
//! are given to those that ask ([`Spanned`](crate::value::Spanned)).

use std::fmt;

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess,
    SeqAccess, VariantAccess, Visitor,
    value::{BorrowedStrDeserializer, U32Deserializer},
};

use super::tree::{Key, Kind, Node};
use crate::value::{ONE_OR_MANY, SPANNED, SPANNED_END, SPANNED_FILE, SPANNED_START, SPANNED_VALUE, Span};

/// The value that the tree stands for.
pub fn decode<T: DeserializeOwned>(tree: &Node) -> Result<T, Error> {
    T::deserialize(Tree::of(tree))
}

/// Why a tree could not be decoded, and where.
#[derive(Debug)]
pub struct Error {
    pub message: String,
    pub span: Option<Span>,
}

/// A node, or a key of a map, as serde reads it.
#[derive(Clone, Copy)]
struct Tree<'de> {
    span: Span,
    view: View<'de>,
    /// Whether a list is asked for and one value may stand for it.
    lone: bool,
}

#[derive(Clone, Copy)]
enum View<'de> {
    Nothing,
    Text(&'de str),
    List(&'de [Node]),
    Map(&'de [(Key, Node)]),
}

// === impl Error ===

impl Error {
    fn at(mut self, span: Span) -> Self {
        self.span.get_or_insert(span);
        self
    }
}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { message: message.to_string(), span: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

// === impl Tree ===

impl<'de> Tree<'de> {
    fn of(node: &'de Node) -> Self {
        let view = match &node.kind {
            Kind::Null => View::Nothing,
            Kind::Scalar(scalar) => View::Text(&scalar.text),
            Kind::List(items) => View::List(items),
            Kind::Map(entries) => View::Map(entries),
        };
        Self { span: node.span, view, lone: false }
    }

    fn key(key: &'de Key) -> Self {
        Self { span: key.span, view: View::Text(&key.text), lone: false }
    }

    fn text(self) -> Result<&'de str, Error> {
        match self.view {
            View::Text(text) => Ok(text),
            _ => Err(<Error as de::Error>::custom("expected a text").at(self.span)),
        }
    }

    fn parsed<T: std::str::FromStr>(self, what: &str) -> Result<T, Error> {
        self.text()?
            .parse()
            .map_err(|_| <Error as de::Error>::custom(format!("expected {what}")).at(self.span))
    }
}

macro_rules! parsed {
    ($($method:ident $visit:ident $what:literal,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(self.parsed($what)?).map_err(|error: Error| error.at(self.span))
        }
    )*};
}

impl<'de> Deserializer<'de> for Tree<'de> {
    type Error = Error;

    parsed! {
        deserialize_bool visit_bool "true or false",
        deserialize_i8 visit_i8 "a whole number",
        deserialize_i16 visit_i16 "a whole number",
        deserialize_i32 visit_i32 "a whole number",
        deserialize_i64 visit_i64 "a whole number",
        deserialize_u8 visit_u8 "a whole number",
        deserialize_u16 visit_u16 "a whole number",
        deserialize_u32 visit_u32 "a whole number",
        deserialize_u64 visit_u64 "a whole number",
        deserialize_f32 visit_f32 "a number",
        deserialize_f64 visit_f64 "a number",
        deserialize_char visit_char "a character",
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.view {
            View::Nothing => visitor.visit_unit(),
            View::Text(text) => visitor.visit_borrowed_str(text),
            View::List(items) => visitor.visit_seq(Items(items.iter())),
            View::Map(entries) => visitor.visit_map(Entries { left: entries.iter(), value: None }),
        }
        .map_err(|error: Error| error.at(self.span))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_str(self.text()?).map_err(|error: Error| error.at(self.span))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.view {
            View::Nothing => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        match (name, self.view) {
            (ONE_OR_MANY, View::Text(_) | View::Map(_)) => {
                visitor.visit_newtype_struct(Self { lone: true, ..self })
            }
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.view {
            _ if self.lone => visitor.visit_seq(One(Some(Self { lone: false, ..self }))),
            View::Nothing => Self { view: View::List(&[]), ..self }.deserialize_any(visitor),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.view {
            View::Nothing => Self { view: View::Map(&[]), ..self }.deserialize_any(visitor),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match name {
            SPANNED => visitor.visit_map(Position { tree: self, next: 0 }),
            _ => self.deserialize_map(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.view {
            View::Text(text) => visitor.visit_enum(BorrowedStrDeserializer::new(text)),
            View::Map([(key, value)]) => visitor.visit_enum(Variant { key, value }),
            _ => Err(de::Error::custom("expected a word, or a map with one key")),
        }
        .map_err(|error: Error| error.at(self.span))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! { bytes byte_buf unit unit_struct }
}

impl<'de> IntoDeserializer<'de, Error> for Tree<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// A lone value as a list of one.
struct One<'de>(Option<Tree<'de>>);

struct Items<'de>(std::slice::Iter<'de, Node>);

struct Entries<'de> {
    left: std::slice::Iter<'de, (Key, Node)>,
    value: Option<&'de Node>,
}

/// A value between the parts of its position.
struct Position<'de> {
    tree: Tree<'de>,
    next: usize,
}

struct Variant<'de> {
    key: &'de Key,
    value: &'de Node,
}

// === impl Items ===

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.0
            .next()
            .map(|node| seed.deserialize(Tree::of(node)).map_err(|error| error.at(node.span)))
            .transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

// === impl One ===

impl<'de> SeqAccess<'de> for One<'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.0.take().map(|tree| seed.deserialize(tree)).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(usize::from(self.0.is_some()))
    }
}

// === impl Entries ===

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((key, value)) = self.left.next() else { return Ok(None) };
        self.value = Some(value);
        seed.deserialize(Tree::key(key)).map(Some).map_err(|error| error.at(key.span))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let node = self.value.take().expect("serde asks for a key before its value");
        seed.deserialize(Tree::of(node)).map_err(|error| error.at(node.span))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left.len())
    }
}

// === impl Position ===

impl<'de> MapAccess<'de> for Position<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        const KEYS: [&str; 4] = [SPANNED_FILE, SPANNED_START, SPANNED_END, SPANNED_VALUE];
        let key = KEYS.get(self.next).map(|key| seed.deserialize(BorrowedStrDeserializer::new(key)));
        self.next += 1;
        key.transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Span { file, start, end } = self.tree.span;
        let number = |number: u32| -> U32Deserializer<Error> { number.into_deserializer() };
        match self.next {
            1 => seed.deserialize(number(file.0)),
            2 => seed.deserialize(number(start)),
            3 => seed.deserialize(number(end)),
            _ => seed.deserialize(self.tree),
        }
    }
}

// === impl Variant ===

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        Ok((seed.deserialize(Tree::key(self.key))?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Err(<Error as de::Error>::custom(format!("`{}` takes no value", self.key.text)).at(self.value.span))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(Tree::of(self.value))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        Tree::of(self.value).deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        Tree::of(self.value).deserialize_map(visitor)
    }
}
