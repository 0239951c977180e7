//! The versions of the CNI specification that are spoken.

/// A version of the specification, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SpecVersion {
    /// The first with result lists (`interfaces`, `ips`) and chaining.
    V0_3_1,
    /// Adds `CHECK`, and `prevResult` on `DEL`.
    V0_4_0,
    /// Drops `version` from `ips`.
    V1_0_0,
    /// Adds `GC`, `STATUS`, and `mtu` in `interfaces`.
    V1_1_0,
}

impl SpecVersion {
    pub(crate) const ALL: [Self; 4] = [Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// What an error says it is written in when the runtime's own version is not known.
    pub(crate) const LATEST: Self = Self::V1_1_0;

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|version| version.as_str() == text)
    }

    /// All versions, as the answer to `VERSION` and as the remedy in an error.
    pub(crate) fn supported() -> [&'static str; 4] {
        Self::ALL.map(Self::as_str)
    }
}
