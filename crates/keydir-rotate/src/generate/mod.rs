//! What a new revision is made of.
