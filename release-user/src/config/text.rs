//! Values that are written as text, and read back through the same checks.

/// Implements serde for a type with `Display` and `fn parse(&str) -> Result<Self, Invalid>`.
macro_rules! as_text {
    ($($name:ty),*) => { $(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(
                    deserializer,
                )?;
                <$name>::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    )* };
}
pub(super) use as_text;
