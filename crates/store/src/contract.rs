//! The sentences that every backend must keep.
