//! Sequences that once showed a difference, each with a word on what failed.
