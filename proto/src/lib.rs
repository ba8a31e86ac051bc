//! The control service's gRPC types, client and server, generated from `feedhandler/control/v1/control.proto`.
//!
//! The messages serialize to JSON with the field names of the proto file; `feedctl --output json` prints them so.
#![forbid(unsafe_code)]

/// `feedhandler.control.v1`.
pub mod v1 {
    #![allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated code")]
    tonic::include_proto!("feedhandler.control.v1");
}

/// The encoded `FileDescriptorSet` of everything here, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

impl v1::ChannelState {
    /// The state in one lower-case word, as in metrics and tables.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Unknown => "unknown",
            Self::Backfill => "backfill",
            Self::Live => "live",
            Self::Gap => "gap",
            Self::Stale => "stale",
            Self::Ended => "ended",
        }
    }
}

/// A wire enum is a number; JSON readers want the word.
fn channel_state_word<S: serde::Serializer>(state: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(v1::ChannelState::try_from(*state).unwrap_or_default().word())
}

#[cfg(test)]
mod tests {
    use super::v1;

    #[test]
    fn messages_serialize_with_words_and_proto_names() {
        let status = v1::ChannelStatus { state: v1::ChannelState::Live.into(), next_sequence: 7, ..Default::default() };
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["state"], "live");
        assert_eq!(json["next_sequence"], 7);
        let unheard_of = v1::ChannelStatus { state: 99, ..Default::default() };
        assert_eq!(serde_json::to_value(&unheard_of).unwrap()["state"], "unspecified");
    }
}
