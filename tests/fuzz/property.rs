//! What the fuzz targets and the short runs of the tests share.

/// A property and inputs that reach deep into the code that must have it.
pub(crate) struct Property {
    pub(crate) name: &'static str,
    /// How many mutations a run of the tests checks: half a second of a debug build.
    pub(crate) inputs: u64,
    pub(crate) check: fn(&[u8]),
    pub(crate) seeds: &'static [&'static [u8]],
}
