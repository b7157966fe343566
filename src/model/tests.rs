//! Numerics of the model.
