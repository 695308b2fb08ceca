//! Part of pgimbal.
