//! What makes a type a value written as text: serde and the schema go through its `FromStr`.

/// Gives a `FromStr` type its `Deserialize` and a `JsonSchema` of a string with `format`
/// `portolan:NAME`, by which the validator finds the parser again.
macro_rules! text_value {
    ($type:ty, $format:literal, $description:literal, $($example:literal),+) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                $format.into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "format": concat!("portolan:", $format),
                    "description": $description,
                    "examples": [$($example),+],
                })
            }
        }
    };
}

pub(crate) use text_value;
